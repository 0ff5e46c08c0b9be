/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm-net: memory really gained, as the kernel counts it: net of mappings, page
 * tables and our own tables. Equal pages lie in extents as in real guests, with
 * pages between them that have no equal.
 */
#include "kvm.h"

#include "measure.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define PAGES 131072u
#define PAGES_QUICK 4096u
#define ROUNDS 3u

#define PATIENCE 80u /* looks, four a second */
#define STILL 12u    /* as many without a change */
#define CHANGE 512.
#define DRAINS 100u

/* In pages. */
static double look(void)
{
    char line[128];
    double kib = 0;
    FILE *file;

    file = fopen("/proc/meminfo", "re");
    if (!file)
        pgs_bench_die("/proc/meminfo cannot be read");
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %lf", &kib) == 1)
            break;
    fclose(file);
    return kib * 1024 / PGSHARE_PAGE_SIZE;
}

/* What was freed a moment ago lies in lists of the processors, which give an
 * eighth of it up each time that they are asked for their counts (needs root). */
static void drain(void)
{
    char nothing;
    int fd;

    for (unsigned i = 0; i < DRAINS; i++) {
        fd = open("/proc/sys/vm/stat_refresh", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return;
        if (read(fd, &nothing, 1) < 0)
            i = DRAINS;
        close(fd);
    }
}

/* It is counted then, or after a while. */
static double available(void)
{
    const struct timespec rest = { .tv_nsec = 250000000 };
    unsigned still = 0;
    double most;

    drain();
    most = look();
    for (unsigned i = 0; i < PATIENCE && still < STILL; i++) {
        double now;

        nanosleep(&rest, NULL);
        now = look();
        still = now > most + CHANGE ? 0 : still + 1;
        most = now > most ? now : most;
    }
    return most;
}

static double gain(const struct pgs_layout *layout)
{
    struct pgs_vms vms;
    double before, after;

    pgs_vms_open(&vms, layout, true);
    before = available();
    pgs_vms_register(&vms, 0);
    pgs_vms_merge(&vms, UINT64_MAX);
    pgs_bench_check(pgshare_host_settle(vms.host, PGSHARE_FOREVER),
                    "pgshare_host_settle");
    after = available();
    pgs_vms_check(&vms);
    pgs_vms_close(&vms);
    return after - before;
}

void pgs_bench_kvm_net(struct pgs_bench *bench)
{
    struct pgs_series gains = { 0 };
    struct pgs_figure figure = {
        .name = "kvm-net",
        .metric = "memory gained, extents as in real guests, random order",
        .unit = "pages",
        .yardstick = "pages with an equal in the other guest",
        .limit = 0.95,
        .bound = PGS_BOUND_RATIO_MIN,
    };
    const char *missing = pgs_vms_missing();
    struct pgs_layout layout;

    if (missing) {
        pgs_report_note(bench->report, "kvm-net: %s", missing);
        return;
    }
    pgs_layout_init(&layout, PGS_ORDER_REAL, bench->quick ? PAGES_QUICK : PAGES,
                    bench->seed);
    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS); i++)
        pgs_series_add(&gains, gain(&layout));
    figure.value = pgs_series_median(&gains);
    figure.yardstick_value = layout.equal;
    pgs_report_add(bench->report, &figure);
    pgs_layout_fini(&layout);
    pgs_series_fini(&gains);
}
