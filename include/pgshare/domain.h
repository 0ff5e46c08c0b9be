/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Domains: adding, removing, their memory, undo, suspension.
 *
 * A domain is named to the library by (domid, generation); the library answers
 * with a handle, a 64-bit value that is never reused within a host and never
 * 0. A domid that comes back with another generation is another domain.
 */
#ifndef PGSHARE_DOMAIN_H
#define PGSHARE_DOMAIN_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** Domains of one host at the most. */
#define PGSHARE_DOMAINS_MAX 65535u
/** Pages tracked by one host at the most (64 KiB of them short of 16 TiB), in
 * units of 65536. */
#define PGSHARE_TRACKED_MAX (((uint64_t)1 << 32) - 65536)
/** GFNs that one domain may have, most of them holes. */
#define PGSHARE_GFNS_MAX ((uint64_t)1 << 32)

/**
 * @struct pgshare_domain_options
 * A domain as it is added.
 */
struct pgshare_domain_options {
    size_t size;
    uint32_t domid;      /**< the hypervisor's or the embedder's number */
    uint32_t flags;      /**< none yet */
    uint64_t generation; /**< distinguishes uses of one domid */
    uint64_t gfns;       /**< 0 … gfns-1 are legal; ≤ PGSHARE_GFNS_MAX */
    uint64_t group;      /**< of pgshare_group_open(); 0: a group of its own */
    void *attach;        /**< what the backend wants to know of the domain */
};

/**
 * @struct pgshare_domain_info
 * What a domain was added with.
 */
struct pgshare_domain_info {
    size_t size;
    uint32_t domid;      /**< as added */
    uint32_t suspended;  /**< 1 between suspend and resume, and while one of
                          *   them is under way */
    uint64_t generation; /**< as added */
    uint64_t gfns;       /**< as added */
    uint64_t group;      /**< that it is in; its own one has a number, too */
};

/**
 * Adds a domain. All its GFNs are holes until pgshare_domain_ram_add().
 * @param[out] ret_dom the handle
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_EXISTS (same domid and generation), ::PGSHARE_ERR_GROUP (no
 * such group), ::PGSHARE_ERR_FULL, ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_FORKED,
 * or the backend's error. A domid that is known under another generation is
 * added as a new domain; the old one stays until it is removed. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_domain_add(struct pgshare_host *host,
                   const struct pgshare_domain_options *options,
                   uint64_t *ret_dom);

/**
 * Removes a domain: its handle is void at once, calls that wait in it answer
 * ::PGSHARE_ERR_GONE, its mappings are given up, its claims end. The guest's
 * own view of its memory is the embedder's to destroy afterwards. Linear in
 * the domain's own mappings. Allocates nothing. Frames that it was the last to
 * map are in the reserve after the next pgshare_host_run().
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_FORKED,
 * ::PGSHARE_ERR_INPROGRESS: called from a callback, or an operation on another
 * domain still names this one; the runner finishes the work and reports
 * ::PGSHARE_REPORT_DOMAIN_REMOVED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_domain_remove(struct pgshare_host *host,
                                         uint64_t dom);

/**
 * Finds a handle.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_domain_find(struct pgshare_host *host,
                                       uint32_t domid, uint64_t generation,
                                       uint64_t *ret_dom);

/** @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1 */
PGSHARE_EXPORT int pgshare_domain_info(struct pgshare_host *host, uint64_t dom,
                                       struct pgshare_domain_info *ret_info);

/**
 * States that there is private memory of the domain at these GFNs (a memory
 * slot was added, a balloon deflated). Allocates the GFN table, 8 bytes a GFN
 * in units of 65,536 GFNs.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_FULL, ::PGSHARE_ERR_EXISTS (a GFN of the range is no hole),
 * ::PGSHARE_ERR_BUSY (an operation was under way on one for longer than the
 * host's time-out, or `max_calls` calls are waiting), ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_FORKED; on an error nothing was added. @since 0.1
 */
PGSHARE_EXPORT int pgshare_domain_ram_add(struct pgshare_host *host,
                                          uint64_t dom, uint64_t gfn,
                                          uint64_t count);

/**
 * States that the memory at these GFNs is going away (a slot is removed, a
 * balloon inflates). Shared pages are given up without a copy, marks and
 * volatile pages are forgotten; the GFNs become holes.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_BUSY
 * (a page is held, or `max_calls` calls are waiting), ::PGSHARE_ERR_OWED (a
 * volatile page secures a claim), ::PGSHARE_ERR_INPROGRESS,
 * ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_FORKED, or the backend's error. @since 0.1
 */
PGSHARE_EXPORT int pgshare_domain_ram_remove(struct pgshare_host *host,
                                             uint64_t dom, uint64_t gfn,
                                             uint64_t count,
                                             struct pgshare_call *call);

/**
 * @struct pgshare_unshare_progress
 * How far it got.
 */
struct pgshare_unshare_progress {
    size_t size;
    uint64_t next;    /**< GFN to go on with; the range's end when finished */
    uint64_t private_; /**< pages that this call made private */
    uint64_t missing; /**< frames that the part looked at lacks, with NOFRAME */
};

/**
 * Makes memory private again, before device passthrough, migration or
 * decommissioning. Refuses before it would exhaust memory, and says how many
 * frames are missing: for the whole range, or with a budget for that part of it
 * which this call looks at.
 * @param[in] budget pages to look at in this call; 0: all. GFNs that never had
 * memory are stepped over, up to 65,536 at once, and count as one page
 * @param[out] ret_progress set on success and with ::PGSHARE_ERR_NOFRAME
 * @return 0 (call again while `next` is not the end), ::PGSHARE_ERR_NODOMAIN,
 * ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_NOFRAME, ::PGSHARE_ERR_INPROGRESS (a page
 * is in flight; call again), ::PGSHARE_ERR_BUSY (`max_calls` calls are
 * waiting), ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_FORKED, or the backend's error.
 * @since 0.1
 */
PGSHARE_EXPORT int
pgshare_domain_unshare(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                       uint64_t count, uint64_t budget,
                       struct pgshare_unshare_progress *ret_progress);

/**
 * Hands dirty log and fault handling back to a VMM that migrates or takes a
 * snapshot. Sharing of this domain stops; what is shared stays shared and
 * faults are still resolved. Waits for its pages in flight, up to the host's
 * time-out; what the runner has begun with them ends only while another thread
 * is in pgshare_host_run().
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_STATE (it is suspended),
 * ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_BUSY (`max_calls` calls are waiting),
 * ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_FORKED, ::PGSHARE_ERR_BACKEND (its answer
 * is lost for good: nobody knows, so that it shares nothing until a call
 * succeeds; call again), or the backend's error: it shares again, but what the
 * backend has done is its own to say; call again.
 *
 * INPROGRESS, call again: pages are still in flight, and it shares again; or
 * the backend has not answered within the time-out, or another thread is
 * suspending or resuming it. An operation without an answer goes on by the
 * runner: it shares nothing meanwhile, and whoever calls again, to suspend or
 * to resume, goes on from how it ended. @since 0.1
 */
PGSHARE_EXPORT int pgshare_domain_suspend(struct pgshare_host *host,
                                          uint64_t dom);

/** Ends pgshare_domain_suspend().
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_STATE (it is not
 * suspended), ::PGSHARE_ERR_INPROGRESS (no answer within the host's time-out,
 * or another thread is suspending or resuming it: call again),
 * ::PGSHARE_ERR_BUSY (`max_calls` calls are waiting), ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_FORKED, or the backend's error: it stays suspended.
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_domain_resume(struct pgshare_host *host,
                                         uint64_t dom);

PGSHARE_END_DECLS

#endif
