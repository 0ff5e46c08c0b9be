/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hint-latency: how long a page that a block hint names waits to be shared,
 * while another thread runs the scanner without pause over a large guest.
 *
 * Two guests read the same block. What is timed goes from the second one's hint
 * to the instant when its page is a mapping, as the mock machine's page table
 * says.
 */
#include "bench.h"

#include "measure.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define SCANNED 65536u /* 256 MiB */
#define SCANNED_QUICK 4096u
#define HINTS 1000u
#define HINTS_QUICK 50u
#define IMAGE 7u
#define WAIT_NS UINT64_C(1000000000)

struct scene {
    struct pgs_rig rig;
    struct pgs_guest scanned;
    struct pgs_guest reader[2];
    atomic_bool stop;
};

static void *run(void *ctx)
{
    struct scene *scene = ctx;

    while (!atomic_load_explicit(&scene->stop, memory_order_relaxed))
        pgs_bench_check(pgshare_host_run(scene->rig.host, NULL, NULL),
                        "pgshare_host_run");
    return NULL;
}

static void hint(const struct scene *scene, unsigned reader, uint64_t gfn)
{
    pgs_bench_check(pgshare_hint_block(scene->rig.host,
                                       scene->reader[reader].dom, gfn, 1, IMAGE,
                                       gfn),
                    "pgshare_hint_block");
}

static bool is_shared(const struct pgs_guest *guest, uint64_t gfn)
{
    struct pgshare_mock_page page = { .size = sizeof(page) };

    pgs_bench_check(pgshare_mock_page(guest->mock, gfn, &page),
                    "pgshare_mock_page");
    return page.state == PGSHARE_MOCK_SHARED;
}

/* New content, the same for both. */
static void write_both(const struct scene *scene, uint64_t gfn)
{
    uint64_t words[PGSHARE_PAGE_SIZE / sizeof(uint64_t)];

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        words[i] = ~(gfn << 32) - i;
    for (unsigned i = 0; i < 2; i++)
        pgs_bench_check(pgshare_mock_write_page(scene->reader[i].mock, gfn,
                                                words),
                        "pgshare_mock_write_page");
}

/* The nanoseconds of one; not counted where the scanner was first. */
static void time_hint(struct scene *scene, uint64_t gfn,
                      struct pgs_series *series)
{
    uint64_t begin;

    write_both(scene, gfn);
    hint(scene, 0, gfn);
    if (is_shared(&scene->reader[1], gfn))
        return;
    begin = pgs_bench_now();
    hint(scene, 1, gfn);
    while (!is_shared(&scene->reader[1], gfn))
        if (pgs_bench_now() - begin > WAIT_NS)
            pgs_bench_die("hint-latency: a hint came to nothing");
    pgs_series_add(series, (double)(pgs_bench_now() - begin));
}

static void open_scene(struct scene *scene, uint32_t scanned, uint32_t hints)
{
    struct pgshare_scan_options full = {
        .size = sizeof(full),
        .flags = PGSHARE_SCAN_ON | PGSHARE_SCAN_STEADY,
    };

    pgs_rig_open(&scene->rig, 2 * (uint64_t)scanned + 4 * hints + 65536, 1);
    pgs_rig_guest(&scene->rig, &scene->scanned, scanned, PGS_CONTENT_BY_GFN,
                  false);
    pgs_rig_join(&scene->rig, &scene->scanned);
    for (unsigned i = 0; i < 2; i++) {
        pgs_rig_guest(&scene->rig, &scene->reader[i], hints, PGS_CONTENT_BY_GFN,
                      false);
        pgs_rig_join(&scene->rig, &scene->reader[i]);
    }
    pgs_bench_check(pgshare_scan_set(scene->rig.host, &full),
                    "pgshare_scan_set");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(struct scene *scene, uint32_t hints,
                    struct pgs_series *series)
{
    const struct timespec pause = { .tv_nsec = 300000 };
    pthread_t runner;

    if (pthread_create(&runner, NULL, run, scene))
        pgs_bench_die("pthread_create");
    for (uint32_t i = 0; i < hints; i++) {
        nanosleep(&pause, NULL);
        time_hint(scene, i, series);
    }
    atomic_store(&scene->stop, true);
    pthread_join(runner, NULL);
    if (!series->n)
        pgs_bench_die("hint-latency: the scanner was always first");
    qsort(series->values, series->n, sizeof(double), by_value);
}

void pgs_bench_hint_latency(struct pgs_bench *bench)
{
    struct pgs_figure figure = {
        .name = "hint-latency",
        .metric = "99 of 100 block hints to the page being shared, while the "
                  "scanner is at full load",
        .unit = "us",
        .yardstick = "half of them",
        .limit = 1000,
        .bound = PGS_BOUND_VALUE,
    };
    struct pgs_series series = { 0 };
    struct scene scene = { 0 };
    uint32_t hints = bench->quick ? HINTS_QUICK : HINTS;

    if (!pgs_bench_wants(bench, figure.metric))
        return;
    open_scene(&scene, bench->quick ? SCANNED_QUICK : SCANNED, hints);
    measure(&scene, hints, &series);
    figure.value = series.values[series.n * 99 / 100] / 1e3;
    figure.yardstick_value = series.values[series.n / 2] / 1e3;
    pgs_report_add(bench->report, &figure);
    pgs_rig_close(&scene.rig);
    pgs_series_fini(&series);
}
