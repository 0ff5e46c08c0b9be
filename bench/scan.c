/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scan-cold, scan-steady: what a pass costs beyond hashing.
 *
 * Cold: every pass is a new host's first one, over distinct pages that have all
 * been written; the yardstick hashes the same memory, page by page, with the
 * same function. Steady: of the pages that a host knows, one in a hundred is
 * written before each pass; the yardstick hashes just those.
 */
#include "bench.h"

#include "ksm.h"
#include "measure.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PAGES_MIN 131072u /* 512 MiB, where that is more than the caches need */
#define PAGES_QUICK 4096u
#define ROUNDS_COLD 7u
#define ROUNDS_STEADY 15u
#define ONE_IN 100u
#define SEED UINT64_C(0x7067736861726521)

struct set {
    uint32_t pages;
    const void **bytes;  /* [pages] for the yardstick */
    uint32_t *written;   /* [pages / ONE_IN], ascending */
    struct pgs_rig rig;
    struct pgs_guest guest;
};

/* Nothing is shared here, so it stays where it is. */
static const void *bytes_of(const struct set *set, uint32_t gfn)
{
    struct pgshare_mock_page page = { .size = sizeof(page) };

    pgs_bench_check(pgshare_mock_page(set->guest.mock, gfn, &page),
                    "pgshare_mock_page");
    if (!page.bytes)
        pgs_bench_die("a page is not private");
    return page.bytes;
}

static void set_open(struct set *set, const struct pgs_bench *bench)
{
    set->pages = pgs_bench_pages(bench);
    if (set->pages < PAGES_MIN)
        set->pages = PAGES_MIN;
    if (bench->quick)
        set->pages = PAGES_QUICK;
    set->bytes = calloc(set->pages, sizeof(*set->bytes));
    set->written = calloc(set->pages / ONE_IN, sizeof(*set->written));
    if (!set->bytes || !set->written)
        pgs_bench_die("no memory");
    pgs_rig_open_logged(&set->rig, 2 * (uint64_t)set->pages + 65536);
    pgs_rig_guest(&set->rig, &set->guest, set->pages, PGS_CONTENT_BY_GFN,
                  false);
    for (uint32_t i = 0; i < set->pages; i++)
        set->bytes[i] = bytes_of(set, i);
}

static void set_close(struct set *set)
{
    pgs_rig_close(&set->rig);
    free(set->bytes);
    free(set->written);
}

/* CPU time of one pass, in ns. */
static double pass(struct set *set)
{
    uint64_t begin = pgs_bench_cpu();

    pgs_bench_check(pgshare_host_pass(set->rig.host, 0), "pgshare_host_pass");
    pgs_bench_check(pgshare_host_settle(set->rig.host, PGSHARE_FOREVER),
                    "pgshare_host_settle");
    return (double)(pgs_bench_cpu() - begin);
}

static double hash_all(const struct set *set)
{
    uint64_t begin = pgs_bench_cpu(), sum = 0;

    for (uint32_t i = 0; i < set->pages; i++)
        sum += XXH3_64bits_withSeed(set->bytes[i], PGSHARE_PAGE_SIZE, SEED);
    pgs_bench_use(sum);
    return (double)(pgs_bench_cpu() - begin);
}

/* A new host, which knows nothing; all pages are written. */
static void forget_all(struct set *set)
{
    if (set->guest.dom)
        pgs_rig_leave(&set->guest);
    pgs_rig_host_close(&set->rig);
    for (uint32_t i = 0; i < set->pages; i++)
        pgs_bench_check(pgshare_mock_write(set->guest.mock, i, 0, &i,
                                           sizeof(i)),
                        "pgshare_mock_write");
    pgs_rig_host_open(&set->rig);
    pgs_rig_join(&set->rig, &set->guest);
}

/* The time of KSM's first two full scans, taken together; 0: there is no KSM
 * here, or it took too long. */
static uint64_t time_ksm(uint32_t pages)
{
    unsigned char *memory;
    uint64_t taken = 0;

    if (!pgs_ksm_open())
        return 0;
    memory = pgs_ksm_memory_new(NULL, pages);
    if (memory && pgs_ksm_stop()) {
        uint64_t before = pgs_ksm_count("full_scans");

        if (pgs_ksm_start())
            taken = pgs_ksm_await("full_scans", before + 2);
    }
    pgs_ksm_close();
    pgs_ksm_memory_free(memory, pages);
    return taken;
}

static void add_beside_ksm(struct pgs_bench *bench,
                           const struct pgs_figure *ours, uint32_t pages)
{
    struct pgs_figure figure = *ours;
    uint64_t taken = time_ksm(pages);

    if (!taken) {
        pgs_report_note(bench->report,
                        "scan-cold: no figure of KSM (needs root, and a kernel "
                        "with KSM)");
        return;
    }
    snprintf(figure.yardstick, sizeof(figure.yardstick),
             "Linux KSM, as many pages by its first two full scans");
    figure.yardstick_value = pages * 1e3 / (double)taken;
    snprintf(figure.metric, sizeof(figure.metric),
             "first pass over distinct pages beside KSM, sequential");
    figure.limit = 8;
    pgs_report_add(bench->report, &figure);
}

static void measure_cold(struct pgs_bench *bench, struct set *set)
{
    struct pgs_series passes = { 0 }, hashes = { 0 };
    struct pgs_figure figure = {
        .name = "scan-cold",
        .metric = "first pass over distinct pages beside bare hashing, sequential",
        .unit = "pages/us",
        .yardstick = "bare XXH3 of 4 KiB pages, sequential",
        .limit = 0.85,
        .bound = PGS_BOUND_RATIO_MIN,
    };

    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS_COLD); i++) {
        forget_all(set);
        pgs_series_add(&hashes, hash_all(set));
        pgs_series_add(&passes, pass(set));
    }
    figure.value = set->pages * 1e3 / pgs_series_median(&passes);
    figure.yardstick_value = set->pages * 1e3 / pgs_series_median(&hashes);
    pgs_report_add(bench->report, &figure);
    add_beside_ksm(bench, &figure, set->pages);
    pgs_series_fini(&passes);
    pgs_series_fini(&hashes);
}

void pgs_bench_scan_cold(struct pgs_bench *bench)
{
    struct set set = { 0 };

    if (!pgs_bench_wants(bench, "first pass over distinct pages"))
        return;
    set_open(&set, bench);
    measure_cold(bench, &set);
    set_close(&set);
}

/* ---- steady -------------------------------------------------------------- */

static void write_some(struct set *set, uint64_t *random)
{
    for (uint32_t i = 0; i < set->pages / ONE_IN; i++) {
        uint64_t word = pgs_bench_random(random);

        set->written[i] = i * ONE_IN +
                          (uint32_t)pgs_bench_below(random, ONE_IN);
        pgs_bench_check(pgshare_mock_write(set->guest.mock, set->written[i], 8,
                                           &word, sizeof(word)),
                        "pgshare_mock_write");
    }
}

static double hash_written(const struct set *set)
{
    uint64_t begin = pgs_bench_cpu(), sum = 0;

    for (uint32_t i = 0; i < set->pages / ONE_IN; i++)
        sum += XXH3_64bits_withSeed(set->bytes[set->written[i]],
                                    PGSHARE_PAGE_SIZE, SEED);
    pgs_bench_use(sum);
    return (double)(pgs_bench_cpu() - begin);
}

static void report_steady(struct pgs_bench *bench, const struct set *set,
                          double steady, double hashed, double cold)
{
    struct pgs_figure figure = {
        .name = "scan-steady",
        .metric = "a pass after 1 % of the pages was written, scattered",
        .unit = "ns/written page",
        .yardstick = "bare XXH3 of just those pages, in the same order",
        .value = steady / (set->pages / ONE_IN),
        .yardstick_value = hashed / (set->pages / ONE_IN),
        .limit = 2,
        .bound = PGS_BOUND_RATIO,
    };
    struct pgs_figure against = {
        .name = "scan-steady",
        .metric = "a first pass against one after 1 % was written",
        .unit = "ns/page",
        .yardstick = "the pass after 1 % of the pages was written",
        .value = cold / set->pages,
        .yardstick_value = steady / set->pages,
        .limit = 30,
        .bound = PGS_BOUND_RATIO_MIN,
    };

    pgs_report_add(bench->report, &figure);
    pgs_report_add(bench->report, &against);
}

void pgs_bench_scan_steady(struct pgs_bench *bench)
{
    struct pgs_series passes = { 0 }, hashes = { 0 };
    uint64_t random = bench->seed;
    struct set set = { 0 };
    double cold;

    if (!pgs_bench_wants(bench, "a pass after 1 % of the pages"))
        return;
    set_open(&set, bench);
    forget_all(&set);
    cold = pass(&set);
    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS_STEADY); i++) {
        write_some(&set, &random);
        hash_all(&set); /* neither finds its memory in the cache */
        pgs_series_add(&passes, pass(&set));
        pgs_series_add(&hashes, hash_written(&set));
    }
    report_steady(bench, &set, pgs_series_median(&passes),
                  pgs_series_median(&hashes), cold);
    set_close(&set);
    pgs_series_fini(&passes);
    pgs_series_fini(&hashes);
}
