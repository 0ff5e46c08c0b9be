/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains that keep out of sharing for a while.
 *
 * To begin or to end a suspension is to switch. One switches at a time, who
 * has set SWITCHING; so the backend never has two such operations of a domain,
 * whose order would be open. If the time-out ends before the operation, the
 * runner concludes in place of the caller, and the domain is SUSPENDED as long
 * as its backend may be. UNTOLD then remembers that the caller does not know:
 * when it calls again it is told, and nothing is done twice. Where the backend
 * has never answered, DOUBTFUL says that it may or may not be suspended. The
 * domain is SUSPENDED then, and whoever calls again asks the backend again.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/page.h"
#include "policy/scan.h"

#include <pgshare/domain.h>

/* ---- what is in flight --------------------------------------------------- */

/* Somebody else's BUSY, who is told that its end is waited for. */
static bool is_in_flight(struct pgs_domain *domain, uint32_t page)
{
    struct pgshare_host *host = domain->host;
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t word;

    /* in one order with SUSPENDED: a share that has not seen it has the word */
    if (!(atomic_load_explicit(at, memory_order_seq_cst) & PGS_BUSY))
        return false;
    if (!pgs_word_trylock(at, true, &word))
        return true;
    pgs_page_unlock(host, page);
    return false;
}

/* Each page has been seen to be nobody's once since shares were forbidden: so
 * none that began before has any. */
static enum pgs_verdict await_pages(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;

    call->result = PGSHARE_ERR_GONE;
    if (pgs_domain_flags(domain) & (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE))
        return PGS_DONE;
    for (; call->gfn < domain->gfns; call->gfn++) {
        uint32_t page = pgs_page_of(domain, call->gfn);

        if (page == PGS_PAGE_NONE) {
            call->gfn |= PGS_CHUNK_GFNS - 1;
        } else if (is_in_flight(domain, page)) {
            call->waits = page;
            call->result = PGSHARE_ERR_INPROGRESS;
            return pgs_now(&call->host->platform) < call->again_ns
                       ? PGS_WAIT_CALM
                       : PGS_DONE;
        }
    }
    call->result = 0;
    return PGS_DONE;
}

/* Not handed to the runner when the time is over: a caller that asks again and
 * again would leave all calls there, waiting for one stuck page. So the step
 * looks after the time, and *timeout is what is left of it. */
static int settle_pages(struct pgs_visit *visit, uint64_t *timeout)
{
    struct pgs_call *call =
        pgs_call_take(visit->host, visit->domain, await_pages);
    uint64_t now = pgs_now(&visit->host->platform), end, token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    end = *timeout < UINT64_MAX - now ? now + *timeout : UINT64_MAX;
    call->again_ns = end;
    call->timeout = PGSHARE_FOREVER;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    now = pgs_now(&visit->host->platform);
    *timeout = now < end ? end - now : 0;
    return r;
}

/* ---- the switch ---------------------------------------------------------- */

/* False: somebody else is at it. What was there before is in *ret_flags. */
static bool begin_switch(struct pgs_domain *domain, uint32_t *ret_flags)
{
    *ret_flags = atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_SWITCHING,
                                          memory_order_acq_rel);
    return !(*ret_flags & PGS_DOMAIN_SWITCHING);
}

/* An attempt has ended with `r`; `lost`: nobody knows what the backend did. A
 * doubt lasts until an attempt succeeds. */
static void conclude(struct pgs_domain *domain, bool off, int r, bool lost,
                     bool untold)
{
    const uint32_t all = PGS_DOMAIN_SWITCHING | PGS_DOMAIN_SUSPENDED |
                         PGS_DOMAIN_UNTOLD | PGS_DOMAIN_DOUBTFUL;
    uint32_t seen = pgs_domain_flags(domain), flags = 0;

    if (off == (r != 0))
        flags |= PGS_DOMAIN_SUSPENDED;
    if (r && (lost || seen & PGS_DOMAIN_DOUBTFUL))
        flags |= PGS_DOMAIN_SUSPENDED | PGS_DOMAIN_DOUBTFUL;
    if (!r && untold)
        flags |= PGS_DOMAIN_UNTOLD;
    while (!atomic_compare_exchange_weak_explicit(
        &domain->flags, &seen, (seen & ~all) | flags, memory_order_release,
        memory_order_relaxed)) {
    }
    /* what was passed over meanwhile */
    if (!(flags & PGS_DOMAIN_SUSPENDED))
        pgs_scan_redo(domain, 0, domain->gfns);
}

/* The caller has not waited. */
static void conclude_late(struct pgs_call *call)
{
    conclude(call->domain, call->flags & PGSHARE_OP_OFF, call->result,
             pgs_call_is_given_up(call), true);
}

static enum pgs_verdict switched(struct pgs_call *call)
{
    call->result = call->status[0];
    return PGS_DONE;
}

static enum pgs_verdict switch_over(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_SUSPEND,
        .flags = call->flags,
        .domain = domain->cookie,
        .count = 1,
    };

    if (call->host->info.ops & UINT64_C(1) << PGSHARE_OP_SUSPEND)
        return pgs_call_submit(call, &op, switched);
    return PGS_DONE; /* nothing to hand back: all faults are ours anyway */
}

/* Switches, and concludes; or the runner does when the time is over. */
static int drive_switch(struct pgs_visit *visit, uint32_t flags,
                        uint64_t timeout)
{
    struct pgs_call *call =
        pgs_call_take(visit->host, visit->domain, switch_over);
    uint64_t token;
    int r = PGSHARE_ERR_BUSY;
    bool lost = false;

    if (call) {
        call->flags = flags;
        call->timeout = timeout;
        call->finish = conclude_late;
        if (!pgs_call_drive(call, &token))
            return PGSHARE_ERR_INPROGRESS;
        r = call->result;
        lost = pgs_call_is_given_up(call);
        pgs_call_give(call);
    }
    conclude(visit->domain, flags & PGSHARE_OP_OFF, r, lost, false);
    return r;
}

/* There is nothing to be done. */
static int tell(struct pgs_domain *domain, uint32_t flags)
{
    atomic_fetch_and_explicit(&domain->flags,
                              ~(PGS_DOMAIN_SWITCHING | PGS_DOMAIN_UNTOLD),
                              memory_order_release);
    return flags & PGS_DOMAIN_UNTOLD ? 0 : PGSHARE_ERR_STATE;
}

int pgshare_domain_suspend(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);
    uint64_t timeout;
    uint32_t flags;

    if (r)
        return r;
    timeout = pgs_is_runner(host) ? 0 : host->options.timeout_ns;
    if (!begin_switch(visit.domain, &flags))
        return pgs_visit_end(&visit, PGSHARE_ERR_INPROGRESS);
    if (flags & PGS_DOMAIN_SUSPENDED && !(flags & PGS_DOMAIN_DOUBTFUL))
        return pgs_visit_end(&visit, tell(visit.domain, flags));
    atomic_fetch_or_explicit(&visit.domain->flags, PGS_DOMAIN_SUSPENDED,
                             memory_order_seq_cst);
    r = settle_pages(&visit, &timeout);
    if (r)
        conclude(visit.domain, false, r, false, false);
    else
        r = drive_switch(&visit, 0, timeout);
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_resume(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);
    uint32_t flags;

    if (r)
        return r;
    if (!begin_switch(visit.domain, &flags))
        return pgs_visit_end(&visit, PGSHARE_ERR_INPROGRESS);
    if (!(flags & PGS_DOMAIN_SUSPENDED))
        return pgs_visit_end(&visit, tell(visit.domain, flags));
    r = drive_switch(&visit, PGSHARE_OP_OFF, host->options.timeout_ns);
    return pgs_visit_end(&visit, r);
}
