/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault: what a CoW fault costs, core and mock together.
 *
 * Each page of a source guest, which have bytes, is shared with the same page
 * of a client. Faults on the client copy; sharing the pages again, which is not
 * timed, gives their frames back, so that the next faults get recycled frames.
 * That is done after every BATCH faults. The yardstick copies pages of a
 * buffer as large into frames of a pool that is last in, first out, and
 * compares them afterwards as the sharing does, so that both find their caches
 * alike. Every batch is a sample: a fraction of a millisecond, which hardly
 * ever is interrupted.
 */
#include "bench.h"

#include "measure.h"

#include <stdlib.h>
#include <string.h>

#define BATCH 256u
#define ROUND 4096u /* pages timed in one turn */
#define ROUNDS 95u  /* more than once through the whole set */
#define READS 8.0
#define MAX_THREADS 2u

/* One way through the pages. */
struct sweep {
    const uint32_t *order; /* NULL: ascending */
    uint32_t first;        /* the sweep's part of the set … */
    uint32_t n;            /* … and its size, a multiple of ROUND */
    uint32_t at;
};

struct yardstick {
    unsigned char *bytes;
    unsigned char *pool[BATCH]; /* unused frames, the last is the next */
};

struct set {
    struct pgs_rig rig;
    struct pgs_guest source;
    struct pgs_guest client;
    uint32_t pages;
    uint32_t *order;
    unsigned char *bytes;                 /* the yardsticks' source */
    unsigned char *frames;                /* and their pools' */
    struct yardstick sticks[MAX_THREADS]; /* one for each thread */
};

/* The next BATCH pages. */
static void sweep_next(struct sweep *sweep, uint32_t *ret_pages)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        uint32_t index = sweep->first + sweep->at;

        ret_pages[i] = sweep->order ? sweep->order[index] : index;
        sweep->at = sweep->at + 1 == sweep->n ? 0 : sweep->at + 1;
    }
}

static void add_sample(struct pgs_series *samples, uint64_t time)
{
    pgs_series_add(samples, (double)time / BATCH);
}

/* ---- the library ------------------------------------------------------- */

/* Faults on a batch; the answer is the time. */
static uint64_t fault_batch(struct set *set, const struct pgs_guest *guest,
                            const uint32_t *pages, uint32_t outcome)
{
    struct pgshare_fault fault = { .size = sizeof(fault) };
    uint64_t begin = pgs_bench_now();
    uint64_t time;
    bool right = true;

    for (uint32_t i = 0; i < BATCH; i++) {
        int r = pgshare_fault_write(set->rig.host, guest->dom, pages[i], 0,
                                    NULL, &fault);

        right &= !r && fault.outcome == outcome;
    }
    time = pgs_bench_now() - begin;
    if (!right)
        pgs_bench_die("a fault came out as \"%s\" instead of \"%s\"",
                      pgshare_fault_name(fault.outcome),
                      pgshare_fault_name(outcome));
    return time;
}

static void share_batch(struct set *set, const uint32_t *pages, bool ascending)
{
    if (ascending) {
        pgs_rig_share(&set->rig, &set->source, pages[0], &set->client, pages[0],
                      BATCH);
        return;
    }
    for (uint32_t i = BATCH; i > 0; i--)
        pgs_rig_share(&set->rig, &set->source, pages[i - 1], &set->client,
                      pages[i - 1], 1);
}

/* A turn each. Samples are nanoseconds per page. */

static void copy_round(struct set *set, struct sweep *sweep,
                       struct pgs_series *samples)
{
    uint32_t pages[BATCH];

    for (uint32_t i = 0; i < ROUND; i += BATCH) {
        sweep_next(sweep, pages);
        add_sample(samples,
                   fault_batch(set, &set->client, pages, PGSHARE_FAULT_COPIED));
        share_batch(set, pages, !sweep->order);
    }
}

/* The clients' mappings are broken first, all of the turn's. */
static void last_round(struct set *set, struct sweep *sweep,
                       struct pgs_series *samples)
{
    uint32_t pages[BATCH];
    uint32_t begin = sweep->first + sweep->at;

    pgs_rig_unshare(&set->rig, &set->client, begin, ROUND);
    for (uint32_t i = 0; i < ROUND; i += BATCH) {
        sweep_next(sweep, pages);
        add_sample(samples, fault_batch(set, &set->source, pages,
                                        PGSHARE_FAULT_LAST_MAPPING));
    }
    pgs_rig_share(&set->rig, &set->source, begin, &set->client, begin, ROUND);
}

/* The client says that it has freed the pages; afterwards they get their
 * content back. */
static void free_round(struct set *set, struct sweep *sweep,
                       struct pgs_series *samples)
{
    static unsigned char page[PGSHARE_PAGE_SIZE];
    struct pgs_rig *rig = &set->rig;
    uint32_t pages[BATCH];

    for (uint32_t i = 0; i < ROUND; i += BATCH) {
        sweep_next(sweep, pages);
        for (uint32_t polls = 0; polls < BATCH / 64; polls++)
            pgshare_mock_poll(rig->machine);
        pgs_bench_check(pgshare_declare_free(rig->host, set->client.dom,
                                             pages[0], BATCH),
                        "pgshare_declare_free");
        add_sample(samples,
                   fault_batch(set, &set->client, pages, PGSHARE_FAULT_FREE));
        pgs_bench_check(pgshare_declare_allocated(rig->host, set->client.dom,
                                                  pages[0], BATCH),
                        "pgshare_declare_allocated");
        for (uint32_t k = 0; k < BATCH; k++) {
            pgs_content_fill(NULL, 0, pages[k], page);
            pgs_bench_check(pgshare_mock_write_page(set->client.mock, pages[k],
                                                    page),
                            "pgshare_mock_write_page");
        }
        share_batch(set, pages, true);
    }
}

/* ---- the yardstick ----------------------------------------------------- */

static uint64_t memcpy_batch(struct yardstick *stick, const uint32_t *pages)
{
    size_t size = pgs_bench_page_size();
    uint64_t begin = pgs_bench_now();
    uint64_t time;
    uint64_t different = 0;

    for (uint32_t i = 0; i < BATCH; i++)
        memcpy(stick->pool[BATCH - 1 - i], stick->bytes + pages[i] * size,
               size);
    pgs_bench_use((uint64_t)(uintptr_t)stick->pool[0]);
    time = pgs_bench_now() - begin;
    for (uint32_t i = 0; i < BATCH; i++)
        different += memcmp(stick->pool[BATCH - 1 - i],
                            stick->bytes + pages[i] * size, size) != 0;
    pgs_bench_use(different);
    return time;
}

static void memcpy_round(struct yardstick *stick, struct sweep *sweep,
                         struct pgs_series *samples)
{
    uint32_t pages[BATCH];

    for (uint32_t i = 0; i < ROUND; i += BATCH) {
        sweep_next(sweep, pages);
        add_sample(samples, memcpy_batch(stick, pages));
    }
}

/* ---- two threads ------------------------------------------------------- */

/* Each thread has a part of the pages for itself. */
struct crew {
    struct set *set;
    struct sweep sweeps[MAX_THREADS];
    bool library;
};

static double crew_round(void *ctx, unsigned thread)
{
    struct crew *crew = ctx;
    struct sweep *sweep = &crew->sweeps[thread];
    struct set *set = crew->set;
    struct pgs_series samples = { 0 };
    uint32_t pages[BATCH];
    double median;

    for (uint32_t i = 0; i < ROUND; i += BATCH) {
        sweep_next(sweep, pages);
        pgs_bench_meet();
        if (!crew->library) {
            add_sample(&samples, memcpy_batch(&set->sticks[thread], pages));
            continue;
        }
        add_sample(&samples,
                   fault_batch(set, &set->client, pages, PGSHARE_FAULT_COPIED));
        pgs_bench_meet();
        share_batch(set, pages, true);
    }
    median = pgs_series_median(&samples);
    pgs_series_fini(&samples);
    return median;
}

static void measure_threads(struct pgs_bench *bench, struct set *set)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS / 2);
    struct pgs_series series[2][MAX_THREADS] = { 0 };
    struct pgs_figure figure = {
        .name = "fault",
        .metric = "2 threads on different pages against 1, sequential",
        .unit = "times as fast",
        .yardstick = "bare memcpy in 2 threads against 1",
        .limit = 0.9,
        .bound = PGS_BOUND_RATIO_MIN,
    };
    struct crew crew[2];

    if (!pgs_bench_wants(bench, figure.metric))
        return;
    for (unsigned library = 0; library < 2; library++) {
        crew[library].set = set;
        crew[library].library = library;
        for (unsigned i = 0; i < MAX_THREADS; i++)
            crew[library].sweeps[i] = (struct sweep){
                .first = i * (set->pages / MAX_THREADS),
                .n = set->pages / MAX_THREADS,
            };
    }
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < 4; i++)
            pgs_series_add(&series[i / 2][i % 2],
                           pgs_bench_threads(i % 2 + 1, crew_round,
                                             &crew[i / 2]));
    figure.value = 2 * pgs_series_median(&series[1][0]) /
                   pgs_series_median(&series[1][1]);
    figure.yardstick_value = 2 * pgs_series_median(&series[0][0]) /
                             pgs_series_median(&series[0][1]);
    pgs_report_add(bench->report, &figure);
    for (unsigned i = 0; i < 4; i++)
        pgs_series_fini(&series[i / 2][i % 2]);
}

/* ---- one thread -------------------------------------------------------- */

/* Copying beside memcpy. */
static void measure_copies(struct pgs_bench *bench, struct set *set,
                           const uint32_t *order)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    struct sweep ours = { .order = order, .n = set->pages };
    struct sweep bare = ours;
    struct pgs_series faults = { 0 }, copies = { 0 }, reads = { 0 };
    struct pgs_figure figure = {
        .name = "fault",
        .metric = "copied, sequential",
        .unit = "ns/page",
        .yardstick = "bare memcpy into a recycled frame, sequential",
        .limit = 1.6,
        .bound = PGS_BOUND_RATIO,
    };

    if (order)
        snprintf(figure.metric, sizeof(figure.metric), "copied, random order");
    if (!pgs_bench_wants(bench, figure.metric))
        return;
    for (unsigned round = 0; round < rounds; round++) {
        memcpy_round(&set->sticks[0], &bare, &copies);
        copy_round(set, &ours, &faults);
        pgs_series_add(&reads,
                       pgs_bench_random_reads(
                           &bench->seed, (const uint64_t *)(void *)set->bytes,
                           (size_t)set->pages * PGSHARE_PAGE_SIZE, BATCH));
    }
    figure.value = pgs_series_median(&faults);
    figure.yardstick_value = pgs_series_median(&copies);
    if (order) {
        double read = pgs_series_median(&reads);

        figure.limit = 1;
        snprintf(figure.yardstick, sizeof(figure.yardstick),
                 "bare memcpy in random order (%.0f ns) + 8 bare random reads, "
                 "each after the other (%.0f ns)",
                 figure.yardstick_value, read);
        figure.yardstick_value += READS * read;
    }
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&faults);
    pgs_series_fini(&copies);
    pgs_series_fini(&reads);
}

/* An outcome that copies nothing beside the one that does. */
static void measure_outcome(struct pgs_bench *bench, struct set *set,
                            void (*round)(struct set *set, struct sweep *sweep,
                                          struct pgs_series *samples),
                            const char *metric, double cheaper)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS / 2);
    struct sweep copied = { .n = set->pages };
    struct sweep ours = copied;
    struct pgs_series faults = { 0 }, copies = { 0 };
    struct pgs_figure figure = {
        .name = "fault",
        .unit = "ns/page",
        .yardstick = "the copying outcome, sequential",
        .limit = 1 / cheaper,
        .bound = PGS_BOUND_RATIO,
    };

    if (!pgs_bench_wants(bench, metric))
        return;
    snprintf(figure.metric, sizeof(figure.metric), "%s", metric);
    for (unsigned i = 0; i < rounds; i++) {
        copy_round(set, &copied, &copies);
        round(set, &ours, &faults);
    }
    figure.value = pgs_series_median(&faults);
    figure.yardstick_value = pgs_series_median(&copies);
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&faults);
    pgs_series_fini(&copies);
}

/* ---- the set ----------------------------------------------------------- */

static void set_open(struct set *set, struct pgs_bench *bench)
{
    set->pages = pgs_bench_pages(bench);
    set->order = pgs_bench_order_new(&bench->seed, set->pages);
    set->bytes = pgs_bench_memory_new((size_t)set->pages * PGSHARE_PAGE_SIZE);
    set->frames = pgs_bench_memory_new((size_t)MAX_THREADS * BATCH *
                                       PGSHARE_PAGE_SIZE);
    for (uint32_t i = 0; i < MAX_THREADS * BATCH; i++)
        set->sticks[i / BATCH].pool[i % BATCH] = set->frames +
                                                 (size_t)i * PGSHARE_PAGE_SIZE;
    for (uint32_t i = 0; i < MAX_THREADS; i++)
        set->sticks[i].bytes = set->bytes;
    pgs_rig_open(&set->rig, 2 * (uint64_t)set->pages + 65536, BATCH);
    pgs_rig_guest(&set->rig, &set->source, set->pages, PGS_CONTENT_BY_GFN,
                  false);
    pgs_rig_guest(&set->rig, &set->client, set->pages, PGS_CONTENT_BY_GFN,
                  true);
    pgs_rig_join(&set->rig, &set->source);
    pgs_rig_join(&set->rig, &set->client);
    pgs_rig_share(&set->rig, &set->source, 0, &set->client, 0, set->pages);
}

static void set_close(struct set *set)
{
    pgs_rig_close(&set->rig);
    pgs_bench_memory_free(set->bytes, (size_t)set->pages * PGSHARE_PAGE_SIZE);
    pgs_bench_memory_free(set->frames,
                          (size_t)MAX_THREADS * BATCH * PGSHARE_PAGE_SIZE);
    free(set->order);
}

void pgs_bench_fault(struct pgs_bench *bench)
{
    struct set set = { 0 };

    set_open(&set, bench);
    pgs_report_note(bench->report,
                    "fault: %u MiB of pages, each frame with 2 mappings; "
                    "frames are recycled every %u pages",
                    set.pages >> 8, BATCH);
    measure_copies(bench, &set, NULL);
    measure_copies(bench, &set, set.order);
    measure_outcome(bench, &set, last_round, "last mapping, sequential", 2);
    measure_outcome(bench, &set, free_round,
                    "declared free, zeroed in advance, sequential", 1.5);
    measure_threads(bench, &set);
    set_close(&set);
}
