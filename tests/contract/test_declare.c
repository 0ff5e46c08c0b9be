/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Declarations and holds: the allocation cycle, secrets, volatile pages,
 * gets and puts.
 */
#include "contract/rig.h"

static bool has(struct rig *rig, unsigned g, uint64_t gfn, uint32_t flag)
{
    return rig_info(rig, g, gfn).flags & flag;
}

static void declare_free(struct rig *rig, unsigned g, uint64_t gfn, uint64_t n)
{
    ck_assert_int_eq(pgshare_declare_free(rig->host, rig_dom(rig, g), gfn, n),
                     0);
    rig_expect(rig, g, gfn, n, OR_ZERO);
}

static void declare_allocated(struct rig *rig, unsigned g, uint64_t gfn,
                              uint64_t n)
{
    int r = PGSHARE_ERR_INPROGRESS;

    for (unsigned i = 0; i < 1000 && r == PGSHARE_ERR_INPROGRESS; i++) {
        r = pgshare_declare_allocated(rig->host, rig_dom(rig, g), gfn, n);
        if (r)
            pgshare_host_run(rig->host, NULL, NULL);
    }
    ck_assert_int_eq(r, 0);
}

/* ---- the allocation cycle ---------------------------------------------- */

START_TEST(free_pages_are_given_up_for_the_zero_frame_without_a_read)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 16, 7);
    declare_free(&rig, 0, 0, 16);
    ck_assert(has(&rig, 0, 3, PGSHARE_GFN_FREE));
    rig_settle(&rig);
    ck_assert(rig_zero_mapped(&rig, 0, 0, 16));
    ck_assert_uint_eq(rig_stats(&rig).compared, 0);
    ck_assert_uint_eq(rig_stats(&rig).saved, 16);
    ck_assert_uint_eq(rig_stats(&rig).shared[PGSHARE_CAUSE_FREE], 16);
    rig_expect_zero(&rig, 0, 0, 16);
    rig_close(&rig);
}
END_TEST

START_TEST(a_page_allocated_before_it_is_given_up_keeps_its_content)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 4, 7);
    declare_free(&rig, 0, 0, 4);
    declare_allocated(&rig, 0, 0, 4);
    if (rig.machine->can & CAN_INLINE)
        rig_expect(&rig, 0, 0, 4, EXACT);
    rig_fill(&rig, 0, 0, 4, 8);
    rig_settle(&rig);
    ck_assert(!rig_zero_mapped(&rig, 0, 0, 1));
    ck_assert_uint_eq(rig_stats(&rig).zero_mappings, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_page_that_the_zero_frame_stands_for_stays_so_until_it_is_written)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 4, 7);
    declare_free(&rig, 0, 0, 4);
    rig_settle(&rig);
    declare_allocated(&rig, 0, 0, 4);
    rig_expect_zero(&rig, 0, 0, 4);
    rig_settle(&rig);
    ck_assert(rig_zero_mapped(&rig, 0, 0, 4));
    ck_assert(!has(&rig, 0, 0, PGSHARE_GFN_FREE));
    ck_assert_int_eq(rig_write(&rig, 0, 2), 0);
    rig_settle(&rig);
    ck_assert(rig_is(&rig, 0, 2, PGSHARE_GFN_PRIVATE));
    if (rig.machine->can & CAN_RESOLVE) {
        ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_FREE), 1);
        ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_COPIED), 0);
    }
    rig_close(&rig);
}
END_TEST

START_TEST(writes_to_free_and_scrubbed_pages_copy_nothing)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 8, 7);
    rig_fill(&rig, 1, 0, 8, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 8);
    declare_free(&rig, 0, 0, 8);
    ck_assert_int_eq(pgshare_declare_scrub(rig.host, rig_dom(&rig, 0), 0, 4),
                     0);
    ck_assert(has(&rig, 0, 0, PGSHARE_GFN_SCRUB));
    for (unsigned gfn = 0; gfn < 8; gfn++) {
        ck_assert_int_eq(rig_write_page(&rig, 0, gfn, 0), 0);
        rig_expect(&rig, 0, gfn, 1, OR_ZERO);
    }
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_COPIED), 0);
    ck_assert_uint_ge(rig_faults(&rig, PGSHARE_FAULT_FREE), 8);
    declare_allocated(&rig, 0, 0, 8);
    rig_expect_zero(&rig, 0, 0, 8);
    ck_assert(!has(&rig, 0, 0, PGSHARE_GFN_SCRUB));
    rig_close(&rig);
}
END_TEST

START_TEST(only_free_pages_can_be_scrubbed)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    ck_assert_int_eq(pgshare_declare_scrub(rig.host, rig_dom(&rig, 0), 0, 4),
                     PGSHARE_ERR_STATE);
    rig_close(&rig);
}
END_TEST

/* The guest allocates, and writes, between any two steps. */
static void allocate_and_write(void *ctx)
{
    static unsigned turn;
    struct rig *rig = ctx;
    uint64_t gfn;

    turn = turn * 1103515245 + 12345;
    gfn = turn >> 16 & 15;
    if (pgshare_declare_allocated(rig->host, rig_dom(rig, 0), gfn, 1))
        return; /* it is being given up this instant */
    if (rig->guests[0].known[gfn] == OR_ZERO)
        rig_expect(rig, 0, gfn, 1, NOTHING);
    rig_write_later(rig, 0, gfn);
}

/* An action that meets a page which is being given up has nobody to wait for:
 * what would end it is below the action itself. Hence the short time-out. */
START_TEST(pages_allocated_between_the_two_checks_are_not_given_up)
{
    struct rig_options options = { .host.timeout_ns = SECOND / 500 };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    ck_assert_int_eq(rig.ops->schedule(rig.state, allocate_and_write, &rig,
                                       50000),
                     0);
    for (unsigned round = 0; round < 60; round++) {
        declare_allocated(&rig, 0, 0, 16);
        rig_fill(&rig, 0, 0, 16, 50 + round);
        for (unsigned gfn = 0; gfn < 16; gfn++) {
            if (gfn % 3 == round % 3)
                declare_free(&rig, 0, gfn, 1);
        }
        pgshare_host_run(rig.host, NULL, NULL);
        rig_check_content(&rig);
    }
    ck_assert_int_eq(rig.ops->schedule(rig.state, allocate_and_write, &rig, 0),
                     0);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_that_the_guest_drops_are_forgotten)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 8, 7);
    rig_fill(&rig, 1, 0, 8, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    rig_mark(&rig, 0, 4);
    rig_expect(&rig, 0, 0, 8, OR_ZERO);
    ck_assert_int_eq(rig.ops->drop(rig.guests[0].impl, 0, 8, 0), 0);
    rig_check(&rig);
    rig_fill(&rig, 0, 0, 8, 9);
    rig_check(&rig);
    ck_assert_int_eq(rig.ops->drop(rig.guests[0].impl, 4, 4, 1), 0);
    rig_expect(&rig, 0, 4, 4, HOLE);
    rig_settle(&rig);
    for (unsigned gfn = 4; gfn < 8; gfn++)
        ck_assert(rig_is(&rig, 0, gfn, PGSHARE_GFN_HOLE));
    rig_close(&rig);
}
END_TEST

/* ---- secrets ----------------------------------------------------------- */

START_TEST(never_share_undoes_what_is_shared_and_keeps_it_so)
{
    struct pgshare_never_share left = { .size = sizeof(left) };
    struct rig rig;
    uint64_t dom, ticket;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 0, 8, 7);
    rig_fill(&rig, 1, 0, 8, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    rig_mark(&rig, 0, 5);
    ck_assert_int_eq(pgshare_declare_never_share(rig.host, dom, 0, 8, 1, &left),
                     0);
    ck_assert_uint_eq(left.shared, 4);
    ck_assert_uint_eq(left.marked, 1);
    ck_assert_uint_eq(left.in_flight, 0);
    rig_settle(&rig);
    ck_assert_uint_ge(rig.reports[PGSHARE_REPORT_NEVER_SHARE_DONE], 1);
    ck_assert_int_eq(pgshare_declare_never_share(rig.host, dom, 0, 8, 1, &left),
                     0);
    ck_assert_uint_eq(left.shared + left.marked + left.in_flight, 0);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert(rig_is(&rig, 0, gfn, PGSHARE_GFN_PRIVATE));
    ck_assert_int_eq(rig_share(&rig, 0, 0, 1, 0, 1), PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(rig_share(&rig, 1, 0, 0, 0, 1), PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, dom, 0, 1, &ticket, NULL),
                     PGSHARE_ERR_NEVER_SHARE);
    pgshare_hint_same(rig.host, dom, 0, rig_dom(&rig, 1), 0, 8);
    ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
    rig_settle(&rig);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert(rig_is(&rig, 0, gfn, PGSHARE_GFN_PRIVATE));
    ck_assert_int_eq(pgshare_declare_never_share(rig.host, dom, 0, 8, 0, NULL),
                     0);
    rig_settle(&rig);
    rig_must_share(&rig, 0, 0, 1, 0, 8);
    rig_close(&rig);
}
END_TEST

static void declare_secret(void *ctx)
{
    struct rig *rig = ctx;

    pgshare_declare_never_share(rig->host, rig_dom(rig, 1), 0, 16, 1, NULL);
}

START_TEST(a_secret_declared_during_a_share_rolls_it_back)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    for (unsigned round = 0; round < 8; round++) {
        rig_fill(&rig, 0, 0, 16, 7 + round);
        rig_fill(&rig, 1, 0, 16, 7 + round);
        ck_assert_int_eq(rig.ops->schedule(rig.state, declare_secret, &rig,
                                           40000),
                         0);
        rig_share(&rig, round % 2, 0, 1 - round % 2, 0, 16);
        ck_assert_int_eq(rig.ops->schedule(rig.state, declare_secret, &rig, 0),
                         0);
        declare_secret(&rig);
        rig_settle(&rig);
        for (unsigned gfn = 0; gfn < 16; gfn++)
            ck_assert(rig_is(&rig, 1, gfn, PGSHARE_GFN_PRIVATE));
        ck_assert_int_eq(pgshare_declare_never_share(
                             rig.host, rig_dom(&rig, 1), 0, 16, 0, NULL),
                         0);
        rig_check(&rig);
    }
    rig_close(&rig);
}
END_TEST

START_TEST(a_secret_that_cannot_be_undone_is_not_tried_without_a_pause)
{
    struct rig_options options = { .decorated = true };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_FAIL,
                                       .kinds = 1 << PGSHARE_OP_UNSHARE,
                                       .count = UINT64_MAX };
    struct pgshare_budget budget = { .size = sizeof(budget),
                                     .time_ns = SECOND,
                                     .pages = 1 << 20 };
    struct pgshare_poll poll = { .size = sizeof(poll) };
    struct rig rig;
    uint64_t before;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 3, 1, 7);
    rig_fill(&rig, 1, 3, 1, 7);
    rig_must_share(&rig, 0, 3, 1, 3, 1);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    pgshare_declare_never_share(rig.host, rig_dom(&rig, 0), 3, 1, 1, NULL);
    before = rig_stats(&rig).backend_ops;
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(pgshare_host_run(rig.host, &budget, NULL), 0);
    ck_assert_uint_lt(rig_stats(&rig).backend_ops, before + 30);
    ck_assert_int_eq(pgshare_host_poll(rig.host, &poll), 0);
    ck_assert_uint_ne(poll.deadline_ns, PGSHARE_FOREVER);
    pgshare_fault_backend_plan(rig.faults, NULL);
    rig_settle(&rig);
    ck_assert(rig_is(&rig, 0, 3, PGSHARE_GFN_PRIVATE));
    rig_close(&rig);
}
END_TEST

/* ---- volatile pages ---------------------------------------------------- */

START_TEST(volatile_pages_are_pushed_and_withdrawn_anywhere)
{
    struct pgshare_call call = { .size = sizeof(call) };
    struct rig rig;
    uint64_t dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 0, 12, 7);
    rig_fill(&rig, 1, 0, 12, 7);
    ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 0, 8, &call), 0);
    ck_assert_uint_eq(call.done, 8);
    ck_assert_uint_eq(rig_account(&rig, 0).fifo, 8);
    ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 7, 2, &call),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(rig_share(&rig, 1, 0, 0, 0, 1), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, dom, 3, 2, &call), 0);
    ck_assert_uint_eq(call.done, 2);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, dom, 3, 1, NULL),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, dom, 0, 1, NULL), 0);
    ck_assert_uint_eq(rig_account(&rig, 0).fifo, 5);
    rig_must_share(&rig, 1, 3, 0, 3, 1);
    ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 3, 1, NULL),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(rig_write(&rig, 0, 5), 0); /* still the guest's own */
    rig_close(&rig);
}
END_TEST

/* ---- holds ------------------------------------------------------------- */

START_TEST(a_page_held_for_writing_is_private_and_is_not_shared)
{
    struct rig rig;
    uint64_t ticket, dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 0, 4, 7);
    rig_fill(&rig, 1, 0, 4, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 0, 2, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 0, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_PRIVATE));
    ck_assert(has(&rig, 0, 0, PGSHARE_GFN_HELD));
    rig_settle(&rig);
    ck_assert_int_eq(rig_share(&rig, 1, 0, 0, 0, 1), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(rig_share(&rig, 0, 1, 1, 1, 1), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, dom, 0, 1, &ticket, NULL),
                     PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 0, 2, PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(rig_share(&rig, 1, 0, 0, 0, 1), PGSHARE_ERR_BUSY);
    rig_must_share(&rig, 1, 1, 0, 1, 1);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 0, 1, PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 0, 1, PGSHARE_GET_WRITE),
                     PGSHARE_ERR_STATE);
    rig_must_share(&rig, 1, 0, 0, 0, 1);
    rig_close(&rig);
}
END_TEST

START_TEST(a_frame_held_for_reading_stays_until_the_put)
{
    struct rig rig;
    uint64_t frame, dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 0, 1, 7);
    rig_fill(&rig, 1, 0, 1, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 1);
    frame = rig_info(&rig, 0, 0).frame;
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 0, 1, PGSHARE_GET_READ,
                                     NULL),
                     0);
    ck_assert(rig_together(&rig, 0, 0, 1, 0));
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 1, 0), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 0);
    if (rig.machine->can & CAN_RESOLVE) /* nobody took it over */
        ck_assert_uint_eq(rig_stats(&rig).frames, 1);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 0, 1, PGSHARE_GET_READ), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).frames, 0);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 0, 1, PGSHARE_GET_READ),
                     PGSHARE_ERR_STATE);
    (void)frame;
    rig_close(&rig);
}
END_TEST

START_TEST(a_get_to_overwrite_copies_nothing)
{
    struct rig rig;
    uint64_t dom, copied;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 0, 2, 7);
    rig_fill(&rig, 1, 0, 2, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 2);
    copied = rig_faults(&rig, PGSHARE_FAULT_COPIED);
    rig_expect(&rig, 0, 0, 1, OR_ZERO);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 0, 1,
                                     PGSHARE_GET_OVERWRITE, NULL),
                     0);
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_PRIVATE));
    rig_check_content(&rig);
    ck_assert_int_eq(rig_write_page(&rig, 0, 0, 77), 0);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 0, 1,
                                     PGSHARE_GET_OVERWRITE),
                     0);
    ck_assert_uint_eq(rig_faults(&rig, PGSHARE_FAULT_COPIED), copied);
    rig_close(&rig);
}
END_TEST

START_TEST(holds_stand_in_the_way_of_removal_and_the_fifo)
{
    struct rig rig;
    uint64_t dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    for (unsigned intent = PGSHARE_GET_READ; intent <= PGSHARE_GET_OVERWRITE;
         intent++) {
        ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 3, 1, intent, NULL), 0);
        ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 3, 1, intent, NULL), 0);
        ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 3, 1, intent), 0);
        ck_assert_int_eq(rig.ops->depopulate(rig.guests[0].impl, 3, 1),
                         PGSHARE_ERR_BUSY);
        ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 3, 1, NULL),
                         PGSHARE_ERR_BUSY);
        ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 3, 1,
                                         intent == PGSHARE_GET_READ
                                             ? PGSHARE_GET_WRITE
                                             : PGSHARE_GET_READ),
                         PGSHARE_ERR_STATE);
        ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 3, 1, intent), 0);
    }
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[0].impl, 3, 1), 0);
    rig_expect(&rig, 0, 3, 1, HOLE);
    ck_assert_int_eq(pgshare_gfn_get(rig.host, dom, 2, 3, PGSHARE_GET_READ,
                                     NULL),
                     PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_gfn_put(rig.host, dom, 2, 1, PGSHARE_GET_READ), 0);
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &free_pages_are_given_up_for_the_zero_frame_without_a_read, CAN_SHARE },
    { &a_page_allocated_before_it_is_given_up_keeps_its_content, CAN_SHARE },
    { &a_page_that_the_zero_frame_stands_for_stays_so_until_it_is_written,
      CAN_SHARE },
    { &writes_to_free_and_scrubbed_pages_copy_nothing,
      CAN_SHARE | CAN_RESOLVE },
    { &only_free_pages_can_be_scrubbed, 0 },
    { &pages_allocated_between_the_two_checks_are_not_given_up,
      CAN_SHARE | CAN_STEPS },
    { &pages_that_the_guest_drops_are_forgotten, CAN_SHARE | CAN_DROP },
    { &never_share_undoes_what_is_shared_and_keeps_it_so,
      CAN_SHARE | CAN_FINGERPRINT },
    { &a_secret_declared_during_a_share_rolls_it_back, CAN_SHARE | CAN_STEPS },
    { &a_secret_that_cannot_be_undone_is_not_tried_without_a_pause,
      CAN_SHARE | CAN_INLINE },
    { &volatile_pages_are_pushed_and_withdrawn_anywhere, CAN_SHARE | CAN_PAY },
    { &a_page_held_for_writing_is_private_and_is_not_shared, CAN_SHARE },
    { &a_frame_held_for_reading_stays_until_the_put, CAN_SHARE },
    { &a_get_to_overwrite_copies_nothing, CAN_SHARE },
    { &holds_stand_in_the_way_of_removal_and_the_fifo, CAN_PAY },
};

static Suite *make(void)
{
    return contract_suite("contract-declare", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-declare", make, argc, argv);
}
