/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit of frames: each record, and each mapping from the frame's side.
 * Under the stripe's lock a list and the words of its pages agree, but for
 * words that are BUSY. A stripe is left between two frames when faults have
 * waited long enough; a frame with a million mappings makes those of its
 * stripe wait for the walk of its list.
 */
#include "mechanism/audit.h"

#include "mechanism/ledger.h"

#include <pgshare/ledger.h>

/* Nodes after which a stripe is left. */
#define NODES_PER_LOCK 1024u

struct frame_walk {
    struct pgs_audit *audit;
    uint32_t index;
    const struct pgs_frame *frame;
    bool in_flight; /* an operation has one of its pages */
    uint32_t nodes; /* looked at under this lock */
};

static void report(struct frame_walk *walk, uint32_t invariant,
                   uint64_t expected, uint64_t found)
{
    struct pgs_place place = { NULL, PGSHARE_GFN_NONE, walk->index };

    pgs_audit_report(walk->audit, invariant, place, expected, found);
}

/* A page's word, NULL where there can be none. */
static _Atomic uint64_t *word_of(struct pgshare_host *host, uint32_t page)
{
    uint32_t chunk = page >> PGS_CHUNK_SHIFT;

    return chunk < PGS_CHUNKS_MAX && host->chunks.list[chunk].words
               ? pgs_word_at(&host->chunks, page)
               : NULL;
}

/* ---- frames ------------------------------------------------------------ */

/* After its list. A record gets its names when it has been published; before
 * that the page of its first mapping is in flight. */
static void check_record(struct frame_walk *walk)
{
    struct pgshare_host *host = walk->audit->host;
    const struct pgs_frame *frame = walk->frame;
    uint64_t last = atomic_load_explicit(&host->ticket, memory_order_relaxed);

    if (frame->flags & PGS_FRAME_DOOMED
            ? frame->mappings || frame->pins || frame->pending
            : !pgs_frame_is_valid(frame))
        report(walk, PGSHARE_INVARIANT_FRAME, frame->mappings, frame->flags);
    if (frame->pending || frame->flags & PGS_FRAME_TAKING)
        walk->in_flight = true;
    if (walk->in_flight) {
        walk->audit->moved = true;
        return;
    }
    if (frame->mappings && (frame->id == PGSHARE_ID_NONE ||
                            frame->id == PGSHARE_ID_ZERO || !frame->group))
        report(walk, PGSHARE_INVARIANT_FRAME, frame->group, frame->id);
    if (frame->mappings && (!frame->ticket || frame->ticket > last))
        report(walk, PGSHARE_INVARIANT_TICKET, last, frame->ticket);
}

/* One mapping, from the node to the word. False: the list cannot be followed. */
static bool check_node(struct frame_walk *walk, uint32_t index, uint32_t before)
{
    struct pgs_frames *frames = &walk->audit->host->frames;
    struct pgshare_host *host = walk->audit->host;
    struct pgs_place place = { NULL, PGSHARE_GFN_NONE, walk->index };
    struct pgs_node *node;
    _Atomic uint64_t *at;
    uint64_t word;

    if (index >=
        atomic_load_explicit(&frames->nodes.size, memory_order_relaxed)) {
        report(walk, PGSHARE_INVARIANT_RMAP, before, index);
        return false;
    }
    node = pgs_node_at(frames, index);
    at = word_of(host, node->page);
    if (!at || node->prev != before ||
        pgs_node_frame(frames, index) != walk->index) {
        report(walk, PGSHARE_INVARIANT_RMAP, before, index);
        return false;
    }
    word = atomic_load_explicit(at, memory_order_acquire);
    if (word & PGS_BUSY) {
        walk->in_flight = true;
        return true;
    }
    place.domain = pgs_page_domain(host, node->page);
    place.gfn = pgs_page_gfn(host, node->page);
    if (pgs_word_state(word) != PGS_SHARED || pgs_word_index(word) != index)
        pgs_audit_report(walk->audit, PGSHARE_INVARIANT_RMAP, place, index,
                         word);
    else if (place.domain->group != walk->frame->group)
        pgs_audit_report(walk->audit, PGSHARE_INVARIANT_FRAME, place,
                         walk->frame->group, place.domain->group);
    return true;
}

static void check_list(struct frame_walk *walk)
{
    struct pgs_frames *frames = &walk->audit->host->frames;
    uint32_t node = walk->frame->head, before = PGS_NONE, n = 0;

    walk->in_flight = false;
    if (walk->frame->flags & PGS_FRAME_DOOMED)
        return; /* it is in another list by the same link, see release.c */
    while (node != PGS_NONE && n <= walk->frame->mappings) {
        if (!check_node(walk, node, before))
            break;
        before = node;
        node = pgs_node_at(frames, node)->next;
        n++;
    }
    walk->nodes += n;
    walk->audit->verdict.mappings += n;
    if (n != walk->frame->mappings)
        report(walk, PGSHARE_INVARIANT_COUNT, n, walk->frame->mappings);
}

static void add_frame(struct frame_walk *walk)
{
    struct pgs_audit_sums *sums = &walk->audit->sums;
    uint64_t n = walk->frame->mappings;

    sums->frames++;
    sums->frame_pins += walk->frame->pins;
    if (!n)
        return;
    sums->frame_mappings += n;
    sums->freed += n - 1;
    sums->remainder += PGSHARE_ENTITLEMENT_ONE * (n - 1) -
                       n * pgs_ledger_share(n);
}

void pgs_audit_frames(struct pgs_audit *audit)
{
    struct pgs_frames *frames = &audit->host->frames;
    struct frame_walk walk = { .audit = audit };
    struct pgs_stripe *locked = NULL;
    uint32_t end = pgs_frames_end(frames);

    for (walk.index = 0; walk.index < end; walk.index++) {
        struct pgs_stripe *stripe = pgs_stripe_of(frames, walk.index);

        if (stripe != locked || walk.nodes >= NODES_PER_LOCK) {
            if (locked)
                pgs_mutex_unlock(&locked->lock);
            pgs_mutex_lock(&stripe->lock);
            locked = stripe;
            walk.nodes = 0;
        }
        walk.frame = pgs_frame_at(frames, walk.index);
        if (!(walk.frame->flags & PGS_FRAME_LIVE))
            continue;
        audit->verdict.frames++;
        check_list(&walk);
        check_record(&walk);
        add_frame(&walk);
    }
    if (locked)
        pgs_mutex_unlock(&locked->lock);
}

/* ---- holds ------------------------------------------------------------- */

/* Holds locked. The frame that a hold pins is there, and knows of the pins. */
static bool pin_agrees(struct pgshare_host *host, const struct pgs_hold *hold)
{
    struct pgs_frames *frames = &host->frames;
    const struct pgs_frame *frame;
    bool agrees;

    if (!hold->pins)
        return true;
    if (hold->pins > hold->reads || hold->frame >= pgs_frames_end(frames))
        return false;
    frame = pgs_frame_at(frames, hold->frame);
    pgs_frame_lock(frames, hold->frame);
    agrees = frame->flags & PGS_FRAME_LIVE && frame->pins >= hold->pins;
    pgs_frame_unlock(frames, hold->frame);
    return agrees;
}

static void check_hold(struct pgs_audit *audit, const struct pgs_hold *hold)
{
    struct pgs_place place = PGS_NOWHERE;
    _Atomic uint64_t *at = word_of(audit->host, hold->page);
    uint64_t word;

    if (at) {
        place.domain = pgs_page_domain(audit->host, hold->page);
        place.gfn = pgs_page_gfn(audit->host, hold->page);
        word = atomic_load_explicit(at, memory_order_relaxed);
    }
    if (!at || !(word & PGS_ATTR_HELD) ||
        !(word & PGS_ATTR_HELD_WRITE) != !hold->writes ||
        !(hold->reads || hold->writes) || !pin_agrees(audit->host, hold))
        pgs_audit_report(audit, PGSHARE_INVARIANT_HOLD, place, hold->writes,
                         hold->reads);
    audit->sums.holds++;
    audit->sums.hold_pins += hold->pins;
}

void pgs_audit_holds(struct pgs_audit *audit)
{
    struct pgs_holds *holds = &audit->host->holds;

    pgs_mutex_lock(&holds->lock);
    for (uint64_t i = 0; holds->slots && i <= holds->mask; i++)
        if (holds->slots[i].page != PGS_PAGE_NONE)
            check_hold(audit, &holds->slots[i]);
    if (audit->sums.holds != holds->used)
        pgs_audit_report(audit, PGSHARE_INVARIANT_HOLD, PGS_NOWHERE,
                         audit->sums.holds, holds->used);
    pgs_mutex_unlock(&holds->lock);
}
