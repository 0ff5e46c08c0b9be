/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * audit: how long a million mappings take, however they are spread. An audit
 * has to look at the word and at the rmap entry of each mapping; the yardstick
 * reads as many random places of a table as large.
 */
#include "bench.h"

#include "measure.h"

#define MAPPINGS 1000000u
#define MAPPINGS_QUICK 10000u
#define ROUNDS 9u
#define BYTES_A_MAPPING 32u
#define LIMIT_MS 300.0

static double audit_ms(struct pgshare_host *host, uint64_t mappings)
{
    struct pgshare_audit audit = { .size = sizeof(audit) };
    uint64_t begin = pgs_bench_now();
    uint64_t time;

    pgs_bench_check(pgshare_host_audit(host, NULL, &audit),
                    "pgshare_host_audit");
    time = pgs_bench_now() - begin;
    if (audit.violations || audit.mappings < mappings)
        pgs_bench_die("the audit found %llu violations, %llu mappings",
                      (unsigned long long)audit.violations,
                      (unsigned long long)audit.mappings);
    return (double)time / 1e6;
}

static void measure(struct pgs_bench *bench, uint32_t mappings, bool one)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    struct pgs_population population;
    struct pgs_series audits = { 0 }, reads = { 0 };
    size_t bytes = (size_t)mappings * BYTES_A_MAPPING;
    uint64_t *table = pgs_bench_memory_new(bytes);
    struct pgs_figure figure = {
        .name = "audit",
        .unit = "ms",
        .limit = LIMIT_MS,
        .bound = PGS_BOUND_VALUE,
    };

    snprintf(figure.metric, sizeof(figure.metric),
             "%u mappings of %u frame%s, ascending", mappings,
             one ? 1 : mappings / 2, one ? "" : "s");
    snprintf(figure.yardstick, sizeof(figure.yardstick),
             "%u random reads of a table of %zu MiB", mappings, bytes >> 20);
    pgs_population_open(&population, mappings, one);
    for (unsigned i = 0; i < rounds; i++) {
        pgs_series_add(&reads, mappings / 1e6 *
                                   pgs_bench_random_reads(&bench->seed, table,
                                                          bytes, mappings));
        pgs_series_add(&audits, audit_ms(population.rig.host, mappings));
    }
    pgs_population_close(&population);
    pgs_bench_memory_free(table, bytes);
    figure.value = pgs_series_median(&audits);
    figure.yardstick_value = pgs_series_median(&reads);
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&audits);
    pgs_series_fini(&reads);
}

void pgs_bench_audit(struct pgs_bench *bench)
{
    uint32_t mappings = bench->quick ? MAPPINGS_QUICK : MAPPINGS;

    measure(bench, mappings, true);
    measure(bench, mappings, false);
}
