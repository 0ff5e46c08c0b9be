/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * footprint: the memory that metadata takes, as the kernel counts it.
 *
 * Each figure is the growth of a process's resident memory. The process is a
 * fresh child in which first all memory of the mock machine is touched: its
 * page tables, and the records of the frames that will be published, with the
 * help of another host. Guests that need no bytes are sparse. The yardstick is
 * what the library says itself, pgshare_host_stats::metadata.
 */
#include "bench.h"

#include "measure.h"

#include <malloc.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 4194304u /* 16 GiB */
#define MAPPINGS 2097152u
#define FRAMES 262144u
#define QUICK 65536u
/* Shared pages are tracked pages, too; their budget is on top of it. */
#define BUDGET_PAGE 16.0
#define BUDGET_MAPPING 24.0
#define BUDGET_FRAME 64.0

struct scene {
    struct pgs_rig rig;
    struct pgs_guest source;
    struct pgs_guest client;
};

/* Resident memory, and what the library says that it has. */
struct level {
    uint64_t rss;
    uint64_t told;
};

static struct level level_of(const struct scene *scene)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    struct level level;

    pgs_bench_check(pgshare_host_stats(scene->rig.host, &stats),
                    "pgshare_host_stats");
    level.told = stats.metadata;
    level.rss = pgs_bench_rss();
    return level;
}

static void note(struct pgs_figure *figure, struct level before,
                 struct level after, double n)
{
    figure->value = ((double)after.rss - (double)before.rss) / n;
    figure->yardstick_value = ((double)after.told - (double)before.told) / n;
}

/* Fingerprints every page, which fills the content index. */
static void pass(struct scene *scene)
{
    pgs_bench_check(pgshare_host_pass(scene->rig.host, 0), "pgshare_host_pass");
    pgs_bench_check(pgshare_host_settle(scene->rig.host, PGSHARE_FOREVER),
                    "pgshare_host_settle");
}

/* ---- what is measured, in a host that has just been made ----------------- */

/* An empty host. */
static void empty(struct scene *scene, struct pgs_figure *figure,
                  struct level before)
{
    note(figure, before, level_of(scene), 1);
}

/* Pages that are tracked, fingerprinted and not shared. */
static void pages(struct scene *scene, struct pgs_figure *figure,
                  struct level before)
{
    pgs_rig_join(&scene->rig, &scene->client);
    pass(scene);
    note(figure, before, level_of(scene), (double)scene->client.gfns);
}

/* Mappings of one frame. */
static void mappings(struct scene *scene, struct pgs_figure *figure,
                     struct level before)
{
    pgs_rig_join(&scene->rig, &scene->source);
    pgs_rig_join(&scene->rig, &scene->client);
    before = level_of(scene);
    for (uint64_t gfn = 0; gfn < scene->client.gfns; gfn++)
        pgs_rig_share(&scene->rig, &scene->source, 0, &scene->client, gfn, 1);
    note(figure, before, level_of(scene), (double)scene->client.gfns);
}

/* Frames with two mappings each, what these take not counted. */
static void frames(struct scene *scene, struct pgs_figure *figure,
                   struct level before)
{
    pgs_rig_join(&scene->rig, &scene->source);
    pgs_rig_join(&scene->rig, &scene->client);
    before = level_of(scene);
    pgs_rig_share(&scene->rig, &scene->source, 0, &scene->client, 0,
                  scene->client.gfns);
    note(figure, before, level_of(scene), (double)scene->client.gfns);
    figure->value -= 2 * BUDGET_MAPPING;
    figure->yardstick_value -= 2 * BUDGET_MAPPING;
}

/* ---- a fresh child for each ---------------------------------------------- */

struct measurement {
    const char *metric;
    const char *unit;
    double limit;
    enum pgs_bound bound;
    uint64_t sources;
    uint64_t clients;
    enum pgs_content content;
    void (*run)(struct scene *scene, struct pgs_figure *figure,
                struct level before);
};

/* A page table's page has the entries of so many GFNs. */
#define P2M_STEP 1024u

static void touch_page_table(const struct pgs_guest *guest)
{
    unsigned char byte;

    for (uint64_t gfn = 0; gfn < guest->gfns; gfn += P2M_STEP)
        pgs_bench_check(pgshare_mock_read(guest->mock, gfn, 0, &byte, 1),
                        "pgshare_mock_read");
}

/* All pages of the source have once been frames of a host that is gone. */
static void touch_records(struct scene *scene)
{
    struct pgs_rig *rig = &scene->rig;

    pgs_rig_host_open(rig);
    pgs_rig_join(rig, &scene->source);
    pgs_bench_check(pgshare_domain_freeze(rig->host, scene->source.dom, NULL),
                    "pgshare_domain_freeze");
    pgs_bench_check(pgshare_domain_thaw(rig->host, scene->source.dom),
                    "pgshare_domain_thaw");
    pgs_rig_leave(&scene->source);
    pgs_rig_host_close(rig);
}

/* In the child. */
static void run(const struct measurement *what, struct pgs_figure *figure)
{
    struct scene scene = { 0 };
    struct level before = { 0, 0 };

    /* What is large comes from the kernel and goes back to it. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    pgs_rig_open_logged(&scene.rig,
                        2 * (what->sources + what->clients) + 65536);
    pgs_rig_host_close(&scene.rig);
    if (what->clients) {
        pgs_rig_guest(&scene.rig, &scene.client, what->clients, what->content,
                      true);
        touch_page_table(&scene.client);
    }
    if (what->sources) {
        pgs_rig_guest(&scene.rig, &scene.source, what->sources, what->content,
                      false);
        touch_records(&scene);
    }
    malloc_trim(0);
    before.rss = pgs_bench_rss();
    pgs_rig_host_open(&scene.rig);
    what->run(&scene, figure, before);
}

static void measure(struct pgs_bench *bench, const struct measurement *what)
{
    struct pgs_figure figure = {
        .name = "footprint",
        .yardstick = "as the library's statistics say",
        .limit = what->limit,
        .bound = what->bound,
    };
    int status = 0;
    int ends[2];
    pid_t child;

    snprintf(figure.metric, sizeof(figure.metric), "%s", what->metric);
    snprintf(figure.unit, sizeof(figure.unit), "%s", what->unit);
    if (pipe(ends))
        pgs_bench_die("pipe failed");
    fflush(NULL);
    child = fork();
    if (child < 0)
        pgs_bench_die("fork failed");
    if (!child) {
        run(what, &figure);
        _exit(write(ends[1], &figure, sizeof(figure)) != sizeof(figure));
    }
    close(ends[1]);
    if (read(ends[0], &figure, sizeof(figure)) != sizeof(figure))
        pgs_bench_die("the process that measured \"%s\" has failed",
                      what->metric);
    close(ends[0]);
    waitpid(child, &status, 0);
    pgs_report_add(bench->report, &figure);
}

void pgs_bench_footprint(struct pgs_bench *bench)
{
    struct measurement all[] = {
        { .metric = "an empty host", .unit = "bytes", .run = empty },
        { .metric = "each tracked page, after a pass over distinct pages, "
                    "the host included",
          .unit = "bytes/page",
          .limit = BUDGET_PAGE,
          .bound = PGS_BOUND_VALUE,
          .clients = bench->quick ? QUICK : PAGES,
          .content = PGS_CONTENT_UNIQUE,
          .run = pages },
        { .metric = "each shared mapping, beyond the page's own",
          .unit = "bytes/mapping",
          .limit = BUDGET_MAPPING,
          .bound = PGS_BOUND_VALUE,
          .sources = 1,
          .clients = bench->quick ? QUICK : MAPPINGS,
          .content = PGS_CONTENT_SAME,
          .run = mappings },
        { .metric = "each frame with 2 mappings, beyond 24 for each of these",
          .unit = "bytes/frame",
          .limit = BUDGET_FRAME,
          .bound = PGS_BOUND_VALUE,
          .sources = bench->quick ? QUICK : FRAMES,
          .clients = bench->quick ? QUICK : FRAMES,
          .content = PGS_CONTENT_BY_GFN,
          .run = frames },
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        measure(bench, &all[i]);
}
