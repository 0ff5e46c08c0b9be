/* SPDX-License-Identifier: BSD-2-Clause */
/* The tests' own support: an allocator that cannot find fault proves nothing. */
#include "support/suite.h"

static void *allocate(size_t bytes, size_t align, uint32_t flags)
{
    const struct pgshare_allocator *allocator = pgs_test_allocator();

    return allocator->alloc(allocator->ctx, bytes, align, flags);
}

static void release(void *ptr, size_t bytes)
{
    const struct pgshare_allocator *allocator = pgs_test_allocator();

    allocator->free(allocator->ctx, ptr, bytes);
}

START_TEST(test_blocks_are_aligned_and_counted)
{
    struct pgs_tracker *tracker = pgs_test_tracker();

    for (size_t align = 8; align <= 4096; align *= 2) {
        void *ptr = allocate(24, align, 0);
        ck_assert_ptr_nonnull(ptr);
        ck_assert_uint_eq((uintptr_t)ptr & (align - 1), 0);
        ck_assert_uint_eq(tracker->live_blocks, 1);
        ck_assert_uint_eq(tracker->live_bytes, 24);
        release(ptr, 24);
        ck_assert_uint_eq(tracker->live_blocks, 0);
    }
}
END_TEST

START_TEST(test_zeroed_means_zero)
{
    static const unsigned char zeroes[100];
    void *ptr = allocate(sizeof(zeroes), 8, PGSHARE_ALLOC_ZERO);

    ck_assert_mem_eq(ptr, zeroes, sizeof(zeroes));
    release(ptr, sizeof(zeroes));
}
END_TEST

START_TEST(test_one_call_fails)
{
    pgs_tracker_fail_once(pgs_test_tracker(), 1);

    void *first = allocate(8, 8, 0);
    ck_assert_ptr_nonnull(first);
    ck_assert(!pgs_tracker_has_failed(pgs_test_tracker()));
    ck_assert_ptr_null(allocate(8, 8, 0));
    ck_assert(pgs_tracker_has_failed(pgs_test_tracker()));
    void *third = allocate(8, 8, 0);
    ck_assert_ptr_nonnull(third);

    release(first, 8);
    release(third, 8);
}
END_TEST

START_TEST(test_all_calls_from_one_on_fail)
{
    pgs_tracker_fail_from(pgs_test_tracker(), 1);

    void *first = allocate(8, 8, 0);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_null(allocate(8, 8, 0));
    ck_assert_ptr_null(allocate(8, 8, 0));
    pgs_tracker_fail_never(pgs_test_tracker());
    release(first, 8);
    release(allocate(8, 8, 0), 8);
}
END_TEST

START_TEST(test_misuse_is_seen)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    char *ptr;

    ptr = allocate(16, 8, 0);
    release(ptr, 15);
    ck_assert_uint_eq(tracker->misuses, 1);
    ptr = allocate(16, 8, 0);
    ptr[16] = 0;
    release(ptr, 16);
    ck_assert_uint_eq(tracker->misuses, 2);
    tracker->misuses = 0;
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("support");
    TCase *books = pgs_tcase(suite, "books");
    TCase *failures = pgs_tcase(suite, "failures");

    tcase_add_test(books, test_blocks_are_aligned_and_counted);
    tcase_add_test(books, test_zeroed_means_zero);
    tcase_add_test(books, test_misuse_is_seen);
    tcase_add_test(failures, test_one_call_fails);
    tcase_add_test(failures, test_all_calls_from_one_on_fail);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("support", make, argc, argv);
}
