/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extents: memory, locking, links and commits of the share protocol.
 *
 * Links come before mappings. An rmap node is linked to its frame while the
 * page's word is still BUSY, before the backend maps the page: so a mapping
 * that exists always has its node, no memory can be missing afterwards, and a
 * frame that is about to be mapped cannot be taken over or die. A link whose
 * mapping did not come to pass is unlinked again.
 */
#include "mechanism/extent.h"

#include "mechanism/page.h"

#include <string.h>

/* ---- memory ------------------------------------------------------------ */

/* Bytes for one page in all the arrays together. */
#define PER_PAGE                                                              \
    (4 * sizeof(uint64_t) + 4 * sizeof(uint32_t) + sizeof(uint16_t) +         \
     2 * sizeof(int8_t))

struct pgs_extent *pgs_extent_new(struct pgshare_host *host, uint32_t count)
{
    size_t bytes = sizeof(struct pgs_extent) + (size_t)count * PER_PAGE;
    struct pgs_extent *extent =
        pgs_heap_zalloc(&host->heap, 1, bytes, _Alignof(struct pgs_extent));
    char *at;

    assert(count > 0 && count <= PGSHARE_EXTENT_MAX);
    if (!extent)
        return NULL;
    at = (char *)(extent + 1);
    extent->bytes = bytes;
    extent->count = count;
    /* widest elements first, so that all are aligned */
    extent->id = (uint64_t *)(void *)at;
    extent->ids = extent->id + count;
    extent->source.own = extent->ids + count;
    extent->client.own = extent->source.own + count;
    extent->frame = (uint32_t *)(void *)(extent->client.own + count);
    extent->source_node = extent->frame + count;
    extent->client_node = extent->source_node + count;
    extent->old_frame = extent->client_node + count;
    extent->page = (uint16_t *)(void *)(extent->old_frame + count);
    extent->result = (int8_t *)(extent->page + count);
    extent->status = extent->result + count;
    return extent;
}

void pgs_extent_free(struct pgshare_host *host, struct pgs_extent *extent)
{
    if (extent)
        pgs_heap_free(&host->heap, extent, 1, extent->bytes);
}

uint32_t pgs_extent_cut(const struct pgs_domain *domain, uint64_t gfn,
                        uint64_t count, uint32_t *ret_page)
{
    uint64_t room = PGS_CHUNK_GFNS - (gfn & (PGS_CHUNK_GFNS - 1));

    *ret_page = pgs_page_of(domain, gfn);
    if (*ret_page == PGS_PAGE_NONE)
        return 0;
    if (count > room)
        count = room;
    return count > PGSHARE_EXTENT_MAX ? PGSHARE_EXTENT_MAX : (uint32_t)count;
}

bool pgs_extent_run(struct pgs_extent *extent, uint32_t limit, uint16_t mask,
                    uint16_t want)
{
    const uint16_t *page = extent->page;
    uint32_t i = extent->cursor, end = extent->count;

    while (i < end && (page[i] & mask) != want)
        i++;
    extent->first = i;
    while (i < end && (page[i] & mask) == want && i - extent->first < limit)
        i++;
    extent->n = i - extent->first;
    extent->cursor = extent->n ? i : 0;
    return extent->n > 0;
}

int pgs_extent_result(const struct pgs_extent *extent)
{
    for (uint32_t i = 0; i < extent->count; i++)
        if (extent->result[i])
            return extent->result[i];
    return 0;
}

/* ---- locking ----------------------------------------------------------- */

/* Has the page the ticket that is demanded? */
static bool ticket_fits(struct pgshare_host *host, uint64_t word,
                        uint64_t ticket)
{
    uint32_t index = pgs_word_index(word);

    if (pgs_word_state(word) == PGS_PROTECTED)
        return pgs_mark_at(&host->marks, index)->ticket == ticket;
    if (pgs_word_state(word) != PGS_SHARED)
        return false;
    if (index == PGS_NODE_ZERO)
        return ticket == PGS_TICKET_ZERO;
    index = pgs_node_frame(&host->frames, index);
    return pgs_frame_at(&host->frames, index)->ticket == ticket;
}

/* May the page, whose BUSY is held, be one side of a share? */
static int check(struct pgs_extent *extent, struct pgs_side *side, uint32_t i,
                 uint64_t word, int stale)
{
    struct pgshare_host *host = side->domain->host;
    bool source = side == &extent->source;

    if (word & PGS_ATTR_NEVER)
        return PGSHARE_ERR_NEVER_SHARE;
    if (!source && extent->flags & PGS_EXTENT_HOLES) {
        if (pgs_word_state(word) != PGS_HOLE)
            return PGSHARE_ERR_STATE;
        return pgs_quarantined(side->domain, word) ? PGSHARE_ERR_BUSY : 0;
    }
    if (pgs_word_state(word) == PGS_HOLE)
        return PGSHARE_ERR_HOLE;
    if (side->tickets && !ticket_fits(host, word, side->tickets[i]))
        return stale;
    /* a frame that is held stays one; a held page of its own stays too */
    if (word & PGS_UNSHAREABLE &&
        !(source && pgs_word_state(word) == PGS_SHARED))
        return PGSHARE_ERR_BUSY;
    if (pgs_word_state(word) == PGS_PRIVATE) {
        if (!(extent->flags & PGS_EXTENT_MARK))
            return stale;
        if (pgs_quarantined(side->domain, word))
            return PGSHARE_ERR_BUSY;
    }
    if (!source && extent->flags & PGS_EXTENT_FREE && !(word & PGS_ATTR_FREE))
        return PGSHARE_ERR_STATE;
    return 0;
}

/* Takes one page of a side; the word in *ret_word. */
static bool lock_page(struct pgs_extent *extent, struct pgs_side *side,
                      uint32_t i, uint64_t *ret_word)
{
    bool source = side == &extent->source;
    _Atomic uint64_t *at =
        pgs_word_at(&side->domain->host->chunks, side->page + i);
    int r;

    if (!pgs_word_trylock(at, false, ret_word)) {
        pgs_extent_drop(extent, i, PGSHARE_ERR_BUSY);
        return false;
    }
    extent->page[i] |= source ? PGS_PAGE_SOURCE : PGS_PAGE_CLIENT;
    r = check(extent, side, i, *ret_word,
              source ? PGSHARE_ERR_SOURCE_TICKET : PGSHARE_ERR_CLIENT_TICKET);
    if (r) {
        pgs_extent_drop(extent, i, r);
        return false;
    }
    if (pgs_word_state(*ret_word) == PGS_PRIVATE)
        extent->page[i] |=
            source ? PGS_PAGE_SOURCE_PRIVATE : PGS_PAGE_CLIENT_PRIVATE;
    else if (pgs_word_state(*ret_word) == PGS_PROTECTED)
        side->own[i] = pgs_mark_at(&side->domain->host->marks,
                                   pgs_word_index(*ret_word))->own_id;
    return true;
}

/* The source is a frame already: notes its record. */
static void note_frame(struct pgs_extent *extent, struct pgshare_host *host,
                       uint32_t i, uint64_t word)
{
    uint32_t node = pgs_word_index(word);

    if (pgs_word_state(word) != PGS_SHARED)
        return;
    extent->page[i] |= PGS_PAGE_FRAME;
    extent->frame[i] = PGS_NONE;
    extent->id[i] = PGSHARE_ID_ZERO;
    if (node == PGS_NODE_ZERO)
        return;
    extent->frame[i] = pgs_node_frame(&host->frames, node);
    extent->id[i] = pgs_frame_at(&host->frames, extent->frame[i])->id;
}

/*
 * While the client's page, and then the other mappings of its frame, are moved
 * away, the old frame's record must stay that frame's, and the new frame must
 * live. Answers the frame's id.
 */
static uint64_t pin(struct pgshare_host *host, uint32_t frame)
{
    uint64_t id;

    pgs_frame_lock(&host->frames, frame);
    pgs_frame_at(&host->frames, frame)->pins++;
    id = pgs_frame_at(&host->frames, frame)->id;
    pgs_frame_unlock(&host->frames, frame);
    return id;
}

static void unpin(struct pgshare_host *host, uint32_t frame, bool joined)
{
    struct pgs_frame *record = pgs_frame_at(&host->frames, frame);
    bool doomed, published;

    pgs_frame_lock(&host->frames, frame);
    record->pins--;
    if (joined)
        record->flags &= (uint16_t)~PGS_FRAME_JOINING;
    doomed = pgs_frame_doom(record);
    published = record->id != PGSHARE_ID_NONE;
    if (doomed && !published)
        pgs_frame_give(&host->frames, frame);
    pgs_frame_unlock(&host->frames, frame);
    if (doomed && published)
        pgs_frame_defer(host, frame);
}

/* Does the backend move all mappings of a frame at once? Then links that are
 * not mapped yet are counted (`pending`), and a frame that is being joined
 * takes no new ones. */
static bool moves_frames(const struct pgshare_host *host)
{
    return host->info.caps & PGSHARE_CAP_MAP_MOVES_FRAME;
}

/* May all the mappings of the client's frame be moved? Marks it then. */
static bool start_joining(struct pgs_extent *extent,
                          struct pgshare_host *host, uint32_t i,
                          uint32_t frame)
{
    struct pgs_frame *record = pgs_frame_at(&host->frames, frame);
    bool zero = extent->page[i] & PGS_PAGE_FRAME &&
                extent->frame[i] == PGS_NONE;
    bool may;

    pgs_frame_lock(&host->frames, frame);
    may = !record->pending && record->flags == PGS_FRAME_LIVE;
    /* zero mappings have no nodes to be moved to */
    if (zero && record->mappings > 1)
        may = false;
    if (may)
        record->flags |= PGS_FRAME_JOINING;
    pgs_frame_unlock(&host->frames, frame);
    return may;
}

/* The client maps a frame: the same one (nothing to do), or one to join. */
static void note_client(struct pgs_extent *extent, struct pgshare_host *host,
                        uint32_t i, uint64_t word)
{
    uint32_t node = pgs_word_index(word);
    uint32_t frame = PGS_NONE;

    if (pgs_word_state(word) != PGS_SHARED)
        return;
    if (node != PGS_NODE_ZERO)
        frame = pgs_node_frame(&host->frames, node);
    if (extent->page[i] & PGS_PAGE_FRAME && frame == extent->frame[i]) {
        pgs_extent_drop(extent, i, 0);
        extent->page[i] |= PGS_PAGE_DONE;
    } else if (frame != PGS_NONE && moves_frames(host) &&
               !start_joining(extent, host, i, frame)) {
        pgs_extent_drop(extent, i, PGSHARE_ERR_BUSY);
    } else {
        extent->page[i] |= PGS_PAGE_JOIN;
        extent->old_frame[i] = frame;
        extent->client.own[i] = PGSHARE_ID_ZERO;
        if (frame != PGS_NONE)
            extent->client.own[i] = pin(host, frame);
    }
}

/* A locked instruction waits for its cache line, and what follows for it; so the
 * lines are sent for together. */
static void fetch_words(const struct pgs_extent *extent,
                        const struct pgs_side *side)
{
    const uint32_t line = 64 / sizeof(uint64_t);

    if (!side->domain)
        return;
    for (uint32_t i = 0; i < extent->count; i += line)
        __builtin_prefetch(
            pgs_word_at(&side->domain->host->chunks, side->page + i), 1);
}

void pgs_extent_lock(struct pgs_extent *extent, struct pgshare_host *host)
{
    fetch_words(extent, &extent->source);
    fetch_words(extent, &extent->client);
    for (uint32_t i = 0; i < extent->count; i++) {
        uint64_t word;

        extent->page[i] = PGS_PAGE_LIVE;
        if (extent->flags & PGS_EXTENT_ZERO) {
            extent->page[i] |= PGS_PAGE_FRAME;
            extent->frame[i] = PGS_NONE;
            extent->id[i] = PGSHARE_ID_ZERO;
        } else {
            if (!lock_page(extent, &extent->source, i, &word))
                continue;
            note_frame(extent, host, i, word);
        }
        if (extent->flags & PGS_EXTENT_SOURCE)
            continue;
        if (lock_page(extent, &extent->client, i, &word))
            note_client(extent, host, i, word);
    }
}

/* Page i's link is a mapping now. */
static void end_pending(struct pgs_extent *extent, struct pgshare_host *host,
                        uint32_t i)
{
    if (!moves_frames(host) || extent->frame[i] == PGS_NONE)
        return;
    pgs_frame_lock(&host->frames, extent->frame[i]);
    pgs_frame_at(&host->frames, extent->frame[i])->pending--;
    pgs_frame_unlock(&host->frames, extent->frame[i]);
}

void pgs_extent_unlock(struct pgs_extent *extent, struct pgshare_host *host)
{
    for (uint32_t i = 0; i < extent->count; i++) {
        if (extent->page[i] & PGS_PAGE_SOURCE)
            pgs_page_unlock(host, extent->source.page + i);
        if (extent->page[i] & PGS_PAGE_CLIENT)
            pgs_page_unlock(host, extent->client.page + i);
        if (extent->page[i] & PGS_PAGE_JOIN &&
            extent->old_frame[i] != PGS_NONE)
            unpin(host, extent->old_frame[i], true);
        if (extent->page[i] & PGS_PAGE_PENDING)
            end_pending(extent, host, i);
        if (extent->page[i] & PGS_PAGE_PINNED)
            unpin(host, extent->frame[i], false);
        extent->page[i] &= (uint16_t) ~(PGS_PAGE_SOURCE | PGS_PAGE_CLIENT |
                                        PGS_PAGE_JOIN | PGS_PAGE_PINNED |
                                        PGS_PAGE_PENDING);
    }
}

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
        frame->pending = moves_frames(host);
    }
    if (extent->flags & PGS_EXTENT_SOURCE)
        return;
    extent->client_node[i] =
        pgs_rmap_link(frames, extent->frame[i], extent->client.page + i);
    extent->page[i] |= PGS_PAGE_CLIENT_LINK;
    frame->pending += moves_frames(host);
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
    frame->pending -= moves_frames(host);
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

/* ---- commits ----------------------------------------------------------- */

/* The word becomes SHARED. False: it was told broken already, and is private
 * now. What it was before (a mark, another mapping) is given back. */
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
    if (pgs_page_commit(host, page, pgs_word_with(PGS_SHARED, node, 0),
                        PGS_ATTR_OVERWRITE, 0)) {
        if (node == PGS_NODE_ZERO)
            extent->new_zero++;
        else
            extent->new_mapped++;
        return true;
    }
    pgs_count(&host->shards, PGS_COUNT_BROKEN, 1);
    pgs_page_commit(host, page, PGS_PRIVATE, PGS_ATTR_OVERWRITE, 0);
    return false;
}

void pgs_extent_commit_source(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i)
{
    uint16_t gone = PGS_PAGE_SOURCE | PGS_PAGE_SOURCE_OURS;

    assert(extent->page[i] & PGS_PAGE_SOURCE_LINK);
    if (commit(extent, host, extent->source.page + i,
               extent->source_node[i])) {
        gone |= PGS_PAGE_SOURCE_LINK;
        end_pending(extent, host, i);
    } else {
        pgs_extent_unlink_source(extent, host, i);
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
            end_pending(extent, host, i);
        extent->new_shared++;
    } else {
        pgs_extent_unlink_client(extent, host, i);
    }
    pgs_extent_drop(extent, i, 0);
    extent->page[i] &= (uint16_t)~gone;
    extent->page[i] |= PGS_PAGE_DONE;
}

void pgs_extent_count(struct pgs_extent *extent, struct pgshare_host *host)
{
    struct pgs_tally *tally;

    if (extent->new_mapped)
        pgs_count(&host->shards, PGS_LEVEL_MAPPINGS, extent->new_mapped);
    /* after their mappings: what can be demanded is never underrated */
    if (extent->new_frames)
        pgs_count(&host->shards, PGS_LEVEL_FRAMES, extent->new_frames);
    if (extent->new_zero)
        pgs_count(&host->shards, PGS_LEVEL_ZERO_MAPPINGS, extent->new_zero);
    if (extent->new_shared) {
        tally = pgs_tally_mine(extent->client.domain);
        pgs_count(&host->shards, PGS_COUNT_SHARED + extent->cause,
                  extent->new_shared);
        atomic_fetch_add_explicit(&tally->made[extent->cause],
                                  extent->new_shared, memory_order_relaxed);
    }
    extent->shared += extent->new_shared;
    extent->new_mapped = extent->new_zero = extent->new_shared = 0;
    extent->new_frames = 0;
}
