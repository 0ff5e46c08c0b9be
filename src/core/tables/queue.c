/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hint queue. Producers are guests' I/O paths, which must never wait for
 * anybody: a producer claims the position `head` by compare-and-swap, writes
 * its cell, and hands it over by the cell's turn. A cell that was claimed and
 * not yet written stops the consumer there, not the other producers.
 *
 * Laps are multiples of the queue's size, so that a queue of zeroes is a queue
 * in which lap 0 may be written: nothing is touched before it is used.
 */
#include "tables/queue.h"

#include <pgshare/error.h>

#include <assert.h>

/* A lap and the lap after it must differ by more than the "written" 1. */
#define LEAST_CELLS UINT64_C(2)
#define MOST_CELLS (UINT64_C(1) << 32)

int pgs_queue_init(struct pgs_queue *queue, struct pgs_heap *heap,
                   uint64_t size)
{
    uint64_t cells = LEAST_CELLS;

    assert(heap != NULL);
    if (size > MOST_CELLS)
        return PGSHARE_ERR_NOMEM;
    while (cells < size)
        cells *= 2;
    queue->heap = heap;
    queue->mask = cells - 1;
    atomic_init(&queue->head, 0);
    atomic_init(&queue->tail, 0);
    queue->cells = PGS_NEW_N(heap, struct pgs_cell, (size_t)cells);
    return queue->cells ? 0 : PGSHARE_ERR_NOMEM;
}

void pgs_queue_fini(struct pgs_queue *queue)
{
    if (!queue->cells)
        return;
    PGS_FREE_N(queue->heap, queue->cells, (size_t)queue->mask + 1);
    queue->cells = NULL;
}

bool pgs_queue_put(struct pgs_queue *queue, const struct pgs_hint *hint)
{
    uint64_t at = atomic_load_explicit(&queue->head, memory_order_relaxed);
    struct pgs_cell *cell;

    for (;;) {
        uint64_t lap = at & ~queue->mask;
        uint64_t turn;

        cell = &queue->cells[at & queue->mask];
        turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        if (turn == lap) {
            if (atomic_compare_exchange_weak_explicit(
                    &queue->head, &at, at + 1, memory_order_relaxed,
                    memory_order_relaxed))
                break;
        } else if ((int64_t)(turn - lap) < 0) {
            return false; /* the lap before has not been taken */
        } else {
            at = atomic_load_explicit(&queue->head, memory_order_relaxed);
        }
    }
    cell->hint = *hint;
    atomic_store_explicit(&cell->turn, (at & ~queue->mask) + 1,
                          memory_order_release);
    return true;
}

bool pgs_queue_take(struct pgs_queue *queue, struct pgs_hint *ret_hint)
{
    uint64_t at = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    struct pgs_cell *cell = &queue->cells[at & queue->mask];
    uint64_t lap = at & ~queue->mask;
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);

    assert(turn == lap || turn == lap + 1);
    if (turn != lap + 1)
        return false;
    *ret_hint = cell->hint;
    atomic_store_explicit(&cell->turn, lap + queue->mask + 1,
                          memory_order_release);
    atomic_store_explicit(&queue->tail, at + 1, memory_order_relaxed);
    return true;
}
