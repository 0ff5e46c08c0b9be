/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The share protocol's second half: pages that have been found equal become
 * mappings of one frame.
 *
 *   link ─ publish ──────────────── map ─ join
 *      └── publish ─ merge source ─ merge ─┘    (fused backend)
 *
 * Nodes and records come first, so that nothing can fail for lack of memory
 * once the backend has done its part; each answer is committed as it arrives.
 */
#include "mechanism/share.h"

#include "mechanism/page.h"
#include "mechanism/share_stage.h"

#define LIVE PGS_PAGE_LIVE

static enum pgs_verdict publish(struct pgs_call *call);
static enum pgs_verdict settle(struct pgs_call *call);
static enum pgs_verdict merge_source(struct pgs_call *call);
static enum pgs_verdict map(struct pgs_call *call);

/* ---- link and publish -------------------------------------------------- */

/* A snapshot takes a frame before its merges give two back. */
static enum pgs_verdict prepaid(struct pgs_call *call)
{
    return pgs_share_go(call, publish);
}

enum pgs_verdict pgs_share_link(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_host *host = call->host;
    struct pgshare_op op = { .kind = PGSHARE_OP_RESERVE, .count = 1 };
    uint64_t fresh = 0;

    pgs_extent_settle(extent, host);
    pgs_extent_link(extent, host);
    pgs_extent_settle(extent, host);
    for (uint32_t i = 0; i < extent->count; i++)
        fresh += (extent->page[i] & (LIVE | PGS_PAGE_NEW)) ==
                 (LIVE | PGS_PAGE_NEW);
    if (!fresh || !(host->info.caps & PGSHARE_CAP_SNAPSHOT) ||
        !(host->info.ops >> PGSHARE_OP_RESERVE & 1) ||
        (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE) >=
            (int64_t)fresh)
        return pgs_share_go(call, publish);
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
            pgs_share_fail_page(call, i, extent->status[k] == PGSHARE_ERR_CLIENT_TICKET
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

    if (!pgs_share_next_run(call, LIVE | PGS_PAGE_NEW, LIVE | PGS_PAGE_NEW))
        return pgs_share_go(call, settle);
    op.own_ids = &extent->source.own[extent->first];
    return pgs_share_submit(call, &op, &extent->source, published);
}

/* ---- what was declared meanwhile ---------------------------------------- */

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

/* The last time that a block can be left alone as a whole. */
static enum pgs_verdict settle(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    const uint16_t mask = LIVE | PGS_PAGE_CLIENT_LINK;

    while (extent->block > 1 && pgs_share_next_run(call, mask, mask))
        check_declarations(call);
    pgs_extent_settle(extent, call->host);
    return pgs_share_go(call, call->host->info.caps & PGSHARE_CAP_SNAPSHOT
                                  ? merge_source
                                  : map);
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

/* What was given up with its domain may be done yet. */
static void keep_frame(struct pgs_call *call, const struct pgs_side *side,
                       uint32_t i, int error)
{
    uint32_t frame = call->extent->frame[i];

    if (error == PGSHARE_ERR_GONE && frame != PGS_NONE &&
        pgs_domain_flags(side->domain) & PGS_DOMAIN_DYING)
        pgs_frame_keep(side->domain, frame);
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
        keep_frame(call, &extent->source, i, extent->status[k]);
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

    if (!pgs_share_next_run(call, LIVE | PGS_PAGE_SOURCE_LINK,
                  LIVE | PGS_PAGE_SOURCE_LINK))
        return pgs_share_go(call, map);
    op.ids = &extent->id[extent->first];
    op.own_ids = &extent->source.own[extent->first];
    return pgs_share_submit(call, &op, &extent->source, source_merged);
}

/* Did the backend itself say that page i was not mapped? If the answer is one
 * that we gave in its place, for it was lost or the domain was, then it may have
 * been, and the other mappings of its frame with it: join.c asks. */
static void doubt(struct pgs_call *call, uint32_t i, int error)
{
    struct pgs_extent *extent = call->extent;

    if (extent->page[i] & PGS_PAGE_JOIN && extent->old_frame[i] != PGS_NONE &&
        pgs_moves_frames(call->host) &&
        (error == PGSHARE_ERR_BACKEND || error == PGSHARE_ERR_GONE))
        extent->page[i] |= PGS_PAGE_UNSURE;
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
        pgs_share_fail_page(call, i, extent->status[k]);
        doubt(call, i, extent->status[k]);
        keep_frame(call, &extent->client, i, extent->status[k]);
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

static enum pgs_verdict joined(struct pgs_call *call)
{
    return pgs_share_go(call, pgs_share_undo);
}

static enum pgs_verdict map(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = { .kind = PGSHARE_OP_MAP };
    const uint16_t mask = LIVE | PGS_PAGE_CLIENT_LINK;

    if (extent->flags & PGS_EXTENT_SOURCE)
        return pgs_share_go(call, pgs_share_undo);
    if (!pgs_share_next_run(call, mask, mask))
        return pgs_join(call, joined);
    check_declarations(call);
    extent->cursor = extent->first;
    if (!pgs_share_next_run(call, mask, mask))
        return pgs_join(call, joined);
    if (pgs_share_is_fused(extent, call->host))
        op.kind = PGSHARE_OP_MERGE;
    if (extent->flags & PGS_EXTENT_HOLES)
        op.flags = PGSHARE_OP_HOLES;
    op.ids = &extent->id[extent->first];
    op.own_ids = &extent->client.own[extent->first];
    if (extent->source.domain) {
        op.peer = extent->source.domain->cookie;
        op.peer_gfn = extent->source.gfn + extent->first;
    }
    return pgs_share_submit(call, &op, &extent->client, mapped);
}
