/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Sharing by hand: mark read-only, share, unshare; the cow domain.
 *
 * Two calls, as in the 2007 design: mark both sides, then share. A mark gives
 * a ticket, a never-reused 64-bit version of the page's content; any write, or
 * anything else that makes the mark void, makes the ticket stale. A share
 * names both tickets and is refused if either side was never, or is no longer,
 * marked. The library compares the bytes itself: a ticket proves that nothing
 * was written since, never that two pages are equal.
 */
#ifndef PGSHARE_SHARE_H
#define PGSHARE_SHARE_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/**
 * Marks pages read-only (Xen: nominate). A page that is marked or shared
 * already answers with the ticket that it has.
 * @param[out] ret_tickets `count` elements; 0 where the page failed
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_BUSY (held, volatile, in flight, or pinned in the backend; or
 * `max_calls` calls are waiting), ::PGSHARE_ERR_NEVER_SHARE,
 * ::PGSHARE_ERR_NOTSUP (the domain's pages cannot be remapped),
 * ::PGSHARE_ERR_FULL (`max_protected`), ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_SUSPENDED, ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_FORKED, or the backend's error. @since 0.1
 */
PGSHARE_EXPORT int pgshare_mark_ro(struct pgshare_host *host, uint64_t dom,
                                   uint64_t gfn, uint64_t count,
                                   uint64_t *ret_tickets,
                                   struct pgshare_call *call);

/**
 * Takes marks back; the pages are writable again, the tickets void.
 * @param[in] tickets NULL: whatever they are; else each must be the current
 * @return 0, ::PGSHARE_ERR_TICKET (not marked, or another ticket),
 * ::PGSHARE_ERR_STATE (shared meanwhile), and as pgshare_mark_ro().
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_unmark(struct pgshare_host *host, uint64_t dom,
                                  uint64_t gfn, uint64_t count,
                                  const uint64_t *tickets,
                                  struct pgshare_call *call);

/** Mark both sides as part of the share; tickets must be NULL then. */
#define PGSHARE_SHARE_MARK (1u << 0)

/**
 * @struct pgshare_share_request
 * An extent of the source and of the client.
 */
struct pgshare_share_request {
    size_t size;
    uint32_t flags;         /**< PGSHARE_SHARE_MARK */
    uint32_t reserved;
    uint64_t source_dom;    /**< whose pages stay, as frames */
    uint64_t source_gfn;    /**< first of them */
    uint64_t client_dom;    /**< whose pages are given up for them */
    uint64_t client_gfn;    /**< first of them */
    uint64_t count;         /**< pages */
    const uint64_t *source_tickets; /**< `count` elements */
    const uint64_t *client_tickets; /**< `count` elements */
};

/**
 * Shares an extent: the client's GFNs (and every other GFN that maps the
 * client's frame, if it has become one) are remapped to the source's frame,
 * read-only. The client has the source's ticket from then on. A pair that is
 * shared already succeeds, with PGSHARE_SHARE_MARK or with the tickets that its
 * sides have now; those that made it are void for the client. What could not be shared
 * stays as it was, marked or, with PGSHARE_SHARE_MARK, is unmarked again.
 * @return 0, ::PGSHARE_ERR_SOURCE_TICKET, ::PGSHARE_ERR_CLIENT_TICKET,
 * ::PGSHARE_ERR_DIFFERENT, ::PGSHARE_ERR_GROUP, ::PGSHARE_ERR_NEVER_SHARE,
 * ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_INVALID (the two
 * extents overlap), ::PGSHARE_ERR_BUSY, ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_NOFRAME, ::PGSHARE_ERR_FULL (the frame
 * has as many mappings as the backend allows), ::PGSHARE_ERR_NOTSUP,
 * ::PGSHARE_ERR_SUSPENDED, ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_BACKEND, ::PGSHARE_ERR_FORKED, or the backend's error.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_share(struct pgshare_host *host,
                                 const struct pgshare_share_request *request,
                                 struct pgshare_call *call);

/**
 * Makes pages private again, as a write fault would, in all GFNs of the range
 * that are shared; others are left alone. Allocates no metadata. What pays for
 * them is the ledger's to choose, as for a fault: a claim may shrink by it.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_NOFRAME, ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_BUSY
 * (`max_calls` calls are waiting), ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_FORKED,
 * or the backend's error. @since 0.1
 */
PGSHARE_EXPORT int pgshare_unshare(struct pgshare_host *host, uint64_t dom,
                                   uint64_t gfn, uint64_t count,
                                   struct pgshare_call *call);

/**
 * @struct pgshare_frame_info
 * One page that the cow domain owns.
 */
struct pgshare_frame_info {
    size_t size;
    uint64_t frame;    /**< the library's name of it; never 0 */
    uint64_t id;       /**< the backend's (MFN, share handle, pool offset) */
    uint64_t ticket;   /**< never reused: tells apart frames of one name */
    uint64_t mappings; /**< GFNs that map it */
    uint64_t group;    /**< 0: the zero frame, common to all */
};

/**
 * Lists what the cow domain owns, in ascending order of `frame`.
 * @param[in] after 0 for the first, else the `frame` seen last
 * @return 0, ::PGSHARE_ERR_RANGE (no more), ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_cow_next(struct pgshare_host *host, uint64_t after,
                                    struct pgshare_frame_info *ret_info);

/**
 * Walks the reverse map of a frame.
 * @param[in] frame of struct pgshare_frame_info or pgshare_gfn_info
 * @param[in] visit called without a lock of the library, once per mapping that
 * was there all the while; a non-zero answer ends the walk
 * @return 0, what `visit` returned, ::PGSHARE_ERR_RANGE (no such frame),
 * ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_FORKED.
 * @since 0.1
 */
PGSHARE_EXPORT int
pgshare_frame_mappings(struct pgshare_host *host, uint64_t frame,
                       int (*visit)(void *ctx, uint64_t dom, uint64_t gfn),
                       void *ctx);

PGSHARE_END_DECLS

#endif
