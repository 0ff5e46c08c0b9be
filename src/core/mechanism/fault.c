/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CoW fault: one page becomes private.
 *
 *   begin ─ take BUSY ─┬ private ──────────────────────────→ spurious
 *                      ├ protected ─ UNPROTECT ─ unprotected → unmarked
 *                      │ (or stuck: an UNPROTECT failed before)
 *                      ├ reclaimed ─ obtain ─ GRANT ─ granted → populated
 *                      └ shared ─ UNSHARE ─ unshared ───────→ copied, …
 *                                    │ no frame
 *                                    └ pay ─ again
 *
 * How a shared page is undone, cheapest first: the last mapping takes the
 * frame over, unless somebody pins it or is about to map it (TAKING keeps it so
 * until the end); a page that is logically zero, or about to be overwritten
 * whole, gets a zeroed frame; otherwise the content is copied. Two threads that break the last two mappings at once both
 * copy, since each mapping counts until its page has left; the frame then dies.
 *
 * The books change only when the backend has answered: a mapping that could
 * not be broken is one still. No path here takes memory for metadata, but for
 * the hold of a get, which comes first.
 *
 * A get for writing is a fault that leaves a hold; an unshare is a fault that
 * nobody counts. They share every step.
 */
#include "mechanism/fault.h"

#include "mechanism/hold.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"

#include <pgshare/fault.h>
#include <pgshare/gfn.h>

static enum pgs_verdict break_mapping(struct pgs_call *call);

/* ---- endings ----------------------------------------------------------- */

static void count_outcome(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;

    if (call->flags & PGS_FAULT_UNDO || !call->outcome)
        return;
    pgs_count(&host->shards, PGS_COUNT_FAULT + call->outcome, 1);
    if (call->payer > PGSHARE_PAID_RESERVE)
        pgs_count(&host->shards, PGS_COUNT_PAYER + call->payer, 1);
    atomic_fetch_add_explicit(
        &pgs_tally_mine(call->domain)->faults[call->outcome], 1,
        memory_order_relaxed);
}

/* The page stays as it is; BUSY ends. */
static enum pgs_verdict fail(struct pgs_call *call, int error)
{
    if (call->flags & PGS_FAULT_LISTED)
        pgs_hold_drop(call->host, call->page, call->intent);
    call->result = error;
    pgs_page_unlock(call->host, call->page);
    return PGS_DONE;
}

/* Nothing had to be done; BUSY ends. */
static enum pgs_verdict keep(struct pgs_call *call, uint32_t outcome)
{
    call->outcome = outcome;
    count_outcome(call);
    pgs_page_unlock(call->host, call->page);
    return PGS_DONE;
}

static enum pgs_verdict succeed(struct pgs_call *call, uint32_t outcome)
{
    call->outcome = outcome;
    count_outcome(call);
    pgs_page_privatise(call->host, call->page, 0);
    return PGS_DONE;
}

/* ---- a mark ------------------------------------------------------------ */

static enum pgs_verdict unprotected(struct pgs_call *call)
{
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&call->host->chunks, call->page), memory_order_relaxed);

    if (call->status[0])
        return fail(call, call->status[0]);
    if (pgs_word_state(word) == PGS_PROTECTED)
        pgs_page_unmark(call->host, pgs_word_index(word));
    return succeed(call, PGSHARE_FAULT_UNMARKED);
}

static enum pgs_verdict unprotect(struct pgs_call *call, uint64_t word)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_UNPROTECT,
        .domain = domain->cookie,
        .gfn = pgs_page_gfn(call->host, call->page),
        .count = 1,
    };

    if (pgs_word_state(word) == PGS_PROTECTED)
        op.own_ids =
            &pgs_mark_at(&call->host->marks, pgs_word_index(word))->own_id;
    return pgs_call_submit(call, &op, unprotected);
}

/* ---- a page that has paid ---------------------------------------------- */

static enum pgs_verdict granted(struct pgs_call *call)
{
    if (call->status[0])
        return fail(call, call->status[0]);
    pgs_count(&call->host->shards, PGS_LEVEL_TRACKED, 1);
    return succeed(call, PGSHARE_FAULT_POPULATED);
}

static enum pgs_verdict grant(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_GRANT,
        .domain = domain->cookie,
        .gfn = pgs_page_gfn(call->host, call->page),
        .count = 1,
    };

    if (call->result)
        return fail(call, call->result);
    return pgs_call_submit(call, &op, granted);
}

/* ---- a mapping --------------------------------------------------------- */

static void stop_taking(struct pgs_call *call)
{
    struct pgs_frames *frames = &call->host->frames;

    if (!(call->flags & PGS_FAULT_TAKING))
        return;
    call->flags &= ~(uint32_t)PGS_FAULT_TAKING;
    pgs_frame_lock(frames, call->frame);
    pgs_frame_at(frames, call->frame)->flags &= (uint16_t)~PGS_FRAME_TAKING;
    pgs_frame_unlock(frames, call->frame);
}

/* The frame has become the page: it leaves the cow domain without a release. */
static void finish_taking(struct pgs_call *call, uint32_t node)
{
    struct pgshare_host *host = call->host;
    struct pgs_frames *frames = &host->frames;
    struct pgs_frame *frame = pgs_frame_at(frames, call->frame);

    pgs_frame_lock(frames, call->frame);
    pgs_rmap_unlink(frames, node);
    frame->flags = PGS_FRAME_LIVE | PGS_FRAME_DOOMED;
    pgs_frame_give(frames, call->frame);
    pgs_frame_unlock(frames, call->frame);
    /* in this order, see ledger.c */
    pgs_count(&host->shards, PGS_LEVEL_FRAMES, (uint64_t)-1);
    pgs_count(&host->shards, PGS_LEVEL_MAPPINGS, (uint64_t)-1);
}

static uint32_t outcome_of(const struct pgs_call *call, uint64_t word)
{
    if (call->flags & PGS_FAULT_TAKING)
        return PGSHARE_FAULT_LAST_MAPPING;
    if (!(call->op.flags & PGSHARE_OP_ZERO))
        return PGSHARE_FAULT_COPIED;
    if (word & (PGS_ATTR_FREE | PGS_ATTR_SCRUB) ||
        pgs_word_index(word) == PGS_NODE_ZERO)
        return PGSHARE_FAULT_FREE;
    return PGSHARE_FAULT_OVERWRITE;
}

static enum pgs_verdict paid(struct pgs_call *call)
{
    return call->result ? fail(call, call->result) : break_mapping(call);
}

/*
 * A backend that moves whole frames may have moved this mapping, together with
 * another that was being shared, from under the operation; the books follow
 * when that join is over (join.c). So is it a frame's that is being joined, or
 * by now another's, than the operation named?
 */
static bool was_moved(struct pgs_call *call, uint64_t word, bool *ret_over)
{
    struct pgs_frames *frames = &call->host->frames;
    uint32_t frame;
    bool joining;

    if (!(call->host->info.caps & PGSHARE_CAP_MAP_MOVES_FRAME) ||
        pgs_word_index(word) == PGS_NODE_ZERO)
        return false;
    frame = pgs_node_lock(frames, pgs_word_index(word));
    joining = pgs_frame_at(frames, frame)->flags & PGS_FRAME_JOINING;
    pgs_frame_unlock(frames, frame);
    *ret_over = !joining;
    return joining || frame != call->frame;
}

/* The guest's own write came first; that break will be told, and the
 * quarantine waits for it. */
static enum pgs_verdict already_broken(struct pgs_call *call, uint64_t word)
{
    pgs_page_unmap_broken(call->domain, pgs_word_index(word));
    return succeed(call, PGSHARE_FAULT_SPURIOUS);
}

static enum pgs_verdict unshared(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&host->chunks, call->page), memory_order_relaxed);
    uint32_t outcome;
    bool over = false;

    if (call->status[0]) {
        stop_taking(call);
        if (call->status[0] == PGSHARE_ERR_CLIENT_TICKET &&
            was_moved(call, word, &over)) {
            call->step = break_mapping;
            return over ? PGS_NEXT : PGS_WAIT_JOIN;
        }
        if (call->status[0] == PGSHARE_ERR_CLIENT_TICKET)
            return already_broken(call, word);
        return call->status[0] == PGSHARE_ERR_NOFRAME
                   ? pgs_pay(call, paid)
                   : fail(call, call->status[0]);
    }
    outcome = outcome_of(call, word);
    if (call->flags & PGS_FAULT_TAKING)
        finish_taking(call, pgs_word_index(word));
    else
        pgs_page_unmap(host, pgs_word_index(word));
    if (call->flags & (PGS_FAULT_OBTAINED | PGS_FAULT_TAKING))
        pgs_unsecured_end(call->domain, 1);
    if (outcome != PGSHARE_FAULT_LAST_MAPPING && !call->payer)
        call->payer = PGSHARE_PAID_RESERVE;
    if (call->flags & PGS_FAULT_UNDO) /* else the outcome tells */
        atomic_fetch_add_explicit(&pgs_tally_mine(call->domain)->broken, 1,
                                  memory_order_relaxed);
    return succeed(call, outcome);
}

/* The last mapping takes its frame over, unless somebody else pins it or is
 * about to map it: sets TAKING on frame and call. */
static bool take_over(struct pgs_call *call, uint32_t node)
{
    struct pgs_frames *frames = &call->host->frames;
    struct pgs_frame *frame;

    call->frame = pgs_node_lock(frames, node);
    frame = pgs_frame_at(frames, call->frame);
    assert(pgs_frame_is_valid(frame));
    if (frame->mappings == 1 && !frame->pins && !frame->pending &&
        !pgs_frame_is_left(call->host, frame)) {
        frame->flags |= PGS_FRAME_TAKING;
        call->flags |= PGS_FAULT_TAKING;
    }
    pgs_frame_unlock(frames, call->frame);
    return call->flags & PGS_FAULT_TAKING;
}

/* Decides how. A frame with more mappings is not locked: should it have but
 * one by the time that the backend copies, that is legal too. */
static uint32_t choose(struct pgs_call *call, uint64_t word, uint64_t *ret_id)
{
    struct pgs_frames *frames = &call->host->frames;
    uint32_t node = pgs_word_index(word);
    struct pgs_frame *frame;

    if (node == PGS_NODE_ZERO) {
        *ret_id = PGSHARE_ID_ZERO;
        return PGSHARE_OP_ZERO;
    }
    call->frame = pgs_node_frame(frames, node);
    frame = pgs_frame_at(frames, call->frame);
    *ret_id = frame->id;
    if (pgs_frame_mappings(frame) == 1 && take_over(call, node))
        return PGSHARE_OP_TAKE;
    if (word & (PGS_ATTR_FREE | PGS_ATTR_SCRUB | PGS_ATTR_OVERWRITE) ||
        call->flags & PGS_FAULT_WHOLE)
        return PGSHARE_OP_ZERO;
    return PGSHARE_OP_COPY;
}

static enum pgs_verdict break_mapping(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&call->host->chunks, call->page), memory_order_relaxed);
    uint64_t id;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_UNSHARE,
        .domain = domain->cookie,
        .gfn = pgs_page_gfn(call->host, call->page),
        .count = 1,
        .ids = &id,
    };

    op.flags = choose(call, word, &id);
    if (pgs_domain_flags(domain) & PGS_DOMAIN_UNSECURED &&
        !(call->flags & (PGS_FAULT_TAKING | PGS_FAULT_OBTAINED))) {
        call->flags |= PGS_FAULT_OBTAINED;
        return pgs_obtain(call, paid);
    }
    return pgs_call_submit(call, &op, unshared);
}

/* ---- the beginning ----------------------------------------------------- */

/* A write where none is allowed. */
static enum pgs_verdict refuse(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;

    if (call->kind != PGSHARE_OUTCOME_FAULT)
        return fail(call, PGSHARE_ERR_READONLY);
    keep(call, PGSHARE_FAULT_READ_ONLY);
    pgs_report(call->host, PGSHARE_REPORT_READONLY_WRITE, 0, domain->handle,
               call->gfn, 1);
    return PGS_DONE;
}

static enum pgs_verdict dispatch(struct pgs_call *call, uint64_t word)
{
    switch (pgs_word_state(word)) {
    case PGS_PRIVATE:
        if (word & PGS_ATTR_STUCK)
            return unprotect(call, word);
        return keep(call, PGSHARE_FAULT_SPURIOUS);
    case PGS_PROTECTED:
        return unprotect(call, word);
    case PGS_SHARED:
        return break_mapping(call);
    case PGS_HOLE:
    default:
        if (word & PGS_ATTR_RECLAIMED && !(call->flags & PGS_FAULT_UNDO))
            return pgs_obtain(call, grant);
        return fail(call, PGSHARE_ERR_HOLE);
    }
}

static bool is_reader(const struct pgs_call *call)
{
    return call->kind == PGSHARE_OUTCOME_GET &&
           call->intent == PGSHARE_GET_READ;
}

/* The page is held; a reader needs no more. */
static enum pgs_verdict hold(struct pgs_call *call, uint64_t word)
{
    int r = pgs_hold_add(call->host, call->page, call->intent);

    if (r == PGSHARE_ERR_BUSY) { /* its frame is being joined to another */
        call->frame = pgs_node_frame(&call->host->frames,
                                     pgs_word_index(word));
        pgs_page_unlock(call->host, call->page);
        return PGS_WAIT_JOIN;
    }
    if (r)
        return fail(call, r);
    call->flags |= PGS_FAULT_LISTED;
    if (!is_reader(call) || pgs_word_state(word) == PGS_HOLE)
        return dispatch(call, word);
    pgs_page_unlock(call->host, call->page);
    return PGS_DONE;
}

static enum pgs_verdict begin(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    _Atomic uint64_t *at = pgs_word_at(&call->host->chunks, call->page);
    uint64_t word;

    if (pgs_domain_flags(domain) & (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE)) {
        call->result = PGSHARE_ERR_GONE;
        return PGS_DONE;
    }
    if (!pgs_word_trylock(at, true, &word)) {
        call->waits = call->page;
        return PGS_WAIT_PAGE;
    }
    /* by now, the write that covered the page may be done, and another one */
    if (call->owner == PGS_OWNER_RUNNER && call->kind != PGSHARE_OUTCOME_GET)
        call->flags &= ~(uint32_t)PGS_FAULT_WHOLE;
    if (!(call->flags & PGS_FAULT_FORCE) && !is_reader(call) &&
        (word & PGS_ATTR_READONLY ||
         pgs_domain_flags(domain) & PGS_DOMAIN_FROZEN) &&
        pgs_word_state(word) != PGS_HOLE)
        return refuse(call);
    return call->kind == PGSHARE_OUTCOME_GET ? hold(call, word)
                                             : dispatch(call, word);
}

struct pgs_call *pgs_fault_take(struct pgs_domain *domain, uint32_t page,
                                uint32_t kind, uint32_t flags)
{
    struct pgs_call *call = pgs_call_take(domain->host, domain, begin);

    if (!call)
        return NULL;
    call->kind = kind;
    call->flags = flags;
    call->page = page;
    return call;
}
