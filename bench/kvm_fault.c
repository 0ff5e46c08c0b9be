/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm-fault: first writes to shared pages, by both of their sharers, in batches,
 * and what follows: the breaks are found, the accounts settled, the frames
 * released. Beside the same writes to pages that KSM has merged.
 *
 * A trapped guest's writes are all resolved by the time they end.
 */
#include "kvm.h"

#include "ksm.h"
#include "measure.h"

#include <stdio.h>

#define PAGES 65536u
#define PAGES_QUICK 4096u
#define BATCH 4096u
#define BATCH_QUICK 256u

struct measure {
    struct pgs_layout layout;
    uint32_t batch;
    struct pgs_series ours, trapped, ksm; /* ns a page, of a batch each */
};

/* Both guests write to the pages of a batch. */
static void write_batch(const struct measure *m, unsigned char *const memory[],
                        uint32_t gfn)
{
    for (unsigned i = 0; i < PGS_VMS; i++)
        for (uint32_t k = gfn; k < gfn + m->batch; k++)
            memory[i][(size_t)k * PGSHARE_PAGE_SIZE] ^= 0xff;
}

static void measure_ours(struct measure *m, uint32_t flags,
                         struct pgs_series *series)
{
    unsigned char *memory[PGS_VMS];
    struct pgs_vms vms;
    uint64_t begin;

    pgs_vms_open(&vms, &m->layout, true);
    pgs_vms_register(&vms, flags);
    if (pgs_vms_merge(&vms, UINT64_MAX) != m->layout.equal)
        pgs_bench_die("kvm-fault: not all is shared");
    for (unsigned i = 0; i < PGS_VMS; i++)
        memory[i] = vms.vm[i].memory;
    for (uint32_t gfn = 0; gfn + m->batch <= m->layout.pages; gfn += m->batch) {
        begin = pgs_bench_now();
        write_batch(m, memory, gfn);
        pgs_bench_check(pgshare_host_settle(vms.host, PGSHARE_FOREVER),
                        "pgshare_host_settle");
        pgs_series_add(series, (double)(pgs_bench_now() - begin) /
                                   (PGS_VMS * m->batch));
        write_batch(m, memory, gfn); /* as it was */
    }
    pgs_vms_check(&vms);
    pgs_vms_close(&vms);
}

static void measure_ksm(struct measure *m)
{
    unsigned char *memory[PGS_VMS];
    uint64_t begin;
    bool ready;

    if (!pgs_ksm_open())
        return;
    for (unsigned i = 0; i < PGS_VMS; i++)
        memory[i] = pgs_ksm_memory_new(m->layout.content[i], m->layout.pages);
    ready = memory[0] && memory[1] && pgs_ksm_stop() && pgs_ksm_start() &&
            pgs_ksm_await("pages_sharing", m->layout.equal / 100 * 99) &&
            pgs_ksm_rest();
    for (uint32_t gfn = 0; ready && gfn + m->batch <= m->layout.pages;
         gfn += m->batch) {
        begin = pgs_bench_now();
        write_batch(m, memory, gfn);
        pgs_series_add(&m->ksm, (double)(pgs_bench_now() - begin) /
                                    (PGS_VMS * m->batch));
    }
    for (unsigned i = 0; i < PGS_VMS; i++)
        pgs_ksm_memory_free(memory[i], m->layout.pages);
    pgs_ksm_close();
}

static void add(struct pgs_bench *bench, struct measure *m, const char *what,
                struct pgs_series *series, double limit)
{
    struct pgs_figure figure = {
        .name = "kvm-fault",
        .unit = "ns/page",
        .yardstick = "Linux KSM's copy-on-write, the same writes",
        .limit = limit,
        .bound = limit > 0 ? PGS_BOUND_RATIO : PGS_BOUND_NONE,
    };

    if (!m->ksm.n) {
        pgs_report_note(bench->report,
                        "kvm-fault, %s: %.0f ns a page; no figure of KSM (needs "
                        "root, and a kernel with KSM)",
                        what, pgs_series_median(series));
        return;
    }
    snprintf(figure.metric, sizeof(figure.metric),
             "first write by both sharers and all that follows, beside KSM, %s, "
             "sequential",
             what);
    figure.value = pgs_series_median(series);
    figure.yardstick_value = pgs_series_median(&m->ksm);
    pgs_report_add(bench->report, &figure);
}

void pgs_bench_kvm_fault(struct pgs_bench *bench)
{
    struct measure m = { .batch = bench->quick ? BATCH_QUICK : BATCH };
    const char *missing = pgs_vms_missing();

    if (missing) {
        pgs_report_note(bench->report, "kvm-fault: %s", missing);
        return;
    }
    pgs_layout_init(&m.layout, PGS_ORDER_SAME,
                    bench->quick ? PAGES_QUICK : PAGES, bench->seed);
    measure_ours(&m, 0, &m.ours);
    measure_ksm(&m);
    measure_ours(&m, PGSHARE_KVM_TRAPPED, &m.trapped);
    add(bench, &m, "kernel mode", &m.ours, 1.5);
    add(bench, &m, "trapped", &m.trapped, 0);
    pgs_layout_fini(&m.layout);
    pgs_series_fini(&m.ours);
    pgs_series_fini(&m.trapped);
    pgs_series_fini(&m.ksm);
}
