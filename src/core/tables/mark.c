/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of protected pages. They come and go with every share, many at a
 * time, so they are taken and given in batches under one lock; their content
 * belongs to whoever holds the page's BUSY bit and needs no lock at all.
 */
#include "tables/mark.h"

#include "tables/gfn.h"

#include <pgshare/error.h>

#define MARKS_PER_CHUNK_SHIFT 12
#define MARKS_PER_CHUNK (UINT64_C(1) << MARKS_PER_CHUNK_SHIFT)
#define MARKS_MAX ((UINT64_C(1) << 32) - MARKS_PER_CHUNK)

static_assert(sizeof(struct pgs_mark) <= 32, "budget of a protected page");

bool pgs_marks_is_valid(const struct pgs_marks *marks)
{
    return marks->used <= marks->limit && marks->used <= marks->next &&
           marks->next <= atomic_load_explicit(&marks->slab.size,
                                               memory_order_relaxed) &&
           (marks->free == PGS_NONE) == (marks->used == marks->next);
}

int pgs_marks_init(struct pgs_marks *marks, struct pgs_heap *heap,
                   uint64_t limit)
{
    uint64_t room;
    int error;

    if (limit > MARKS_MAX)
        limit = MARKS_MAX;
    room = (limit + MARKS_PER_CHUNK - 1) & ~(MARKS_PER_CHUNK - 1);
    error = pgs_slab_init(&marks->slab, heap, sizeof(struct pgs_mark),
                          MARKS_PER_CHUNK_SHIFT,
                          room ? room : MARKS_PER_CHUNK);
    if (error)
        return error;
    error = pgs_mutex_init(&marks->lock, PGS_RANK_MARKS);
    if (error) {
        pgs_slab_fini(&marks->slab);
        return error;
    }
    marks->free = PGS_NONE;
    marks->next = 0;
    marks->used = 0;
    marks->limit = limit;
    assert(pgs_marks_is_valid(marks));
    return 0;
}

void pgs_marks_fini(struct pgs_marks *marks)
{
    if (!marks->slab.chunks)
        return;
    assert(pgs_marks_is_valid(marks));
    pgs_mutex_fini(&marks->lock);
    pgs_slab_fini(&marks->slab);
}

/* Makes sure that `n` records can be had. With the lock. */
static int reserve(struct pgs_marks *marks, uint32_t n)
{
    uint64_t end = marks->used + n; /* free ones are below `next` */

    if (n > marks->limit - marks->used)
        return PGSHARE_ERR_FULL;
    while (atomic_load_explicit(&marks->slab.size, memory_order_relaxed) <
           end) {
        int error = pgs_slab_grow(&marks->slab);

        if (error)
            return error;
    }
    return 0;
}

static uint32_t take_one(struct pgs_marks *marks)
{
    uint32_t index = marks->free;

    if (index == PGS_NONE) {
        index = marks->next++;
    } else {
        assert(pgs_mark_at(marks, index)->page == PGS_PAGE_NONE);
        marks->free = pgs_mark_at(marks, index)->next;
    }
    *pgs_mark_at(marks, index) = (struct pgs_mark){ .page = PGS_PAGE_NONE };
    marks->used++;
    return index;
}

int pgs_marks_take(struct pgs_marks *marks, uint32_t n, uint32_t *ret)
{
    int error;

    pgs_mutex_lock(&marks->lock);
    assert(pgs_marks_is_valid(marks));
    error = reserve(marks, n);
    for (uint32_t i = 0; !error && i < n; i++)
        ret[i] = take_one(marks);
    assert(pgs_marks_is_valid(marks));
    pgs_mutex_unlock(&marks->lock);
    return error;
}

void pgs_marks_give(struct pgs_marks *marks, uint32_t n, const uint32_t *mark)
{
    pgs_mutex_lock(&marks->lock);
    assert(pgs_marks_is_valid(marks));
    assert(marks->used >= n);
    for (uint32_t i = 0; i < n; i++) {
        assert(mark[i] < marks->next);
        *pgs_mark_at(marks, mark[i]) = (struct pgs_mark){
            .page = PGS_PAGE_NONE,
            .next = marks->free,
        };
        marks->free = mark[i];
        marks->used--;
    }
    assert(pgs_marks_is_valid(marks));
    pgs_mutex_unlock(&marks->lock);
}
