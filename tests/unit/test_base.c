/* SPDX-License-Identifier: BSD-2-Clause */
/* The small ones: errors, version, hashing, platform, process mark. */
#include "base/mix.h"
#include "base/origin.h"
#include "base/platform.h"
#include "support/suite.h"

#include <pgshare/error.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

START_TEST(test_every_error_has_a_name_and_a_text)
{
    for (int error = PGSHARE_ERR_STATE; error <= 0; error++) {
        const char *text = pgshare_error_text(error);

        ck_assert_ptr_nonnull(strstr(pgshare_error_name(error), "PGSHARE_"));
        ck_assert_str_ne(pgshare_error_name(error), "PGSHARE_ERR_UNKNOWN");
        ck_assert_uint_gt(strlen(text), 5);
        ck_assert_int_ne(text[strlen(text) - 1], '.');
        for (int other = error + 1; other <= 0; other++)
            ck_assert_str_ne(text, pgshare_error_text(other));
    }
    ck_assert_str_eq(pgshare_error_name(PGSHARE_ERR_OWED),
                     "PGSHARE_ERR_OWED");
}
END_TEST

START_TEST(test_what_is_no_error_is_unknown)
{
    int others[] = { 1, INT_MAX, INT_MIN, PGSHARE_ERR_STATE - 1, -1000 };

    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ck_assert_str_eq(pgshare_error_name(others[i]),
                         "PGSHARE_ERR_UNKNOWN");
        ck_assert_uint_gt(strlen(pgshare_error_text(others[i])), 5);
    }
}
END_TEST

START_TEST(test_version_is_the_headers)
{
    char expected[40];

    snprintf(expected, sizeof(expected), "%d.%d.%d", PGSHARE_VERSION_MAJOR,
             PGSHARE_VERSION_MINOR, PGSHARE_VERSION_PATCH);
    ck_assert_str_eq(pgshare_version(), expected);
}
END_TEST

START_TEST(test_mixer_is_that_of_splitmix)
{
    /* The first two outputs of SplitMix64 with seed 0, as published. */
    ck_assert_uint_eq(pgs_mix(UINT64_C(0x9e3779b97f4a7c15)),
                      UINT64_C(0xe220a8397b1dcdaf));
    ck_assert_uint_eq(pgs_mix(UINT64_C(0x3c6ef372fe94f82a)),
                      UINT64_C(0x6e789e6aa1b965f4));
    ck_assert_uint_eq(pgs_mix(0), 0);
}
END_TEST

START_TEST(test_fingerprint_of_zeroes)
{
    static unsigned char page[PGSHARE_PAGE_SIZE];

    for (uint64_t seed = 0; seed < 10; seed++)
        ck_assert_uint_eq(pgs_fingerprint_zero(seed),
                          XXH3_64bits_withSeed(page, sizeof(page), seed));
    ck_assert_uint_ne(pgs_fingerprint_zero(1), pgs_fingerprint_zero(2));
}
END_TEST

START_TEST(test_platform_defaults)
{
    struct pgshare_platform platform;
    uint64_t a[40] = { 0 };
    uint64_t b[40] = { 0 };
    uint64_t before;

    ck_assert_int_eq(pgs_platform_init(&platform, NULL), 0);
    before = pgs_now(&platform);
    ck_assert_uint_gt(before, 0);
    ck_assert_uint_ge(pgs_now(&platform), before);
    ck_assert_int_eq(platform.random(platform.ctx, a, sizeof(a)), 0);
    ck_assert_int_eq(platform.random(platform.ctx, b, sizeof(b)), 0);
    ck_assert_mem_ne(a, b, sizeof(a));
    ck_assert_uint_eq(platform.pressure(platform.ctx), 0);
    platform.wake(platform.ctx);
    platform.log(platform.ctx, PGSHARE_LOG_ERROR, "dropped");
    pgs_log(&platform, PGSHARE_LOG_ERROR, "dropped %d", 1);
}
END_TEST

struct lines {
    char last[1000];
    enum pgshare_log_level level;
    unsigned n;
};

static void keep_line(void *ctx, enum pgshare_log_level level,
                      const char *line)
{
    struct lines *lines = ctx;

    snprintf(lines->last, sizeof(lines->last), "%s", line);
    lines->level = level;
    lines->n++;
}

static uint64_t stopped_clock(void *ctx)
{
    return 42;
}

START_TEST(test_platform_as_given)
{
    struct lines lines = { .n = 0 };
    struct pgshare_platform given = {
        .size = sizeof(given),
        .ctx = &lines,
        .now_ns = stopped_clock,
        .log = keep_line,
    };
    struct pgshare_platform platform;
    char longer[400];

    ck_assert_int_eq(pgs_platform_init(&platform, &given), 0);
    ck_assert_uint_eq(pgs_now(&platform), 42);
    ck_assert(platform.random != NULL);
    pgs_log(&platform, PGSHARE_LOG_WARNING, "%s %u", "frame", 7u);
    ck_assert_str_eq(lines.last, "frame 7");
    ck_assert_uint_eq(lines.level, PGSHARE_LOG_WARNING);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    pgs_log(&platform, PGSHARE_LOG_DEBUG, "%s", longer);
    ck_assert_uint_eq(strlen(lines.last), 255);
    ck_assert_uint_eq(lines.n, 2);
}
END_TEST

START_TEST(test_platform_of_unknown_size_is_refused)
{
    struct pgshare_platform given = { .size = 3 };
    struct pgshare_platform platform = { .size = 77 };

    ck_assert_int_eq(pgs_platform_init(&platform, &given), PGSHARE_ERR_ABI);
    ck_assert_uint_eq(platform.size, 77);
}
END_TEST

START_TEST(test_a_child_knows_that_it_is_one)
{
    struct pgs_origin origin;
    int status = 0;
    pid_t child;

    pgs_origin_init(&origin);
    ck_assert(pgs_origin_is_here(&origin));
    child = fork();
    if (child == 0)
        _exit(pgs_origin_is_here(&origin) ? 1 : 0);
    ck_assert_int_gt(child, 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert(pgs_origin_is_here(&origin));
    pgs_origin_fini(&origin);
    pgs_origin_fini(&origin);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("base");
    TCase *names = pgs_tcase(suite, "names");
    TCase *hashing = pgs_tcase(suite, "hashing");
    TCase *platform = pgs_tcase(suite, "platform");

    tcase_add_test(names, test_every_error_has_a_name_and_a_text);
    tcase_add_test(names, test_what_is_no_error_is_unknown);
    tcase_add_test(names, test_version_is_the_headers);
    tcase_add_test(hashing, test_mixer_is_that_of_splitmix);
    tcase_add_test(hashing, test_fingerprint_of_zeroes);
    tcase_add_test(platform, test_platform_defaults);
    tcase_add_test(platform, test_platform_as_given);
    tcase_add_test(platform, test_platform_of_unknown_size_is_refused);
    tcase_add_test(platform, test_a_child_knows_that_it_is_one);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("base", make, argc, argv);
}
