/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Harvest: the breaks that the platform has resolved below us are told
 * (page.c applies them), and the accounts settle. One harvest of a domain at a
 * time; its number, given at the start, counts as done only when it ended
 * well, since the quarantine (host.h) relies on it.
 */
#include "mechanism/share.h"

#include "mechanism/page.h"

static enum pgs_verdict ended(struct pgs_call *call)
{
    struct pgs_domain *domain = call->harvest;

    /* first what keeps late breaks from pages that are mapped again */
    if (!call->status[0] &&
        call->seq > atomic_load_explicit(&domain->harvested,
                                         memory_order_relaxed))
        atomic_store_explicit(&domain->harvested, call->seq,
                              memory_order_release);
    if (!call->status[0])
        atomic_store_explicit(
            &domain->harvests_done,
            atomic_load_explicit(&domain->harvests_begun,
                                 memory_order_relaxed) & (PGS_EPOCH_MARK - 1),
            memory_order_release);
    atomic_store_explicit(&domain->harvesting, 0, memory_order_release);
    pgs_channel_notify(&call->host->channel);
    call->result = call->status[0];
    call->harvest = NULL;
    if (!call->resume)
        return PGS_DONE;
    call->step = call->resume;
    return PGS_NEXT;
}

static bool claim(struct pgs_domain *domain)
{
    uint32_t idle = 0;

    return atomic_compare_exchange_strong_explicit(
        &domain->harvesting, &idle, 1, memory_order_acq_rel,
        memory_order_acquire);
}

/* A backend that walks through page tables does so in submit(): that is what a
 * harvest costs us. */
static enum pgs_verdict submit(struct pgs_call *call, struct pgshare_op *op)
{
    struct pgshare_host *host = call->host;
    uint64_t begin = pgs_now(&host->platform);
    enum pgs_verdict verdict = pgs_call_submit(call, op, ended);

    /* the call may be somebody else's by now */
    atomic_fetch_add_explicit(&host->harvest_ns,
                              pgs_now(&host->platform) - begin,
                              memory_order_relaxed);
    return verdict;
}

static enum pgs_verdict start(struct pgs_call *call)
{
    struct pgs_domain *domain = call->harvest;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_HARVEST,
        .domain = domain->cookie,
        .count = 1,
    };
    uint32_t begun;

    if (!claim(domain)) {
        call->step = start;
        return PGS_WAIT_HARVEST;
    }
    begun = atomic_load_explicit(&domain->harvests_begun,
                                 memory_order_relaxed);
    atomic_store_explicit(&domain->harvests_begun,
                          (begun + 1) & (PGS_EPOCH_MARK - 1),
                          memory_order_release);
    return submit(call, &op);
}

enum pgs_verdict pgs_harvest(struct pgs_call *call, struct pgs_domain *domain,
                             pgs_step next)
{
    call->harvest = domain;
    call->resume = next;
    return start(call);
}

static enum pgs_verdict launch(struct pgs_call *call)
{
    call->harvest = call->domain;
    return start(call);
}

bool pgs_harvest_launch(struct pgs_domain *domain)
{
    struct pgs_call *call;

    if (atomic_load_explicit(&domain->harvesting, memory_order_acquire))
        return false;
    call = pgs_call_take(domain->host, domain, launch);
    if (!call)
        return false;
    pgs_call_launch(call);
    return true;
}
