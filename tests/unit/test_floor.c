/* SPDX-License-Identifier: BSD-2-Clause */
/* Floors: blocks are shared as a whole, or not at all. */
#include "policy/policy.h"
#include "unit/passes.h"

#include <pgshare/sys/backend.h>

#define FLAVOURS (PGSHARE_MOCK_XEN + 1)

/* Both guests keep whole blocks of 2^order pages; guest 1 has nothing of
 * guest 0's, but for 16 pages at 16. */
static void open_kept(struct world *w, const struct world_options *options,
                      uint32_t order)
{
    world_open(w, options);
    ck_assert_int_eq(set_floor(w, 0, 0, WORLD_PAGES, order), 0);
    ck_assert_int_eq(set_floor(w, 1, 0, WORLD_PAGES, order), 0);
    fill(w, 1, 0, WORLD_PAGES, 100000);
    fill(w, 1, 16, 16, 1016);
}

static void hint(struct world *w, uint64_t gfn, uint64_t count)
{
    ck_assert_int_eq(pgshare_hint_same(w->host, w->dom[0], gfn, w->dom[1], gfn,
                                       count),
                     0);
    world_settle(w);
}

/* ---- candidates that are cut ------------------------------------------- */

START_TEST(test_nothing_below_the_floor_is_shared)
{
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 100, 1, 7);
    ck_assert_int_eq(set_floor(&w, 1, 0, 512, 4), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 16);
    for (unsigned i = 96; i < 112; i++)
        ck_assert(!together(&w, 0, i, 1, i));
    ck_assert(together(&w, 0, 95, 1, 95));
    ck_assert(together(&w, 0, 112, 1, 112));
    /* hints keep to it, too */
    ck_assert_int_eq(pgshare_hint_same(w.host, w.dom[0], 98, w.dom[1], 98, 1),
                     0);
    world_settle(&w);
    ck_assert(!together(&w, 0, 98, 1, 98));
    ck_assert_int_eq(set_floor(&w, 1, 99, 1, 0), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 1);
    world_close(&w);
}
END_TEST

START_TEST(test_both_sides_floors_hold)
{
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    fill(&w, 1, 8, 64, 1000); /* 0 … 63 of guest 0, at 8 … 71 */
    ck_assert_int_eq(set_floor(&w, 0, 0, 1, 4), 0);
    ck_assert_int_eq(set_floor(&w, 1, 0, 1, 4), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0); /* 8 is no multiple of 16 */
    ck_assert_int_eq(set_floor(&w, 1, 0, 1, 3), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 64);
    world_close(&w);
}
END_TEST

START_TEST(test_floors_refuse_what_is_wrong)
{
    struct world w;

    open_scan(&w, false);
    ck_assert_int_eq(set_floor(&w, 0, 0, 1, PGSHARE_ORDERS),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(set_floor(&w, 0, 0, 0, 1), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(set_floor(&w, 0, WORLD_GFNS, 1, 1), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_scan_floor(w.host, 4711, 0, 1, 1),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_scan_floor(NULL, 1, 0, 1, 1), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(set_floor(&w, 0, 0, WORLD_GFNS, 9), 0);
    world_close(&w);
}
END_TEST

/* A page that stays private for the sake of a floor is known all the same. */
START_TEST(test_what_a_floor_keeps_private_costs_nothing_until_it_is_written)
{
    uint64_t compared;
    struct world w;

    open_scan(&w, true);
    ck_assert_int_eq(set_floor(&w, 0, 0, 512, 9), 0);
    ck_assert_int_eq(set_floor(&w, 1, 0, 512, 9), 0);
    fill(&w, 1, 100, 1, 7);
    ck_assert_uint_eq(pass(&w), 2 * WORLD_PAGES);
    compared = world_stats(&w).compared;
    ck_assert_uint_eq(pass(&w), 0);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_uint_eq(world_stats(&w).compared, compared);
    /* the one that is written is an anchor for all that are known */
    fill(&w, _i, 100, 1, 1100);
    fill(&w, !_i, 100, 1, 1100);
    ck_assert_uint_eq(pass(&w), 2);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    world_close(&w);
}
END_TEST

START_TEST(test_known_pages_are_shared_when_a_floor_or_suspension_ends)
{
    struct world w;

    open_scan(&w, _i);
    ck_assert_int_eq(set_floor(&w, 1, 0, 512, 9), 0);
    fill(&w, 1, 100, 1, 7);
    pass(&w);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_int_eq(set_floor(&w, 1, 3, 1, 0), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 1);
    /* the source is suspended, so nothing comes of it */
    ck_assert_int_eq(pgshare_domain_suspend(w.host, w.dom[0]), 0);
    fill(&w, 1, 5, 1, 1006);
    fill(&w, 1, 100, 1, 1100);
    pass(&w);
    pass(&w);
    ck_assert(!together(&w, 0, 100, 1, 100));
    ck_assert_int_eq(pgshare_domain_resume(w.host, w.dom[0]), 0);
    pass(&w);
    ck_assert(together(&w, 0, 100, 1, 100));
    world_close(&w);
}
END_TEST

/* ---- a page that drops out ----------------------------------------------- */

START_TEST(test_a_block_that_one_page_differs_in_is_left_alone)
{
    struct world_options options = { .flavour = (uint32_t)_i };
    struct world w;

    open_kept(&w, &options, 4);
    fill(&w, 1, 21, 1, 77);
    hint(&w, 0, 64);
    ck_assert_uint_eq(saved(&w), 0);
    for (unsigned i = 0; i < 64; i++)
        ck_assert_int_eq(world_gfn(&w, i % 2, i).state, PGSHARE_GFN_PRIVATE);
    fill(&w, 1, 21, 1, 1021);
    hint(&w, 0, 64);
    ck_assert_uint_eq(saved(&w), 16);
    world_close(&w);
}
END_TEST

START_TEST(test_a_block_of_zeroes_that_one_page_differs_in_is_left_alone)
{
    struct world_options options = { .flavour = (uint32_t)_i };
    struct pgs_candidate zeroes = { .client_gfn = 32, .count = 32,
                                    .cause = PGSHARE_CAUSE_SCAN };
    struct pgs_budget budget = { .pages = 512 };
    struct world w;

    open_kept(&w, &options, 4);
    for (unsigned i = 32; i < 64; i++)
        fill(&w, 1, i, 1, i == 40 ? 1 : 0);
    zeroes.client = pgs_domain_of(w.host, w.dom[1]);
    ck_assert_uint_eq(pgs_candidate_try(w.host, &zeroes, &budget), 32);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).zero_mappings, 16);
    ck_assert_int_eq(world_gfn(&w, 1, 47).state, PGSHARE_GFN_PRIVATE);
    ck_assert_int_eq(world_gfn(&w, 1, 48).state, PGSHARE_GFN_SHARED);
    world_close(&w);
}
END_TEST

START_TEST(test_the_scanner_leaves_a_block_alone_that_changed_meanwhile)
{
    struct world_options options = { .logged = false };
    struct world w;

    open_kept(&w, &options, 4);
    fill(&w, 1, 16, 16, 200000);
    pass(&w);
    fill(&w, 1, 16, 16, 1016);
    fill(&w, 0, 21, 1, 77); /* what is known of this one is out of date */
    ck_assert_int_eq(pgshare_host_pass(w.host, w.dom[1]), 0);
    world_settle(&w);
    ck_assert_uint_ge(world_stats(&w).different, 1);
    ck_assert_uint_eq(saved(&w), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0);
    fill(&w, 0, 21, 1, 1021);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 16);
    world_close(&w);
}
END_TEST

START_TEST(test_a_block_that_one_page_is_held_in_is_left_alone)
{
    struct world_options options = { .flavour = (uint32_t)_i };
    struct world w;

    open_kept(&w, &options, 4);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[1], 30, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    hint(&w, 16, 16);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[1], 30, 1,
                                     PGSHARE_GET_WRITE),
                     0);
    hint(&w, 16, 16);
    ck_assert_uint_eq(saved(&w), 16);
    world_close(&w);
}
END_TEST

/* Operations of one kind fail for half of the pages. */
START_TEST(test_a_block_that_an_operation_fails_for_is_left_alone)
{
    static const uint32_t kinds[] = { PGSHARE_OP_PROTECT, PGSHARE_OP_COMPARE,
                                      PGSHARE_OP_PUBLISH };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_PARTIAL,
                                       .kinds = UINT64_C(1) << kinds[_i] };
    struct world_options options = { .faulty = true };
    struct world w;

    open_kept(&w, &options, 4);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    hint(&w, 16, 16);
    ck_assert_uint_eq(pgshare_fault_backend_failed(w.faults), 1);
    ck_assert_uint_eq(saved(&w), 0);
    for (unsigned i = 16; i < 32; i++)
        ck_assert_int_eq(world_gfn(&w, 1, i).state, PGSHARE_GFN_PRIVATE);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, NULL), 0);
    hint(&w, 16, 16);
    ck_assert_uint_eq(saved(&w), 16);
    world_close(&w);
}
END_TEST

START_TEST(test_a_secret_that_is_told_late_leaves_its_block_alone)
{
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_LATE,
        .kinds = UINT64_C(1) << PGSHARE_OP_PUBLISH,
    };
    struct world_options options = { .faulty = true };
    struct world w;

    open_kept(&w, &options, 4);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(pgshare_hint_same(w.host, w.dom[0], 16, w.dom[1], 16, 16),
                     0);
    ck_assert_int_eq(pgshare_host_run(w.host, NULL, NULL), 0);
    ck_assert_int_eq(
        pgshare_declare_never_share(w.host, w.dom[1], 20, 1, 1, NULL), 0);
    ck_assert_uint_eq(pgshare_fault_backend_release(w.faults), 1);
    world_settle(&w);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_uint_eq(world_stats(&w).mappings, 16); /* the source's own */
    world_close(&w);
}
END_TEST

START_TEST(test_without_fingerprints_a_fused_backend_shares_no_blocks)
{
    struct world_options options = { .flavour = PGSHARE_MOCK_LINUX };
    struct world w;

    open_kept(&w, &options, 4);
    w.host->info.ops &= ~(UINT64_C(1) << PGSHARE_OP_FINGERPRINT);
    hint(&w, 16, 16);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_int_eq(set_floor(&w, 0, 0, WORLD_PAGES, 0), 0);
    ck_assert_int_eq(set_floor(&w, 1, 0, WORLD_PAGES, 0), 0);
    hint(&w, 16, 16);
    ck_assert_uint_eq(saved(&w), 16);
    world_close(&w);
}
END_TEST

/* ---- whose pages they are ------------------------------------------------ */

START_TEST(test_a_run_that_the_floor_forbids_leaves_its_pages_to_another)
{
    struct world_options options = { .logged = _i };
    struct world w;

    open_kept(&w, &options, 4);
    fill(&w, 0, 0, WORLD_PAGES, 200000);
    /* 64 pages, of which all are 8 away from where they may be, … */
    fill(&w, 1, 64, 64, 5000);
    fill(&w, 0, 8, 64, 5000);
    fill(&w, 0, 256, 16, 5000); /* … and 16 of them once more */
    pass(&w);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 16);
    for (unsigned i = 0; i < 16; i++)
        ck_assert(together(&w, 0, 256 + i, 1, 64 + i));
    world_close(&w);
}
END_TEST

/* ---- blocks that come together again ------------------------------------- */

static void open_equal(struct world *w, bool logged, uint32_t order)
{
    open_scan(w, logged);
    ck_assert_int_eq(set_floor(w, 0, 0, WORLD_PAGES, order), 0);
    ck_assert_int_eq(set_floor(w, 1, 0, WORLD_PAGES, order), 0);
    pass(w);
    ck_assert_uint_eq(saved(w), WORLD_PAGES);
}

START_TEST(test_pages_that_left_a_block_come_back_to_it)
{
    struct pgshare_host_stats before, after;
    struct world w;

    open_equal(&w, _i, 4);
    fill(&w, 1, 100, 1, 7); /* in the midst, at the ends, on the other side */
    fill(&w, 1, 106, 1, 8);
    fill(&w, 1, 160, 1, 9);
    fill(&w, 1, 255, 1, 10);
    fill(&w, 0, 300, 1, 11);
    before = world_stats(&w);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 5);
    fill(&w, 1, 100, 1, 1100);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 5); /* 106 is missing yet */
    fill(&w, 1, 106, 1, 1106);
    fill(&w, 1, 160, 1, 1160);
    fill(&w, 1, 255, 1, 1255);
    fill(&w, 0, 300, 1, 1300);
    pass(&w);
    after = world_stats(&w);
    ck_assert_uint_eq(after.saved, WORLD_PAGES);
    ck_assert(together(&w, 0, 106, 1, 106));
    /* what was there already is not counted again */
    ck_assert_uint_eq(after.order_pages[0] - before.order_pages[0], 5);
    world_close(&w);
}
END_TEST

START_TEST(test_a_block_is_not_whole_with_a_page_that_is_shared_elsewhere)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_gfn = 300,
        .client_gfn = 25,
        .count = 1,
    };
    struct world w;

    open_equal(&w, _i, 4);
    request.source_dom = w.dom[0];
    request.client_dom = w.dom[1];
    fill(&w, 0, 300, 1, 5);
    fill(&w, 1, 25, 1, 5);
    ck_assert_int_eq(pgshare_share(w.host, &request, NULL), 0);
    fill(&w, 1, 20, 1, 7);
    pass(&w);
    fill(&w, 1, 20, 1, 1020);
    pass(&w);
    ck_assert_int_eq(world_gfn(&w, 1, 20).state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(world_stats(&w).different, 0); /* it was not tried */
    world_close(&w);
}
END_TEST

START_TEST(test_a_block_of_zeroes_comes_together_again)
{
    struct world w;

    open_kept(&w, &(struct world_options){ .logged = _i }, 4);
    for (unsigned i = 32; i < 64; i++)
        fill(&w, 1, i, 1, 0);
    fill(&w, 1, 40, 1, 1);
    pass(&w);
    ck_assert_uint_eq(world_stats(&w).zero_mappings, 16);
    fill(&w, 1, 50, 1, 2);
    fill(&w, 1, 60, 1, 3);
    pass(&w);
    fill(&w, 1, 40, 1, 0);
    fill(&w, 1, 50, 1, 0);
    fill(&w, 1, 60, 1, 0);
    pass(&w);
    ck_assert_uint_eq(world_stats(&w).zero_mappings, 32);
    world_close(&w);
}
END_TEST

START_TEST(test_zeroes_that_the_floor_forbids_are_part_of_other_blocks)
{
    struct world w;

    open_kept(&w, &(struct world_options){ .logged = _i }, 4);
    fill(&w, 0, 24, 1, 0);
    fill(&w, 1, 24, 1, 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 16);
    ck_assert(together(&w, 0, 24, 1, 24));
    world_close(&w);
}
END_TEST

START_TEST(test_a_run_goes_back_to_where_its_block_begins)
{
    struct world_options options = { .logged = _i, .frames = 8 * WORLD_PAGES };
    struct world w;

    open_kept(&w, &options, 9);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(pgshare_mock_populate(w.guest[i], WORLD_PAGES,
                                               WORLD_PAGES),
                         0);
        ck_assert_int_eq(set_floor(&w, i, WORLD_PAGES, WORLD_PAGES, 9), 0);
        fill(&w, i, 0, WORLD_GFNS, 1000);
    }
    fill(&w, 1, 100, 1, 7);
    fill(&w, 1, 1000, 1, 8);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0);
    fill(&w, 1, 100, 1, 1100);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    world_close(&w);
}
END_TEST

START_TEST(test_what_the_floor_forbids_is_known_until_it_is_lowered)
{
    struct world_options options = { .logged = true };
    struct world w;

    open_kept(&w, &options, 4);
    fill(&w, 1, 21, 1, 77);
    pass(&w);
    ck_assert_uint_eq(pass(&w), 0);
    fill(&w, 1, 21, 1, 1021);
    ck_assert_uint_eq(pass(&w), 1);
    ck_assert_uint_eq(saved(&w), 16);
    fill(&w, 1, 100, 1, 1100);
    pass(&w);
    ck_assert_uint_eq(pass(&w), 0);
    ck_assert_uint_eq(saved(&w), 16);
    ck_assert_int_eq(set_floor(&w, 0, 0, 1, 0), 0);
    ck_assert_int_eq(set_floor(&w, 1, 0, 1, 0), 0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 17);
    world_close(&w);
}
END_TEST

START_TEST(test_pages_declared_free_have_no_floor)
{
    struct world w;

    open_kept(&w, NULL, 9);
    ck_assert_int_eq(pgshare_declare_free(w.host, w.dom[1], 100, 3),
                     0);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).zero_mappings, 3);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("floor");
    TCase *kept = pgs_tcase(suite, "kept");
    TCase *apart = pgs_tcase(suite, "apart");
    TCase *whose = pgs_tcase(suite, "whose");
    TCase *again = pgs_tcase(suite, "again");

    tcase_add_loop_test(kept, test_nothing_below_the_floor_is_shared, 0, 2);
    tcase_add_loop_test(kept, test_both_sides_floors_hold, 0, 2);
    tcase_add_test(kept, test_floors_refuse_what_is_wrong);
    tcase_add_loop_test(
        kept,
        test_what_a_floor_keeps_private_costs_nothing_until_it_is_written, 0,
        2);
    tcase_add_loop_test(
        kept, test_known_pages_are_shared_when_a_floor_or_suspension_ends, 0,
        2);
    tcase_add_loop_test(apart,
                        test_a_block_that_one_page_differs_in_is_left_alone, 0,
                        FLAVOURS);
    tcase_add_loop_test(
        apart, test_a_block_of_zeroes_that_one_page_differs_in_is_left_alone, 0,
        FLAVOURS);
    tcase_add_test(apart,
                   test_the_scanner_leaves_a_block_alone_that_changed_meanwhile);
    tcase_add_loop_test(apart,
                        test_a_block_that_one_page_is_held_in_is_left_alone, 0,
                        FLAVOURS);
    tcase_add_loop_test(
        apart, test_a_block_that_an_operation_fails_for_is_left_alone, 0, 3);
    tcase_add_test(apart,
                   test_a_secret_that_is_told_late_leaves_its_block_alone);
    tcase_add_test(apart,
                   test_without_fingerprints_a_fused_backend_shares_no_blocks);
    tcase_add_test(apart, test_pages_declared_free_have_no_floor);
    tcase_add_loop_test(
        whose, test_a_run_that_the_floor_forbids_leaves_its_pages_to_another, 0,
        2);
    tcase_add_test(whose,
                   test_what_the_floor_forbids_is_known_until_it_is_lowered);
    tcase_add_loop_test(again, test_pages_that_left_a_block_come_back_to_it, 0,
                        2);
    tcase_add_loop_test(
        again, test_a_block_is_not_whole_with_a_page_that_is_shared_elsewhere, 0,
        2);
    tcase_add_loop_test(again, test_a_block_of_zeroes_comes_together_again, 0,
                        2);
    tcase_add_loop_test(
        again, test_zeroes_that_the_floor_forbids_are_part_of_other_blocks, 0,
        2);
    tcase_add_loop_test(again, test_a_run_goes_back_to_where_its_block_begins,
                        0, 2);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("floor", make, argc, argv);
}
