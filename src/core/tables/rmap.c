/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reverse maps: the nodes that link a frame to the GFNs that map it, and the
 * stocks of free nodes (see frame.c for the whole).
 *
 * A stock is a stack of numbers, and not a list through the free nodes: these
 * have mostly left the cache, and a list of them costs a miss at every step,
 * one after the other, where an extent is linked that takes a thousand. Each
 * stripe has a stack of two batches at the most; the host's has room for all.
 * A stripe that links and unlinks in turn never meets the host's lock, and one
 * that only unlinks meets it once in PGS_NODE_BATCH times.
 */
#include "tables/frame.h"

#include <pgshare/error.h>

#include <string.h>

static uint32_t *idle_at(const struct pgs_frames *frames, uint32_t i)
{
    return pgs_slab_at(&frames->idle_nodes, i);
}

/* The stripe's older batch goes to the host's stock. */
static void return_batch(struct pgs_frames *frames, struct pgs_stripe *stripe)
{
    assert(stripe->n_free_nodes >= PGS_NODE_BATCH);
    pgs_mutex_lock(&frames->grow);
    for (uint32_t i = 0; i < PGS_NODE_BATCH; i++)
        *idle_at(frames, frames->n_idle_nodes++) = stripe->free_nodes[i];
    pgs_mutex_unlock(&frames->grow);
    stripe->n_free_nodes -= PGS_NODE_BATCH;
    memmove(stripe->free_nodes, stripe->free_nodes + PGS_NODE_BATCH,
            stripe->n_free_nodes * sizeof(*stripe->free_nodes));
}

/* A batch of the host's stock, or what there is, in its order. `grow` locked. */
static void fetch_batch(struct pgs_frames *frames, struct pgs_stripe *stripe)
{
    uint32_t n = frames->n_idle_nodes;

    if (n > PGS_NODE_BATCH)
        n = PGS_NODE_BATCH;
    frames->n_idle_nodes -= n;
    for (uint32_t i = 0; i < n; i++)
        stripe->free_nodes[stripe->n_free_nodes++] =
            *idle_at(frames, frames->n_idle_nodes + i);
}

/* More nodes, and before that the room for their numbers. `grow` locked. */
static int grow(struct pgs_frames *frames)
{
    uint64_t nodes = atomic_load_explicit(&frames->nodes.size,
                                          memory_order_relaxed);
    int error = 0;

    if (atomic_load_explicit(&frames->idle_nodes.size,
                             memory_order_relaxed) <= nodes)
        error = pgs_slab_grow(&frames->idle_nodes);
    return error ? error : pgs_slab_grow(&frames->nodes);
}

/* Nodes that were never used, up to `n` in the stripe. `grow` locked. */
static int stock_fresh(struct pgs_frames *frames, struct pgs_stripe *stripe,
                       uint32_t n)
{
    while (stripe->n_free_nodes < n) {
        uint64_t size = atomic_load_explicit(&frames->nodes.size,
                                             memory_order_relaxed);
        int error = frames->next_node == size ? grow(frames) : 0;
        uint32_t node = frames->next_node;

        if (error)
            return error;
        __atomic_store_n(&pgs_node_at(frames, node)->frame, PGS_NONE,
                         __ATOMIC_RELAXED);
        stripe->free_nodes[stripe->n_free_nodes++] = node;
        frames->next_node++;
    }
    return 0;
}

static int refill(struct pgs_frames *frames, struct pgs_stripe *stripe,
                  uint32_t n)
{
    int error;

    pgs_mutex_lock(&frames->grow);
    fetch_batch(frames, stripe);
    error = stock_fresh(frames, stripe, n);
    pgs_mutex_unlock(&frames->grow);
    assert(error || stripe->n_free_nodes >= n);
    return error;
}

int pgs_nodes_stock(struct pgs_frames *frames, struct pgs_stripe *stripe,
                    uint32_t n)
{
    int error = stripe->n_free_nodes < n ? refill(frames, stripe, n) : 0;

    assert(n <= PGS_NODE_BATCH);
    /* they are about to be written, and are hardly ever in the cache */
    for (uint32_t i = 1; !error && i <= n; i++)
        __builtin_prefetch(
            pgs_node_at(frames,
                        stripe->free_nodes[stripe->n_free_nodes - i]), 1);
    return error;
}

static void push_node(struct pgs_frames *frames, struct pgs_stripe *stripe,
                      uint32_t node)
{
    __atomic_store_n(&pgs_node_at(frames, node)->frame, PGS_NONE,
                     __ATOMIC_RELAXED);
    if (stripe->n_free_nodes == 2 * PGS_NODE_BATCH)
        return_batch(frames, stripe);
    stripe->free_nodes[stripe->n_free_nodes++] = node;
}

static uint32_t pop_node(struct pgs_stripe *stripe)
{
    assert(stripe->n_free_nodes > 0);
    return stripe->free_nodes[--stripe->n_free_nodes];
}

uint32_t pgs_rmap_link(struct pgs_frames *frames, uint32_t frame,
                       uint32_t page)
{
    struct pgs_frame *record = pgs_frame_at(frames, frame);
    uint32_t index = pop_node(pgs_stripe_of(frames, frame));
    struct pgs_node *node = pgs_node_at(frames, index);

    assert(record->flags & PGS_FRAME_LIVE);
    assert(!(record->flags & (PGS_FRAME_TAKING | PGS_FRAME_DOOMED)));
    __atomic_store_n(&node->frame, frame, __ATOMIC_RELAXED);
    node->page = page;
    node->prev = PGS_NONE;
    node->next = record->head;
    if (record->head != PGS_NONE) {
        assert(pgs_node_at(frames, record->head)->prev == PGS_NONE);
        pgs_node_at(frames, record->head)->prev = index;
    }
    record->head = index;
    __atomic_store_n(&record->mappings, record->mappings + 1, __ATOMIC_RELAXED);
    assert(pgs_frame_is_valid(record));
    return index;
}

uint32_t pgs_rmap_unlink(struct pgs_frames *frames, uint32_t node)
{
    struct pgs_node *gone = pgs_node_at(frames, node);
    uint32_t frame = gone->frame;
    struct pgs_frame *record = pgs_frame_at(frames, frame);

    assert(record->flags & PGS_FRAME_LIVE);
    assert(record->mappings > 0);
    if (gone->prev == PGS_NONE) {
        assert(record->head == node);
        record->head = gone->next;
    } else {
        assert(pgs_node_at(frames, gone->prev)->next == node);
        pgs_node_at(frames, gone->prev)->next = gone->next;
    }
    if (gone->next != PGS_NONE) {
        assert(pgs_node_at(frames, gone->next)->prev == node);
        pgs_node_at(frames, gone->next)->prev = gone->prev;
    }
    __atomic_store_n(&record->mappings, record->mappings - 1, __ATOMIC_RELAXED);
    assert((record->mappings == 0) == (record->head == PGS_NONE));
    push_node(frames, pgs_stripe_of(frames, frame), node);
    return record->mappings;
}

uint32_t pgs_node_lock(struct pgs_frames *frames, uint32_t node)
{
    for (;;) {
        uint32_t frame = pgs_node_frame(frames, node);

        pgs_frame_lock(frames, frame);
        if (pgs_node_frame(frames, node) == frame)
            return frame;
        pgs_frame_unlock(frames, frame);
    }
}

/* Both stripes, in ascending order. */
static void lock_both(struct pgs_stripe *a, struct pgs_stripe *b)
{
    if (a != b)
        pgs_mutex_lock(a < b ? &a->lock : &b->lock);
    pgs_mutex_lock(a < b ? &b->lock : &a->lock);
}

uint32_t pgs_rmap_move(struct pgs_frames *frames, uint32_t from, uint32_t to)
{
    struct pgs_stripe *a = pgs_stripe_of(frames, from);
    struct pgs_stripe *b = pgs_stripe_of(frames, to);
    struct pgs_frame *source = pgs_frame_at(frames, from);
    struct pgs_frame *target = pgs_frame_at(frames, to);
    uint32_t moved, last = PGS_NONE;

    assert(from != to);
    lock_both(a, b);
    assert(pgs_frame_is_valid(source) && pgs_frame_is_valid(target));
    assert(!((source->flags | target->flags) & PGS_FRAME_TAKING));
    assert(source->mappings == 0 || !(target->flags & PGS_FRAME_DOOMED));
    for (uint32_t n = source->head; n != PGS_NONE;
         n = pgs_node_at(frames, n)->next) {
        __atomic_store_n(&pgs_node_at(frames, n)->frame, to,
                         __ATOMIC_RELAXED);
        last = n;
    }
    moved = source->mappings;
    if (last != PGS_NONE) {
        pgs_node_at(frames, last)->next = target->head;
        if (target->head != PGS_NONE)
            pgs_node_at(frames, target->head)->prev = last;
        target->head = source->head;
        __atomic_store_n(&target->mappings, target->mappings + moved,
                         __ATOMIC_RELAXED);
        source->head = PGS_NONE;
        __atomic_store_n(&source->mappings, 0, __ATOMIC_RELAXED);
    }
    assert((target->mappings == 0) == (target->head == PGS_NONE));
    if (a != b)
        pgs_mutex_unlock(&a->lock);
    pgs_mutex_unlock(&b->lock);
    return moved;
}
