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
 * A run is turned if it is short and plain in every respect: nobody else wants
 * its pages, on either side, none of them is a frame, no floor is concerned; and
 * if it has a neighbour that is turned. What does not become a frame, for
 * whatever reason, is shared as usual. A page that did, and was not shared then,
 * is one that nobody looks at: the other side is looked at again instead.
 *
 * Frames that nobody can map after all (for want of mappings, say) are not worth
 * their copies; where most of a batch's are of that kind, none are made for a
 * while. Nor are any where the backend answers late.
 */
#include "policy/policy.h"

#include "mechanism/share.h"

#include <string.h>

/* Batches for which nothing is turned after it was of no use. */
#define REST 64u

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

static uint64_t word_of(const struct pgs_match *match, uint32_t page)
{
    return atomic_load_explicit(pgs_word_at(&match->host->chunks, page),
                                memory_order_acquire);
}

static bool is_floored(const struct pgs_match *match, uint32_t page)
{
    return pgs_floor_size(pgs_page_domain(match->host, page),
                          pgs_page_gfn(match->host, page)) > 1;
}

/* Private, and known to be what the run says. */
static bool is_known(const struct pgs_match *match, uint32_t page,
                     uint32_t print)
{
    uint64_t word = word_of(match, page);

    return print && (word & PGS_NOT_PLAIN) == PGS_PRIVATE &&
           pgs_word_index(word) == print;
}

/* ---- which runs -------------------------------------------------------- */

/* By offset: pages that runs want, and those that several do; pages of runs that
 * are turned, and the last of each. */
struct rows {
    uint64_t wanted[PGS_BLOCK / 64];
    uint64_t disputed[PGS_BLOCK / 64];
    uint64_t turned[PGS_BLOCK / 64];
    uint64_t end[PGS_BLOCK / 64];
};

static void want(const struct pgs_match *match, const struct pgs_run *run,
                 struct rows *rows)
{
    for (uint32_t k = 0; k < run->count; k++) {
        uint32_t i = offset(match, run->client + k);

        if (i >= match->batch->count)
            continue;
        pgs_bit_set(pgs_bit_has(rows->wanted, i) ? rows->disputed
                                                 : rows->wanted,
                    i);
    }
}

static bool may_turn_page(const struct pgs_match *match,
                          const struct pgs_run *run, const struct rows *rows,
                          uint32_t k)
{
    uint32_t client = run->client + k, source = run->source + k;
    uint32_t i = offset(match, client), print;

    if (i >= match->batch->count || offset(match, source) < match->batch->count)
        return false;
    print = match->print[i];
    return !pgs_bit_has(rows->disputed, i) && !pgs_bit_has(match->taken, i) &&
           is_known(match, client, print) && is_known(match, source, print) &&
           !is_floored(match, client) && !is_floored(match, source);
}

/* Does a run that is turned want one of these sources, too? */
static bool is_source_wanted(const struct pgs_match *match, uint32_t n)
{
    const struct pgs_run *run = &match->runs[n];

    for (uint32_t i = 0; i < n; i++) {
        const struct pgs_run *other = &match->runs[i];

        if (other->turned && other->source < run->source + run->count &&
            run->source < other->source + other->count)
            return true;
    }
    return false;
}

static bool may_turn(const struct pgs_match *match, uint32_t n,
                     const struct rows *rows)
{
    const struct pgs_run *run = &match->runs[n];

    if (run->source == PGS_PAGE_NONE || run->count >= PGS_RUN_LONG ||
        !pgs_may_share(pgs_page_domain(match->host, run->source)) ||
        is_source_wanted(match, n))
        return false;
    for (uint32_t k = 0; k < run->count; k++)
        if (!may_turn_page(match, run, rows, k))
            return false;
    return true;
}

static void choose(struct pgs_match *match, struct rows *rows)
{
    memset(rows, 0, sizeof(*rows));
    for (uint32_t n = 0; n < match->n_runs; n++)
        want(match, &match->runs[n], rows);
    for (uint32_t n = 0; n < match->n_runs; n++) {
        struct pgs_run *run = &match->runs[n];
        uint32_t first = offset(match, run->client);

        run->turned = may_turn(match, n, rows);
        for (uint32_t k = 0; run->turned && k < run->count; k++)
            pgs_bit_set(rows->turned, first + k);
        if (run->turned)
            pgs_bit_set(rows->end, first + run->count - 1);
    }
}

/* ---- frames ------------------------------------------------------------ */

/* The next row of pages, and how many runs it is of; 0: there is none. */
static uint32_t next_row(const struct pgs_match *match, const struct rows *rows,
                         uint32_t *at, uint32_t *ret_n)
{
    uint32_t runs = 0, n = 0, count = match->batch->count;

    while (*at < count && !pgs_bit_has(rows->turned, *at))
        ++*at;
    for (; *at + n < count && pgs_bit_has(rows->turned, *at + n); n++)
        runs += pgs_bit_has(rows->end, *at + n);
    *ret_n = n;
    return runs;
}

void pgs_turn_runs(struct pgs_match *match)
{
    struct pgshare_host *host = match->host;
    struct rows rows;
    uint32_t at = 0, n, runs;

    for (uint32_t i = 0; i < match->n_runs; i++)
        match->runs[i].turned = false;
    if (match->n_runs < 2 || !is_wanted(host))
        return;
    if (host->policy->rest) {
        host->policy->rest--;
        return;
    }
    choose(match, &rows);
    for (; !host->policy->late && (runs = next_row(match, &rows, &at, &n));
         at += n)
        if (runs > 1)
            pgs_candidate_publish(host, match->domain, match->batch->page + at,
                                  n, match->budget);
}

bool pgs_turn_is(const struct pgs_match *match, const struct pgs_run *run,
                 uint32_t i)
{
    uint64_t word;

    if (!run->turned)
        return false;
    word = word_of(match, run->client + i);
    return !(word & PGS_BUSY) && pgs_word_state(word) == PGS_SHARED;
}

/* ---- what came of it --------------------------------------------------- */

/* Is the page a frame, or about to be one, and the other side still private? */
static bool is_lonely(const struct pgs_match *match, const struct pgs_run *run,
                      uint32_t k)
{
    uint64_t word = word_of(match, run->client + k);

    return (word & PGS_BUSY || pgs_word_state(word) == PGS_SHARED) &&
           pgs_word_state(word_of(match, run->source + k)) == PGS_PRIVATE;
}

void pgs_turn_end(struct pgs_match *match)
{
    struct pgshare_host *host = match->host;
    uint32_t pages = 0, lonely = 0;

    for (uint32_t n = 0; n < match->n_runs; n++) {
        const struct pgs_run *run = &match->runs[n];

        for (uint32_t k = 0; run->turned && k < run->count; k++) {
            pages++;
            if (!is_lonely(match, run, k))
                continue;
            lonely++;
            pgs_scan_forget(pgs_page_domain(host, run->source + k),
                            run->source + k);
        }
    }
    if (lonely > pages / 2)
        host->policy->rest = REST;
}
