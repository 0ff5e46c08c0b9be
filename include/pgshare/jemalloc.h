/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief libpgshare-jemalloc: a host's metadata in a jemalloc arena.
 *
 * For programs that run on jemalloc anyway; libpgshare itself never brings a
 * malloc into the program that embeds it. The arena is the host's alone:
 * nothing else lives on its pages, its size is the host's footprint, and all
 * of it goes back to the system in one step when the arena ends.
 *
 *     pgshare_jemalloc_new(NULL, &arena);
 *     options.allocator = pgshare_jemalloc_allocator(arena);
 *     pgshare_host_new(backend, &options, &host);
 *     …
 *     pgshare_host_free(host);
 *     pgshare_jemalloc_free(arena);
 *
 * A user header: stable within a major version. Package
 * `libpgshare-jemalloc`.
 */
#ifndef PGSHARE_JEMALLOC_H
#define PGSHARE_JEMALLOC_H

#include <pgshare/common.h>

struct pgshare_allocator;

PGSHARE_BEGIN_DECLS

struct pgshare_jemalloc;

/** Freed memory goes back to the system at once. */
#define PGSHARE_JEMALLOC_DECAY_NONE UINT64_MAX

/**
 * @struct pgshare_jemalloc_options
 * Zero means the default in brackets.
 */
struct pgshare_jemalloc_options {
    size_t size;
    uint32_t flags; /**< none yet */
    uint32_t reserved;
    /** How long freed memory is kept for the next use, in milliseconds;
     * ::PGSHARE_JEMALLOC_DECAY_NONE [what jemalloc is configured for]. */
    uint64_t decay_ms;
};

/**
 * @struct pgshare_jemalloc_info
 * The arena as of now, in bytes. All zero where jemalloc keeps no statistics.
 */
struct pgshare_jemalloc_info {
    size_t size;
    uint64_t allocated; /**< in blocks that are in use */
    uint64_t resident;  /**< of physical memory, jemalloc's own included */
};

/**
 * Makes an arena.
 * @param[in] options NULL for the defaults; not kept
 * @param[out] ret_arena owned by the caller
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM
 * (no memory, or all of jemalloc's arenas are taken).
 * @threadsafety Any thread. @since 0.1
 */
PGSHARE_EXPORT int pgshare_jemalloc_new(
    const struct pgshare_jemalloc_options *options,
    struct pgshare_jemalloc **ret_arena);

/**
 * Destroys an arena with every block in it. Whatever used it must be gone.
 * @param[in] arena NULL is fine
 * @return NULL.
 * @threadsafety No other call on the arena may be under way. @since 0.1
 */
PGSHARE_EXPORT struct pgshare_jemalloc *pgshare_jemalloc_free(
    struct pgshare_jemalloc *arena);

/**
 * The arena as an allocator, for pgshare_host_options::allocator.
 * @param[in] arena not NULL
 * @return lives as long as the arena; its functions may be called from any
 * thread. @since 0.1
 */
PGSHARE_EXPORT const struct pgshare_allocator *pgshare_jemalloc_allocator(
    const struct pgshare_jemalloc *arena);

/**
 * Tells how much memory the arena is.
 * @param[in] arena not NULL
 * @param[out] ret_info the answer; its `size` is set by the caller
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI.
 * @threadsafety Any thread. @since 0.1
 */
PGSHARE_EXPORT int pgshare_jemalloc_info(
    const struct pgshare_jemalloc *arena,
    struct pgshare_jemalloc_info *ret_info);

PGSHARE_END_DECLS

#endif
