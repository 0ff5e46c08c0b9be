/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit's sums: what the walks added up, against what was counted, and the
 * laws of the ledger. See audit.c for when they are compared.
 */
#include "mechanism/audit.h"

#include "mechanism/ledger.h"

#include <pgshare/ledger.h>

#include <string.h>

#define ATTEMPTS 3

/* All that the host counts; whatever changes, one of these moves. */
struct snapshot {
    uint64_t count[PGS_COUNTERS];
};

static void take_snapshot(struct pgshare_host *host, struct snapshot *ret)
{
    for (unsigned i = 0; i < PGS_COUNTERS; i++)
        ret->count[i] = pgs_shards_sum(&host->shards, i);
}

static void expect(struct pgs_audit *audit, uint32_t invariant,
                   uint64_t expected, uint64_t found)
{
    if (expected != found)
        pgs_audit_report(audit, invariant, PGS_NOWHERE, expected, found);
}

static void check_totals(struct pgs_audit *audit, const struct snapshot *now)
{
    static const uint32_t totals = PGSHARE_INVARIANT_TOTALS;
    const struct pgs_audit_sums *sums = &audit->sums;

    expect(audit, totals, sums->tracked, now->count[PGS_LEVEL_TRACKED]);
    expect(audit, totals, sums->protected_, now->count[PGS_LEVEL_PROTECTED]);
    expect(audit, totals, sums->mappings, now->count[PGS_LEVEL_MAPPINGS]);
    expect(audit, totals, sums->mappings, sums->frame_mappings);
    expect(audit, totals, sums->zero, now->count[PGS_LEVEL_ZERO_MAPPINGS]);
    expect(audit, totals, sums->frames, now->count[PGS_LEVEL_FRAMES]);
    expect(audit, totals, sums->fifo, now->count[PGS_LEVEL_FIFO]);
    expect(audit, totals, sums->claimed, now->count[PGS_LEVEL_CLAIMED]);
}

static void check_tables(struct pgs_audit *audit)
{
    const struct pgs_audit_sums *sums = &audit->sums;
    struct pgs_marks *marks = &audit->host->marks;
    uint64_t used;

    pgs_mutex_lock(&marks->lock);
    used = marks->used;
    pgs_mutex_unlock(&marks->lock);
    expect(audit, PGSHARE_INVARIANT_TICKET, sums->protected_, used);
    expect(audit, PGSHARE_INVARIANT_FIFO, sums->volatile_, sums->fifo);
    expect(audit, PGSHARE_INVARIANT_HOLD, sums->held, sums->holds);
    expect(audit, PGSHARE_INVARIANT_HOLD, sums->hold_pins, sums->frame_pins);
}

/* Σ entitlement + the host's own share + what rounding took = frames freed. */
static void check_entitlement(struct pgs_audit *audit)
{
    const struct pgs_audit_sums *sums = &audit->sums;
    uint64_t n = sums->zero + 1, share = pgs_ledger_share(n);
    uint64_t lost = sums->remainder + PGSHARE_ENTITLEMENT_ONE * sums->zero -
                    n * share;

    expect(audit, PGSHARE_INVARIANT_ENTITLEMENT,
           PGSHARE_ENTITLEMENT_ONE * (sums->freed + sums->zero),
           sums->entitlement + share + lost);
}

/*
 * The ledger may be short by claims that were written off, and by frames that
 * were handed to the platform for breaks which it has not told yet. Both are
 * forgotten as soon as the reserve has made up for them.
 */
static void check_cover(struct pgs_audit *audit)
{
    struct pgshare_host *host = audit->host;
    int64_t surplus = pgs_ledger_surplus(host);
    int64_t agreed = atomic_load_explicit(&host->written_off,
                                          memory_order_relaxed) +
                     atomic_load_explicit(&host->advanced,
                                          memory_order_relaxed);
    struct pgs_place place = { audit->uncovered, PGSHARE_GFN_NONE, PGS_NONE };

    if (audit->uncovered)
        pgs_audit_report(audit, PGSHARE_INVARIANT_COVER, place, 0, 0);
    if (audit->sums.claimed && surplus + agreed < 0)
        pgs_audit_report(audit, PGSHARE_INVARIANT_COVER, PGS_NOWHERE,
                         (uint64_t)-surplus, (uint64_t)agreed);
    if (!pgs_ledger_is_covered(host))
        return;
    atomic_store_explicit(&host->written_off, 0, memory_order_relaxed);
    atomic_store_explicit(&host->advanced, 0, memory_order_relaxed);
}

static void check_sums(struct pgs_audit *audit, const struct snapshot *now)
{
    check_totals(audit, now);
    check_tables(audit);
    check_entitlement(audit);
    check_cover(audit);
}

static void begin(struct pgs_audit *audit, const struct snapshot *before)
{
    audit->verdict = (struct pgshare_audit){ .size = sizeof(audit->verdict) };
    audit->sums = (struct pgs_audit_sums){ 0 };
    audit->n = 0;
    audit->uncovered = NULL;
    audit->zero_sharers = before->count[PGS_LEVEL_ZERO_MAPPINGS] + 1;
    audit->moved = pgs_calls_busy(audit->host) != 0;
}

void pgs_audit_walk(struct pgs_audit *audit)
{
    struct snapshot before, after;

    for (unsigned i = 0; i < ATTEMPTS; i++) {
        uint64_t violations;

        take_snapshot(audit->host, &before);
        begin(audit, &before);
        pgs_audit_domains(audit);
        pgs_audit_frames(audit);
        pgs_audit_holds(audit);
        take_snapshot(audit->host, &after);
        if (audit->moved || memcmp(&before, &after, sizeof(before)) != 0)
            continue;
        violations = audit->verdict.violations;
        check_sums(audit, &after);
        if (audit->verdict.violations == violations)
            return;
    }
}
