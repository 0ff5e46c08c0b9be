/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hint queue: bounded, many producers, one consumer, no lock. Each cell
 * has a turn counter that says whose it is (Vyukov's bounded MPMC queue, after
 * his description). A full queue refuses; the caller counts that.
 */
#ifndef PGS_TABLES_QUEUE_H
#define PGS_TABLES_QUEUE_H

#include "base/alloc.h"

#include <stdatomic.h>
#include <stdbool.h>

enum pgs_hint_kind {
    PGS_HINT_BLOCK = 1,
    PGS_HINT_FILE,
    PGS_HINT_SAME,
    PGS_HINT_LINEAGE,
    PGS_HINT_FREE /* the pages were declared free */
};

/* As given; handles are looked up when the hint is taken. */
struct pgs_hint {
    uint32_t kind;
    uint32_t count;
    uint64_t dom;
    uint64_t gfn;
    uint64_t object;   /* image, file, or the other domain */
    uint64_t position; /* block, file page, or the other GFN */
    uint64_t born_ns;
};

/* Position p stands in cell p & mask, in lap p & ~mask. Invariant: turn = the
 * lap whose producer may write, or that lap + 1: written, may be taken. */
struct pgs_cell {
    _Atomic uint64_t turn;
    struct pgs_hint hint;
};

struct pgs_queue {
    struct pgs_heap *heap;
    struct pgs_cell *cells;
    uint64_t mask;
    _Alignas(64) _Atomic uint64_t head; /* next to be written */
    _Alignas(64) _Atomic uint64_t tail; /* next to be read */
};

/* `size` is rounded up to a power of two, at least 2. _NOMEM. */
int pgs_queue_init(struct pgs_queue *queue, struct pgs_heap *heap,
                   uint64_t size);
void pgs_queue_fini(struct pgs_queue *queue);
/* Any thread. False: full. */
bool pgs_queue_put(struct pgs_queue *queue, const struct pgs_hint *hint);
/* The runner. False: empty. */
bool pgs_queue_take(struct pgs_queue *queue, struct pgs_hint *ret_hint);

#endif
