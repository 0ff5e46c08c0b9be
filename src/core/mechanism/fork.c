/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forking a read-only domain stub (2007; SnowFlock, EuroSys 2009; Xen's VM
 * fork of 2020).
 *
 * To freeze a domain is to publish every page of it: each becomes a frame with
 * one mapping, the stub's own. To fork is to map these frames at the same GFNs
 * of a child that has only holes. Both are the share protocol over extents,
 * with the source alone or with holes for a client.
 *
 * What cannot be a frame is copied for the child: secrets, which keep their
 * declaration there, and pages that somebody holds. Volatile pages are left
 * out; their content may be dropped at any time.
 *
 * Each page that a child maps is one that it can demand by writing. Sharing
 * frees as many frames as it adds demands; a fork frees none. So the frames
 * are taken from the machine first, and stay in the reserve. Where the
 * embedder would rather not (PGSHARE_FORK_UNSECURED), the child's own faults
 * take their frames from the machine one by one, never from what secures
 * others, and the ledger knows the difference as `unsecured`: as many mappings
 * as the child has that it was forked with, until it leaves.
 */
#include "mechanism/fork.h"

#include "mechanism/domain.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"
#include "mechanism/reserve.h"
#include "mechanism/share.h"

#include <pgshare/stats.h>

/* What is to be done with a page of the stub. */
enum kind { SKIP, PUBLISH, MAP, COPY };

/* A walk over the stub's words, run by run. */
struct walk {
    struct pgs_domain *stub;
    struct pgs_domain *child; /* NULL: freezing */
    uint64_t timeout;
    uint64_t gfn;
    uint32_t n;
    enum kind kind;
    bool in_flight; /* somebody else had a page: what becomes of it is open */
};

static enum kind kind_of(struct walk *walk, uint64_t word, uint64_t child)
{
    enum pgs_state state = pgs_word_state(word);

    if (state == PGS_HOLE || word & PGS_ATTR_VOLATILE)
        return SKIP;
    if (!walk->child) {
        if (state == PGS_SHARED && word & PGS_BUSY)
            walk->in_flight = true; /* it may be breaking */
        return state == PGS_SHARED || word & PGS_UNSHAREABLE ? SKIP : PUBLISH;
    }
    if (pgs_word_state(child) != PGS_HOLE)
        return SKIP; /* done by an earlier call */
    if (state == PGS_SHARED && !(word & PGS_ATTR_NEVER))
        return MAP;
    return COPY;
}

/* The next run of pages of one kind other than SKIP; false: the end. */
static bool next_run(struct walk *walk)
{
    uint64_t gfn = walk->gfn + walk->n;

    walk->n = 0;
    for (; gfn < walk->stub->gfns; gfn++) {
        uint64_t word = pgs_word_peek(walk->stub, gfn);
        uint64_t child = walk->child ? pgs_word_peek(walk->child, gfn) : 0;
        enum kind kind = kind_of(walk, word, child);

        if (!walk->n) {
            if (kind == SKIP)
                continue;
            walk->gfn = gfn;
            walk->kind = kind;
        } else if (kind != walk->kind || !(gfn & (PGS_CHUNK_GFNS - 1))) {
            break;
        }
        if (++walk->n == walk->stub->host->info.extent_max)
            break;
    }
    return walk->n > 0;
}

/* Pages of a fork without cover that were not mapped need none. (NULL: a call
 * that only asked what the platform knows.) */
static void end_extent(struct pgshare_host *host, struct pgs_extent *extent)
{
    if (extent && extent->flags & PGS_EXTENT_UNSECURED)
        pgs_unsecured_end(extent->client.domain,
                          extent->count - extent->shared);
    pgs_extent_free(host, extent);
}

static void free_extent(struct pgs_call *call)
{
    end_extent(call->host, call->extent);
}

/* No error of a page: all calls are taken. */
#define NO_CALL 1

/* Drives an extent of the share protocol; answers the first error, or NO_CALL.
 */
static int run_extent(struct walk *walk, struct pgs_extent *extent,
                      uint64_t *ret_shared)
{
    struct pgshare_host *host = walk->stub->host;
    struct pgs_call *call = pgs_share_take(host, extent);
    uint64_t token;
    int r;

    if (!call) {
        end_extent(host, extent);
        return NO_CALL;
    }
    call->kind = PGSHARE_OUTCOME_SHARE;
    call->timeout = walk->timeout;
    call->finish = free_extent;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    *ret_shared += extent->shared;
    walk->in_flight |= extent->missed > 0;
    pgs_call_give(call);
    end_extent(host, extent);
    return r;
}

static struct pgs_extent *make_extent(struct walk *walk, uint32_t flags)
{
    struct pgs_extent *extent = pgs_extent_new(walk->stub->host, walk->n);

    if (!extent)
        return NULL;
    extent->flags = flags;
    extent->cause = PGSHARE_CAUSE_FORK;
    extent->source.domain = walk->stub;
    extent->source.gfn = walk->gfn;
    extent->source.page = pgs_page_of(walk->stub, walk->gfn);
    return extent;
}

/* ---- what the platform knows ------------------------------------------- */

static enum pgs_verdict harvested(struct pgs_call *call)
{
    (void)call;
    return PGS_DONE;
}

static enum pgs_verdict harvest(struct pgs_call *call)
{
    return pgs_harvest(call, call->domain, harvested);
}

/* Where the platform resolves CoW, a word may still name a frame that the
 * guest has left: after this none does, as long as it does not run. */
static int learn_of_breaks(struct pgs_domain *domain, uint64_t timeout)
{
    struct pgs_call *call;
    uint64_t token;
    int r;

    if (!(domain->caps & PGSHARE_CAP_PLATFORM_COW))
        return 0;
    call = pgs_call_take(domain->host, domain, harvest);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->timeout = timeout;
    call->finish = free_extent; /* nothing to tell */
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    return r;
}

/* ---- freezing ---------------------------------------------------------- */

/* A page that is held, declared, or whose mark is void will be copied. */
static bool is_left(int r)
{
    return r == PGSHARE_ERR_BUSY || r == PGSHARE_ERR_NEVER_SHARE ||
           r == PGSHARE_ERR_SOURCE_TICKET || r == PGSHARE_ERR_CLIENT_TICKET;
}

static int publish_run(struct walk *walk)
{
    struct pgs_extent *extent = make_extent(walk, PGS_EXTENT_SOURCE |
                                                      PGS_EXTENT_MARK);
    uint64_t ignored = 0;
    int r;

    if (!extent)
        return PGSHARE_ERR_NOMEM;
    r = run_extent(walk, extent, &ignored);
    if (r == NO_CALL)
        return PGSHARE_ERR_BUSY;
    return is_left(r) ? 0 : r;
}

int pgs_freeze(struct pgs_domain *domain, uint64_t timeout)
{
    struct walk walk = { .stub = domain, .timeout = timeout };
    int r;

    if (domain->caps & PGSHARE_CAP_NO_REMAP)
        return PGSHARE_ERR_NOTSUP;
    if (pgs_domain_flags(domain) & PGS_DOMAIN_SUSPENDED)
        return PGSHARE_ERR_SUSPENDED;
    if (atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_FROZEN,
                                 memory_order_acq_rel) & PGS_DOMAIN_FROZEN)
        return PGSHARE_ERR_STATE;
    r = learn_of_breaks(domain, timeout);
    while (!r && next_run(&walk))
        r = publish_run(&walk);
    if (!r && walk.in_flight)
        r = PGSHARE_ERR_INPROGRESS;
    if (r)
        atomic_fetch_and_explicit(&domain->flags, ~PGS_DOMAIN_FROZEN,
                                  memory_order_release);
    return r;
}

/* ---- forking ----------------------------------------------------------- */

static enum pgs_verdict cloned(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_host *host = call->host;

    for (uint32_t i = 0; i < extent->count; i++) {
        uint64_t secret = pgs_word_peek(extent->source.domain,
                                        extent->source.gfn + i) &
                          PGS_ATTR_NEVER;
        uint32_t page = extent->client.page + i;

        extent->result[i] = extent->status[i];
        if (!(extent->page[i] & PGS_PAGE_CLIENT)) {
            extent->result[i] = PGSHARE_ERR_BUSY;
        } else if (extent->status[i]) {
            pgs_page_unlock(host, page);
        } else {
            atomic_fetch_or_explicit(pgs_word_at(&host->chunks, page), secret,
                                     memory_order_relaxed);
            pgs_count(&host->shards, PGS_LEVEL_TRACKED, 1);
            pgs_page_privatise(host, page, 0);
            extent->shared++;
        }
    }
    call->result = pgs_extent_result(extent);
    return PGS_DONE;
}

/* Takes the holes, and has them filled with copies. */
static enum pgs_verdict clone_pages(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_CLONE,
        .domain = extent->client.domain->cookie,
        .gfn = extent->client.gfn,
        .count = extent->count,
        .peer = extent->source.domain->cookie,
        .peer_gfn = extent->source.gfn,
    };
    uint32_t taken = 0;

    for (uint32_t i = 0; i < extent->count; i++) {
        uint64_t word;

        if (!pgs_word_trylock(pgs_word_at(&call->host->chunks,
                                          extent->client.page + i),
                              false, &word))
            continue;
        extent->page[i] |= PGS_PAGE_CLIENT;
        taken++;
    }
    if (taken == extent->count)
        return pgs_call_submit_into(call, &op, cloned, extent->status,
                                    extent->ids);
    pgs_extent_unlock(extent, call->host);
    call->result = PGSHARE_ERR_BUSY;
    return PGS_DONE;
}

/* Copies are the child's own memory: their frames come from the machine. */
static int copy_run(struct walk *walk, struct pgshare_fork_info *info)
{
    struct pgshare_host *host = walk->stub->host;
    struct pgs_extent *extent;
    struct pgs_call *call;
    uint64_t token;
    int64_t got = 0;
    int r;

    if (!(host->info.ops >> PGSHARE_OP_CLONE & 1))
        return PGSHARE_ERR_NOTSUP;
    r = pgs_reserve_exchange(host, walk->n, walk->timeout, &got);
    if (r) {
        if (got > 0)
            pgs_reserve_exchange(host, -got, walk->timeout, &got);
        return r;
    }
    extent = make_extent(walk, 0);
    call = extent ? pgs_call_take(host, walk->child, clone_pages) : NULL;
    if (!call) {
        pgs_extent_free(host, extent);
        return extent ? PGSHARE_ERR_BUSY : PGSHARE_ERR_NOMEM;
    }
    atomic_store_explicit(&call->peer, walk->stub, memory_order_release);
    extent->client.domain = walk->child;
    extent->client.gfn = walk->gfn;
    extent->client.page = pgs_page_of(walk->child, walk->gfn);
    call->extent = extent;
    call->timeout = walk->timeout;
    call->finish = free_extent;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    info->copied += extent->shared;
    pgs_call_give(call);
    pgs_extent_free(host, extent);
    return r;
}

static int map_run(struct walk *walk, uint32_t flags,
                   struct pgshare_fork_info *info)
{
    struct pgshare_host *host = walk->stub->host;
    bool unsecured = flags & PGSHARE_FORK_UNSECURED;
    struct pgs_extent *extent;
    int64_t got = 0;
    int r;

    if (!unsecured) {
        r = pgs_reserve_exchange(host, walk->n, walk->timeout, &got);
        if (r) {
            if (got > 0)
                pgs_reserve_exchange(host, -got, walk->timeout, &got);
            return r;
        }
    }
    extent = make_extent(walk, PGS_EXTENT_HOLES);
    if (!extent)
        return PGSHARE_ERR_NOMEM;
    extent->client.domain = walk->child;
    extent->client.gfn = walk->gfn;
    extent->client.page = pgs_page_of(walk->child, walk->gfn);
    if (unsecured) {
        extent->flags |= PGS_EXTENT_UNSECURED;
        atomic_fetch_or_explicit(&walk->child->flags, PGS_DOMAIN_UNSECURED,
                                 memory_order_relaxed);
        pgs_unsecured_add(walk->child, walk->n);
    }
    r = run_extent(walk, extent, &info->shared);
    return r == NO_CALL ? PGSHARE_ERR_BUSY : r;
}

static bool has_memory(struct pgs_domain *domain)
{
    for (uint64_t gfn = 0; gfn < domain->gfns; gfn++) {
        if (pgs_page_of(domain, gfn) == PGS_PAGE_NONE)
            gfn |= PGS_CHUNK_GFNS - 1;
        else if (pgs_word_state(pgs_word_peek(domain, gfn)) != PGS_HOLE)
            return true;
    }
    return false;
}

/* The child's words, wherever the stub has some. */
static int make_words(struct pgs_domain *stub, struct pgs_domain *child)
{
    int r = 0;

    for (uint64_t gfn = 0; !r && gfn < stub->gfns; gfn += PGS_CHUNK_GFNS)
        if (pgs_page_of(stub, gfn) != PGS_PAGE_NONE)
            r = pgs_domain_words(child, gfn, 1);
    return r;
}

static uint64_t count_volatile(struct pgs_domain *stub)
{
    uint64_t n;

    pgs_mutex_lock(&stub->lock);
    n = stub->fifo.used;
    pgs_mutex_unlock(&stub->lock);
    return n;
}

int pgs_fork(struct pgs_domain *stub, struct pgs_domain *child,
             uint32_t flags, uint64_t timeout, struct pgshare_fork_info *info)
{
    struct walk walk = { .stub = stub, .child = child, .timeout = timeout };
    int r;

    if (!(pgs_domain_flags(stub) & PGS_DOMAIN_FROZEN))
        return PGSHARE_ERR_STATE;
    if ((pgs_domain_flags(stub) | pgs_domain_flags(child)) &
        PGS_DOMAIN_SUSPENDED)
        return PGSHARE_ERR_SUSPENDED;
    if (stub->group != child->group)
        return PGSHARE_ERR_GROUP;
    if (child->gfns < stub->gfns)
        return PGSHARE_ERR_RANGE;
    if (child->caps & PGSHARE_CAP_NO_REMAP)
        return PGSHARE_ERR_NOTSUP;
    if (child->fork_of != stub->handle && has_memory(child))
        return PGSHARE_ERR_STATE;
    r = make_words(stub, child);
    if (!r)
        child->fork_of = stub->handle;
    while (!r && next_run(&walk))
        r = walk.kind == MAP ? map_run(&walk, flags, info)
                             : copy_run(&walk, info);
    info->skipped = count_volatile(stub);
    return r;
}
