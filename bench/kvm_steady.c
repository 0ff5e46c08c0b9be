/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm-steady: a pass over 1 GiB of distinct pages of which nothing was written
 * since the last one, beside a scan of KSM; and how long a new duplicate waits
 * for a pass every 10 s.
 */
#include "kvm.h"

#include "ksm.h"
#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGES 131072u /* of each of the two guests */
#define PAGES_QUICK 4096u
#define ROUNDS 5u
#define INTERVAL_S 10
#define LIMIT_S 20

/* No two pages are equal. */
static void make_distinct(struct pgs_layout *layout, uint32_t pages)
{
    pgs_layout_init(layout, PGS_ORDER_SAME, pages, 0);
    for (uint32_t i = 0; i < pages; i++)
        layout->content[1][i] = pages + i;
    layout->equal = 0;
}

static double pass(struct pgs_vms *vms)
{
    uint64_t begin = pgs_vms_cpu();

    pgs_vms_merge(vms, UINT64_MAX);
    return (double)(pgs_vms_cpu() - begin);
}

static double scan_ksm(void)
{
    uint64_t scans = pgs_ksm_count("full_scans"), begin;

    /* from the end of one scan to the end of another */
    if (!pgs_ksm_await("full_scans", scans + 1))
        return 0;
    begin = pgs_ksm_cpu();
    if (!pgs_ksm_await("full_scans", scans + 3))
        return 0;
    return (double)(pgs_ksm_cpu() - begin) / 2;
}

static void measure_ksm(const struct pgs_layout *layout,
                        struct pgs_series *series, unsigned rounds)
{
    unsigned char *memory[PGS_VMS];
    bool ready;

    if (!pgs_ksm_open())
        return;
    for (unsigned i = 0; i < PGS_VMS; i++)
        memory[i] = pgs_ksm_memory_new(layout->content[i], layout->pages);
    ready = memory[0] && memory[1] && pgs_ksm_stop() && pgs_ksm_start();
    for (unsigned i = 0; ready && i < rounds; i++) {
        double cpu = scan_ksm();

        if (cpu > 0)
            pgs_series_add(series, cpu);
    }
    pgs_ksm_stop();
    for (unsigned i = 0; i < PGS_VMS; i++)
        pgs_ksm_memory_free(memory[i], layout->pages);
    pgs_ksm_close();
}

/* Page 0 of the second guest becomes equal to that of the first one, somewhere
 * between two passes. Answers how long that stays unnoticed, in seconds. */
static double wait_for_pass(struct pgs_vms *vms, unsigned interval_s)
{
    struct timespec rest = { .tv_sec = interval_s / 2 };
    uint64_t begin;

    memcpy(vms->vm[1].memory, vms->vm[0].memory, PGSHARE_PAGE_SIZE);
    begin = pgs_bench_now();
    for (unsigned i = 0; i < 3; i++) {
        nanosleep(&rest, NULL);
        if (pgs_vms_merge(vms, UINT64_MAX))
            return (double)(pgs_bench_now() - begin) / 1e9;
        rest.tv_sec = interval_s;
    }
    pgs_bench_die("kvm-steady: a duplicate is not found");
}

void pgs_bench_kvm_steady(struct pgs_bench *bench)
{
    struct pgs_series passes = { 0 }, scans = { 0 };
    struct pgs_figure figure = {
        .name = "kvm-steady",
        .metric = "a pass over 1 GiB of which nothing was written, beside KSM",
        .unit = "us",
        .yardstick = "a scan of Linux KSM over the same, CPU time",
        .limit = 1 / 50.,
        .bound = PGS_BOUND_RATIO,
    };
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    const char *missing = pgs_vms_missing();
    struct pgs_layout layout;
    struct pgs_vms vms;

    if (missing) {
        pgs_report_note(bench->report, "kvm-steady: %s", missing);
        return;
    }
    make_distinct(&layout, bench->quick ? PAGES_QUICK : PAGES);
    pgs_vms_open(&vms, &layout, false);
    pgs_vms_register(&vms, 0);
    for (unsigned i = 0; i < 2 + rounds; i++) {
        double cpu = pass(&vms);

        if (i >= 2)
            pgs_series_add(&passes, cpu);
    }
    measure_ksm(&layout, &scans, rounds);
    figure.value = pgs_series_median(&passes) / 1e3;
    figure.yardstick_value = scans.n ? pgs_series_median(&scans) / 1e3 : 0;
    if (scans.n)
        pgs_report_add(bench->report, &figure);
    else
        pgs_report_note(bench->report,
                        "kvm-steady: a pass takes %.0f us; no figure of KSM "
                        "(needs root, and a kernel with KSM)",
                        figure.value);
    figure = (struct pgs_figure){
        .name = "kvm-steady",
        .metric = "a new duplicate is shared, with a pass every 10 s",
        .unit = "s",
        .yardstick = "the time between two passes",
        .yardstick_value = INTERVAL_S,
        .limit = LIMIT_S,
        .bound = PGS_BOUND_VALUE,
    };
    figure.value = wait_for_pass(&vms, bench->quick ? 0 : INTERVAL_S);
    pgs_report_add(bench->report, &figure);
    pgs_vms_close(&vms);
    pgs_layout_fini(&layout);
    pgs_series_fini(&passes);
    pgs_series_fini(&scans);
}
