/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reverse maps: the nodes that link a frame to the GFNs that map it, and the
 * stocks of free nodes (see frame.c for the whole).
 *
 *     host's stock     batch → batch → batch        by `prev` of the first
 *                        ↓       ↓       ↓
 *                      node    node    node          by `next`
 *
 *     stripe's stock   free_nodes (being filled and emptied), and at most one
 *                      batch set aside
 *
 * With one batch aside a stripe that links and unlinks in turn never meets the
 * host's lock, and one that only unlinks meets it once in PGS_NODE_BATCH
 * times.
 */
#include "tables/frame.h"

#include <pgshare/error.h>

/* The list of loose nodes becomes the batch that is set aside. */
static void set_batch_aside(struct pgs_frames *frames,
                            struct pgs_stripe *stripe)
{
    struct pgs_node *first = pgs_node_at(frames, stripe->free_nodes);

    assert(stripe->node_batch == PGS_NONE);
    assert(stripe->n_free_nodes > 0);
    first->prev = PGS_NONE;
    first->page = stripe->n_free_nodes;
    stripe->node_batch = stripe->free_nodes;
    stripe->free_nodes = PGS_NONE;
    stripe->n_free_nodes = 0;
}

/* The batch's nodes join the loose ones, which are walked: they are few. */
static void merge_batch(struct pgs_frames *frames, struct pgs_stripe *stripe,
                        uint32_t batch)
{
    uint32_t n = pgs_node_at(frames, batch)->page;
    uint32_t *end = &stripe->free_nodes;

    assert(n > 0);
    while (*end != PGS_NONE)
        end = &pgs_node_at(frames, *end)->next;
    *end = batch;
    stripe->n_free_nodes += n;
}

/* The batch aside goes to the host's stock. */
static void return_batch(struct pgs_frames *frames, struct pgs_stripe *stripe)
{
    struct pgs_node *first = pgs_node_at(frames, stripe->node_batch);

    assert(first->page > 0);
    pgs_mutex_lock(&frames->grow);
    first->prev = frames->node_batches;
    frames->node_batches = stripe->node_batch;
    pgs_mutex_unlock(&frames->grow);
    stripe->node_batch = PGS_NONE;
}

/* Nodes that were never used, one by one into the loose ones. `grow` locked. */
static int stock_fresh(struct pgs_frames *frames, struct pgs_stripe *stripe,
                       uint32_t n)
{
    while (stripe->n_free_nodes < n) {
        uint64_t size = atomic_load_explicit(&frames->nodes.size,
                                             memory_order_relaxed);
        struct pgs_node *node;

        if (frames->next_node == size) {
            int error = pgs_slab_grow(&frames->nodes);

            if (error)
                return error;
        }
        node = pgs_node_at(frames, frames->next_node);
        __atomic_store_n(&node->frame, PGS_NONE, __ATOMIC_RELAXED);
        node->next = stripe->free_nodes;
        stripe->free_nodes = frames->next_node++;
        stripe->n_free_nodes++;
    }
    return 0;
}

int pgs_nodes_stock(struct pgs_frames *frames, struct pgs_stripe *stripe,
                    uint32_t n)
{
    int error = 0;

    if (stripe->n_free_nodes >= n)
        return 0;
    if (stripe->node_batch != PGS_NONE) {
        merge_batch(frames, stripe, stripe->node_batch);
        stripe->node_batch = PGS_NONE;
    }
    if (stripe->n_free_nodes >= n)
        return 0;
    pgs_mutex_lock(&frames->grow);
    while (stripe->n_free_nodes < n && frames->node_batches != PGS_NONE) {
        uint32_t batch = frames->node_batches;

        frames->node_batches = pgs_node_at(frames, batch)->prev;
        merge_batch(frames, stripe, batch);
    }
    error = stock_fresh(frames, stripe, n);
    pgs_mutex_unlock(&frames->grow);
    assert(error || stripe->n_free_nodes >= n);
    return error;
}

static uint32_t pop_node(struct pgs_frames *frames, struct pgs_stripe *stripe)
{
    uint32_t index;

    if (stripe->free_nodes == PGS_NONE) {
        assert(stripe->node_batch != PGS_NONE);
        merge_batch(frames, stripe, stripe->node_batch);
        stripe->node_batch = PGS_NONE;
    }
    index = stripe->free_nodes;
    assert(index != PGS_NONE && stripe->n_free_nodes > 0);
    stripe->free_nodes = pgs_node_at(frames, index)->next;
    stripe->n_free_nodes--;
    return index;
}

static void push_node(struct pgs_frames *frames, struct pgs_stripe *stripe,
                      uint32_t index)
{
    struct pgs_node *node = pgs_node_at(frames, index);

    __atomic_store_n(&node->frame, PGS_NONE, __ATOMIC_RELAXED);
    node->next = stripe->free_nodes;
    stripe->free_nodes = index;
    if (++stripe->n_free_nodes < PGS_NODE_BATCH)
        return;
    if (stripe->node_batch != PGS_NONE)
        return_batch(frames, stripe);
    set_batch_aside(frames, stripe);
}

uint32_t pgs_rmap_link(struct pgs_frames *frames, uint32_t frame,
                       uint32_t page)
{
    struct pgs_frame *record = pgs_frame_at(frames, frame);
    uint32_t index = pop_node(frames, pgs_stripe_of(frames, frame));
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
