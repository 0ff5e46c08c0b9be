/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A test program, over libcheck.
 *
 *     START_TEST(test_finds_nothing_when_empty)
 *     {
 *         struct pgs_index index;
 *         ck_assert_int_eq(pgs_index_init(&index, pgs_test_allocator()), 0);
 *         ...
 *     }
 *     END_TEST
 *
 *     static Suite *make(void)
 *     {
 *         Suite *suite = suite_create("index");
 *         TCase *lookup = pgs_tcase(suite, "lookup");
 *         tcase_add_test(lookup, test_finds_nothing_when_empty);
 *         return suite;
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         return pgs_suite_main("index", make, argc, argv);
 *     }
 *
 * A test of a case made with pgs_tcase() fails when it leaves a file
 * descriptor open, or a block of pgs_test_allocator() allocated.  Each test
 * runs in a process of its own, but under a sanitizer (or with CK_FORK=no) all
 * run in one.
 *
 * Options of each test program:
 *
 *     --case NAME   only this test case
 *     --seed N      what pgs_test_seed() returns; else a fresh one, printed
 *     --scale N     times as long as usual, for tests that ask pgs_test_scale()
 *
 * The environment's PGS_TEST_SEED and PGS_TEST_SCALE are the defaults.  The
 * last line printed is read by tests/tools/count-tests.py:
 *
 *     SUITE name: N passed, N failed, N skipped
 */
#ifndef PGS_TESTS_SUPPORT_SUITE_H
#define PGS_TESTS_SUPPORT_SUITE_H

#include "support/alloc.h"

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

/* Run the suite that `make` returns; the result is for main() to return. */
int pgs_suite_main(const char *name, Suite *(*make)(void), int argc,
                   char **argv);

/* A new test case of the suite, whose tests fail when they leak. */
TCase *pgs_tcase(Suite *suite, const char *name);

/* The running test's own allocator, and its books. */
struct pgs_tracker *pgs_test_tracker(void);
const struct pgshare_allocator *pgs_test_allocator(void);

/* The seed of this run, the same in each test of it. */
uint64_t pgs_test_seed(void);

/* How many times as long as usual to run; at least 1. */
uint64_t pgs_test_scale(void);

/* Is this an address or thread sanitizer's build?  Its shadow is memory, too. */
bool pgs_test_is_sanitized(void);

/* End the running test, which counts as skipped and not as passed. */
#define pgs_skip(reason)          \
    do {                          \
        pgs_skip_because(reason); \
        return;                   \
    } while (0)

void pgs_skip_because(const char *reason);

#endif
