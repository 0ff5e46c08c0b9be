/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The scanner: finding equal pages that no hint has named.
 *
 * A pass looks at the private pages of a domain, or of all: at those that were
 * written since the last pass where the backend keeps a change log, else at all
 * but those that keep changing. Pages of one trust group with equal
 * fingerprints become candidates, in extents as long as they match, those with
 * the largest aligned blocks first; what is equal byte for byte is shared.
 *
 * pgshare_host_pass() asks for one pass. pgshare_scan_set() lets the library
 * begin passes by itself, within a budget. Either is done by
 * pgshare_host_run(); other threads can help with pgshare_scan_step().
 */
#ifndef PGSHARE_SCAN_H
#define PGSHARE_SCAN_H

#include <pgshare/common.h>

struct pgshare_budget;

PGSHARE_BEGIN_DECLS

/** Bits of pgshare_scan_options::flags. @since 0.1 */
enum pgshare_scan_flag {
    PGSHARE_SCAN_ON = 1 << 0, /**< passes are begun without being asked for */
    PGSHARE_SCAN_STEADY = 1 << 1 /**< at the full rate, whatever it yields */
};

/**
 * @struct pgshare_scan_options
 * How much the scanner may do by itself. Zero means the default in brackets.
 */
struct pgshare_scan_options {
    size_t size;
    uint32_t flags;    /**< enum pgshare_scan_flag */
    uint32_t core_ppm; /**< CPU time at the most, in 1/1000000 of a core, of all
                        *   threads together [1000000] */
    uint32_t idle_ppm; /**< the rate that is left where nothing is found
                        *   [1000] */
    uint32_t pressure; /**< from this memory pressure on, in percent, the rate
                        *   is the full one at once [50] */
    uint64_t yield;    /**< pages shared per second of CPU time below which the
                        *   rate is lowered after a pass [1000] */
    uint64_t pages_per_s; /**< pages fingerprinted per second [no limit] */
    uint64_t cpu_ns;      /**< CPU time from now on in all [no limit] */
};

/**
 * @struct pgshare_scan_info
 * How far the scanner is.
 */
struct pgshare_scan_info {
    size_t size;
    uint64_t passes;   /**< that have ended */
    uint32_t active;   /**< 1: a pass is under way */
    uint32_t rate_ppm; /**< of a core, that steering allows now */
    uint64_t tracked;  /**< of the pass under way, or of the last: pages that
                        *   it has to go through, of a domain or of all, … */
    uint64_t looked;   /**< … pages gone through so far, never more, … */
    uint64_t scanned;  /**< … and pages fingerprinted */
    uint64_t cpu_ns;   /**< CPU time spent so far, by all threads */
    uint64_t yield;    /**< of the last pass: pages shared per second of CPU
                        *   time */
};

/**
 * Sets what the scanner does by itself, from now on at the full rate.
 * @param[in] options NULL: nothing, as it is with a new host
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOTSUP (the
 * backend cannot fingerprint), ::PGSHARE_ERR_BUSY (called from within a
 * callback of the runner), ::PGSHARE_ERR_FORKED. Waits for a
 * pgshare_host_run() that is under way. @since 0.1
 */
PGSHARE_EXPORT int pgshare_scan_set(struct pgshare_host *host,
                                    const struct pgshare_scan_options *options);

/**
 * Tells how far the scanner is.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_BUSY and
 * waits as pgshare_scan_set(), ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_scan_info(struct pgshare_host *host,
                                     struct pgshare_scan_info *ret_info);

/**
 * A scan worker: takes part in the pass under way, with the calling thread's
 * time. Blocks of up to 512 pages are fingerprinted, each by one thread; what
 * follows from it is left to pgshare_host_run(). Any number of threads may do
 * so at once, beside the runner. Of passes that the library has begun by itself
 * no more is done than pgshare_scan_set() allows all threads together.
 *
 * A worker that finds nothing to do comes back after the next
 * pgshare_host_run(), which begins passes and gives time to them, or simply
 * after some milliseconds: asking in vain is not charged to any budget.
 * @param[in] budget NULL for the defaults
 * @param[out] ret_pages GFNs gone through; 0: there is nothing to do now
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_scan_step(struct pgshare_host *host,
                                     const struct pgshare_budget *budget,
                                     uint64_t *ret_pages);

/**
 * Keeps memory whole, for the sake of huge pages: in the regions of 2 MiB (512
 * GFNs) that [gfn, gfn + count) touches, hints and passes share nothing but
 * aligned blocks of 2^order pages: of one that is not equal as a whole, none.
 * What is shared stays so, and a page that is written while its block is being
 * mapped is as one that is written afterwards: it leaves alone. pgshare_share()
 * and pages declared free are not concerned. A backend with PGSHARE_CAP_MERGE
 * has to fingerprint for this; where it cannot, no blocks are shared.
 * @param[in] order 0 (no floor) … PGSHARE_ORDERS - 1
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_scan_floor(struct pgshare_host *host, uint64_t dom,
                                      uint64_t gfn, uint64_t count,
                                      uint32_t order);

PGSHARE_END_DECLS

#endif
