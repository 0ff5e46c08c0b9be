/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of holds against an array, and without memory. */
#include "base/slab.h"
#include "tables/gfn.h"
#include "tables/hold.h"
#include "support/suite.h"
#include "random.h"

#define PAGES 5000u

static void check_model(struct pgs_holds *holds, const uint32_t *reads)
{
    uint32_t n = 0;

    for (uint32_t page = 0; page < PAGES; page++) {
        const struct pgs_hold *hold = pgs_holds_find(holds, page);

        ck_assert_int_eq(hold != NULL, reads[page] != 0);
        if (hold) {
            ck_assert_uint_eq(hold->page, page);
            ck_assert_uint_eq(hold->reads, reads[page]);
            n++;
        }
    }
    ck_assert_uint_eq(holds->used, n);
    ck_assert(pgs_holds_is_valid(holds));
}

START_TEST(test_an_array_does_the_same)
{
    static uint32_t reads[PAGES];
    struct random random = random_start(4);
    struct pgs_heap heap;
    struct pgs_holds holds;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_holds_init(&holds, &heap, random_next(&random)), 0);
    pgs_mutex_lock(&holds.lock);
    for (uint64_t step = 0; step < 60000 * pgs_test_scale(); step++) {
        /* Long phases of mostly adding and mostly dropping. */
        bool add = random_below(&random, 10) < (step / 10000 % 2 ? 3 : 7);
        uint32_t page = random_below(&random, PAGES);
        struct pgs_hold *hold;

        if (add) {
            hold = pgs_holds_add(&holds, page);
            ck_assert_ptr_nonnull(hold);
            hold->reads = ++reads[page];
        } else if (reads[page]) {
            hold = pgs_holds_find(&holds, page);
            ck_assert_ptr_nonnull(hold);
            hold->reads = --reads[page];
            if (reads[page] == 0)
                pgs_holds_drop(&holds, hold);
        }
        if (step % 5000 == 0)
            check_model(&holds, reads);
    }
    check_model(&holds, reads);
    pgs_mutex_unlock(&holds.lock);
    pgs_holds_fini(&holds);
}
END_TEST

START_TEST(test_a_new_entry_is_empty)
{
    struct pgs_heap heap;
    struct pgs_holds holds;
    struct pgs_hold *hold;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_holds_init(&holds, &heap, 0), 0);
    pgs_mutex_lock(&holds.lock);
    ck_assert_ptr_null(pgs_holds_find(&holds, 0));
    ck_assert_uint_eq(pgs_test_tracker()->calls, 0);
    hold = pgs_holds_add(&holds, 0);
    ck_assert_uint_eq(hold->page, 0);
    ck_assert_uint_eq(hold->frame, PGS_NONE);
    ck_assert_uint_eq(hold->reads | hold->writes | hold->pins, 0);
    ck_assert_ptr_eq(pgs_holds_add(&holds, 0), hold);
    hold = pgs_holds_add(&holds, PGS_PAGE_NONE - 1);
    ck_assert_ptr_eq(pgs_holds_find(&holds, PGS_PAGE_NONE - 1), hold);
    ck_assert_uint_eq(holds.used, 2);
    pgs_mutex_unlock(&holds.lock);
    pgs_holds_fini(&holds);
}
END_TEST

START_TEST(test_a_full_turn_of_the_probe)
{
    struct pgs_heap heap;
    struct pgs_holds holds;
    struct random random = random_start(5);

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_holds_init(&holds, &heap, 0), 0);
    pgs_mutex_lock(&holds.lock);
    /* At 3/4 of 64 slots runs wrap around the end; drop in any order. */
    for (int round = 0; round < 300; round++) {
        uint32_t page[48];

        for (int i = 0; i < 48; i++) {
            page[i] = (uint32_t)(round * 1000 + i);
            ck_assert_ptr_nonnull(pgs_holds_add(&holds, page[i]));
        }
        ck_assert_uint_eq(holds.mask, 63);
        for (uint32_t n = 48; n > 0; n--) {
            uint32_t at = random_below(&random, n);

            pgs_holds_drop(&holds, pgs_holds_find(&holds, page[at]));
            page[at] = page[n - 1];
            for (uint32_t i = 0; i < n - 1; i++)
                ck_assert_ptr_nonnull(pgs_holds_find(&holds, page[i]));
        }
        ck_assert_uint_eq(holds.used, 0);
    }
    pgs_mutex_unlock(&holds.lock);
    pgs_holds_fini(&holds);
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    uint64_t i = 0;

    do {
        struct pgs_heap heap;
        struct pgs_holds holds;
        uint32_t refused = 0;

        pgs_heap_init(&heap, &tracker->allocator);
        ck_assert_int_eq(pgs_holds_init(&holds, &heap, 0), 0);
        pgs_tracker_fail_once(tracker, i++);
        pgs_mutex_lock(&holds.lock);
        for (uint32_t page = 0; page < 200; page++) {
            if (pgs_holds_add(&holds, page))
                continue;
            refused++;
            for (uint32_t old = 0; old < page; old++)
                ck_assert_ptr_nonnull(pgs_holds_find(&holds, old));
            ck_assert_ptr_nonnull(pgs_holds_add(&holds, page));
        }
        ck_assert_uint_eq(refused, pgs_tracker_has_failed(tracker));
        ck_assert_uint_eq(holds.used, 200);
        pgs_mutex_unlock(&holds.lock);
        pgs_holds_fini(&holds);
        pgs_tracker_assert_empty(tracker);
    } while (pgs_tracker_has_failed(tracker));
    ck_assert_uint_eq(i, 5);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("hold");
    TCase *holds = pgs_tcase(suite, "holds");

    tcase_add_test(holds, test_an_array_does_the_same);
    tcase_add_test(holds, test_a_new_entry_is_empty);
    tcase_add_test(holds, test_a_full_turn_of_the_probe);
    tcase_add_test(holds, test_each_allocation_failing);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("hold", make, argc, argv);
}
