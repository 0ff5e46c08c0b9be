/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory for metadata. A struct pgs_heap is the host's view of its allocator:
 * it counts what it handed out, so that the statistics can tell the price of
 * sharing. Sizes are overflow-checked; NULL is an ordinary answer.
 */
#ifndef PGS_BASE_ALLOC_H
#define PGS_BASE_ALLOC_H

#include <pgshare/sys/allocator.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Invariant: bytes = Σ sizes of the blocks that are allocated. */
struct pgs_heap {
    struct pgshare_allocator allocator;
    _Atomic uint64_t bytes;
    _Atomic bool large; /* so much memory was tracked that tables are long */
};

static inline bool pgs_is_power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* `allocator` NULL: libc, and mmap() from 128 KiB on, so that large blocks are
 * backed when they are touched. Copied. */
void pgs_heap_init(struct pgs_heap *heap,
                   const struct pgshare_allocator *allocator);
/* `n` > 0 elements of `size` > 0 bytes, aligned to `align`, zeroed. */
void *pgs_heap_zalloc(struct pgs_heap *heap, size_t n, size_t size,
                      size_t align);
/* The same with PGSHARE_ALLOC_DENSE, for a table that fills up. */
void *pgs_heap_zalloc_dense(struct pgs_heap *heap, size_t n, size_t size,
                            size_t align);
/* Makes `to` what `from` was; no block changes. */
void pgs_heap_move(struct pgs_heap *to, const struct pgs_heap *from);
/* NULL is fine. */
void pgs_heap_free(struct pgs_heap *heap, void *ptr, size_t n, size_t size);
/* The libc allocator, by value, so that a host can free itself at the end. */
struct pgshare_allocator pgs_allocator_libc(void);

#define PGS_NEW(heap, type) \
    ((type *)pgs_heap_zalloc((heap), 1, sizeof(type), _Alignof(type)))
#define PGS_NEW_N(heap, type, n) \
    ((type *)pgs_heap_zalloc((heap), (n), sizeof(type), _Alignof(type)))
#define PGS_FREE(heap, ptr) \
    pgs_heap_free((heap), (ptr), 1, sizeof(*(ptr)))
#define PGS_FREE_N(heap, ptr, n) \
    pgs_heap_free((heap), (ptr), (n), sizeof(*(ptr)))

#endif
