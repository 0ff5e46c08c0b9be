/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The side table of held pages: open addressing with linear probing, doubled
 * when three quarters are in use. Deleting shifts the entries behind the gap
 * back instead of leaving a tombstone, so that a table through which millions
 * of I/O requests have passed is as quick as a new one, and a put never needs
 * memory. A guest can choose which of its pages are held, but not where they
 * fall in a table whose hash has a secret.
 */
#include "tables/hold.h"

#include "base/mix.h"
#include "base/slab.h"
#include "tables/gfn.h"

#include <pgshare/error.h>

#define FIRST_SLOTS 64u

bool pgs_holds_is_valid(const struct pgs_holds *holds)
{
    uint64_t size = holds->slots ? (uint64_t)holds->mask + 1 : 0;

    return (size & (size - 1)) == 0 &&
           (uint64_t)holds->used * 4 <= size * 3;
}

int pgs_holds_init(struct pgs_holds *holds, struct pgs_heap *heap,
                   uint64_t secret)
{
    assert(heap != NULL);
    holds->heap = heap;
    holds->slots = NULL;
    holds->secret = secret;
    holds->mask = 0;
    holds->used = 0;
    return pgs_mutex_init(&holds->lock, PGS_RANK_HOLDS);
}

void pgs_holds_fini(struct pgs_holds *holds)
{
    assert(pgs_holds_is_valid(holds));
    if (holds->slots)
        PGS_FREE_N(holds->heap, holds->slots, (size_t)holds->mask + 1);
    holds->slots = NULL;
    pgs_mutex_fini(&holds->lock);
}

static uint32_t home_of(const struct pgs_holds *holds, uint32_t page)
{
    return (uint32_t)pgs_mix(page ^ holds->secret) & holds->mask;
}

/* The page's slot, or the empty one that ends its probe. */
static struct pgs_hold *probe(struct pgs_holds *holds, uint32_t page)
{
    uint32_t i = home_of(holds, page);

    while (holds->slots[i].page != page &&
           holds->slots[i].page != PGS_PAGE_NONE)
        i = (i + 1) & holds->mask;
    return &holds->slots[i];
}

struct pgs_hold *pgs_holds_find(struct pgs_holds *holds, uint32_t page)
{
    struct pgs_hold *hold;

    assert(page != PGS_PAGE_NONE);
    assert(pgs_holds_is_valid(holds));
    if (!holds->slots)
        return NULL;
    hold = probe(holds, page);
    return hold->page == page ? hold : NULL;
}

static int grow(struct pgs_holds *holds)
{
    uint32_t old_size = holds->slots ? holds->mask + 1 : 0;
    uint32_t new_size = old_size ? old_size * 2 : FIRST_SLOTS;
    struct pgs_hold *old = holds->slots;
    struct pgs_hold *slots;

    if (new_size < old_size)
        return PGSHARE_ERR_NOMEM;
    slots = PGS_NEW_N(holds->heap, struct pgs_hold, new_size);
    if (!slots)
        return PGSHARE_ERR_NOMEM;
    for (uint32_t i = 0; i < new_size; i++)
        slots[i].page = PGS_PAGE_NONE;
    holds->slots = slots;
    holds->mask = new_size - 1;
    for (uint32_t i = 0; i < old_size; i++) {
        if (old[i].page != PGS_PAGE_NONE)
            *probe(holds, old[i].page) = old[i];
    }
    if (old)
        PGS_FREE_N(holds->heap, old, old_size);
    return 0;
}

static bool has_room(const struct pgs_holds *holds)
{
    return holds->slots &&
           ((uint64_t)holds->used + 1) * 4 <= ((uint64_t)holds->mask + 1) * 3;
}

struct pgs_hold *pgs_holds_add(struct pgs_holds *holds, uint32_t page)
{
    struct pgs_hold *hold = pgs_holds_find(holds, page);

    if (hold)
        return hold;
    if (!has_room(holds) && grow(holds) != 0)
        return NULL;
    hold = probe(holds, page);
    assert(hold->page == PGS_PAGE_NONE);
    *hold = (struct pgs_hold){ .page = page, .frame = PGS_NONE };
    holds->used++;
    assert(pgs_holds_is_valid(holds));
    return hold;
}

void pgs_holds_drop(struct pgs_holds *holds, struct pgs_hold *hold)
{
    uint32_t gap = (uint32_t)(hold - holds->slots);
    uint32_t i = gap;

    assert(gap <= holds->mask && hold->page != PGS_PAGE_NONE);
    assert(holds->used > 0);
    for (;;) {
        uint32_t home;

        i = (i + 1) & holds->mask;
        if (holds->slots[i].page == PGS_PAGE_NONE)
            break;
        /* May it move back to the gap: is the gap on its way from home? */
        home = home_of(holds, holds->slots[i].page);
        if (((i - home) & holds->mask) >= ((i - gap) & holds->mask)) {
            holds->slots[gap] = holds->slots[i];
            gap = i;
        }
    }
    holds->slots[gap] = (struct pgs_hold){ .page = PGS_PAGE_NONE };
    holds->used--;
    assert(pgs_holds_is_valid(holds));
}
