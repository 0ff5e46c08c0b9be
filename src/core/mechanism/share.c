/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The share protocol, stage by stage.
 *
 *   lock ─ protect both ─ compare ─ link ─ publish ─ map ─ commit ┐
 *     └ (fused backend)            link ─ publish ─ merge ────────┤
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
 * are protected (extent.c) and before they are mapped (two-check rule;
 * Chiang et al., VEE 2013).
 *
 * Where protect, compare and map would keep a guest waiting while messages
 * travel, the backend fuses them (PGSHARE_CAP_MERGE): publish takes a snapshot
 * then, and the source is merged with it like any other client.
 */
#include "mechanism/share.h"

#include "mechanism/page.h"

#include <string.h>

#define LIVE PGS_PAGE_LIVE

static enum pgs_verdict lock(struct pgs_call *call);
static enum pgs_verdict protect_source(struct pgs_call *call);
static enum pgs_verdict protect_client(struct pgs_call *call);
static enum pgs_verdict compare(struct pgs_call *call);
static enum pgs_verdict publish(struct pgs_call *call);
static enum pgs_verdict merge_source(struct pgs_call *call);
static enum pgs_verdict map(struct pgs_call *call);
static enum pgs_verdict undo_source(struct pgs_call *call);
static enum pgs_verdict undo_client(struct pgs_call *call);
static enum pgs_verdict unlock(struct pgs_call *call);

static bool is_fused(const struct pgs_extent *extent,
                     const struct pgshare_host *host)
{
    return host->info.caps & PGSHARE_CAP_MERGE &&
           !(extent->flags & (PGS_EXTENT_FREE | PGS_EXTENT_HOLES));
}

static enum pgs_verdict go(struct pgs_call *call, pgs_step stage)
{
    call->extent->cursor = 0;
    call->step = stage;
    return PGS_NEXT;
}

/* Sets the next run; false at the end of this stage. */
static bool next_run(struct pgs_call *call, uint16_t mask, uint16_t want)
{
    return pgs_extent_run(call->extent, call->host->info.extent_max, mask,
                          want);
}

/* Submits an operation on the current run of one side. */
static enum pgs_verdict submit(struct pgs_call *call, struct pgshare_op *op,
                               const struct pgs_side *side, pgs_step answered)
{
    struct pgs_extent *extent = call->extent;
    uint32_t first = extent->first;

    op->domain = side->domain->cookie;
    op->gfn = side->gfn + first;
    op->count = extent->n;
    return pgs_call_submit_into(call, op, answered, extent->status,
                                extent->ids);
}

static bool is_marked(struct pgs_call *call, const struct pgs_side *side,
                      uint32_t i)
{
    return side->domain &&
           pgs_word_state(atomic_load_explicit(
               pgs_word_at(&call->host->chunks, side->page + i),
               memory_order_relaxed)) == PGS_PROTECTED;
}

/* Page i is not shared. Where the backend says that a side is not protected any
 * more, that side's mark is void, and goes with what is undone. */
static void fail_page(struct pgs_call *call, uint32_t i, int error)
{
    struct pgs_extent *extent = call->extent;

    pgs_extent_drop(extent, i, error);
    if (error == PGSHARE_ERR_SOURCE_TICKET &&
        is_marked(call, &extent->source, i))
        extent->page[i] |= PGS_PAGE_SOURCE_OURS;
    if (error == PGSHARE_ERR_CLIENT_TICKET &&
        is_marked(call, &extent->client, i))
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

    if (!next_run(call, LIVE | PGS_PAGE_SOURCE_PRIVATE,
                  LIVE | PGS_PAGE_SOURCE_PRIVATE))
        return go(call, protect_client);
    return submit(call, &op, &call->extent->source, source_protected);
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

    if (!next_run(call, LIVE | PGS_PAGE_CLIENT_PRIVATE,
                  LIVE | PGS_PAGE_CLIENT_PRIVATE))
        return go(call, compare);
    return submit(call, &op, &call->extent->client, client_protected);
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
        fail_page(call, extent->first + k, extent->status[k]);
    }
    pgs_count(&call->host->shards, PGS_COUNT_COMPARED, extent->n);
    if (different)
        pgs_count(&call->host->shards, PGS_COUNT_DIFFERENT, different);
    call->step = compare;
    return PGS_NEXT;
}

static enum pgs_verdict linked(struct pgs_call *call);

/* Runs of frames first, then runs of protected sources. */
static enum pgs_verdict compare(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = { .kind = PGSHARE_OP_COMPARE };
    bool frames = !(call->flags & 1);

    if (extent->flags &
        (PGS_EXTENT_FREE | PGS_EXTENT_HOLES | PGS_EXTENT_SOURCE))
        return go(call, linked);
    if (!next_run(call, LIVE | PGS_PAGE_FRAME,
                  frames ? LIVE | PGS_PAGE_FRAME : LIVE)) {
        if (!frames)
            return go(call, linked);
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
    return submit(call, &op, &extent->client, compared);
}

/* ---- link and publish -------------------------------------------------- */

/* A snapshot takes a frame before its merges give two back. */
static enum pgs_verdict prepaid(struct pgs_call *call)
{
    return go(call, publish);
}

static enum pgs_verdict linked(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_host *host = call->host;
    struct pgshare_op op = { .kind = PGSHARE_OP_RESERVE, .count = 1 };
    uint64_t fresh = 0;

    pgs_extent_link(extent, host);
    for (uint32_t i = 0; i < extent->count; i++)
        fresh += (extent->page[i] & (LIVE | PGS_PAGE_NEW)) ==
                 (LIVE | PGS_PAGE_NEW);
    if (!fresh || !(host->info.caps & PGSHARE_CAP_SNAPSHOT) ||
        !(host->info.ops >> PGSHARE_OP_RESERVE & 1) ||
        (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE) >=
            (int64_t)fresh)
        return go(call, publish);
    op.arg = fresh;
    return pgs_call_submit(call, &op, prepaid);
}

/* Stripe locked. Page i of the run has a frame with a name now. Its ticket is
 * that of the mark that it comes from, or a new one. */
static void name_frame(struct pgs_extent *extent, struct pgshare_host *host,
                       uint32_t k, uint64_t ticket)
{
    uint32_t i = extent->first + k;
    struct pgs_frame *frame = pgs_frame_at(&host->frames, extent->frame[i]);
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&host->chunks, extent->source.page + i),
        memory_order_relaxed);

    if (extent->status[k])
        return;
    extent->id[i] = extent->ids[k];
    frame->id = extent->ids[k];
    frame->ticket = ticket;
    if (pgs_word_state(word) == PGS_PROTECTED)
        frame->ticket =
            pgs_mark_at(&host->marks, pgs_word_index(word))->ticket;
    else
        frame->fingerprint = pgs_word_index(word);
}

/* The same for the whole run, stripe by stripe. */
static void name_frames(struct pgs_extent *extent, struct pgshare_host *host)
{
    uint64_t ticket = pgs_ticket_next(host, extent->n);
    struct pgs_stripe *locked = NULL;

    for (uint32_t k = 0; k < extent->n; k++) {
        struct pgs_stripe *stripe = pgs_stripe_of(
            &host->frames, extent->frame[extent->first + k]);

        if (stripe != locked) {
            if (locked)
                pgs_mutex_unlock(&locked->lock);
            pgs_mutex_lock(&stripe->lock);
            locked = stripe;
        }
        name_frame(extent, host, k, ticket + k);
    }
    pgs_mutex_unlock(&locked->lock);
}

static enum pgs_verdict published(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    bool snapshot = call->host->info.caps & PGSHARE_CAP_SNAPSHOT;

    name_frames(extent, call->host);
    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;

        if (extent->status[k]) {
            /* the page that is not protected any more is the source */
            fail_page(call, i, extent->status[k] == PGSHARE_ERR_CLIENT_TICKET
                                   ? PGSHARE_ERR_SOURCE_TICKET
                                   : extent->status[k]);
            pgs_extent_unlink_client(extent, call->host, i);
            pgs_extent_unlink_source(extent, call->host, i);
            continue;
        }
        extent->page[i] |= PGS_PAGE_FRAME;
        extent->page[i] &= (uint16_t)~PGS_PAGE_NEW;
        extent->new_frames++;
        if (!snapshot)
            pgs_extent_commit_source(extent, call->host, i);
    }
    pgs_extent_count(extent, call->host);
    call->step = publish;
    return PGS_NEXT;
}

static enum pgs_verdict publish(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = { .kind = PGSHARE_OP_PUBLISH };

    if (!next_run(call, LIVE | PGS_PAGE_NEW, LIVE | PGS_PAGE_NEW))
        return go(call, call->host->info.caps & PGSHARE_CAP_SNAPSHOT
                            ? merge_source
                            : map);
    op.own_ids = &extent->source.own[extent->first];
    return submit(call, &op, &extent->source, published);
}

/* ---- map and merge ----------------------------------------------------- */

/* A page that was to be merged as it was, private, and of which the backend does
 * not say that it stayed so, may have been mapped and broken before we asked: it
 * is released into the quarantine. (What MAP fails with is protected, and gets
 * there when that is undone.) */
static void unmerge(struct pgs_call *call, const struct pgs_side *side,
                    uint32_t i, int error, uint16_t busy)
{
    uint32_t page = side->page + i;
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&call->host->chunks, page), memory_order_relaxed);

    if (call->op.kind != PGSHARE_OP_MERGE ||
        pgs_word_state(word) != PGS_PRIVATE ||
        error == PGSHARE_ERR_DIFFERENT || error == PGSHARE_ERR_BUSY)
        return;
    call->extent->page[i] &= (uint16_t)~busy;
    pgs_page_privatise(call->host, page, 0);
}

/* The pages that a snapshot was taken of are merged with it. */
static enum pgs_verdict source_merged(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;

        if (!extent->status[k]) {
            pgs_extent_commit_source(extent, call->host, i);
            continue;
        }
        pgs_extent_unlink_source(extent, call->host, i);
        unmerge(call, &extent->source, i, extent->status[k], PGS_PAGE_SOURCE);
    }
    pgs_extent_count(extent, call->host);
    call->step = merge_source;
    return PGS_NEXT;
}

static enum pgs_verdict merge_source(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = { .kind = PGSHARE_OP_MERGE };

    if (!next_run(call, LIVE | PGS_PAGE_SOURCE_LINK,
                  LIVE | PGS_PAGE_SOURCE_LINK))
        return go(call, map);
    op.ids = &extent->id[extent->first];
    op.own_ids = &extent->source.own[extent->first];
    return submit(call, &op, &extent->source, source_merged);
}

static enum pgs_verdict mapped(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    uint32_t different = 0;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;

        if (!extent->status[k]) {
            pgs_extent_commit_client(extent, call->host, i);
            continue;
        }
        different += extent->status[k] == PGSHARE_ERR_DIFFERENT;
        fail_page(call, i, extent->status[k]);
        pgs_extent_unlink_client(extent, call->host, i);
        unmerge(call, &extent->client, i, extent->status[k], PGS_PAGE_CLIENT);
    }
    pgs_extent_count(extent, call->host);
    if (call->op.kind == PGSHARE_OP_MERGE) {
        pgs_count(&call->host->shards, PGS_COUNT_COMPARED, extent->n);
        pgs_count(&call->host->shards, PGS_COUNT_DIFFERENT, different);
    }
    call->step = map;
    return PGS_NEXT;
}

/* The last look at what was declared meanwhile: a secret is not shared, and a
 * page that is not free any more is not given up. */
static void check_declarations(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t i = extent->first; i < extent->first + extent->n; i++) {
        uint64_t word = atomic_load_explicit(
            pgs_word_at(&call->host->chunks, extent->client.page + i),
            memory_order_acquire);

        if (!(word & PGS_ATTR_NEVER) &&
            (word & PGS_ATTR_FREE || !(extent->flags & PGS_EXTENT_FREE)))
            continue;
        pgs_extent_drop(extent, i, word & PGS_ATTR_NEVER
                                       ? PGSHARE_ERR_NEVER_SHARE
                                       : PGSHARE_ERR_STATE);
        pgs_extent_unlink_client(extent, call->host, i);
        pgs_count(&call->host->shards, PGS_COUNT_ROLLED_BACK, 1);
    }
}

static enum pgs_verdict joined(struct pgs_call *call)
{
    return go(call, undo_source);
}

static enum pgs_verdict map(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = { .kind = PGSHARE_OP_MAP };
    const uint16_t mask = LIVE | PGS_PAGE_CLIENT_LINK;

    if (extent->flags & PGS_EXTENT_SOURCE)
        return go(call, undo_source);
    if (!next_run(call, mask, mask))
        return pgs_join(call, joined);
    check_declarations(call);
    extent->cursor = extent->first;
    if (!next_run(call, mask, mask))
        return pgs_join(call, joined);
    if (is_fused(extent, call->host))
        op.kind = PGSHARE_OP_MERGE;
    if (extent->flags & PGS_EXTENT_HOLES)
        op.flags = PGSHARE_OP_HOLES;
    op.ids = &extent->id[extent->first];
    op.own_ids = &extent->client.own[extent->first];
    if (extent->source.domain) {
        op.peer = extent->source.domain->cookie;
        op.peer_gfn = extent->source.gfn + extent->first;
    }
    return submit(call, &op, &extent->client, mapped);
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
        if (is_marked(call, side, i))
            forget_mark(call, side, i);
        if (extent->status[k])
            pgs_page_privatise_stuck(call->host, side->page + i);
        else
            pgs_page_privatise(call->host, side->page + i, 0);
    }
}

static enum pgs_verdict source_undone(struct pgs_call *call)
{
    note_undone(call, &call->extent->source, PGS_PAGE_SOURCE_OURS,
                PGS_PAGE_SOURCE);
    call->step = undo_source;
    return PGS_NEXT;
}

static enum pgs_verdict undo_source(struct pgs_call *call)
{
    struct pgshare_op op = { .kind = PGSHARE_OP_UNPROTECT };

    if (!next_run(call, PGS_PAGE_SOURCE_OURS, PGS_PAGE_SOURCE_OURS))
        return go(call, undo_client);
    op.own_ids = &call->extent->source.own[call->extent->first];
    return submit(call, &op, &call->extent->source, source_undone);
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

    if (!next_run(call, PGS_PAGE_CLIENT_OURS, PGS_PAGE_CLIENT_OURS))
        return go(call, unlock);
    op.own_ids = &call->extent->client.own[call->extent->first];
    return submit(call, &op, &call->extent->client, client_undone);
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
    extent->cursor = 0;
    return is_fused(extent, call->host) ? go(call, linked)
                                        : go(call, protect_source);
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
