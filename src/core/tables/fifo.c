/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The volatile pages of one domain in the order of their pushes: a doubly
 * linked list over an array of slots. The array doubles when it is full, which
 * leaves every slot its number, since the pages' words name them. A guest
 * drives all of this; the most that it can make it cost is in proportion to
 * the pages that it has in here.
 */
#include "tables/fifo.h"

#include "tables/gfn.h"

#include <pgshare/error.h>

#include <assert.h>
#include <string.h>

#define FIRST_SLOTS 32u
/* An array above this is not kept when the FIFO runs empty. */
#define KEPT_SLOTS 4096u

bool pgs_fifo_is_valid(const struct pgs_fifo *fifo)
{
    return (fifo->slots == NULL) == (fifo->size == 0) &&
           (fifo->slots == NULL) == (fifo->stamps == NULL) &&
           fifo->used <= fifo->fresh && fifo->fresh <= fifo->size &&
           (fifo->used == 0) == (fifo->oldest == PGS_FIFO_END) &&
           (fifo->used == 0) == (fifo->newest == PGS_FIFO_END) &&
           (fifo->used == fifo->fresh) == (fifo->empty == PGS_FIFO_END);
}

static void make_empty(struct pgs_fifo *fifo)
{
    fifo->slots = NULL;
    fifo->stamps = NULL;
    fifo->size = 0;
    fifo->fresh = 0;
    fifo->empty = PGS_FIFO_END;
    fifo->oldest = PGS_FIFO_END;
    fifo->newest = PGS_FIFO_END;
    fifo->used = 0;
    assert(pgs_fifo_is_valid(fifo));
}

void pgs_fifo_init(struct pgs_fifo *fifo, struct pgs_heap *heap)
{
    assert(heap != NULL);
    fifo->heap = heap;
    make_empty(fifo);
}

void pgs_fifo_fini(struct pgs_fifo *fifo)
{
    assert(pgs_fifo_is_valid(fifo));
    if (fifo->size > 0) {
        PGS_FREE_N(fifo->heap, fifo->slots, fifo->size);
        PGS_FREE_N(fifo->heap, fifo->stamps, fifo->size);
    }
    make_empty(fifo);
}

static int grow(struct pgs_fifo *fifo)
{
    uint32_t size = fifo->size ? fifo->size * 2 : FIRST_SLOTS;
    struct pgs_fifo_slot *slots;
    uint64_t *stamps;

    if (size < fifo->size)
        return PGSHARE_ERR_NOMEM;
    slots = PGS_NEW_N(fifo->heap, struct pgs_fifo_slot, size);
    if (!slots)
        return PGSHARE_ERR_NOMEM;
    stamps = PGS_NEW_N(fifo->heap, uint64_t, size);
    if (!stamps) {
        PGS_FREE_N(fifo->heap, slots, size);
        return PGSHARE_ERR_NOMEM;
    }
    if (fifo->size > 0) {
        memcpy(slots, fifo->slots, fifo->size * sizeof(*slots));
        memcpy(stamps, fifo->stamps, fifo->size * sizeof(*stamps));
        PGS_FREE_N(fifo->heap, fifo->slots, fifo->size);
        PGS_FREE_N(fifo->heap, fifo->stamps, fifo->size);
    }
    fifo->slots = slots;
    fifo->stamps = stamps;
    fifo->size = size;
    return 0;
}

static uint32_t take_slot(struct pgs_fifo *fifo)
{
    uint32_t slot = fifo->empty;

    if (slot == PGS_FIFO_END) {
        assert(fifo->fresh < fifo->size);
        return fifo->fresh++;
    }
    assert(slot < fifo->fresh && fifo->slots[slot].page == PGS_PAGE_NONE);
    fifo->empty = fifo->slots[slot].next;
    return slot;
}

int pgs_fifo_push(struct pgs_fifo *fifo, uint32_t page, uint64_t stamp,
                  uint32_t *ret_slot)
{
    uint32_t slot;

    assert(pgs_fifo_is_valid(fifo));
    assert(page != PGS_PAGE_NONE);
    if (fifo->used == fifo->size) {
        int error = grow(fifo);

        if (error)
            return error;
    }
    slot = take_slot(fifo);
    fifo->slots[slot] = (struct pgs_fifo_slot){
        .page = page,
        .prev = fifo->newest,
        .next = PGS_FIFO_END,
    };
    fifo->stamps[slot] = stamp;
    if (fifo->newest != PGS_FIFO_END)
        fifo->slots[fifo->newest].next = slot;
    else
        fifo->oldest = slot;
    fifo->newest = slot;
    fifo->used++;
    assert(pgs_fifo_is_valid(fifo));
    *ret_slot = slot;
    return 0;
}

bool pgs_fifo_oldest(const struct pgs_fifo *fifo, uint32_t *ret_page,
                     uint64_t *ret_stamp)
{
    assert(pgs_fifo_is_valid(fifo));
    if (fifo->used == 0)
        return false;
    assert(fifo->slots[fifo->oldest].page != PGS_PAGE_NONE);
    *ret_page = fifo->slots[fifo->oldest].page;
    *ret_stamp = fifo->stamps[fifo->oldest];
    return true;
}

bool pgs_fifo_has(const struct pgs_fifo *fifo, uint32_t slot, uint32_t page)
{
    return page != PGS_PAGE_NONE && slot < fifo->fresh &&
           fifo->slots[slot].page == page;
}

static void unlink_slot(struct pgs_fifo *fifo, const struct pgs_fifo_slot *gone)
{
    if (gone->prev != PGS_FIFO_END)
        fifo->slots[gone->prev].next = gone->next;
    else
        fifo->oldest = gone->next;
    if (gone->next != PGS_FIFO_END)
        fifo->slots[gone->next].prev = gone->prev;
    else
        fifo->newest = gone->prev;
}

void pgs_fifo_remove(struct pgs_fifo *fifo, uint32_t slot)
{
    assert(pgs_fifo_is_valid(fifo));
    assert(slot < fifo->fresh && fifo->slots[slot].page != PGS_PAGE_NONE);
    unlink_slot(fifo, &fifo->slots[slot]);
    fifo->slots[slot] = (struct pgs_fifo_slot){
        .page = PGS_PAGE_NONE,
        .prev = PGS_FIFO_END,
        .next = fifo->empty,
    };
    fifo->empty = slot;
    fifo->used--;
    if (fifo->used == 0 && fifo->size > KEPT_SLOTS)
        pgs_fifo_fini(fifo);
    assert(pgs_fifo_is_valid(fifo));
}
