/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of the library are read by threads that hold no lock while another
 * thread makes them larger, so a record must never move. The price is one more
 * load: a directory of pointers to chunks, of its full length from the start,
 * which costs address space only, since what was never touched is not backed.
 *
 * A chunk is published in two steps: its pointer with release, then the size.
 * Whoever got an index from the owner knows that the chunk is there, and the
 * acquire load of the pointer makes the chunk's zeroes visible.
 */
#include "base/slab.h"

#include <pgshare/error.h>

/* Chunks begin on a cache line, and so does each record of 64 bytes. */
#define CHUNK_ALIGN 64u
/* A chunk that is worth huge pages. */
#define CHUNK_DENSE ((size_t)2 << 20)

bool pgs_slab_is_valid(const struct pgs_slab *slab)
{
    uint64_t size = atomic_load_explicit(&slab->size, memory_order_relaxed);
    uint64_t within = (UINT64_C(1) << slab->shift) - 1;

    return slab->chunks != NULL && slab->record > 0 && size <= slab->limit &&
           (size & within) == 0 && (slab->limit & within) == 0;
}

static size_t n_chunks(const struct pgs_slab *slab)
{
    return (size_t)(slab->limit >> slab->shift);
}

int pgs_slab_init(struct pgs_slab *slab, struct pgs_heap *heap,
                  uint32_t record, uint32_t shift, uint64_t limit)
{
    assert(heap != NULL);
    assert(record > 0 && shift < 32);
    assert(limit > 0 && limit < UINT64_C(1) << 32);
    assert((limit & ((UINT64_C(1) << shift) - 1)) == 0);
    slab->heap = heap;
    slab->record = record;
    slab->shift = shift;
    slab->limit = limit;
    atomic_init(&slab->size, 0);
    slab->chunks = pgs_heap_zalloc(heap, n_chunks(slab),
                                   sizeof(*slab->chunks), CHUNK_ALIGN);
    if (!slab->chunks)
        return PGSHARE_ERR_NOMEM;
    assert(pgs_slab_is_valid(slab));
    return 0;
}

void pgs_slab_fini(struct pgs_slab *slab)
{
    uint64_t used;

    if (!slab->chunks)
        return;
    assert(pgs_slab_is_valid(slab));
    used = atomic_load_explicit(&slab->size, memory_order_relaxed) >>
           slab->shift;
    for (uint64_t i = 0; i < used; i++)
        pgs_heap_free(slab->heap, atomic_load(&slab->chunks[i]),
                      (size_t)1 << slab->shift, slab->record);
    pgs_heap_free(slab->heap, slab->chunks, n_chunks(slab),
                  sizeof(*slab->chunks));
    slab->chunks = NULL;
}

/* A chunk that will be full costs no more in huge pages, if it is as long as
 * one. The first one may stay nearly empty, where little memory is tracked. */
static char *chunk_new(struct pgs_slab *slab, uint64_t size)
{
    size_t n = (size_t)1 << slab->shift;

    if (n * slab->record >= CHUNK_DENSE &&
        (size > 0 ||
         atomic_load_explicit(&slab->heap->large, memory_order_relaxed)))
        return pgs_heap_zalloc_dense(slab->heap, n, slab->record, CHUNK_ALIGN);
    return pgs_heap_zalloc(slab->heap, n, slab->record, CHUNK_ALIGN);
}

int pgs_slab_grow(struct pgs_slab *slab)
{
    uint64_t size = atomic_load_explicit(&slab->size, memory_order_relaxed);
    char *chunk;

    assert(pgs_slab_is_valid(slab));
    if (size == slab->limit)
        return PGSHARE_ERR_FULL;
    chunk = chunk_new(slab, size);
    if (!chunk)
        return PGSHARE_ERR_NOMEM;
    atomic_store_explicit(&slab->chunks[size >> slab->shift], chunk,
                          memory_order_release);
    atomic_store_explicit(&slab->size, size + (UINT64_C(1) << slab->shift),
                          memory_order_release);
    assert(pgs_slab_is_valid(slab));
    return 0;
}
