/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The runner: the order in which bounded work is done.
 *
 * First what others wait for (answers of the backend, faults, demands, the
 * end of domains), then what keeps the books (harvest, releases, rings,
 * declarations, the reserve), then what gains memory: hints before the scanner.
 * It goes round until nothing moves, or the budget is used up. Domains are
 * looked after by turns, so that many of them do not use up each run's time;
 * and hints and the scanner may do one step in each run, however short it is.
 */
#include "policy/policy.h"

#include "mechanism/domain.h"
#include "mechanism/page.h"
#include "mechanism/reserve.h"
#include "mechanism/ring.h"
#include "mechanism/share.h"

#define UNDO_BATCH 64
/* Slots that are looked after before others have their turn. */
#define TURNS 1024u
/* Breaks are learned of so late, while the runner runs; later where to ask takes
 * long. */
#define HARVEST_NS UINT64_C(10000000)
#define HARVEST_SHARE 20u /* one part in so many of the time, at the most */

int pgs_policy_init(struct pgshare_host *host)
{
    struct pgs_policy *policy = PGS_NEW(&host->heap, struct pgs_policy);
    const struct pgshare_host_options *options = &host->options;
    uint64_t secret = pgs_secret(&host->platform);
    int r;

    if (!policy)
        return PGSHARE_ERR_NOMEM;
    host->policy = policy;
    host->freed = pgs_hint_freed;
    pgs_keymap_init(&policy->blocks, &host->heap, options->max_map_entries,
                    secret);
    pgs_keymap_init(&policy->files, &host->heap, options->max_map_entries,
                    ~secret);
    r = pgs_queue_init(&policy->hints, &host->heap, options->max_hints);
    if (!r)
        r = pgs_index_init(&policy->index, &host->heap);
    if (!r)
        r = pgs_scan_init(&policy->scan);
    if (!r)
        r = pgs_mutex_init(&policy->libraries_lock, PGS_RANK_LEAF);
    return r;
}

void pgs_policy_fini(struct pgshare_host *host)
{
    struct pgs_policy *policy = host->policy;

    if (!policy)
        return;
    pgs_queue_fini(&policy->hints);
    pgs_keymap_fini(&policy->blocks);
    pgs_keymap_fini(&policy->files);
    pgs_index_fini(&policy->index);
    pgs_scan_fini(host);
    PGS_FREE_N(&host->heap, policy->libraries, PGS_LIBRARIES_MAX);
    pgs_mutex_fini(&policy->libraries_lock);
    PGS_FREE(&host->heap, policy);
    host->policy = NULL;
}

void pgs_policy_histogram(struct pgshare_host *host, uint64_t *ret)
{
    for (unsigned i = 0; i < PGSHARE_HISTOGRAM_BUCKETS; i++)
        ret[i] = atomic_load_explicit(&host->policy->hint_to_share[i],
                                      memory_order_relaxed);
}

/* ---- what the backend does wrong --------------------------------------- */

/* Once in a run, so that a backend gone mad does not drown its embedder. */
static void report_backend(struct pgshare_host *host)
{
    uint64_t errors = pgs_shards_sum(&host->shards, PGS_COUNT_BACKEND_ERRORS);
    uint64_t more = errors - host->policy->errors_told;

    host->policy->errors_told = errors;
    if (more)
        pgs_report(host, PGSHARE_REPORT_BACKEND_ERROR, PGSHARE_ERR_BACKEND, 0,
                   0, more);
}

/* ---- domains that end -------------------------------------------------- */

static void bury_the_dying(struct pgshare_host *host)
{
    struct pgs_domain *domain, *next;

    pgs_mutex_lock(&host->domains_lock);
    domain = host->dying;
    pgs_mutex_unlock(&host->domains_lock);
    for (; domain; domain = next) {
        uint64_t handle = domain->handle;

        next = domain->next_dying;
        if (pgs_domain_bury(domain, 0, host->runner_ticket))
            pgs_report(host, PGSHARE_REPORT_DOMAIN_REMOVED, 0, handle, 0, 0);
    }
}

/* Told once, when nothing of it is left. */
static void clear_gone(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;

    if (pgs_domain_flags(domain) & PGS_DOMAIN_CLEARED)
        return;
    pgs_calls_cancel(host, domain);
    if (!pgs_domain_clear(domain))
        return;
    atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_CLEARED,
                             memory_order_release);
    pgs_report(host, PGSHARE_REPORT_DOMAIN_GONE, PGSHARE_ERR_GONE,
               domain->handle, 0, domain->gfns);
}

/* ---- each domain's turn ------------------------------------------------ */

static void serve_ring(struct pgs_domain *domain)
{
    uint32_t served = 0;

    if (pgs_ring_serve(domain, &served) == PGSHARE_ERR_PROTOCOL)
        pgs_report(domain->host, PGSHARE_REPORT_RING_DETACHED,
                   PGSHARE_ERR_PROTOCOL, domain->handle, 0, 0);
}

static bool look_after(struct pgs_domain *domain, bool harvest)
{
    if (pgs_domain_flags(domain) & PGS_DOMAIN_GONE) {
        clear_gone(domain);
        return false;
    }
    if (harvest && domain->caps & PGSHARE_CAP_PLATFORM_COW)
        pgs_harvest_launch(domain);
    serve_ring(domain);
    return pgs_domain_undo(domain, UNDO_BATCH);
}

/* Until the next harvest that nobody asks for. */
static uint64_t harvest_pause(struct pgshare_host *host)
{
    uint64_t pause = HARVEST_SHARE *
                     atomic_exchange_explicit(&host->harvest_ns, 0,
                                              memory_order_relaxed);

    return pause > HARVEST_NS ? pause : HARVEST_NS;
}

static void begin_turns(struct pgshare_host *host)
{
    struct pgs_policy *policy = host->policy;
    uint64_t now = pgs_now(&host->platform);

    policy->turn = 1;
    policy->turn_left = policy->turn_again = false;
    policy->turn_harvests = atomic_exchange_explicit(&policy->harvest_wanted, 0,
                                                     memory_order_relaxed) ||
                            now >= policy->next_harvest;
    if (policy->turn_harvests)
        policy->next_harvest = now + harvest_pause(host);
}

/* Goes on with the round of turns. True: it is not at its end, declarations
 * are left to be carried out, or another round is due. */
static bool look_after_some(struct pgshare_host *host)
{
    struct pgs_policy *policy = host->policy;

    if (!policy->turn)
        begin_turns(host);
    for (uint32_t n = 0; n < TURNS && policy->turn < host->slots_used; n++) {
        struct pgs_domain *domain = atomic_load_explicit(
            &host->slots[policy->turn++], memory_order_seq_cst);

        if (domain)
            policy->turn_left |= look_after(domain, policy->turn_harvests);
    }
    if (policy->turn < host->slots_used)
        return true;
    policy->turn = 0;
    return policy->turn_left || policy->turn_again ||
           atomic_load_explicit(&policy->harvest_wanted, memory_order_relaxed);
}

/* ------------------------------------------------------------------------ */

/* What others wait for. Answers how many calls ended. */
static uint32_t go_on(struct pgshare_host *host)
{
    uint32_t ended;

    pgs_host_poll_backend(host);
    ended = pgs_calls_run(host, NULL);
    pgs_calls_expire(host, pgs_now(&host->platform));
    host->policy->progress.outcomes += ended;
    return ended;
}

void pgs_run(struct pgshare_host *host, struct pgs_budget *budget,
             struct pgshare_progress *ret)
{
    struct pgs_policy *policy = host->policy;
    uint64_t broken = pgs_shards_sum(&host->shards, PGS_COUNT_BROKEN);
    bool hints, scan, left;
    uint32_t ended;

    policy->progress = (struct pgshare_progress){ .size = sizeof(*ret) };
    if (atomic_exchange_explicit(&host->work, 0, memory_order_relaxed))
        policy->turn_again = true; /* in a slot that had its turn, perhaps */
    policy->scan.begun = false;
    do {
        uint64_t before = budget->pages;

        ended = go_on(host);
        bury_the_dying(host);
        left = look_after_some(host);
        ended += pgs_release_all(host);
        pgs_reserve_balance(host);
        budget->step = true; /* the books may have used up the time */
        hints = pgs_hints_run(host, budget);
        budget->step = true;
        scan = pgs_scan_run(host, budget);
        budget->step = false;
        ended += before != budget->pages;
    } while (ended && pgs_budget_left(host, budget));
    report_backend(host);
    policy->progress.broken =
        pgs_shards_sum(&host->shards, PGS_COUNT_BROKEN) - broken;
    policy->progress.more =
        hints || scan || left || ended ||
        atomic_load_explicit(&host->n_doomed, memory_order_relaxed) ||
        atomic_load_explicit(&host->work, memory_order_relaxed);
    *ret = policy->progress;
}

/* When a domain wants to be looked after, though nothing happens. */
static uint64_t due(struct pgs_domain *domain)
{
    uint64_t undo = pgs_domain_undo_due(domain);
    uint64_t harvest = domain->host->policy->next_harvest;

    if (!(domain->caps & PGSHARE_CAP_PLATFORM_COW) ||
        pgs_domain_flags(domain) & PGS_DOMAIN_GONE)
        return undo;
    return undo < harvest ? undo : harvest;
}

uint64_t pgs_run_deadline(struct pgshare_host *host)
{
    uint64_t first, refill;

    if (atomic_load_explicit(&host->work, memory_order_relaxed) ||
        host->policy->progress.more)
        return 0;
    if (atomic_load_explicit(&host->calls.n_running, memory_order_relaxed))
        return pgs_now(&host->platform) + HARVEST_NS;
    first = pgs_scan_due(host);
    refill = pgs_reserve_due(host);
    if (refill < first)
        first = refill;
    for (uint32_t slot = 1; slot < host->slots_used; slot++) {
        struct pgs_domain *domain = atomic_load_explicit(&host->slots[slot],
                                                         memory_order_seq_cst);

        if (domain && due(domain) < first)
            first = due(domain);
    }
    return first;
}
