/* SPDX-License-Identifier: BSD-2-Clause */
/* The scanner: what passes find, in what order, and within what bounds. */
#include "policy/policy.h"
#include "unit/passes.h"

/* ---- blocks -------------------------------------------------------------- */

START_TEST(test_orders_are_those_of_the_largest_aligned_block)
{
    ck_assert_uint_eq(pgs_blocks_order(0, 1), 0);
    ck_assert_uint_eq(pgs_blocks_order(0, 512), 9);
    ck_assert_uint_eq(pgs_blocks_order(0, 511), 8);
    ck_assert_uint_eq(pgs_blocks_order(1, 511), 8);
    ck_assert_uint_eq(pgs_blocks_order(1, 2), 0);
    ck_assert_uint_eq(pgs_blocks_order(1, 3), 1);
    ck_assert_uint_eq(pgs_blocks_order(3, 512), 8);
    ck_assert_uint_eq(pgs_blocks_order(3, 1021), 9);
    ck_assert_uint_eq(pgs_blocks_order(UINT64_C(1) << 40, 64), 6);
}
END_TEST

START_TEST(test_equal_guests_are_shared_in_one_pass_and_few_operations)
{
    struct pgshare_host_stats stats;
    struct world w;
    uint64_t before;

    open_scan(&w, _i);
    before = world_stats(&w).backend_ops;
    ck_assert_uint_eq(pass(&w), 2 * WORLD_PAGES);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.saved, WORLD_PAGES);
    ck_assert_uint_eq(stats.order_pages[9], WORLD_PAGES);
    ck_assert_uint_eq(stats.order_saved[9], WORLD_PAGES - 1);
    ck_assert_uint_eq(stats.length_pages[9], WORLD_PAGES);
    ck_assert_uint_eq(stats.length_saved[9], WORLD_PAGES - 1);
    ck_assert_uint_lt(stats.backend_ops - before, 20);
    world_close(&w);
}
END_TEST

START_TEST(test_extents_grow_in_both_directions_whatever_their_alignment)
{
    struct pgshare_host_stats stats;
    struct world w;

    open_scan(&w, _i);
    /* guest 1 holds 0 … 255 of guest 0, 37 pages further on */
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    fill(&w, 1, 37, 256, 1000);
    pass(&w);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.saved, 256);
    for (unsigned i = 0; i < 256; i++)
        ck_assert(together(&w, 0, i, 1, 37 + i));
    ck_assert_uint_eq(stats.length_pages[8], 256);
    ck_assert_uint_eq(stats.order_pages[7], 256);
    world_close(&w);
}
END_TEST

START_TEST(test_the_largest_block_goes_first_not_the_one_that_was_found_first)
{
    struct pgshare_host_stats stats;
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    fill(&w, 0, 300, 2, 500000);  /* two pages, of which the second one … */
    fill(&w, 0, 100, 64, 500001); /* … begins a long row, too */
    fill(&w, 1, 40, 65, 500000);
    pass(&w);
    stats = world_stats(&w);
    for (unsigned i = 0; i < 64; i++)
        ck_assert(together(&w, 0, 100 + i, 1, 41 + i));
    ck_assert(together(&w, 0, 300, 1, 40));
    ck_assert_uint_eq(stats.length_pages[6], 64);
    ck_assert_uint_eq(stats.length_pages[1], 0);
    world_close(&w);
}
END_TEST

START_TEST(test_growth_goes_back_beyond_a_page_that_has_too_many_equals)
{
    struct world w;

    open_scan(&w, _i);
    /* of many pages that are equal the index knows four; here others must be
     * found through their neighbour */
    fill(&w, 0, 0, WORLD_PAGES, 100000);
    for (unsigned i = 0; i < 9; i++)
        fill(&w, 0, 300 + 2 * i, 1, 55);
    fill(&w, 1, 0, WORLD_PAGES, 200000);
    for (unsigned i = 0; i < 9; i++)
        fill(&w, 1, 100 + i, 1, 55);
    fill(&w, 1, 109, 1, 100317);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 18);
    world_close(&w);
}
END_TEST

START_TEST(test_a_written_page_takes_a_block_apart_and_it_comes_together_again)
{
    struct world w;

    open_scan(&w, _i);
    pass(&w);
    fill(&w, 1, 100, 1, 7);
    fill(&w, 0, 200, 1, 8);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 2);
    fill(&w, 1, 100, 1, 1100);
    fill(&w, 0, 200, 1, 1200);
    pass(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    ck_assert(together(&w, 0, 100, 1, 100));
    ck_assert(together(&w, 0, 200, 1, 200));
    world_close(&w);
}
END_TEST

START_TEST(test_a_block_that_one_page_differs_in_is_shared_in_two_parts)
{
    struct pgshare_host_stats stats;
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 300, 1, 7);
    pass(&w);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.saved, WORLD_PAGES - 1);
    ck_assert_uint_eq(stats.length_pages[8], 300);
    ck_assert_uint_eq(stats.length_pages[7], 211);
    ck_assert_uint_eq(stats.order_pages[8], 300);
    ck_assert_uint_eq(stats.order_pages[7], 211);
    world_close(&w);
}
END_TEST

START_TEST(test_copies_within_one_guest_and_zeroes_are_shared)
{
    struct pgshare_host_stats stats;
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    for (unsigned i = 0; i < 100; i++)
        fill(&w, 0, i, 1, 77);
    for (unsigned i = 100; i < 140; i++)
        fill(&w, 0, i, 1, 0);
    pass(&w);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.zero_mappings, 40);
    ck_assert_uint_eq(stats.saved, 40 + 99);
    world_close(&w);
}
END_TEST

START_TEST(test_when_a_frame_is_full_the_next_pair_begins_another)
{
    struct world_options options = { .logged = _i, .sharers_max = 10 };
    struct pgshare_host_stats stats;
    struct world w;

    world_open(&w, &options);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    for (unsigned i = 0; i < 500; i++)
        fill(&w, 0, i, 1, 77);
    pass(&w);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.saved, 450);
    ck_assert_uint_eq(stats.frames, 50);
    if (_i)
        ck_assert_uint_eq(pass(&w), 0);
    ck_assert_uint_eq(saved(&w), 450);
    /* a frame that has room again is found */
    fill(&w, 0, 0, 1, 5);
    fill(&w, 1, 0, 1, 77);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 450);
    world_close(&w);
}
END_TEST

/* ---- passes -------------------------------------------------------------- */

static uint64_t scanned_by(struct world *w, const uint64_t *doms, unsigned n)
{
    uint64_t before = world_stats(w).scanned;

    for (unsigned i = 0; i < n; i++)
        ck_assert_int_eq(pgshare_host_pass(w->host, doms[i]), 0);
    world_settle(w);
    return world_stats(w).scanned - before;
}

START_TEST(test_no_pass_that_was_asked_for_is_lost)
{
    struct world w;
    uint64_t a, b;

    open_scan(&w, false);
    a = w.dom[0];
    b = w.dom[1];
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    ck_assert_uint_eq(scanned_by(&w, (uint64_t[]){ a, b }, 2), 2 * WORLD_PAGES);
    ck_assert_uint_eq(info_of(&w).passes, 2);
    ck_assert_uint_eq(scanned_by(&w, (uint64_t[]){ b, a, b }, 3),
                      2 * WORLD_PAGES);
    ck_assert_uint_eq(info_of(&w).passes, 4);
    ck_assert_uint_eq(scanned_by(&w, (uint64_t[]){ b, 0, a }, 3),
                      2 * WORLD_PAGES);
    ck_assert_uint_eq(info_of(&w).passes, 5);
    ck_assert_uint_eq(scanned_by(&w, (uint64_t[]){ b }, 1), WORLD_PAGES);
    ck_assert_uint_eq(info_of(&w).passes, 6);
    world_close(&w);
}
END_TEST

START_TEST(test_who_asks_again_and_again_does_not_keep_others_waiting)
{
    struct pgshare_budget tiny = { .size = sizeof(tiny), .pages = 1 };
    struct world w;
    uint64_t before;

    open_scan(&w, false);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    before = world_stats(&w).scanned;
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(pgshare_host_pass(w.host, w.dom[0]), 0);
        ck_assert_int_eq(pgshare_host_pass(w.host, w.dom[1]), 0);
        ck_assert_int_eq(pgshare_host_run(w.host, &tiny, NULL), 0);
    }
    ck_assert_uint_ge(info_of(&w).passes, 4);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_uint_ge(pgs_domain_of(w.host, w.dom[i])->scans,
                          info_of(&w).passes / 2);
    ck_assert_uint_gt(world_stats(&w).scanned, before);
    world_close(&w);
}
END_TEST

START_TEST(test_progress_is_of_the_pass_and_ends_at_all_its_pages)
{
    struct pgshare_budget tiny = { .size = sizeof(tiny), .pages = 1 };
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    ck_assert_int_eq(pgshare_mock_populate(w.guest[1], 700, 100), 0);
    pass(&w); /* 0 … 511 of both, and these; all else are holes */
    ck_assert_uint_eq(info_of(&w).tracked, 2 * WORLD_PAGES + 100);
    ck_assert_uint_eq(info_of(&w).looked, 2 * WORLD_PAGES + 100);
    ck_assert_int_eq(pgshare_host_pass(w.host, w.dom[1]), 0);
    ck_assert_int_eq(pgshare_host_run(w.host, &tiny, NULL), 0);
    ck_assert_uint_eq(info_of(&w).active, 1);
    ck_assert_uint_eq(info_of(&w).tracked, WORLD_PAGES + 100);
    ck_assert_uint_lt(info_of(&w).looked, WORLD_PAGES + 100);
    world_settle(&w);
    ck_assert_uint_eq(info_of(&w).tracked, WORLD_PAGES + 100);
    ck_assert_uint_eq(info_of(&w).looked, WORLD_PAGES + 100);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[1]), 0);
    world_settle(&w);
    ck_assert_uint_eq(info_of(&w).tracked, WORLD_PAGES + 100);
    ck_assert_uint_eq(scanned_by(&w, (uint64_t[]){ w.dom[0] }, 1),
                      _i ? 0 : WORLD_PAGES);
    ck_assert_uint_eq(info_of(&w).tracked, WORLD_PAGES);
    world_close(&w);
}
END_TEST

/* ---- room ---------------------------------------------------------------- */

/* Each page's equal is somewhere else, so that each is a candidate. */
START_TEST(test_a_pass_shares_all_though_candidates_wait_for_each_other)
{
    struct pgshare_mock_chaos slow = { .delay_op = 1000000 };
    struct world w;

    open_scan(&w, _i);
    for (unsigned i = 0; i < WORLD_PAGES; i++)
        fill(&w, 1, i * 37 % WORLD_PAGES, 1, 1000 + i);
    for (unsigned i = 0; i < 300; i += 2)
        fill(&w, 0, i, 1, 0);
    pgshare_mock_chaos_set(w.machine, &slow);
    ck_assert_uint_eq(pass(&w), 2 * WORLD_PAGES);
    ck_assert_uint_eq(world_stats(&w).zero_mappings, 150);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    if (_i)
        ck_assert_uint_eq(pass(&w), 0);
    world_close(&w);
}
END_TEST

/* Two pages of one content want the third one at the same time. */
START_TEST(test_a_page_whose_partner_was_busy_is_looked_at_again)
{
    struct pgshare_mock_chaos slow = { .delay_op = 1000000 };
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    for (unsigned i = 0; i < 3; i++)
        fill(&w, 1, 10 * i, 1, 77);
    pgshare_mock_chaos_set(w.machine, &slow);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 1);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 2);
    world_close(&w);
}
END_TEST

/* ---- workers ------------------------------------------------------------- */

START_TEST(test_workers_take_blocks_and_the_runner_shares)
{
    struct pgshare_budget tiny = { .size = sizeof(tiny), .pages = 1 };
    struct pgshare_scan_info info = { .size = sizeof(info) };
    struct world w;
    uint64_t pages;

    open_scan(&w, _i);
    ck_assert_int_eq(pgshare_scan_step(w.host, NULL, &pages), 0);
    ck_assert_uint_eq(pages, 0);
    ck_assert_int_eq(pgshare_host_pass(w.host, 0), 0);
    /* the runner begins the pass, and takes one block at the most */
    ck_assert_int_eq(pgshare_host_run(w.host, &tiny, NULL), 0);
    ck_assert_int_eq(pgshare_scan_step(w.host, NULL, &pages), 0);
    ck_assert_uint_ge(pages, WORLD_PAGES);
    ck_assert_uint_eq(saved(&w), 0);
    world_settle(&w);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    ck_assert_int_eq(pgshare_scan_info(w.host, &info), 0);
    ck_assert_uint_eq(info.passes, 1);
    ck_assert_uint_eq(info.active, 0);
    ck_assert_uint_eq(info.scanned, 2 * WORLD_PAGES);
    ck_assert_uint_eq(info.tracked, 2 * WORLD_PAGES);
    world_close(&w);
}
END_TEST

/* A batch that waits for the runner outlives its domain. */
START_TEST(test_a_domain_may_go_while_its_batch_waits)
{
    struct pgshare_budget tiny = { .size = sizeof(tiny), .pages = 1 };
    struct world w;
    uint64_t pages;

    open_scan(&w, _i);
    ck_assert_int_eq(pgshare_host_pass(w.host, 0), 0);
    ck_assert_int_eq(pgshare_host_run(w.host, &tiny, NULL), 0);
    ck_assert_int_eq(pgshare_scan_step(w.host, NULL, &pages), 0);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[0]), 0);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[1]), 0);
    world_settle(&w);
    ck_assert_uint_eq(saved(&w), 0);
    world_close(&w);
}
END_TEST

/* ---- steering ------------------------------------------------------------ */

static void turns(struct world *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        pgshare_mock_clock_advance(w->machine, 10000000);
        ck_assert_int_eq(pgshare_host_run(w->host, NULL, NULL), 0);
    }
}

START_TEST(test_steering_follows_yield_and_pressure)
{
    struct pgshare_scan_options on = { .size = sizeof(on),
                                       .flags = PGSHARE_SCAN_ON };
    struct pgshare_poll poll = { .size = sizeof(poll) };
    struct world w;

    open_scan(&w, true);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    turns(&w, 5);
    ck_assert_uint_eq(info_of(&w).passes, 0);
    ck_assert_uint_eq(info_of(&w).rate_ppm, 0);
    ck_assert_int_eq(pgshare_scan_set(w.host, &on), 0);
    ck_assert_uint_eq(info_of(&w).rate_ppm, 1000000);
    for (unsigned i = 0; i < 100 && info_of(&w).passes < 3; i++)
        turns(&w, 1);
    ck_assert_uint_ge(info_of(&w).passes, 3);
    ck_assert_uint_lt(info_of(&w).rate_ppm, 10000);
    ck_assert_int_eq(pgshare_host_poll(w.host, &poll), 0);
    ck_assert_uint_ne(poll.deadline_ns, PGSHARE_FOREVER);
    pgshare_mock_pressure_set(w.machine, 90);
    ck_assert_uint_eq(info_of(&w).rate_ppm, 1000000);
    pgshare_mock_pressure_set(w.machine, 0);
    fill(&w, 1, 0, WORLD_PAGES, 1000);
    turns(&w, 100);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    ck_assert_int_eq(pgshare_scan_set(w.host, NULL), 0);
    ck_assert_int_eq(pgshare_host_run(w.host, NULL, NULL), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_the_budget_of_pages_is_kept)
{
    struct pgshare_scan_options on = { .size = sizeof(on),
                                       .flags = PGSHARE_SCAN_ON |
                                                PGSHARE_SCAN_STEADY,
                                       .pages_per_s = 10000 };
    struct world w;
    uint64_t begin;

    open_scan(&w, false);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    ck_assert_int_eq(pgshare_scan_set(w.host, &on), 0);
    turns(&w, 100);
    begin = world_stats(&w).scanned;
    turns(&w, 200); /* 2 s */
    ck_assert_uint_ge(world_stats(&w).scanned - begin, 18000);
    ck_assert_uint_le(world_stats(&w).scanned - begin, 22000);
    ck_assert_int_eq(pgshare_scan_set(w.host, NULL), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_options_are_checked)
{
    struct pgshare_scan_options o = { .size = sizeof(o), .flags = 1 << 9 };
    struct world w;

    open_scan(&w, false);
    ck_assert_int_eq(pgshare_scan_set(w.host, &o), PGSHARE_ERR_INVALID);
    o.flags = 0;
    o.pressure = 101;
    ck_assert_int_eq(pgshare_scan_set(w.host, &o), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_scan_set(NULL, NULL), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_scan_info(w.host, NULL), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_scan_step(NULL, NULL, NULL), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_scan_step(w.host, NULL, NULL), 0);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("scan");
    TCase *blocks = pgs_tcase(suite, "blocks");
    TCase *chosen = pgs_tcase(suite, "chosen");
    TCase *rules = pgs_tcase(suite, "rules");

    tcase_add_test(blocks, test_orders_are_those_of_the_largest_aligned_block);
    tcase_add_loop_test(
        blocks, test_equal_guests_are_shared_in_one_pass_and_few_operations, 0,
        2);
    tcase_add_loop_test(
        blocks,
        test_the_largest_block_goes_first_not_the_one_that_was_found_first, 0,
        2);
    tcase_add_loop_test(
        blocks, test_extents_grow_in_both_directions_whatever_their_alignment,
        0, 2);
    tcase_add_loop_test(
        blocks, test_growth_goes_back_beyond_a_page_that_has_too_many_equals, 0,
        2);
    tcase_add_loop_test(
        blocks,
        test_a_written_page_takes_a_block_apart_and_it_comes_together_again, 0,
        2);
    tcase_add_loop_test(
        blocks, test_a_block_that_one_page_differs_in_is_shared_in_two_parts, 0,
        2);
    tcase_add_loop_test(blocks,
                        test_copies_within_one_guest_and_zeroes_are_shared, 0,
                        2);
    tcase_add_loop_test(blocks,
                        test_when_a_frame_is_full_the_next_pair_begins_another,
                        0, 2);
    tcase_add_test(chosen, test_no_pass_that_was_asked_for_is_lost);
    tcase_add_test(chosen,
                   test_who_asks_again_and_again_does_not_keep_others_waiting);
    tcase_add_loop_test(
        chosen, test_progress_is_of_the_pass_and_ends_at_all_its_pages, 0, 2);
    tcase_add_loop_test(
        rules, test_a_pass_shares_all_though_candidates_wait_for_each_other, 0,
        2);
    tcase_add_loop_test(chosen,
                        test_a_page_whose_partner_was_busy_is_looked_at_again,
                        0, 2);
    tcase_add_loop_test(rules, test_workers_take_blocks_and_the_runner_shares,
                        0, 2);
    tcase_add_loop_test(rules, test_a_domain_may_go_while_its_batch_waits, 0,
                        2);
    tcase_add_test(rules, test_steering_follows_yield_and_pressure);
    tcase_add_test(rules, test_the_budget_of_pages_is_kept);
    tcase_add_test(rules, test_options_are_checked);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("scan", make, argc, argv);
}
