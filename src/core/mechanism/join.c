/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Joining frames: the client of a share had become a frame itself, with
 * mappings of its own; all of them are to end up at the source's frame.
 *
 * The page that was asked for has been moved like any other client. The rest
 * are found by the old frame's reverse map and moved one by one: take the
 * word, link, map, commit, which unlinks the old node. A page that somebody
 * holds, or that must not be shared, is passed over and stays on the old
 * frame, which is legal: it lives on with fewer mappings.
 *
 * A backend that moves all mappings of a frame at once
 * (PGSHARE_CAP_MAP_MOVES_FRAME) has done so with the first; there the nodes
 * follow, without further operations and without the words, which go on naming
 * their nodes.
 *
 * There a MAP whose answer was lost may have moved them all the same, although
 * its own page tells nothing any more: it may have been broken, or be a lost
 * domain's. Then the others are asked one after the other, until one of them
 * still is a mapping. If none is, all their breaks will be told, and it does not
 * matter whose nodes they are.
 */
#include "mechanism/share.h"

#include "mechanism/page.h"

#include <pgshare/gfn.h>

static enum pgs_verdict step_page(struct pgs_call *call);
static enum pgs_verdict join_next(struct pgs_call *call);

/* The (skip + 1)-th page that maps the frame; false: there is none. */
static bool nth_page(struct pgshare_host *host, uint32_t frame, uint32_t skip,
                     uint32_t *ret_page)
{
    struct pgs_frames *frames = &host->frames;
    uint32_t node;

    pgs_frame_lock(frames, frame);
    node = pgs_frame_at(frames, frame)->head;
    while (node != PGS_NONE && skip--)
        node = pgs_node_at(frames, node)->next;
    if (node != PGS_NONE)
        *ret_page = pgs_node_at(frames, node)->page;
    pgs_frame_unlock(frames, frame);
    return node != PGS_NONE;
}

/* Takes the word of a page that still maps `frame` and may be moved. */
static bool take(struct pgshare_host *host, uint32_t page, uint32_t frame)
{
    uint64_t word;

    if (!pgs_word_trylock(pgs_word_at(&host->chunks, page), false, &word))
        return false;
    if (pgs_word_state(word) == PGS_SHARED &&
        pgs_word_index(word) != PGS_NODE_ZERO &&
        pgs_node_frame(&host->frames, pgs_word_index(word)) == frame &&
        !(word & PGS_UNSHAREABLE) &&
        !pgs_is_suspended(pgs_page_domain(host, page)))
        return true;
    pgs_page_unlock(host, page);
    return false;
}

/* Links the page to the new frame as well. PGS_NONE: it cannot be. */
static uint32_t link_to(struct pgshare_host *host, uint32_t frame,
                        uint32_t page)
{
    struct pgs_frames *frames = &host->frames;
    struct pgs_frame *record;
    uint32_t node = PGS_NONE;

    if (frame == PGS_NONE)
        return PGS_NODE_ZERO;
    record = pgs_frame_at(frames, frame);
    pgs_frame_lock(frames, frame);
    if (record->flags == PGS_FRAME_LIVE &&
        !pgs_nodes_stock(frames, pgs_stripe_of(frames, frame), 1))
        node = pgs_rmap_link(frames, frame, page);
    pgs_frame_unlock(frames, frame);
    return node;
}

static void move_word(struct pgs_call *call, uint32_t page, uint32_t node)
{
    struct pgshare_host *host = call->host;
    uint64_t word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                         memory_order_relaxed);

    pgs_page_unmap(host, pgs_word_index(word));
    pgs_count(&host->shards,
              node == PGS_NODE_ZERO ? PGS_LEVEL_ZERO_MAPPINGS
                                    : PGS_LEVEL_MAPPINGS, 1);
    call->extent->joined++;
    if (pgs_page_commit(host, page, pgs_word_with(PGS_SHARED, node, 0), 0, 0))
        return;
    pgs_page_unmap(host, node);
    pgs_page_commit(host, page, PGS_PRIVATE, PGS_ATTR_OVERWRITE, 0);
}

/* A node that was linked for nothing. */
static void unlink_node(struct pgshare_host *host, uint32_t frame,
                        uint32_t node)
{
    bool doomed;

    if (node == PGS_NODE_ZERO)
        return;
    pgs_frame_lock(&host->frames, frame);
    pgs_rmap_unlink(&host->frames, node);
    doomed = pgs_frame_doom(pgs_frame_at(&host->frames, frame));
    pgs_frame_unlock(&host->frames, frame);
    if (doomed)
        pgs_frame_defer(host, frame);
}

static enum pgs_verdict moved(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgs_domain *domain = call->victim;
    uint32_t i = extent->first;

    if (call->status[0] == PGSHARE_ERR_GONE && extent->frame[i] != PGS_NONE &&
        pgs_domain_flags(domain) & PGS_DOMAIN_DYING)
        pgs_frame_keep(domain, extent->frame[i]);
    atomic_store_explicit(&call->victim, NULL, memory_order_release);
    if (call->status[0]) {
        unlink_node(call->host, extent->frame[i], extent->client_node[i]);
        pgs_page_unlock(call->host, call->victim_page);
        call->tries++;
    } else {
        move_word(call, call->victim_page, extent->client_node[i]);
    }
    call->step = step_page;
    return PGS_NEXT;
}

static enum pgs_verdict move(struct pgs_call *call, uint32_t page)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_host *host = call->host;
    uint32_t i = extent->first;
    struct pgs_domain *domain = pgs_page_domain(host, page);
    uint32_t node = link_to(host, extent->frame[i], page);
    struct pgshare_op op = {
        .kind = host->info.caps & PGSHARE_CAP_MERGE ? PGSHARE_OP_MERGE
                                                    : PGSHARE_OP_MAP,
        .domain = domain->cookie,
        .gfn = pgs_page_gfn(host, page),
        .count = 1,
        .ids = &extent->id[i],
        .own_ids = &extent->client.own[i],
    };

    if (node == PGS_NONE) {
        pgs_page_unlock(host, page);
        call->tries++;
        return PGS_NEXT;
    }
    extent->client_node[i] = node;
    call->victim_page = page;
    atomic_store_explicit(&call->victim, domain, memory_order_release);
    return pgs_call_submit(call, &op, moved);
}

/* The next page of the current old frame. `tries` counts those passed over. */
static enum pgs_verdict step_page(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    uint32_t frame = extent->old_frame[extent->first];
    uint32_t page;

    if (!nth_page(call->host, frame, call->tries, &page)) {
        call->tries = 0;
        return join_next(call);
    }
    call->step = step_page;
    if (take(call->host, page, frame))
        return move(call, page);
    call->tries++;
    return PGS_NEXT;
}

/* The old frame's nodes go to the new one. */
static void follow(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgs_frames *frames = &call->host->frames;
    uint32_t from = extent->old_frame[extent->first];
    uint32_t to = extent->frame[extent->first];

    /* it dies when the extent takes its pin off */
    extent->joined += pgs_rmap_move(frames, from, to);
    pgs_frame_lock(frames, to); /* it may have lost all its own meanwhile */
    pgs_frame_count_empty(call->host, to);
    pgs_frame_unlock(frames, to);
}

/* ---- were they moved? -------------------------------------------------- */

static enum pgs_verdict ask(struct pgs_call *call);
static enum pgs_verdict settle_doubts(struct pgs_call *call);

/* Is page i's witness still a node of the old frame? Its stripe is locked. No
 * node comes to a frame that is JOINING, so then it has been one all along. */
static bool is_witness(struct pgs_call *call, uint32_t i)
{
    struct pgs_frames *frames = &call->host->frames;
    uint32_t node = call->extent->client_node[i];

    return node != PGS_NONE &&
           pgs_node_frame(frames, node) == call->extent->old_frame[i] &&
           pgs_node_at(frames, node)->page == call->victim_page;
}

/* The next page to be asked; its domain stays while it is the call's victim.
 * Should the last one have left the list, it begins anew. */
static bool next_witness(struct pgs_call *call, uint32_t i)
{
    const uint32_t lost = PGS_DOMAIN_DYING | PGS_DOMAIN_GONE;
    struct pgs_extent *extent = call->extent;
    struct pgs_frames *frames = &call->host->frames;
    uint32_t node;

    pgs_frame_lock(frames, extent->old_frame[i]);
    node = is_witness(call, i)
               ? pgs_node_at(frames, extent->client_node[i])->next
               : pgs_frame_at(frames, extent->old_frame[i])->head;
    for (; node != PGS_NONE; node = pgs_node_at(frames, node)->next) {
        uint32_t page = pgs_node_at(frames, node)->page;
        struct pgs_domain *domain = pgs_page_domain(call->host, page);

        if (pgs_domain_flags(domain) & lost)
            continue;
        call->victim_page = page;
        atomic_store_explicit(&call->victim, domain, memory_order_release);
        break;
    }
    pgs_frame_unlock(frames, extent->old_frame[i]);
    extent->client_node[i] = node;
    return node != PGS_NONE;
}

static enum pgs_verdict told(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    uint32_t i = extent->first;
    bool is;

    atomic_store_explicit(&call->victim, NULL, memory_order_release);
    if (call->status[0] != PGSHARE_GFN_SHARED)
        return ask(call);
    pgs_frame_lock(&call->host->frames, extent->old_frame[i]);
    is = is_witness(call, i);
    pgs_frame_unlock(&call->host->frames, extent->old_frame[i]);
    if (!is)
        return ask(call);
    if (call->ids[0] == extent->id[i] && extent->frame[i] != PGS_NONE)
        follow(call);
    return settle_doubts(call);
}

static enum pgs_verdict ask(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    struct pgshare_op op = { .kind = PGSHARE_OP_QUERY, .count = 1 };

    if (!(host->info.ops >> PGSHARE_OP_QUERY & 1) ||
        !next_witness(call, call->extent->first))
        return settle_doubts(call);
    op.domain = pgs_page_domain(host, call->victim_page)->cookie;
    op.gfn = pgs_page_gfn(host, call->victim_page);
    return pgs_call_submit(call, &op, told);
}

/* One page after the other; then what was done for certain. */
static enum pgs_verdict settle_doubts(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    if (!pgs_extent_run(extent, 1, PGS_PAGE_UNSURE, PGS_PAGE_UNSURE))
        return join_next(call);
    extent->client_node[extent->first] = PGS_NONE; /* it is unlinked */
    return ask(call);
}

/* ------------------------------------------------------------------------ */

static enum pgs_verdict join_next(struct pgs_call *call)
{
    const uint16_t mask = PGS_PAGE_JOIN | PGS_PAGE_DONE;
    struct pgs_extent *extent = call->extent;

    while (pgs_extent_run(extent, 1, mask, mask)) {
        if (extent->old_frame[extent->first] == PGS_NONE)
            continue; /* it was the zero frame, which stays */
        if (call->host->info.caps & PGSHARE_CAP_MAP_MOVES_FRAME) {
            if (extent->frame[extent->first] != PGS_NONE)
                follow(call);
            continue;
        }
        call->tries = 0;
        call->step = step_page;
        return PGS_NEXT;
    }
    call->step = call->resume;
    return PGS_NEXT;
}

enum pgs_verdict pgs_join(struct pgs_call *call, pgs_step next)
{
    call->resume = next;
    call->extent->cursor = 0;
    return settle_doubts(call);
}
