/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scan-steer: does the scanner keep to what it is allowed?
 *
 * The host is driven as a main loop would drive it: run, ask when the next run
 * is due, sleep until then. What the thread's CPU clock says against the wall
 * clock is the share of a core. Where there are two numbers the second is what
 * steering says itself.
 */
#include "bench.h"

#include "measure.h"

#include <time.h>

#define PAGES 16384u /* 64 MiB */
#define SECOND UINT64_C(1000000000)
#define PASSES 3u
#define PERCENT 100.0
#define BUDGET_PPM 100000u

struct scene {
    struct pgs_rig rig;
    struct pgs_guest guest;
    uint32_t pressure;
};

static uint32_t pressure(void *ctx)
{
    const struct scene *scene = ctx;

    return scene->pressure;
}

/* One turn of a main loop. */
static void turn(struct scene *scene)
{
    struct pgshare_poll poll = { .size = sizeof(poll) };
    struct timespec until;

    pgs_bench_check(pgshare_host_run(scene->rig.host, NULL, NULL),
                    "pgshare_host_run");
    pgs_bench_check(pgshare_host_poll(scene->rig.host, &poll),
                    "pgshare_host_poll");
    if (!poll.deadline_ns)
        return;
    until.tv_sec = (time_t)(poll.deadline_ns / SECOND);
    until.tv_nsec = (long)(poll.deadline_ns % SECOND);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* The share of a core, in percent, over so many ns. */
static double share_of(struct scene *scene, uint64_t ns)
{
    uint64_t begin = pgs_bench_now(), cpu = pgs_bench_cpu();

    while (pgs_bench_now() - begin < ns)
        turn(scene);
    return (double)(pgs_bench_cpu() - cpu) * PERCENT /
           (double)(pgs_bench_now() - begin);
}

static struct pgshare_scan_info info_of(const struct scene *scene)
{
    struct pgshare_scan_info info = { .size = sizeof(info) };

    pgs_bench_check(pgshare_scan_info(scene->rig.host, &info),
                    "pgshare_scan_info");
    return info;
}

static double told(const struct scene *scene)
{
    return info_of(scene).rate_ppm * PERCENT / 1e6;
}

static void set(const struct scene *scene, uint32_t flags, uint32_t core_ppm)
{
    struct pgshare_scan_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_SCAN_ON | flags,
        .core_ppm = core_ppm,
    };

    pgs_bench_check(pgshare_scan_set(scene->rig.host, &options),
                    "pgshare_scan_set");
}

static void add(struct pgs_bench *bench, const char *metric, const char *unit,
                const char *yardstick, double value, double other, double limit)
{
    struct pgs_figure figure = {
        .name = "scan-steer",
        .value = value,
        .yardstick_value = other,
        .limit = limit,
        .bound = PGS_BOUND_VALUE,
    };

    snprintf(figure.metric, sizeof(figure.metric), "%s", metric);
    snprintf(figure.unit, sizeof(figure.unit), "%s", unit);
    snprintf(figure.yardstick, sizeof(figure.yardstick), "%s", yardstick);
    pgs_report_add(bench->report, &figure);
}

static void measure_yield(struct pgs_bench *bench, struct scene *scene)
{
    uint64_t passes;
    double share;

    set(scene, 0, 0);
    passes = info_of(scene).passes;
    while (info_of(scene).passes < passes + PASSES)
        turn(scene);
    share = share_of(scene, bench->quick ? SECOND / 10 : 2 * SECOND);
    add(bench, "nothing found: share of a core after 3 passes", "%",
        "the rate that steering allows", share, told(scene), 1);
}

/* Follows on the former: the rate is at its lowest. */
static void measure_pressure(struct pgs_bench *bench, struct scene *scene)
{
    uint64_t begin = pgs_bench_now();
    double share;

    scene->pressure = 100;
    do {
        share = share_of(scene, SECOND / 20);
    } while (share < 90 && pgs_bench_now() - begin < 5 * SECOND);
    add(bench, "pressure raised: time to the full rate", "s",
        "a core's share then", (double)(pgs_bench_now() - begin) / 1e9,
        share / PERCENT, 1);
    scene->pressure = 0;
}

static void measure_budget(struct pgs_bench *bench, struct scene *scene)
{
    double share, off;

    set(scene, PGSHARE_SCAN_STEADY, BUDGET_PPM);
    share_of(scene, SECOND / 10);
    share = share_of(scene, bench->quick ? SECOND / 10 : 4 * SECOND);
    off = share - told(scene);
    add(bench, "a budget of 10 % of a core: off by", "% of a core",
        "the share of a core that was taken", off < 0 ? -off : off, share, 1);
}

void pgs_bench_scan_steer(struct pgs_bench *bench)
{
    struct scene scene = { .pressure = 0 };
    struct pgshare_platform platform = {
        .size = sizeof(platform),
        .ctx = &scene,
        .pressure = pressure,
    };

    if (!pgs_bench_wants(bench, "nothing found, pressure raised, a budget"))
        return;
    pgs_rig_open(&scene.rig, 2 * PAGES + 65536, 1);
    pgs_rig_host_close(&scene.rig);
    pgs_rig_host_open_on(&scene.rig, &platform);
    pgs_rig_guest(&scene.rig, &scene.guest, PAGES, PGS_CONTENT_BY_GFN, false);
    pgs_rig_join(&scene.rig, &scene.guest);
    measure_yield(bench, &scene);
    measure_pressure(bench, &scene);
    measure_budget(bench, &scene);
    pgs_rig_close(&scene.rig);
}
