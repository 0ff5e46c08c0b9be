/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pass: one plain walk over the fingerprints of private pages.
 *
 *   next batch ─ FINGERPRINT ─ for each page: zero? known? ─ candidates
 *
 * A batch is up to 512 consecutive private pages. Its fingerprints are written
 * into the pages' words and into the content index. A page whose fingerprint
 * the index knows is a candidate, and the extent grows over the pages that
 * follow as long as theirs match too: consecutive pages of one guest mostly
 * match consecutive pages of another. Runs of zero pages go to the zero frame.
 *
 * A fingerprint proposes only; equality is the protocol's to find. One that
 * keeps proposing wrongly (a guest can make collisions) is given up after
 * max_mismatches tries.
 */
#include "policy/policy.h"

#include "mechanism/lookup.h"

/* Pages to be shared are PRIVATE, plain, and not in flight. */
static bool is_plain(const struct pgs_domain *domain, uint64_t word)
{
    return (word & (PGS_STATE | PGS_BUSY | PGS_UNSHAREABLE | PGS_ATTR_FREE |
                    PGS_ATTR_SCRUB | PGS_ATTR_STUCK)) == PGS_PRIVATE &&
           !pgs_quarantined(domain, word);
}

/* The bits of a fingerprint that a word keeps; never 0. */
static uint32_t short_print(uint64_t fingerprint)
{
    uint32_t print = (uint32_t)(fingerprint >> 16);

    return print ? print : 1;
}

/* What is to be indexed: the group keeps contents of other groups apart. */
static uint64_t index_key(uint64_t fingerprint, uint32_t group)
{
    return fingerprint ^ pgs_mix(group);
}

/* ---- one batch --------------------------------------------------------- */

struct batch {
    struct pgshare_host *host;
    struct pgs_domain *domain;
    struct pgs_extent *extent; /* ids[]: fingerprints; status[] */
    struct pgs_budget *budget;
};

static uint64_t print_of(const struct batch *batch, uint32_t i)
{
    return batch->extent->status[i] ? 0 : batch->extent->ids[i];
}

/* Notes the fingerprint in the word, if the page is still as it was. */
static bool note(const struct batch *batch, uint32_t i)
{
    _Atomic uint64_t *at = pgs_word_at(&batch->host->chunks,
                                       batch->extent->source.page + i);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    uint64_t next = (word & 0xffff) |
                    (uint64_t)short_print(print_of(batch, i))
                        << PGS_PAYLOAD_SHIFT;

    return is_plain(batch->domain, word) &&
           atomic_compare_exchange_strong_explicit(
               at, &word, next, memory_order_release, memory_order_relaxed);
}

/* Has page `page` of the group a content with this fingerprint, as far as its
 * word or frame remembers? */
static bool matches(struct pgshare_host *host, uint32_t page, uint32_t group,
                    uint32_t print)
{
    const struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];
    struct pgs_lookup lookup;
    uint64_t word;
    uint32_t frame;
    bool equal;

    if (!chunk->words || !chunk->domain || chunk->domain->group != group)
        return false;
    word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                memory_order_acquire);
    if (word & PGS_BUSY)
        return false;
    if (pgs_word_state(word) == PGS_PRIVATE)
        return pgs_word_index(word) == print && !(word & PGS_UNSHAREABLE);
    if (pgs_word_state(word) != PGS_SHARED ||
        pgs_word_index(word) == PGS_NODE_ZERO)
        return false;
    pgs_lookup_begin(&lookup, host);
    frame = pgs_lookup_frame(&lookup, pgs_word_index(word), page);
    equal = frame != PGS_NONE &&
            pgs_frame_at(&host->frames, frame)->fingerprint == print;
    pgs_lookup_end(&lookup);
    return equal;
}

/* A page in flight may match when it has come down; it stays in the index. */
static bool is_in_flight(struct pgshare_host *host, uint32_t page)
{
    return host->chunks.list[page >> PGS_CHUNK_SHIFT].words &&
           atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                memory_order_acquire) & PGS_BUSY;
}

/* A page that may equal page i of the batch, or PGS_PAGE_NONE. */
static uint32_t find(const struct batch *batch, uint32_t i)
{
    struct pgs_policy *policy = batch->host->policy;
    uint64_t print = print_of(batch, i);
    uint64_t key = index_key(print, batch->domain->group);
    uint32_t self = batch->extent->source.page + i;
    uint32_t cursor = 0, page;

    while (pgs_index_next(&policy->index, key, &cursor, &page)) {
        if (page == self || is_in_flight(batch->host, page))
            continue;
        if (matches(batch->host, page, batch->domain->group,
                    short_print(print)))
            return page;
        pgs_index_remove(&policy->index, key, page);
        cursor = 0;
    }
    return PGS_PAGE_NONE;
}

/* How far pages i, i+1, … match `page`, page+1, …: at least 1. */
static uint32_t grow(const struct batch *batch, uint32_t i, uint32_t page)
{
    const struct pgs_extent *extent = batch->extent;
    uint32_t n = 1;

    while (i + n < extent->count && print_of(batch, i + n) &&
           ((page + n) & (PGS_CHUNK_GFNS - 1)) &&
           page + n != extent->source.page + i &&
           matches(batch->host, page + n, batch->domain->group,
                   short_print(print_of(batch, i + n))))
        n++;
    return n;
}

static uint32_t try_match(struct batch *batch, uint32_t i, uint32_t page)
{
    struct pgs_candidate candidate = {
        .source = pgs_page_domain(batch->host, page),
        .source_gfn = pgs_page_gfn(batch->host, page),
        .client = batch->domain,
        .client_gfn = batch->extent->source.gfn + i,
        .count = grow(batch, i, page),
        .cause = PGSHARE_CAUSE_SCAN,
    };

    pgs_candidate_try(batch->host, &candidate, batch->budget);
    return candidate.count;
}

static uint32_t try_zero(struct batch *batch, uint32_t i)
{
    uint64_t zero = batch->host->groups[batch->domain->group].zero;
    struct pgs_candidate candidate = {
        .client = batch->domain,
        .client_gfn = batch->extent->source.gfn + i,
        .count = 1,
        .cause = PGSHARE_CAUSE_SCAN,
    };

    while (i + candidate.count < batch->extent->count &&
           print_of(batch, i + candidate.count) == zero)
        candidate.count++;
    pgs_candidate_try(batch->host, &candidate, batch->budget);
    return candidate.count;
}

/* Looks at page i; answers how many pages that dealt with. */
static uint32_t look(struct batch *batch, uint32_t i)
{
    struct pgs_policy *policy = batch->host->policy;
    uint64_t print = print_of(batch, i);
    uint32_t page;

    if (!print)
        return 1;
    if (print == batch->host->groups[batch->domain->group].zero)
        return try_zero(batch, i);
    page = find(batch, i);
    if (page != PGS_PAGE_NONE)
        return try_match(batch, i, page);
    if (note(batch, i))
        pgs_index_add(&policy->index,
                      index_key(print, batch->domain->group),
                      batch->extent->source.page + i);
    return 1;
}

static void finish(struct pgs_call *call)
{
    struct pgs_policy *policy = call->host->policy;
    struct pgs_budget all = { UINT64_MAX, UINT64_MAX };
    struct batch batch = {
        .host = call->host,
        .domain = call->domain,
        .extent = call->extent,
        .budget = &all,
    };
    uint32_t i = 0;

    policy->pass.pending--;
    policy->progress.scanned += batch.extent->count;
    pgs_count(&call->host->shards, PGS_COUNT_SCANNED, batch.extent->count);
    while (i < batch.extent->count && pgs_may_share(batch.domain))
        i += look(&batch, i);
    pgs_extent_free(call->host, call->extent);
}

static enum pgs_verdict printed(struct pgs_call *call)
{
    (void)call;
    return PGS_DONE;
}

static enum pgs_verdict print(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_FINGERPRINT,
        .domain = domain->cookie,
        .gfn = extent->source.gfn,
        .count = extent->count,
        .arg = call->host->groups[domain->group].seed,
    };

    return pgs_call_submit_into(call, &op, printed, extent->status,
                                extent->ids);
}

/* ---- the walk ---------------------------------------------------------- */

static struct pgs_domain *pass_domain(struct pgshare_host *host)
{
    struct pgs_pass *pass = &host->policy->pass;

    for (; pass->slot && pass->slot < host->slots_used; pass->slot++) {
        struct pgs_domain *domain = atomic_load_explicit(
            &host->slots[pass->slot], memory_order_seq_cst);

        if (domain && pgs_may_share(domain) && pass->gfn < domain->gfns)
            return domain;
        pass->gfn = 0;
        if (!pass->all)
            break;
    }
    pass->slot = 0;
    return NULL;
}

/* The next run of plain pages of the domain; 0: its end was reached. */
static uint32_t next_run(struct pgs_domain *domain, uint64_t *gfn)
{
    uint32_t limit = domain->host->info.extent_max, n = 0;
    uint64_t at = *gfn;

    for (; at < domain->gfns; at++) {
        if (pgs_page_of(domain, at) == PGS_PAGE_NONE) {
            if (n)
                break;
            at |= PGS_CHUNK_GFNS - 1;
            continue;
        }
        if (n && !(at & (PGS_CHUNK_GFNS - 1)))
            break;
        if (!is_plain(domain, pgs_word_peek(domain, at))) {
            if (n)
                break;
            continue;
        }
        if (!n)
            *gfn = at;
        if (++n == limit)
            break;
    }
    if (!n)
        *gfn = domain->gfns;
    return n;
}

static bool start_batch(struct pgs_domain *domain, uint64_t gfn, uint32_t n)
{
    struct pgshare_host *host = domain->host;
    struct pgs_extent *extent = pgs_extent_new(host, n);
    struct pgs_call *call;
    uint64_t token;

    if (!extent)
        return false;
    call = pgs_call_take(host, domain, print);
    if (!call) {
        pgs_extent_free(host, extent);
        return false;
    }
    extent->source.domain = domain;
    extent->source.gfn = gfn;
    extent->source.page = pgs_page_of(domain, gfn);
    call->extent = extent;
    call->finish = finish;
    host->policy->pass.pending++;
    if (pgs_call_drive(call, &token)) {
        finish(call);
        pgs_call_give(call);
    }
    return true;
}

static void begin_pass(struct pgshare_host *host)
{
    struct pgs_policy *policy = host->policy;
    uint64_t wanted = atomic_exchange_explicit(&policy->pass_wanted, 0,
                                               memory_order_acq_rel);

    if (!wanted)
        return;
    policy->pass.all = wanted == UINT64_MAX;
    policy->pass.slot =
        policy->pass.all ? 1 : (uint32_t)(wanted % PGS_SLOTS);
    policy->pass.gfn = 0;
}

bool pgs_pass_run(struct pgshare_host *host, struct pgs_budget *budget)
{
    struct pgs_pass *pass = &host->policy->pass;
    struct pgs_domain *domain;

    if (!pass->slot && !pass->pending)
        begin_pass(host);
    while (pass->slot && pgs_budget_left(host, budget) &&
           pgs_candidate_room(host) &&
           pass->pending < host->calls.size / 4) {
        uint32_t n;

        domain = pass_domain(host);
        if (!domain)
            break;
        n = next_run(domain, &pass->gfn);
        if (!n)
            continue;
        if (!start_batch(domain, pass->gfn, n))
            break;
        pass->gfn += n;
        budget->pages -= budget->pages < n ? budget->pages : n;
    }
    return pass->slot || pass->pending ||
           atomic_load_explicit(&host->policy->pass_wanted,
                                memory_order_relaxed);
}
