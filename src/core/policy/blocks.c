/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buddy blocks: matches that grow to runs, and which of them go first.
 *
 * The fingerprints of single pages, in the batch and in the words, are all that
 * is kept; those of blocks follow from them. A page that the index proposes
 * fixes a distance between two places in memory, and with it every aligned
 * block around the page either matches at that distance or does not. So the
 * match is grown in both directions, page by page, whatever its alignment, until
 * fingerprints differ; the largest aligned block within the run is the order
 * of its anchor. Runs go by that order, highest first, then by length, and take
 * the pages that no run before them took and no floor forbids to them; single
 * pages are the last.
 *
 * Content sits at distances that are no multiples of a block in real guests,
 * and one page that was written breaks a block, but not the rest of the run: it
 * is then two runs, and one again when the page matches again. If the others
 * are shared by then, that page is a run by itself; but where a floor keeps
 * blocks whole, it grows over those that are shared where they belong, up to the
 * ends of its block.
 *
 * A guest can make many pages that look alike, so growth has a number of steps
 * for each batch; when they are used up, each page stands alone.
 */
#include "policy/policy.h"

#include "mechanism/lookup.h"

#define ORDER_MAX (PGSHARE_ORDERS - 1u)

uint32_t pgs_blocks_order(uint64_t first, uint64_t count)
{
    uint32_t order = ORDER_MAX;

    for (; order > 0; order--) {
        uint64_t size = UINT64_C(1) << order;
        uint64_t begin = (first + size - 1) & ~(size - 1);

        if (begin + size <= first + count)
            break;
    }
    return order;
}

/* ---- growth -------------------------------------------------------------- */

/* Of the blocks in which a floor keeps the page; 1: none does. */
static uint32_t size_at(const struct pgs_match *match, uint32_t page)
{
    return pgs_floor_size(pgs_page_domain(match->host, page),
                          pgs_page_gfn(match->host, page));
}

/* What is known of a page of the batch's chunk: by the batch, or its word. */
static uint32_t print_at(const struct pgs_match *match, uint32_t page)
{
    uint32_t i = page - match->batch->page;
    uint64_t word;

    if (i < match->batch->count && match->print[i])
        return match->print[i];
    word = atomic_load_explicit(pgs_word_at(&match->host->chunks, page),
                                memory_order_relaxed);
    return pgs_scan_is_plain(match->domain, word) ? pgs_word_index(word) : 0;
}

/* The name of the frame that the page maps, or 0. */
static uint64_t frame_at(const struct pgs_match *match, uint32_t page)
{
    struct pgs_lookup lookup;
    uint32_t frame;
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&match->host->chunks, page), memory_order_acquire);

    if (word & PGS_BUSY || pgs_word_state(word) != PGS_SHARED)
        return 0;
    if (pgs_word_index(word) == PGS_NODE_ZERO)
        return PGS_NAME_ZERO;
    pgs_lookup_begin(&lookup, match->host);
    frame = pgs_lookup_frame(&lookup, pgs_word_index(word), page);
    pgs_lookup_end(&lookup);
    return frame == PGS_NONE ? 0 : PGS_NAME_FIRST + frame;
}

/* Does the client map what the source maps? */
static bool is_shared(const struct pgs_match *match, uint32_t client,
                      uint32_t source)
{
    uint64_t frame = frame_at(match, client);

    if (source == PGS_PAGE_NONE)
        return frame == PGS_NAME_ZERO;
    return frame && frame == frame_at(match, source);
}

/* Do two pages, both of chunks that the run is in already, match? */
static bool is_match(struct pgs_match *match, uint32_t client, uint32_t source)
{
    uint32_t print = print_at(match, client);
    uint64_t word;

    if (!print)
        return false;
    if (source == PGS_PAGE_NONE)
        return print == pgs_scan_print(match->domain->zero);
    word = atomic_load_explicit(pgs_word_at(&match->host->chunks, source),
                                memory_order_acquire);
    if ((word & PGS_NOT_PLAIN) == PGS_PRIVATE)
        return pgs_word_index(word) == print;
    return pgs_match_holds(match->host, source, match->domain->group, print);
}

static bool is_first_of_chunk(uint32_t page)
{
    return !(page & (PGS_CHUNK_GFNS - 1));
}

/* Is the page kept in one block with the one before it? */
static bool is_kept(const struct pgs_match *match, uint32_t client,
                    uint32_t source)
{
    return client & (size_at(match, client) - 1) ||
           (source != PGS_PAGE_NONE && source & (size_at(match, source) - 1));
}

/* The source of the i-th page. */
static uint32_t source_at(const struct pgs_run *run, uint32_t i)
{
    return run->source == PGS_PAGE_NONE ? PGS_PAGE_NONE : run->source + i;
}

static void grow_forward(struct pgs_match *match, struct pgs_run *run)
{
    while (run->count < PGS_BLOCK && match->steps) {
        uint32_t client = run->client + run->count;
        uint32_t source = source_at(run, run->count);

        if (is_first_of_chunk(client) || is_first_of_chunk(source))
            break;
        match->steps--;
        if (!is_match(match, client, source) &&
            !(is_kept(match, client, source) &&
              is_shared(match, client, source)))
            break;
        run->count++;
    }
}

/* A run that is long enough grows to where its first block begins. */
static void grow_backward(struct pgs_match *match, struct pgs_run *run)
{
    while (match->steps && !is_first_of_chunk(run->client) &&
           !is_first_of_chunk(run->source)) {
        uint32_t client = run->client - 1;
        uint32_t source = source_at(run, UINT32_MAX);

        if (run->count >= PGS_BLOCK &&
            !is_kept(match, run->client, run->source))
            break;
        match->steps--;
        if (!is_match(match, client, source) &&
            !(is_kept(match, run->client, run->source) &&
              is_shared(match, client, source)))
            break;
        run->client = client;
        run->source = source;
        run->count++;
    }
}

static void grow(struct pgs_match *match, struct pgs_run *run)
{
    grow_forward(match, run);
    grow_backward(match, run);
}

/* Does the floor of either side let the run share this page? Ordinals have the
 * alignment of GFNs. */
static bool is_allowed(const struct pgs_match *match, const struct pgs_run *run,
                       uint32_t client)
{
    uint32_t source = run->source + (client - run->client);
    uint32_t ours = size_at(match, client), theirs = size_at(match, source);
    uint32_t large = ours < theirs ? theirs : ours;
    uint32_t small = ours < theirs ? ours : theirs;
    uint32_t first = client - ((ours < theirs ? source : client) & (large - 1));

    return !((client ^ source) & (small - 1)) &&
           (uint64_t)first - run->client + large <= run->count &&
           first >= run->client;
}

/* A run that the page is part of at this distance, or NULL. The last ones are
 * looked at first, since pages come in order. */
static const struct pgs_run *covered(const struct pgs_match *match,
                                     uint32_t client, uint32_t source)
{
    for (uint32_t i = match->n_runs; i-- > 0;) {
        const struct pgs_run *run = &match->runs[i];

        if (client - run->client < run->count &&
            client - run->client == source - run->source)
            return run;
    }
    return NULL;
}

uint32_t pgs_blocks_proposed(const struct pgs_match *match, uint32_t source)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < match->n_runs; i++)
        n += source - match->runs[i].source < match->runs[i].count;
    return n;
}

uint32_t pgs_blocks_anchor(struct pgs_match *match, uint32_t client,
                           uint32_t source)
{
    struct pgs_run run = { .client = client, .source = source, .count = 1 };
    const struct pgs_run *old = covered(match, client, source);

    if (!old) {
        if (match->n_runs == PGS_RUNS_MAX)
            pgs_blocks_share(match);
        grow(match, &run);
        run.order = pgs_blocks_order(run.client, run.count);
        old = &match->runs[match->n_runs];
        match->runs[match->n_runs++] = run;
    }
    return is_allowed(match, old, client) ? old->count : 0;
}

/* ---- who goes first ------------------------------------------------------ */

static bool goes_before(const struct pgs_run *a, const struct pgs_run *b)
{
    return a->order != b->order ? a->order > b->order : a->count > b->count;
}

static void sort(struct pgs_run *runs, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        struct pgs_run run = runs[i];
        uint32_t k = i;

        for (; k > 0 && goes_before(&run, &runs[k - 1]); k--)
            runs[k] = runs[k - 1];
        runs[k] = run;
    }
}

/* Has another run the page? Those outside the batch are anybody's. */
static bool is_taken(const struct pgs_match *match, uint32_t page)
{
    uint32_t i = page - match->batch->page;

    return i < match->batch->count && pgs_bit_has(match->taken, i);
}

static void take(struct pgs_match *match, uint32_t page)
{
    uint32_t i = page - match->batch->page;

    if (i < match->batch->count)
        pgs_bit_set(match->taken, i);
}

/* What a floor forbids to this run may be another's. */
static void take_allowed(struct pgs_match *match, const struct pgs_candidate *c,
                         uint32_t client)
{
    struct pgs_part part = { .at = 0 };

    while (pgs_floor_next(c, part.at + part.count, &part))
        for (uint32_t i = part.at; i < part.at + part.count; i++)
            take(match, client + i);
}

/* The other way round: the run's own page is the frame. */
static void turn(struct pgs_candidate *candidate)
{
    struct pgs_domain *domain = candidate->source;
    uint64_t gfn = candidate->source_gfn;

    candidate->source = candidate->client;
    candidate->source_gfn = candidate->client_gfn;
    candidate->client = domain;
    candidate->client_gfn = gfn;
}

static void share_part(struct pgs_match *match, const struct pgs_run *run,
                       uint32_t at, uint32_t n, bool turned)
{
    struct pgshare_host *host = match->host;
    uint32_t print = print_at(match, run->client + at), end = at + n;
    struct pgs_candidate candidate = {
        .client = match->domain,
        .client_gfn = pgs_page_gfn(host, run->client + at),
        .count = n,
        .cause = PGSHARE_CAUSE_SCAN,
        .object = pgs_scan_key(print, match->domain->group),
    };

    if (run->source != PGS_PAGE_NONE) {
        candidate.source = pgs_page_domain(host, run->source);
        candidate.source_gfn = pgs_page_gfn(host, run->source + at);
    }
    take_allowed(match, &candidate, run->client + at);
    if (turned)
        turn(&candidate);
    at += pgs_candidate_try(host, &candidate, match->budget);
    for (; at < end; at++)
        pgs_match_leave(match, run->client + at);
}

/* Those of its pages that are left. */
static void share_run(struct pgs_match *match, const struct pgs_run *run)
{
    uint32_t at = 0;

    while (at < run->count) {
        bool turned = pgs_turn_is(match, run, at);
        uint32_t n = !is_taken(match, run->client + at);

        while (n && at + n < run->count &&
               !is_taken(match, run->client + at + n) &&
               pgs_turn_is(match, run, at + n) == turned)
            n++;
        if (n)
            share_part(match, run, at, n, turned);
        at += n ? n : 1;
    }
}

void pgs_blocks_share(struct pgs_match *match)
{
    pgs_match_note(match);
    sort(match->runs, match->n_runs);
    pgs_turn_runs(match);
    for (uint32_t i = 0; i < match->n_runs; i++)
        share_run(match, &match->runs[i]);
    pgs_turn_end(match);
    match->n_runs = 0;
}

void pgs_blocks_zeroes(struct pgs_match *match, uint32_t client, uint32_t count)
{
    struct pgs_run run = { .client = client, .source = PGS_PAGE_NONE,
                           .count = count };

    if (size_at(match, client) > 1)
        grow(match, &run);
    pgs_match_note(match);
    share_run(match, &run);
}

/* ---- statistics ---------------------------------------------------------- */

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void count_run(struct pgs_scan *scan, uint64_t gfn, uint32_t n)
{
    uint32_t order = pgs_blocks_order(gfn, n);
    uint32_t length = 31u - (uint32_t)__builtin_clz(n);

    add(&scan->order_pages[order], n);
    add(&scan->order_saved[order], n - 1);
    add(&scan->length_pages[length], n);
    add(&scan->length_saved[length], n - 1);
}

void pgs_blocks_count(struct pgs_scan *scan, const struct pgs_extent *extent)
{
    uint32_t i = 0;

    while (i < extent->count) {
        uint32_t n = 0;

        while (i + n < extent->count && extent->page[i + n] & PGS_PAGE_DONE &&
               !extent->result[i + n])
            n++;
        if (n)
            count_run(scan, extent->client.gfn + i, n);
        i += n + 1;
    }
}
