/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The repayment ledger: entitlement, claims, the FIFO's rules, the reserve.
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

/* The FIFO of a domain. push: BUSY is taken by it. */
int pgs_volatile_push(struct pgs_domain *domain, uint32_t page);
int pgs_volatile_withdraw(struct pgs_domain *domain, uint32_t page);

/* Claims; see pgshare/ledger.h. The calls' flags: */
#define PGS_BONUS_CHARGE (1u << 0)
int pgs_bonus_check(struct pgs_domain *domain, uint64_t count);
void pgs_bonus_book(struct pgs_domain *domain, int64_t count, bool charged);

/* A domain goes: its claims end, domains that it serves lose their claims'
 * security (their claims are written off), its FIFO is emptied. */
void pgs_ledger_forget(struct pgs_domain *domain);

#endif
