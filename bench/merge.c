/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * merge: two guests with equal content, from the start of a pass until all is
 * shared. The yardstick reads as much as must be read: it hashes every page of
 * both once, and compares them once.
 */
#include "bench.h"

#include "measure.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PAGES 131072u /* 512 MiB */
#define PAGES_QUICK 4096u
#define ROUNDS 5u
#define SEED UINT64_C(0x7067736861726521)

struct set {
    uint32_t pages;
    unsigned char *bare[2];
    struct pgs_rig rig;
    struct pgs_guest guest[2];
};

static void set_open(struct set *set, const struct pgs_bench *bench)
{
    set->pages = bench->quick ? PAGES_QUICK : PAGES;
    pgs_rig_open(&set->rig, 4 * (uint64_t)set->pages + 65536, 1);
    for (unsigned k = 0; k < 2; k++) {
        set->bare[k] = pgs_bench_memory_new((size_t)set->pages *
                                            PGSHARE_PAGE_SIZE);
        for (uint32_t i = 0; i < set->pages; i++)
            pgs_content_fill(NULL, 0, i,
                             set->bare[k] + (size_t)i * PGSHARE_PAGE_SIZE);
        pgs_rig_guest(&set->rig, &set->guest[k], set->pages, PGS_CONTENT_BY_GFN,
                      false);
    }
}

static void set_close(struct set *set)
{
    pgs_rig_close(&set->rig);
    for (unsigned k = 0; k < 2; k++)
        pgs_bench_memory_free(set->bare[k],
                              (size_t)set->pages * PGSHARE_PAGE_SIZE);
}

static double merge(struct set *set)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    uint64_t begin, end;

    pgs_rig_host_close(&set->rig);
    pgs_rig_host_open(&set->rig);
    for (unsigned k = 0; k < 2; k++)
        pgs_rig_join(&set->rig, &set->guest[k]);
    begin = pgs_bench_now();
    pgs_bench_check(pgshare_host_pass(set->rig.host, 0), "pgshare_host_pass");
    pgs_bench_check(pgshare_host_settle(set->rig.host, PGSHARE_FOREVER),
                    "pgshare_host_settle");
    end = pgs_bench_now();
    pgs_bench_check(pgshare_host_stats(set->rig.host, &stats),
                    "pgshare_host_stats");
    if (stats.saved != set->pages)
        pgs_bench_die("merge: %llu of %u pages are shared",
                      (unsigned long long)stats.saved, set->pages);
    for (unsigned k = 0; k < 2; k++) {
        pgs_rig_unshare(&set->rig, &set->guest[k], 0, set->pages);
        pgs_rig_leave(&set->guest[k]);
    }
    return (double)(end - begin) / set->pages;
}

static double hash_and_compare(const struct set *set)
{
    size_t size = pgs_bench_page_size();
    uint64_t begin = pgs_bench_now(), sum = 0;

    for (unsigned k = 0; k < 2; k++)
        for (uint32_t i = 0; i < set->pages; i++)
            sum += XXH3_64bits_withSeed(set->bare[k] + i * size, size, SEED);
    for (uint32_t i = 0; i < set->pages; i++)
        sum += memcmp(set->bare[0] + i * size, set->bare[1] + i * size, size) !=
               0;
    pgs_bench_use(sum);
    return (double)(pgs_bench_now() - begin) / set->pages;
}

void pgs_bench_merge(struct pgs_bench *bench)
{
    struct pgs_series merges = { 0 }, bare = { 0 };
    struct pgs_figure figure = {
        .name = "merge",
        .metric = "two equal guests, until all is shared, sequential",
        .unit = "ns/page",
        .yardstick = "hash all pages once, compare the pairs once, sequential",
        .limit = 1.5,
        .bound = PGS_BOUND_RATIO,
    };
    struct set set = { 0 };

    if (!pgs_bench_wants(bench, figure.metric))
        return;
    set_open(&set, bench);
    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS); i++) {
        pgs_series_add(&bare, hash_and_compare(&set));
        pgs_series_add(&merges, merge(&set));
    }
    figure.value = pgs_series_median(&merges);
    figure.yardstick_value = pgs_series_median(&bare);
    pgs_report_add(bench->report, &figure);
    set_close(&set);
    pgs_series_fini(&merges);
    pgs_series_fini(&bare);
}
