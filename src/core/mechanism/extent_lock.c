/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extents: which pages take part in a share, and what is theirs alone while
 * they do.
 *
 * A page takes part when its BUSY bit could be had and nothing speaks against
 * it: neither side waits for the other, or for anybody, so that two extents
 * which meet cannot stop each other. What a client's page maps already is
 * noted here, too, since a whole frame may have to follow it (join.c): that
 * frame is pinned until the extent is unlocked.
 */
#include "mechanism/extent.h"

#include "mechanism/page.h"

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
    if (pgs_is_suspended(side->domain))
        return PGSHARE_ERR_SUSPENDED;
    if (!source && extent->flags & PGS_EXTENT_HOLES) {
        if (pgs_word_state(word) != PGS_HOLE)
            return PGSHARE_ERR_STATE;
        /* who holds it reaches what was there before it was discarded */
        return pgs_quarantined(side->domain, word) || word & PGS_ATTR_HELD
                   ? PGSHARE_ERR_BUSY
                   : 0;
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
        extent->missed++;
        return false;
    }
    extent->page[i] |= source ? PGS_PAGE_SOURCE : PGS_PAGE_CLIENT;
    r = check(extent, side, i, *ret_word,
              source ? PGSHARE_ERR_SOURCE_TICKET : PGSHARE_ERR_CLIENT_TICKET);
    side->own[i] = PGSHARE_ID_NONE; /* where the ticket was */
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

/* May all the mappings of the client's frame be moved? Marks it then. Not from
 * under readers (hold.c). */
static bool start_joining(struct pgs_extent *extent,
                          struct pgshare_host *host, uint32_t i,
                          uint32_t frame)
{
    struct pgs_frame *record = pgs_frame_at(&host->frames, frame);
    bool zero = extent->page[i] & PGS_PAGE_FRAME &&
                extent->frame[i] == PGS_NONE;
    bool may;

    pgs_frame_lock(&host->frames, frame);
    may = !record->pending && !record->pins &&
          record->flags == PGS_FRAME_LIVE;
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
    } else if (frame != PGS_NONE && pgs_moves_frames(host) &&
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
 * lines are sent for together. (Inlined, since GCC takes it for a function
 * without effect.) */
static inline __attribute__((always_inline)) void
fetch_words(const struct pgs_extent *extent, const struct pgs_side *side)
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
            pgs_extent_end_pending(extent, host, i);
        if (extent->page[i] & PGS_PAGE_PINNED)
            unpin(host, extent->frame[i], false);
        extent->page[i] &= (uint16_t) ~(PGS_PAGE_SOURCE | PGS_PAGE_CLIENT |
                                        PGS_PAGE_JOIN | PGS_PAGE_PINNED |
                                        PGS_PAGE_PENDING);
    }
}
