/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Accounts, bonus pages, services and the reserve, at the edge
 * (mechanism/ledger.c, mechanism/bonus.c, mechanism/reserve.c).
 */
#include "api/visit.h"

#include "mechanism/domain.h"
#include "mechanism/ledger.h"
#include "mechanism/reserve.h"

#include <pgshare/ledger.h>

#include <string.h>

int pgshare_account(struct pgshare_host *host, uint64_t dom,
                    struct pgshare_account *ret_account)
{
    struct pgshare_account account = { .size = sizeof(account) };
    struct pgs_share_sums sums;
    struct pgs_domain *domain;
    struct pgs_visit visit;
    int r;

    if (!ret_account)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_domain(&visit, host, dom);
    if (r)
        return r;
    r = pgs_abi_check_out(ret_account, sizeof(account));
    if (r)
        return pgs_visit_end(&visit, r);
    domain = visit.domain;
    pgs_ledger_sums(domain, &sums);
    account.entitlement = sums.entitlement;
    account.pss = sums.pss;
    account.shared = sums.shared;
    pgs_mutex_lock(&domain->lock);
    account.claimed = domain->claimed;
    account.fifo = domain->fifo.used;
    account.repaid = domain->repaid;
    account.service = domain->service ? domain->service->handle : 0;
    account.secures = domain->secures;
    pgs_mutex_unlock(&domain->lock);
    pgs_abi_out(ret_account, &account, sizeof(account));
    return pgs_visit_end(&visit, 0);
}

/* ---- bonus pages ------------------------------------------------------- */

/* The call ends, or goes on without its caller. */
static int drive(struct pgs_call *call, struct pgshare_call *ours)
{
    uint64_t count;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    if (!pgs_visit_drive(call, ours))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    count = call->count;
    ours->done = call->done;
    pgs_bonus_end(call);
    if (ours->results) { /* one call for all: what failed, failed together */
        memset(ours->results, 0, ours->done);
        memset(ours->results + ours->done, r, count - ours->done);
    }
    return r;
}

/* Checks what claim and return have in common; 0: the visit goes on. */
static int begin(struct pgs_visit *visit, struct pgshare_host *host,
                 uint64_t dom, uint64_t gfn, uint64_t count)
{
    int r = pgs_visit_domain(visit, host, dom);

    if (r)
        return r;
    if (gfn == PGSHARE_GFN_NONE ? !count || count > visit->domain->gfns
                                : !pgs_range_ok(visit->domain, gfn, count))
        return pgs_visit_end(visit, PGSHARE_ERR_RANGE);
    if (!(host->info.ops >> PGSHARE_OP_GRANT & 1))
        return pgs_visit_end(visit, PGSHARE_ERR_NOTSUP);
    return 0;
}

int pgshare_bonus_claim(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                        uint64_t count, struct pgshare_call *call)
{
    uint32_t flags = gfn == PGSHARE_GFN_NONE ? PGS_BONUS_CHARGE : 0;
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = begin(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, call);
    if (r)
        return pgs_visit_end(&visit, r);
    if (!flags)
        r = pgs_domain_words(visit.domain, gfn, count);
    if (!r)
        r = drive(pgs_bonus_claim_take(visit.domain, gfn, count, flags), &ours);
    pgs_visit_report(&ours, call);
    return pgs_visit_end(&visit, r);
}

/* A page without a word is a hole: neither private nor claimed. */
static bool has_words(const struct pgs_domain *domain, uint64_t gfn,
                      uint64_t count)
{
    uint64_t last = (gfn + count - 1) >> PGS_CHUNK_SHIFT;

    for (uint64_t i = gfn >> PGS_CHUNK_SHIFT; i <= last; i++)
        if (pgs_page_of(domain, i << PGS_CHUNK_SHIFT) == PGS_PAGE_NONE)
            return false;
    return true;
}

int pgshare_bonus_return(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                         uint64_t count, struct pgshare_call *call)
{
    uint32_t flags = gfn == PGSHARE_GFN_NONE ? PGS_BONUS_CHARGE : 0;
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = begin(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, call);
    if (r)
        return pgs_visit_end(&visit, r);
    if (!flags && !has_words(visit.domain, gfn, count))
        r = PGSHARE_ERR_STATE;
    else
        r = drive(pgs_bonus_return_take(visit.domain, gfn, count, flags),
                  &ours);
    pgs_visit_report(&ours, call);
    return pgs_visit_end(&visit, r);
}

/* ---- services and the reserve ------------------------------------------ */

int pgshare_service_set(struct pgshare_host *host, uint64_t dom,
                        uint64_t service)
{
    struct pgs_domain *payer = NULL;
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    if (service) {
        payer = pgs_domain_of(host, service);
        if (!payer)
            return pgs_visit_end(&visit, PGSHARE_ERR_NODOMAIN);
    }
    return pgs_visit_end(&visit, pgs_service_set(visit.domain, payer));
}

/* How many frames are to be exchanged; more than any machine has where the
 * wish is beyond numbers. */
static int64_t missing(struct pgshare_host *host, uint64_t frames)
{
    uint64_t want = pgs_ledger_need(host) + frames;
    uint64_t held = pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE);

    if (want < frames || want > INT64_MAX)
        want = INT64_MAX;
    return (int64_t)want - (int64_t)held;
}

int pgshare_reserve_set(struct pgshare_host *host, uint64_t frames,
                        uint64_t *ret_frames)
{
    struct pgs_visit visit;
    int64_t frames_got, wanted;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!(host->info.ops >> PGSHARE_OP_RESERVE & 1))
        return pgs_visit_end(&visit, PGSHARE_ERR_NOTSUP);
    atomic_store_explicit(&host->reserve_wish, frames, memory_order_relaxed);
    wanted = missing(host, frames);
    if (wanted)
        r = pgs_reserve_exchange(host, wanted, host->options.timeout_ns,
                                 &frames_got);
    if (!r && ret_frames)
        *ret_frames = pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE);
    return pgs_visit_end(&visit, r);
}
