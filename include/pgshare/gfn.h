/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Holding pages: gets and puts that name the domain.
 *
 * The 2007 design turned page references into references on (domain, GFN).
 * Whoever reaches a guest's page by another way than the guest's own mapping
 * (device emulation, DMA, a foreign mapping) says so with a get before and a
 * put after. **A page that is the target of DMA, O_DIRECT, io_uring or any
 * other pinned I/O must be held from submission to completion**, or a share in
 * between loses what the device writes.
 */
#ifndef PGSHARE_GFN_H
#define PGSHARE_GFN_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** Why a page is held. @since 0.1 */
enum pgshare_intent {
    /**
     * To read it as it is now. A shared page stays shared, and its frame stays
     * until the put; if the guest writes meanwhile, the guest gets a page of
     * its own and the holder keeps seeing the old content. Who has to follow
     * the guest's writes (a virtio ring) takes write intent.
     */
    PGSHARE_GET_READ = 1,
    /** To write it: made private first, and kept so until the put. */
    PGSHARE_GET_WRITE = 2,
    /** To overwrite all of it: private as well, but its content is not
     * copied; the page may read as zeroes until it is written. */
    PGSHARE_GET_OVERWRITE = 3
};

/**
 * Takes a hold on each of `count` pages. Holds are counted. While a page is
 * held for writing it is neither marked nor shared.
 * @param[in] intent enum pgshare_intent
 * @param[in,out] call NULL: the defaults; with a range, `done` says how many
 * pages, from the first on, are held when an error is returned (without
 * `results`), so that exactly these can be put
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_READONLY (write intent), ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_NOFRAME, ::PGSHARE_ERR_BUSY (`max_calls` calls are waiting),
 * ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_FORKED, or the
 * backend's error. @since 0.1
 */
PGSHARE_EXPORT int pgshare_gfn_get(struct pgshare_host *host, uint64_t dom,
                                   uint64_t gfn, uint64_t count,
                                   uint32_t intent, struct pgshare_call *call);

/**
 * Gives a hold back. Allocates nothing.
 * @return 0, ::PGSHARE_ERR_STATE (not held so), ::PGSHARE_ERR_NODOMAIN,
 * ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_FORKED. Stops at the first error.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_gfn_put(struct pgshare_host *host, uint64_t dom,
                                   uint64_t gfn, uint64_t count,
                                   uint32_t intent);

/** What a GFN is. @since 0.1 */
enum pgshare_gfn_state {
    PGSHARE_GFN_HOLE = 0,  /**< no memory there */
    PGSHARE_GFN_PRIVATE,   /**< memory of the domain's own */
    PGSHARE_GFN_PROTECTED, /**< private, read-only, with a ticket */
    PGSHARE_GFN_SHARED     /**< a mapping of a frame of the cow domain */
};

/** What is declared about a GFN: bits of pgshare_gfn_info::flags. */
enum pgshare_gfn_flag {
    PGSHARE_GFN_FREE = 1 << 0,        /**< declared free: logically zero */
    PGSHARE_GFN_SCRUB = 1 << 1,       /**< being scrubbed */
    PGSHARE_GFN_VOLATILE = 1 << 2,    /**< in a repayment FIFO */
    PGSHARE_GFN_NEVER_SHARE = 1 << 3,
    PGSHARE_GFN_READ_ONLY = 1 << 4,
    PGSHARE_GFN_HELD = 1 << 5,
    PGSHARE_GFN_OVERWRITE = 1 << 6,   /**< next write covers it all */
    PGSHARE_GFN_RECLAIMED = 1 << 7,   /**< a hole that has paid for a fault */
    PGSHARE_GFN_IN_FLIGHT = 1 << 8,   /**< an operation is under way */
    PGSHARE_GFN_BONUS = 1 << 9        /**< granted by a bonus claim */
};

/**
 * @struct pgshare_gfn_info
 * What one GFN is.
 */
struct pgshare_gfn_info {
    size_t size;
    uint32_t state;   /**< enum pgshare_gfn_state */
    uint32_t flags;   /**< enum pgshare_gfn_flag */
    uint64_t ticket;  /**< of a protected or shared page, else 0 */
    uint64_t frame;   /**< of a shared page: the cow domain's name, else 0 */
    uint64_t sharers; /**< mappings of that frame, else 0 */
};

/** Looks one GFN up; the answer may be old by the time it is read.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1 */
PGSHARE_EXPORT int pgshare_gfn_info(struct pgshare_host *host, uint64_t dom,
                                    uint64_t gfn,
                                    struct pgshare_gfn_info *ret_info);

PGSHARE_END_DECLS

#endif
