/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The repayment ledger: entitlement, claims, the FIFO's rules, the reserve.
 * No function here is to be called with a domain's lock, or domains_lock, held,
 * but where it says so.
 */
#ifndef PGS_MECHANISM_LEDGER_H
#define PGS_MECHANISM_LEDGER_H

#include "mechanism/host.h"

/* Frames freed by sharing, which is what CoW can still demand:
 * mappings - frames, zero mappings included. May be negative for an instant,
 * between a publication and its mappings. */
int64_t pgs_ledger_saved(struct pgshare_host *host);

/* reserve + FIFOs + what is unsecured by agreement - saved. Never negative
 * where claims were granted. */
int64_t pgs_ledger_surplus(struct pgshare_host *host);

/* Does the reserve hold all that can be demanded and no claim secures? */
bool pgs_ledger_is_covered(struct pgshare_host *host);

/* Frames that the reserve has to hold: what can be demanded and is secured by
 * no FIFO page that its owner must leave there. 0 where nobody claims and the
 * embedder does not want unclaimed breaks to be paid for. More may be given
 * back to the machine. */
uint64_t pgs_ledger_need(struct pgshare_host *host);

/*
 * 1 where a platform copies even for the last mapping of a frame, and there are
 * frames: that break wants a frame before its own comes back by the release. One
 * is enough for any number of them at once, since they take turns: what was
 * lent comes back when the guest has written, the break was told and its frame
 * was released, and a demand that finds nothing waits for that before it is
 * refused (policy/demand.c). It is part of what can be demanded.
 */
uint64_t pgs_ledger_loan(struct pgshare_host *host);

/* Frames that the reserve has beyond that. */
bool pgs_ledger_has_spare(struct pgshare_host *host);

/* What one of `n` mappings of a frame is entitled to: ⌊ONE (n-1)/n⌋. */
uint64_t pgs_ledger_share(uint64_t n);

/* Entitlement and proportional share of a domain's mappings, in fixed point;
 * walks its words. */
struct pgs_share_sums {
    uint64_t entitlement; /* Σ ⌊(n-1)/n⌋, host's zero mapping counted */
    uint64_t pss;         /* Σ of what is left of each page */
    uint64_t shared;
    uint64_t zero;
};
void pgs_ledger_sums(struct pgs_domain *domain, struct pgs_share_sums *ret);

/* Domain locked: bonus pages that its FIFO secures. */
static inline uint64_t pgs_ledger_secured(const struct pgs_domain *domain)
{
    return (domain->service ? 0 : domain->claimed) + domain->secures;
}

/*
 * The FIFO of a domain. Both take BUSY by one attempt and wait for nothing.
 * push: _STATE, _BUSY, _NOMEM, _GONE. withdraw: _RECLAIMED, _STATE, _OWED,
 * _BUSY (somebody has the page this instant, perhaps to make it pay).
 */
int pgs_volatile_push(struct pgs_domain *domain, uint32_t page);
int pgs_volatile_withdraw(struct pgs_domain *domain, uint32_t page);
/* BUSY held, ends: a page that was taken out to pay, and could not, goes in
 * again, at the young end. False: there is no memory for it any more. */
bool pgs_volatile_restore(struct pgs_domain *domain, uint32_t page);

/* ---- claims ------------------------------------------------------------ */

/* Enters `count` more bonus pages into the books, if entitlement, FIFO and
 * reserve allow it: _ENTITLEMENT, _OWED, _NOFRAME. */
int pgs_bonus_enter(struct pgs_domain *domain, uint64_t count, bool charged);
/* Changes the claim by `count`, but not below 0. */
void pgs_bonus_book(struct pgs_domain *domain, int64_t count, bool charged);

/*
 * A page of `payer`'s FIFO has gone, for a fault of `breaker` (may be NULL): the
 * claim that it secured ends. That is the breaker's if this FIFO secures it,
 * else the payer's own, else of one that it serves. `paid`: its frame came to
 * the reserve.
 */
void pgs_bonus_repaid(struct pgs_domain *payer, struct pgs_domain *breaker,
                      bool paid);

/* Who secures the domain's claims from now on; NULL: itself. _INVALID, _OWED. */
int pgs_service_set(struct pgs_domain *domain, struct pgs_domain *service);

/* A fork makes so many mappings of its child without cover, each of which may
 * demand a frame, since the stub does not; and so many of them are none after
 * all, or have gone, or are paid by nobody's cover. (Of a domain that was forked
 * with cover, or not at all, there are none.) */
void pgs_unsecured_add(struct pgs_domain *child, uint64_t n);
void pgs_unsecured_end(struct pgs_domain *child, uint64_t n);
/* A stub is one no more: for each of its mappings one demand less is without
 * cover, since it may write, or goes. */
void pgs_unsecured_end_stub(struct pgs_domain *stub);

/* A domain goes: its claims end, domains that it serves lose their claims'
 * security (their claims are written off), its FIFO is emptied. */
void pgs_ledger_forget(struct pgs_domain *domain);

/* bonus.c: the calls' flags and the calls. */
#define PGS_BONUS_CHARGE (1u << 0) /* account only, no GFNs */

/* Claims or returns, result and `done` as pgshare/ledger.h says. Of a claim
 * all GFNs have words. NULL: no call is free. end() instead of
 * pgs_call_give(). */
struct pgs_call *pgs_bonus_claim_take(struct pgs_domain *domain, uint64_t gfn,
                                      uint64_t count, uint32_t flags);
struct pgs_call *pgs_bonus_return_take(struct pgs_domain *domain, uint64_t gfn,
                                       uint64_t count, uint32_t flags);
void pgs_bonus_end(struct pgs_call *call);

#endif
