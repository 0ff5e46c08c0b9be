/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * share: what it costs to protect, compare and share two pages.
 *
 * Two guests hold the same pages, all of them private. A turn shares some
 * thousands of them, one after the other, and makes them private again, which
 * is not timed. By the time it comes back to them they have left the cache. The
 * yardstick compares two buffers as large.
 */
#include "bench.h"

#include "measure.h"

#include <string.h>

#define ROUND 4096u /* pages timed in one turn … */
#define SAMPLE 512u /* … in parts of so many */
#define ROUNDS 75u

struct set {
    struct pgs_rig rig;
    struct pgs_guest source;
    struct pgs_guest client;
    uint32_t pages; /* of each side */
    unsigned char *left;
    unsigned char *right;
};

/* Marks both sides, then shares what the tickets stand for. */
static void share_by_tickets(struct set *set, uint64_t gfn, uint32_t count)
{
    uint64_t tickets[2][PGSHARE_EXTENT_MAX];
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .source_dom = set->source.dom,
        .source_gfn = gfn,
        .client_dom = set->client.dom,
        .client_gfn = gfn,
        .count = count,
        .source_tickets = tickets[0],
        .client_tickets = tickets[1],
    };
    int r = pgshare_mark_ro(set->rig.host, set->source.dom, gfn, count,
                            tickets[0], NULL);

    if (!r)
        r = pgshare_mark_ro(set->rig.host, set->client.dom, gfn, count,
                            tickets[1], NULL);
    if (!r)
        r = pgshare_share(set->rig.host, &request, NULL);
    pgs_bench_check(r, "marking and sharing");
}

/* Private again, as before. The last extent first: its pages get the frames that
 * were given back last, which were their own, so that memory stays in the order
 * of the GFNs, as that of guests which have not shared before. */
static void unshare(struct set *set, uint32_t at, uint32_t count,
                    uint32_t extent)
{
    for (uint32_t gfn = at + count; gfn > at; gfn -= extent)
        pgs_rig_unshare(&set->rig, &set->client, gfn - extent, extent);
    pgs_rig_unshare(&set->rig, &set->source, at, count);
}

/* Samples are nanoseconds per page. */

static void share_round(struct set *set, uint32_t at, uint32_t extent,
                        bool tickets, struct pgs_series *samples)
{
    for (uint32_t part = at; part < at + ROUND; part += SAMPLE) {
        uint64_t begin = pgs_bench_now();

        for (uint32_t gfn = part; gfn < part + SAMPLE; gfn += extent) {
            if (tickets)
                share_by_tickets(set, gfn, extent);
            else
                pgs_rig_share(&set->rig, &set->source, gfn, &set->client, gfn,
                              extent);
        }
        pgs_series_add(samples, (double)(pgs_bench_now() - begin) / SAMPLE);
    }
    unshare(set, at, ROUND, extent);
}

/* NULL: nobody wants to know. */
static void memcmp_round(struct set *set, uint32_t at,
                         struct pgs_series *samples)
{
    size_t size = pgs_bench_page_size();

    for (uint32_t part = at; part < at + ROUND; part += SAMPLE) {
        uint64_t begin = pgs_bench_now();
        uint64_t different = 0;

        for (uint32_t i = part; i < part + SAMPLE; i++)
            different += memcmp(set->left + i * size, set->right + i * size,
                                size) != 0;
        pgs_bench_use(different);
        if (samples)
            pgs_series_add(samples,
                           (double)(pgs_bench_now() - begin) / SAMPLE);
    }
}

static void measure(struct pgs_bench *bench, struct set *set, uint32_t extent,
                    bool tickets)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    struct pgs_series shares = { 0 }, compares = { 0 };
    struct pgs_figure figure = {
        .name = "share",
        .unit = "ns/page",
        .yardstick = "bare memcmp of 4 KiB, sequential",
        .limit = extent < 64 ? 2 : 1.2,
        .bound = PGS_BOUND_RATIO,
    };

    snprintf(figure.metric, sizeof(figure.metric),
             "extents of %u, %s, sequential", extent,
             tickets ? "mark both and share by tickets" : "in one call");
    if (!pgs_bench_wants(bench, figure.metric))
        return;
    for (unsigned i = 0; i < rounds; i++) {
        uint32_t at = i * ROUND % set->pages;

        memcmp_round(set, at, &compares);
        share_round(set, at, extent, tickets, &shares);
    }
    figure.value = pgs_series_median(&shares);
    figure.yardstick_value = pgs_series_median(&compares);
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&shares);
    pgs_series_fini(&compares);
}

static void set_open(struct set *set, const struct pgs_bench *bench)
{
    size_t bytes;

    set->pages = pgs_bench_pages(bench) / 2 / ROUND * ROUND;
    bytes = (size_t)set->pages * PGSHARE_PAGE_SIZE;
    set->left = pgs_bench_memory_new(bytes);
    set->right = pgs_bench_memory_new(bytes);
    for (uint32_t at = 0; at < set->pages; at += ROUND) /* as the guests' */
        memcmp_round(set, at, NULL);
    pgs_rig_open(&set->rig, 2 * (uint64_t)set->pages + 65536, 1);
    pgs_rig_guest(&set->rig, &set->source, set->pages, PGS_CONTENT_BY_GFN,
                  false);
    pgs_rig_guest(&set->rig, &set->client, set->pages, PGS_CONTENT_BY_GFN,
                  false);
    pgs_rig_join(&set->rig, &set->source);
    pgs_rig_join(&set->rig, &set->client);
    /* Once through, so that everything has been allocated. */
    pgs_rig_share(&set->rig, &set->source, 0, &set->client, 0, set->pages);
    unshare(set, 0, set->pages, PGSHARE_EXTENT_MAX);
}

static void set_close(struct set *set)
{
    size_t bytes = (size_t)set->pages * PGSHARE_PAGE_SIZE;

    pgs_rig_close(&set->rig);
    pgs_bench_memory_free(set->left, bytes);
    pgs_bench_memory_free(set->right, bytes);
}

void pgs_bench_share(struct pgs_bench *bench)
{
    static const uint32_t extents[] = { 1, 64, 512 };
    struct set set = { 0 };

    set_open(&set, bench);
    pgs_report_note(bench->report, "share: %u MiB on each of two sides",
                    set.pages >> 8);
    for (size_t i = 0; i < sizeof(extents) / sizeof(extents[0]); i++) {
        measure(bench, &set, extents[i], true);
        measure(bench, &set, extents[i], false);
    }
    set_close(&set);
}
