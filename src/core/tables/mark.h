/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks: what is known of a page that is protected but not shared. Records are
 * named by the word of their GFN; their number is limited, since pages left
 * protected have a budget of their own. A record is read and written by the
 * holder of its GFN's BUSY bit; taking and giving is thread-safe.
 */
#ifndef PGS_TABLES_MARK_H
#define PGS_TABLES_MARK_H

#include "base/lock.h"
#include "base/slab.h"

struct pgs_mark {
    uint64_t ticket;
    uint64_t own_id; /* what the backend's PROTECT answered */
    uint32_t page;   /* ordinal; free: PGS_PAGE_NONE */
    uint32_t next;   /* free list */
};

/* Invariant: used ≤ limit; used = taken records ≤ next ≤ slab.size. */
struct pgs_marks {
    struct pgs_slab slab;
    struct pgs_mutex lock; /* free list, counts */
    uint32_t free;
    uint32_t next;         /* records at and above were never used */
    uint64_t used;
    uint64_t limit;        /* of `used` */
};

int pgs_marks_init(struct pgs_marks *marks, struct pgs_heap *heap,
                   uint64_t limit);
void pgs_marks_fini(struct pgs_marks *marks);
/* The invariant of the counts, in O(1). With the lock. */
bool pgs_marks_is_valid(const struct pgs_marks *marks);
/* Takes `n` records, all or none: _NOMEM, _FULL (the limit). They are zero,
 * but for `page`, which is PGS_PAGE_NONE until the caller sets it. */
int pgs_marks_take(struct pgs_marks *marks, uint32_t n, uint32_t *ret);
void pgs_marks_give(struct pgs_marks *marks, uint32_t n, const uint32_t *mark);

static inline struct pgs_mark *pgs_mark_at(const struct pgs_marks *marks,
                                           uint32_t mark)
{
    return pgs_slab_at(&marks->slab, mark);
}

#endif
