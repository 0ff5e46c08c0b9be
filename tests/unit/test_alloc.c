/* SPDX-License-Identifier: BSD-2-Clause */
/* The heap's books, and the libc allocator's zeroes, alignment and laziness. */
#include "base/alloc.h"
#include "support/suite.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_zero(const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static uint64_t resident_bytes(void)
{
    unsigned long total = 0;
    unsigned long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%lu %lu", &total, &resident), 2);
    fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

START_TEST(test_libc_blocks_are_zero_and_aligned)
{
    static const size_t sizes[] = { 1, 8, 60, 4096, 131071, 131072,
                                    131073, 3000000 };
    struct pgs_heap heap;

    pgs_heap_init(&heap, NULL);
    for (size_t align = 1; align <= 65536; align *= 2) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            /* Twice: the second is likely to be memory that was used. */
            for (int again = 0; again < 2; again++) {
                unsigned char *ptr =
                    pgs_heap_zalloc(&heap, 1, sizes[i], align);

                ck_assert_ptr_nonnull(ptr);
                ck_assert_uint_eq((uintptr_t)ptr & (align - 1), 0);
                ck_assert(is_zero(ptr, sizes[i]));
                memset(ptr, 0xff, sizes[i]);
                pgs_heap_free(&heap, ptr, 1, sizes[i]);
            }
        }
    }
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

START_TEST(test_libc_without_zeroes)
{
    struct pgshare_allocator libc = pgs_allocator_libc();
    size_t sizes[] = { 24, 100, 200000 };

    ck_assert_uint_eq(libc.size, sizeof(libc));
    for (int i = 0; i < 3; i++) {
        void *ptr = libc.alloc(libc.ctx, sizes[i], 64, 0);

        ck_assert_ptr_nonnull(ptr);
        memset(ptr, 1, sizes[i]);
        libc.free(libc.ctx, ptr, sizes[i]);
    }
}
END_TEST

START_TEST(test_large_blocks_are_lazy)
{
    const size_t bytes = (size_t)1 << 30;
    struct pgs_heap heap;
    uint64_t before = resident_bytes();
    char *ptr;

    pgs_heap_init(&heap, NULL);
    ptr = pgs_heap_zalloc(&heap, 1, bytes, 64);
    ck_assert_ptr_nonnull(ptr);
    ptr[bytes / 2] = 1;
    /* One huge page, and what a sanitizer keeps of it, at the most. */
    ck_assert_uint_lt(resident_bytes() - before, (uint64_t)64 << 20);
    pgs_heap_free(&heap, ptr, 1, bytes);
}
END_TEST

START_TEST(test_dense_blocks_have_room_for_huge_pages)
{
    const size_t huge = (size_t)2 << 20;
    struct pgs_heap heap;

    pgs_heap_init(&heap, NULL);
    for (int again = 0; again < 2; again++) {
        unsigned char *ptr = pgs_heap_zalloc_dense(&heap, 3, huge, 64);

        ck_assert_ptr_nonnull(ptr);
        ck_assert_uint_eq((uintptr_t)ptr % huge, 0);
        ck_assert(is_zero(ptr, 3 * huge));
        memset(ptr, 0xff, 3 * huge);
        pgs_heap_free(&heap, ptr, 3, huge);
        /* a small one is like any other */
        ptr = pgs_heap_zalloc_dense(&heap, 1, 100, 64);
        ck_assert(is_zero(ptr, 100));
        pgs_heap_free(&heap, ptr, 1, 100);
    }
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

START_TEST(test_bytes_are_the_sum)
{
    struct pgs_heap heap;
    uint64_t *one;
    uint64_t *many;

    pgs_heap_init(&heap, pgs_test_allocator());
    one = PGS_NEW(&heap, uint64_t);
    many = PGS_NEW_N(&heap, uint64_t, 10);
    ck_assert_uint_eq(heap.bytes, 88);
    ck_assert_uint_eq(pgs_test_tracker()->live_bytes, 88);
    PGS_FREE(&heap, one);
    ck_assert_uint_eq(heap.bytes, 80);
    PGS_FREE_N(&heap, many, 10);
    ck_assert_uint_eq(heap.bytes, 0);
    pgs_heap_free(&heap, NULL, 7, 7);
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

START_TEST(test_a_heap_may_move)
{
    struct pgs_heap first;
    struct pgs_heap second;
    uint64_t *block;

    pgs_heap_init(&first, pgs_test_allocator());
    block = PGS_NEW(&first, uint64_t);
    pgs_heap_move(&second, &first);
    ck_assert_uint_eq(second.bytes, 8);
    PGS_FREE(&second, block);
    ck_assert_uint_eq(second.bytes, 0);
}
END_TEST

START_TEST(test_overflow_and_exhaustion_are_no_memory)
{
    struct pgs_heap heap;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_ptr_null(pgs_heap_zalloc(&heap, SIZE_MAX / 2, 3, 8));
    ck_assert_uint_eq(pgs_test_tracker()->calls, 0);
    pgs_tracker_fail_once(pgs_test_tracker(), 0);
    ck_assert_ptr_null(PGS_NEW(&heap, uint64_t));
    ck_assert_uint_eq(heap.bytes, 0);

    pgs_heap_init(&heap, NULL);
    ck_assert_ptr_null(pgs_heap_zalloc(&heap, SIZE_MAX - 100, 1, 8));
    ck_assert_ptr_null(pgs_heap_zalloc(&heap, SIZE_MAX - 9000, 1, 8192));
    ck_assert_ptr_null(pgs_heap_zalloc(&heap, SIZE_MAX / 2, 1, 8));
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("alloc");
    TCase *libc = pgs_tcase(suite, "libc");
    TCase *heap = pgs_tcase(suite, "heap");

    tcase_add_test(libc, test_libc_blocks_are_zero_and_aligned);
    tcase_add_test(libc, test_libc_without_zeroes);
    tcase_add_test(libc, test_large_blocks_are_lazy);
    tcase_add_test(libc, test_dense_blocks_have_room_for_huge_pages);
    tcase_add_test(heap, test_bytes_are_the_sum);
    tcase_add_test(heap, test_a_heap_may_move);
    tcase_add_test(heap, test_overflow_and_exhaustion_are_no_memory);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("alloc", make, argc, argv);
}
