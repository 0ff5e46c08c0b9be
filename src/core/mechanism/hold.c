/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Gets and puts on (domain, GFN).
 *
 * A page that is held is never marked, mapped away or given up (the word's
 * HELD attribute, part of PGS_UNSHAREABLE), so what the holder reaches stays
 * the page. Only a page that is shared when a reader takes it stays shared,
 * and its frame is pinned: when the guest writes, the guest gets a copy and
 * the frame lives on until the reader's put. Since a held page is not shared
 * again, and a frame with readers is not joined to another (nor one that is
 * being joined pinned), an entry has one pinned frame at the most.
 *
 * Attributes of the word and entry of the table change together under the
 * table's lock.
 */
#include "mechanism/hold.h"

#include "mechanism/page.h"

#include <pgshare/gfn.h>

/* False: by the time that its join is over, the page will map another frame. */
static bool pin(struct pgshare_host *host, struct pgs_hold *hold,
                uint64_t word)
{
    struct pgs_frames *frames = &host->frames;
    uint32_t frame;
    bool joining;

    if (pgs_word_state(word) != PGS_SHARED ||
        pgs_word_index(word) == PGS_NODE_ZERO)
        return true;
    frame = pgs_node_lock(frames, pgs_word_index(word));
    joining = pgs_frame_at(frames, frame)->flags & PGS_FRAME_JOINING;
    if (!joining) {
        assert(!hold->pins || hold->frame == frame);
        hold->frame = frame;
        hold->pins++;
        pgs_frame_at(frames, frame)->pins++;
    }
    pgs_frame_unlock(frames, frame);
    return !joining;
}

/* Holds locked. _BUSY: nothing has changed, see pin(). */
static int enter(struct pgshare_host *host, struct pgs_hold *hold,
                 uint32_t intent, uint64_t word)
{
    if (intent != PGSHARE_GET_READ) {
        hold->writes++;
        return 0;
    }
    if (pin(host, hold, word)) {
        hold->reads++;
        return 0;
    }
    if (!hold->reads && !hold->writes)
        pgs_holds_drop(&host->holds, hold);
    return PGSHARE_ERR_BUSY;
}

int pgs_hold_add(struct pgshare_host *host, uint32_t page, uint32_t intent)
{
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t attributes = PGS_ATTR_HELD;
    struct pgs_hold *hold;
    int r = PGSHARE_ERR_NOMEM;

    pgs_mutex_lock(&host->holds.lock);
    hold = pgs_holds_add(&host->holds, page);
    if (hold)
        r = enter(host, hold, intent,
                  atomic_load_explicit(at, memory_order_relaxed));
    if (!r) {
        if (intent != PGSHARE_GET_READ)
            attributes |= PGS_ATTR_HELD_WRITE;
        atomic_fetch_or_explicit(at, attributes, memory_order_release);
        pgs_count(&host->shards, PGS_LEVEL_VERSION, 1); /* for the audit */
    }
    pgs_mutex_unlock(&host->holds.lock);
    return r;
}

/* A reader goes: is its frame to be released by us? */
static bool unpin(struct pgshare_host *host, struct pgs_hold *hold)
{
    struct pgs_frame *frame;
    bool doomed;

    /* readers that came before the page was shared pin nothing; the pins go
     * with the last reads */
    if (!hold->pins || hold->reads >= hold->pins)
        return false;
    hold->pins--;
    frame = pgs_frame_at(&host->frames, hold->frame);
    pgs_frame_lock(&host->frames, hold->frame);
    frame->pins--;
    doomed = pgs_frame_doom(frame);
    pgs_frame_unlock(&host->frames, hold->frame);
    return doomed;
}

int pgs_hold_drop(struct pgshare_host *host, uint32_t page, uint32_t intent)
{
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    struct pgs_hold *hold;
    uint64_t clear = 0;
    uint32_t frame = PGS_NONE;
    int r = PGSHARE_ERR_STATE;

    pgs_mutex_lock(&host->holds.lock);
    hold = pgs_holds_find(&host->holds, page);
    if (hold && (intent == PGSHARE_GET_READ ? hold->reads : hold->writes)) {
        if (intent == PGSHARE_GET_READ) {
            hold->reads--;
            if (unpin(host, hold))
                frame = hold->frame;
        } else if (!--hold->writes) {
            clear |= PGS_ATTR_HELD_WRITE;
        }
        if (!hold->reads && !hold->writes) {
            clear |= PGS_ATTR_HELD;
            pgs_holds_drop(&host->holds, hold);
        }
        atomic_fetch_and(at, ~clear); /* before who looks for misses */
        pgs_count(&host->shards, PGS_LEVEL_VERSION, 1);
        r = 0;
    }
    pgs_mutex_unlock(&host->holds.lock);
    if (frame != PGS_NONE)
        pgs_frame_defer(host, frame);
    return r;
}

void pgs_hold_forget(struct pgshare_host *host, uint32_t page)
{
    while (!pgs_hold_drop(host, page, PGSHARE_GET_READ)) {
    }
    while (!pgs_hold_drop(host, page, PGSHARE_GET_WRITE)) {
    }
}
