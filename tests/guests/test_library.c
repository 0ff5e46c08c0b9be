/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library on RAM images: loaded as domains of the mock machine, scanned,
 * shared, written and verified. What it shares is counted independently, by
 * sorting what the pages hash to, and must be the same to the page; that
 * analyze counts the same is the business of tests/cli.
 *
 * The images are those of real guests, where they have been made (./run
 * guests), and always a few that are made up: shifted extents, copies within,
 * runs of zeroes, a pattern that many pages have.
 */
#include "support/suite.h"

#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define IMAGES_MAX 16u
#define WRITTEN_ONE_IN 20u
#define PASSES_MAX 5u

struct image {
    unsigned char *bytes;
    uint64_t pages;
    unsigned char **written; /* [pages] what a guest wrote, or NULL */
    struct pgshare_mock_domain *mock;
};

struct scene {
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    struct image images[IMAGES_MAX];
    unsigned n;
    uint64_t random;
};

static uint64_t next_random(struct scene *s)
{
    uint64_t x = s->random += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    return x ^ (x >> 29);
}

/* ---- images -------------------------------------------------------------- */

static void map_image(struct scene *s, const char *path)
{
    struct image *image = &s->images[s->n++];
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    ck_assert_msg(fd >= 0, "%s", path);
    ck_assert_int_eq(fstat(fd, &stat), 0);
    image->pages = (uint64_t)stat.st_size / PGSHARE_PAGE_SIZE;
    image->bytes = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd,
                        0);
    ck_assert_ptr_ne(image->bytes, MAP_FAILED);
    close(fd);
}

/* False: there are none. */
static bool map_guests(struct scene *s)
{
    char here[] = __FILE__, command[4096], path[4096];
    FILE *pipe;

    snprintf(command, sizeof(command), "%s/make-guests --print 2>&1",
             dirname(here));
    pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    while (s->n < IMAGES_MAX && fgets(path, sizeof(path), pipe)) {
        path[strcspn(path, "\n")] = 0;
        if (access(path, R_OK))
            break;
        map_image(s, path);
    }
    while (fgets(path, sizeof(path), pipe))
        ;
    return pclose(pipe) == 0 && s->n > 0;
}

static void fill_words(unsigned char *page, uint64_t value)
{
    for (size_t i = 0; i < PGSHARE_PAGE_SIZE; i += sizeof(value))
        memcpy(page + i, &value, sizeof(value));
}

/* Pages of 4 kinds, in runs of random length. */
static void make_image(struct scene *s, uint64_t pages)
{
    struct image *image = &s->images[s->n++];
    uint64_t gfn = 0;

    image->pages = pages;
    image->bytes = mmap(NULL, pages * PGSHARE_PAGE_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(image->bytes, MAP_FAILED);
    while (gfn < pages) {
        uint64_t kind = next_random(s) % 4, base = next_random(s) % 4096;
        uint64_t n = 1 + next_random(s) % (1 << next_random(s) % 10);

        for (; n && gfn < pages; n--, gfn++, base++) {
            unsigned char *page = image->bytes + gfn * PGSHARE_PAGE_SIZE;

            if (kind == 0)
                fill_words(page, 0);
            else if (kind == 1)
                fill_words(page, UINT64_C(0xcccccccccccccccc));
            else if (kind == 2)
                fill_words(page, 1 + base);
            else
                fill_words(page, next_random(s) | 1 << 20);
        }
    }
}

/* What a page holds now. */
static const unsigned char *bytes_of(const struct image *image, uint64_t gfn)
{
    return image->written[gfn] ? image->written[gfn]
                               : image->bytes + gfn * PGSHARE_PAGE_SIZE;
}

/* ---- the independent count ----------------------------------------------- */

static int by_hash(const void *a, const void *b)
{
    const XXH128_hash_t *x = a, *y = b;

    return XXH128_cmp(x, y);
}

static bool is_zero(const unsigned char *page)
{
    return !page[0] && !memcmp(page, page + 1, PGSHARE_PAGE_SIZE - 1);
}

/* Pages less distinct contents; pages of zeroes need no memory at all, since
 * the host has a frame of zeroes of its own. */
static uint64_t count_reclaimable(const struct scene *s)
{
    uint64_t pages = 0, n = 0, distinct = 0;
    XXH128_hash_t *hashes;

    for (unsigned i = 0; i < s->n; i++)
        pages += s->images[i].pages;
    hashes = calloc(pages, sizeof(*hashes));
    ck_assert_ptr_nonnull(hashes);
    for (unsigned i = 0; i < s->n; i++)
        for (uint64_t gfn = 0; gfn < s->images[i].pages; gfn++) {
            const unsigned char *page = bytes_of(&s->images[i], gfn);

            if (!is_zero(page))
                hashes[n++] = XXH3_128bits(page, PGSHARE_PAGE_SIZE);
        }
    qsort(hashes, n, sizeof(*hashes), by_hash);
    for (uint64_t k = 0; k < n; k++)
        distinct += !k || !XXH128_isEqual(hashes[k], hashes[k - 1]);
    free(hashes);
    return pages - distinct;
}

/* ---- the library --------------------------------------------------------- */

static void content(void *ctx, uint32_t domid, uint64_t gfn, void *ret_page)
{
    const struct image *image = ctx;

    (void)domid;
    memcpy(ret_page, image->bytes + gfn * PGSHARE_PAGE_SIZE, PGSHARE_PAGE_SIZE);
}

static void load(struct scene *s, bool logged)
{
    struct pgshare_mock_options machine = {
        .size = sizeof(machine),
        .flags = logged ? PGSHARE_MOCK_CHANGE_LOG : 0,
    };
    uint64_t group;

    for (unsigned i = 0; i < s->n; i++)
        machine.frames += s->images[i].pages + s->images[i].pages / 8 + 1024;
    ck_assert_int_eq(pgshare_mock_machine_new(&machine, &s->machine), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_mock_backend(s->machine), NULL,
                                      &s->host),
                     0);
    ck_assert_int_eq(pgshare_group_open(s->host, "guests", &group), 0);
    for (unsigned i = 0; i < s->n; i++) {
        struct image *image = &s->images[i];
        struct pgshare_mock_domain_options options = {
            .size = sizeof(options),
            .flags = PGSHARE_MOCK_SPARSE,
            .content = content,
            .ctx = image,
        };

        image->written = calloc(image->pages, sizeof(*image->written));
        ck_assert_ptr_nonnull(image->written);
        ck_assert_int_eq(pgshare_mock_domain_new(s->machine, image->pages,
                                                 &options, &image->mock),
                         0);
        ck_assert_int_eq(pgshare_mock_join(image->mock, s->host, group), 0);
    }
}

static uint64_t saved(const struct scene *s)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    ck_assert_int_eq(pgshare_host_stats(s->host, &stats), 0);
    return stats.saved;
}

static void scan(struct scene *s)
{
    ck_assert_int_eq(pgshare_host_pass(s->host, 0), 0);
    ck_assert_int_eq(pgshare_host_settle(s->host, PGSHARE_FOREVER), 0);
}

static void verify(const struct scene *s)
{
    struct pgshare_audit_options options = { .size = sizeof(options),
                                             .flags = PGSHARE_AUDIT_BACKEND };
    struct pgshare_audit audit = { .size = sizeof(audit) };

    for (unsigned i = 0; i < s->n; i++)
        for (uint64_t gfn = 0; gfn < s->images[i].pages; gfn++)
            ck_assert_int_eq(pgshare_mock_compare(s->images[i].mock, gfn, 0,
                                                  bytes_of(&s->images[i], gfn),
                                                  PGSHARE_PAGE_SIZE),
                             0);
    ck_assert_int_eq(pgshare_host_audit(s->host, &options, &audit), 0);
    ck_assert_uint_eq(audit.violations, 0);
    ck_assert_uint_eq(pgshare_mock_check(s->machine), 0);
}

static void write_page(struct scene *s, struct image *image)
{
    uint64_t gfn = next_random(s) % image->pages, value = next_random(s);
    uint32_t offset = (uint32_t)(next_random(s) % (PGSHARE_PAGE_SIZE / 8)) * 8;

    if (!image->written[gfn]) {
        image->written[gfn] = malloc(PGSHARE_PAGE_SIZE);
        ck_assert_ptr_nonnull(image->written[gfn]);
        memcpy(image->written[gfn], image->bytes + gfn * PGSHARE_PAGE_SIZE,
               PGSHARE_PAGE_SIZE);
    }
    memcpy(image->written[gfn] + offset, &value, sizeof(value));
    ck_assert_int_eq(pgshare_mock_write(image->mock, gfn, offset, &value,
                                        sizeof(value)),
                     0);
}

static void unload(struct scene *s)
{
    ck_assert_ptr_null(pgshare_host_free(s->host));
    ck_assert_uint_eq(pgshare_mock_check(s->machine), 0);
    pgshare_mock_machine_free(s->machine);
    for (unsigned i = 0; i < s->n; i++) {
        for (uint64_t gfn = 0; gfn < s->images[i].pages; gfn++)
            free(s->images[i].written[gfn]);
        free(s->images[i].written);
        munmap(s->images[i].bytes, s->images[i].pages * PGSHARE_PAGE_SIZE);
    }
}

/* Scanned, shared, written and verified. */
static void run(struct scene *s, bool logged)
{
    load(s, logged);
    scan(s);
    ck_assert_uint_eq(saved(s), count_reclaimable(s));
    verify(s);
    for (unsigned i = 0; i < s->n; i++)
        for (uint64_t k = 0; k < s->images[i].pages / WRITTEN_ONE_IN; k++)
            write_page(s, &s->images[i]);
    verify(s);
    for (unsigned i = 0; i < PASSES_MAX; i++)
        scan(s);
    ck_assert_uint_eq(saved(s), count_reclaimable(s));
    verify(s);
    unload(s);
}

START_TEST(test_made_up_images)
{
    struct scene s = { .random = pgs_test_seed() };

    make_image(&s, 3000);
    make_image(&s, 8192);
    make_image(&s, 5001);
    run(&s, _i);
}
END_TEST

START_TEST(test_images_of_guests)
{
    struct scene s = { .random = pgs_test_seed() };

    if (map_guests(&s))
        run(&s, _i);
    else
        pgs_skip("there are no images of guests (./run guests makes them)");
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("library");
    TCase *images = pgs_tcase(suite, "images");

    tcase_set_timeout(images, 240);
    tcase_add_loop_test(images, test_made_up_images, 0, 2);
    tcase_add_loop_test(images, test_images_of_guests, 0, 2);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("library", make, argc, argv);
}
