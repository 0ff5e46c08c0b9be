/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * teardown: removing a domain all of whose 100,000 pages map one frame, while
 * other domains map it too. The yardstick is a random read for each mapping of
 * a table as large as words and rmap entries.
 */
#include "bench.h"

#include "measure.h"

#define MAPPINGS 100000u
#define MAPPINGS_QUICK 10000u
#define ROUNDS 15u
#define BYTES_A_MAPPING 32u
#define LIMIT_MS 20.0

static double remove_ms(struct pgs_population *others, uint32_t mappings)
{
    struct pgs_rig *rig = &others->rig;
    struct pgs_guest guest;
    uint64_t begin, time;

    pgs_rig_guest(rig, &guest, mappings, PGS_CONTENT_SAME, true);
    pgs_rig_join(rig, &guest);
    for (uint64_t gfn = 0; gfn < mappings; gfn++)
        pgs_rig_share(rig, &others->source, 0, &guest, gfn, 1);
    begin = pgs_bench_now();
    pgs_bench_check(pgshare_domain_remove(rig->host, guest.dom),
                    "pgshare_domain_remove");
    time = pgs_bench_now() - begin;
    pgshare_mock_domain_free(guest.mock);
    /* The frames that its sharing freed go back to the machine. */
    pgs_bench_check(pgshare_host_settle(rig->host, PGSHARE_FOREVER),
                    "pgshare_host_settle");
    return (double)time / 1e6;
}

void pgs_bench_teardown(struct pgs_bench *bench)
{
    uint32_t mappings = bench->quick ? MAPPINGS_QUICK : MAPPINGS;
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    size_t bytes = (size_t)mappings * BYTES_A_MAPPING;
    uint64_t *table = pgs_bench_memory_new(bytes);
    struct pgs_series removals = { 0 }, reads = { 0 };
    struct pgs_population others;
    struct pgs_figure figure = {
        .name = "teardown",
        .unit = "ms",
        .limit = LIMIT_MS,
        .bound = PGS_BOUND_VALUE,
    };

    snprintf(figure.metric, sizeof(figure.metric),
             "removing a domain with %u mappings of one frame, which has as "
             "many others",
             mappings);
    snprintf(figure.yardstick, sizeof(figure.yardstick),
             "%u random reads of a table of %zu KiB", mappings, bytes >> 10);
    pgs_population_open(&others, mappings, true);
    for (unsigned i = 0; i < rounds; i++) {
        pgs_series_add(&reads, mappings / 1e6 *
                                   pgs_bench_random_reads(&bench->seed, table,
                                                          bytes, mappings));
        pgs_series_add(&removals, remove_ms(&others, mappings));
    }
    pgs_population_close(&others);
    pgs_bench_memory_free(table, bytes);
    figure.value = pgs_series_median(&removals);
    figure.yardstick_value = pgs_series_median(&reads);
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&removals);
    pgs_series_fini(&reads);
}
