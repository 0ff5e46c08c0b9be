/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Repayment: entitlement, bonus pages, the reserve, service accounts.
 *
 * A frame with n mappings frees n-1 frames, and each mapping is entitled to
 * (n-1)/n of a page. A domain may claim bonus pages up to its entitlement, and
 * only while its repayment FIFO (pgshare_declare_volatile()) is at least as
 * long as all that it has claimed. When sharing breaks, the frame comes from
 * the host's reserve or, when that is empty, from a volatile page: the
 * breaker's own first, then of whoever claims more than it is entitled to.
 *
 * Invariant, checked by the audit: reserve + FIFOs cover every frame that CoW
 * can still demand under the claims granted. (Satori, USENIX ATC 2009.)
 *
 * A domain that leaves takes its FIFO with it. The claims that it secured are
 * written off, no new claim is granted, and pgshare_host_run() takes the frames
 * that are missing from the machine: at once or, while the machine has too few,
 * at intervals that grow to 5 s (pgshare_host_poll() tells when).
 */
#ifndef PGSHARE_LEDGER_H
#define PGSHARE_LEDGER_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** One page in the fixed point of entitlements. */
#define PGSHARE_ENTITLEMENT_ONE ((uint64_t)1 << 32)

/**
 * @struct pgshare_account
 * A domain's side of the ledger.
 */
struct pgshare_account {
    size_t size;
    uint64_t entitlement; /**< in 1/PGSHARE_ENTITLEMENT_ONE page, rounded down
                           *   per mapping */
    uint64_t claimed;     /**< bonus pages that it holds */
    uint64_t fifo;        /**< volatile pages in its own FIFO */
    uint64_t repaid;      /**< pages of its FIFO that paid for faults */
    uint64_t shared;      /**< GFNs that map a frame */
    uint64_t pss;         /**< its proportional share of these frames, in
                           *   1/PGSHARE_ENTITLEMENT_ONE page, rounded up */
    uint64_t service;     /**< the domain that pays for it, or 0 */
    uint64_t secures;     /**< bonus pages of others that its FIFO secures */
};

/**
 * Computes a domain's account; linear in its shared pages.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_INVALID,
 * ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_account(struct pgshare_host *host, uint64_t dom,
                                   struct pgshare_account *ret_account);

/**
 * Claims `count` bonus pages: all or none. The frames come out of the reserve
 * and appear, zeroed, at the holes from `gfn` on.
 * @param[in] gfn the first of `count` holes, or PGSHARE_GFN_NONE: only the
 * account is charged and the embedder populates (where the backend can)
 * @return 0, ::PGSHARE_ERR_ENTITLEMENT, ::PGSHARE_ERR_OWED (the FIFO is too
 * short), ::PGSHARE_ERR_NOFRAME (the reserve has not so many, or is short),
 * ::PGSHARE_ERR_EXISTS (a GFN is no hole), ::PGSHARE_ERR_BUSY (one is in
 * flight, or `max_calls` calls are waiting), ::PGSHARE_ERR_NODOMAIN,
 * ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_FULL,
 * ::PGSHARE_ERR_NOTSUP, ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_BACKEND, ::PGSHARE_ERR_FORKED, or the backend's error. With
 * ::PGSHARE_ERR_BACKEND frames may be left that could not be taken back; they
 * are claimed, and `done` says how many. @since 0.1
 */
PGSHARE_EXPORT int pgshare_bonus_claim(struct pgshare_host *host, uint64_t dom,
                                       uint64_t gfn, uint64_t count,
                                       struct pgshare_call *call);

/**
 * Hands bonus pages back: their memory returns to the reserve, their GFNs are
 * holes again, the claim shrinks by as many.
 * @param[in] gfn `count` private pages, or PGSHARE_GFN_NONE for a claim that
 * was made so: the embedder has given the memory back to the machine before
 * @return 0, ::PGSHARE_ERR_STATE (a page is not private, or more than
 * claimed), ::PGSHARE_ERR_NOFRAME (with PGSHARE_GFN_NONE: the machine has not
 * so much; what was not returned stays claimed), ::PGSHARE_ERR_BUSY,
 * ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_NOTSUP, ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_BACKEND, ::PGSHARE_ERR_FORKED, or the backend's error.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_bonus_return(struct pgshare_host *host,
                                        uint64_t dom, uint64_t gfn,
                                        uint64_t count,
                                        struct pgshare_call *call);

/**
 * Lets the FIFO of a service domain secure the claims of a domain that cannot
 * keep one itself (an unmodified HVM guest): claims of `dom` need FIFO pages
 * of `service`, and faults are paid from there.
 * @param[in] service 0 ends it
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_OWED (the FIFOs would not
 * cover the claims), ::PGSHARE_ERR_INVALID (itself, or a chain),
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_service_set(struct pgshare_host *host, uint64_t dom,
                                       uint64_t service);

/**
 * Takes frames from the machine into the reserve, or gives back, until the
 * reserve holds `frames` beyond what the claims need. Later, pgshare_host_run()
 * gives back what is beyond both, and takes what the claims come to need, but
 * not what is missing of `frames`.
 * @param[out] ret_frames NULL, or what the reserve holds now
 * @return 0, ::PGSHARE_ERR_NOFRAME (the machine has fewer; what could be had
 * is held), ::PGSHARE_ERR_OWED (claims need more), ::PGSHARE_ERR_INPROGRESS,
 * ::PGSHARE_ERR_BUSY (`max_calls` calls are waiting), ::PGSHARE_ERR_NOTSUP,
 * ::PGSHARE_ERR_FORKED, or the backend's error. @since 0.1
 */
PGSHARE_EXPORT int pgshare_reserve_set(struct pgshare_host *host,
                                       uint64_t frames, uint64_t *ret_frames);

PGSHARE_END_DECLS

#endif
