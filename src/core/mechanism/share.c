/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The share protocol, stage by stage.
 *
 *   lock ─ protect both ─ compare ─ link ─ publish ─ map ─ commit ┐
 *     └ (fused backend)  [foresee] ─ link ─ publish ─ merge ──────┤
 *                                                                 ▼
 *                                         done ← unlock ← undo ← join
 *
 * Each stage is a loop over runs of pages (extent.h): submit the operation for
 * the next run, look at its answers, come back; at the end of the runs the
 * next stage begins. A page that fails anywhere is dropped from the later
 * stages, and the undo stage takes back what it still has: the protection that
 * was ours. Bytes are compared in one place only, between protection and
 * mapping, by the backend; the two exceptions, pages declared free and holes,
 * skip it by their extent's flag. Free pages are checked twice, before they
 * are protected (extent_lock.c) and before they are mapped (share_map.c; the
 * two-check rule of Chiang et al., VEE 2013).
 *
 * Where protect, compare and map would keep a guest waiting while messages
 * travel, the backend fuses them (PGSHARE_CAP_MERGE): publish takes a snapshot
 * then, and the source is merged with it like any other client.
 *
 * Pages of a block (pgs_extent::block) are shared together or not at all: where
 * one of them drops out before anything is mapped, so do the others
 * (extent_block.c). Where the backend compares last, what will differ is
 * foreseen by fingerprints (share_block.c). A page that is written after that
 * is as one that is written after it was shared.
 */
#include "mechanism/share.h"

#include "mechanism/page.h"
#include "mechanism/share_stage.h"

#define LIVE PGS_PAGE_LIVE

static enum pgs_verdict lock(struct pgs_call *call);
static enum pgs_verdict protect_source(struct pgs_call *call);
static enum pgs_verdict protect_client(struct pgs_call *call);
static enum pgs_verdict compare(struct pgs_call *call);
static enum pgs_verdict undo_client(struct pgs_call *call);
static enum pgs_verdict unlock(struct pgs_call *call);

enum pgs_verdict pgs_share_submit(struct pgs_call *call, struct pgshare_op *op,
                                  const struct pgs_side *side,
                                  pgs_step answered)
{
    struct pgs_extent *extent = call->extent;
    uint32_t first = extent->first;

    op->domain = side->domain->cookie;
    op->gfn = side->gfn + first;
    op->count = extent->n;
    return pgs_call_submit_into(call, op, answered, extent->status,
                                extent->ids);
}

bool pgs_share_is_marked(struct pgs_call *call, const struct pgs_side *side,
                         uint32_t i)
{
    return side->domain &&
           pgs_word_state(atomic_load_explicit(
               pgs_word_at(&call->host->chunks, side->page + i),
               memory_order_relaxed)) == PGS_PROTECTED;
}

void pgs_share_fail_page(struct pgs_call *call, uint32_t i, int error)
{
    struct pgs_extent *extent = call->extent;

    pgs_extent_drop(extent, i, error);
    if (error == PGSHARE_ERR_SOURCE_TICKET &&
        pgs_share_is_marked(call, &extent->source, i))
        extent->page[i] |= PGS_PAGE_SOURCE_OURS;
    if (error == PGSHARE_ERR_CLIENT_TICKET &&
        pgs_share_is_marked(call, &extent->client, i))
        extent->page[i] |= PGS_PAGE_CLIENT_OURS;
}

/* ---- protect ----------------------------------------------------------- */

/* Takes over the answers of PROTECT for one side. A page that is said not to
 * be protected may have been, and broken before we asked: it is released into
 * the quarantine. */
static void note_protected(struct pgs_extent *extent, struct pgs_side *side,
                           uint16_t private, uint16_t ours)
{
    uint16_t busy = side == &extent->source ? PGS_PAGE_SOURCE
                                            : PGS_PAGE_CLIENT;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;

        extent->page[i] &= (uint16_t)~private;
        if (extent->status[k]) {
            pgs_extent_drop(extent, i, extent->status[k]);
            extent->page[i] &= (uint16_t)~busy;
            pgs_page_privatise(side->domain->host, side->page + i, 0);
            continue;
        }
        side->own[i] = extent->ids[k];
        extent->page[i] |= ours;
    }
}

static enum pgs_verdict source_protected(struct pgs_call *call)
{
    note_protected(call->extent, &call->extent->source,
                   PGS_PAGE_SOURCE_PRIVATE, PGS_PAGE_SOURCE_OURS);
    call->step = protect_source;
    return PGS_NEXT;
}

static enum pgs_verdict protect_source(struct pgs_call *call)
{
    struct pgshare_op op = { .kind = PGSHARE_OP_PROTECT };

    if (!pgs_share_next_run(call, LIVE | PGS_PAGE_SOURCE_PRIVATE,
                  LIVE | PGS_PAGE_SOURCE_PRIVATE))
        return pgs_share_go(call, protect_client);
    return pgs_share_submit(call, &op, &call->extent->source, source_protected);
}

static enum pgs_verdict client_protected(struct pgs_call *call)
{
    note_protected(call->extent, &call->extent->client,
                   PGS_PAGE_CLIENT_PRIVATE, PGS_PAGE_CLIENT_OURS);
    call->step = protect_client;
    return PGS_NEXT;
}

static enum pgs_verdict protect_client(struct pgs_call *call)
{
    struct pgshare_op op = { .kind = PGSHARE_OP_PROTECT };

    if (!pgs_share_next_run(call, LIVE | PGS_PAGE_CLIENT_PRIVATE,
                  LIVE | PGS_PAGE_CLIENT_PRIVATE))
        return pgs_share_go(call, compare);
    return pgs_share_submit(call, &op, &call->extent->client, client_protected);
}

/* ---- compare ----------------------------------------------------------- */

static enum pgs_verdict compared(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    uint32_t different = 0;

    for (uint32_t k = 0; k < extent->n; k++) {
        if (!extent->status[k])
            continue;
        different += extent->status[k] == PGSHARE_ERR_DIFFERENT;
        pgs_share_fail_page(call, extent->first + k, extent->status[k]);
    }
    pgs_count(&call->host->shards, PGS_COUNT_COMPARED, extent->n);
    if (different)
        pgs_count(&call->host->shards, PGS_COUNT_DIFFERENT, different);
    call->step = compare;
    return PGS_NEXT;
}

/* Runs of frames first, then runs of protected sources. */
static enum pgs_verdict compare(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = { .kind = PGSHARE_OP_COMPARE };
    bool frames = !(call->flags & 1);

    if (extent->flags &
        (PGS_EXTENT_FREE | PGS_EXTENT_HOLES | PGS_EXTENT_SOURCE))
        return pgs_share_go(call, pgs_share_link);
    if (!pgs_share_next_run(call, LIVE | PGS_PAGE_FRAME,
                  frames ? LIVE | PGS_PAGE_FRAME : LIVE)) {
        if (!frames)
            return pgs_share_go(call, pgs_share_link);
        call->flags |= 1;
        return PGS_NEXT;
    }
    if (frames)
        op.ids = &extent->id[extent->first];
    op.own_ids = &extent->client.own[extent->first];
    if (extent->source.domain) {
        op.peer = extent->source.domain->cookie;
        op.peer_gfn = extent->source.gfn + extent->first;
    }
    return pgs_share_submit(call, &op, &extent->client, compared);
}

/* ---- undo -------------------------------------------------------------- */

static void forget_mark(struct pgs_call *call, const struct pgs_side *side,
                        uint32_t i)
{
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&call->host->chunks, side->page + i),
        memory_order_relaxed);

    pgs_page_unmark(call->host, pgs_word_index(word));
}

/* Pages that we protected and did not share, and those whose mark was found to
 * be void, are writable again. */
static void note_undone(struct pgs_call *call, struct pgs_side *side,
                        uint16_t ours, uint16_t busy)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;

        extent->page[i] &= (uint16_t) ~(ours | busy);
        if (pgs_share_is_marked(call, side, i))
            forget_mark(call, side, i);
        if (extent->status[k])
            pgs_page_privatise_stuck(call->host, side->page + i);
        else if (extent->result[i] == PGSHARE_ERR_DIFFERENT ||
                 extent->result[i] == PGS_EXTENT_APART)
            pgs_page_privatise_known(call->host, side->page + i);
        else
            pgs_page_privatise(call->host, side->page + i, 0);
    }
}

static enum pgs_verdict source_undone(struct pgs_call *call)
{
    note_undone(call, &call->extent->source, PGS_PAGE_SOURCE_OURS,
                PGS_PAGE_SOURCE);
    call->step = pgs_share_undo;
    return PGS_NEXT;
}

enum pgs_verdict pgs_share_undo(struct pgs_call *call)
{
    struct pgshare_op op = { .kind = PGSHARE_OP_UNPROTECT };

    if (!pgs_share_next_run(call, PGS_PAGE_SOURCE_OURS, PGS_PAGE_SOURCE_OURS))
        return pgs_share_go(call, undo_client);
    op.own_ids = &call->extent->source.own[call->extent->first];
    return pgs_share_submit(call, &op, &call->extent->source, source_undone);
}

static enum pgs_verdict client_undone(struct pgs_call *call)
{
    note_undone(call, &call->extent->client, PGS_PAGE_CLIENT_OURS,
                PGS_PAGE_CLIENT);
    call->step = undo_client;
    return PGS_NEXT;
}

static enum pgs_verdict undo_client(struct pgs_call *call)
{
    struct pgshare_op op = { .kind = PGSHARE_OP_UNPROTECT };

    if (!pgs_share_next_run(call, PGS_PAGE_CLIENT_OURS, PGS_PAGE_CLIENT_OURS))
        return pgs_share_go(call, unlock);
    op.own_ids = &call->extent->client.own[call->extent->first];
    return pgs_share_submit(call, &op, &call->extent->client, client_undone);
}

static enum pgs_verdict unlock(struct pgs_call *call)
{
    pgs_extent_unlock(call->extent, call->host);
    call->result = pgs_extent_result(call->extent);
    return PGS_DONE;
}

/* ---- the beginning ----------------------------------------------------- */

/* Is a page of this side in the quarantine? */
static bool is_waiting(const struct pgs_side *side, uint32_t count)
{
    if (!side->domain || !(side->domain->caps & PGSHARE_CAP_PLATFORM_COW))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t word = atomic_load_explicit(
            pgs_word_at(&side->domain->host->chunks, side->page + i),
            memory_order_acquire);

        if (pgs_word_state(word) == PGS_PRIVATE &&
            pgs_quarantined(side->domain, word))
            return true;
    }
    return false;
}

static enum pgs_verdict harvested(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    /* a refusal to harvest leaves the pages to the check in extent.c */
    if (is_waiting(&extent->client, extent->count) &&
        call->tries++ == 0)
        return pgs_harvest(call, extent->client.domain, harvested);
    return lock(call);
}

static enum pgs_verdict lock(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    call->flags = 0;
    call->result = 0;
    pgs_extent_lock(extent, call->host);
    pgs_extent_settle(extent, call->host);
    return pgs_share_go(call, pgs_share_is_fused(extent, call->host)
                                  ? pgs_share_foresee
                                  : protect_source);
}

static enum pgs_verdict begin(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    /* explicit calls wait for the harvest; the policy comes back later */
    if (call->kind && is_waiting(&extent->source, extent->count))
        return pgs_harvest(call, extent->source.domain, harvested);
    if (call->kind && is_waiting(&extent->client, extent->count)) {
        call->tries = 1;
        return pgs_harvest(call, extent->client.domain, harvested);
    }
    return lock(call);
}

struct pgs_call *pgs_share_take(struct pgshare_host *host,
                                struct pgs_extent *extent)
{
    struct pgs_call *call =
        pgs_call_take(host, extent->client.domain ? extent->client.domain
                                                  : extent->source.domain,
                      begin);

    if (!call)
        return NULL;
    atomic_store_explicit(&call->peer, extent->source.domain,
                          memory_order_release);
    call->extent = extent;
    return call;
}
