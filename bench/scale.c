/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * scale: what an operation on a random page costs on a host that tracks 256
 * million pages (1 TiB), against one that tracks a million.
 *
 * Both worlds have as many guests, as many frames, as many mappings; only the
 * guests are larger. Their pages are sparse and all alike. Before each part of
 * a round the caches are emptied by a stream; then the small world's page
 * tables and words are read once, since they would stay in the cache of a
 * machine of that size, and the large ones, which would not, are left alone. A
 * bare random read is measured in the same states: of a table with one word
 * for each page of the large world, and of one for each of the small.
 */
#include "bench.h"

#include "measure.h"

#include <stdlib.h>
#include <string.h>

#define GUESTS 16u
#define PAGES_SMALL 65536u /* of each guest */
#define PAGES_LARGE 16777216u
#define PAGES_LARGE_QUICK 262144u
#define OPS 2048u   /* timed in one turn … */
#define SAMPLE 256u /* … in parts of so many */
#define WARM 256u   /* before, not timed */
#define TRAFFIC 400000u
#define TOTAL (OPS + WARM)
#define ROUNDS 9u
#define FACTOR 4.0
#define P2M_STEP 1024u
#define IMAGE 7u

struct place {
    uint32_t guest;
    uint64_t gfn;
};

struct world {
    struct pgs_rig rig;
    struct pgs_guest guests[GUESTS];
    uint64_t pages; /* of each guest */
    struct place sources[TOTAL];
    struct place clients[TOTAL];
    uint64_t blocks; /* numbers of blocks used so far */
};

struct scene {
    struct pgs_bench *bench;
    struct world worlds[2]; /* small, large */
    unsigned char *stream;
    size_t stream_bytes;
    uint64_t *table;
};

/* ---- operations -------------------------------------------------------- */

/* Does operation `i` of the turn, prepared before. */
typedef void operation(struct world *world, uint32_t i);

static uint64_t dom_of(const struct world *world, struct place place)
{
    return world->guests[place.guest].dom;
}

static void get_and_put(struct world *world, uint32_t i)
{
    struct pgshare_host *host = world->rig.host;
    struct place place = world->clients[i];
    uint64_t dom = dom_of(world, place);
    int r = pgshare_gfn_get(host, dom, place.gfn, 1, PGSHARE_GET_WRITE, NULL);

    if (!r)
        r = pgshare_gfn_put(host, dom, place.gfn, 1, PGSHARE_GET_WRITE);
    pgs_bench_check(r, "get and put");
}

static void declare(struct world *world, uint32_t i)
{
    struct pgshare_host *host = world->rig.host;
    struct place place = world->clients[i];
    uint64_t dom = dom_of(world, place);
    int r = pgshare_declare_free(host, dom, place.gfn, 1);

    if (!r)
        r = pgshare_declare_allocated(host, dom, place.gfn, 1);
    pgs_bench_check(r, "declaring free and allocated");
}

static void share(struct world *world, uint32_t i)
{
    struct place source = world->sources[i], client = world->clients[i];

    pgs_rig_share(&world->rig, &world->guests[source.guest], source.gfn,
                  &world->guests[client.guest], client.gfn, 1);
}

static void fault(struct world *world, uint32_t i)
{
    struct place place = world->clients[i];

    pgs_bench_check(pgshare_fault_write(world->rig.host, dom_of(world, place),
                                        place.gfn, 0, NULL, NULL),
                    "pgshare_fault_write");
}

/* The block is in the map already, with another page. */
static void hint(struct world *world, uint32_t i)
{
    struct place place = world->clients[i];

    pgs_bench_check(pgshare_hint_block(world->rig.host, dom_of(world, place),
                                       place.gfn, 1, IMAGE, world->blocks + i),
                    "pgshare_hint_block");
}

/* ---- preparations ------------------------------------------------------ */

static void settle(struct world *world)
{
    pgs_bench_check(pgshare_host_settle(world->rig.host, PGSHARE_FOREVER),
                    "pgshare_host_settle");
}

static bool is_private(struct world *world, struct place place)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    pgs_bench_check(pgshare_gfn_info(world->rig.host, dom_of(world, place),
                                     place.gfn, &info),
                    "pgshare_gfn_info");
    return info.state == PGSHARE_GFN_PRIVATE;
}

/* A random private page of one of 2 * TOTAL equal parts of the world. The
 * state of a page is asked for, which brings its word into the cache. */
static struct place choose_one(struct world *world, uint64_t *seed,
                               uint32_t part)
{
    uint64_t width = GUESTS * world->pages / (2 * TOTAL);
    struct place place;

    do {
        uint64_t page = part * width + pgs_bench_below(seed, width);

        place.guest = (uint32_t)(page / world->pages);
        place.gfn = page % world->pages;
    } while (!is_private(world, place));
    return place;
}

/* Pages of which none is chosen twice, in random order. */
static void choose(struct world *world, uint64_t *seed)
{
    uint32_t *order = pgs_bench_order_new(seed, 2 * TOTAL);

    for (uint32_t i = 0; i < TOTAL; i++) {
        world->sources[i] = choose_one(world, seed, order[i]);
        world->clients[i] = choose_one(world, seed, order[TOTAL + i]);
    }
    free(order);
}

static void hint_sources(struct world *world)
{
    world->blocks += TOTAL;
    for (uint32_t i = 0; i < TOTAL; i++) {
        struct place place = world->sources[i];

        pgs_bench_check(pgshare_hint_block(world->rig.host,
                                           dom_of(world, place), place.gfn, 1,
                                           IMAGE, world->blocks + i),
                        "pgshare_hint_block");
    }
    settle(world);
}

/* What was shared by the hints is private again. */
static void unshare(struct world *world)
{
    for (uint32_t i = 0; i < TOTAL; i++) {
        struct place source = world->sources[i], client = world->clients[i];

        pgs_rig_unshare(&world->rig, &world->guests[client.guest], client.gfn,
                        1);
        pgs_rig_unshare(&world->rig, &world->guests[source.guest], source.gfn,
                        1);
    }
}

static void empty_caches(const struct scene *scene)
{
    uint64_t sum = 0;

    for (size_t at = 0; at < scene->stream_bytes; at += 64)
        sum += scene->stream[at];
    pgs_bench_use(sum);
}

/* Random pages are used, for reading. */
static void make_traffic(struct world *world, uint64_t *seed)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    unsigned char byte;
    int r = 0;

    for (uint32_t i = 0; !r && i < TRAFFIC; i++) {
        struct pgs_guest *guest = &world->guests[pgs_bench_below(seed, GUESTS)];
        uint64_t gfn = pgs_bench_below(seed, world->pages);

        r = pgshare_gfn_info(world->rig.host, guest->dom, gfn, &info);
        if (!r)
            r = pgshare_mock_read(guest->mock, gfn, 0, &byte, 1);
    }
    pgs_bench_check(r, "reading a page");
}

/* ---- measuring --------------------------------------------------------- */

enum part { GET, DECLARE, SHARE, FAULT, HINT, N_PARTS };

static const struct {
    const char *metric;
    operation *run;
} parts[N_PARTS] = {
    [GET] = { "get and put, for writing", get_and_put },
    [DECLARE] = { "declare free and allocated", declare },
    [SHARE] = { "share two pages, in one call", share },
    [FAULT] = { "fault, copied", fault },
    [HINT] = { "hint a block that another page has, and share", hint },
};

static void run_some(struct world *world, enum part part, uint32_t first,
                     uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        parts[part].run(world, i);
    if (part == HINT)
        settle(world);
}

/* Samples are nanoseconds of one operation. */

static void turn(struct scene *scene, struct world *world, enum part part,
                 struct pgs_series *samples)
{
    if (part == HINT)
        hint_sources(world);
    empty_caches(scene);
    make_traffic(world, &scene->bench->seed);
    run_some(world, part, 0, WARM);
    for (uint32_t i = WARM; i < TOTAL; i += SAMPLE) {
        uint64_t begin = pgs_bench_now();

        run_some(world, part, i, SAMPLE);
        pgs_series_add(samples, (double)(pgs_bench_now() - begin) / SAMPLE);
    }
}

static void read_turn(struct scene *scene, struct world *world,
                      struct pgs_series *samples)
{
    uint64_t *seed = &scene->bench->seed;
    size_t bytes = GUESTS * world->pages * sizeof(*scene->table);

    empty_caches(scene);
    pgs_bench_random_reads(seed, scene->table, bytes, TRAFFIC);
    for (uint32_t i = 0; i < OPS; i += SAMPLE)
        pgs_series_add(samples, pgs_bench_random_reads(seed, scene->table,
                                                       bytes, SAMPLE));
}

static void report(struct scene *scene, const char *metric,
                   struct pgs_series ours[2], struct pgs_series reads[2])
{
    double cost[2], read[2];
    struct pgs_figure figure = {
        .name = "scale",
        .unit = "ns",
        .limit = FACTOR,
        .bound = PGS_BOUND_RATIO,
    };

    for (unsigned w = 0; w < 2; w++) {
        cost[w] = pgs_series_median(&ours[w]);
        read[w] = pgs_series_median(&reads[w]);
    }
    snprintf(figure.metric, sizeof(figure.metric),
             "growth, %s, random pages: from %.0f to %.0f ns", metric, cost[0],
             cost[1]);
    snprintf(figure.yardstick, sizeof(figure.yardstick),
             "growth of a bare random read: from %.0f to %.0f ns", read[0],
             read[1]);
    figure.value = cost[1] - cost[0];
    figure.yardstick_value = read[1] - read[0];
    pgs_report_add(scene->bench->report, &figure);
}

static void measure(struct scene *scene)
{
    struct pgs_bench *bench = scene->bench;
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    struct pgs_series series[N_PARTS][2] = { 0 }, reads[2] = { 0 };

    for (unsigned i = 0; i < 2 * rounds; i++) {
        struct world *world = &scene->worlds[i % 2];

        choose(world, &bench->seed);
        for (unsigned part = 0; part < N_PARTS; part++) {
            turn(scene, world, (enum part)part, &series[part][i % 2]);
            if (part == FAULT) /* the sources are still frames */
                unshare(world);
        }
        unshare(world);
        read_turn(scene, world, &reads[i % 2]);
    }
    for (unsigned part = 0; part < N_PARTS; part++)
        if (pgs_bench_wants(bench, parts[part].metric))
            report(scene, parts[part].metric, series[part], reads);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned part = 0; part < N_PARTS; part++)
            pgs_series_fini(&series[part][i]);
        pgs_series_fini(&reads[i]);
    }
}

/* ---- the worlds -------------------------------------------------------- */

/* Frames that have been touched lie in the machine's pool afterwards. */
static void warm_frames(struct world *world, uint64_t frames)
{
    struct pgs_guest guest;

    pgs_rig_guest(&world->rig, &guest, frames, PGS_CONTENT_SAME, false);
    pgshare_mock_domain_free(guest.mock);
}

static void touch_page_table(const struct pgs_guest *guest)
{
    unsigned char byte;

    for (uint64_t gfn = 0; gfn < guest->gfns; gfn += P2M_STEP)
        pgs_bench_check(pgshare_mock_read(guest->mock, gfn, 0, &byte, 1),
                        "pgshare_mock_read");
}

static void world_open(struct world *world, uint64_t pages, unsigned rounds)
{
    uint64_t frames = (uint64_t)TOTAL * 4 * (rounds + 1);

    world->pages = pages;
    pgs_rig_open(&world->rig, GUESTS * pages + frames + 65536, 1);
    warm_frames(world, frames);
    for (uint32_t g = 0; g < GUESTS; g++) {
        pgs_rig_guest(&world->rig, &world->guests[g], pages, PGS_CONTENT_SAME,
                      true);
        pgs_rig_join(&world->rig, &world->guests[g]);
        touch_page_table(&world->guests[g]);
    }
}

void pgs_bench_scale(struct pgs_bench *bench)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    uint64_t large = bench->quick ? PAGES_LARGE_QUICK : PAGES_LARGE;
    struct scene *scene = calloc(1, sizeof(*scene));
    size_t bytes = (size_t)(GUESTS * large * sizeof(*scene->table));

    if (!scene)
        pgs_bench_die("out of memory");
    scene->bench = bench;
    scene->stream_bytes = (size_t)pgs_bench_pages(bench) * PGSHARE_PAGE_SIZE;
    scene->stream = pgs_bench_memory_new(scene->stream_bytes);
    scene->table = pgs_bench_memory_new(bytes);
    world_open(&scene->worlds[0], PAGES_SMALL, rounds);
    world_open(&scene->worlds[1], large, rounds);
    pgs_report_note(bench->report,
                    "scale: %.1f and %.1f million pages in %u guests each",
                    GUESTS * PAGES_SMALL / 1e6, GUESTS * (double)large / 1e6,
                    GUESTS);
    measure(scene);
    for (unsigned w = 0; w < 2; w++)
        pgs_rig_close(&scene->worlds[w].rig);
    pgs_bench_memory_free(scene->stream, scene->stream_bytes);
    pgs_bench_memory_free(scene->table, bytes);
    free(scene);
}
