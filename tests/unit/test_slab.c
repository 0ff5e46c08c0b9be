/* SPDX-License-Identifier: BSD-2-Clause */
/* Slabs: records stay where they are, up to the limit. */
#include "base/slab.h"
#include "support/suite.h"

#include <pgshare/error.h>

#define SHIFT 4
#define CHUNK 16u

START_TEST(test_records_do_not_move)
{
    struct pgs_heap heap;
    struct pgs_slab slab;
    uint64_t *first;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_slab_init(&slab, &heap, 8, SHIFT, 100 * CHUNK), 0);
    ck_assert_uint_eq(slab.size, 0);
    ck_assert_int_eq(pgs_slab_grow(&slab), 0);
    first = pgs_slab_at(&slab, 0);
    for (uint32_t n = CHUNK; n < 100 * CHUNK; n += CHUNK) {
        for (uint32_t i = n - CHUNK; i < n; i++) {
            uint64_t *record = pgs_slab_at(&slab, i);

            ck_assert_uint_eq(*record, 0);
            *record = i + 1;
        }
        ck_assert_int_eq(pgs_slab_grow(&slab), 0);
    }
    ck_assert_ptr_eq(pgs_slab_at(&slab, 0), first);
    for (uint32_t i = 0; i < 99 * CHUNK; i++)
        ck_assert_uint_eq(*(uint64_t *)pgs_slab_at(&slab, i), i + 1);
    ck_assert(pgs_slab_is_valid(&slab));
    pgs_slab_fini(&slab);
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

START_TEST(test_chunks_begin_on_a_cache_line)
{
    struct pgs_heap heap;
    struct pgs_slab slab;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_slab_init(&slab, &heap, 48, SHIFT, CHUNK), 0);
    ck_assert_int_eq(pgs_slab_grow(&slab), 0);
    ck_assert_uint_eq((uintptr_t)pgs_slab_at(&slab, 0) % 64, 0);
    pgs_slab_fini(&slab);
}
END_TEST

START_TEST(test_chunks_that_will_be_full_are_dense)
{
    struct pgs_heap heap;
    struct pgs_slab slab;

    pgs_heap_init(&heap, pgs_test_allocator());
    for (int large = 0; large < 2; large++) {
        pgs_test_tracker()->dense = 0;
        heap.large = large;
        ck_assert_int_eq(pgs_slab_init(&slab, &heap, 32, 16, 2 << 16), 0);
        ck_assert_int_eq(pgs_slab_grow(&slab), 0);
        ck_assert_uint_eq(pgs_test_tracker()->dense, large);
        ck_assert_int_eq(pgs_slab_grow(&slab), 0);
        ck_assert_uint_eq(pgs_test_tracker()->dense, large + 1);
        pgs_slab_fini(&slab);
        /* not those that are shorter than a huge page */
        ck_assert_int_eq(pgs_slab_init(&slab, &heap, 31, 16, 2 << 16), 0);
        ck_assert_int_eq(pgs_slab_grow(&slab), 0);
        ck_assert_int_eq(pgs_slab_grow(&slab), 0);
        ck_assert_uint_eq(pgs_test_tracker()->dense, large + 1);
        pgs_slab_fini(&slab);
    }
}
END_TEST

START_TEST(test_limit)
{
    struct pgs_heap heap;
    struct pgs_slab slab;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_slab_init(&slab, &heap, 24, SHIFT, 2 * CHUNK), 0);
    ck_assert_int_eq(pgs_slab_grow(&slab), 0);
    ck_assert_int_eq(pgs_slab_grow(&slab), 0);
    ck_assert_int_eq(pgs_slab_grow(&slab), PGSHARE_ERR_FULL);
    ck_assert_uint_eq(slab.size, 2 * CHUNK);
    pgs_slab_fini(&slab);
    pgs_slab_fini(&slab);
}
END_TEST

START_TEST(test_largest_limit_costs_nothing_unused)
{
    struct pgs_heap heap;
    struct pgs_slab slab;
    const uint64_t chunk = UINT64_C(1) << 16;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_slab_init(&slab, &heap, 16, 16,
                                   (UINT64_C(1) << 32) - chunk), 0);
    ck_assert_uint_eq(heap.bytes, 65535 * sizeof(char *));
    pgs_slab_fini(&slab);
}
END_TEST

static int scenario(struct pgs_heap *heap)
{
    struct pgs_slab slab;
    int error = pgs_slab_init(&slab, heap, 24, SHIFT, 4 * CHUNK);

    if (error)
        return error;
    for (uint32_t i = 0; i < 4 && !error; i++) {
        uint64_t before = slab.size;

        error = pgs_slab_grow(&slab);
        ck_assert_uint_eq(slab.size, error ? before : before + CHUNK);
        ck_assert(pgs_slab_is_valid(&slab));
        if (error) /* the next try finds it as it was */
            ck_assert_int_eq(pgs_slab_grow(&slab), 0);
    }
    pgs_slab_fini(&slab);
    return error;
}

START_TEST(test_each_allocation_failing)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    struct pgs_heap heap;
    uint64_t i = 0;
    int error;

    pgs_heap_init(&heap, &tracker->allocator);
    do {
        pgs_tracker_fail_once(tracker, i++);
        error = scenario(&heap);
        ck_assert_int_eq(error, pgs_tracker_has_failed(tracker)
                                    ? PGSHARE_ERR_NOMEM
                                    : 0);
        pgs_tracker_assert_empty(tracker);
        ck_assert_uint_eq(heap.bytes, 0);
    } while (pgs_tracker_has_failed(tracker));
    ck_assert_uint_eq(i, 6);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("slab");
    TCase *records = pgs_tcase(suite, "records");
    TCase *limits = pgs_tcase(suite, "limits");

    tcase_add_test(records, test_records_do_not_move);
    tcase_add_test(records, test_chunks_begin_on_a_cache_line);
    tcase_add_test(records, test_chunks_that_will_be_full_are_dense);
    tcase_add_test(limits, test_limit);
    tcase_add_test(limits, test_largest_limit_costs_nothing_unused);
    tcase_add_test(limits, test_each_allocation_failing);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("slab", make, argc, argv);
}
