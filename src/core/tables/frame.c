/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames and reverse maps: records, and where free ones are kept.
 *
 * What a write fault does here (unlink a node, perhaps give a frame back) runs
 * under one stripe's lock, allocates nothing and takes constant time. So the
 * stripe keeps what comes free: frames for good, since a frame's stripe is
 * fixed, and nodes until it has two batches of them, of which the older then
 * moves to the host's stock. Sharing, which can wait, brings nodes back from
 * there before it begins (pgs_nodes_stock).
 *
 * New frames of an extent had best be consecutive, so that they lie in one
 * stripe and are locked once. Records that were used before are scattered;
 * they are taken first only when they are many, or when there are no others.
 * At most an eighth of the records is idle otherwise, which keeps a frame
 * within its budget.
 *
 * How many frames are idle is known exactly to each stripe only. The sum is
 * counted in steps of IDLE_STEP, so that stripes hardly ever meet there.
 */
#include "tables/frame.h"

#include "tables/gfn.h"

#include <pgshare/error.h>

#include <string.h>

#define FRAMES_PER_CHUNK_SHIFT 17
#define NODES_PER_CHUNK_SHIFT 17
/* The last chunk is left out: PGS_NONE and PGS_NODE_ZERO are no indices. */
#define FRAMES_MAX ((UINT64_C(1) << 32) - (1u << FRAMES_PER_CHUNK_SHIFT))
#define NODES_MAX ((UINT64_C(1) << 32) - (1u << NODES_PER_CHUNK_SHIFT))
#define IDLE_STEP 16u

/* What holds between any two steps, also while a caller is in the middle. */
static bool frame_is_sane(const struct pgs_frame *frame)
{
    return (frame->flags & PGS_FRAME_LIVE) &&
           (frame->mappings == 0) == (frame->head == PGS_NONE);
}

bool pgs_frame_is_valid(const struct pgs_frame *frame)
{
    bool idle = frame->pending == 0 && frame->pins == 0;

    if (!frame_is_sane(frame))
        return false;
    if (frame->flags & PGS_FRAME_TAKING)
        return frame->mappings == 1 && idle;
    return !(frame->mappings == 0 && idle) == !(frame->flags &
                                                PGS_FRAME_DOOMED);
}

static void stripes_fini(struct pgs_frames *frames, unsigned n)
{
    while (n-- > 0)
        pgs_mutex_fini(&frames->stripe[n].lock);
}

static int stripes_init(struct pgs_frames *frames)
{
    for (unsigned i = 0; i < PGS_STRIPES; i++) {
        struct pgs_stripe *stripe = &frames->stripe[i];
        int error = pgs_mutex_init(&stripe->lock, PGS_RANK_STRIPE);

        if (error) {
            stripes_fini(frames, i);
            return error;
        }
        stripe->free_frames = PGS_NONE;
        stripe->n_free_frames = 0;
        stripe->n_free_nodes = 0;
    }
    return 0;
}

int pgs_frames_init(struct pgs_frames *frames, struct pgs_heap *heap)
{
    int error = pgs_slab_init(&frames->frames, heap, sizeof(struct pgs_frame),
                              FRAMES_PER_CHUNK_SHIFT, FRAMES_MAX);

    if (error)
        return error;
    error = pgs_slab_init(&frames->nodes, heap, sizeof(struct pgs_node),
                          NODES_PER_CHUNK_SHIFT, NODES_MAX);
    if (error)
        goto no_nodes;
    error = pgs_slab_init(&frames->idle_nodes, heap, sizeof(uint32_t),
                          NODES_PER_CHUNK_SHIFT, NODES_MAX);
    if (error)
        goto no_idle;
    error = pgs_mutex_init(&frames->grow, PGS_RANK_NODES);
    if (error)
        goto no_grow;
    error = stripes_init(frames);
    if (error)
        goto no_stripes;
    atomic_init(&frames->next_frame, 0);
    frames->next_node = 0;
    frames->n_idle_nodes = 0;
    atomic_init(&frames->idle_frames, 0);
    atomic_init(&frames->cursor, 0);
    return 0;

no_stripes:
    pgs_mutex_fini(&frames->grow);
no_grow:
    pgs_slab_fini(&frames->idle_nodes);
no_idle:
    pgs_slab_fini(&frames->nodes);
no_nodes:
    pgs_slab_fini(&frames->frames);
    return error;
}

void pgs_frames_fini(struct pgs_frames *frames)
{
    if (!frames->frames.chunks)
        return;
    stripes_fini(frames, PGS_STRIPES);
    pgs_mutex_fini(&frames->grow);
    pgs_slab_fini(&frames->idle_nodes);
    pgs_slab_fini(&frames->nodes);
    pgs_slab_fini(&frames->frames);
}

uint32_t pgs_frames_end(struct pgs_frames *frames)
{
    /* the slab's chunk was published before (take_fresh) */
    return atomic_load_explicit(&frames->next_frame, memory_order_acquire);
}

/* Makes room for `n` records from `next` on. With `grow` locked. */
static int reserve(struct pgs_slab *slab, uint32_t next, uint32_t n)
{
    if ((uint64_t)next + n > slab->limit)
        return PGSHARE_ERR_FULL;
    while (atomic_load_explicit(&slab->size, memory_order_relaxed) <
           (uint64_t)next + n) {
        int error = pgs_slab_grow(slab);

        if (error)
            return error;
    }
    return 0;
}

static void set_live(struct pgs_frame *frame)
{
    assert(!(frame->flags & PGS_FRAME_LIVE));
    *frame = (struct pgs_frame){
        .head = PGS_NONE,
        .pending = 1,
        .flags = PGS_FRAME_LIVE,
    };
    assert(pgs_frame_is_valid(frame));
}

/* Consecutive records that were never used. */
static int take_fresh(struct pgs_frames *frames, uint32_t n, uint32_t *ret)
{
    uint32_t first;
    int error;

    pgs_mutex_lock(&frames->grow);
    first = atomic_load_explicit(&frames->next_frame, memory_order_relaxed);
    error = reserve(&frames->frames, first, n);
    if (!error)
        atomic_store_explicit(&frames->next_frame, first + n,
                              memory_order_release);
    pgs_mutex_unlock(&frames->grow);
    if (error)
        return error;
    for (uint32_t i = 0; i < n;) {
        struct pgs_stripe *stripe = pgs_stripe_of(frames, first + i);

        pgs_mutex_lock(&stripe->lock);
        do {
            set_live(pgs_frame_at(frames, first + i));
            ret[i] = first + i;
        } while (++i < n && pgs_stripe_of(frames, first + i) == stripe);
        pgs_mutex_unlock(&stripe->lock);
    }
    return 0;
}

/* Up to `n` used records of one stripe; answers how many. */
static uint32_t take_from_stripe(struct pgs_frames *frames,
                                 struct pgs_stripe *stripe, uint32_t n,
                                 uint32_t *ret)
{
    uint32_t taken = 0;

    pgs_mutex_lock(&stripe->lock);
    while (taken < n && stripe->free_frames != PGS_NONE) {
        uint32_t index = stripe->free_frames;
        struct pgs_frame *frame = pgs_frame_at(frames, index);

        assert(pgs_stripe_of(frames, index) == stripe);
        assert(stripe->n_free_frames > 0);
        stripe->free_frames = frame->head;
        if (stripe->n_free_frames-- % IDLE_STEP == 0)
            atomic_fetch_sub_explicit(&frames->idle_frames, IDLE_STEP,
                                      memory_order_relaxed);
        set_live(frame);
        ret[taken++] = index;
    }
    assert(stripe->n_free_frames > 0 || stripe->free_frames == PGS_NONE);
    pgs_mutex_unlock(&stripe->lock);
    return taken;
}

/* Up to `n` used records, stripe after stripe. */
static uint32_t take_used(struct pgs_frames *frames, uint32_t n, uint32_t *ret)
{
    uint32_t cursor = atomic_load_explicit(&frames->cursor,
                                           memory_order_relaxed);
    uint32_t taken = 0;

    for (uint32_t i = 0; i < PGS_STRIPES && taken < n; i++) {
        uint32_t stripe = (cursor + i) % PGS_STRIPES;

        taken += take_from_stripe(frames, &frames->stripe[stripe], n - taken,
                                  ret + taken);
        atomic_store_explicit(&frames->cursor, stripe, memory_order_relaxed);
    }
    assert(taken <= n);
    return taken;
}

/* As if they had never been taken. */
static void give_all(struct pgs_frames *frames, uint32_t n,
                     const uint32_t *taken)
{
    for (uint32_t i = 0; i < n; i++) {
        pgs_frame_lock(frames, taken[i]);
        pgs_frame_give(frames, taken[i]);
        pgs_frame_unlock(frames, taken[i]);
    }
}

int pgs_frames_take(struct pgs_frames *frames, uint32_t n, uint32_t *ret)
{
    uint32_t idle = atomic_load_explicit(&frames->idle_frames,
                                         memory_order_relaxed);
    uint32_t taken;
    int error;

    assert(n > 0 && ret != NULL);
    if (idle < n || idle < pgs_frames_end(frames) / 8) {
        if (take_fresh(frames, n, ret) == 0)
            return 0;
    }
    taken = take_used(frames, n, ret);
    if (taken == n)
        return 0;
    error = take_fresh(frames, n - taken, ret + taken);
    if (error)
        give_all(frames, taken, ret);
    return error;
}

void pgs_frame_give(struct pgs_frames *frames, uint32_t frame)
{
    struct pgs_stripe *stripe = pgs_stripe_of(frames, frame);
    struct pgs_frame *record = pgs_frame_at(frames, frame);

    assert(frame_is_sane(record));
    assert(record->mappings == 0 && record->pins == 0);
    assert(record->pending <= 1);
    *record = (struct pgs_frame){ .head = stripe->free_frames };
    stripe->free_frames = frame;
    if (++stripe->n_free_frames % IDLE_STEP == 0)
        atomic_fetch_add_explicit(&frames->idle_frames, IDLE_STEP,
                                  memory_order_relaxed);
}

bool pgs_frame_doom(struct pgs_frame *frame)
{
    assert(frame_is_sane(frame));
    if (frame->mappings || frame->pins || frame->pending ||
        (frame->flags & PGS_FRAME_DOOMED))
        return false;
    frame->flags |= PGS_FRAME_DOOMED;
    assert((frame->flags & PGS_FRAME_TAKING) || pgs_frame_is_valid(frame));
    return true;
}
