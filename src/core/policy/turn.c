/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Short runs are turned around.
 *
 * Usually the page that a pass comes to is given up for the one that is known
 * already, and both become mappings of a frame. Where a mapping has its price,
 * whatever its length (pgshare_backend_info::extent_cost_ns), that is the price
 * of two for each run. But a batch is memory in a row, and its runs are often
 * neighbours there, though what they equal lies scattered. So these become
 * frames all together, in place and as one extent, and the scattered pages their
 * clients: the price of one for each run, and of one more for all.
 *
 * A run is turned if it is short, if the pages that it equals are no frames yet,
 * if no floor is concerned, and if it has a neighbour that is turned. What does
 * not become a frame, for whatever reason, is shared as usual.
 */
#include "policy/policy.h"

#include "mechanism/share.h"

#include <string.h>

/* A run of so many pages is worth two mappings. */
#define LONG 64u

/* Can frames be made of pages that nobody has to be compared with? */
static bool is_wanted(const struct pgshare_host *host)
{
    const uint32_t caps = PGSHARE_CAP_MERGE | PGSHARE_CAP_SNAPSHOT;

    return host->info.extent_cost_ns && (host->info.caps & caps) == caps &&
           !host->policy->late;
}

static uint32_t offset(const struct pgs_match *match, uint32_t page)
{
    return page - match->batch->page;
}

static bool is_plain(const struct pgs_match *match, uint32_t page)
{
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&match->host->chunks, page), memory_order_acquire);

    return (word & PGS_NOT_PLAIN) == PGS_PRIVATE;
}

static bool is_floored(const struct pgs_match *match, uint32_t page)
{
    return pgs_floor_size(pgs_page_domain(match->host, page),
                          pgs_page_gfn(match->host, page)) > 1;
}

static bool may_turn(const struct pgs_match *match, const struct pgs_run *run)
{
    uint32_t count = match->batch->count;

    if (run->source == PGS_PAGE_NONE || run->count >= LONG ||
        offset(match, run->client) >= count ||
        offset(match, run->client) + run->count > count)
        return false;
    for (uint32_t i = 0; i < run->count; i++)
        if (offset(match, run->source + i) < count ||
            !is_plain(match, run->source + i) ||
            is_floored(match, run->client + i) ||
            is_floored(match, run->source + i))
            return false;
    return true;
}

/* Ends of runs, so that a row is known to be of more than one. */
struct rows {
    uint64_t page[PGS_BLOCK / 64]; /* by offset: of a run that may be turned */
    uint64_t end[PGS_BLOCK / 64];  /* … and the last of one */
    bool turned[PGS_RUNS_MAX];
};

static bool has(const uint64_t *bits, uint32_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

static void set(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= UINT64_C(1) << i % 64;
}

static void mark(const struct pgs_match *match, const struct pgs_run *run,
                 struct rows *rows)
{
    uint32_t first = offset(match, run->client);

    for (uint32_t i = 0; i < run->count; i++)
        set(rows->page, first + i);
    set(rows->end, first + run->count - 1);
}

/* The next row of pages, and how many runs end in it; 0: there is none. */
static uint32_t next_row(const struct pgs_match *match, const struct rows *rows,
                         uint32_t *at, uint32_t *ret_n)
{
    uint32_t runs = 0, n = 0, count = match->batch->count;

    while (*at < count && !has(rows->page, *at))
        ++*at;
    for (; *at + n < count && has(rows->page, *at + n); n++)
        runs += has(rows->end, *at + n);
    *ret_n = n;
    return runs;
}

/* The answer is still to come, and nobody will be proposed to these frames then,
 * unless the other sides are looked at again. */
static void forget_sources(const struct pgs_match *match,
                           const struct rows *rows)
{
    for (uint32_t i = 0; i < match->n_runs; i++) {
        const struct pgs_run *run = &match->runs[i];

        for (uint32_t k = 0; rows->turned[i] && k < run->count; k++)
            pgs_scan_forget(pgs_page_domain(match->host, run->source + k),
                            run->source + k);
    }
}

void pgs_turn_runs(struct pgs_match *match)
{
    struct rows rows;
    uint32_t at = 0, n, runs;

    if (!is_wanted(match->host) || match->n_runs < 2)
        return;
    memset(&rows, 0, sizeof(rows));
    for (uint32_t i = 0; i < match->n_runs; i++) {
        rows.turned[i] = may_turn(match, &match->runs[i]);
        if (rows.turned[i])
            mark(match, &match->runs[i], &rows);
    }
    for (; (runs = next_row(match, &rows, &at, &n)); at += n)
        if (runs > 1)
            pgs_candidate_publish(match->host, match->domain,
                                  match->batch->page + at, n, match->budget);
    if (match->host->policy->late)
        forget_sources(match, &rows);
}

/* Has the page become a frame by that, and is what it equals none? */
bool pgs_turn_is(const struct pgs_match *match, const struct pgs_run *run,
                 uint32_t i)
{
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&match->host->chunks, run->client + i),
        memory_order_acquire);

    return run->source != PGS_PAGE_NONE && is_wanted(match->host) &&
           pgs_word_state(word) == PGS_SHARED &&
           pgs_word_index(word) != PGS_NODE_ZERO &&
           is_plain(match, run->source + i);
}
