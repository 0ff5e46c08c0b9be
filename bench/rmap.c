/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rmap: does it matter how many mappings a frame has?
 *
 * Random mappings of one frame with a million of them are unshared, and random
 * mappings of half a million frames with two each. Where content is copied, the
 * one frame has it in the cache and the many have not; so the same is measured
 * for faults that copy nothing, which leaves the books alone to differ.
 */
#include "bench.h"

#include "measure.h"

#include <stdlib.h>

#define MAPPINGS 1000000u
#define MAPPINGS_QUICK 10000u
#define BATCH 256u
#define ROUND 2048u
#define ROUNDS 45u

struct side {
    struct pgs_population population;
    uint32_t *order;
    uint32_t at;
};

static uint32_t next(struct side *side)
{
    uint32_t page = side->order[side->at];

    side->at = side->at + 1 == side->population.client.gfns ? 0 : side->at + 1;
    return page;
}

static uint64_t unshare_batch(struct side *side, const uint32_t *pages)
{
    struct pgs_population *p = &side->population;
    uint64_t begin = pgs_bench_now();
    int r = 0;

    for (uint32_t i = 0; !r && i < BATCH; i++)
        r = pgshare_unshare(p->rig.host, p->client.dom, pages[i], 1, NULL);
    pgs_bench_check(r, "pgshare_unshare");
    return pgs_bench_now() - begin;
}

static uint64_t overwrite_batch(struct side *side, const uint32_t *pages)
{
    struct pgs_population *p = &side->population;
    uint64_t begin = pgs_bench_now();
    int r = 0;

    for (uint32_t i = 0; !r && i < BATCH; i++)
        r = pgshare_fault_write(p->rig.host, p->client.dom, pages[i],
                                PGSHARE_FAULT_WHOLE_PAGE, NULL, NULL);
    pgs_bench_check(r, "pgshare_fault_write");
    return pgs_bench_now() - begin;
}

/* Shares the pages again, in reverse: what was freed last is used first. */
static void restore(struct side *side, const uint32_t *pages, bool overwritten)
{
    static unsigned char content[PGSHARE_PAGE_SIZE];
    static enum pgs_content same = PGS_CONTENT_SAME;
    struct pgs_population *p = &side->population;

    for (uint32_t i = BATCH; i > 0; i--) {
        uint32_t page = pages[i - 1];

        if (overwritten) {
            pgs_content_fill(p->one ? &same : NULL, 0, page, content);
            pgs_bench_check(pgshare_mock_write_page(p->client.mock, page,
                                                    content),
                            "pgshare_mock_write_page");
        }
        pgs_population_share(p, page, 1);
    }
    for (uint32_t polls = 0; overwritten && polls < BATCH / 64; polls++)
        pgshare_mock_poll(p->rig.machine);
}

/* Samples are nanoseconds per page. */
static void turn(struct side *side, bool overwrite, struct pgs_series *samples)
{
    uint32_t pages[BATCH];

    for (uint32_t i = 0; i < ROUND; i += BATCH) {
        uint64_t time;

        for (uint32_t k = 0; k < BATCH; k++)
            pages[k] = next(side);
        time = overwrite ? overwrite_batch(side, pages)
                         : unshare_batch(side, pages);
        pgs_series_add(samples, (double)time / BATCH);
        restore(side, pages, overwrite);
    }
}

static void measure(struct pgs_bench *bench, struct side *one,
                    struct side *many, bool overwrite)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    uint32_t mappings = (uint32_t)one->population.client.gfns + 1;
    struct pgs_series ours = { 0 }, theirs = { 0 };
    struct pgs_figure figure = {
        .name = "rmap",
        .unit = "ns/page",
        .limit = 2,
        .bound = PGS_BOUND_RATIO,
    };

    snprintf(figure.metric, sizeof(figure.metric),
             "%s of one frame with %u mappings, random order",
             overwrite ? "whole-page faults, nothing copied," : "unsharing",
             mappings);
    snprintf(figure.yardstick, sizeof(figure.yardstick),
             "the same of %u frames with 2 mappings each", mappings / 2);
    if (!pgs_bench_wants(bench, figure.metric))
        return;
    for (unsigned i = 0; i < rounds; i++) {
        turn(many, overwrite, &theirs);
        turn(one, overwrite, &ours);
    }
    figure.value = pgs_series_median(&ours);
    figure.yardstick_value = pgs_series_median(&theirs);
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&ours);
    pgs_series_fini(&theirs);
}

void pgs_bench_rmap(struct pgs_bench *bench)
{
    uint32_t mappings = bench->quick ? MAPPINGS_QUICK : MAPPINGS;
    struct side sides[2] = { 0 };

    for (unsigned one = 0; one < 2; one++) {
        struct pgs_population *population = &sides[one].population;

        pgs_population_open(population, mappings, one);
        sides[one].order = pgs_bench_order_new(
            &bench->seed, (uint32_t)population->client.gfns);
    }
    measure(bench, &sides[1], &sides[0], false);
    measure(bench, &sides[1], &sides[0], true);
    for (unsigned one = 0; one < 2; one++) {
        pgs_population_close(&sides[one].population);
        free(sides[one].order);
    }
}
