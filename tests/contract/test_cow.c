/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What happens when shared pages are written: contents, outcomes, frames.
 */
#include "contract/rig.h"

/* Two guests whose first `n` pages are shared. */
static void open_shared(struct rig *rig, int machine, uint64_t n)
{
    rig_open(rig, machine);
    rig_guest(rig);
    rig_guest(rig);
    rig_fill(rig, 0, 0, n, 7);
    rig_fill(rig, 1, 0, n, 7);
    rig_must_share(rig, 0, 0, 1, 0, n);
}

static struct pgshare_fault fault(struct rig *rig, unsigned g, uint64_t gfn,
                                  uint32_t flags)
{
    struct pgshare_fault answer = { .size = sizeof(answer) };

    ck_assert_int_eq(pgshare_fault_write(rig->host, rig_dom(rig, g), gfn,
                                         flags, NULL, &answer),
                     0);
    return answer;
}

START_TEST(each_side_keeps_its_own_content_after_a_write)
{
    struct rig rig;

    open_shared(&rig, _i, 4);
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0); /* the source */
    ck_assert_int_eq(rig_write(&rig, 1, 1), 0); /* the client */
    ck_assert_int_eq(rig_write(&rig, 0, 2), 0); /* both */
    ck_assert_int_eq(rig_write(&rig, 1, 2), 0);
    rig_check(&rig);
    for (unsigned gfn = 0; gfn < 3; gfn++)
        ck_assert(!rig_together(&rig, 0, gfn, 1, gfn));
    ck_assert(rig_together(&rig, 0, 3, 1, 3));
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_PRIVATE));
    ck_assert(rig_is(&rig, 1, 1, PGSHARE_GFN_PRIVATE));
    rig_close(&rig);
}
END_TEST

START_TEST(a_frame_that_everybody_has_left_is_released)
{
    struct pgshare_host_stats stats;
    struct rig rig;

    open_shared(&rig, _i, 8);
    for (unsigned gfn = 0; gfn < 8; gfn++) {
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
    }
    rig_settle(&rig);
    stats = rig_stats(&rig);
    ck_assert_uint_eq(stats.frames, 0);
    ck_assert_uint_eq(stats.mappings, 0);
    ck_assert_uint_eq(stats.saved, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(the_first_write_copies_and_the_last_takes_the_frame)
{
    struct pgshare_fault answer;
    struct rig rig;

    open_shared(&rig, _i, 1);
    answer = fault(&rig, 0, 0, 0);
    ck_assert_uint_eq(answer.outcome, PGSHARE_FAULT_COPIED);
    ck_assert_uint_eq(answer.payer, PGSHARE_PAID_RESERVE);
    answer = fault(&rig, 1, 0, 0);
    ck_assert_uint_eq(answer.outcome, PGSHARE_FAULT_LAST_MAPPING);
    ck_assert_uint_eq(answer.payer, PGSHARE_PAID_NOTHING);
    answer = fault(&rig, 1, 0, 0);
    ck_assert_uint_eq(answer.outcome, PGSHARE_FAULT_SPURIOUS);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_COPIED), 1);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_LAST_MAPPING), 1);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_SPURIOUS), 1);
    rig_close(&rig);
}
END_TEST

START_TEST(a_fault_on_a_marked_page_only_unmarks)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_mark(&rig, 0, 0);
    ck_assert_uint_eq(fault(&rig, 0, 0, 0).outcome, PGSHARE_FAULT_UNMARKED);
    ck_assert_uint_eq(rig_stats(&rig).protected_, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_write_of_the_whole_page_copies_nothing)
{
    struct rig rig;

    open_shared(&rig, _i, 2);
    ck_assert_int_eq(rig_write_page(&rig, 0, 0, 99), 0);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_OVERWRITE), 1);
    ck_assert_int_eq(pgshare_declare_overwrite(rig.host, rig_dom(&rig, 0), 1,
                                               1),
                     0);
    ck_assert_uint_eq(fault(&rig, 0, 1, 0).outcome, PGSHARE_FAULT_OVERWRITE);
    rig_expect(&rig, 0, 1, 1, NOTHING);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_COPIED), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(declaring_an_overwrite_loses_nothing_until_it_comes)
{
    struct rig rig;

    open_shared(&rig, _i, 2);
    ck_assert_int_eq(pgshare_declare_overwrite(rig.host, rig_dom(&rig, 0), 0,
                                               2),
                     0);
    rig_check(&rig);
    ck_assert_int_eq(rig_write_page(&rig, 0, 0, 99), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(zero_pages_go_to_the_zero_frame_by_a_pass)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 8, 7);
    ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
    rig_settle(&rig);
    ck_assert(rig_zero_mapped(&rig, 0, 8, GFNS - 8));
    ck_assert_uint_eq(rig_stats(&rig).zero_mappings, GFNS - 8);
    ck_assert_uint_eq(rig_stats(&rig).saved, GFNS - 8);
    ck_assert_int_eq(rig_write(&rig, 0, 20), 0);
    ck_assert_int_eq(rig_write(&rig, 0, 21), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).zero_mappings, GFNS - 10);
    if (rig.machine->can & CAN_RESOLVE)
        ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_FREE), 2);
    rig_close(&rig);
}
END_TEST

START_TEST(groups_have_the_zero_frame_in_common)
{
    struct rig rig;
    uint64_t other;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_new_guest(&rig, 0, 0, true);
    ck_assert_int_eq(pgshare_group_open(rig.host, "other", &other), 0);
    rig_join(&rig, 1, other);
    ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
    rig_settle(&rig);
    ck_assert(rig_zero_mapped(&rig, 0, 0, GFNS));
    ck_assert(rig_zero_mapped(&rig, 1, 0, GFNS));
    rig_close(&rig);
}
END_TEST

START_TEST(unshare_makes_exactly_the_range_private)
{
    struct rig rig;

    open_shared(&rig, _i, 10);
    ck_assert_int_eq(pgshare_unshare(rig.host, rig_dom(&rig, 1), 2, 5, NULL),
                     0);
    for (unsigned gfn = 0; gfn < 10; gfn++)
        ck_assert_int_eq(rig_is(&rig, 1, gfn, PGSHARE_GFN_SHARED),
                         gfn < 2 || gfn >= 7);
    ck_assert_int_eq(pgshare_unshare(rig.host, rig_dom(&rig, 1), 0, GFNS,
                                     NULL),
                     0);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_COPIED), 0);
    rig_settle(&rig);
    ck_assert_int_eq(rig_write(&rig, 1, 2), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_can_be_shared_again_after_a_break)
{
    struct rig rig;

    open_shared(&rig, _i, 4);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_int_eq(rig_write(&rig, i % 2, i % 4), 0);
        ck_assert_int_eq(pgshare_unshare(rig.host, rig_dom(&rig, 0), 3, 1,
                                         NULL),
                         0);
        rig_fill(&rig, 0, 0, 4, 100 + i);
        rig_fill(&rig, 1, 0, 4, 100 + i);
        rig_settle(&rig);
        rig_must_share(&rig, i % 2, 0, 1 - i % 2, 0, 4);
    }
    rig_close(&rig);
}
END_TEST

START_TEST(breaks_by_the_platform_settle_the_accounts)
{
    struct rig rig;

    open_shared(&rig, _i, 8);
    for (unsigned gfn = 0; gfn < 5; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).broken, 5);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 16 - 5);
    ck_assert_uint_eq(rig_stats(&rig).frames, 8);
    ck_assert_uint_eq(rig_stats(&rig).saved, 3);
    rig_close(&rig);
}
END_TEST

START_TEST(a_break_that_was_not_told_yet_stands_in_nobodys_way)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct rig rig;
    uint64_t dom;

    open_shared(&rig, _i, 8);
    dom = rig_dom(&rig, 0);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    ck_assert_int_eq(pgshare_unshare(rig.host, dom, 0, 1, NULL), 0);
    ck_assert_int_eq(pgshare_fault_write(rig.host, dom, 1, 0, NULL, NULL), 0);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 2, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 2, 1, PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[0].impl, 3, 1), 0);
    rig_expect(&rig, 0, 3, 1, HOLE);
    ck_assert_int_eq(pgshare_declare_never_share(rig.host, dom, 4, 1, 1, NULL),
                     0);
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, dom, 5, 2, 0, &progress),
                     0);
    ck_assert_int_eq(rig_leave(&rig, 0), 0);
    rig_close(&rig);
}
END_TEST

/* ---- read-only ranges -------------------------------------------------- */

START_TEST(writes_to_a_read_only_range_are_reported_and_not_done)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 4, 7);
    rig_fill(&rig, 1, 0, 4, 7);
    ck_assert_int_eq(pgshare_declare_read_only(rig.host, rig_dom(&rig, 0), 0, 4,
                                               1),
                     0);
    ck_assert_int_eq(rig_write(&rig, 0, 1), PGSHARE_ERR_READONLY);
    ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_READONLY_WRITE], 1);
    ck_assert_uint_eq(rig.report.dom, rig_dom(&rig, 0));
    ck_assert_uint_eq(rig.report.gfn, 1);
    rig_must_share(&rig, 0, 0, 1, 0, 2); /* as a source */
    rig_must_share(&rig, 1, 2, 0, 2, 2); /* and as a client */
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), PGSHARE_ERR_READONLY);
    ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_READONLY_WRITE], 5);
    ck_assert_int_eq(rig_write(&rig, 1, 3), 0);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_READ_ONLY), 5);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, rig_dom(&rig, 0), 0, 1,
                                     PGSHARE_GET_WRITE, NULL),
                     PGSHARE_ERR_READONLY);
    rig_check(&rig);
    ck_assert_int_eq(pgshare_declare_read_only(rig.host, rig_dom(&rig, 0), 0, 4,
                                               0),
                     0);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(free_and_volatile_pages_do_not_become_read_only)
{
    struct rig rig;
    uint64_t dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    ck_assert_int_eq(pgshare_declare_free(rig.host, dom, 0, 1), 0);
    ck_assert_int_eq(pgshare_declare_read_only(rig.host, dom, 0, 1, 1),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 1, 1, NULL), 0);
    ck_assert_int_eq(pgshare_declare_read_only(rig.host, dom, 1, 1, 1),
                     PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 2, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_read_only(rig.host, dom, 2, 1, 1),
                     PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 2, 1, PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(pgshare_declare_read_only(rig.host, dom, 3, 1, 1), 0);
    ck_assert_int_eq(pgshare_declare_free(rig.host, dom, 3, 1),
                     PGSHARE_ERR_READONLY);
    rig_close(&rig);
}
END_TEST

/* ---- races ------------------------------------------------------------- */

/* The guests write between any two steps of a share. */
static void write_somewhere(void *ctx)
{
    static unsigned turn;
    struct rig *rig = ctx;

    turn = turn * 1103515245 + 12345;
    rig_write_later(rig, turn >> 16 & 1, turn >> 20 & 15);
}

START_TEST(writes_between_the_steps_of_a_share_are_never_lost)
{
    struct rig rig;
    unsigned shared = 0;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    ck_assert_int_eq(rig.ops->schedule(rig.state, write_somewhere, &rig, 30000),
                     0);
    for (unsigned round = 0; round < 40; round++) {
        int r;

        rig_fill(&rig, 0, 0, 16, 50 + round);
        rig_fill(&rig, 1, 0, 16, 50 + round);
        r = rig_share(&rig, round % 2, 0, 1 - round % 2, 0, 16);
        ck_assert_msg(!r || r == PGSHARE_ERR_DIFFERENT ||
                          r == PGSHARE_ERR_BUSY ||
                          r == PGSHARE_ERR_SOURCE_TICKET ||
                          r == PGSHARE_ERR_CLIENT_TICKET,
                      "%s", pgshare_error_name(r));
        rig_check_content(&rig);
        shared += rig_stats(&rig).mappings > 0;
    }
    ck_assert_uint_gt(shared, 0);
    ck_assert_int_eq(rig.ops->schedule(rig.state, write_somewhere, &rig, 0), 0);
    rig_close(&rig);
}
END_TEST

/* The pages were shared, the answer was lost, and the guests wrote before
 * anybody asked: the news of that is no news of their next sharing. */
START_TEST(a_late_break_of_a_lost_share_spares_the_next_one)
{
    struct rig_options options = { .decorated = true,
                                   .host.op_timeout_ns = 1000000 };
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_LOSE,
        .kinds = 1 << PGSHARE_OP_MERGE | 1 << PGSHARE_OP_MAP,
        .count = UINT64_MAX,
    };
    struct pgshare_call call = { .size = sizeof(call) };
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_gfn = 4,
        .client_gfn = 4,
        .count = 1,
    };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 4, 1, 7);
    rig_fill(&rig, 1, 4, 1, 7);
    request.source_dom = rig_dom(&rig, 0);
    request.client_dom = rig_dom(&rig, 1);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    ck_assert_int_eq(pgshare_share(rig.host, &request, &call),
                     PGSHARE_ERR_INPROGRESS);
    rig_write_later(&rig, 0, 4);
    rig_write_later(&rig, 1, 4);
    for (unsigned i = 0; i < 100 && !rig.outcomes; i++)
        rig_wait(&rig, 500000);
    pgshare_fault_backend_plan(rig.faults, NULL);
    ck_assert_uint_eq(rig.outcomes, 1);
    rig_fill(&rig, 0, 4, 1, 9);
    rig_fill(&rig, 1, 4, 1, 9);
    /* a source that was published first is not known to be broken yet */
    if (rig_share(&rig, 0, 4, 1, 4, 1) == PGSHARE_ERR_SOURCE_TICKET) {
        rig_settle(&rig);
        rig_must_share(&rig, 0, 4, 1, 4, 1);
    }
    rig_settle(&rig);
    ck_assert(rig_together(&rig, 0, 4, 1, 4));
    rig_close(&rig);
}
END_TEST

/* The same for a mark: what PROTECT had answered is learned by the question. */
START_TEST(a_late_break_of_a_lost_mark_spares_the_next_share)
{
    struct rig_options options = { .decorated = true,
                                   .host.op_timeout_ns = 1000000 };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_LOSE,
                                       .kinds = 1 << PGSHARE_OP_PROTECT,
                                       .count = UINT64_MAX };
    struct pgshare_call call = { .size = sizeof(call) };
    uint64_t ticket;
    struct rig rig;
    int r;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 4, 1, 7);
    rig_fill(&rig, 1, 4, 1, 7);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, rig_dom(&rig, 1), 4, 1, &ticket,
                                     &call),
                     PGSHARE_ERR_INPROGRESS);
    for (unsigned i = 0; i < 100 && !rig.outcomes; i++)
        rig_wait(&rig, 500000);
    pgshare_fault_backend_plan(rig.faults, NULL);
    ck_assert_uint_eq(rig.outcomes, 1);
    ck_assert_int_eq(rig.outcome.result, 0);
    rig_fill(&rig, 1, 4, 1, 9);
    rig_fill(&rig, 0, 4, 1, 9);
    r = rig_share(&rig, 0, 4, 1, 4, 1);
    ck_assert_msg(!r || r == PGSHARE_ERR_CLIENT_TICKET, "%s",
                  pgshare_error_name(r));
    rig_settle(&rig);
    if (r)
        rig_must_share(&rig, 0, 4, 1, 4, 1);
    ck_assert(rig_together(&rig, 0, 4, 1, 4));
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &a_late_break_of_a_lost_mark_spares_the_next_share,
      CAN_SHARE | CAN_HARVEST | CAN_INLINE },
    { &a_late_break_of_a_lost_share_spares_the_next_one,
      CAN_SHARE | CAN_HARVEST | CAN_INLINE },
    { &each_side_keeps_its_own_content_after_a_write, CAN_SHARE },
    { &a_frame_that_everybody_has_left_is_released, CAN_SHARE },
    { &the_first_write_copies_and_the_last_takes_the_frame,
      CAN_SHARE | CAN_RESOLVE },
    { &a_fault_on_a_marked_page_only_unmarks, CAN_SHARE | CAN_RESOLVE },
    { &a_write_of_the_whole_page_copies_nothing, CAN_SHARE | CAN_RESOLVE },
    { &declaring_an_overwrite_loses_nothing_until_it_comes, CAN_SHARE },
    { &zero_pages_go_to_the_zero_frame_by_a_pass, CAN_SHARE | CAN_FINGERPRINT },
    { &groups_have_the_zero_frame_in_common, CAN_SHARE | CAN_FINGERPRINT },
    { &unshare_makes_exactly_the_range_private, CAN_SHARE },
    { &pages_can_be_shared_again_after_a_break, CAN_SHARE },
    { &breaks_by_the_platform_settle_the_accounts, CAN_SHARE | CAN_HARVEST },
    { &a_break_that_was_not_told_yet_stands_in_nobodys_way, CAN_SHARE },
    { &writes_to_a_read_only_range_are_reported_and_not_done,
      CAN_SHARE | CAN_READ_ONLY },
    { &free_and_volatile_pages_do_not_become_read_only,
      CAN_SHARE | CAN_READ_ONLY | CAN_PAY },
    { &writes_between_the_steps_of_a_share_are_never_lost,
      CAN_SHARE | CAN_STEPS },
};

static Suite *make(void)
{
    return contract_suite("contract-cow", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-cow", make, argc, argv);
}
