/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extents: their memory, their runs, and what they count.
 *
 * All arrays of an extent are one allocation. Who shares page by page would
 * mostly allocate, so the owner of a shard keeps one small extent there.
 */
#include "mechanism/extent.h"

#include <string.h>

/* Pages of a small extent, a spare one. */
#define SMALL 16u
/* Bytes for one page in all the arrays together. */
#define PER_PAGE                                                              \
    (4 * sizeof(uint64_t) + 4 * sizeof(uint32_t) + sizeof(uint16_t) +         \
     2 * sizeof(int8_t))

/* The place for a spare extent of this thread's shard, or NULL where the shard
 * is not its own, or an extent of `count` pages is not a small one. */
static struct pgs_extent **spare_of(struct pgshare_host *host, uint32_t count)
{
    bool owned;
    struct pgs_shard *shard = pgs_shard_mine(&host->shards, &owned);

    if (!owned || count > SMALL)
        return NULL;
    return &host->spares[shard - host->shards.shard].extent;
}

static size_t bytes_of(uint32_t count)
{
    size_t room = count > SMALL ? count : SMALL;

    return sizeof(struct pgs_extent) + room * PER_PAGE;
}

/* Zeroed, as far as `count` pages go. */
static void *take_memory(struct pgshare_host *host, uint32_t count)
{
    struct pgs_extent **spare = spare_of(host, count);
    struct pgs_extent *extent = spare ? *spare : NULL;

    if (!extent)
        return pgs_heap_zalloc(&host->heap, 1, bytes_of(count),
                               _Alignof(struct pgs_extent));
    *spare = NULL;
    return memset(extent, 0, sizeof(*extent) + count * PER_PAGE);
}

struct pgs_extent *pgs_extent_new(struct pgshare_host *host, uint32_t count)
{
    struct pgs_extent *extent = take_memory(host, count);
    char *at;

    assert(count > 0 && count <= PGSHARE_EXTENT_MAX);
    if (!extent)
        return NULL;
    at = (char *)(extent + 1);
    extent->count = count;
    /* widest elements first, so that all are aligned */
    extent->id = (uint64_t *)(void *)at;
    extent->ids = extent->id + count;
    extent->source.own = extent->ids + count;
    extent->client.own = extent->source.own + count;
    extent->frame = (uint32_t *)(void *)(extent->client.own + count);
    extent->source_node = extent->frame + count;
    extent->client_node = extent->source_node + count;
    extent->old_frame = extent->client_node + count;
    extent->page = (uint16_t *)(void *)(extent->old_frame + count);
    extent->result = (int8_t *)(extent->page + count);
    extent->status = extent->result + count;
    return extent;
}

void pgs_extent_free(struct pgshare_host *host, struct pgs_extent *extent)
{
    struct pgs_extent **spare;

    if (!extent)
        return;
    spare = spare_of(host, extent->count);
    if (spare && !*spare)
        *spare = extent;
    else
        pgs_heap_free(&host->heap, extent, 1, bytes_of(extent->count));
}

void pgs_extents_fini(struct pgshare_host *host)
{
    for (unsigned i = 0; i < PGS_SHARDS; i++)
        pgs_heap_free(&host->heap, host->spares[i].extent, 1, bytes_of(SMALL));
}

uint32_t pgs_extent_cut(const struct pgs_domain *domain, uint64_t gfn,
                        uint64_t count, uint32_t *ret_page)
{
    uint64_t room = PGS_CHUNK_GFNS - (gfn & (PGS_CHUNK_GFNS - 1));

    *ret_page = pgs_page_of(domain, gfn);
    if (*ret_page == PGS_PAGE_NONE)
        return 0;
    if (count > room)
        count = room;
    return count > PGSHARE_EXTENT_MAX ? PGSHARE_EXTENT_MAX : (uint32_t)count;
}

/* Four pages' flags at once. */
static uint64_t four(uint16_t flags)
{
    return flags * UINT64_C(0x0001000100010001);
}

static uint64_t load_four(const uint16_t *page)
{
    uint64_t flags;

    memcpy(&flags, page, sizeof(flags));
    return flags;
}

/* Is one of four 16-bit numbers zero? */
static bool has_zero(uint64_t x)
{
    return (x - four(1)) & ~x & four(0x8000);
}

/* The first page from i on whose flags fit, or whose flags do not; else `end`,
 * or a few pages before it that are still to be looked at. */
static uint32_t skip_unfit(const uint16_t *page, uint32_t i, uint32_t end,
                           uint64_t mask, uint64_t want)
{
    while (i + 4 <= end && !has_zero((load_four(page + i) ^ want) & mask))
        i += 4;
    return i;
}

static uint32_t skip_fit(const uint16_t *page, uint32_t i, uint32_t end,
                         uint64_t mask, uint64_t want)
{
    while (i + 4 <= end && !((load_four(page + i) ^ want) & mask))
        i += 4;
    return i;
}

bool pgs_extent_find_run(struct pgs_extent *extent, uint32_t limit,
                         uint16_t mask, uint16_t want)
{
    const uint16_t *page = extent->page;
    uint32_t i = extent->cursor, end = extent->count;

    i = skip_unfit(page, i, end, four(mask), four(want));
    while (i < end && (page[i] & mask) != want)
        i++;
    extent->first = i;
    if (end - i > limit)
        end = i + limit;
    i = skip_fit(page, i, end, four(mask), four(want));
    while (i < end && (page[i] & mask) == want)
        i++;
    extent->n = i - extent->first;
    extent->cursor = extent->n ? i : 0;
    return extent->n > 0;
}

int pgs_extent_result(const struct pgs_extent *extent)
{
    for (uint32_t i = 0; i < extent->count; i++)
        if (extent->result[i])
            return extent->result[i];
    return 0;
}

void pgs_extent_count(struct pgs_extent *extent, struct pgshare_host *host)
{
    bool owned;
    struct pgs_shard *shard = pgs_shard_mine(&host->shards, &owned);

    if (extent->new_mapped)
        pgs_shard_count(shard, owned, PGS_LEVEL_MAPPINGS, extent->new_mapped);
    /* after their mappings: what can be demanded is never underrated */
    if (extent->new_frames)
        pgs_shard_count(shard, owned, PGS_LEVEL_FRAMES, extent->new_frames);
    if (extent->new_zero)
        pgs_shard_count(shard, owned, PGS_LEVEL_ZERO_MAPPINGS,
                        extent->new_zero);
    if (extent->new_shared) {
        pgs_shard_count(shard, owned, PGS_COUNT_SHARED + extent->cause,
                        extent->new_shared);
        atomic_fetch_add_explicit(
            &pgs_tally_mine(extent->client.domain)->made[extent->cause],
            extent->new_shared, memory_order_relaxed);
    }
    extent->shared += extent->new_shared;
    extent->new_mapped = extent->new_zero = extent->new_shared = 0;
    extent->new_frames = 0;
}
