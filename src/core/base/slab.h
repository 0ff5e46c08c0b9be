/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An array of equal records that grows without moving: chunks of 2^shift
 * records, found by a directory that is allocated once (and backed lazily).
 * Records are named by 32-bit indices. Growing is the owner's to serialise;
 * reading needs no lock. There is no shrinking: chunks go with the slab.
 */
#ifndef PGS_BASE_SLAB_H
#define PGS_BASE_SLAB_H

#include "base/alloc.h"

#include <assert.h>

#define PGS_NONE UINT32_MAX

/* Invariant: size is a multiple of 2^shift and at most limit; chunk i is there
 * iff i < size >> shift. */
struct pgs_slab {
    struct pgs_heap *heap;
    uint32_t record; /* bytes of a record */
    uint32_t shift;  /* log2 of the records in a chunk */
    uint64_t limit;  /* records at the most: chunks, below 2^32 */
    _Atomic uint64_t size; /* records that have memory */
    char *_Atomic *chunks;
};

int pgs_slab_init(struct pgs_slab *slab, struct pgs_heap *heap,
                  uint32_t record, uint32_t shift, uint64_t limit);
void pgs_slab_fini(struct pgs_slab *slab);
/* The invariant, as far as O(1) goes. */
bool pgs_slab_is_valid(const struct pgs_slab *slab);
/* One chunk more, zeroed. PGSHARE_ERR_NOMEM or _FULL. Serialised by owner. */
int pgs_slab_grow(struct pgs_slab *slab);

/* `index` < size, as seen by this thread. */
static inline void *pgs_slab_at(const struct pgs_slab *slab, uint32_t index)
{
    uint32_t chunk = index >> slab->shift;
    uint32_t within = index & ((1u << slab->shift) - 1);

    assert(index < atomic_load_explicit(&slab->size, memory_order_relaxed));
    return atomic_load_explicit(&slab->chunks[chunk], memory_order_acquire) +
           (size_t)within * slab->record;
}

#endif
