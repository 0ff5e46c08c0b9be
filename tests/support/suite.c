/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libcheck knows passed and failed, and no fixture that every test has.  Both
 * are added here by a fixture of our own around each test of pgs_tcase():
 *
 * - set_up() hands out a fresh allocator and counts the descriptors, and
 *   tear_down() compares.  libcheck undoes fixtures in reverse, so that a
 *   test's own have released what they hold by then;
 * - a skipped test has passed as far as libcheck knows.  tear_down() counts it,
 *   once nothing can fail any more, in memory that is shared with the process
 *   that reports.
 */
#include "support/suite.h"

#include <dirent.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* A test that hangs is ended by meson; this is for what is merely slow. */
#define TEST_TIMEOUT_S 600

/* The run: set before the first test, then constant. */
static uint64_t run_seed;
static uint64_t run_scale = 1;
static _Atomic unsigned *run_skipped; /* shared with the tests' processes */

/* The running test. */
static struct pgs_tracker test_tracker;
static const char *test_skip_reason;
static unsigned test_descriptors;

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");

    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void set_up(void)
{
    pgs_tracker_init(&test_tracker);
    test_skip_reason = NULL;
    test_descriptors = count_descriptors();
}

static void tear_down(void)
{
    unsigned descriptors = count_descriptors();

    pgs_tracker_assert_empty(&test_tracker);
    ck_assert_msg(descriptors == test_descriptors,
                  "%u file descriptors before the test, %u after",
                  test_descriptors, descriptors);
    if (test_skip_reason) {
        printf("SKIP %s\n", test_skip_reason);
        fflush(stdout);
        atomic_fetch_add(run_skipped, 1);
    }
}

TCase *pgs_tcase(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_set_timeout(tcase, TEST_TIMEOUT_S);
    suite_add_tcase(suite, tcase);
    return tcase;
}

struct pgs_tracker *pgs_test_tracker(void)
{
    return &test_tracker;
}

const struct pgshare_allocator *pgs_test_allocator(void)
{
    return &test_tracker.allocator;
}

uint64_t pgs_test_seed(void)
{
    return run_seed;
}

uint64_t pgs_test_scale(void)
{
    return run_scale;
}

bool pgs_test_is_sanitized(void)
{
    return SANITIZED;
}

void pgs_skip_because(const char *reason)
{
    test_skip_reason = reason;
}

static uint64_t fresh_seed(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t number(const char *text, uint64_t otherwise)
{
    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Returns the test case that was asked for, NULL for all. */
static const char *read_options(int argc, char **argv)
{
    static const struct option options[] = {
        { "case", required_argument, NULL, 'c' },
        { "seed", required_argument, NULL, 's' },
        { "scale", required_argument, NULL, 'x' },
        { 0 },
    };
    const char *tcase = NULL;
    int option;

    run_seed = number(getenv("PGS_TEST_SEED"), fresh_seed());
    run_scale = number(getenv("PGS_TEST_SCALE"), 1);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            tcase = optarg;
            break;
        case 's':
            run_seed = number(optarg, run_seed);
            break;
        case 'x':
            run_scale = number(optarg, run_scale);
            break;
        default:
            exit(2);
        }
    }
    if (run_scale == 0)
        run_scale = 1;
    return tcase;
}

/* Machines are made and freed thousands of times; that the process gives their
 * memory back each time, to fault it in again, would take most of the run. */
static void keep_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 64 << 20);
}

int pgs_suite_main(const char *name, Suite *(*make)(void), int argc,
                   char **argv)
{
    const char *tcase = read_options(argc, argv);
    SRunner *runner = srunner_create(make());
    unsigned ran, failed, skipped;

    run_skipped = mmap(NULL, sizeof(*run_skipped), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run_skipped == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    if (SANITIZED)
        srunner_set_fork_status(runner, CK_NOFORK);
    else
        keep_memory();

    printf("seed %" PRIu64 "\n", run_seed);
    fflush(stdout);
    srunner_run(runner, NULL, tcase, CK_NORMAL);
    ran = (unsigned)srunner_ntests_run(runner);
    failed = (unsigned)srunner_ntests_failed(runner);
    skipped = atomic_load(run_skipped);
    srunner_free(runner);

    printf("SUITE %s: %u passed, %u failed, %u skipped\n", name,
           ran - failed - skipped, failed, skipped);
    fflush(stdout); /* before a leak found at exit ends us */
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
