/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The host: one machine's worth of domains, frames and accounts.
 *
 * Threads: every function of a host may be called from any thread at any time,
 * except pgshare_host_free(). pgshare_host_run() admits one runner at a time.
 * Callbacks are made from pgshare_host_run() and from the calls that need
 * them, without any lock of the library held.
 *
 * After fork() every call in the child answers ::PGSHARE_ERR_FORKED; only
 * pgshare_host_free() is legal there, and it touches nothing that the parent
 * shares.
 */
#ifndef PGSHARE_HOST_H
#define PGSHARE_HOST_H

#include <pgshare/common.h>

struct pgshare_allocator;
struct pgshare_platform;

PGSHARE_BEGIN_DECLS

/** What an `outcome` is about. @since 0.1 */
enum pgshare_outcome_kind {
    PGSHARE_OUTCOME_FAULT = 1, /**< pgshare_fault_write() */
    PGSHARE_OUTCOME_GET,       /**< pgshare_gfn_get() */
    PGSHARE_OUTCOME_MARK,      /**< pgshare_mark_ro(), pgshare_unmark() */
    PGSHARE_OUTCOME_SHARE,     /**< pgshare_share() */
    PGSHARE_OUTCOME_UNSHARE,   /**< pgshare_unshare() */
    PGSHARE_OUTCOME_BONUS      /**< pgshare_bonus_claim(), _return() */
};

/**
 * @struct pgshare_outcome
 * The end of a call that had answered ::PGSHARE_ERR_INPROGRESS.
 */
struct pgshare_outcome {
    size_t size;
    uint64_t token;  /**< as left in the call's struct pgshare_call */
    void *cookie;    /**< the caller's own */
    uint32_t kind;   /**< enum pgshare_outcome_kind */
    int32_t result;  /**< what the call would have returned */
    uint64_t dom;    /**< the call's domain */
    uint64_t gfn;    /**< the call's first GFN that was still open */
    uint64_t count;  /**< pages from there on that this outcome speaks of */
    uint64_t done;   /**< of these, how many succeeded */
    uint32_t fault;  /**< enum pgshare_fault_outcome, for faults */
    uint32_t reserved;
    const uint64_t *tickets; /**< for marks: `count` tickets; else NULL */
};

/** What a `report` is about. @since 0.1 */
enum pgshare_report_kind {
    /** A write hit a read-only range; nothing was written or copied. */
    PGSHARE_REPORT_READONLY_WRITE = 1,
    /** GFNs declared never-share are private now. */
    PGSHARE_REPORT_NEVER_SHARE_DONE,
    /** The backend lost the domain; the library has given up its mappings. */
    PGSHARE_REPORT_DOMAIN_GONE,
    /** The domain's guest ring broke its protocol and was detached. */
    PGSHARE_REPORT_RING_DETACHED,
    /** The backend broke its contract. At most one a run, whatever it was and
     * whomever it was about: `dom` and `gfn` are 0, `count` is by how much
     * stats.backend_errors has grown since the last of these reports. */
    PGSHARE_REPORT_BACKEND_ERROR,
    /** Volatile pages were taken to pay for a fault. */
    PGSHARE_REPORT_RECLAIMED,
    /** A removal that had answered ::PGSHARE_ERR_INPROGRESS is finished. */
    PGSHARE_REPORT_DOMAIN_REMOVED
};

/**
 * @struct pgshare_report
 * Something that a domain's owner should know.
 */
struct pgshare_report {
    size_t size;
    uint32_t kind; /**< enum pgshare_report_kind */
    int32_t error; /**< why, or 0 */
    uint64_t dom;   /**< the domain, 0: none in particular */
    uint64_t gfn;   /**< first page that it is about */
    uint64_t count; /**< pages that it is about */
};

/** The host keeps a frame for every one that CoW can still demand. */
#define PGSHARE_RESERVE_KEEP_ALL UINT64_MAX

/**
 * @struct pgshare_host_options
 * Everything optional; zero means the default in brackets.
 */
struct pgshare_host_options {
    size_t size;
    uint32_t flags; /**< none yet */
    /** Calls that may wait at once, 1…32768 [256]. */
    uint32_t max_calls;
    /** Source of all metadata memory [libc]; must outlive the host. */
    const struct pgshare_allocator *allocator;
    /** Clock, randomness, pressure, log [the process's own]. */
    const struct pgshare_platform *platform;
    /** Told how calls end that could not wait; may be NULL. */
    void (*outcome)(void *ctx, const struct pgshare_outcome *outcome);
    /** Told what a domain's owner should know; may be NULL. */
    void (*report)(void *ctx, const struct pgshare_report *report);
    void *ctx; /**< for the two callbacks */
    /** Frames to take from the machine at once and hold [0]. */
    uint64_t reserve_min;
    /**
     * What is kept of the frames that sharing frees. The default,
     * PGSHARE_RESERVE_KEEP_ALL, is the safe choice: every break can be paid,
     * and freed memory is put to use by claims. A smaller number returns what
     * is beyond it (and beyond what claims need) to the machine, and with it
     * the promise that an unclaimed break can always be paid.
     */
    uint64_t reserve_keep;
    /** Pages that may stay protected while no partner is known [65536]. */
    uint64_t max_protected;
    /** Entries of the hint queue, rounded up to a power of two, at most 2^24
     * [8192]. */
    uint32_t max_hints;
    /** Entries of the block map and of the file map, each [262144]. */
    uint32_t max_map_entries;
    /** How long a call waits that says nothing else [1 s]. */
    uint64_t timeout_ns;
    /** When an operation without an answer is asked about [1 s]. */
    uint64_t op_timeout_ns;
    /** A fingerprint is dropped after so many mismatches [4]. */
    uint32_t max_mismatches;
    uint32_t reserved;
};

/**
 * @struct pgshare_budget
 * How much one pgshare_host_run() may do.
 */
struct pgshare_budget {
    size_t size;
    /** What others wait for comes first, then each of hints and the pass may do
     * one step, even if the time is over [1 ms]. */
    uint64_t time_ns;
    /** Pages to be looked at or shared; the last step may exceed it by an extent
     * [4096]. */
    uint64_t pages;
};

/**
 * @struct pgshare_progress
 * What one pgshare_host_run() did.
 */
struct pgshare_progress {
    size_t size;
    uint64_t hints;    /**< hints taken from the queue */
    uint64_t compared; /**< pages compared */
    uint64_t shared;   /**< mappings made */
    uint64_t broken;   /**< breaks harvested */
    uint64_t outcomes; /**< outcomes delivered */
    uint64_t scanned;  /**< pages fingerprinted */
    uint32_t more;     /**< 1: work is left that could be done now */
    uint32_t reserved;
};

/**
 * @struct pgshare_poll
 * What to wait for between two runs.
 */
struct pgshare_poll {
    size_t size;
    uint32_t n_fds; /**< descriptors written to `fds` */
    uint32_t max_fds; /**< [in] room in `fds` */
    int *fds;       /**< [in] NULL or `max_fds` elements; poll for input */
    uint64_t deadline_ns; /**< run no later than this, on the platform's
                           *   clock; 0: now; PGSHARE_FOREVER: no need */
};

/**
 * Makes a host over a backend.
 * @param[in] backend borrowed until pgshare_host_free(); serves one host
 * @param[in] options NULL for the defaults; not kept
 * @param[out] ret_host owned by the caller
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_EXISTS (the backend serves another host),
 * ::PGSHARE_ERR_BACKEND (a mandatory operation is missing, or its attach
 * failed); with `reserve_min` also ::PGSHARE_ERR_NOFRAME (it could not be had),
 * ::PGSHARE_ERR_NOTSUP (the backend has no reserve), ::PGSHARE_ERR_INPROGRESS
 * (no answer within `timeout_ns`), or the backend's error. After an error there
 * is no host. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_host_new(struct pgshare_backend *backend,
                 const struct pgshare_host_options *options,
                 struct pgshare_host **ret_host);

/**
 * Removes all domains, which leaves every guest's content intact, detaches the
 * backend and frees the host. No other call may be under way.
 * @param[in] host NULL is fine
 * @return NULL. @since 0.1
 */
PGSHARE_EXPORT struct pgshare_host *pgshare_host_free(struct pgshare_host *host);

/**
 * Does bounded work: events and completions, faults that wait, harvest, guest
 * rings, repayment, hints, candidates, the scanner.
 * @param[in] budget NULL for the defaults
 * @param[out] ret_progress NULL, or what was done
 * @return 0, ::PGSHARE_ERR_BUSY (another thread is the runner, or this is a
 * call from within a callback of the runner), ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_host_run(struct pgshare_host *host,
                                    const struct pgshare_budget *budget,
                                    struct pgshare_progress *ret_progress);

/**
 * What to poll, and when to run next, for any main loop. Work that arrives
 * meanwhile from other threads is announced by the platform's `wake`.
 * @param[in,out] poll see the struct
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_host_poll(struct pgshare_host *host,
                                     struct pgshare_poll *poll);

/**
 * Runs until nothing is left that could be done now, or the time is over.
 * A convenience for tests and small programs.
 * @param[in] timeout_ns on the platform's clock
 * @return 0 when idle, ::PGSHARE_ERR_INPROGRESS when time ran out, else as
 * pgshare_host_run(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_host_settle(struct pgshare_host *host,
                                       uint64_t timeout_ns);

/**
 * Asks for one pass of the scanner (scan.h) over the private pages of a domain,
 * or of all. It begins when the one under way has ended, is done by
 * pgshare_host_run(), and is as fast as the run's budget allows. Any number can
 * be asked for; but those of one domain that have not begun are one, and one
 * over all that has not begun is theirs, too.
 * @param[in] dom a domain, or 0 for all
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_NOTSUP (the backend cannot
 * fingerprint), ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_host_pass(struct pgshare_host *host, uint64_t dom);

PGSHARE_END_DECLS

#endif
