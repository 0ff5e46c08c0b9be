/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A completion's memory is its sender's and is void when the sink returns, so
 * that whoever keeps one keeps a copy.
 */
#include "held.h"

#include <stdlib.h>
#include <string.h>

struct pgs_held *pgs_held_copy(const struct pgshare_completion *completion)
{
    size_t count = completion->count;
    size_t ids = completion->ids ? count : 0;
    struct pgs_held *held = malloc(sizeof(*held) + ids * sizeof(uint64_t) +
                                   count);

    if (!held)
        return NULL;
    held->next = NULL;
    held->due_ns = 0;
    held->due_poll = 0;
    held->completion = *completion;
    if (ids)
        held->completion.ids = memcpy(held->arrays, completion->ids,
                                      ids * sizeof(uint64_t));
    if (completion->status)
        held->completion.status = memcpy(held->arrays + ids, completion->status,
                                         count);
    return held;
}

void pgs_held_put(struct pgs_held_queue *queue, struct pgs_held *held)
{
    if (!queue->first)
        queue->last = &queue->first;
    *queue->last = held;
    queue->last = &held->next;
}

struct pgs_held *pgs_held_take(struct pgs_held_queue *queue)
{
    struct pgs_held *held = queue->first;

    if (held) {
        queue->first = held->next;
        held->next = NULL;
    }
    return held;
}

void pgs_held_clear(struct pgs_held_queue *queue)
{
    struct pgs_held *held;

    while ((held = pgs_held_take(queue)))
        free(held);
}
