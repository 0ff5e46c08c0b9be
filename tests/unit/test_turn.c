/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs that are turned around: which side of a match becomes the frames. */
#include "unit/passes.h"

#define BIT(kind) (UINT64_C(1) << (kind))
#define PRICE 8000u

/* On a machine where mappings have that price; operations of these kinds are
 * counted. */
static void open_priced(struct world *w, uint64_t price, uint64_t kinds)
{
    const struct world_options options = {
        .flavour = PGSHARE_MOCK_LINUX,
        .extent_cost_ns = price,
        .faulty = true,
        .logged = true,
    };
    const struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_FAIL,
        .kinds = kinds,
        .first = UINT64_MAX,
    };

    world_open(w, &options);
    ck_assert_int_eq(pgshare_fault_backend_plan(w->faults, &plan), 0);
}

/* Guest 1 has the pages of guest 0 in runs of `length`, the last of them
 * first. */
static void scatter(struct world *w, uint64_t length)
{
    for (uint64_t gfn = 0; gfn < WORLD_PAGES; gfn += length) {
        fill(w, 0, gfn, length, 1000 + gfn);
        fill(w, 1, WORLD_PAGES - length - gfn, length, 1000 + gfn);
    }
}

static void check_scattered(struct world *w, uint64_t length)
{
    for (uint64_t gfn = 0; gfn < WORLD_PAGES; gfn++)
        ck_assert(together(w, 0, gfn, 1,
                           WORLD_PAGES - length - gfn / length * length +
                               gfn % length));
    ck_assert_uint_eq(saved(w), WORLD_PAGES);
}

/* How many operations of that kind it takes to share all. */
static uint64_t count(uint64_t price, uint64_t length, uint32_t kind)
{
    struct world w;
    uint64_t n;

    open_priced(&w, price, BIT(kind));
    scatter(&w, length);
    pass(&w);
    n = pgshare_fault_backend_seen(w.faults);
    check_scattered(&w, length);
    world_close(&w);
    return n;
}

START_TEST(test_short_runs_that_are_neighbours_become_frames_together)
{
    const uint64_t runs = WORLD_PAGES / 4;

    ck_assert_uint_eq(count(0, 4, PGSHARE_OP_PUBLISH), runs);
    ck_assert_uint_eq(count(0, 4, PGSHARE_OP_MERGE), 2 * runs);
    ck_assert_uint_le(count(PRICE, 4, PGSHARE_OP_PUBLISH), runs / 32);
    ck_assert_uint_le(count(PRICE, 4, PGSHARE_OP_MERGE), runs + runs / 32);
}
END_TEST

START_TEST(test_long_runs_are_worth_two_mappings)
{
    ck_assert_uint_eq(count(PRICE, 128, PGSHARE_OP_MERGE),
                      2 * WORLD_PAGES / 128);
}
END_TEST

START_TEST(test_what_is_a_frame_already_stays_one)
{
    struct world w;

    open_priced(&w, PRICE, BIT(PGSHARE_OP_PUBLISH));
    scatter(&w, 2);
    pass(&w);
    for (uint64_t gfn = 0; gfn < 16; gfn += 2)
        fill(&w, 1, gfn, 2, 1000 + gfn); /* other pages of guest 0 */
    ck_assert_uint_gt(pgshare_fault_backend_seen(w.faults), 0);
    world_settle(&w);
    pass(&w);
    for (uint64_t gfn = 0; gfn < 16; gfn++)
        ck_assert(together(&w, 0, gfn, 1, gfn));
    world_close(&w);
}
END_TEST

START_TEST(test_copies_of_one_page_share_one_frame)
{
    struct world w;

    open_priced(&w, PRICE, 0);
    scatter(&w, 1);
    for (uint64_t gfn = 0; gfn < 64; gfn += 4) {
        fill(&w, 1, gfn, 1, 1000 + gfn);
        fill(&w, 1, gfn + 2, 1, 1000 + gfn);
    }
    for (unsigned i = 0; i < 3; i++)
        pass(&w);
    for (uint64_t gfn = 0; gfn < 64; gfn += 4) {
        ck_assert(together(&w, 0, gfn, 1, gfn));
        ck_assert(together(&w, 0, gfn, 1, gfn + 2));
    }
    world_close(&w);
}
END_TEST

START_TEST(test_pages_that_a_floor_keeps_whole_are_not_turned)
{
    struct world w;

    open_priced(&w, PRICE, BIT(PGSHARE_OP_PUBLISH));
    scatter(&w, 4);
    ck_assert_int_eq(set_floor(&w, 0, 0, WORLD_PAGES, 2), 0);
    pass(&w);
    ck_assert_uint_eq(pgshare_fault_backend_seen(w.faults), WORLD_PAGES / 4);
    check_scattered(&w, 4);
    world_close(&w);
}
END_TEST

/* Whatever fails, all is shared in the end. */
static void fail_some(uint32_t mode, uint32_t kind)
{
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = mode,
        .kinds = BIT(kind),
        .first = 1,
        .count = 3,
    };
    struct world w;

    open_priced(&w, PRICE, 0);
    scatter(&w, 4);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(pgshare_host_pass(w.host, 0), 0);
    for (unsigned i = 0; i < 100; i++)
        pgshare_host_run(w.host, NULL, NULL);
    pgshare_fault_backend_release(w.faults);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, NULL), 0);
    for (unsigned i = 0; i < 8 && saved(&w) < WORLD_PAGES; i++) {
        world_settle(&w);
        pass(&w);
    }
    check_scattered(&w, 4);
    world_close(&w);
}

START_TEST(test_pages_that_do_not_become_frames_are_shared_as_usual)
{
    static const uint32_t modes[] = { PGSHARE_INJECT_FAIL,
                                      PGSHARE_INJECT_PARTIAL,
                                      PGSHARE_INJECT_LATE };

    fail_some(modes[_i % 3],
              _i / 3 ? PGSHARE_OP_MERGE : PGSHARE_OP_PUBLISH);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("turn");
    TCase *tests = pgs_tcase(suite, "turn");

    tcase_add_test(tests,
                   test_short_runs_that_are_neighbours_become_frames_together);
    tcase_add_test(tests, test_long_runs_are_worth_two_mappings);
    tcase_add_test(tests, test_what_is_a_frame_already_stays_one);
    tcase_add_test(tests, test_copies_of_one_page_share_one_frame);
    tcase_add_test(tests, test_pages_that_a_floor_keeps_whole_are_not_turned);
    tcase_add_loop_test(tests,
                        test_pages_that_do_not_become_frames_are_shared_as_usual,
                        0, 6);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("turn", make, argc, argv);
}
