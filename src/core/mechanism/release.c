/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames that nothing maps any more.
 *
 * A frame dies by the hand of whoever unlinks its last mapping, often on a
 * thread that must not call the backend. So it is put on a list, which needs
 * no memory since its record's own link is used, and the runner releases the
 * list in batches. The frame is the reserve's when the backend has answered;
 * until then it counts as a frame, so that the books agree all the while.
 *
 * A release that was refused, or whose answer is lost, is sent again; since no
 * frame's id is ever used twice, one that came too often releases nothing.
 *
 * A domain that is being removed may have operations with the backend that were
 * given up, and may be done yet. A frame that one of these is to map is `left`
 * to that domain, and put aside until it has ended; all others go on. (Where it is left
 * to several domains, until none of them is leaving any more.)
 */
#include "mechanism/page.h"

void pgs_frame_count_empty(struct pgshare_host *host, uint32_t frame)
{
    struct pgs_frame *record = pgs_frame_at(&host->frames, frame);
    bool is = !record->mappings, was = record->flags & PGS_FRAME_EMPTY;

    if (is == was)
        return;
    record->flags ^= PGS_FRAME_EMPTY;
    pgs_count(&host->shards, PGS_LEVEL_EMPTY, is ? 1 : (uint64_t)-1);
}

void pgs_frame_defer(struct pgshare_host *host, uint32_t frame)
{
    struct pgs_frame *record = pgs_frame_at(&host->frames, frame);

    pgs_frame_lock(&host->frames, frame);
    assert(record->flags & PGS_FRAME_DOOMED);
    pgs_frame_count_empty(host, frame);
    pgs_mutex_lock(&host->doomed_lock);
    record->head = host->doomed;
    host->doomed = frame;
    pgs_mutex_unlock(&host->doomed_lock);
    pgs_frame_unlock(&host->frames, frame);
    atomic_fetch_add_explicit(&host->n_doomed, 1, memory_order_relaxed);
    pgs_wake(host);
}

/* ---- what a leaving domain may map ------------------------------------- */

#define LEFT_TO_SEVERAL UINT32_MAX

void pgs_frame_keep(struct pgs_domain *domain, uint32_t frame)
{
    struct pgs_frames *frames = &domain->host->frames;
    uint32_t left = (uint32_t)domain->handle; /* never 0: it has the slot */
    struct pgs_frame *record = pgs_frame_at(frames, frame);

    pgs_frame_lock(frames, frame);
    if (record->left && record->left != left)
        left = LEFT_TO_SEVERAL;
    record->left = left;
    pgs_frame_unlock(frames, frame);
}

/* domains_lock held. */
static bool is_leaving(struct pgshare_host *host, uint32_t left)
{
    struct pgs_domain *domain = host->dying;

    while (domain && left != LEFT_TO_SEVERAL &&
           (uint32_t)domain->handle != left)
        domain = domain->next_dying;
    return domain;
}

/* Puts the frame aside, if it may still be mapped. The end of a domain looks at
 * what is kept after it was taken from the list under this lock. */
static bool set_aside(struct pgshare_host *host, uint32_t frame)
{
    struct pgs_frame *record = pgs_frame_at(&host->frames, frame);
    bool leaving;

    if (!record->left)
        return false;
    pgs_mutex_lock(&host->domains_lock);
    leaving = is_leaving(host, record->left);
    if (leaving) {
        pgs_mutex_lock(&host->doomed_lock);
        record->head = host->kept;
        host->kept = frame;
        pgs_mutex_unlock(&host->doomed_lock);
    }
    pgs_mutex_unlock(&host->domains_lock);
    return leaving;
}

void pgs_frames_let_go(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;
    uint32_t frame;

    if (pgs_domain_flags(domain) & PGS_DOMAIN_LEFT)
        atomic_fetch_sub_explicit(&host->n_left, 1, memory_order_release);
    for (;;) {
        pgs_mutex_lock(&host->doomed_lock);
        frame = host->kept;
        if (frame != PGS_NONE) {
            struct pgs_frame *record = pgs_frame_at(&host->frames, frame);

            host->kept = record->head;
            record->head = host->doomed;
            host->doomed = frame;
        }
        pgs_mutex_unlock(&host->doomed_lock);
        if (frame == PGS_NONE)
            break;
        atomic_fetch_add_explicit(&host->n_doomed, 1, memory_order_relaxed);
    }
    pgs_wake(host);
}

/* ---- releases ---------------------------------------------------------- */

static uint32_t take_doomed(struct pgshare_host *host, uint32_t *ret_frames)
{
    uint32_t most = host->info.extent_max, n = 0;

    if (most > PGS_INLINE)
        most = PGS_INLINE;
    pgs_mutex_lock(&host->doomed_lock);
    while (n < most && host->doomed != PGS_NONE) {
        ret_frames[n] = host->doomed;
        host->doomed = pgs_frame_at(&host->frames, host->doomed)->head;
        n++;
    }
    pgs_mutex_unlock(&host->doomed_lock);
    atomic_fetch_sub_explicit(&host->n_doomed, n, memory_order_relaxed);
    return n;
}

void pgs_frame_retire(struct pgshare_host *host, uint32_t frame)
{
    pgs_frame_lock(&host->frames, frame);
    pgs_frame_at(&host->frames, frame)->head = PGS_NONE;
    pgs_frame_give(&host->frames, frame);
    pgs_frame_unlock(&host->frames, frame);
    pgs_count(&host->shards, PGS_LEVEL_FRAMES, (uint64_t)-1);
    pgs_count(&host->shards, PGS_LEVEL_EMPTY, (uint64_t)-1);
}

static enum pgs_verdict end(struct pgs_call *call)
{
    if (!call->resume)
        return PGS_DONE;
    call->step = call->resume;
    return PGS_NEXT;
}

static enum pgs_verdict released(struct pgs_call *call)
{
    for (uint32_t i = 0; i < call->op.count; i++) {
        if (call->status[i] == 0)
            pgs_frame_retire(call->host, call->batch[i]);
        else
            pgs_frame_defer(call->host, call->batch[i]);
    }
    return end(call);
}

static enum pgs_verdict release(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    struct pgs_frames *frames = &host->frames;
    uint64_t ids[PGS_INLINE];
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RELEASE,
        .count = take_doomed(host, call->batch),
        .ids = ids,
    };
    uint32_t n = 0;

    for (uint32_t i = 0; i < op.count; i++) {
        if (set_aside(host, call->batch[i]))
            continue;
        call->batch[n++] = call->batch[i];
    }
    op.count = n;
    if (!op.count)
        return end(call);
    for (uint32_t i = 0; i < op.count; i++)
        ids[i] = pgs_frame_at(frames, call->batch[i])->id;
    return pgs_call_submit(call, &op, released);
}

enum pgs_verdict pgs_release(struct pgs_call *call, pgs_step next)
{
    call->resume = next;
    return release(call);
}

bool pgs_release_launch(struct pgshare_host *host)
{
    struct pgs_call *call;

    if (!atomic_load_explicit(&host->n_doomed, memory_order_relaxed))
        return false;
    call = pgs_call_take(host, NULL, release);
    if (!call)
        return false;
    pgs_call_launch(call);
    return true;
}

static uint64_t doomed(struct pgshare_host *host)
{
    return atomic_load_explicit(&host->n_doomed, memory_order_relaxed);
}

uint32_t pgs_release_all(struct pgshare_host *host)
{
    uint64_t before, left = doomed(host);
    uint32_t ended = 0;

    if (!left)
        return 0;
    do {
        before = left;
        if (!pgs_release_launch(host))
            break;
        ended += pgs_calls_run(host, NULL);
        left = doomed(host);
    } while (left < before);
    return ended;
}
