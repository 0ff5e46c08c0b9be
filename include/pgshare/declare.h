/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Declarations: what a domain's owner says about its own pages.
 *
 * A declaration is synchronous, never dropped, and in force on return: every
 * later commit checks it, so that a share of that GFN which is under way rolls
 * back. Undoing what is shared already follows, and is reported where said
 * so. A wrong declaration can lose the content of that domain only. All of
 * them work on ranges, stop at the first error, and wait for nothing.
 *
 * The allocation cycle (2007): in use → freed → scrubbed → allocated. From its
 * free until the first write after its next allocation a page is logically
 * zero: a write fault there copies nothing, and the page may be given up for
 * the zero frame without being read.
 */
#ifndef PGSHARE_DECLARE_H
#define PGSHARE_DECLARE_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/**
 * The guest's allocator has freed the pages: their content does not matter
 * any more and reads as zero or as what it was.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_INPROGRESS (a hole is becoming memory this instant: call again),
 * ::PGSHARE_ERR_READONLY, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_free(struct pgshare_host *host,
                                        uint64_t dom, uint64_t gfn,
                                        uint64_t count);

/**
 * The guest is scrubbing free pages (writing zeroes): write faults there copy
 * nothing. Ends with pgshare_declare_allocated() or another _free().
 * @return as pgshare_declare_free(), and ::PGSHARE_ERR_STATE (not free).
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_scrub(struct pgshare_host *host,
                                         uint64_t dom, uint64_t gfn,
                                         uint64_t count);

/**
 * The guest's allocator hands the pages out. To be called before the guest may
 * use them; from the return on their content counts. A page that the zero
 * frame stands for stays so until its first write, which copies nothing.
 * @return as pgshare_declare_free(); ::PGSHARE_ERR_INPROGRESS also where a page
 * is being given up for the zero frame this instant. @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_allocated(struct pgshare_host *host,
                                             uint64_t dom, uint64_t gfn,
                                             uint64_t count);

/**
 * The next write to each page covers all of it (a block read from disk, a
 * page-sized copy): a write fault copies nothing. Ends with that fault.
 * @return as pgshare_declare_free(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_overwrite(struct pgshare_host *host,
                                             uint64_t dom, uint64_t gfn,
                                             uint64_t count);

/**
 * Puts pages at the young end of the domain's repayment FIFO: their content
 * may be dropped to pay for a fault. They must be private and are not shared
 * while they are in it. The oldest pays first; if it is held then, or the
 * backend cannot take it, it goes back to the young end.
 * @param[in,out] call only `done` is used: how many were pushed; may be NULL
 * @return 0, ::PGSHARE_ERR_STATE (a page is not private, or in the FIFO
 * already), ::PGSHARE_ERR_BUSY (held or in flight), ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_volatile(struct pgshare_host *host,
                                            uint64_t dom, uint64_t gfn,
                                            uint64_t count,
                                            struct pgshare_call *call);

/**
 * Takes pages out of the FIFO again, wherever they stand in it; on success
 * their content is what it was.
 * @param[in,out] call only `results` and `done` are used; may be NULL
 * @return 0, ::PGSHARE_ERR_RECLAIMED (it has paid already; it reads as
 * zeroes), ::PGSHARE_ERR_STATE (was not in the FIFO), ::PGSHARE_ERR_OWED (the
 * FIFO would be shorter than the claims that it secures; return bonus or push
 * other pages first), ::PGSHARE_ERR_BUSY (in flight, perhaps to pay: call
 * again), ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_ABI,
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_withdraw(struct pgshare_host *host,
                                            uint64_t dom, uint64_t gfn,
                                            uint64_t count,
                                            struct pgshare_call *call);

/**
 * @struct pgshare_never_share
 * What is still shared, and why.
 */
struct pgshare_never_share {
    size_t size;
    uint64_t shared;    /**< pages with a frame; being undone by the runner */
    uint64_t in_flight; /**< pages that an operation holds; it rolls back */
    uint64_t marked;    /**< pages only protected; being unmarked */
};

/**
 * Pages that hold secrets: never marked, never shared, never fingerprinted
 * from now on, be there memory yet or not; a unit of 65,536 GFNs in which there
 * is none gets its GFN table now, 8 bytes a GFN. With `on` 0 the declaration
 * ends.
 * Pages that are shared are made private by the next pgshare_host_run() calls;
 * ::PGSHARE_REPORT_NEVER_SHARE_DONE tells. The answer says how many are left.
 * @param[out] ret_left NULL, or what is left to undo
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_FULL (no table; then nothing was declared),
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_declare_never_share(struct pgshare_host *host, uint64_t dom,
                            uint64_t gfn, uint64_t count, int on,
                            struct pgshare_never_share *ret_left);

/**
 * Read-only memory: a write is reported to the owner
 * (::PGSHARE_REPORT_READONLY_WRITE) and never copied. Such pages can be shared
 * as a source and as a client.
 * @return 0, ::PGSHARE_ERR_NOTSUP (the backend cannot), ::PGSHARE_ERR_BUSY
 * (held for writing, volatile or in flight, or `max_calls` calls are waiting),
 * ::PGSHARE_ERR_STATE (declared free), ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_INPROGRESS (no
 * answer within the host's time-out: call again), ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_BACKEND, ::PGSHARE_ERR_FORKED, or the backend's error. Waits
 * for the backend, alone among the declarations. @since 0.1
 */
PGSHARE_EXPORT int pgshare_declare_read_only(struct pgshare_host *host,
                                             uint64_t dom, uint64_t gfn,
                                             uint64_t count, int on);

PGSHARE_END_DECLS

#endif
