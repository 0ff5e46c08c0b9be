/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Completions that are kept for later: a queue of copies, in order of arrival.
 */
#ifndef PGS_DECORATOR_HELD_H
#define PGS_DECORATOR_HELD_H

#include <pgshare/sys/backend.h>

/* A completion and its arrays, in one block. */
struct pgs_held {
    struct pgs_held *next;
    uint64_t due_ns;
    uint64_t due_poll;
    struct pgshare_completion completion;
    uint64_t arrays[];
};

struct pgs_held_queue {
    struct pgs_held *first;
    struct pgs_held **last;
};

/* A copy, not yet in a queue; NULL: no memory. */
struct pgs_held *pgs_held_copy(const struct pgshare_completion *completion);
void pgs_held_put(struct pgs_held_queue *queue, struct pgs_held *held);
struct pgs_held *pgs_held_take(struct pgs_held_queue *queue);
void pgs_held_clear(struct pgs_held_queue *queue);

#endif
