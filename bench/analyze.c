/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * analyze: how much slower than reading and hashing is `pgshare analyze`?
 *
 * The yardstick reads the same files in the same way, holes left out, into a
 * buffer that stays in the cache, and does nothing with a page but XXH3. Both
 * use the same number of threads, and both are told by the data that they read.
 *
 * Images are those of tests/guests, if they have been made, and files in
 * memory whose pages all differ.
 */
#include "bench.h"

#include "engine/analysis.h"
#include "measure.h"

#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#define IMAGES 4u
#define IMAGE_SIZE ((uint64_t)512 << 20)
#define IMAGE_SIZE_QUICK ((uint64_t)8 << 20)
#define UNIT ((uint64_t)16 << 20)
#define BUFFER ((size_t)256 << 10)
#define ROUNDS 9u
#define THREADS 2u

struct images {
    char *paths[IMAGES];
    int made[IMAGES]; /* files in memory, which paths name; or -1 */
    int fds[IMAGES];  /* for the yardstick */
    uint64_t size;    /* of each */
    uint64_t data;    /* bytes of all that are no holes */
};

/* ---- the yardstick ----------------------------------------------------------- */

struct reader {
    const struct images *images;
    _Atomic uint64_t next; /* unit of all images */
    _Atomic uint64_t data;
};

/* Reads and hashes what is no hole of [from, to). */
static uint64_t hash_data(int fd, uint64_t from, uint64_t to,
                          unsigned char *buffer)
{
    uint64_t bytes = 0;
    uint64_t sum = 0;

    while (from < to) {
        off_t data = lseek(fd, (off_t)from, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        uint64_t end = hole < 0 || (uint64_t)hole > to ? to : (uint64_t)hole;

        if (data < 0 || (uint64_t)data >= to)
            break;
        for (from = (uint64_t)data; from < end; from += BUFFER) {
            size_t n = end - from < BUFFER ? (size_t)(end - from) : BUFFER;

            if (pread(fd, buffer, n, (off_t)from) != (ssize_t)n)
                pgs_bench_die("an image cannot be read");
            for (size_t at = 0; at < n; at += PGSHARE_PAGE_SIZE)
                sum += XXH3_64bits(buffer + at, PGSHARE_PAGE_SIZE);
            bytes += n;
        }
        from = end;
    }
    pgs_bench_use(sum);
    return bytes;
}

static double hash_units(void *ctx, unsigned thread)
{
    struct reader *reader = ctx;
    const struct images *images = reader->images;
    uint64_t per_image = (images->size + UNIT - 1) / UNIT;
    unsigned char *buffer = pgs_bench_memory_new(BUFFER);
    uint64_t unit;

    while ((unit = atomic_fetch_add(&reader->next, 1)) < per_image * IMAGES) {
        uint64_t from = unit % per_image * UNIT;
        uint64_t to = from + UNIT < images->size ? from + UNIT : images->size;

        atomic_fetch_add(&reader->data, hash_data(images->fds[unit / per_image],
                                                  from, to, buffer));
    }
    pgs_bench_memory_free(buffer, BUFFER);
    return thread;
}

/* Answers the data read. */
static uint64_t hash_images(const struct images *images)
{
    struct reader reader = { .images = images };

    pgs_bench_threads(THREADS, hash_units, &reader);
    return reader.data;
}

/* ---- ours --------------------------------------------------------------------- */

static void complain(void *ctx, const char *text)
{
    pgs_bench_die("analyze: %s", text);
}

static void analyze(const struct images *images)
{
    const struct analysis_options options = {
        .page_size = PGSHARE_PAGE_SIZE,
        .threads = THREADS,
        .complain = complain,
    };
    struct analysis_image list[IMAGES] = { 0 };
    struct analysis analysis;

    for (unsigned i = 0; i < IMAGES; i++)
        list[i].name = images->paths[i];
    if (!analysis_open(&analysis, &options, list, IMAGES) ||
        !analysis_read(&analysis) || !analysis_count(&analysis))
        pgs_bench_die("analyze failed");
    analysis_close(&analysis);
}

/* ---- images ------------------------------------------------------------------- */

static void open_images(struct images *images)
{
    for (unsigned i = 0; i < IMAGES; i++) {
        images->fds[i] = open(images->paths[i], O_RDONLY | O_CLOEXEC);
        if (images->fds[i] < 0)
            pgs_bench_die("%s cannot be opened", images->paths[i]);
    }
    images->size = (uint64_t)lseek(images->fds[0], 0, SEEK_END);
    images->data = hash_images(images); /* which warms the page cache, too */
}

static void close_images(struct images *images)
{
    for (unsigned i = 0; i < IMAGES; i++) {
        close(images->fds[i]);
        if (images->made[i] >= 0)
            close(images->made[i]);
        free(images->paths[i]);
    }
}

static void fill(int fd, uint64_t size, uint64_t *seed)
{
    uint64_t page[PGSHARE_PAGE_SIZE / sizeof(uint64_t)];

    for (uint64_t at = 0; at < size; at += sizeof(page)) {
        for (size_t i = 0; i < sizeof(page) / sizeof(*page); i++)
            page[i] = pgs_bench_random(seed);
        if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page))
            pgs_bench_die("a file in memory cannot be written");
    }
}

static void make_distinct(struct images *images, uint64_t size, uint64_t *seed)
{
    for (unsigned i = 0; i < IMAGES; i++) {
        images->made[i] = memfd_create("pgshare-bench", MFD_CLOEXEC);
        if (images->made[i] < 0 ||
            asprintf(&images->paths[i], "/proc/self/fd/%d", images->made[i]) <
                0)
            pgs_bench_die("no file in memory");
        fill(images->made[i], size, seed);
    }
}

/* Those that tests/guests has made. */
static bool find_guests(struct images *images)
{
    const char *cache = getenv("PGSHARE_GUESTS_DIR");
    const char *home = getenv("HOME");
    char *pattern;
    glob_t found;
    bool good;

    cache = cache ? cache : getenv("XDG_CACHE_HOME");
    if (asprintf(&pattern, "%s%s/pgshare-guests/images-*/*.ram",
                 cache  ? cache
                 : home ? home
                        : "",
                 cache ? "" : "/.cache") < 0)
        pgs_bench_die("out of memory");
    good = !glob(pattern, 0, NULL, &found) && found.gl_pathc >= IMAGES;
    for (unsigned i = 0; good && i < IMAGES; i++) {
        images->paths[i] = strdup(found.gl_pathv[i]);
        images->made[i] = -1;
        if (!images->paths[i])
            pgs_bench_die("out of memory");
    }
    globfree(&found);
    free(pattern);
    return good;
}

/* ---- both --------------------------------------------------------------------- */

static double rate(const struct images *images, uint64_t begin)
{
    return (double)images->data / (double)(pgs_bench_now() - begin);
}

static void measure(struct pgs_bench *bench, const struct images *images,
                    const char *what)
{
    unsigned rounds = pgs_bench_rounds(bench, ROUNDS);
    struct pgs_series ours = { 0 }, theirs = { 0 };
    struct pgs_figure figure = {
        .name = "analyze",
        .unit = "GB/s",
        .yardstick = "the same read, and XXH3 of each page, 2 threads",
        .limit = 0.7,
        .bound = PGS_BOUND_RATIO_MIN,
    };

    snprintf(figure.metric, sizeof(figure.metric),
             "%s, %u images of %u MiB, extents included, 2 threads", what,
             IMAGES, (unsigned)(images->size >> 20));
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t begin = pgs_bench_now();

        hash_images(images);
        pgs_series_add(&theirs, rate(images, begin));
        begin = pgs_bench_now();
        analyze(images);
        pgs_series_add(&ours, rate(images, begin));
    }
    figure.value = pgs_series_median(&ours);
    figure.yardstick_value = pgs_series_median(&theirs);
    pgs_report_add(bench->report, &figure);
    pgs_series_fini(&ours);
    pgs_series_fini(&theirs);
}

static void run(struct pgs_bench *bench, struct images *images,
                const char *what)
{
    open_images(images);
    measure(bench, images, what);
    close_images(images);
}

void pgs_bench_analyze(struct pgs_bench *bench)
{
    uint64_t size = bench->quick ? IMAGE_SIZE_QUICK : IMAGE_SIZE;
    struct images images = { 0 };

    if (pgs_bench_wants(bench, "distinct pages")) {
        make_distinct(&images, size, &bench->seed);
        run(bench, &images, "distinct pages");
    }
    if (bench->quick || !pgs_bench_wants(bench, "real guests"))
        return;
    if (find_guests(&images))
        run(bench, &images, "real guests");
    else
        pgs_report_note(bench->report, "analyze: there are no images of real "
                                       "guests (./run guests makes them)");
}
