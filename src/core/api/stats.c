/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Statistics: sums of what the shards counted, and walks where a number is not
 * worth being kept up to date. What is shown together was not read at one
 * instant; a level that seems to be below zero for that is shown as zero.
 */
#include "api/visit.h"

#include "mechanism/ledger.h"
#include "mechanism/lookup.h"
#include "policy/policy.h"

#include <pgshare/fault.h>
#include <pgshare/stats.h>

/* ---- the host ---------------------------------------------------------- */

static uint64_t sum(struct pgshare_host *host, unsigned counter)
{
    return pgs_shards_sum(&host->shards, counter);
}

static uint64_t above_zero(uint64_t level)
{
    return (int64_t)level > 0 ? level : 0;
}

static void read_levels(struct pgshare_host *host,
                        struct pgshare_host_stats *stats)
{
    stats->tracked = sum(host, PGS_LEVEL_TRACKED);
    stats->protected_ = sum(host, PGS_LEVEL_PROTECTED);
    stats->zero_mappings = sum(host, PGS_LEVEL_ZERO_MAPPINGS);
    stats->mappings = sum(host, PGS_LEVEL_MAPPINGS) + stats->zero_mappings;
    stats->frames = sum(host, PGS_LEVEL_FRAMES);
    stats->private_ = above_zero(stats->tracked - stats->protected_ -
                                 stats->mappings);
    stats->saved = above_zero(stats->mappings - stats->frames);
    stats->reserve = above_zero(sum(host, PGS_LEVEL_RESERVE));
    stats->fifo = sum(host, PGS_LEVEL_FIFO);
    stats->claimed = sum(host, PGS_LEVEL_CLAIMED);
    stats->metadata = atomic_load_explicit(&host->heap.bytes,
                                           memory_order_relaxed);
    pgs_mutex_lock(&host->domains_lock);
    stats->domains = host->n_domains;
    pgs_mutex_unlock(&host->domains_lock);
}

/* Only payments other than from the reserve are counted where they happen; the
 * rest follows from the outcomes. */
static void read_faults(struct pgshare_host *host,
                        struct pgshare_host_stats *stats)
{
    uint64_t *faults = stats->faults, *payers = stats->payers;
    uint64_t paid = 0;

    for (unsigned i = 0; i < PGSHARE_STATS_ROOM; i++) {
        faults[i] = sum(host, PGS_COUNT_FAULT + i);
        payers[i] = sum(host, PGS_COUNT_PAYER + i);
        paid += i > PGSHARE_PAID_RESERVE ? payers[i] : 0;
    }
    payers[PGSHARE_PAID_NOTHING] = faults[PGSHARE_FAULT_SPURIOUS] +
                                   faults[PGSHARE_FAULT_UNMARKED] +
                                   faults[PGSHARE_FAULT_LAST_MAPPING] +
                                   faults[PGSHARE_FAULT_READ_ONLY];
    payers[PGSHARE_PAID_RESERVE] = above_zero(
        faults[PGSHARE_FAULT_FREE] + faults[PGSHARE_FAULT_OVERWRITE] +
        faults[PGSHARE_FAULT_COPIED] + faults[PGSHARE_FAULT_POPULATED] - paid);
}

static void read_counters(struct pgshare_host *host,
                          struct pgshare_host_stats *stats)
{
    for (unsigned i = 0; i < PGSHARE_STATS_ROOM; i++)
        stats->shared[i] = sum(host, PGS_COUNT_SHARED + i);
    stats->hints = sum(host, PGS_COUNT_HINTS);
    stats->hints_dropped = sum(host, PGS_COUNT_HINTS_DROPPED);
    stats->hints_useless = sum(host, PGS_COUNT_HINTS_USELESS);
    stats->compared = sum(host, PGS_COUNT_COMPARED);
    stats->different = sum(host, PGS_COUNT_DIFFERENT);
    stats->rolled_back = sum(host, PGS_COUNT_ROLLED_BACK);
    stats->broken = sum(host, PGS_COUNT_BROKEN);
    stats->reclaimed = sum(host, PGS_COUNT_RECLAIMED);
    stats->scanned = sum(host, PGS_COUNT_SCANNED);
    stats->backend_ops = sum(host, PGS_COUNT_BACKEND_OPS);
    stats->backend_errors = sum(host, PGS_COUNT_BACKEND_ERRORS);
    stats->backend_lost = sum(host, PGS_COUNT_BACKEND_LOST);
}

static void read_blocks(struct pgshare_host *host,
                        struct pgshare_host_stats *stats)
{
    struct pgs_scan *scan = &host->policy->scan;

    for (unsigned i = 0; i < PGSHARE_ORDERS; i++) {
        stats->order_pages[i] = atomic_load_explicit(&scan->order_pages[i],
                                                     memory_order_relaxed);
        stats->order_saved[i] = atomic_load_explicit(&scan->order_saved[i],
                                                     memory_order_relaxed);
        stats->length_pages[i] = atomic_load_explicit(&scan->length_pages[i],
                                                      memory_order_relaxed);
        stats->length_saved[i] = atomic_load_explicit(&scan->length_saved[i],
                                                      memory_order_relaxed);
    }
}

int pgshare_host_stats(struct pgshare_host *host,
                       struct pgshare_host_stats *ret_stats)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    struct pgs_visit visit;
    int r;

    if (!ret_stats)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_host(&visit, host);
    if (r)
        return r;
    r = pgs_abi_check_out(ret_stats, sizeof(stats));
    if (r)
        return pgs_visit_end(&visit, r);
    read_levels(host, &stats);
    read_faults(host, &stats);
    read_counters(host, &stats);
    pgs_policy_histogram(host, stats.hint_to_share);
    read_blocks(host, &stats);
    pgs_abi_out(ret_stats, &stats, sizeof(stats));
    return pgs_visit_end(&visit, 0);
}

/* ---- a domain ---------------------------------------------------------- */

static int count_word(void *ctx, uint64_t gfn, uint32_t page, uint64_t word)
{
    struct pgshare_domain_stats *stats = ctx;
    enum pgs_state state = pgs_word_state(word);

    (void)gfn;
    (void)page;
    stats->tracked += state != PGS_HOLE;
    stats->private_ += state == PGS_PRIVATE;
    stats->protected_ += state == PGS_PROTECTED;
    stats->held += !!(word & PGS_ATTR_HELD);
    stats->never_share += !!(word & PGS_ATTR_NEVER);
    stats->logically_free += !!(word & PGS_ATTR_FREE);
    return 0;
}

/* Does a fault that comes out like this break a mapping? */
static bool breaks_mapping(unsigned outcome)
{
    return outcome == PGSHARE_FAULT_COPIED ||
           outcome == PGSHARE_FAULT_LAST_MAPPING ||
           outcome == PGSHARE_FAULT_FREE || outcome == PGSHARE_FAULT_OVERWRITE;
}

static void read_tallies(struct pgs_domain *domain,
                         struct pgshare_domain_stats *stats)
{
    for (unsigned i = 0; i < PGS_TALLIES; i++) {
        struct pgs_tally *tally = &domain->tally[i];

        for (unsigned k = 0; k < PGSHARE_STATS_ROOM; k++) {
            uint64_t faults = atomic_load_explicit(&tally->faults[k],
                                                   memory_order_relaxed);

            stats->faults[k] += faults;
            if (breaks_mapping(k))
                stats->broken += faults;
            stats->made[k] += atomic_load_explicit(&tally->made[k],
                                                   memory_order_relaxed);
        }
        stats->broken += atomic_load_explicit(&tally->broken,
                                              memory_order_relaxed);
    }
}

static void read_domain(struct pgs_domain *domain,
                        struct pgshare_domain_stats *stats)
{
    struct pgs_share_sums sums;

    pgs_words_walk(domain, count_word, stats);
    pgs_ledger_sums(domain, &sums);
    stats->shared = sums.shared;
    stats->zero = sums.zero;
    stats->pss = sums.pss;
    pgs_mutex_lock(&domain->lock);
    stats->fifo = domain->fifo.used;
    stats->claimed = domain->claimed;
    pgs_mutex_unlock(&domain->lock);
    read_tallies(domain, stats);
}

int pgshare_domain_stats(struct pgshare_host *host, uint64_t dom,
                         struct pgshare_domain_stats *ret_stats)
{
    struct pgshare_domain_stats stats = { .size = sizeof(stats) };
    struct pgs_visit visit;
    int r;

    if (!ret_stats)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_domain(&visit, host, dom);
    if (r)
        return r;
    r = pgs_abi_check_out(ret_stats, sizeof(stats));
    if (r)
        return pgs_visit_end(&visit, r);
    read_domain(visit.domain, &stats);
    pgs_abi_out(ret_stats, &stats, sizeof(stats));
    return pgs_visit_end(&visit, 0);
}

/* ---- names ------------------------------------------------------------- */

const char *pgshare_cause_name(uint32_t cause)
{
    static const char *const names[] = {
        [PGSHARE_CAUSE_CALL] = "call", [PGSHARE_CAUSE_BLOCK] = "block",
        [PGSHARE_CAUSE_FILE] = "file", [PGSHARE_CAUSE_LIBRARY] = "library",
        [PGSHARE_CAUSE_SAME] = "same", [PGSHARE_CAUSE_LINEAGE] = "lineage",
        [PGSHARE_CAUSE_SCAN] = "scan", [PGSHARE_CAUSE_FREE] = "free",
        [PGSHARE_CAUSE_FORK] = "fork",
    };

    static_assert(sizeof(names) / sizeof(names[0]) == PGSHARE_CAUSE_MAX,
                  "every cause has a name");
    return cause < PGSHARE_CAUSE_MAX ? names[cause] : NULL;
}

const char *pgshare_fault_name(uint32_t outcome)
{
    static const char *const names[] = {
        [PGSHARE_FAULT_SPURIOUS] = "spurious",
        [PGSHARE_FAULT_UNMARKED] = "unmarked",
        [PGSHARE_FAULT_LAST_MAPPING] = "last-mapping",
        [PGSHARE_FAULT_FREE] = "free",
        [PGSHARE_FAULT_OVERWRITE] = "overwrite",
        [PGSHARE_FAULT_COPIED] = "copied",
        [PGSHARE_FAULT_READ_ONLY] = "read-only",
        [PGSHARE_FAULT_POPULATED] = "populated",
    };

    return outcome < sizeof(names) / sizeof(names[0]) ? names[outcome] : NULL;
}
