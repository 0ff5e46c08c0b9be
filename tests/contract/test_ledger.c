/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Repayment: entitlement, bonus pages, FIFOs that pay, services, the reserve.
 */
#include "contract/rig.h"

#define ONE PGSHARE_ENTITLEMENT_ONE

/* Two guests that share `n` pages from GFN 0 on. */
static void open_shared_with(struct rig *rig, int machine, uint64_t n,
                             const struct rig_options *options)
{
    rig_open_with(rig, machine, options);
    rig_guest(rig);
    rig_guest(rig);
    rig_fill(rig, 0, 0, n, 7);
    rig_fill(rig, 1, 0, n, 7);
    for (uint64_t i = 0; i < n; i++) /* one by one: needs least memory */
        rig_must_share(rig, 0, i, 1, i, 1);
}

/* The same on a machine with room for them and `spare` frames more. */
static void open_shared(struct rig *rig, int machine, uint64_t n,
                        uint64_t spare)
{
    struct rig_options options = { .frames = 2 * GFNS + spare };

    open_shared_with(rig, machine, n, &options);
}

static int push(struct rig *rig, unsigned g, uint64_t gfn, uint64_t n)
{
    return pgshare_declare_volatile(rig->host, rig_dom(rig, g), gfn, n, NULL);
}

static int claim(struct rig *rig, unsigned g, uint64_t gfn, uint64_t n)
{
    int r = pgshare_bonus_claim(rig->host, rig_dom(rig, g), gfn, n, NULL);

    if (!r && gfn != PGSHARE_GFN_NONE)
        rig_expect_zero(rig, g, gfn, n);
    return r;
}

/* A hole at the end of the guest's memory for bonus pages. */
static void make_holes(struct rig *rig, unsigned g, uint64_t gfn, uint64_t n)
{
    ck_assert_int_eq(rig->ops->depopulate(rig->guests[g].impl, gfn, n), 0);
    rig_expect(rig, g, gfn, n, HOLE);
}

/* An empty guest takes what memory the machine has left. */
static void use_up(struct rig *rig)
{
    unsigned g = rig_empty_guest(rig);
    uint64_t frames = rig->ops->free_frames(rig->state);

    ck_assert_uint_le(frames, GFNS);
    if (frames)
        ck_assert_int_eq(rig->ops->populate(rig->guests[g].impl, 0, frames), 0);
    rig_expect_zero(rig, g, 0, frames);
    ck_assert_uint_eq(rig->ops->free_frames(rig->state), 0);
}

START_TEST(each_mapping_is_entitled_to_its_part_of_what_it_saves)
{
    struct rig rig;

    open_shared(&rig, _i, 8, 64);
    ck_assert_uint_eq(rig_account(&rig, 0).entitlement, 8 * ONE / 2);
    ck_assert_uint_eq(rig_account(&rig, 1).entitlement, 8 * ONE / 2);
    ck_assert_uint_eq(rig_account(&rig, 0).shared, 8);
    ck_assert_uint_eq(rig_account(&rig, 0).pss, 8 * ONE / 2);
    rig_fill(&rig, 0, 20, 1, 7);
    rig_must_share(&rig, 0, 0, 0, 20, 1);
    ck_assert_uint_eq(rig_account(&rig, 0).entitlement,
                      7 * ONE / 2 + 2 * (ONE * 2 / 3));
    rig_close(&rig);
}
END_TEST

START_TEST(a_claim_needs_entitlement_and_a_fifo_as_long_as_itself)
{
    struct rig rig;

    open_shared(&rig, _i, 8, 64);
    make_holes(&rig, 0, 56, 8);
    ck_assert_int_eq(claim(&rig, 0, 56, 1), PGSHARE_ERR_OWED);
    ck_assert_int_eq(push(&rig, 0, 20, 3), 0);
    ck_assert_int_eq(claim(&rig, 0, 56, 5), PGSHARE_ERR_ENTITLEMENT);
    ck_assert_int_eq(claim(&rig, 0, 56, 4), PGSHARE_ERR_OWED);
    ck_assert_int_eq(claim(&rig, 0, 54, 3), PGSHARE_ERR_EXISTS);
    ck_assert_int_eq(claim(&rig, 0, 56, 3), 0);
    ck_assert_uint_eq(rig_account(&rig, 0).claimed, 3);
    ck_assert(rig_info(&rig, 0, 57).flags & PGSHARE_GFN_BONUS);
    ck_assert_int_eq(rig_write(&rig, 0, 57), 0);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, rig_dom(&rig, 0), 20,
                                              1, NULL),
                     PGSHARE_ERR_OWED);
    rig_check(&rig);
    ck_assert_int_eq(push(&rig, 0, 30, 1), 0);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, rig_dom(&rig, 0), 20,
                                              1, NULL),
                     0);
    ck_assert_int_eq(pgshare_bonus_return(rig.host, rig_dom(&rig, 0), 56, 4,
                                          NULL),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_bonus_return(rig.host, rig_dom(&rig, 0), 56, 3,
                                          NULL),
                     0);
    rig_expect(&rig, 0, 56, 3, HOLE);
    ck_assert_uint_eq(rig_account(&rig, 0).claimed, 0);
    ck_assert(rig_is(&rig, 0, 56, PGSHARE_GFN_HOLE));
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, rig_dom(&rig, 0), 21,
                                              2, NULL),
                     0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_claim_by_account_only_charges_the_account)
{
    uint64_t none = PGSHARE_GFN_NONE;
    struct rig rig;

    open_shared(&rig, _i, 8, 64);
    ck_assert_int_eq(push(&rig, 0, 20, 3), 0);
    ck_assert_int_eq(claim(&rig, 0, none, 3), 0);
    ck_assert_uint_eq(rig_account(&rig, 0).claimed, 3);
    rig_check(&rig);
    ck_assert_int_eq(pgshare_bonus_return(rig.host, rig_dom(&rig, 0), none, 4,
                                          NULL),
                     PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_bonus_return(rig.host, rig_dom(&rig, 0), none, 3,
                                          NULL),
                     0);
    ck_assert_uint_eq(rig_account(&rig, 0).claimed, 0);
    rig_close(&rig);
}
END_TEST

/* A copy for the last mapping needs a frame, before it gives one back: where the
 * platform makes it, the reserve has one more, to lend it. */
static uint64_t loan(const struct rig *rig)
{
    return rig->machine->can & CAN_TAKE_LAST ? 0 : 1;
}

/* Guest 0 has claimed all that the sharing of 8 pages freed, at GFN 56, and
 * secured it by volatile pages from GFN 20 on. The machine's own memory is
 * used up by a third guest. */
static void open_spent(struct rig *rig, int machine)
{
    open_shared(rig, machine, 8, 32);
    make_holes(rig, 0, 56, 4);
    make_holes(rig, 1, 56, 4);
    ck_assert_int_eq(push(rig, 0, 20, 4), 0);
    ck_assert_int_eq(push(rig, 1, 20, 4), 0);
    ck_assert_int_eq(claim(rig, 0, 56, 4), 0);
    ck_assert_int_eq(claim(rig, 1, 56, 4), 0);
    ck_assert_int_eq(pgshare_reserve_set(rig->host, 0, NULL), 0);
    use_up(rig);
}

START_TEST(a_break_without_free_memory_is_paid_by_the_breakers_own_fifo)
{
    struct rig rig;

    open_spent(&rig, _i);
    ck_assert_uint_eq(rig_stats(&rig).reserve, loan(&rig));
    rig_expect(&rig, 0, 20, 4, OR_ZERO);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_account(&rig, 0).repaid, 4);
    ck_assert_uint_eq(rig_account(&rig, 0).fifo, 0);
    ck_assert_uint_eq(rig_account(&rig, 1).fifo, 4);
    ck_assert_uint_eq(rig_stats(&rig).reclaimed, 4);
    if (rig.machine->can & CAN_RESOLVE)
        ck_assert_uint_eq(rig_stats(&rig).payers[PGSHARE_PAID_OWN_FIFO], 4);
    ck_assert_uint_ge(rig.reports[PGSHARE_REPORT_RECLAIMED], 1);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, rig_dom(&rig, 0), 20,
                                              1, NULL),
                     PGSHARE_ERR_RECLAIMED);
    rig_expect_zero(&rig, 0, 20, 4);
    rig_close(&rig);
}
END_TEST

START_TEST(every_break_under_the_claims_can_be_paid)
{
    struct rig rig;

    open_spent(&rig, _i);
    rig_expect(&rig, 0, 20, 4, OR_ZERO);
    rig_expect(&rig, 1, 20, 4, OR_ZERO);
    for (unsigned gfn = 0; gfn < 8; gfn++) {
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
        rig_check(&rig);
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    }
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 0);
    ck_assert_uint_eq(rig_stats(&rig).saved, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_page_that_has_paid_reads_as_zeroes_and_comes_back_when_written)
{
    struct rig rig;

    open_spent(&rig, _i);
    rig_expect(&rig, 0, 20, 4, OR_ZERO);
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    rig_settle(&rig);
    ck_assert(rig_info(&rig, 0, 20).flags & PGSHARE_GFN_RECLAIMED);
    rig_expect_zero(&rig, 0, 20, 1);
    rig_check_content(&rig);
    /* somebody gives memory back, so that there is some to be had */
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[2].impl, 0, 2), 0);
    rig_expect(&rig, 2, 0, 2, HOLE);
    ck_assert_int_eq(rig_write(&rig, 0, 20), 0);
    ck_assert(rig_is(&rig, 0, 20, PGSHARE_GFN_PRIVATE));
    rig_close(&rig);
}
END_TEST

START_TEST(a_service_domain_secures_and_pays_for_another)
{
    struct rig rig;
    uint64_t dom, service;

    open_shared(&rig, _i, 8, 80);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    service = rig_dom(&rig, 2);
    make_holes(&rig, 0, 56, 4);
    ck_assert_int_eq(pgshare_service_set(rig.host, dom, dom),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_service_set(rig.host, dom, service), 0);
    ck_assert_int_eq(pgshare_service_set(rig.host, service, rig_dom(&rig, 1)),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_service_set(rig.host, rig_dom(&rig, 1), dom),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(claim(&rig, 0, 56, 4), PGSHARE_ERR_OWED);
    ck_assert_int_eq(push(&rig, 2, 0, 4), 0);
    ck_assert_int_eq(claim(&rig, 0, 56, 4), 0);
    ck_assert_uint_eq(rig_account(&rig, 0).service, service);
    ck_assert_uint_eq(rig_account(&rig, 2).secures, 4);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, service, 0, 1, NULL),
                     PGSHARE_ERR_OWED);
    ck_assert_int_eq(pgshare_service_set(rig.host, dom, 0), PGSHARE_ERR_OWED);
    rig_check(&rig);
    ck_assert_int_eq(push(&rig, 0, 20, 4), 0);
    ck_assert_int_eq(pgshare_service_set(rig.host, dom, 0), 0);
    ck_assert_int_eq(pgshare_declare_withdraw(rig.host, service, 0, 4, NULL),
                     0);
    rig_close(&rig);
}
END_TEST

/* A platform that copies for the last mapping, too, leaves a frame behind; a
 * later break needs it. */
START_TEST(a_break_finds_what_earlier_breaks_have_left_behind)
{
    struct rig rig;

    open_shared(&rig, _i, 2, 32);
    rig_settle(&rig);
    use_up(&rig);
    ck_assert_uint_eq(rig_stats(&rig).reserve, 2 + loan(&rig));
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 1, 0), 0);
    ck_assert_int_eq(rig_write(&rig, 0, 1), 0);
    ck_assert_int_eq(rig_write(&rig, 1, 1), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).saved, 0);
    ck_assert_uint_eq(rig_stats(&rig).reserve, 0);
    rig_close(&rig);
}
END_TEST

/* A copy for the last mapping brings a frame back, but later. Of several that
 * begin at once, the first takes what is lent; the others wait for it. */
static void check_last_breaks(int machine, uint64_t later)
{
    struct rig rig;

    open_spent(&rig, machine);
    rig_expect(&rig, 0, 20, 4, OR_ZERO);
    rig_expect(&rig, 1, 20, 4, OR_ZERO);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, gfn < 4, gfn), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).saved, 0);
    ck_assert_uint_eq(rig_stats(&rig).reserve, loan(&rig));
    rig_wait(&rig, later);
    for (unsigned gfn = 0; gfn < 4; gfn++) {
        rig_write_later(&rig, 0, gfn);
        rig_write_later(&rig, 1, gfn + 4);
        rig_check(&rig); /* a write that was refused is missed here */
    }
    ck_assert_uint_eq(rig_stats(&rig).mappings, 0);
    rig_close(&rig);
}

START_TEST(last_breaks_at_once_are_all_paid)
{
    for (unsigned i = 0; i < 8; i++) /* how they meet is chance */
        check_last_breaks(_i, i * SECOND / 100);
}
END_TEST

/* A FIFO leaves with its domain, and the claims that it secured are written
 * off; their memory is spent. The machine makes up for it as soon as it can,
 * and is not pestered until then. */
START_TEST(cover_that_went_with_a_domain_is_taken_from_the_machine)
{
    struct rig_options options = { .frames = 2 * GFNS + 80,
                                   .decorated = true };
    struct pgshare_fault_plan watch = { .size = sizeof(watch),
                                        .mode = PGSHARE_INJECT_FAIL,
                                        .kinds = 1 << PGSHARE_OP_RESERVE,
                                        .first = UINT64_MAX };
    struct pgshare_poll poll = { .size = sizeof(poll) };
    struct pgshare_host_stats stats;
    struct rig rig;

    open_shared_with(&rig, _i, 8, &options);
    rig_guest(&rig);
    make_holes(&rig, 0, 52, 8);
    ck_assert_int_eq(pgshare_service_set(rig.host, rig_dom(&rig, 0),
                                         rig_dom(&rig, 2)), 0);
    ck_assert_int_eq(push(&rig, 2, 0, 4), 0);
    ck_assert_int_eq(claim(&rig, 0, 52, 4), 0);
    ck_assert_int_eq(pgshare_reserve_set(rig.host, 0, NULL), 0);
    use_up(&rig);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &watch), 0);
    ck_assert_int_eq(rig_leave(&rig, 2), 0);
    rig_wait(&rig, SECOND);
    stats = rig_stats(&rig);
    ck_assert_uint_eq(stats.reserve + 4, stats.saved + loan(&rig));
    ck_assert_uint_ge(pgshare_fault_backend_seen(rig.faults), 2);
    ck_assert_uint_le(pgshare_fault_backend_seen(rig.faults), 10);
    ck_assert_int_eq(pgshare_host_poll(rig.host, &poll), 0);
    ck_assert_uint_ne(poll.deadline_ns, PGSHARE_FOREVER);
    ck_assert_int_eq(push(&rig, 0, 20, 4), 0);
    ck_assert_int_eq(claim(&rig, 0, 56, 4), PGSHARE_ERR_NOFRAME);

    ck_assert_int_eq(rig.ops->depopulate(rig.guests[3].impl, 0, 6), 0);
    rig_expect(&rig, 3, 0, 6, HOLE);
    rig_wait(&rig, 2 * SECOND);
    stats = rig_stats(&rig);
    ck_assert_uint_eq(stats.reserve, stats.saved + loan(&rig));
    ck_assert_int_eq(claim(&rig, 0, 56, 4), 0);
    rig_close(&rig);
}
END_TEST

/* A child that was forked without cover gets nothing of what covers others. */
START_TEST(a_child_without_cover_takes_nothing_of_others)
{
    struct pgshare_fork_options fork = { .size = sizeof(fork),
                                         .flags = PGSHARE_FORK_UNSECURED };
    struct rig_options options = { .frames = 4 * GFNS };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    for (unsigned g = 0; g < 3; g++) {
        rig_guest(&rig);
        rig_fill(&rig, g, 0, GFNS, 7);
    }
    rig_new_guest(&rig, 0, 0, false);
    rig_join(&rig, 3, rig.group);
    rig_must_share(&rig, 1, 0, 2, 0, 8);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     0);
    ck_assert_int_eq(pgshare_fork(rig.host, rig_dom(&rig, 0), rig_dom(&rig, 3),
                                  &fork, NULL, NULL),
                     0);
    rig_expect_copy(&rig, 3, 0, GFNS, 0, 0);
    rig_settle(&rig);
    use_up(&rig);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 3, gfn), PGSHARE_ERR_NOFRAME);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, 1 + gfn % 2, gfn), 0);
    rig_settle(&rig);
    rig_close(&rig);
}
END_TEST

/* Which happens only where a fork was told to do without. (Where the library
 * resolves, the vCPU waits; its VMM decides for how long.) */
START_TEST(a_platform_is_told_that_there_is_no_memory)
{
    struct pgshare_fork_options fork = { .size = sizeof(fork),
                                         .flags = PGSHARE_FORK_UNSECURED };
    struct rig_options options = { .frames = 2 * GFNS };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, GFNS, 7);
    rig_new_guest(&rig, 0, 0, false);
    rig_join(&rig, 1, rig.group);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, 0), NULL),
                     0);
    ck_assert_int_eq(pgshare_fork(rig.host, rig_dom(&rig, 0), rig_dom(&rig, 1),
                                  &fork, NULL, NULL),
                     0);
    rig_expect_copy(&rig, 1, 0, GFNS, 0, 0);
    rig_settle(&rig);
    use_up(&rig);
    ck_assert_uint_eq(rig_stats(&rig).reserve, loan(&rig));
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 1, gfn), PGSHARE_ERR_NOFRAME);
    rig_check(&rig);
    ck_assert(rig_together(&rig, 0, 2, 1, 2));
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[2].impl, 0, 4), 0);
    rig_expect(&rig, 2, 0, 4, HOLE);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(the_reserve_is_taken_from_the_machine_and_given_back)
{
    struct rig rig;
    uint64_t had, got = 0;

    rig_open(&rig, _i);
    rig_guest(&rig);
    had = rig.ops->free_frames(rig.state);
    ck_assert_int_eq(pgshare_reserve_set(rig.host, 100, &got), 0);
    ck_assert_uint_eq(got, 100);
    ck_assert_uint_eq(rig.ops->free_frames(rig.state), had - 100);
    rig_check(&rig);
    ck_assert_int_eq(pgshare_reserve_set(rig.host, had + 1, &got),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(rig_stats(&rig).reserve, had);
    ck_assert_int_eq(pgshare_reserve_set(rig.host, 0, &got), 0);
    ck_assert_uint_eq(got, 0);
    ck_assert_uint_eq(rig.ops->free_frames(rig.state), had);
    rig_close(&rig);
}
END_TEST

START_TEST(a_surplus_beyond_reserve_keep_goes_back_to_the_machine)
{
    struct rig_options options = { .host.reserve_keep = 2 };
    struct rig rig;
    uint64_t had;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 20, 7);
    rig_fill(&rig, 1, 0, 20, 7);
    had = rig.ops->free_frames(rig.state);
    rig_must_share(&rig, 0, 0, 1, 0, 20);
    rig_settle(&rig);
    ck_assert_uint_le(rig_stats(&rig).reserve, 2);
    ck_assert_uint_ge(rig.ops->free_frames(rig.state), had + 18);
    for (unsigned gfn = 0; gfn < 20; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_close(&rig);
}
END_TEST

/* Whether a frame that nobody maps brings its memory back is not known before
 * it is released: a guest that has left may read it still. */
START_TEST(what_others_may_demand_is_not_given_for_frames_of_who_left)
{
    struct rig_options options = {
        .decorated = true, .host.reserve_keep = PGSHARE_RESERVE_KEEP_ALL
    };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_FAIL,
                                       .kinds = 1 << PGSHARE_OP_RELEASE,
                                       .count = UINT64_MAX };
    struct pgshare_host_stats stats;
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    for (unsigned g = 0; g < 4; g++)
        rig_guest(&rig);
    for (unsigned g = 0; g < 4; g++)
        rig_fill(&rig, g, 0, 8, 7 + g / 2);
    rig_must_share(&rig, 0, 0, 1, 0, 8);
    rig_must_share(&rig, 2, 0, 3, 0, 8);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    ck_assert_int_eq(rig_leave(&rig, 0), 0);
    rig_wait(&rig, 1000000);
    pgshare_fault_backend_plan(rig.faults, NULL);
    rig_settle(&rig);
    stats = rig_stats(&rig);
    ck_assert_uint_ge(stats.saved, 8);
    ck_assert_uint_ge(stats.reserve, stats.saved);
    rig_close(&rig);
}
END_TEST

/* The platform makes a frame a page of its last mapping: that frame yields
 * nothing when it is released, be it at once or after a hold. */
static void check_empty_frames(int machine, bool held)
{
    struct pgshare_call call = { .size = sizeof(call) };
    struct rig rig;
    uint64_t ticket;

    open_shared(&rig, machine, 30, 64);
    make_holes(&rig, 0, 60, 1);
    ck_assert_int_eq(push(&rig, 0, 50, 1), 0);
    ck_assert_int_eq(claim(&rig, 0, 60, 1), 0);
    if (held)
        ck_assert_int_eq(pgshare_gfn_get(rig.host, rig_dom(&rig, 0), 0, 20,
                                         PGSHARE_GET_READ, &call), 0);
    for (unsigned gfn = 0; gfn < 20; gfn++) {
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
        ck_assert_int_eq(rig_write(&rig, 1, gfn), 0);
    }
    /* marking what was just unshared harvests, and releases nothing */
    for (unsigned g = 0; g < 2; g++) {
        uint64_t dom = rig_dom(&rig, g);

        ck_assert_int_eq(pgshare_unshare(rig.host, dom, 29, 1, &call), 0);
        ck_assert_int_eq(pgshare_mark_ro(rig.host, dom, 29, 1, &ticket, &call),
                         0);
    }
    ck_assert_int_eq(pgshare_reserve_set(rig.host, 0, NULL), 0);
    if (held)
        ck_assert_int_eq(pgshare_gfn_put(rig.host, rig_dom(&rig, 0), 0, 20,
                                         PGSHARE_GET_READ), 0);
    rig_settle(&rig);
    ck_assert_uint_ge(rig_stats(&rig).reserve + 1, 9);
    rig_check(&rig);
    rig_close(&rig);
}

START_TEST(the_reserve_keeps_what_claims_need_while_frames_are_empty)
{
    check_empty_frames(_i, false);
    check_empty_frames(_i, true);
}
END_TEST

static const struct contract_test tests[] = {
    { &what_others_may_demand_is_not_given_for_frames_of_who_left, CAN_SHARE },
    { &each_mapping_is_entitled_to_its_part_of_what_it_saves, CAN_SHARE },
    { &a_claim_needs_entitlement_and_a_fifo_as_long_as_itself,
      CAN_SHARE | CAN_PAY },
    { &a_claim_by_account_only_charges_the_account, CAN_SHARE | CAN_PAY },
    { &a_break_without_free_memory_is_paid_by_the_breakers_own_fifo,
      CAN_SHARE | CAN_PAY | CAN_EXHAUST },
    { &every_break_under_the_claims_can_be_paid,
      CAN_SHARE | CAN_PAY | CAN_EXHAUST },
    { &a_page_that_has_paid_reads_as_zeroes_and_comes_back_when_written,
      CAN_SHARE | CAN_PAY | CAN_EXHAUST },
    { &a_break_finds_what_earlier_breaks_have_left_behind,
      CAN_SHARE | CAN_PAY | CAN_EXHAUST },
    { &last_breaks_at_once_are_all_paid, CAN_SHARE | CAN_PAY | CAN_EXHAUST },
    { &cover_that_went_with_a_domain_is_taken_from_the_machine,
      CAN_SHARE | CAN_PAY | CAN_EXHAUST },
    { &a_child_without_cover_takes_nothing_of_others,
      CAN_SHARE | CAN_CLONE | CAN_EXHAUST | CAN_HARVEST },
    { &a_platform_is_told_that_there_is_no_memory,
      CAN_SHARE | CAN_CLONE | CAN_EXHAUST | CAN_HARVEST },
    { &a_service_domain_secures_and_pays_for_another, CAN_SHARE | CAN_PAY },
    { &the_reserve_is_taken_from_the_machine_and_given_back, CAN_EXHAUST },
    { &a_surplus_beyond_reserve_keep_goes_back_to_the_machine,
      CAN_SHARE | CAN_EXHAUST },
    { &the_reserve_keeps_what_claims_need_while_frames_are_empty,
      CAN_SHARE | CAN_PAY | CAN_HARVEST | CAN_INLINE },
};

static Suite *make(void)
{
    return contract_suite("contract-ledger", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-ledger", make, argc, argv);
}
