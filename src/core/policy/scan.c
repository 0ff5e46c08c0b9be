/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Passes: the walk over the memory of a domain, or of all, block by block.
 *
 * Whoever has time takes the next block: the runner, and scan workers in the
 * embedder's threads. So their blocks are disjoint. What the backend answers is
 * queued, and looked at by the runner alone. The runner looks at one block at a
 * time and goes back to the hints as soon as there is one.
 *
 * A pass is one that was asked for, which goes as fast as the run's budget
 * allows, or one of those that steering begins (steer.c). It has ended when the
 * walk is at its end and all its batches have been looked at.
 */
#include "policy/policy.h"

int pgs_scan_init(struct pgs_scan *scan)
{
    scan->done_last = &scan->done;
    pgs_steer_init(&scan->steer);
    return pgs_mutex_init(&scan->lock, PGS_RANK_LEAF);
}

void pgs_scan_fini(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;

    while (scan->done) {
        struct pgs_batch *batch = scan->done;

        scan->done = batch->next;
        batch->next = scan->free;
        scan->free = batch;
    }
    while (scan->free) {
        struct pgs_batch *batch = scan->free;

        scan->free = batch->next;
        PGS_FREE(&host->heap, batch);
    }
    pgs_mutex_fini(&scan->lock);
}

/* ---- passes that are asked for ------------------------------------------- */

void pgs_scan_want(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_scan *scan = &host->policy->scan;
    uint32_t slot = (uint32_t)(dom % PGS_SLOTS);
    uint64_t bit = UINT64_C(1) << slot % 64;

    atomic_fetch_add_explicit(&scan->n_wanted, 1, memory_order_relaxed);
    if (atomic_fetch_or_explicit(&scan->wanted[slot / 64], bit,
                                 memory_order_release) &
        bit)
        atomic_fetch_sub_explicit(&scan->n_wanted, 1, memory_order_relaxed);
    pgs_wake(host);
}

static bool is_wanted(const struct pgs_scan *scan)
{
    return atomic_load_explicit(&scan->n_wanted, memory_order_relaxed);
}

/* Takes the requests that are set in `mask` of a word; answers which. */
static uint64_t take_wanted(struct pgs_scan *scan, uint32_t word, uint64_t mask)
{
    uint64_t bits = atomic_load_explicit(&scan->wanted[word],
                                         memory_order_relaxed) &
                    mask;

    if (!bits)
        return 0;
    bits &= atomic_fetch_and_explicit(&scan->wanted[word], ~bits,
                                      memory_order_acquire);
    atomic_fetch_sub_explicit(&scan->n_wanted,
                              (uint32_t)__builtin_popcountll(bits),
                              memory_order_relaxed);
    return bits;
}

/* One over all is one over each. */
static bool take_all(struct pgs_scan *scan)
{
    if (!take_wanted(scan, 0, 1))
        return false;
    for (uint32_t i = 0; i < PGS_SLOTS / 64; i++)
        take_wanted(scan, i, UINT64_MAX);
    return true;
}

/* The next slot that a pass is wanted of, in turn, so that one that is asked
 * for again and again does not keep others waiting; 0: none. */
static uint32_t take_slot(struct pgs_scan *scan)
{
    for (uint32_t i = 0; i < PGS_SLOTS; i++) {
        uint32_t slot = (scan->last + 1 + i) % PGS_SLOTS;
        uint64_t bits = atomic_load_explicit(&scan->wanted[slot / 64],
                                             memory_order_relaxed);

        if (!bits && slot % 64 == 0)
            i += 63;
        else if (slot && bits >> slot % 64 & 1 &&
                 take_wanted(scan, slot / 64, UINT64_C(1) << slot % 64))
            return scan->last = slot;
    }
    return 0;
}

/* ---- the walk, under the lock -------------------------------------------- */

static struct pgs_domain *walked_domain(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;

    for (; scan->slot && scan->slot < host->slots_used; scan->slot++) {
        struct pgs_domain *domain = atomic_load_explicit(
            &host->slots[scan->slot], memory_order_seq_cst);

        if (domain && pgs_may_share(domain) && scan->gfn < domain->gfns)
            return domain;
        scan->gfn = 0;
        if (!scan->all)
            break;
    }
    scan->slot = 0;
    return NULL;
}

/* Pages that may be fingerprinted and are in no batch yet. */
static int64_t pages_left(const struct pgs_scan *scan)
{
    return scan->steered ? scan->allowed - scan->out_pages : PGS_BLOCK;
}

/* How much of a block at this GFN is taken: what the backend and the budget
 * allow, and nothing beyond an aligned block of 512. */
static uint32_t cut_block(const struct pgshare_host *host, uint64_t gfn,
                          uint32_t count)
{
    uint32_t end = PGS_BLOCK - (uint32_t)(gfn % PGS_BLOCK);
    int64_t left = pages_left(&host->policy->scan);

    if (count > end)
        count = end;
    if (count > host->info.extent_max)
        count = host->info.extent_max;
    return count > left ? (uint32_t)left : count;
}

/* The next block, of which at least one page may be taken. */
static struct pgs_domain *next_block(struct pgshare_host *host,
                                     struct pgs_batch *batch)
{
    struct pgs_scan *scan = &host->policy->scan;
    struct pgs_domain *domain;

    while ((domain = walked_domain(host))) {
        uint64_t gfn = scan->gfn;

        if (!gfn)
            domain->scans++;
        if (pgs_page_of(domain, gfn) == PGS_PAGE_NONE) {
            scan->gfn = (gfn | (PGS_CHUNK_GFNS - 1)) + 1;
            continue;
        }
        batch->count = pgs_extent_cut(domain, gfn, domain->gfns - gfn,
                                      &batch->page);
        batch->count = cut_block(host, gfn, batch->count);
        batch->dom = domain->handle;
        batch->gfn = gfn;
        batch->turn = domain->scans;
        scan->gfn += batch->count;
        return domain;
    }
    return NULL;
}

static struct pgs_batch *take_batch(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;
    struct pgs_batch *batch = scan->free;

    if (batch) {
        scan->free = batch->next;
        return batch;
    }
    if (scan->n_batches == PGS_BATCHES_MAX)
        return NULL;
    batch = PGS_NEW(&host->heap, struct pgs_batch);
    scan->n_batches += batch != NULL;
    return batch;
}

/* May one more block be taken? Calls are kept free for faults; what steering
 * allows holds for all threads. */
static bool may_take(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;

    return scan->slot && scan->out <= host->calls.size / 4 &&
           (!scan->steered || pgs_steer_left(&scan->steer)) &&
           pages_left(scan) > 0;
}

bool pgs_scan_next(struct pgshare_host *host, struct pgs_domain **ret_domain,
                   struct pgs_batch **ret_batch)
{
    struct pgs_scan *scan = &host->policy->scan;
    struct pgs_domain *domain = NULL;
    struct pgs_batch *batch = NULL;

    pgs_mutex_lock(&scan->lock);
    if (may_take(host))
        batch = take_batch(host);
    if (batch) {
        domain = next_block(host, batch);
        if (domain) {
            scan->out++;
            scan->out_pages += batch->count;
        } else {
            batch->next = scan->free;
            scan->free = batch;
        }
    }
    pgs_mutex_unlock(&scan->lock);
    *ret_domain = domain;
    *ret_batch = batch;
    return domain != NULL;
}

void pgs_scan_queue(struct pgshare_host *host, struct pgs_batch *batch)
{
    struct pgs_scan *scan = &host->policy->scan;

    batch->next = NULL;
    pgs_mutex_lock(&scan->lock);
    *scan->done_last = batch;
    scan->done_last = &batch->next;
    pgs_mutex_unlock(&scan->lock);
}

static struct pgs_batch *take_done(struct pgs_scan *scan)
{
    struct pgs_batch *batch;

    pgs_mutex_lock(&scan->lock);
    batch = scan->done;
    if (batch) {
        scan->done = batch->next;
        if (!scan->done)
            scan->done_last = &scan->done;
    }
    pgs_mutex_unlock(&scan->lock);
    return batch;
}

static void put_back(struct pgs_scan *scan, struct pgs_batch *batch)
{
    pgs_mutex_lock(&scan->lock);
    batch->next = scan->done;
    scan->done = batch;
    if (!batch->next)
        scan->done_last = &batch->next;
    pgs_mutex_unlock(&scan->lock);
}

static void end_batch(struct pgs_scan *scan, struct pgs_batch *batch)
{
    pgs_mutex_lock(&scan->lock);
    batch->next = scan->free;
    scan->free = batch;
    scan->out--;
    scan->out_pages -= batch->count;
    scan->allowed -= batch->n_printed;
    pgs_mutex_unlock(&scan->lock);
}

/* ---- the runner ---------------------------------------------------------- */

static void charge_pages(struct pgs_budget *budget, uint64_t n)
{
    budget->pages -= budget->pages < n ? budget->pages : n;
}

/* What a batch costs, which its workers could not know. */
static void count_batch(struct pgshare_host *host, struct pgs_batch *batch,
                        struct pgs_budget *budget)
{
    struct pgs_policy *policy = host->policy;

    batch->n_printed = batch->n;
    atomic_fetch_add_explicit(&policy->scan.looked, batch->pages,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&policy->scan.chosen, batch->n,
                              memory_order_relaxed);
    policy->progress.scanned += batch->n;
    pgs_count(&host->shards, PGS_COUNT_SCANNED, batch->n);
    /* a page that is only passed over costs little */
    charge_pages(budget, batch->n + batch->count / 32);
}

/* Looks at one batch that is done, or at what is left of one. */
static bool match_one(struct pgshare_host *host, struct pgs_budget *budget)
{
    struct pgs_scan *scan = &host->policy->scan;
    struct pgs_batch *batch = take_done(scan);
    bool ended = true;

    if (!batch)
        return false;
    if (!batch->again)
        count_batch(host, batch, budget);
    scan->match.host = host;
    scan->match.domain = pgs_domain_of(host, batch->dom);
    scan->match.batch = batch;
    scan->match.budget = budget;
    if (scan->match.domain && batch->n)
        ended = pgs_match_batch(&scan->match);
    scan->match.batch = NULL;
    if (ended)
        end_batch(scan, batch);
    else
        put_back(scan, batch);
    return true;
}

/* From this slot on. */
static void begin(struct pgshare_host *host, uint32_t slot, bool all,
                  bool steered)
{
    struct pgs_scan *scan = &host->policy->scan;
    struct pgs_domain *domain = atomic_load_explicit(&host->slots[slot],
                                                     memory_order_seq_cst);

    pgs_mutex_lock(&scan->lock);
    scan->all = all;
    scan->only = domain ? domain->handle : UINT64_MAX;
    scan->slot = slot;
    scan->gfn = 0;
    scan->steered = steered;
    atomic_store_explicit(&scan->looked, 0, memory_order_relaxed);
    atomic_store_explicit(&scan->chosen, 0, memory_order_relaxed);
    pgs_mutex_unlock(&scan->lock);
    pgs_steer_begun(host);
}

/* Begins a pass that was asked for. False: none was. */
static bool begin_wanted(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;
    bool all;
    uint32_t slot;

    if (!is_wanted(scan))
        return false;
    all = take_all(scan);
    slot = all ? 1 : take_slot(scan);
    if (slot)
        begin(host, slot, all, false);
    return slot;
}

/* Is a pass under way? Begins the next one if it is time. */
static bool go_on(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;
    bool active, steered;

    pgs_mutex_lock(&scan->lock);
    active = scan->slot || scan->out;
    if (active && is_wanted(scan)) /* what is asked for is not kept waiting */
        scan->steered = false;
    steered = scan->steered;
    pgs_mutex_unlock(&scan->lock);
    if (active)
        return !steered || pgs_steer_may(host);
    if (begin_wanted(host))
        return true;
    if (scan->begun || !pgs_steer_may(host))
        return false;
    scan->begun = true; /* passes over little memory would fill the run */
    begin(host, 1, true, true);
    return true;
}

static bool hints_wait(struct pgs_policy *policy)
{
    return atomic_load_explicit(&policy->hints.head, memory_order_relaxed) !=
           atomic_load_explicit(&policy->hints.tail, memory_order_relaxed);
}

/* The pass has ended if nothing of it is left. */
static bool end_pass(struct pgshare_host *host)
{
    struct pgs_scan *scan = &host->policy->scan;
    bool ended;

    pgs_mutex_lock(&scan->lock);
    ended = !scan->slot && !scan->out;
    pgs_mutex_unlock(&scan->lock);
    if (!ended)
        return false;
    atomic_fetch_add_explicit(&scan->passes, 1, memory_order_relaxed);
    pgs_steer_ended(host);
    return true;
}

/* A batch that is done, else a block of the walk, and so on. */
static bool do_blocks(struct pgshare_host *host, struct pgs_budget *budget)
{
    bool moved = true;

    while (moved && pgs_budget_left(host, budget) && pgs_candidate_room(host) &&
           !hints_wait(host->policy)) {
        moved = match_one(host, budget) || pgs_batch_start(host);
    }
    /* candidates that are waited for make room when they end */
    return moved && pgs_candidate_room(host);
}

bool pgs_scan_run(struct pgshare_host *host, struct pgs_budget *budget)
{
    struct pgs_scan *scan = &host->policy->scan;
    uint64_t before;
    bool left, ended;

    if (!(host->info.ops >> PGSHARE_OP_FINGERPRINT & 1) || !go_on(host))
        return false;
    before = pgs_cpu(&host->platform);
    left = do_blocks(host, budget);
    pgs_steer_charge(host, pgs_cpu(&host->platform) - before);
    ended = end_pass(host);
    if (ended || (scan->steered && !pgs_steer_may(host)))
        left = false;
    return left || (ended && is_wanted(scan));
}

uint64_t pgs_scan_tell(struct pgshare_host *host,
                       struct pgshare_scan_info *info)
{
    struct pgs_scan *scan = &host->policy->scan;
    const struct pgs_steer *steer = &scan->steer;

    pgs_mutex_lock(&scan->lock);
    info->active = scan->slot || scan->out;
    pgs_mutex_unlock(&scan->lock);
    info->passes = atomic_load_explicit(&scan->passes, memory_order_relaxed);
    info->rate_ppm = (uint32_t)(pgs_steer_rate(host) * 1000000);
    info->tracked = pgs_shards_sum(&host->shards, PGS_LEVEL_TRACKED);
    info->looked = atomic_load_explicit(&scan->looked, memory_order_relaxed);
    info->scanned = atomic_load_explicit(&scan->chosen, memory_order_relaxed);
    info->cpu_ns = atomic_load_explicit(&steer->spent, memory_order_relaxed);
    info->yield = (uint64_t)steer->yield;
    return scan->all ? 0 : scan->only;
}

uint64_t pgs_scan_due(struct pgshare_host *host)
{
    return pgs_steer_due(host);
}

uint32_t pgs_scan_step(struct pgshare_host *host)
{
    uint64_t before = pgs_cpu(&host->platform);
    uint32_t count = pgs_batch_start(host);

    if (!count)
        return 0; /* who only asks uses nothing up */
    pgs_steer_charge(host, pgs_cpu(&host->platform) - before);
    pgs_wake(host);
    return count;
}
