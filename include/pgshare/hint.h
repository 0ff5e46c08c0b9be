/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Hints: where equal pages may be found without a scan.
 *
 * A hint goes into a bounded lock-free queue and is looked at by
 * pgshare_host_run() before anything else. It may be dropped (and is counted
 * then) and is never believed: a wrong one costs time, never correctness. All
 * functions return at once; they check the handle, not the pages.
 *
 * Source of the idea: block interception in "Memory CoW in Xen" (2007) and the
 * sharing-aware block device of Satori (USENIX ATC 2009).
 */
#ifndef PGSHARE_HINT_H
#define PGSHARE_HINT_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/**
 * The pages have just been filled with blocks of a disk image that others may
 * read too: page i with the 4 KiB block `block + i`.
 * @param[in] image the embedder's name of the image (of the base image, where
 * the block comes from there), never 0
 * @return 0, ::PGSHARE_ERR_FULL (queue full, dropped), ::PGSHARE_ERR_NODOMAIN,
 * ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_hint_block(struct pgshare_host *host, uint64_t dom,
                                      uint64_t gfn, uint64_t count,
                                      uint64_t image, uint64_t block);

/**
 * The pages hold a file's content: page i the bytes from
 * `(page + i) * PGSHARE_PAGE_SIZE` on.
 * @param[in] file the embedder's name of the file, never 0
 * @return as pgshare_hint_block(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_hint_file(struct pgshare_host *host, uint64_t dom,
                                     uint64_t gfn, uint64_t count,
                                     uint64_t file, uint64_t page);

/**
 * Enters a file into the map of shared libraries: its pages in
 * [page, page + count) are code or read-only data that any process of any
 * guest maps. Savings from these are counted as such, and their entries in the
 * file map are displaced last.
 * @return 0, ::PGSHARE_ERR_FULL, ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_library_add(struct pgshare_host *host,
                                       uint64_t file, uint64_t page,
                                       uint64_t count);

/**
 * `count` pages from gfn_a of dom_a on may equal those from gfn_b of dom_b on.
 * @return as pgshare_hint_block(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_hint_same(struct pgshare_host *host, uint64_t dom_a,
                                     uint64_t gfn_a, uint64_t dom_b,
                                     uint64_t gfn_b, uint64_t count);

/**
 * `child` was forked, restored or cloned from what `parent` was: many pages at
 * equal GFNs may be equal.
 * @return as pgshare_hint_block(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_hint_lineage(struct pgshare_host *host,
                                        uint64_t child, uint64_t parent);

PGSHARE_END_DECLS

#endif
