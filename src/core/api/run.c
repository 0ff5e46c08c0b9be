/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The runner as the embedder drives it: who may run, for how long, and when to
 * come back.
 */
#include "api/visit.h"
#include "policy/policy.h"

#include <pgshare/host.h>

int pgs_run_budget(struct pgshare_host *host,
                   const struct pgshare_budget *given,
                   struct pgs_budget *ret_budget)
{
    struct pgshare_budget budget;
    int r = pgs_abi_in(&budget, sizeof(budget), sizeof(budget), given);

    if (r)
        return r;
    if (!budget.time_ns)
        budget.time_ns = 1000000;
    if (!budget.pages)
        budget.pages = 4096;
    ret_budget->deadline = pgs_now(&host->platform) + budget.time_ns;
    ret_budget->pages = budget.pages;
    return 0;
}

static int run(struct pgs_visit *visit, struct pgs_budget *budget,
               struct pgshare_progress *ret)
{
    struct pgshare_host *host = visit->host;

    if (pgs_is_runner(host) || !pgs_mutex_trylock(&host->run))
        return PGSHARE_ERR_BUSY;
    atomic_store_explicit(&host->runner, (uintptr_t)pthread_self(),
                          memory_order_relaxed);
    host->runner_ticket = &visit->ticket;
    pgs_run(host, budget, ret);
    host->runner_ticket = NULL;
    atomic_store_explicit(&host->runner, 0, memory_order_relaxed);
    pgs_mutex_unlock(&host->run);
    return 0;
}

int pgshare_host_run(struct pgshare_host *host,
                     const struct pgshare_budget *given,
                     struct pgshare_progress *ret_progress)
{
    struct pgshare_progress progress;
    struct pgs_budget budget;
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    r = pgs_run_budget(host, given, &budget);
    if (!r)
        r = pgs_abi_check_out(ret_progress, sizeof(progress));
    if (!r)
        r = run(&visit, &budget, &progress);
    if (!r)
        pgs_abi_out(ret_progress, &progress, sizeof(progress));
    return pgs_visit_end(&visit, r);
}

/* Real time, while nothing but the backend's answers is waited for. */
static void rest(struct pgshare_host *host)
{
    uint32_t seen = pgs_channel_prepare(&host->channel);

    pgs_channel_wait(&host->channel, seen, 50000);
}

int pgshare_host_settle(struct pgshare_host *host, uint64_t timeout_ns)
{
    struct pgshare_budget budget = {
        .size = sizeof(budget),
        .time_ns = 10000000,
        .pages = 1 << 20,
    };
    struct pgshare_progress progress = { .size = sizeof(progress) };
    uint64_t start;
    int r = 0;

    if (!host)
        return PGSHARE_ERR_INVALID;
    if (!pgs_origin_is_here(&host->origin))
        return PGSHARE_ERR_FORKED;
    start = pgs_now(&host->platform);
    atomic_store_explicit(&host->policy->harvest_wanted, 1,
                          memory_order_relaxed);
    for (;;) {
        r = pgshare_host_run(host, &budget, &progress);
        if (r)
            return r;
        if (!progress.more && !atomic_load(&host->calls.n_running))
            return 0;
        if (pgs_now(&host->platform) - start >= timeout_ns)
            return PGSHARE_ERR_INPROGRESS;
        if (!progress.more)
            rest(host);
    }
}

int pgshare_host_poll(struct pgshare_host *host, struct pgshare_poll *poll)
{
    struct pgshare_poll ours;
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!poll)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    r = pgs_abi_in(&ours, sizeof(ours), sizeof(ours), poll);
    if (r)
        return pgs_visit_end(&visit, r);
    if (ours.max_fds && !ours.fds)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    ours.n_fds = 0;
    if (host->backend->ops->poll_fds)
        ours.n_fds = (uint32_t)host->backend->ops->poll_fds(
            host->backend, ours.fds, ours.max_fds);
    ours.deadline_ns = pgs_run_deadline(host);
    pgs_abi_out(poll, &ours, sizeof(ours));
    return pgs_visit_end(&visit, 0);
}
