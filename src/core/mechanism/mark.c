/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marking pages read-only, and back.
 *
 *   mark:   lock ─ PROTECT by runs ─ commit ─ unprotect what was refused ─ end
 *   unmark: lock ─ UNPROTECT by runs ─ commit ─ end
 *
 * A mark is a promise by the backend that nobody writes, and a ticket for it.
 * Pages that are marked or shared already answer with what they have. Records
 * for the marks are taken before anything is protected, so that a page which
 * is protected can always be entered; a page that was declared secret
 * meanwhile is unprotected again.
 */
#include "mechanism/mark.h"

#include "mechanism/page.h"
#include "mechanism/share.h"

#define LIVE PGS_PAGE_LIVE
#define OURS PGS_PAGE_SOURCE_OURS

static enum pgs_verdict protect(struct pgs_call *call);
static enum pgs_verdict undo(struct pgs_call *call);
static enum pgs_verdict unprotect(struct pgs_call *call);

static _Atomic uint64_t *word_at(struct pgs_call *call, uint32_t i)
{
    return pgs_word_at(&call->host->chunks, call->extent->source.page + i);
}

static enum pgs_verdict end(struct pgs_call *call)
{
    pgs_extent_unlock(call->extent, call->host);
    call->result = pgs_extent_result(call->extent);
    return PGS_DONE;
}

static enum pgs_verdict submit(struct pgs_call *call, uint32_t kind,
                               pgs_step answered)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = {
        .kind = kind,
        .domain = extent->source.domain->cookie,
        .gfn = extent->source.gfn + extent->first,
        .count = extent->n,
    };

    if (kind == PGSHARE_OP_UNPROTECT)
        op.own_ids = &extent->source.own[extent->first];
    return pgs_call_submit_into(call, &op, answered, extent->status,
                                extent->ids);
}

static bool next_run(struct pgs_call *call, uint16_t mask)
{
    return pgs_extent_run(call->extent, call->host->info.extent_max, mask,
                          mask);
}

/* ---- mark -------------------------------------------------------------- */

/* Why a page cannot be marked, or 0. */
static int check(struct pgs_call *call, uint64_t word)
{
    if (word & PGS_ATTR_NEVER)
        return PGSHARE_ERR_NEVER_SHARE;
    if (pgs_is_suspended(call->extent->source.domain))
        return PGSHARE_ERR_SUSPENDED;
    if (pgs_word_state(word) == PGS_HOLE)
        return PGSHARE_ERR_HOLE;
    if (pgs_word_state(word) != PGS_PRIVATE)
        return 0;
    if (word & PGS_UNSHAREABLE)
        return PGSHARE_ERR_BUSY;
    if (pgs_quarantined(call->extent->source.domain, word)) {
        call->flags |= 1; /* a harvest would help */
        return PGSHARE_ERR_BUSY;
    }
    return 0;
}

/* The ticket of a page that is marked or shared. */
static uint64_t ticket_of(struct pgshare_host *host, uint64_t word)
{
    uint32_t index = pgs_word_index(word);

    if (pgs_word_state(word) == PGS_PROTECTED)
        return pgs_mark_at(&host->marks, index)->ticket;
    if (index == PGS_NODE_ZERO)
        return PGS_TICKET_ZERO;
    return pgs_frame_at(&host->frames, pgs_node_frame(&host->frames, index))
        ->ticket;
}

static void lock_page(struct pgs_call *call, uint32_t i)
{
    struct pgs_extent *extent = call->extent;
    uint64_t word;
    int r;

    extent->id[i] = 0;
    extent->page[i] = LIVE;
    if (!pgs_word_trylock(word_at(call, i), false, &word)) {
        pgs_extent_drop(extent, i, PGSHARE_ERR_BUSY);
        return;
    }
    extent->page[i] |= PGS_PAGE_SOURCE;
    r = check(call, word);
    if (r || pgs_word_state(word) != PGS_PRIVATE) {
        pgs_extent_drop(extent, i, r);
        if (!r)
            extent->id[i] = ticket_of(call->host, word);
    }
}

/* Takes records for the marks of a run. */
static bool take_marks(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    int r = pgs_marks_take(&call->host->marks, extent->n,
                           &extent->frame[extent->first]);

    for (uint32_t i = extent->first; r && i < extent->first + extent->n; i++)
        pgs_extent_drop(extent, i, r);
    return !r;
}

/* One page is protected: its word says so, unless it was declared a secret or
 * has been broken meanwhile. */
static void enter(struct pgs_call *call, uint32_t i, uint64_t ticket)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_host *host = call->host;
    uint32_t page = extent->source.page + i;
    struct pgs_mark *mark = pgs_mark_at(&host->marks, extent->frame[i]);

    mark->ticket = ticket;
    mark->own_id = extent->source.own[i];
    mark->page = page;
    if (pgs_page_commit(host, page,
                        pgs_word_with(PGS_PROTECTED, extent->frame[i], 0), 0,
                        PGS_ATTR_NEVER)) {
        pgs_count(&host->shards, PGS_LEVEL_PROTECTED, 1);
        extent->id[i] = ticket;
        extent->page[i] = 0;
        return;
    }
    pgs_marks_give(&host->marks, 1, &extent->frame[i]);
    pgs_extent_drop(extent, i, PGSHARE_ERR_NEVER_SHARE);
    if (atomic_load_explicit(word_at(call, i), memory_order_relaxed) &
        PGS_ATTR_BROKEN)
        extent->result[i] = PGSHARE_ERR_BUSY;
    extent->page[i] |= OURS;
}

static enum pgs_verdict protected(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    uint64_t ticket = pgs_ticket_next(call->host, extent->n);

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;

        if (!extent->status[k]) {
            extent->source.own[i] = extent->ids[k];
            enter(call, i, ticket + k);
            continue;
        }
        pgs_marks_give(&call->host->marks, 1, &extent->frame[i]);
        pgs_extent_drop(extent, i, extent->status[k]);
        /* into the quarantine, see share.c */
        extent->page[i] = 0;
        pgs_page_privatise(call->host, extent->source.page + i, 0);
    }
    call->step = protect;
    return PGS_NEXT;
}

static enum pgs_verdict protect(struct pgs_call *call)
{
    while (next_run(call, LIVE))
        if (take_marks(call))
            return submit(call, PGSHARE_OP_PROTECT, protected);
    call->step = undo;
    return PGS_NEXT;
}

static enum pgs_verdict undone(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t page = extent->source.page + extent->first + k;

        extent->page[extent->first + k] = 0;
        if (extent->status[k])
            pgs_page_privatise_stuck(call->host, page);
        else
            pgs_page_privatise(call->host, page, 0);
    }
    call->step = undo;
    return PGS_NEXT;
}

static enum pgs_verdict undo(struct pgs_call *call)
{
    return next_run(call, OURS) ? submit(call, PGSHARE_OP_UNPROTECT, undone)
                                : end(call);
}

static enum pgs_verdict mark(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    call->result = 0;
    call->flags = 0;
    for (uint32_t i = 0; i < extent->count; i++) {
        extent->result[i] = 0;
        lock_page(call, i);
    }
    if (call->flags && !call->tries) {
        call->tries = 1;
        pgs_extent_unlock(extent, call->host);
        return pgs_harvest(call, extent->source.domain, mark);
    }
    extent->cursor = 0;
    call->step = protect;
    return PGS_NEXT;
}

/* ---- unmark ------------------------------------------------------------ */

static void find_mark(struct pgs_call *call, uint32_t i)
{
    struct pgs_extent *extent = call->extent;
    const uint64_t *tickets = extent->source.tickets;
    uint64_t word;

    extent->page[i] = LIVE;
    if (!pgs_word_trylock(word_at(call, i), false, &word)) {
        pgs_extent_drop(extent, i, PGSHARE_ERR_BUSY);
        return;
    }
    extent->page[i] |= PGS_PAGE_SOURCE;
    if (pgs_word_state(word) == PGS_SHARED)
        pgs_extent_drop(extent, i, PGSHARE_ERR_STATE);
    else if (pgs_word_state(word) != PGS_PROTECTED ||
             (tickets && tickets[i] != ticket_of(call->host, word)))
        pgs_extent_drop(extent, i, PGSHARE_ERR_TICKET);
    else
        extent->source.own[i] =
            pgs_mark_at(&call->host->marks, pgs_word_index(word))->own_id;
}

static enum pgs_verdict unprotected(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;
        uint64_t word =
            atomic_load_explicit(word_at(call, i), memory_order_relaxed);

        pgs_extent_drop(extent, i, extent->status[k]);
        if (extent->status[k])
            continue;
        pgs_page_unmark(call->host, pgs_word_index(word));
        pgs_page_privatise(call->host, extent->source.page + i, 0);
        extent->page[i] = 0;
    }
    call->step = unprotect;
    return PGS_NEXT;
}

static enum pgs_verdict unprotect(struct pgs_call *call)
{
    return next_run(call, LIVE)
               ? submit(call, PGSHARE_OP_UNPROTECT, unprotected)
               : end(call);
}

static enum pgs_verdict unmark(struct pgs_call *call)
{
    for (uint32_t i = 0; i < call->extent->count; i++)
        find_mark(call, i);
    call->extent->cursor = 0;
    call->step = unprotect;
    return PGS_NEXT;
}

/* ------------------------------------------------------------------------ */

static struct pgs_call *take(struct pgshare_host *host,
                             struct pgs_extent *extent, pgs_step first)
{
    struct pgs_call *call = pgs_call_take(host, extent->source.domain, first);

    if (!call)
        return NULL;
    call->kind = PGSHARE_OUTCOME_MARK;
    call->extent = extent;
    return call;
}

struct pgs_call *pgs_mark_take(struct pgshare_host *host,
                               struct pgs_extent *extent)
{
    return take(host, extent, mark);
}

struct pgs_call *pgs_unmark_take(struct pgshare_host *host,
                                 struct pgs_extent *extent)
{
    return take(host, extent, unmark);
}
