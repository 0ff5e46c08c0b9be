/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Holds: the counts behind pgshare_gfn_get() and _put(), in a hash table by
 * the page's ordinal, since few pages are held at once. A hold for reading on
 * a shared page pins the frame that it saw; the table remembers which.
 *
 * The word's HELD attribute is set iff the table has an entry, HELD_WRITE iff
 * the entry's `writes` is not 0; both change under the table's lock.
 */
#ifndef PGS_TABLES_HOLD_H
#define PGS_TABLES_HOLD_H

#include "base/alloc.h"
#include "base/lock.h"

#include <stdbool.h>

/* Invariant: reads + writes > 0; pinned frame ⇒ pins ≤ reads. */
struct pgs_hold {
    uint32_t page; /* ordinal, PGS_PAGE_NONE: empty slot */
    uint32_t reads;
    uint32_t writes;
    uint32_t frame; /* pinned for `pins` of the reads, or PGS_NONE */
    uint32_t pins;
};

/* Open addressing, linear probing, backward-shift deletion; ≤ 3/4 full. */
struct pgs_holds {
    struct pgs_heap *heap;
    struct pgs_mutex lock;
    struct pgs_hold *slots; /* NULL until the first add */
    uint64_t secret;        /* of the hash */
    uint32_t mask;
    uint32_t used;
};

int pgs_holds_init(struct pgs_holds *holds, struct pgs_heap *heap,
                   uint64_t secret);
void pgs_holds_fini(struct pgs_holds *holds);
/* That the table has the room that it should. With the lock. */
bool pgs_holds_is_valid(const struct pgs_holds *holds);

/* All with the lock held. find: NULL where there is none. add: the entry of
 * the page, made if need be (all zero, frame PGS_NONE); NULL: no memory. The
 * pointers are good until the next add or drop. */
struct pgs_hold *pgs_holds_find(struct pgs_holds *holds, uint32_t page);
struct pgs_hold *pgs_holds_add(struct pgs_holds *holds, uint32_t page);
void pgs_holds_drop(struct pgs_holds *holds, struct pgs_hold *hold);

#endif
