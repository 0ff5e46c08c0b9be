/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Payment: one frame for a fault that found the reserve empty.
 *
 *   pay ─ choose a payer ─┬ a volatile page ─ RECLAIM ─ reclaimed ─→ resume
 *                         └ the machine ──── RESERVE ─ reserved ──→ resume
 *
 * The order (2007; Satori): the breaker's own FIFO, or its service's, as far
 * as it secures claims; then of those domains that claim more than they are
 * entitled to, the one with the oldest volatile page; then the machine, if it
 * happens to have memory; at last any volatile page, the oldest first. As long
 * as the ledger's invariant holds one of these can pay.
 *
 * A reclaimed page becomes a hole that reads as zeroes, and the claim that it
 * secured shrinks by one, so that FIFO and claims stay in step. A page that is
 * held, or that the backend cannot take, goes back into its FIFO, at the young
 * end: so a payment has failed only when it has tried each page that was there
 * when it began, however many are held. A page whose word somebody holds at this
 * instant (its owner is withdrawing it) is waited for, with nothing held.
 */
#include "mechanism/fault.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"
#include "mechanism/ring.h"

#include <pgshare/fault.h>
#include <pgshare/ledger.h>

struct choice {
    struct pgs_domain *domain;
    uint64_t stamp;
};

static enum pgs_verdict resume(struct pgs_call *call, int result)
{
    call->result = result;
    atomic_store_explicit(&call->victim, NULL, memory_order_release);
    call->step = call->resume;
    return PGS_NEXT;
}

/* ---- who pays ---------------------------------------------------------- */

/* Has its FIFO a page that this payment has not tried? */
static bool has_volatile(const struct pgs_call *call,
                         struct pgs_domain *domain, uint64_t *ret_stamp)
{
    uint32_t page;
    bool has;

    pgs_mutex_lock(&domain->lock);
    has = pgs_fifo_oldest(&domain->fifo, &page, ret_stamp);
    pgs_mutex_unlock(&domain->lock);
    return has && *ret_stamp < call->pushed;
}

static bool over_claims(struct pgs_domain *domain)
{
    struct pgs_share_sums sums;
    uint64_t claimed;

    pgs_mutex_lock(&domain->lock);
    claimed = domain->claimed;
    pgs_mutex_unlock(&domain->lock);
    if (!claimed)
        return false;
    pgs_ledger_sums(domain, &sums);
    return claimed > sums.entitlement / PGSHARE_ENTITLEMENT_ONE;
}

/* The domain with the oldest volatile page, of all or of those that claim too
 * much. */
static struct pgs_domain *oldest(const struct pgs_call *call, bool over)
{
    struct pgshare_host *host = call->host;
    struct choice best = { NULL, UINT64_MAX };

    for (uint32_t slot = 1; slot < host->slots_used; slot++) {
        struct pgs_domain *domain = atomic_load_explicit(
            &host->slots[slot], memory_order_seq_cst);
        uint64_t stamp;

        if (!domain || pgs_domain_flags(domain) & PGS_DOMAIN_GONE ||
            !has_volatile(call, domain, &stamp) || stamp >= best.stamp)
            continue;
        if (over && !over_claims(domain))
            continue;
        best.domain = domain;
        best.stamp = stamp;
    }
    return best.domain;
}

static struct pgs_domain *own_payer(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain, *payer;
    uint64_t stamp;
    bool secures;

    pgs_mutex_lock(&domain->lock);
    payer = domain->service ? domain->service : domain;
    pgs_mutex_unlock(&domain->lock);
    pgs_mutex_lock(&payer->lock);
    secures = pgs_ledger_secured(payer) > 0;
    pgs_mutex_unlock(&payer->lock);
    call->payer = payer == domain ? PGSHARE_PAID_OWN_FIFO
                                  : PGSHARE_PAID_SERVICE;
    return secures && has_volatile(call, payer, &stamp) ? payer : NULL;
}

/* ---- a volatile page pays ---------------------------------------------- */

static enum pgs_verdict choose(struct pgs_call *call);
static enum pgs_verdict obtained(struct pgs_call *call);
static enum pgs_verdict from_machine(struct pgs_call *call, pgs_step next);

static enum pgs_verdict again(struct pgs_call *call)
{
    return call->repays ? choose(call) : from_machine(call, obtained);
}

/* This page cannot pay, another one may. */
static enum pgs_verdict pass_over(struct pgs_call *call)
{
    if (!pgs_volatile_restore(call->victim, call->victim_page))
        pgs_bonus_repaid(call->victim, call->domain, false);
    call->payer = PGSHARE_PAID_NOTHING;
    return again(call);
}

static void count_repaid(struct pgs_domain *victim)
{
    pgs_mutex_lock(&victim->lock);
    victim->repaid++;
    pgs_mutex_unlock(&victim->lock);
    pgs_count(&victim->host->shards, PGS_COUNT_RECLAIMED, 1);
}

static enum pgs_verdict reclaimed(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    struct pgs_domain *victim = call->victim;
    uint32_t page = call->victim_page;
    uint64_t gfn = pgs_page_gfn(host, page);

    if (call->status[0])
        return pass_over(call);
    atomic_fetch_or_explicit(pgs_word_at(&host->chunks, page),
                             PGS_ATTR_RECLAIMED, memory_order_relaxed);
    pgs_page_commit(host, page, PGS_HOLE,
                    PGS_ATTR_FREE | PGS_ATTR_SCRUB | PGS_ATTR_OVERWRITE |
                        PGS_ATTR_BONUS,
                    0);
    pgs_count(&host->shards, PGS_LEVEL_TRACKED, (uint64_t)-1);
    count_repaid(victim);
    if (call->repays)
        pgs_bonus_repaid(victim, call->domain, true);
    pgs_ring_tell_reclaimed(victim, gfn);
    pgs_report(host, PGSHARE_REPORT_RECLAIMED, 0, victim->handle, gfn, 1);
    return resume(call, 0);
}

/* Takes the oldest page out of the victim's FIFO, in flight. */
static enum pgs_verdict reclaim(struct pgs_call *call,
                                struct pgs_domain *victim)
{
    struct pgshare_host *host = call->host;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RECLAIM,
        .domain = victim->cookie,
        .count = 1,
    };
    uint64_t stamp, word;
    uint32_t page;
    bool has;

    pgs_mutex_lock(&victim->lock);
    has = pgs_fifo_oldest(&victim->fifo, &page, &stamp) &&
          stamp < call->pushed;
    if (!call->repays &&
        (!has || victim->fifo.used <= pgs_ledger_secured(victim))) {
        pgs_mutex_unlock(&victim->lock);
        return resume(call, PGSHARE_ERR_NOFRAME);
    }
    if (!has) {
        pgs_mutex_unlock(&victim->lock);
        return again(call);
    }
    if (!pgs_word_trylock(pgs_word_at(&host->chunks, page), true, &word)) {
        pgs_mutex_unlock(&victim->lock);
        call->waits = page;
        call->step = again;
        return PGS_WAIT_PAGE;
    }
    assert(word & PGS_ATTR_VOLATILE && pgs_word_state(word) == PGS_PRIVATE);
    pgs_fifo_remove(&victim->fifo, pgs_word_index(word));
    atomic_fetch_and_explicit(pgs_word_at(&host->chunks, page),
                              ~PGS_ATTR_VOLATILE, memory_order_relaxed);
    pgs_mutex_unlock(&victim->lock);
    pgs_count(&host->shards, PGS_LEVEL_FIFO, (uint64_t)-1);
    atomic_store_explicit(&call->victim, victim, memory_order_release);
    call->victim_page = page;
    if (word & PGS_ATTR_HELD)
        return pass_over(call); /* a device writes to it */
    op.gfn = pgs_page_gfn(host, page);
    return pgs_call_submit(call, &op, reclaimed);
}

/* ---- the machine pays -------------------------------------------------- */

static enum pgs_verdict from_machine(struct pgs_call *call, pgs_step next)
{
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RESERVE,
        .count = 1,
        .arg = 1,
    };

    call->payer = PGSHARE_PAID_RESERVE;
    if (!(call->host->info.ops >> PGSHARE_OP_RESERVE & 1)) {
        call->status = call->status1;
        call->status1[0] = PGSHARE_ERR_NOFRAME;
        call->step = next;
        return PGS_NEXT;
    }
    return pgs_call_submit(call, &op, next);
}

static enum pgs_verdict reserved(struct pgs_call *call)
{
    struct pgs_domain *victim;

    if (!call->status[0])
        return resume(call, 0);
    victim = oldest(call, false);
    call->payer = PGSHARE_PAID_OTHER_FIFO;
    return victim ? reclaim(call, victim)
                  : resume(call, PGSHARE_ERR_NOFRAME);
}

static enum pgs_verdict choose(struct pgs_call *call)
{
    struct pgs_domain *victim = NULL;

    if (call->domain)
        victim = own_payer(call);
    if (!victim) {
        victim = oldest(call, true);
        call->payer = PGSHARE_PAID_OTHER_FIFO;
    }
    return victim ? reclaim(call, victim) : from_machine(call, reserved);
}

static void begin(struct pgs_call *call, pgs_step next, bool repays)
{
    call->repays = repays;
    call->resume = next;
    call->pushed = atomic_load_explicit(&call->host->pushed,
                                        memory_order_relaxed);
}

enum pgs_verdict pgs_pay(struct pgs_call *call, pgs_step next)
{
    begin(call, next, true);
    return choose(call);
}

/* ---- memory that nothing secures --------------------------------------- */

/* From the machine, or what the reserve has beyond what is owed, or a page of
 * the domain's own that secures nothing. */
static enum pgs_verdict obtained(struct pgs_call *call)
{
    if (!call->status[0] || pgs_ledger_has_spare(call->host))
        return resume(call, 0);
    call->payer = PGSHARE_PAID_OWN_FIFO;
    return reclaim(call, call->domain);
}

enum pgs_verdict pgs_obtain(struct pgs_call *call, pgs_step next)
{
    begin(call, next, false);
    return from_machine(call, obtained);
}
