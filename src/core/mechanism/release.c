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
    struct pgs_frames *frames = &call->host->frames;
    uint64_t ids[PGS_INLINE];
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RELEASE,
        .count = take_doomed(call->host, call->batch),
        .ids = ids,
    };

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
