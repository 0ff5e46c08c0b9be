/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Steering: how much CPU time the scanner may take when nobody asks for a pass.
 *
 * The embedder says how much of a core is the most. Below that a rate follows
 * what scanning gains: a pass that found less than was worth its time divides
 * the rate by 8, one that did multiplies it, and under memory pressure it is the
 * most at once. So an idle host is scanned less and less, but never left alone.
 *
 * Time passes as credit, at the rate of now, and is spent by passes; a slice
 * that overdraws is paid for by waiting. What is not used is lost but for a few
 * milliseconds, so that a quiet time does not make a burst. Pages are allowed by
 * grains, of a tenth of a second or a block, and no block is begun that is
 * longer than what is allowed.
 *
 * All is the runner's, but for what workers add to `spent`. They take blocks of
 * a pass that steering has begun up to `limit` and pgs_scan::allowed, which the
 * runner sets.
 */
#include "policy/policy.h"

#define SECOND UINT64_C(1000000000)
#define SLICE_NS 1000000.0
/* Credit is kept for so long. */
#define CREDIT_MAX_NS (5 * SLICE_NS)
/* Pressure and rate are looked at again. */
#define LOOK_NS (SECOND / 10)
#define PPM 1000000.0
#define RATE_DOWN 8.0
#define RATE_UP 4.0

static const struct pgshare_scan_options defaults = {
    .size = sizeof(struct pgshare_scan_options),
    .core_ppm = 1000000,
    .idle_ppm = 1000,
    .pressure = 50,
    .yield = 1000,
};

#define DEFAULT(field)                       \
    do {                                     \
        if (!options->field)                 \
            options->field = defaults.field; \
    } while (0)

static double most(const struct pgs_steer *steer)
{
    return steer->options.core_ppm / PPM;
}

static double least(const struct pgs_steer *steer)
{
    double idle = steer->options.idle_ppm / PPM;

    return idle < most(steer) ? idle : most(steer);
}

void pgs_steer_init(struct pgs_steer *steer)
{
    steer->options = defaults;
    steer->rate = most(steer);
}

/* So many pages may be fingerprinted; where they are not limited, any number. */
static void allow(struct pgshare_host *host, int64_t pages)
{
    struct pgs_scan *scan = &host->policy->scan;

    if (!scan->steer.options.pages_per_s)
        pages = INT64_MAX / 2;
    pgs_mutex_lock(&scan->lock);
    scan->allowed = pages;
    pgs_mutex_unlock(&scan->lock);
}

void pgs_steer_set(struct pgshare_host *host,
                   const struct pgshare_scan_options *given)
{
    struct pgs_steer *steer = &host->policy->scan.steer;
    struct pgshare_scan_options *options = &steer->options;

    *options = *given;
    DEFAULT(core_ppm);
    DEFAULT(idle_ppm);
    DEFAULT(pressure);
    DEFAULT(yield);
    steer->rate = most(steer);
    steer->credit = 0;
    steer->page_credit = 0;
    steer->last_ns = pgs_now(&host->platform);
    steer->seen = atomic_load_explicit(&steer->spent, memory_order_relaxed);
    steer->since = steer->seen;
    steer->chosen = pgs_shards_sum(&host->shards, PGS_COUNT_SCANNED);
    allow(host, 0);
    atomic_store_explicit(&steer->limit, steer->seen, memory_order_relaxed);
}

double pgs_steer_rate(struct pgshare_host *host)
{
    struct pgs_steer *steer = &host->policy->scan.steer;

    if (!(steer->options.flags & PGSHARE_SCAN_ON))
        return 0;
    if (steer->options.flags & PGSHARE_SCAN_STEADY ||
        pgs_pressure(&host->platform) >= steer->options.pressure)
        return most(steer);
    return steer->rate;
}

void pgs_steer_charge(struct pgshare_host *host, uint64_t cpu_ns)
{
    atomic_fetch_add_explicit(&host->policy->scan.steer.spent, cpu_ns,
                              memory_order_relaxed);
}

static uint64_t limit_of(const struct pgs_steer *steer)
{
    const struct pgshare_scan_options *options = &steer->options;
    uint64_t limit = steer->seen;

    if (steer->credit > 0)
        limit += (uint64_t)steer->credit;
    if (options->cpu_ns && limit > steer->since + options->cpu_ns)
        limit = steer->since + options->cpu_ns;
    return limit;
}

/* Pages that are allowed at once. */
static double grain(const struct pgs_steer *steer)
{
    double pages = (double)steer->options.pages_per_s / 10;

    return pages < 1 ? 1 : pages > PGS_BLOCK ? PGS_BLOCK : pages;
}

static double at_most(double value, double limit)
{
    return value < limit ? value : limit;
}

/* CPU time and pages that may be spent at this instant: what was left, what time
 * has brought, less what was spent since. */
static double credit_at(struct pgshare_host *host, uint64_t now, uint64_t spent)
{
    const struct pgs_steer *steer = &host->policy->scan.steer;
    double passed = (double)(now - steer->last_ns);

    return at_most(steer->credit + passed * pgs_steer_rate(host) -
                       (double)(spent - steer->seen),
                   CREDIT_MAX_NS);
}

static double pages_at(struct pgshare_host *host, uint64_t now, uint64_t chosen)
{
    const struct pgs_steer *steer = &host->policy->scan.steer;
    double passed = (double)(now - steer->last_ns) / (double)SECOND;
    double rate = (double)steer->options.pages_per_s;

    return at_most(steer->page_credit + passed * rate -
                       (double)(chosen - steer->chosen),
                   2 * grain(steer) + rate / 100);
}

static void settle(struct pgshare_host *host)
{
    struct pgs_steer *steer = &host->policy->scan.steer;
    uint64_t now = pgs_now(&host->platform);
    uint64_t spent = atomic_load_explicit(&steer->spent, memory_order_relaxed);
    uint64_t chosen = pgs_shards_sum(&host->shards, PGS_COUNT_SCANNED);

    steer->credit = credit_at(host, now, spent);
    steer->page_credit = pages_at(host, now, chosen);
    steer->last_ns = now;
    steer->seen = spent;
    steer->chosen = chosen;
    atomic_store_explicit(&steer->limit, limit_of(steer), memory_order_relaxed);
    allow(host, (int64_t)steer->page_credit);
}

static bool is_over(const struct pgs_steer *steer)
{
    return steer->options.cpu_ns &&
           steer->seen - steer->since >= steer->options.cpu_ns;
}

bool pgs_steer_left(const struct pgs_steer *steer)
{
    return atomic_load_explicit(&steer->spent, memory_order_relaxed) <
           atomic_load_explicit(&steer->limit, memory_order_relaxed);
}

bool pgs_steer_may(struct pgshare_host *host)
{
    struct pgs_steer *steer = &host->policy->scan.steer;

    if (!(steer->options.flags & PGSHARE_SCAN_ON))
        return false;
    settle(host);
    return steer->credit > 0 && !is_over(steer) &&
           (!steer->options.pages_per_s || steer->page_credit >= grain(steer));
}

/* In so many ns there will be a slice of time and a grain of pages. */
static double wait_for(struct pgshare_host *host, uint64_t now)
{
    const struct pgs_steer *steer = &host->policy->scan.steer;
    double rate = pgs_steer_rate(host), pages, wait;
    uint64_t chosen = pgs_shards_sum(&host->shards, PGS_COUNT_SCANNED);
    uint64_t spent = atomic_load_explicit(&steer->spent, memory_order_relaxed);

    wait = rate > 0 ? (SLICE_NS - credit_at(host, now, spent)) / rate
                    : (double)LOOK_NS;
    if (!steer->options.pages_per_s)
        return wait;
    pages = (grain(steer) - pages_at(host, now, chosen)) * (double)SECOND /
            (double)steer->options.pages_per_s;
    return pages > wait ? pages : wait;
}

uint64_t pgs_steer_due(struct pgshare_host *host)
{
    struct pgs_steer *steer = &host->policy->scan.steer;
    uint64_t now = pgs_now(&host->platform);
    double wait;

    if (!(steer->options.flags & PGSHARE_SCAN_ON) || is_over(steer))
        return PGSHARE_FOREVER;
    wait = wait_for(host, now);
    /* rounded up: who comes then finds what it came for */
    return wait <= 0 ? 0 : now + 1 + (uint64_t)at_most(wait, (double)LOOK_NS);
}

static uint64_t shared_by_scans(struct pgshare_host *host)
{
    return pgs_shards_sum(&host->shards, PGS_COUNT_SHARED + PGSHARE_CAUSE_SCAN);
}

void pgs_steer_begun(struct pgshare_host *host)
{
    struct pgs_steer *steer = &host->policy->scan.steer;

    steer->pass_spent = atomic_load_explicit(&steer->spent,
                                             memory_order_relaxed);
    steer->pass_shared = shared_by_scans(host);
}

void pgs_steer_ended(struct pgshare_host *host)
{
    struct pgs_steer *steer = &host->policy->scan.steer;
    uint64_t spent = atomic_load_explicit(&steer->spent, memory_order_relaxed) -
                     steer->pass_spent;
    uint64_t shared = shared_by_scans(host) - steer->pass_shared;

    steer->yield = (double)shared * (double)SECOND /
                   (double)(spent ? spent : 1);
    if (steer->yield < (double)steer->options.yield)
        steer->rate /= RATE_DOWN;
    else
        steer->rate *= RATE_UP;
    if (steer->rate < least(steer))
        steer->rate = least(steer);
    if (steer->rate > most(steer))
        steer->rate = most(steer);
}
