/* SPDX-License-Identifier: BSD-2-Clause */
/* The repayment ledger: who pays for a fault, and what the reserve keeps. */
#include "unit/lend.h"

/* ---- payment ----------------------------------------------------------- */

/* The breaker's own FIFO pays when the reserve is empty, oldest page first,
 * and its claim shrinks with it. */
START_TEST(test_the_breakers_fifo_pays)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;
    struct pgshare_fault fault = { .size = sizeof(fault) };

    open_rich(&w, &options);
    ck_assert_int_eq(claim(&w, 0, 600, 50), 0);
    for (uint64_t gfn = 0; gfn < 50; gfn++)
        ck_assert_int_eq(world_write(&w, 0, gfn, 1), 0);
    ck_assert_uint_eq(world_stats(&w).reserve, 0);
    ck_assert_int_eq(pgshare_fault_write(w.host, w.dom[0], 50, 0, NULL, &fault),
                     0);
    ck_assert_uint_eq(fault.outcome, PGSHARE_FAULT_COPIED);
    ck_assert_uint_eq(fault.payer, PGSHARE_PAID_OWN_FIFO);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 49);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 59);
    ck_assert_uint_eq(world_account(&w, 0).repaid, 1);
    ck_assert_uint_eq(world_gfn(&w, 0, 200).state, PGSHARE_GFN_HOLE);
    ck_assert_uint_eq(world_gfn(&w, 0, 200).flags, PGSHARE_GFN_RECLAIMED);
    ck_assert(world_holds(&w, 0, 200, 0));
    ck_assert_int_eq(withdraw(&w, 0, 200, 1), PGSHARE_ERR_RECLAIMED);
    ck_assert_int_eq(withdraw(&w, 0, 201, 1), 0);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_RECLAIMED), 1);
    ck_assert_uint_eq(world_stats(&w).reclaimed, 1);
    ck_assert_uint_eq(world_stats(&w).payers[PGSHARE_PAID_OWN_FIFO], 1);
    ck_assert_uint_eq(world_stats(&w).payers[PGSHARE_PAID_RESERVE], 50);
    world_close(&w);
}
END_TEST

/* With every claim granted, every mapping can still be broken. */
START_TEST(test_all_that_was_freed_can_be_paid_back)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;

    world_open(&w, &options);
    world_share(&w, 0, 200);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(push(&w, i, 200, 100), 0);
        ck_assert_int_eq(claim(&w, i, 600, 100), 0);
    }
    ck_assert_uint_eq(world_stats(&w).reserve, 0);
    world_assert_sound(&w);
    for (uint64_t gfn = 0; gfn < 200; gfn++) {
        ck_assert_int_eq(world_write(&w, gfn % 2, gfn, 1), 0);
        ck_assert_int_eq(world_write(&w, 1 - gfn % 2, gfn, 2), 0);
    }
    ck_assert_uint_eq(world_stats(&w).mappings, 0);
    ck_assert_uint_eq(world_stats(&w).reclaimed, 200);
    ck_assert_uint_eq(world_stats(&w).claimed, 0);
    world_close(&w);
}
END_TEST

/* A service that breaks its own mappings pays with pages that secure a claim
 * of another: that claim ends with them. */
START_TEST(test_a_service_that_breaks_ends_claims)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;

    world_open(&w, &options);
    world_share(&w, 0, 100);
    ck_assert_int_eq(push(&w, 0, 200, 50), 0);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_int_eq(claim(&w, 1, 600, 50), 0);
    for (uint64_t gfn = 0; gfn < 60; gfn++)
        ck_assert_int_eq(world_write(&w, 0, gfn, 1), 0);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 40);
    ck_assert_uint_eq(world_account(&w, 0).secures, 40);
    ck_assert_uint_eq(world_account(&w, 1).claimed, 40);
    world_close(&w);
}
END_TEST

START_TEST(test_the_service_pays_for_whom_it_serves)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;
    struct pgshare_fault fault = { .size = sizeof(fault) };

    world_open(&w, &options);
    world_share(&w, 0, 100);
    ck_assert_int_eq(push(&w, 0, 200, 50), 0);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_int_eq(claim(&w, 1, 600, 50), 0);
    for (uint64_t gfn = 0; gfn < 50; gfn++)
        ck_assert_int_eq(world_write(&w, 1, gfn, 1), 0);
    ck_assert_int_eq(pgshare_fault_write(w.host, w.dom[1], 50, 0, NULL, &fault),
                     0);
    ck_assert_uint_eq(fault.payer, PGSHARE_PAID_SERVICE);
    ck_assert_uint_eq(world_account(&w, 0).secures, 49);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 49);
    world_close(&w);
}
END_TEST

/* What secures claims is not spent on anything else: a reclaimed page gets
 * memory again only when there is some. */
START_TEST(test_reclaimed_pages_do_not_eat_the_fifo)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;

    world_open(&w, &options);
    world_share(&w, 0, 100);
    ck_assert_int_eq(push(&w, 0, 200, 50), 0);
    ck_assert_int_eq(claim(&w, 0, 600, 50), 0);
    for (uint64_t gfn = 0; gfn < 51; gfn++)
        ck_assert_int_eq(world_write(&w, 0, gfn, 1), 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 200).flags, PGSHARE_GFN_RECLAIMED);
    ck_assert_int_eq(pgshare_fault_write(w.host, w.dom[0], 200, 0, NULL, NULL),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 49);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 49);
    world_assert_sound(&w);
    /* a page beyond what is owed may pay */
    ck_assert_int_eq(push(&w, 0, 300, 1), 0);
    ck_assert_int_eq(world_write(&w, 0, 200, 7), 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 200).state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 49);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 49);
    world_close(&w);
}
END_TEST

START_TEST(test_a_held_page_does_not_pay)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;

    world_open(&w, &options);
    world_share(&w, 0, 100);
    ck_assert_int_eq(push(&w, 0, 200, 50), 0);
    ck_assert_int_eq(claim(&w, 0, 600, 50), 0);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[0], 200, 2,
                                     PGSHARE_GET_WRITE, NULL),
                     0);
    for (uint64_t gfn = 0; gfn < 51; gfn++)
        ck_assert_int_eq(world_write(&w, 0, gfn, 1), 0);
    ck_assert(world_holds(&w, 0, 200, 1200));
    ck_assert_uint_eq(world_gfn(&w, 0, 202).flags, PGSHARE_GFN_RECLAIMED);
    ck_assert_uint_eq(world_account(&w, 0).repaid, 1);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[0], 200, 2,
                                     PGSHARE_GET_WRITE),
                     0);
    world_close(&w);
}
END_TEST

/* However many are held: the last one that is not pays, be it the youngest, or
 * another domain's. */
START_TEST(test_a_fault_finds_the_page_that_can_pay)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES };
    struct world w;

    world_open(&w, &options);
    world_share(&w, 0, 100);
    ck_assert_int_eq(push(&w, 0, 200, 50), 0);
    ck_assert_int_eq(claim(&w, 0, 600, 50), 0);
    ck_assert_int_eq(push(&w, 1, 300, 1), 0);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[0], 200, 49,
                                     PGSHARE_GET_WRITE, NULL),
                     0);
    for (uint64_t gfn = 0; gfn < 51; gfn++)
        ck_assert_int_eq(world_write(&w, 0, gfn, 1), 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 249).flags, PGSHARE_GFN_RECLAIMED);
    ck_assert_int_eq(world_write(&w, 0, 51, 1), 0);
    ck_assert_uint_eq(world_gfn(&w, 1, 300).flags, PGSHARE_GFN_RECLAIMED);
    ck_assert_int_eq(pgshare_fault_write(w.host, w.dom[0], 52, 0, NULL, NULL),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 49);
    world_assert_sound(&w);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[0], 200, 49,
                                     PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(world_write(&w, 0, 52, 1), 0);
    world_close(&w);
}
END_TEST

/* A page that the backend cannot reclaim goes back, and another one pays. */
START_TEST(test_payment_survives_a_backend_that_fails)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES,
                                     .faulty = true };
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_FAIL,
        .kinds = UINT64_C(1) << PGSHARE_OP_RECLAIM,
        .count = 3,
    };
    struct world w;

    world_open(&w, &options);
    world_share(&w, 0, 100);
    ck_assert_int_eq(push(&w, 0, 200, 50), 0);
    ck_assert_int_eq(claim(&w, 0, 600, 50), 0);
    for (uint64_t gfn = 0; gfn < 50; gfn++)
        ck_assert_int_eq(world_write(&w, 0, gfn, 1), 0);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(world_write(&w, 0, 50, 1), 0);
    ck_assert_uint_eq(pgshare_fault_backend_failed(w.faults), 3);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 49);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 49);
    ck_assert_uint_eq(world_gfn(&w, 0, 200).flags, PGSHARE_GFN_VOLATILE);
    ck_assert_uint_eq(world_gfn(&w, 0, 203).flags, PGSHARE_GFN_RECLAIMED);
    world_assert_sound(&w);
    plan.count = UINT64_MAX;
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(pgshare_fault_write(w.host, w.dom[0], 51, 0, NULL, NULL),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 49);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, NULL), 0);
    ck_assert_int_eq(world_write(&w, 0, 51, 1), 0);
    world_close(&w);
}
END_TEST

/* ---- the reserve ------------------------------------------------------- */

START_TEST(test_the_reserve_is_moved)
{
    struct world_options options = { .frames = 2 * WORLD_PAGES + 50 };
    struct world w;
    uint64_t held = 0;

    world_open(&w, &options);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 30, &held), 0);
    ck_assert_uint_eq(held, 30);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 30, &held), 0);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 51, &held),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(world_stats(&w).reserve, 50);
    ck_assert_int_eq(pgshare_reserve_set(w.host, UINT64_MAX, NULL),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 0, &held), 0);
    ck_assert_uint_eq(held, 0);
    world_close(&w);
}
END_TEST

/* By default what sharing freed is kept, volatile pages or not. */
START_TEST(test_the_reserve_keeps_what_was_freed)
{
    struct world w;
    uint64_t held = 0;

    open_rich(&w, NULL);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).reserve, 100);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 5, &held), 0);
    ck_assert_uint_eq(held, 105);
    ck_assert_int_eq(claim(&w, 0, 600, 40), 0);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).reserve, 65);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 0, &held), 0);
    ck_assert_uint_eq(held, 60);
    world_close(&w);
}
END_TEST

START_TEST(test_the_reserve_keeps_what_claims_need)
{
    struct world_options options = { .reserve_keep = 1 };
    struct world w;
    uint64_t held = 0;

    open_rich(&w, &options);
    ck_assert_uint_eq(pgs_ledger_need(w.host), 0);
    ck_assert_int_eq(claim(&w, 0, 600, 40), 0);
    ck_assert_uint_eq(pgs_ledger_need(w.host), 60);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 0, &held), 0);
    ck_assert_uint_eq(held, 60);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 7, &held), 0);
    ck_assert_uint_eq(held, 67);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("payment");
    TCase *payment = pgs_tcase(suite, "payment");
    TCase *reserve = pgs_tcase(suite, "reserve");

    tcase_add_test(payment, test_the_breakers_fifo_pays);
    tcase_add_test(payment, test_all_that_was_freed_can_be_paid_back);
    tcase_add_test(payment, test_a_service_that_breaks_ends_claims);
    tcase_add_test(payment, test_the_service_pays_for_whom_it_serves);
    tcase_add_test(payment, test_reclaimed_pages_do_not_eat_the_fifo);
    tcase_add_test(payment, test_a_held_page_does_not_pay);
    tcase_add_test(payment, test_a_fault_finds_the_page_that_can_pay);
    tcase_add_test(payment, test_payment_survives_a_backend_that_fails);
    tcase_add_test(reserve, test_the_reserve_is_moved);
    tcase_add_test(reserve, test_the_reserve_keeps_what_was_freed);
    tcase_add_test(reserve, test_the_reserve_keeps_what_claims_need);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("payment", make, argc, argv);
}
