/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Floors: memory that is kept whole.
 *
 * A guest's memory is mapped in huge pages where it lies in one piece; each
 * page that is shared takes such a piece apart. Where that would cost more than
 * it gains, the embedder sets a floor: within these regions of 2 MiB no page is
 * shared but as part of an aligned block of 2^order pages that is shared whole.
 * A domain has a byte for each of its regions from when the first floor is set.
 *
 * Both sides of a candidate have floors, and they need not lie alike.
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

static uint32_t floor_at(_Atomic uint8_t *floors, uint64_t gfn)
{
    return atomic_load_explicit(&floors[gfn / REGION], memory_order_relaxed);
}

/*
 * The first part of [gfn, gfn + count), from *at on, that this side lets be
 * shared: its length, and *at where it begins; 0: none.
 */
static uint32_t cut(const struct pgs_domain *domain, uint64_t gfn,
                    uint32_t count, uint32_t *at)
{
    _Atomic uint8_t *floors = domain
                                  ? atomic_load_explicit(&domain->floors,
                                                         memory_order_acquire)
                                  : NULL;

    if (!floors)
        return count - *at;
    while (*at < count) {
        uint64_t first = gfn + *at, end = (first | (REGION - 1)) + 1;
        uint64_t size = UINT64_C(1) << floor_at(floors, first);

        if (end > gfn + count)
            end = gfn + count;
        *at = (uint32_t)(end - gfn);
        first = (first + size - 1) & ~(size - 1);
        end &= ~(size - 1);
        if (first < end) {
            *at = (uint32_t)(first - gfn);
            return (uint32_t)(end - first);
        }
    }
    return 0;
}

/* The first part of [at, at + n) that both sides let be shared as it is. */
static uint32_t cut_both(const struct pgs_candidate *c, uint32_t *at,
                         uint32_t n)
{
    uint32_t was = 0;

    while (n && n != was) {
        uint32_t skip = 0;

        was = n;
        n = cut(c->client, c->client_gfn + *at, n, &skip);
        *at += skip;
        skip = 0;
        if (n)
            n = cut(c->source, c->source_gfn + *at, n, &skip);
        *at += skip;
    }
    return n;
}

uint32_t pgs_floor_next(const struct pgs_candidate *c, uint32_t *at)
{
    while (*at < c->count) {
        uint32_t first = *at;
        uint32_t n = cut_both(c, &first, c->count - *at);

        if (n) {
            *at = first;
            return n;
        }
        /* not from here, but a block may begin behind */
        ++*at;
    }
    return 0;
}
