/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The repayment FIFO of one domain: GFN ordinals in the order in which they
 * were pushed. A page's word (VOLATILE, payload) names its slot, so that a
 * withdrawal from the middle is O(1).
 *
 * Slots are linked into a list, oldest first, and a slot that is emptied is
 * used again. (A ring whose popping skips what was withdrawn would do with
 * fewer bytes, but a guest that leaves its oldest page in place and pushes and
 * withdraws others could make it grow without end.) The slots of a FIFO are
 * never more than twice the pages that it once held at the same time. Pushing
 * may need memory, nothing else does. The owner's domain lock protects it.
 */
#ifndef PGS_TABLES_FIFO_H
#define PGS_TABLES_FIFO_H

#include "base/alloc.h"

#include <stdbool.h>

struct pgs_fifo_slot {
    uint32_t page; /* ordinal, or PGS_PAGE_NONE: empty */
    uint32_t prev; /* older, or PGS_FIFO_END */
    uint32_t next; /* newer, or PGS_FIFO_END; empty: next empty slot */
};

#define PGS_FIFO_END UINT32_MAX

/* Invariants: used = length of the list from `oldest` to `newest` ≤ size;
 * slots at and above `fresh` were never used; empty slots below it are in the
 * list from `empty`: their number is fresh - used. */
struct pgs_fifo {
    struct pgs_heap *heap;
    struct pgs_fifo_slot *slots;
    uint64_t *stamps; /* of each push, for "oldest first" between domains */
    uint32_t size;
    uint32_t fresh;
    uint32_t empty;
    uint32_t oldest;
    uint32_t newest;
    uint64_t used;
};

void pgs_fifo_init(struct pgs_fifo *fifo, struct pgs_heap *heap);
void pgs_fifo_fini(struct pgs_fifo *fifo);
/* The invariants, as far as O(1) goes. */
bool pgs_fifo_is_valid(const struct pgs_fifo *fifo);
/* _NOMEM. *ret_slot is the slot that the page's word is to remember. */
int pgs_fifo_push(struct pgs_fifo *fifo, uint32_t page, uint64_t stamp,
                  uint32_t *ret_slot);
/* The oldest page and its stamp, left where it is; false: empty. */
bool pgs_fifo_oldest(const struct pgs_fifo *fifo, uint32_t *ret_page,
                     uint64_t *ret_stamp);
/* Is `page` in that slot? Any slot number may be asked about. */
bool pgs_fifo_has(const struct pgs_fifo *fifo, uint32_t slot, uint32_t page);
/* The slot holds a page. */
void pgs_fifo_remove(struct pgs_fifo *fifo, uint32_t slot);

#endif
