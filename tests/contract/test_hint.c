/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hints, passes and forks: pages that become shared without being named.
 */
#include "contract/rig.h"

static void open_equal(struct rig *rig, int machine, uint64_t n)
{
    rig_open(rig, machine);
    rig_guest(rig);
    rig_guest(rig);
    rig_fill(rig, 0, 4, n, 7);
    rig_fill(rig, 1, 9, n, 7);
}

static void assert_shared(struct rig *rig, uint64_t n, enum pgshare_cause cause)
{
    rig_settle(rig);
    for (uint64_t i = 0; i < n; i++)
        ck_assert(rig_together(rig, 0, 4 + i, 1, 9 + i));
    ck_assert_uint_ge(rig_stats(rig).shared[cause], n);
}

/* ---- hints ------------------------------------------------------------- */

START_TEST(pages_hinted_as_the_same_are_shared)
{
    struct rig rig;

    open_equal(&rig, _i, 10);
    ck_assert_int_eq(pgshare_hint_same(rig.host, rig_dom(&rig, 0), 4,
                                       rig_dom(&rig, 1), 9, 10),
                     0);
    assert_shared(&rig, 10, PGSHARE_CAUSE_SAME);
    ck_assert_uint_eq(rig_stats(&rig).hints, 1);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_read_from_the_same_block_are_shared)
{
    struct rig rig;

    open_equal(&rig, _i, 10);
    ck_assert_int_eq(pgshare_hint_block(rig.host, rig_dom(&rig, 0), 4, 10, 5,
                                        1000),
                     0);
    ck_assert_int_eq(pgshare_hint_block(rig.host, rig_dom(&rig, 1), 9, 10, 5,
                                        1000),
                     0);
    assert_shared(&rig, 10, PGSHARE_CAUSE_BLOCK);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_of_the_same_file_are_shared)
{
    struct rig rig;

    open_equal(&rig, _i, 10);
    ck_assert_int_eq(pgshare_hint_file(rig.host, rig_dom(&rig, 0), 4, 10, 6, 0),
                     0);
    ck_assert_int_eq(pgshare_hint_file(rig.host, rig_dom(&rig, 1), 9, 10, 6, 0),
                     0);
    assert_shared(&rig, 10, PGSHARE_CAUSE_FILE);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_of_a_shared_library_are_counted_as_such)
{
    struct rig rig;

    open_equal(&rig, _i, 10);
    ck_assert_int_eq(pgshare_library_add(rig.host, 6, 0, 100), 0);
    ck_assert_int_eq(pgshare_hint_file(rig.host, rig_dom(&rig, 0), 4, 10, 6, 0),
                     0);
    ck_assert_int_eq(pgshare_hint_file(rig.host, rig_dom(&rig, 1), 9, 10, 6, 0),
                     0);
    assert_shared(&rig, 10, PGSHARE_CAUSE_LIBRARY);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_of_parent_and_child_are_shared)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, GFNS, 7);
    rig_fill(&rig, 1, 0, GFNS, 7);
    rig_write(&rig, 1, 13);
    ck_assert_int_eq(pgshare_hint_lineage(rig.host, rig_dom(&rig, 1),
                                          rig_dom(&rig, 0)),
                     0);
    rig_settle(&rig);
    for (unsigned gfn = 0; gfn < GFNS; gfn++)
        ck_assert_int_eq(rig_together(&rig, 0, gfn, 1, gfn), gfn != 13);
    ck_assert_uint_eq(rig_stats(&rig).shared[PGSHARE_CAUSE_LINEAGE], GFNS - 1);
    rig_close(&rig);
}
END_TEST

START_TEST(wrong_hints_cost_time_and_nothing_else)
{
    struct rig rig;
    uint64_t a, b;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_new_guest(&rig, 0, 0, true);
    rig_join(&rig, 2, 0); /* a group of its own */
    for (unsigned g = 0; g < 3; g++)
        rig_fill(&rig, g, 0, 16, 7 + g);
    rig_fill(&rig, 2, 32, 8, 7);
    a = rig_dom(&rig, 0);
    b = rig_dom(&rig, 1);
    pgshare_hint_same(rig.host, a, 0, b, 0, 16);
    pgshare_hint_same(rig.host, a, 0, rig_dom(&rig, 2), 32, 8);
    pgshare_hint_same(rig.host, a, 0, a, 0, 8);
    pgshare_hint_same(rig.host, a, 0, a, 4, 8);
    pgshare_hint_block(rig.host, a, 0, 16, 1, 1);
    pgshare_hint_block(rig.host, b, 0, 16, 1, 1);
    pgshare_hint_file(rig.host, rig_dom(&rig, 2), 32, 8, 1, 1);
    pgshare_hint_file(rig.host, a, 0, 8, 1, 1);
    pgshare_hint_lineage(rig.host, a, rig_dom(&rig, 2));
    pgshare_hint_lineage(rig.host, a, a);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).saved, 0);
    for (unsigned gfn = 0; gfn < 16; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_hint_to_a_page_that_changed_or_went_is_harmless)
{
    struct rig rig;

    open_equal(&rig, _i, 10);
    pgshare_hint_block(rig.host, rig_dom(&rig, 0), 4, 10, 5, 1000);
    rig_settle(&rig);
    ck_assert_int_eq(rig_write(&rig, 0, 5), 0);
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[0].impl, 6, 2), 0);
    rig_expect(&rig, 0, 6, 2, HOLE);
    pgshare_hint_block(rig.host, rig_dom(&rig, 1), 9, 10, 5, 1000);
    rig_settle(&rig);
    ck_assert(rig_together(&rig, 0, 4, 1, 9));
    ck_assert(!rig_together(&rig, 0, 5, 1, 10));
    ck_assert_int_eq(rig_leave(&rig, 0), 0);
    pgshare_hint_block(rig.host, rig_dom(&rig, 1), 9, 10, 5, 1000);
    rig_close(&rig);
}
END_TEST

START_TEST(hints_beyond_the_queue_are_dropped_and_counted)
{
    struct rig_options options = { .host.max_hints = 8 };
    struct rig rig;
    unsigned dropped = 0;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    for (unsigned i = 0; i < 20; i++)
        dropped += pgshare_hint_block(rig.host, rig_dom(&rig, 0), i, 1, 1,
                                      i) == PGSHARE_ERR_FULL;
    ck_assert_uint_eq(dropped, 12);
    ck_assert_uint_eq(rig_stats(&rig).hints_dropped, 12);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).hints, 8);
    ck_assert_int_eq(pgshare_hint_block(rig.host, rig_dom(&rig, 0), 0, 1, 1, 1),
                     0);
    rig_close(&rig);
}
END_TEST

/* ---- the pass ---------------------------------------------------------- */

START_TEST(a_pass_finds_equal_pages_anywhere)
{
    struct rig rig;

    open_equal(&rig, _i, 10);
    rig_fill(&rig, 0, 40, 10, 7);
    /* a pass leaves out what is in flight; a few find all */
    for (unsigned i = 0; i < (rig.machine->can & CAN_INLINE ? 1 : 5); i++) {
        ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
        rig_settle(&rig);
    }
    assert_shared(&rig, 10, PGSHARE_CAUSE_SCAN);
    for (unsigned i = 0; i < 10; i++)
        ck_assert(rig_together(&rig, 0, 4 + i, 0, 40 + i));
    ck_assert_uint_ge(rig_stats(&rig).scanned, 2 * GFNS);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_that_stay_marked_without_a_partner_keep_their_content)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, GFNS, 7);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(pgshare_host_pass(rig.host, rig_dom(&rig, 0)), 0);
        rig_settle(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, 3 + i), 0);
    }
    ck_assert_uint_eq(rig_stats(&rig).mappings, 0);
    rig_close(&rig);
}
END_TEST

/* ---- forks ------------------------------------------------------------- */

/* Guest 0 is a stub with some of everything; guest 1 is to be its child. */
static void open_stub(struct rig *rig, int machine)
{
    rig_open(rig, machine);
    rig_guest(rig);
    rig_empty_guest(rig);
    rig_fill(rig, 0, 0, 32, 7);
    ck_assert_int_eq(pgshare_declare_never_share(rig->host, rig_dom(rig, 0), 4,
                                                 2, 1, NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_volatile(rig->host, rig_dom(rig, 0), 8, 3,
                                              NULL),
                     0);
    ck_assert_int_eq(rig->ops->depopulate(rig->guests[0].impl, 40, 4), 0);
    rig_expect(rig, 0, 40, 4, HOLE);
    ck_assert_int_eq(pgshare_domain_freeze(rig->host, rig_dom(rig, 0), NULL),
                     0);
}

static int fork_it(struct rig *rig, unsigned child, uint32_t flags,
                   struct pgshare_fork_info *ret_info)
{
    struct pgshare_fork_options options = { .size = sizeof(options),
                                            .flags = flags };
    int r = PGSHARE_ERR_INPROGRESS;

    for (unsigned i = 0; i < 100 && r == PGSHARE_ERR_INPROGRESS; i++)
        r = pgshare_fork(rig->host, rig_dom(rig, 0), rig_dom(rig, child),
                         &options, NULL, ret_info);
    if (!r) {
        rig_expect_copy(rig, child, 0, GFNS, 0, 0);
        rig_expect(rig, child, 8, 3, HOLE);
        rig_expect(rig, child, 40, 4, HOLE);
    }
    return r;
}

START_TEST(a_child_begins_with_the_stubs_pages_and_both_go_their_ways)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct rig rig;

    open_stub(&rig, _i);
    ck_assert_int_eq(fork_it(&rig, 1, 0, &info), 0);
    ck_assert_uint_eq(info.shared, GFNS - 2 - 3 - 4);
    ck_assert_uint_eq(info.copied, 2);
    ck_assert_uint_eq(info.skipped, 3);
    ck_assert_uint_ge(rig_stats(&rig).reserve, info.shared);
    ck_assert(rig_together(&rig, 0, 0, 1, 0));
    ck_assert(rig_is(&rig, 1, 4, PGSHARE_GFN_PRIVATE));
    ck_assert(rig_info(&rig, 1, 4).flags & PGSHARE_GFN_NEVER_SHARE);
    ck_assert(rig_is(&rig, 1, 8, PGSHARE_GFN_HOLE));
    rig_check(&rig);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
    rig_check(&rig);
    if (rig.machine->can & CAN_RESOLVE) {
        ck_assert_int_eq(rig_write(&rig, 0, 0), PGSHARE_ERR_READONLY);
        ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_READONLY_WRITE], 1);
    }
    ck_assert_int_eq(fork_it(&rig, 1, 0, &info), 0); /* nothing left to do */
    ck_assert_int_eq(pgshare_domain_thaw(rig.host, rig_dom(&rig, 0)), 0);
    ck_assert_int_eq(pgshare_domain_thaw(rig.host, rig_dom(&rig, 0)),
                     PGSHARE_ERR_STATE);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        rig_expect(&rig, 1, gfn, 1, NOTHING);
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(many_children_of_one_stub_come_and_go)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct rig rig;

    open_stub(&rig, _i);
    rig_empty_guest(&rig);
    rig_empty_guest(&rig);
    ck_assert_int_eq(fork_it(&rig, 1, 0, &info), 0);
    ck_assert_int_eq(fork_it(&rig, 2, 0, &info), 0);
    ck_assert_int_eq(fork_it(&rig, 3, 0, &info), 0);
    ck_assert_uint_eq(rig_info(&rig, 0, 0).sharers, 4);
    for (unsigned g = 1; g < 4; g++)
        ck_assert_int_eq(rig_write(&rig, g, g), 0);
    ck_assert_int_eq(rig_leave(&rig, 2), 0);
    rig_check(&rig);
    ck_assert_int_eq(rig_leave(&rig, 0), 0); /* the stub itself */
    rig_check(&rig);
    ck_assert_int_eq(rig_write(&rig, 1, 20), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(an_unsecured_fork_takes_no_memory_in_advance)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct rig rig;
    uint64_t had;

    open_stub(&rig, _i);
    had = rig.ops->free_frames(rig.state);
    ck_assert_int_eq(fork_it(&rig, 1, PGSHARE_FORK_UNSECURED, &info), 0);
    ck_assert_uint_ge(rig.ops->free_frames(rig.state) + 3, had);
    rig_check(&rig);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(what_is_no_stub_cannot_be_forked)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_empty_guest(&rig);
    rig_guest(&rig);
    rig_new_guest(&rig, 0, 0, false);
    rig_join(&rig, 3, 0);
    ck_assert_int_eq(fork_it(&rig, 1, 0, &info), PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     0);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(fork_it(&rig, 2, 0, &info), PGSHARE_ERR_STATE);
    ck_assert_int_eq(fork_it(&rig, 3, 0, &info), PGSHARE_ERR_GROUP);
    ck_assert_int_eq(fork_it(&rig, 0, 0, &info), PGSHARE_ERR_STATE);
    rig_close(&rig);
}
END_TEST

/* Runs that are over before they have begun. */
static void run_shortly(struct rig *rig)
{
    struct pgshare_budget budget = { .size = sizeof(budget),
                                     .time_ns = 1,
                                     .pages = 1 };
    struct pgshare_progress progress = { .size = sizeof(progress), .more = 1 };

    for (unsigned i = 0; i < 2000 && progress.more; i++)
        ck_assert_int_eq(pgshare_host_run(rig->host, &budget, &progress), 0);
    rig->ops->quiesce(rig->state, rig->host);
    for (unsigned i = 0; i < 8; i++)
        ck_assert(rig_together(rig, 0, 4 + i, 1, 9 + i));
}

START_TEST(the_smallest_budget_takes_hints)
{
    struct rig rig;

    open_equal(&rig, _i, 8);
    ck_assert_int_eq(pgshare_hint_same(rig.host, rig_dom(&rig, 0), 4,
                                       rig_dom(&rig, 1), 9, 8),
                     0);
    run_shortly(&rig);
    rig_close(&rig);
}
END_TEST

START_TEST(the_smallest_budget_makes_a_pass)
{
    struct rig rig;

    open_equal(&rig, _i, 8);
    ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
    run_shortly(&rig);
    rig_close(&rig);
}
END_TEST

/* A guest whose page 0 stays in flight until its answer is released. */
static void open_in_flight(struct rig *rig, int machine, uint32_t max_calls)
{
    struct rig_options options = { .decorated = true,
                                   .host = { .max_calls = max_calls,
                                             .op_timeout_ns = 100 * SECOND } };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_LATE,
                                       .kinds = 1 << PGSHARE_OP_UNPROTECT,
                                       .count = UINT64_MAX };
    struct pgshare_call call = { .size = sizeof(call) };

    rig_open_with(rig, machine, &options);
    rig_guest(rig);
    rig_mark(rig, 0, 0);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig->faults, &plan), 0);
    ck_assert_int_eq(pgshare_fault_write(rig->host, rig_dom(rig, 0), 0, 0,
                                         &call, NULL),
                     PGSHARE_ERR_INPROGRESS);
}

/* The answer has come: now all of it becomes a stub. */
static void freeze_at_last(struct rig *rig)
{
    pgshare_fault_backend_plan(rig->faults, NULL);
    pgshare_fault_backend_release(rig->faults);
    rig_settle(rig);
    ck_assert_int_eq(rig_write(rig, 0, 0), 0); /* no stub so far */
    rig_settle(rig);
    ck_assert_int_eq(pgshare_domain_freeze(rig->host, rig_dom(rig, 0), NULL),
                     0);
    for (unsigned gfn = 0; gfn < GFNS; gfn++)
        ck_assert(rig_is(rig, 0, gfn, PGSHARE_GFN_SHARED));
}

START_TEST(nothing_is_frozen_while_no_call_is_free)
{
    struct rig rig;

    open_in_flight(&rig, _i, 1);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     PGSHARE_ERR_BUSY);
    freeze_at_last(&rig);
    rig_close(&rig);
}
END_TEST

START_TEST(a_domain_with_pages_in_flight_is_not_frozen_yet)
{
    struct rig rig;

    open_in_flight(&rig, _i, 0);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     PGSHARE_ERR_INPROGRESS);
    freeze_at_last(&rig);
    rig_close(&rig);
}
END_TEST

START_TEST(a_suspended_domain_is_neither_frozen_nor_forked)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_empty_guest(&rig);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, rig_dom(&rig, 0)), 0);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     PGSHARE_ERR_SUSPENDED);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, rig_dom(&rig, 0)), 0);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     0);
    for (unsigned g = 0; g < 2; g++) {
        ck_assert_int_eq(pgshare_domain_suspend(rig.host, rig_dom(&rig, g)), 0);
        ck_assert_int_eq(fork_it(&rig, 1, 0, &info), PGSHARE_ERR_SUSPENDED);
        ck_assert_int_eq(pgshare_domain_resume(rig.host, rig_dom(&rig, g)), 0);
    }
    rig_expect(&rig, 1, 0, GFNS, HOLE);
    ck_assert_int_eq(fork_it(&rig, 1, PGSHARE_FORK_UNSECURED, &info), 0);
    ck_assert_uint_eq(info.shared, GFNS);
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &pages_hinted_as_the_same_are_shared, CAN_SHARE },
    { &pages_read_from_the_same_block_are_shared, CAN_SHARE },
    { &pages_of_the_same_file_are_shared, CAN_SHARE },
    { &pages_of_a_shared_library_are_counted_as_such, CAN_SHARE },
    { &pages_of_parent_and_child_are_shared, CAN_SHARE },
    { &wrong_hints_cost_time_and_nothing_else, CAN_SHARE },
    { &a_hint_to_a_page_that_changed_or_went_is_harmless, CAN_SHARE },
    { &hints_beyond_the_queue_are_dropped_and_counted, CAN_SHARE },
    { &a_pass_finds_equal_pages_anywhere, CAN_SHARE | CAN_FINGERPRINT },
    { &pages_that_stay_marked_without_a_partner_keep_their_content,
      CAN_SHARE | CAN_FINGERPRINT },
    { &a_child_begins_with_the_stubs_pages_and_both_go_their_ways,
      CAN_SHARE | CAN_CLONE | CAN_PAY },
    { &many_children_of_one_stub_come_and_go,
      CAN_SHARE | CAN_CLONE | CAN_PAY },
    { &an_unsecured_fork_takes_no_memory_in_advance,
      CAN_SHARE | CAN_CLONE | CAN_PAY | CAN_EXHAUST },
    { &what_is_no_stub_cannot_be_forked, CAN_SHARE },
    { &the_smallest_budget_takes_hints, CAN_SHARE | CAN_INLINE },
    { &the_smallest_budget_makes_a_pass,
      CAN_SHARE | CAN_INLINE | CAN_FINGERPRINT },
    { &nothing_is_frozen_while_no_call_is_free, CAN_SHARE | CAN_INLINE },
    { &a_domain_with_pages_in_flight_is_not_frozen_yet,
      CAN_SHARE | CAN_INLINE },
    { &a_suspended_domain_is_neither_frozen_nor_forked, CAN_SHARE | CAN_PAY },
};

static Suite *make(void)
{
    return contract_suite("contract-hint", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-hint", make, argc, argv);
}
