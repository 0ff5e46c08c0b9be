/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hints: from what guests and device models say in passing to candidates.
 *
 * Hints of blocks and file pages meet in two maps, (image, block) and
 * (file, page) → the page that was filled from there last. A hint that finds
 * another page there is a candidate; pages whose partners are consecutive make
 * one extent. The map keeps the partner if sharing succeeded, else it learns
 * the newer page. Keys are mixed with the trust group, so that domains which
 * must not share do not even meet.
 *
 * Sources of the idea: "Memory CoW in Xen" (2007); Satori's sharing-aware block
 * device (USENIX ATC 2009); XLH's hints from the I/O path (USENIX ATC 2013).
 */
#include "policy/policy.h"

#include <pgshare/error.h>

/* ---- any thread -------------------------------------------------------- */

int pgs_hint_put(struct pgshare_host *host, const struct pgs_hint *hint)
{
    if (pgs_queue_put(&host->policy->hints, hint)) {
        pgs_wake(host);
        return 0;
    }
    pgs_count(&host->shards, PGS_COUNT_HINTS_DROPPED, 1);
    return PGSHARE_ERR_FULL;
}

void pgs_hint_freed(struct pgs_domain *domain, uint64_t gfn, uint64_t count)
{
    while (count) {
        struct pgs_hint hint = {
            .kind = PGS_HINT_FREE,
            .count = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX,
            .dom = domain->handle,
            .gfn = gfn,
        };

        pgs_hint_put(domain->host, &hint);
        gfn += hint.count;
        count -= hint.count;
    }
}

int pgs_library_enter(struct pgshare_host *host,
                      const struct pgs_library *library)
{
    struct pgs_policy *policy = host->policy;
    int r = 0;

    pgs_mutex_lock(&policy->libraries_lock);
    if (!policy->libraries)
        policy->libraries =
            PGS_NEW_N(&host->heap, struct pgs_library, PGS_LIBRARIES_MAX);
    if (!policy->libraries)
        r = PGSHARE_ERR_NOMEM;
    else if (policy->n_libraries == PGS_LIBRARIES_MAX)
        r = PGSHARE_ERR_FULL;
    else
        policy->libraries[policy->n_libraries++] = *library;
    pgs_mutex_unlock(&policy->libraries_lock);
    return r;
}

static bool is_library(struct pgs_policy *policy, uint64_t file,
                       uint64_t page)
{
    bool found = false;

    pgs_mutex_lock(&policy->libraries_lock);
    for (uint32_t i = 0; !found && i < policy->n_libraries; i++) {
        const struct pgs_library *library = &policy->libraries[i];

        found = library->file == file && page >= library->page &&
                page - library->page < library->count;
    }
    pgs_mutex_unlock(&policy->libraries_lock);
    return found;
}

/* ---- the maps ---------------------------------------------------------- */

static struct pgs_keymap *map_of(struct pgs_policy *policy, uint32_t map)
{
    return map == PGS_MAP_BLOCK ? &policy->blocks : &policy->files;
}

/* Is the ordinal, which may be old, a page of that group? */
static struct pgs_domain *page_owner(struct pgshare_host *host, uint32_t page,
                                     uint32_t group)
{
    struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];

    if (!chunk->words || !chunk->domain || chunk->domain->group != group ||
        pgs_domain_flags(chunk->domain) & PGS_DOMAIN_DYING)
        return NULL;
    return chunk->domain;
}

static void learn(struct pgshare_host *host, const struct pgs_hint *hint,
                  uint32_t map, uint64_t i, uint32_t page, uint32_t group)
{
    struct pgs_key key = { hint->object ^ pgs_mix(group),
                           hint->position + i };
    bool sticky = map == PGS_MAP_FILE &&
                  is_library(host->policy, hint->object, key.position);

    (void)pgs_keymap_put(map_of(host->policy, map), &key, page, sticky);
}

void pgs_hints_learn(struct pgshare_host *host,
                     const struct pgs_extent *extent)
{
    struct pgs_keymap *map = map_of(host->policy, extent->map);

    for (uint32_t i = 0; i < extent->count; i++) {
        struct pgs_key key = { extent->object, extent->position + i };

        if (extent->result[i])
            (void)pgs_keymap_put(map, &key, extent->client.page + i,
                                 extent->cause == PGSHARE_CAUSE_LIBRARY);
    }
}

/* The partner of page i of a hint, or PGS_PAGE_NONE. */
static uint32_t partner(struct pgshare_host *host, const struct pgs_hint *hint,
                        uint32_t map, uint64_t i, struct pgs_domain *domain)
{
    struct pgs_key key = { hint->object ^ pgs_mix(domain->group),
                           hint->position + i };
    uint32_t page;

    if (!pgs_keymap_get(map_of(host->policy, map), &key, &page) ||
        !page_owner(host, page, domain->group))
        return PGS_PAGE_NONE;
    return page == pgs_page_of(domain, hint->gfn + i) ? PGS_PAGE_NONE : page;
}

/* The run of pages from i on whose partners are consecutive. */
static uint32_t partner_run(struct pgshare_host *host,
                            const struct pgs_hint *hint, uint32_t map,
                            uint32_t i, struct pgs_domain *domain,
                            uint32_t first)
{
    uint32_t n = 1;

    while (i + n < hint->count && n < PGSHARE_EXTENT_MAX &&
           (first + n) >> PGS_CHUNK_SHIFT == first >> PGS_CHUNK_SHIFT &&
           partner(host, hint, map, i + n, domain) == first + n)
        n++;
    return n;
}

/* ---- the runner -------------------------------------------------------- */

/* These answer how many pages of the hint are dealt with. */

static uint32_t follow_map(struct pgshare_host *host,
                           const struct pgs_hint *hint,
                           struct pgs_domain *domain, uint32_t map,
                           struct pgs_budget *budget)
{
    uint32_t cause = map == PGS_MAP_BLOCK ? PGSHARE_CAUSE_BLOCK
                                          : PGSHARE_CAUSE_FILE;
    uint32_t i = 0;

    if (map == PGS_MAP_FILE &&
        is_library(host->policy, hint->object, hint->position))
        cause = PGSHARE_CAUSE_LIBRARY;
    while (i < hint->count) {
        uint32_t page = pgs_page_of(domain, hint->gfn + i);
        uint32_t first = partner(host, hint, map, i, domain), n;
        struct pgs_candidate candidate = {
            .client = domain,
            .client_gfn = hint->gfn + i,
            .cause = cause,
            .born_ns = hint->born_ns,
            .map = map,
            .object = hint->object ^ pgs_mix(domain->group),
            .position = hint->position + i,
        };

        if (page == PGS_PAGE_NONE || first == PGS_PAGE_NONE) {
            if (page != PGS_PAGE_NONE)
                learn(host, hint, map, i, page, domain->group);
            i++;
            continue;
        }
        candidate.source = pgs_page_domain(host, first);
        candidate.source_gfn = pgs_page_gfn(host, first);
        candidate.count = partner_run(host, hint, map, i, domain, first);
        n = pgs_candidate_try(host, &candidate, budget);
        i += n;
        if (n < candidate.count)
            break;
    }
    return i;
}

static uint32_t follow_same(struct pgshare_host *host,
                            const struct pgs_hint *hint,
                            struct pgs_domain *domain,
                            struct pgs_budget *budget)
{
    struct pgs_domain *other = pgs_domain_of(host, hint->object);
    struct pgs_candidate candidate = {
        .source = domain,
        .source_gfn = hint->gfn,
        .client = other,
        .client_gfn = hint->position,
        .count = hint->count,
        .cause = PGSHARE_CAUSE_SAME,
        .born_ns = hint->born_ns,
    };

    if (other && pgs_range_ok(other, hint->position, hint->count))
        return pgs_candidate_try(host, &candidate, budget);
    pgs_count(&host->shards, PGS_COUNT_HINTS_USELESS, 1);
    return hint->count;
}

static uint32_t follow_free(struct pgshare_host *host,
                            const struct pgs_hint *hint,
                            struct pgs_domain *domain,
                            struct pgs_budget *budget)
{
    struct pgs_candidate candidate = {
        .client = domain,
        .client_gfn = hint->gfn,
        .count = hint->count,
        .cause = PGSHARE_CAUSE_FREE,
        .flags = PGS_EXTENT_FREE,
    };

    return pgs_candidate_try(host, &candidate, budget);
}

static void note_lineage(struct pgshare_host *host,
                         const struct pgs_hint *hint)
{
    struct pgs_policy *policy = host->policy;

    if (policy->n_lineages == PGS_LINEAGES_MAX) {
        pgs_count(&host->shards, PGS_COUNT_HINTS_DROPPED, 1);
        return;
    }
    policy->lineages[policy->n_lineages++] = (struct pgs_lineage){
        .child = hint->dom,
        .parent = hint->object,
        .born_ns = hint->born_ns,
    };
}

static uint32_t follow(struct pgshare_host *host, const struct pgs_hint *hint,
                       struct pgs_budget *budget)
{
    struct pgs_domain *domain = pgs_domain_of(host, hint->dom);

    if (!domain || !pgs_may_share(domain) ||
        (hint->kind != PGS_HINT_LINEAGE &&
         !pgs_range_ok(domain, hint->gfn, hint->count))) {
        pgs_count(&host->shards, PGS_COUNT_HINTS_USELESS, 1);
        return hint->count;
    }
    switch (hint->kind) {
    case PGS_HINT_BLOCK:
        return follow_map(host, hint, domain, PGS_MAP_BLOCK, budget);
    case PGS_HINT_FILE:
        return follow_map(host, hint, domain, PGS_MAP_FILE, budget);
    case PGS_HINT_SAME:
        return follow_same(host, hint, domain, budget);
    case PGS_HINT_FREE:
        return follow_free(host, hint, domain, budget);
    default:
        note_lineage(host, hint);
        return hint->count;
    }
}

/* The next hint: what is left of the last one, or one from the queue. */
static bool next_hint(struct pgshare_host *host, struct pgs_hint *ret_hint)
{
    struct pgs_policy *policy = host->policy;

    if (policy->carry.count) {
        *ret_hint = policy->carry;
        policy->carry.count = 0;
        return true;
    }
    if (!pgs_queue_take(&policy->hints, ret_hint))
        return false;
    policy->progress.hints++;
    pgs_count(&host->shards, PGS_COUNT_HINTS, 1);
    return true;
}

static void carry_rest(struct pgs_policy *policy, struct pgs_hint *hint,
                       uint32_t done)
{
    if (done >= hint->count)
        return;
    policy->carry = *hint;
    policy->carry.count -= done;
    policy->carry.gfn += done;
    policy->carry.position += done;
}

/* Goes on with one lineage: true while it is not at its end. */
static bool follow_lineage(struct pgshare_host *host,
                           struct pgs_lineage *lineage,
                           struct pgs_budget *budget)
{
    struct pgs_domain *child = pgs_domain_of(host, lineage->child);
    struct pgs_domain *parent = pgs_domain_of(host, lineage->parent);
    uint32_t done = 1;
    uint64_t end;

    if (!child || !parent || child == parent)
        return false;
    end = child->gfns < parent->gfns ? child->gfns : parent->gfns;
    /* where nothing can be done for want of a call, it is for the next run */
    while (done && lineage->gfn < end && pgs_budget_left(host, budget) &&
           pgs_candidate_room(host)) {
        uint64_t left = end - lineage->gfn;
        struct pgs_candidate candidate = {
            .source = parent,
            .source_gfn = lineage->gfn,
            .client = child,
            .client_gfn = lineage->gfn,
            .count = left < PGSHARE_EXTENT_MAX ? (uint32_t)left
                                               : PGSHARE_EXTENT_MAX,
            .cause = PGSHARE_CAUSE_LINEAGE,
            .born_ns = lineage->born_ns,
        };

        if (pgs_page_of(child, lineage->gfn) == PGS_PAGE_NONE ||
            pgs_page_of(parent, lineage->gfn) == PGS_PAGE_NONE) {
            lineage->gfn = (lineage->gfn | (PGS_CHUNK_GFNS - 1)) + 1;
            continue;
        }
        done = pgs_candidate_try(host, &candidate, budget);
        lineage->gfn += done;
    }
    return lineage->gfn < end;
}

bool pgs_hints_run(struct pgshare_host *host, struct pgs_budget *budget)
{
    struct pgs_policy *policy = host->policy;
    struct pgs_hint hint;
    uint32_t done = 1;

    /* where nothing can be done for want of a call, it is for the next run */
    while (done && pgs_budget_left(host, budget) &&
           pgs_candidate_room(host) && next_hint(host, &hint)) {
        done = follow(host, &hint, budget);
        carry_rest(policy, &hint, done);
    }
    while (policy->n_lineages && pgs_budget_left(host, budget)) {
        struct pgs_lineage *last = &policy->lineages[policy->n_lineages - 1];

        if (follow_lineage(host, last, budget))
            break;
        policy->n_lineages--;
    }
    return policy->n_lineages || policy->carry.count ||
           atomic_load_explicit(&policy->hints.head, memory_order_relaxed) !=
               atomic_load_explicit(&policy->hints.tail, memory_order_relaxed);
}
