/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The allocator that a host takes its metadata memory from.
 *
 * For authors of platforms and backends. Stable within a minor version.
 */
#ifndef PGSHARE_SYS_ALLOCATOR_H
#define PGSHARE_SYS_ALLOCATOR_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** The block must read as zeroes. Large ones should come lazily backed. */
#define PGSHARE_ALLOC_ZERO 1u
/** A hint: the block, some MiB long, will be used from one end to the other and
 * read at random, so that huge pages pay. */
#define PGSHARE_ALLOC_DENSE 2u

/**
 * @struct pgshare_allocator
 * Both functions may be called from any thread, also with locks of the library
 * held, and must not call the library. They must not fail otherwise than by
 * returning NULL.
 */
struct pgshare_allocator {
    size_t size;
    void *ctx; /**< first argument of both */
    /** `bytes` > 0; `align` a power of two ≥ 8. NULL: no memory. */
    void *(*alloc)(void *ctx, size_t bytes, size_t align, uint32_t flags);
    /** `ptr` not NULL, `bytes` as allocated. */
    void (*free)(void *ctx, void *ptr, size_t bytes);
};

PGSHARE_END_DECLS

#endif
