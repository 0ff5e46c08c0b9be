/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Floors: memory that is kept whole.
 *
 * A guest's memory is mapped in huge pages where it lies in one piece; each
 * page that is shared takes such a piece apart. Where that would cost more than
 * it gains, the embedder sets a floor: within these regions of 2 MiB no page is
 * shared but as part of an aligned block of 2^order pages that is shared whole.
 * A domain has a byte for each of its regions from when the first floor is set.
 * Pages that no candidate could have because of it are known and not looked at
 * again, until a floor is set anew: then the region is done again.
 *
 * Both sides of a candidate have floors, and they need not lie alike. What is
 * cut here are candidates; the protocol sees to it that blocks whose pages turn
 * out not to be equal stay whole, too (mechanism/extent_block.c).
 */
#include "policy/policy.h"

#define REGION PGSHARE_EXTENT_MAX

int pgs_floor_set(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                  uint32_t order)
{
    _Atomic uint8_t *floors;

    pgs_mutex_lock(&domain->lock);
    floors = atomic_load_explicit(&domain->floors, memory_order_relaxed);
    if (!floors && order) {
        floors = pgs_heap_zalloc(&domain->host->heap, domain->dir_len,
                                 PGS_CHUNK_REGIONS, 1);
        atomic_store_explicit(&domain->floors, floors, memory_order_release);
    }
    if (floors)
        for (uint64_t i = gfn / REGION; i <= (gfn + count - 1) / REGION; i++)
            atomic_store_explicit(&floors[i], (uint8_t)order,
                                  memory_order_relaxed);
    pgs_mutex_unlock(&domain->lock);
    return floors || !order ? 0 : PGSHARE_ERR_NOMEM;
}

static uint64_t size_at(_Atomic uint8_t *floors, uint64_t gfn)
{
    return UINT64_C(1) << atomic_load_explicit(&floors[gfn / REGION],
                                               memory_order_relaxed);
}

uint32_t pgs_floor_size(const struct pgs_domain *domain, uint64_t gfn)
{
    _Atomic uint8_t *floors = atomic_load_explicit(&domain->floors,
                                                   memory_order_acquire);

    return floors ? (uint32_t)size_at(floors, gfn) : 1;
}

/*
 * The first part of [gfn, gfn + part->count) from page part->at on that this
 * side lets be shared: all of one region, since floors differ.
 */
static void cut(const struct pgs_domain *domain, uint64_t gfn,
                struct pgs_part *part)
{
    _Atomic uint8_t *floors = domain
                                  ? atomic_load_explicit(&domain->floors,
                                                         memory_order_acquire)
                                  : NULL;
    uint64_t end = gfn + part->at + part->count;

    while (floors && part->count) {
        uint64_t first = gfn + part->at, next = (first | (REGION - 1)) + 1;
        uint64_t size = size_at(floors, first);
        uint64_t last = (next < end ? next : end) & ~(size - 1);

        first = (first + size - 1) & ~(size - 1);
        if (first < last) {
            part->at = (uint32_t)(first - gfn);
            part->count = (uint32_t)(last - first);
            if (part->block < size)
                part->block = (uint32_t)size;
            return;
        }
        next = next < end ? next : end;
        part->at = (uint32_t)(next - gfn);
        part->count = (uint32_t)(end - next);
    }
}

/* The first part of it that both sides let be shared as it is. Either's blocks
 * begin and end with it, so the larger ones hold whole ones of the other. */
static void cut_both(const struct pgs_candidate *c, struct pgs_part *part)
{
    uint32_t was = 0;

    while (part->count && part->count != was) {
        was = part->count;
        part->block = 1;
        cut(c->client, c->client_gfn, part);
        cut(c->source, c->source_gfn, part);
    }
}

bool pgs_floor_next(const struct pgs_candidate *c, uint32_t at,
                    struct pgs_part *ret_part)
{
    if (c->flags & PGS_EXTENT_FREE) { /* who gives pages up, knows */
        *ret_part = (struct pgs_part){ at, c->count - at, 1 };
        return at < c->count;
    }
    for (; at < c->count; at++) {
        *ret_part = (struct pgs_part){ .at = at, .count = c->count - at };
        cut_both(c, ret_part);
        if (ret_part->count)
            return true;
        /* not from here, but a block may begin behind */
    }
    return false;
}
