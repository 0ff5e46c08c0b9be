/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Candidates: from "these may be equal" to an extent in the share protocol.
 *
 * A candidate is cut into parts that no floor forbids, and these into extents
 * that the protocol can carry (a chunk of the GFN table, 512 pages, no overlap
 * with itself; blocks that floors keep whole stay whole), which are tried at
 * once. Where the backend answers inline, that is all; where it does not, the
 * extent is the runner's from then on, and the budget of extents under way keeps
 * calls free for faults, which must never wait for candidates.
 */
#include "policy/policy.h"

#include "mechanism/share.h"

bool pgs_may_share(const struct pgs_domain *domain)
{
    const uint32_t no = PGS_DOMAIN_DYING | PGS_DOMAIN_GONE |
                        PGS_DOMAIN_SUSPENDED;

    return !(domain->caps & PGSHARE_CAP_NO_REMAP) &&
           !(pgs_domain_flags(domain) & no);
}

bool pgs_candidate_room(struct pgshare_host *host)
{
    return host->policy->jobs < host->calls.size / 2;
}

/* Bucket i: below 2^i microseconds. */
static void count_latency(struct pgshare_host *host,
                          const struct pgs_extent *extent)
{
    uint64_t us = (pgs_now(&host->platform) - extent->born_ns) / 1000;
    unsigned bucket = 0;

    while (bucket < PGSHARE_HISTOGRAM_BUCKETS - 1 && us >> bucket)
        bucket++;
    atomic_fetch_add_explicit(&host->policy->hint_to_share[bucket],
                              extent->shared, memory_order_relaxed);
}

static void finish(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    struct pgs_extent *extent = call->extent;
    struct pgs_policy *policy = host->policy;

    policy->jobs--;
    policy->progress.shared += extent->shared;
    policy->progress.compared += extent->count;
    if (extent->born_ns && extent->shared)
        count_latency(host, extent);
    if (extent->born_ns && !extent->shared)
        pgs_count(&host->shards, PGS_COUNT_HINTS_USELESS, 1);
    if (extent->map)
        pgs_hints_learn(host, extent);
    pgs_match_learn(host, extent);
    pgs_blocks_count(&policy->scan, extent);
    pgs_extent_free(host, extent);
}

/* No memory: what is not tried now is looked at by another pass. */
static void forget_block(const struct pgs_candidate *c,
                         const struct pgs_part *part)
{
    uint32_t page;

    for (uint32_t i = 0; i < part->block; i++) {
        page = pgs_page_of(c->client, c->client_gfn + part->at + i);
        if (page != PGS_PAGE_NONE)
            pgs_scan_forget(c->client, page);
    }
}

/* Fills in one extent of the candidate, of whole blocks at the beginning of
 * this part. */
static struct pgs_extent *make(struct pgshare_host *host,
                               const struct pgs_candidate *c,
                               const struct pgs_part *part)
{
    uint32_t client, source = 0, n, at = part->at;
    struct pgs_extent *extent;

    n = pgs_extent_cut(c->client, c->client_gfn + at, part->count, &client);
    if (n && c->source)
        n = pgs_extent_cut(c->source, c->source_gfn + at, n, &source);
    /* an extent that overlaps itself is cut to the distance */
    if (n && c->source == c->client && source < client && client - source < n)
        n = client - source;
    if (n && c->source == c->client && client < source && source - client < n)
        n = source - client;
    n -= n % part->block;
    if (!n || (c->source && source == client))
        return NULL;
    extent = pgs_extent_new(host, n);
    if (!extent) {
        forget_block(c, part);
        return NULL;
    }
    extent->flags = c->flags | PGS_EXTENT_MARK;
    extent->block = part->block;
    extent->cause = c->cause;
    extent->born_ns = c->born_ns;
    extent->source.domain = c->source;
    extent->source.gfn = c->source_gfn + at;
    extent->source.page = source;
    extent->client.domain = c->client;
    extent->client.gfn = c->client_gfn + at;
    extent->client.page = client;
    extent->map = c->map;
    extent->object = c->object;
    extent->position = c->position + at;
    if (!c->source)
        extent->flags |= PGS_EXTENT_ZERO;
    return extent;
}

/* What became of an extent: nothing, for want of a call; all that could; or it is
 * in the runner's list. */
enum started { NO_CALL, DONE, LATE };

static enum started start(struct pgshare_host *host, struct pgs_extent *extent,
                          void (*end)(struct pgs_call *call))
{
    struct pgs_call *call = pgs_share_take(host, extent);
    uint64_t token;

    if (!call) {
        pgs_extent_free(host, extent);
        return NO_CALL;
    }
    host->policy->jobs++;
    call->finish = end;
    if (!pgs_call_drive(call, &token))
        return LATE;
    end(call);
    pgs_call_give(call);
    return DONE;
}

static void charge(struct pgs_budget *budget, uint32_t count)
{
    budget->pages -= budget->pages < count ? budget->pages : count;
}

static void finish_publish(struct pgs_call *call)
{
    call->host->policy->jobs--;
    pgs_extent_free(call->host, call->extent);
}

void pgs_candidate_publish(struct pgshare_host *host, struct pgs_domain *domain,
                           uint32_t page, uint32_t count,
                           struct pgs_budget *budget)
{
    struct pgs_extent *extent = NULL;

    if (pgs_candidate_room(host) && pgs_may_share(domain))
        extent = pgs_extent_new(host, count);
    if (!extent)
        return;
    extent->flags = PGS_EXTENT_SOURCE | PGS_EXTENT_MARK;
    extent->cause = PGSHARE_CAUSE_SCAN;
    extent->source.domain = domain;
    extent->source.gfn = pgs_page_gfn(host, page);
    extent->source.page = page;
    charge(budget, count);
    if (start(host, extent, finish_publish) == LATE)
        host->policy->late = true;
}

/* Answers how many pages of the part it took on, whole blocks of them. */
static uint32_t start_part(struct pgshare_host *host,
                           const struct pgs_candidate *c, struct pgs_part part,
                           struct pgs_budget *budget)
{
    uint32_t done = 0;

    while (part.count && pgs_candidate_room(host)) {
        struct pgs_extent *extent = make(host, c, &part);
        uint32_t count = extent ? extent->count : part.block;

        if (extent && start(host, extent, finish) == NO_CALL)
            break;
        done += count;
        part.at += count;
        part.count -= count;
        charge(budget, count);
    }
    return done;
}

uint32_t pgs_candidate_try(struct pgshare_host *host,
                           const struct pgs_candidate *c,
                           struct pgs_budget *budget)
{
    struct pgs_part part;
    uint32_t at = 0;

    if (!pgs_may_share(c->client) || (c->source && !pgs_may_share(c->source)) ||
        (c->source && c->source->group != c->client->group))
        return c->count;
    while (pgs_floor_next(c, at, &part)) {
        uint32_t done = start_part(host, c, part, budget);

        at = part.at + done;
        if (done < part.count)
            return at;
    }
    return c->count;
}
