/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Statistics. Counters only grow; the rest is as of now.
 */
#ifndef PGSHARE_STATS_H
#define PGSHARE_STATS_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** Why a page is shared. @since 0.1 */
enum pgshare_cause {
    PGSHARE_CAUSE_CALL = 0, /**< pgshare_share() */
    PGSHARE_CAUSE_BLOCK,    /**< same block of the same image */
    PGSHARE_CAUSE_FILE,     /**< same page of the same file */
    PGSHARE_CAUSE_LIBRARY,  /**< the same, in the map of shared libraries */
    PGSHARE_CAUSE_SAME,     /**< a same-as hint */
    PGSHARE_CAUSE_LINEAGE,  /**< fork lineage */
    PGSHARE_CAUSE_SCAN,     /**< equal fingerprints */
    PGSHARE_CAUSE_FREE,     /**< logically free: the zero frame */
    PGSHARE_CAUSE_FORK,     /**< pgshare_fork() */
    PGSHARE_CAUSE_MAX       /**< their number; grows in later versions */
};

/** Buckets of the histogram: bucket i counts times below 2^i microseconds. */
#define PGSHARE_HISTOGRAM_BUCKETS 32
/** Room in the arrays below for causes and outcomes to come. */
#define PGSHARE_STATS_ROOM 16

/**
 * @struct pgshare_host_stats
 * Figures of a host.
 */
struct pgshare_host_stats {
    size_t size;
    /* as of now */
    uint64_t domains;      /**< that were added and not removed */
    uint64_t tracked;      /**< GFNs with memory */
    uint64_t private_;     /**< of these: private */
    uint64_t protected_;   /**< of these: marked */
    uint64_t mappings;     /**< of these: mappings of frames */
    uint64_t zero_mappings;/**< of these: of the zero frame */
    uint64_t frames;       /**< frames of the cow domain, the zero frame not
                            *   included */
    uint64_t saved;        /**< frames freed: mappings - frames */
    uint64_t reserve;      /**< frames held by the host */
    uint64_t fifo;         /**< volatile pages in all FIFOs */
    uint64_t claimed;      /**< bonus pages granted */
    uint64_t metadata;     /**< bytes asked of the allocator */
    /* ever since */
    uint64_t shared[PGSHARE_STATS_ROOM];  /**< pages that found a partner, by
                                          *   enum pgshare_cause */
    uint64_t faults[PGSHARE_STATS_ROOM];  /**< by enum pgshare_fault_outcome */
    uint64_t payers[PGSHARE_STATS_ROOM];  /**< by enum pgshare_payer */
    uint64_t hints;           /**< taken from the queue */
    uint64_t hints_dropped;   /**< the queue was full */
    uint64_t hints_useless;   /**< named no candidate, or it was void */
    uint64_t compared;        /**< pages compared byte for byte */
    uint64_t different;       /**< of these: were not equal */
    uint64_t rolled_back;     /**< shares given up by a race or declaration */
    uint64_t broken;          /**< breaks learned of by harvest */
    uint64_t reclaimed;       /**< volatile pages that paid */
    uint64_t scanned;         /**< pages fingerprinted */
    uint64_t backend_ops;     /**< operations submitted */
    uint64_t backend_errors;  /**< answers and events that broke the
                               *   contract */
    uint64_t backend_lost;    /**< operations that had to be asked about */
    /** From the hint to the page being shared. */
    uint64_t hint_to_share[PGSHARE_HISTOGRAM_BUCKETS];
    /** Of what hints and passes have shared, in runs of consecutive pages: pages
     * by the order of the largest aligned block in their run … */
    uint64_t order_pages[PGSHARE_STATS_ROOM];
    /** … and the share operations that this saved against page by page. */
    uint64_t order_saved[PGSHARE_STATS_ROOM];
    /** Pages by the length of their run: 2^i … 2^(i+1)-1 in element i, … */
    uint64_t length_pages[PGSHARE_STATS_ROOM];
    /** … and the share operations saved. */
    uint64_t length_saved[PGSHARE_STATS_ROOM];
};

/**
 * @struct pgshare_domain_stats
 * Figures of one domain.
 */
struct pgshare_domain_stats {
    size_t size;
    uint64_t tracked;    /**< GFNs with memory */
    uint64_t private_;   /**< of these: private */
    uint64_t protected_; /**< of these: marked */
    uint64_t shared;     /**< mappings of frames */
    uint64_t zero;       /**< of these: of the zero frame */
    uint64_t pss;        /**< proportional share of the frames that it maps, in
                          *   1/PGSHARE_ENTITLEMENT_ONE page */
    uint64_t held;       /**< GFNs held by gets */
    uint64_t never_share;/**< GFNs declared so */
    uint64_t logically_free; /**< GFNs declared free */
    uint64_t fifo;       /**< volatile pages */
    uint64_t claimed;    /**< bonus pages */
    uint64_t faults[PGSHARE_STATS_ROOM]; /**< by enum pgshare_fault_outcome */
    uint64_t made[PGSHARE_STATS_ROOM]; /**< pages that found a partner, by cause */
    uint64_t broken;     /**< mappings lost by write faults and breaks */
};

/** @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED.
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_host_stats(struct pgshare_host *host,
                                      struct pgshare_host_stats *ret_stats);

/** Linear in the domain's memory.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1 */
PGSHARE_EXPORT int pgshare_domain_stats(struct pgshare_host *host, uint64_t dom,
                                        struct pgshare_domain_stats *ret_stats);

/** @return "block", "scan", … : a static string, NULL for what is none.
 * @since 0.1 */
PGSHARE_EXPORT const char *pgshare_cause_name(uint32_t cause);

/** @return "copied", "last-mapping", … : a static string, NULL for what is
 * none. @since 0.1 */
PGSHARE_EXPORT const char *pgshare_fault_name(uint32_t outcome);

PGSHARE_END_DECLS

#endif
