/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm-merge, kvm-stall: two guests of 512 MiB with equal content, from being
 * registered until 99 % is shared, beside KSM with the same memory; and what a
 * processor notices of it.
 *
 * All memory has been touched before: a round that is not counted goes first,
 * so that what the kernel hands out later is warm. Both sides are at work alone,
 * one after the other, and for kvm-merge this process keeps to one CPU: where
 * another one has run a thread of it, each mapping that changes interrupts that
 * one, which on a virtual machine may take longer than all the rest.
 */
#include "kvm.h"

#include "ksm.h"
#include "measure.h"
#include "settings.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGES 131072u /* 512 MiB */
#define PAGES_QUICK 4096u
#define ROUNDS 3u
#define MAPPINGS "/proc/sys/vm/max_map_count"
#define PACE_NS 20000

static struct pgs_setting list[] = {
    { .path = MAPPINGS, .wanted = "4194304" },
};

static uint32_t pages_of(const struct pgs_bench *bench)
{
    return bench->quick ? PAGES_QUICK : PAGES;
}

/* Nanoseconds for each page that is shared. */
struct cost {
    double wall, cpu;
};

static struct cost merge(const struct pgs_layout *layout, uint32_t flags)
{
    uint64_t enough = layout->equal / 100 * 99, begin, cpu, saved;
    struct pgs_vms vms;
    struct cost cost;

    pgs_vms_open(&vms, layout, false);
    begin = pgs_bench_now();
    cpu = pgs_vms_cpu();
    pgs_vms_register(&vms, flags);
    saved = pgs_vms_merge(&vms, enough);
    cost.cpu = (double)(pgs_vms_cpu() - cpu) / (double)saved;
    cost.wall = (double)(pgs_bench_now() - begin) / (double)saved;
    if (saved < enough)
        pgs_bench_die("kvm-merge: %llu of %u pages are shared",
                      (unsigned long long)saved, layout->equal);
    pgs_vms_check(&vms);
    pgs_vms_close(&vms);
    return cost;
}

/* The same by KSM; false: it took too long. */
static bool merge_ksm(const struct pgs_layout *layout, struct cost *ret_cost)
{
    uint64_t enough = layout->equal / 100 * 99, taken = 0, cpu = 0;
    unsigned char *memory[PGS_VMS];

    for (unsigned i = 0; i < PGS_VMS; i++)
        memory[i] = pgs_ksm_memory_new(layout->content[i], layout->pages);
    if (memory[0] && memory[1] && pgs_ksm_stop()) {
        cpu = pgs_ksm_cpu();
        if (pgs_ksm_start())
            taken = pgs_ksm_await("pages_sharing", enough);
        cpu = pgs_ksm_cpu() - cpu;
    }
    for (unsigned i = 0; i < PGS_VMS; i++)
        pgs_ksm_memory_free(memory[i], layout->pages);
    pgs_ksm_stop();
    ret_cost->wall = (double)taken / (double)enough;
    ret_cost->cpu = (double)cpu / (double)enough;
    return taken;
}

/* ---- kvm-merge --------------------------------------------------------- */

static const struct {
    enum pgs_order order;
    const char *text;
    double limit;
} orders[] = {
    { PGS_ORDER_SAME, "same order", 1 / 5. },
    { PGS_ORDER_EIGHTS, "extents of 8, random order", 1 / 3. },
    { PGS_ORDER_SINGLE, "single pages, random order", 1 / 1.3 },
};
#define N_ORDERS (sizeof(orders) / sizeof(orders[0]))

static void add(struct pgs_bench *bench, const char *what, const char *text,
                struct pgs_series *ours, struct pgs_series *ksm, double limit)
{
    struct pgs_figure figure = {
        .name = "kvm-merge",
        .unit = "ns/page",
        .yardstick = "Linux KSM at full speed, the same memory",
        .limit = limit,
        .bound = limit > 0 ? PGS_BOUND_RATIO : PGS_BOUND_NONE,
    };

    snprintf(figure.metric, sizeof(figure.metric),
             "two equal guests beside KSM, %s, %s", what, text);
    figure.value = pgs_series_median(ours);
    figure.yardstick_value = pgs_series_median(ksm);
    pgs_report_add(bench->report, &figure);
}

static void measure_order(struct pgs_bench *bench, unsigned k, bool ksm)
{
    struct pgs_series wall[2] = { { 0 } }, cpu[2] = { { 0 } };
    struct pgs_layout layout;

    pgs_layout_init(&layout, orders[k].order, pages_of(bench), bench->seed);
    merge(&layout, 0);
    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS); i++) {
        struct cost cost = merge(&layout, 0);

        pgs_series_add(&wall[0], cost.wall);
        pgs_series_add(&cpu[0], cost.cpu);
        if (!ksm || !merge_ksm(&layout, &cost))
            continue;
        pgs_series_add(&wall[1], cost.wall);
        pgs_series_add(&cpu[1], cost.cpu);
    }
    if (wall[1].n) {
        add(bench, "wall time", orders[k].text, &wall[0], &wall[1],
            orders[k].limit);
        add(bench, "CPU time", orders[k].text, &cpu[0], &cpu[1], 0);
    } else {
        pgs_report_note(bench->report,
                        "kvm-merge, %s: %.0f ns a page, %.0f of CPU time; no "
                        "figure of KSM (needs root, and a kernel with KSM)",
                        orders[k].text, pgs_series_median(&wall[0]),
                        pgs_series_median(&cpu[0]));
    }
    for (unsigned i = 0; i < 2; i++) {
        pgs_series_fini(&wall[i]);
        pgs_series_fini(&cpu[i]);
    }
    pgs_layout_fini(&layout);
}

/* As many mappings as a process has by default. */
static void measure_reached(struct pgs_bench *bench)
{
    struct pgs_figure figure = {
        .name = "kvm-merge",
        .metric = "single pages shared with the default vm.max_map_count, "
                  "random order",
        .unit = "pages",
        .yardstick = "pages with an equal",
        .bound = PGS_BOUND_NONE,
    };
    struct pgs_layout layout;
    struct pgs_vms vms;

    pgs_layout_init(&layout, PGS_ORDER_SINGLE, pages_of(bench), bench->seed);
    pgs_vms_open(&vms, &layout, false);
    pgs_vms_register(&vms, 0);
    figure.value = (double)pgs_vms_merge(&vms, layout.equal);
    figure.yardstick_value = layout.equal;
    pgs_report_add(bench->report, &figure);
    pgs_vms_check(&vms);
    pgs_vms_close(&vms);
    pgs_layout_fini(&layout);
}

/* To the first CPU that it may use; what it could use before is in *ret_old. */
static void keep_to_one_cpu(cpu_set_t *ret_old)
{
    cpu_set_t one;
    int cpu = 0;

    if (sched_getaffinity(0, sizeof(*ret_old), ret_old))
        pgs_bench_die("sched_getaffinity");
    while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, ret_old))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

void pgs_bench_kvm_merge(struct pgs_bench *bench)
{
    const char *missing = pgs_vms_missing();
    struct pgs_settings settings;
    bool ksm, raised;
    cpu_set_t cpus;

    if (missing) {
        pgs_report_note(bench->report, "kvm-merge: %s", missing);
        return;
    }
    keep_to_one_cpu(&cpus);
    pgs_report_note(bench->report, "kvm-merge: this process keeps to one CPU");
    if (pgs_bench_wants(bench, "single pages shared with the default"))
        measure_reached(bench);
    pgs_settings_open(&settings, list, 1);
    pgs_settings_set(&settings, 1);
    raised = pgs_setting_is_set(&list[0]);
    if (!raised)
        pgs_report_note(bench->report, "kvm-merge: vm.max_map_count cannot be "
                                       "raised, which single pages need");
    ksm = pgs_ksm_open();
    for (unsigned k = 0; k < N_ORDERS; k++)
        if (pgs_bench_wants(bench, orders[k].text) &&
            (raised || orders[k].order == PGS_ORDER_SAME))
            measure_order(bench, k, ksm);
    if (ksm)
        pgs_ksm_close();
    pgs_settings_close(&settings);
    sched_setaffinity(0, sizeof(cpus), &cpus);
}

/* ---- kvm-stall --------------------------------------------------------- */

#define STALLS_MAX (1u << 20)

/* A processor that writes to random pages, at a steady pace. */
struct processor {
    pthread_t thread;
    _Atomic bool stop;
    unsigned char *memory;
    uint32_t pages;
    uint64_t seed;
    uint32_t *stalls; /* [n] ns */
    uint32_t n;
};

/* The first word of a page is its own already: what it writes changes
 * nothing. */
static void *write_on(void *ctx)
{
    struct processor *processor = ctx;

    while (!atomic_load(&processor->stop) && processor->n < STALLS_MAX) {
        uint32_t gfn = (uint32_t)pgs_bench_below(&processor->seed,
                                                 processor->pages);
        volatile uint64_t *word = (volatile uint64_t *)(void *)(
            processor->memory + (size_t)gfn * PGSHARE_PAGE_SIZE);
        uint64_t begin = pgs_bench_now(), end;

        *word = *word;
        end = pgs_bench_now();
        processor->stalls[processor->n++] = (uint32_t)(end - begin);
        while (pgs_bench_now() - end < PACE_NS)
            ;
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

struct stalls {
    double p99, longest; /* ns */
};

/* While the guests are merged, or (off) for as long as that took. */
static struct stalls stall(const struct pgs_layout *layout, bool on,
                           uint64_t *time)
{
    struct processor processor = { .pages = layout->pages, .seed = 1 };
    struct stalls stalls;
    struct pgs_vms vms;
    uint64_t begin;

    processor.stalls = calloc(STALLS_MAX, sizeof(*processor.stalls));
    if (!processor.stalls)
        pgs_bench_die("no memory");
    pgs_vms_open(&vms, layout, false);
    processor.memory = vms.vm[1].memory;
    if (pthread_create(&processor.thread, NULL, write_on, &processor))
        pgs_bench_die("no thread");
    begin = pgs_bench_now();
    if (on) {
        pgs_vms_register(&vms, 0);
        pgs_vms_merge(&vms, layout->equal);
        *time = pgs_bench_now() - begin;
    }
    while (!on && pgs_bench_now() - begin < *time)
        ;
    atomic_store(&processor.stop, true);
    pthread_join(processor.thread, NULL);
    pgs_vms_check(&vms);
    pgs_vms_close(&vms);
    if (!processor.n)
        pgs_bench_die("kvm-stall: nothing was written");
    qsort(processor.stalls, processor.n, sizeof(*processor.stalls), compare);
    stalls.p99 = processor.stalls[processor.n - 1 - processor.n / 100];
    stalls.longest = processor.stalls[processor.n - 1];
    free(processor.stalls);
    return stalls;
}

void pgs_bench_kvm_stall(struct pgs_bench *bench)
{
    struct pgs_series p99[2] = { { 0 } }, longest[2] = { { 0 } };
    struct pgs_figure figure = {
        .name = "kvm-stall",
        .unit = "us",
        .yardstick = "the same run with sharing off",
        .bound = PGS_BOUND_VALUE,
    };
    const char *missing = pgs_vms_missing();
    struct pgs_layout layout;
    uint64_t time = 0;

    if (missing) {
        pgs_report_note(bench->report, "kvm-stall: %s", missing);
        return;
    }
    if (!pgs_bench_wants(bench, "write stalls"))
        return;
    pgs_layout_init(&layout, PGS_ORDER_SAME, pages_of(bench), bench->seed);
    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS); i++) {
        for (unsigned off = 0; off < 2; off++) {
            struct stalls stalls = stall(&layout, !off, &time);

            pgs_series_add(&p99[off], stalls.p99 / 1e3);
            pgs_series_add(&longest[off], stalls.longest / 1e3);
        }
    }
    snprintf(figure.metric, sizeof(figure.metric),
             "write stalls during kvm-merge, 99 of 100 are at most");
    figure.value = pgs_series_median(&p99[0]);
    figure.yardstick_value = pgs_series_median(&p99[1]);
    figure.limit = 1000;
    pgs_report_add(bench->report, &figure);
    snprintf(figure.metric, sizeof(figure.metric),
             "write stalls during kvm-merge, the longest");
    figure.value = pgs_series_median(&longest[0]);
    figure.yardstick_value = pgs_series_median(&longest[1]);
    figure.limit = 2 * figure.yardstick_value;
    if (figure.limit < 10000)
        figure.limit = 10000;
    pgs_report_add(bench->report, &figure);
    for (unsigned i = 0; i < 2; i++) {
        pgs_series_fini(&p99[i]);
        pgs_series_fini(&longest[i]);
    }
    pgs_layout_fini(&layout);
}
