/* SPDX-License-Identifier: BSD-2-Clause */
/* The repayment ledger: entitlement, the FIFO, claims, services. */
#include "unit/lend.h"

#define ONE PGSHARE_ENTITLEMENT_ONE

/* ---- entitlement ------------------------------------------------------- */

START_TEST(test_share_is_rounded_down)
{
    ck_assert_uint_eq(pgs_ledger_share(0), 0);
    ck_assert_uint_eq(pgs_ledger_share(1), 0);
    ck_assert_uint_eq(pgs_ledger_share(2), ONE / 2);
    ck_assert_uint_eq(pgs_ledger_share(3), 2863311530u);
    ck_assert_uint_eq(pgs_ledger_share(ONE), ONE - 1);
    for (uint64_t n = 1; n < 1000; n++)
        ck_assert_uint_lt(ONE * (n - 1) - n * pgs_ledger_share(n), n);
}
END_TEST

START_TEST(test_two_mappings_are_entitled_to_a_half_each)
{
    struct world w;
    struct pgshare_account account;

    world_open(&w, NULL);
    world_share(&w, 0, 100);
    for (unsigned i = 0; i < 2; i++) {
        account = world_account(&w, i);
        ck_assert_uint_eq(account.shared, 100);
        ck_assert_uint_eq(account.entitlement, 50 * ONE);
        ck_assert_uint_eq(account.pss, 50 * ONE);
    }
    ck_assert_int_eq(world_write(&w, 0, 7, 1), 0);
    ck_assert_uint_eq(world_account(&w, 0).shared, 99);
    ck_assert_uint_eq(world_account(&w, 1).shared, 100);
    ck_assert_uint_eq(world_account(&w, 1).entitlement, 99 * (ONE / 2));
    ck_assert_uint_eq(world_account(&w, 1).pss, 99 * (ONE / 2) + ONE);
    world_close(&w);
}
END_TEST

START_TEST(test_account_refuses_bad_arguments)
{
    struct world w;
    struct pgshare_account account = { .size = 8 };

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_account(w.host, w.dom[0], NULL),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_account(NULL, w.dom[0], &account),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_account(w.host, w.dom[0], &account),
                     PGSHARE_ERR_ABI);
    account.size = sizeof(account);
    ck_assert_int_eq(pgshare_account(w.host, 12345, &account),
                     PGSHARE_ERR_NODOMAIN);
    world_close(&w);
}
END_TEST

/* ---- the FIFO ---------------------------------------------------------- */

START_TEST(test_pages_go_into_the_fifo_and_out)
{
    struct world w;
    struct pgshare_call call = { .size = sizeof(call) };

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_declare_volatile(w.host, w.dom[0], 10, 20, &call),
                     0);
    ck_assert_uint_eq(call.done, 20);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 20);
    ck_assert_uint_eq(world_stats(&w).fifo, 20);
    ck_assert_uint_eq(world_gfn(&w, 0, 10).flags, PGSHARE_GFN_VOLATILE);
    world_assert_sound(&w);

    ck_assert_int_eq(withdraw(&w, 0, 15, 1), 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 15).flags, 0);
    ck_assert_int_eq(withdraw(&w, 0, 15, 1), PGSHARE_ERR_STATE);
    ck_assert(world_holds(&w, 0, 15, 1015));
    call.done = 0;
    ck_assert_int_eq(pgshare_declare_withdraw(w.host, w.dom[0], 12, 10, &call),
                     PGSHARE_ERR_STATE);
    ck_assert_uint_eq(call.done, 3);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 16);
    world_close(&w);
}
END_TEST

START_TEST(test_withdraw_tells_of_each_page)
{
    struct world w;
    int8_t results[4];
    struct pgshare_call call = { .size = sizeof(call), .results = results };

    world_open(&w, NULL);
    ck_assert_int_eq(push(&w, 0, 10, 1), 0);
    ck_assert_int_eq(push(&w, 0, 12, 2), 0);
    ck_assert_int_eq(pgshare_declare_withdraw(w.host, w.dom[0], 10, 4, &call),
                     PGSHARE_ERR_STATE);
    ck_assert_uint_eq(call.done, 3);
    ck_assert_int_eq(results[0], 0);
    ck_assert_int_eq(results[1], PGSHARE_ERR_STATE);
    ck_assert_int_eq(results[2], 0);
    ck_assert_int_eq(results[3], 0);
    world_close(&w);
}
END_TEST

START_TEST(test_only_private_pages_are_volatile)
{
    struct world w;
    struct pgshare_call call = { .size = sizeof(call) };

    world_open(&w, NULL);
    world_share(&w, 0, 4);
    ck_assert_int_eq(push(&w, 0, 2, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(push(&w, 0, WORLD_PAGES, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(push(&w, 0, WORLD_GFNS, 1), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(push(&w, 0, 10, 0), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(push(&w, 0, 10, 1), 0);
    ck_assert_int_eq(push(&w, 0, 10, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[0], 11, 1, PGSHARE_GET_READ,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_volatile(w.host, w.dom[0], 9, 5, &call),
                     PGSHARE_ERR_STATE);
    ck_assert_uint_eq(call.done, 1);
    ck_assert_int_eq(push(&w, 0, 11, 1), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[0], 11, 1, PGSHARE_GET_READ),
                     0);
    ck_assert_int_eq(pgshare_declare_read_only(w.host, w.dom[0], 20, 1, 1), 0);
    ck_assert_int_eq(push(&w, 0, 20, 1), PGSHARE_ERR_STATE);
    world_close(&w);
}
END_TEST

START_TEST(test_volatile_pages_are_not_shared)
{
    struct world w;
    uint64_t ticket;

    world_open(&w, NULL);
    ck_assert_int_eq(push(&w, 0, 10, 1), 0);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 10, 1, &ticket, NULL),
                     PGSHARE_ERR_BUSY);
    world_close(&w);
}
END_TEST

START_TEST(test_push_survives_want_of_memory)
{
    struct world w;
    uint64_t i = 0, failed = 0;

    world_open(&w, NULL);
    do {
        int r;

        pgs_tracker_fail_once(pgs_test_tracker(), i++);
        r = push(&w, 0, 0, 200);
        pgs_tracker_fail_never(pgs_test_tracker());
        if (r) {
            failed++;
            ck_assert_int_eq(r, PGSHARE_ERR_NOMEM);
        }
        world_assert_sound(&w);
        ck_assert_int_eq(withdraw(&w, 0, 0, 200), r ? PGSHARE_ERR_STATE : 0);
        if (!r)
            break;
    } while (i < 100);
    ck_assert_uint_gt(failed, 0);
    world_close(&w);
}
END_TEST

/* ---- claims ------------------------------------------------------------ */

START_TEST(test_a_claim_brings_zeroed_pages)
{
    struct world w;
    uint64_t reserve;

    open_rich(&w, NULL);
    reserve = world_stats(&w).reserve;
    ck_assert_uint_eq(reserve, 100);
    ck_assert_int_eq(claim(&w, 0, 600, 40), 0);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 40);
    ck_assert_uint_eq(world_stats(&w).claimed, 40);
    ck_assert_uint_eq(world_stats(&w).reserve, reserve - 40);
    ck_assert_uint_eq(world_stats(&w).tracked, 2 * WORLD_PAGES + 40);
    for (uint64_t gfn = 600; gfn < 640; gfn++) {
        ck_assert_uint_eq(world_gfn(&w, 0, gfn).state, PGSHARE_GFN_PRIVATE);
        ck_assert_uint_eq(world_gfn(&w, 0, gfn).flags, PGSHARE_GFN_BONUS);
        ck_assert(world_holds(&w, 0, gfn, 0));
    }
    ck_assert_int_eq(world_write(&w, 0, 600, 5), 0);
    world_assert_sound(&w);

    ck_assert_int_eq(hand_back(&w, 0, 600, 40), 0);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 0);
    ck_assert_uint_eq(world_stats(&w).reserve, reserve);
    ck_assert_uint_eq(world_gfn(&w, 0, 600).state, PGSHARE_GFN_HOLE);
    ck_assert_uint_eq(world_gfn(&w, 0, 600).flags, 0);
    world_close(&w);
}
END_TEST

START_TEST(test_claims_are_limited)
{
    struct world w;

    open_rich(&w, NULL);
    ck_assert_int_eq(claim(&w, 0, 600, 51), PGSHARE_ERR_ENTITLEMENT);
    ck_assert_int_eq(claim(&w, 1, 600, 1), PGSHARE_ERR_OWED);
    ck_assert_int_eq(claim(&w, 0, 500, 20), PGSHARE_ERR_EXISTS);
    ck_assert_int_eq(claim(&w, 0, 1020, 5), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(claim(&w, 0, 600, 0), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(claim(&w, 0, PGSHARE_GFN_NONE, 0), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(claim(&w, 0, PGSHARE_GFN_NONE, UINT64_MAX),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(claim(&w, 0, 600, 30), 0);
    ck_assert_int_eq(claim(&w, 0, 700, 21), PGSHARE_ERR_ENTITLEMENT);
    ck_assert_int_eq(claim(&w, 0, 700, 20), 0);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 50);
    world_close(&w);
}
END_TEST

START_TEST(test_the_fifo_secures_what_was_claimed)
{
    struct world w;
    struct pgshare_call call = { .size = sizeof(call) };

    open_rich(&w, NULL);
    ck_assert_int_eq(claim(&w, 0, 600, 50), 0);
    ck_assert_int_eq(pgshare_declare_withdraw(w.host, w.dom[0], 200, 60, &call),
                     PGSHARE_ERR_OWED);
    ck_assert_uint_eq(call.done, 10);
    ck_assert_uint_eq(world_account(&w, 0).fifo, 50);
    ck_assert_int_eq(push(&w, 0, 300, 1), 0);
    ck_assert_int_eq(withdraw(&w, 0, 259, 1), 0);
    ck_assert_int_eq(hand_back(&w, 0, 600, 50), 0);
    ck_assert_int_eq(withdraw(&w, 0, 210, 49), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_a_reserve_that_was_given_back_cannot_be_claimed)
{
    struct world_options options = { .reserve_keep = 1 };
    struct world w;

    open_rich(&w, &options);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 10, NULL), 0);
    ck_assert_uint_eq(world_stats(&w).reserve, 10);
    ck_assert_int_eq(claim(&w, 0, 600, 5), PGSHARE_ERR_NOFRAME);
    ck_assert_int_eq(pgshare_reserve_set(w.host, 100, NULL), 0);
    ck_assert_int_eq(claim(&w, 0, 600, 5), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_return_refuses_what_is_no_bonus)
{
    struct world w;

    open_rich(&w, NULL);
    ck_assert_int_eq(hand_back(&w, 0, 300, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(claim(&w, 0, 600, 10), 0);
    ck_assert_int_eq(hand_back(&w, 0, 600, 11), PGSHARE_ERR_STATE);
    ck_assert_int_eq(hand_back(&w, 0, 605, 10), PGSHARE_ERR_STATE);
    ck_assert_int_eq(hand_back(&w, 0, 50, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(hand_back(&w, 0, 200, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(hand_back(&w, 0, PGSHARE_GFN_NONE, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[0], 600, 1,
                                     PGSHARE_GET_WRITE, NULL),
                     0);
    ck_assert_int_eq(hand_back(&w, 0, 600, 2), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[0], 600, 1,
                                     PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(hand_back(&w, 0, 600, 10), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_a_claim_by_account_only)
{
    struct world w;
    uint64_t reserve;

    open_rich(&w, NULL);
    reserve = world_stats(&w).reserve;
    ck_assert_int_eq(claim(&w, 0, PGSHARE_GFN_NONE, 40), 0);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 40);
    ck_assert_int_eq(hand_back(&w, 0, 300, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(hand_back(&w, 0, PGSHARE_GFN_NONE, 41), PGSHARE_ERR_STATE);
    ck_assert_int_eq(hand_back(&w, 0, PGSHARE_GFN_NONE, 40), 0);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 0);
    ck_assert_uint_eq(world_stats(&w).reserve, reserve);
    world_close(&w);
}
END_TEST

/* Every operation of a claim and of a return fails in turn. */
static void sweep_claims(uint32_t mode, uint64_t gfn)
{
    struct world_options options = { .faulty = true };
    bool failed = true;

    for (uint64_t first = 0; failed; first++) {
        struct pgshare_fault_plan plan = {
            .size = sizeof(plan),
            .mode = mode,
            .first = first,
        };
        struct world w;
        int r;

        open_rich(&w, &options);
        ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
        r = claim(&w, 0, gfn, 40);
        if (r) {
            ck_assert_uint_le(world_account(&w, 0).claimed, 40);
        } else {
            ck_assert_uint_eq(world_account(&w, 0).claimed, 40);
            r = hand_back(&w, 0, gfn, 40);
            if (!r)
                ck_assert_uint_eq(world_account(&w, 0).claimed, 0);
        }
        failed = pgshare_fault_backend_failed(w.faults) > 0;
        ck_assert_int_eq(!failed, !r);
        ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, NULL), 0);
        world_settle(&w);
        world_assert_sound(&w);
        world_close(&w);
    }
}

START_TEST(test_claims_survive_a_backend_that_fails)
{
    sweep_claims(PGSHARE_INJECT_REFUSE, 600);
    sweep_claims(PGSHARE_INJECT_FAIL, 600);
    sweep_claims(PGSHARE_INJECT_PARTIAL, 600);
    sweep_claims(PGSHARE_INJECT_FAIL, PGSHARE_GFN_NONE);
}
END_TEST

START_TEST(test_a_claim_goes_on_without_its_caller)
{
    struct world_options options = { .faulty = true };
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_LATE,
    };
    struct pgshare_call call = { .size = sizeof(call), .cookie = &plan };
    struct world w;

    open_rich(&w, &options);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(pgshare_bonus_claim(w.host, w.dom[0], 600, 40, &call),
                     PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_ne(call.token, 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 600).flags & PGSHARE_GFN_IN_FLIGHT,
                      PGSHARE_GFN_IN_FLIGHT);
    ck_assert_int_eq(claim(&w, 0, 610, 1), PGSHARE_ERR_BUSY);
    ck_assert_uint_eq(pgshare_fault_backend_release(w.faults), 1);
    world_settle(&w);
    ck_assert_uint_eq(w.n_outcomes, 1);
    ck_assert_uint_eq(w.outcome.kind, PGSHARE_OUTCOME_BONUS);
    ck_assert_uint_eq(w.outcome.token, call.token);
    ck_assert_ptr_eq(w.outcome.cookie, &plan);
    ck_assert_int_eq(w.outcome.result, 0);
    ck_assert_uint_eq(w.outcome.done, 40);
    ck_assert_uint_eq(world_account(&w, 0).claimed, 40);
    world_close(&w);
}
END_TEST

/* ---- services ---------------------------------------------------------- */

START_TEST(test_a_service_secures_claims_of_others)
{
    struct world w;

    open_rich(&w, NULL);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_uint_eq(world_account(&w, 1).service, w.dom[0]);
    ck_assert_int_eq(claim(&w, 1, 600, 40), 0);
    ck_assert_uint_eq(world_account(&w, 0).secures, 40);
    ck_assert_int_eq(claim(&w, 0, 600, 21), PGSHARE_ERR_OWED);
    ck_assert_int_eq(claim(&w, 0, 600, 20), 0);
    ck_assert_int_eq(withdraw(&w, 0, 200, 1), PGSHARE_ERR_OWED);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], 0),
                     PGSHARE_ERR_OWED);
    world_assert_sound(&w);
    ck_assert_int_eq(push(&w, 1, 300, 40), 0);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], 0), 0);
    ck_assert_uint_eq(world_account(&w, 0).secures, 0);
    ck_assert_int_eq(withdraw(&w, 0, 200, 1), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_services_make_no_chains)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[0], w.dom[0]),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[0], 4711),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_service_set(w.host, 4711, w.dom[0]),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[0], 0), 0);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[0], w.dom[1]),
                     PGSHARE_ERR_INVALID);
    world_close(&w);
}
END_TEST

START_TEST(test_a_service_that_goes_writes_claims_off)
{
    struct world w;

    open_rich(&w, NULL);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_int_eq(claim(&w, 1, 600, 40), 0);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[0]), 0);
    ck_assert_uint_eq(world_account(&w, 1).claimed, 0);
    ck_assert_uint_eq(world_account(&w, 1).service, 0);
    ck_assert_uint_eq(world_stats(&w).claimed, 0);
    ck_assert_uint_eq(world_stats(&w).fifo, 0);
    world_close(&w);
}
END_TEST

START_TEST(test_a_domain_that_is_served_can_go)
{
    struct world w;

    open_rich(&w, NULL);
    ck_assert_int_eq(pgshare_service_set(w.host, w.dom[1], w.dom[0]), 0);
    ck_assert_int_eq(claim(&w, 1, 600, 40), 0);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[1]), 0);
    ck_assert_uint_eq(world_account(&w, 0).secures, 0);
    ck_assert_int_eq(withdraw(&w, 0, 200, 60), 0);
    world_close(&w);
}
END_TEST

static void add_claims(Suite *suite)
{
    TCase *claims = pgs_tcase(suite, "claims");

    tcase_add_test(claims, test_a_claim_brings_zeroed_pages);
    tcase_add_test(claims, test_claims_are_limited);
    tcase_add_test(claims, test_the_fifo_secures_what_was_claimed);
    tcase_add_test(claims,
                   test_a_reserve_that_was_given_back_cannot_be_claimed);
    tcase_add_test(claims, test_return_refuses_what_is_no_bonus);
    tcase_add_test(claims, test_a_claim_by_account_only);
    tcase_add_test(claims, test_claims_survive_a_backend_that_fails);
    tcase_add_test(claims, test_a_claim_goes_on_without_its_caller);
}

static Suite *make(void)
{
    Suite *suite = suite_create("ledger");
    TCase *entitlement = pgs_tcase(suite, "entitlement");
    TCase *fifo = pgs_tcase(suite, "fifo");
    TCase *services = pgs_tcase(suite, "services");

    tcase_add_test(entitlement, test_share_is_rounded_down);
    tcase_add_test(entitlement, test_two_mappings_are_entitled_to_a_half_each);
    tcase_add_test(entitlement, test_account_refuses_bad_arguments);
    tcase_add_test(fifo, test_pages_go_into_the_fifo_and_out);
    tcase_add_test(fifo, test_withdraw_tells_of_each_page);
    tcase_add_test(fifo, test_only_private_pages_are_volatile);
    tcase_add_test(fifo, test_volatile_pages_are_not_shared);
    tcase_add_test(fifo, test_push_survives_want_of_memory);
    add_claims(suite);
    tcase_add_test(services, test_a_service_secures_claims_of_others);
    tcase_add_test(services, test_services_make_no_chains);
    tcase_add_test(services, test_a_service_that_goes_writes_claims_off);
    tcase_add_test(services, test_a_domain_that_is_served_can_go);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("ledger", make, argc, argv);
}
