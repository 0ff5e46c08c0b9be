/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extents: links before mappings, and commits after them.
 *
 * An rmap node is linked to its frame while the page's word is still BUSY,
 * before the backend maps the page: so a mapping that exists always has its
 * node, no memory can be missing afterwards, and a frame that is about to be
 * mapped cannot be taken over or die. A link whose mapping did not come to
 * pass is unlinked again.
 */
#include "mechanism/extent.h"

#include "mechanism/page.h"

/* ---- links ------------------------------------------------------------- */

/* Pages [first, first + n) need new frames: takes records, all or none. */
static void take_records(struct pgs_extent *extent, struct pgshare_host *host)
{
    int r = pgs_frames_take(&host->frames, extent->n,
                            &extent->frame[extent->first]);

    for (uint32_t i = extent->first; i < extent->first + extent->n; i++) {
        struct pgs_frame *frame;

        if (r) {
            pgs_extent_drop(extent, i, r);
            continue;
        }
        extent->page[i] |= PGS_PAGE_NEW;
        frame = pgs_frame_at(&host->frames, extent->frame[i]);
        frame->group = (uint16_t)extent->source.domain->group;
    }
}

/* Stripe locked. Links page i to its frame, as a source and as a client. */
static void link_page(struct pgs_extent *extent, struct pgshare_host *host,
                      uint32_t i)
{
    struct pgs_frames *frames = &host->frames;
    struct pgs_frame *frame = pgs_frame_at(frames, extent->frame[i]);

    if (frame->flags != PGS_FRAME_LIVE) {
        /* while it is being joined to another, a moment later all is well */
        pgs_extent_drop(extent, i, frame->flags & PGS_FRAME_DOOMED
                                       ? PGSHARE_ERR_SOURCE_TICKET
                                       : PGSHARE_ERR_BUSY);
        return;
    }
    if (host->info.sharers_max && frame->mappings >= host->info.sharers_max) {
        pgs_extent_drop(extent, i, PGSHARE_ERR_FULL);
        return;
    }
    if (extent->page[i] & PGS_PAGE_NEW) {
        extent->source_node[i] =
            pgs_rmap_link(frames, extent->frame[i], extent->source.page + i);
        extent->page[i] |= PGS_PAGE_SOURCE_LINK;
        frame->pending = pgs_moves_frames(host);
    }
    if (extent->flags & PGS_EXTENT_SOURCE)
        return;
    extent->client_node[i] =
        pgs_rmap_link(frames, extent->frame[i], extent->client.page + i);
    extent->page[i] |= PGS_PAGE_CLIENT_LINK;
    frame->pending += pgs_moves_frames(host);
    if (extent->page[i] & PGS_PAGE_JOIN) {
        extent->page[i] |= PGS_PAGE_PINNED;
        frame->pins++;
    }
}

/* Stripe locked. No node for page i: its fresh record goes back. */
static void drop_link(struct pgs_extent *extent, struct pgshare_host *host,
                      uint32_t i, int error)
{
    struct pgs_frame *frame = pgs_frame_at(&host->frames, extent->frame[i]);

    pgs_extent_drop(extent, i, error);
    if (!(extent->page[i] & PGS_PAGE_NEW))
        return;
    extent->page[i] &= (uint16_t)~PGS_PAGE_NEW;
    frame->pending = 0;
    if (pgs_frame_doom(frame))
        pgs_frame_give(&host->frames, extent->frame[i]);
}

/* Links those of [first, end) whose frames stand in one stripe, as many as a
 * stripe can have nodes for. Answers where it stopped. */
static uint32_t link_stripe(struct pgs_extent *extent,
                            struct pgshare_host *host, uint32_t first,
                            uint32_t end)
{
    struct pgs_stripe *stripe =
        pgs_stripe_of(&host->frames, extent->frame[first]);
    uint32_t i = first;
    int r;

    if (end - first > PGS_NODE_BATCH / 2)
        end = first + PGS_NODE_BATCH / 2;
    pgs_mutex_lock(&stripe->lock);
    r = pgs_nodes_stock(&host->frames, stripe, 2 * (end - first));
    for (; i < end; i++) {
        if (pgs_stripe_of(&host->frames, extent->frame[i]) != stripe)
            break;
        if (r)
            drop_link(extent, host, i, r);
        else
            link_page(extent, host, i);
    }
    pgs_mutex_unlock(&stripe->lock);
    return i;
}

void pgs_extent_link(struct pgs_extent *extent, struct pgshare_host *host)
{
    extent->cursor = 0;
    while (pgs_extent_run(extent, extent->count, PGS_PAGE_LIVE | PGS_PAGE_FRAME,
                          PGS_PAGE_LIVE))
        take_records(extent, host);
    while (pgs_extent_run(extent, extent->count, PGS_PAGE_LIVE,
                          PGS_PAGE_LIVE)) {
        uint32_t i = extent->first, end = extent->first + extent->n;

        while (i < end) {
            if (extent->frame[i] != PGS_NONE) {
                i = link_stripe(extent, host, i, end);
                continue;
            }
            extent->client_node[i] = PGS_NODE_ZERO;
            extent->page[i] |= PGS_PAGE_CLIENT_LINK;
            i++;
        }
    }
}

/* A node whose page is not mapped; its frame may be left without any. */
static void unlink_node(struct pgs_extent *extent, struct pgshare_host *host,
                        uint32_t i, uint32_t node)
{
    struct pgs_frames *frames = &host->frames;
    struct pgs_frame *frame = pgs_frame_at(frames, extent->frame[i]);
    bool never_published = extent->page[i] & PGS_PAGE_NEW;
    bool doomed;

    pgs_frame_lock(frames, extent->frame[i]);
    pgs_rmap_unlink(frames, node);
    frame->pending -= pgs_moves_frames(host);
    doomed = pgs_frame_doom(frame);
    if (doomed && never_published)
        pgs_frame_give(frames, extent->frame[i]);
    pgs_frame_unlock(frames, extent->frame[i]);
    if (doomed && !never_published)
        pgs_frame_defer(host, extent->frame[i]);
}

void pgs_extent_unlink_source(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i)
{
    if (!(extent->page[i] & PGS_PAGE_SOURCE_LINK))
        return;
    extent->page[i] &= (uint16_t)~PGS_PAGE_SOURCE_LINK;
    unlink_node(extent, host, i, extent->source_node[i]);
}

void pgs_extent_unlink_client(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i)
{
    if (!(extent->page[i] & PGS_PAGE_CLIENT_LINK))
        return;
    extent->page[i] &= (uint16_t)~PGS_PAGE_CLIENT_LINK;
    if (extent->client_node[i] != PGS_NODE_ZERO)
        unlink_node(extent, host, i, extent->client_node[i]);
}

/* The page's word may have been free for a moment: a guest that wrote meanwhile
 * may have been the last mapping, and left the frame to us. */
void pgs_extent_end_pending(struct pgs_extent *extent,
                            struct pgshare_host *host, uint32_t i)
{
    struct pgs_frames *frames = &host->frames;
    struct pgs_frame *frame;
    bool doomed;

    if (!pgs_moves_frames(host) || extent->frame[i] == PGS_NONE)
        return;
    frame = pgs_frame_at(frames, extent->frame[i]);
    pgs_frame_lock(frames, extent->frame[i]);
    frame->pending--;
    doomed = pgs_frame_doom(frame);
    pgs_frame_unlock(frames, extent->frame[i]);
    if (doomed)
        pgs_frame_defer(host, extent->frame[i]);
}

/* ---- commits ----------------------------------------------------------- */

/* The word becomes SHARED. False: it was told broken already, and BUSY is still
 * ours. What it was before (a mark, another mapping) is given back. */
static bool commit(struct pgs_extent *extent, struct pgshare_host *host,
                   uint32_t page, uint32_t node)
{
    uint64_t word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                         memory_order_relaxed);
    uint32_t index = pgs_word_index(word);

    if (pgs_word_state(word) == PGS_PROTECTED)
        pgs_page_unmark(host, index);
    else if (pgs_word_state(word) == PGS_SHARED)
        pgs_page_unmap(host, index);
    else if (pgs_word_state(word) == PGS_HOLE)
        pgs_count(&host->shards, PGS_LEVEL_TRACKED, 1);
    if (!pgs_page_commit(host, page, pgs_word_with(PGS_SHARED, node, 0),
                         PGS_ATTR_OVERWRITE, 0))
        return false;
    if (node == PGS_NODE_ZERO)
        extent->new_zero++;
    else
        extent->new_mapped++;
    return true;
}

/* The word of a page that was told broken, once its link is gone: nobody finds
 * one that the word does not name. */
static void commit_broken(struct pgshare_host *host, uint32_t page)
{
    pgs_count(&host->shards, PGS_COUNT_BROKEN, 1);
    pgs_page_commit(host, page, PGS_PRIVATE, PGS_ATTR_OVERWRITE, 0);
}

void pgs_extent_commit_source(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i)
{
    uint16_t gone = PGS_PAGE_SOURCE | PGS_PAGE_SOURCE_OURS;

    assert(extent->page[i] & PGS_PAGE_SOURCE_LINK);
    if (commit(extent, host, extent->source.page + i,
               extent->source_node[i])) {
        gone |= PGS_PAGE_SOURCE_LINK;
        pgs_extent_end_pending(extent, host, i);
    } else {
        pgs_extent_unlink_source(extent, host, i);
        commit_broken(host, extent->source.page + i);
    }
    extent->page[i] &= (uint16_t)~gone;
}

void pgs_extent_commit_client(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i)
{
    uint16_t gone = PGS_PAGE_CLIENT | PGS_PAGE_CLIENT_OURS;

    assert(extent->page[i] & PGS_PAGE_CLIENT_LINK);
    if (commit(extent, host, extent->client.page + i,
               extent->client_node[i])) {
        gone |= PGS_PAGE_CLIENT_LINK;
        /* until the old frame's other mappings have followed, nobody may move
         * this frame's away */
        if (extent->page[i] & PGS_PAGE_JOIN)
            extent->page[i] |= PGS_PAGE_PENDING;
        else
            pgs_extent_end_pending(extent, host, i);
        extent->new_shared++;
    } else {
        pgs_extent_unlink_client(extent, host, i);
        commit_broken(host, extent->client.page + i);
    }
    pgs_extent_drop(extent, i, 0);
    extent->page[i] &= (uint16_t)~gone;
    extent->page[i] |= PGS_PAGE_DONE;
}
