/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks, tickets, shares: what each promises, on every machine.
 */
#include "contract/rig.h"

/* ---- marks and tickets ------------------------------------------------- */

START_TEST(a_mark_gives_a_ticket_and_a_second_mark_the_same)
{
    uint64_t tickets[4] = { 0 }, again[4] = { 0 };
    struct rig rig;
    unsigned a;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, rig_dom(&rig, a), 3, 4, tickets,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, rig_dom(&rig, a), 3, 4, again,
                                     NULL),
                     0);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_ne(tickets[i], 0);
        ck_assert_uint_eq(tickets[i], again[i]);
        ck_assert_uint_eq(rig_info(&rig, a, 3 + i).ticket, tickets[i]);
        ck_assert(rig_is(&rig, a, 3 + i, PGSHARE_GFN_PROTECTED));
        for (unsigned k = 0; k < i; k++)
            ck_assert_uint_ne(tickets[i], tickets[k]);
    }
    ck_assert_uint_eq(rig_stats(&rig).protected_, 4);
    rig_close(&rig);
}
END_TEST

START_TEST(unmark_makes_the_page_writable_and_the_ticket_void)
{
    struct rig rig;
    unsigned a;
    uint64_t ticket, other;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    ticket = rig_mark(&rig, a, 5);
    other = ticket + 1;
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, a), 5, 1, &other,
                                    NULL),
                     PGSHARE_ERR_TICKET);
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, a), 5, 1, &ticket,
                                    NULL),
                     0);
    ck_assert(rig_is(&rig, a, 5, PGSHARE_GFN_PRIVATE));
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, a), 5, 1, &ticket,
                                    NULL),
                     PGSHARE_ERR_TICKET);
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, a), 6, 1, NULL,
                                    NULL),
                     PGSHARE_ERR_TICKET);
    ck_assert_int_eq(rig_write(&rig, a, 5), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_ticket_is_never_used_again)
{
    struct rig rig;
    uint64_t last = 0;
    unsigned a;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t ticket = rig_mark(&rig, a, 7);

        ck_assert_uint_gt(ticket, last);
        last = ticket;
        if (i % 2 && rig.machine->can & CAN_TELL) {
            ck_assert_int_eq(rig_write(&rig, a, 7), 0);
            rig_settle(&rig);
        } else {
            ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, a), 7, 1,
                                            NULL, NULL),
                             0);
        }
    }
    rig_close(&rig);
}
END_TEST

START_TEST(a_write_makes_a_mark_stale)
{
    struct rig rig;
    uint64_t ta, tb;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 9);
    rig_fill(&rig, b, 0, 1, 9);
    ta = rig_mark(&rig, a, 0);
    tb = rig_mark(&rig, b, 0);
    rig_write_page(&rig, b, 0, 9); /* the very same bytes */
    rig_settle(&rig);
    ck_assert_int_eq(rig_share_tickets(&rig, a, 0, ta, b, 0, tb),
                     PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(rig_share_tickets(&rig, b, 0, tb, a, 0, ta),
                     PGSHARE_ERR_SOURCE_TICKET);
    tb = rig_mark(&rig, b, 0);
    ck_assert_int_eq(rig_share_tickets(&rig, a, 0, ta, b, 0, tb), 0);
    ck_assert(rig_together(&rig, a, 0, b, 0));
    rig_close(&rig);
}
END_TEST

START_TEST(a_share_tells_which_side_was_never_marked)
{
    struct rig rig;
    uint64_t ta;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 9);
    rig_fill(&rig, b, 0, 1, 9);
    ta = rig_mark(&rig, a, 0);
    ck_assert_int_eq(rig_share_tickets(&rig, a, 0, ta, b, 0, ta),
                     PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(rig_share_tickets(&rig, b, 0, ta, a, 0, ta),
                     PGSHARE_ERR_SOURCE_TICKET);
    ck_assert_int_eq(rig_share_tickets(&rig, a, 0, ta + 1, b, 0, ta),
                     PGSHARE_ERR_SOURCE_TICKET);
    ck_assert_uint_eq(rig_info(&rig, a, 0).ticket, ta);
    rig_close(&rig);
}
END_TEST

START_TEST(a_frame_is_shared_further_by_its_own_ticket_only)
{
    struct rig rig;
    uint64_t frame, tc;
    unsigned a, b, c;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    c = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 9);
    rig_fill(&rig, b, 0, 1, 9);
    rig_fill(&rig, c, 0, 1, 9);
    rig_must_share(&rig, a, 0, b, 0, 1);
    frame = rig_info(&rig, a, 0).ticket;
    ck_assert_uint_eq(rig_info(&rig, b, 0).ticket, frame);
    tc = rig_mark(&rig, c, 0);
    ck_assert_int_eq(rig_share_tickets(&rig, a, 0, frame + 1, c, 0, tc),
                     PGSHARE_ERR_SOURCE_TICKET);
    ck_assert_int_eq(rig_share_tickets(&rig, c, 0, tc, a, 0, tc),
                     PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(rig_share_tickets(&rig, b, 0, frame, c, 0, tc), 0);
    ck_assert(rig_together(&rig, a, 0, c, 0));
    rig_close(&rig);
}
END_TEST

/* ---- shares ------------------------------------------------------------ */

START_TEST(equal_pages_share_one_frame_and_free_one)
{
    struct rig rig;
    unsigned a, b;
    struct pgshare_host_stats stats;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 10, 1, 1);
    rig_fill(&rig, b, 20, 1, 1);
    rig_must_share(&rig, a, 10, b, 20, 1);
    stats = rig_stats(&rig);
    ck_assert_uint_eq(stats.mappings, 2);
    ck_assert_uint_eq(stats.frames, 1);
    ck_assert_uint_eq(stats.saved, 1);
    ck_assert_uint_ge(stats.reserve, 1);
    ck_assert_uint_eq(stats.shared[PGSHARE_CAUSE_CALL], 1);
    ck_assert_uint_eq(rig_info(&rig, a, 10).sharers, 2);
    ck_assert_uint_eq(rig_info(&rig, a, 10).ticket,
                      rig_info(&rig, b, 20).ticket);
    rig_close(&rig);
}
END_TEST

START_TEST(different_pages_are_refused_and_stay_as_they_were)
{
    struct rig rig;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 10, 1, 1);
    rig_fill(&rig, b, 20, 1, 1);
    ck_assert_int_eq(rig_write(&rig, b, 20), 0);
    ck_assert_int_eq(rig_share(&rig, a, 10, b, 20, 1), PGSHARE_ERR_DIFFERENT);
    ck_assert(rig_is(&rig, b, 20, PGSHARE_GFN_PRIVATE));
    ck_assert_int_eq(rig_write(&rig, a, 10), 0);
    ck_assert_int_eq(rig_write(&rig, b, 20), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(extents_are_shared_page_by_page_where_they_are_equal)
{
    int8_t results[40];
    struct pgshare_call call = { .size = sizeof(call),
                                 .timeout_ns = 10 * SECOND,
                                 .results = results };
    struct pgshare_share_request request = { .size = sizeof(request),
                                             .flags = PGSHARE_SHARE_MARK,
                                             .source_gfn = 4,
                                             .client_gfn = 17,
                                             .count = 40 };
    struct rig rig;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 4, 40, 3);
    rig_fill(&rig, b, 17, 40, 3);
    rig_write(&rig, b, 17 + 5);
    rig_write(&rig, a, 4 + 30);
    request.source_dom = rig_dom(&rig, a);
    request.client_dom = rig_dom(&rig, b);
    ck_assert_int_eq(pgshare_share(rig.host, &request, &call),
                     PGSHARE_ERR_DIFFERENT);
    ck_assert_uint_eq(call.done, 38);
    for (unsigned i = 0; i < 40; i++) {
        bool equal = i != 5 && i != 30;

        ck_assert_int_eq(results[i], equal ? 0 : PGSHARE_ERR_DIFFERENT);
        ck_assert_int_eq(rig_together(&rig, a, 4 + i, b, 17 + i), equal);
    }
    rig_close(&rig);
}
END_TEST

START_TEST(extents_longer_than_one_operation_are_cut)
{
    struct rig rig;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, GFNS, 3);
    rig_fill(&rig, b, 0, GFNS, 3);
    rig_must_share(&rig, a, 0, b, 0, GFNS);
    ck_assert_uint_eq(rig_stats(&rig).frames, GFNS);
    rig_close(&rig);
}
END_TEST

START_TEST(a_domain_shares_with_itself_but_not_with_the_same_pages)
{
    struct rig rig;
    unsigned a;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    rig_fill(&rig, a, 0, 8, 3);
    rig_fill(&rig, a, 8, 8, 3);
    ck_assert_int_eq(rig_share(&rig, a, 0, a, 4, 8), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(rig_share(&rig, a, 4, a, 0, 8), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(rig_share(&rig, a, 3, a, 3, 1), PGSHARE_ERR_INVALID);
    rig_must_share(&rig, a, 0, a, 8, 8);
    rig_close(&rig);
}
END_TEST

START_TEST(sharing_again_what_is_shared_succeeds_and_changes_nothing)
{
    struct rig rig;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 4, 3);
    rig_fill(&rig, b, 0, 4, 3);
    rig_must_share(&rig, a, 0, b, 0, 4);
    rig_must_share(&rig, a, 0, b, 0, 4);
    rig_must_share(&rig, b, 0, a, 0, 4);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 8);
    ck_assert_uint_eq(rig_stats(&rig).frames, 4);
    rig_close(&rig);
}
END_TEST

START_TEST(a_third_page_joins_the_frame)
{
    struct rig rig;
    unsigned a, b, c;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    c = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 3);
    rig_fill(&rig, b, 1, 1, 3);
    rig_fill(&rig, c, 2, 1, 3);
    rig_must_share(&rig, a, 0, b, 1, 1);
    rig_must_share(&rig, b, 1, c, 2, 1);
    ck_assert_uint_eq(rig_info(&rig, a, 0).sharers, 3);
    rig_close(&rig);
}
END_TEST

START_TEST(two_frames_with_many_mappings_become_one)
{
    struct rig rig;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    for (unsigned i = 0; i < 6; i++) {
        rig_fill(&rig, a, i, 1, 3);
        rig_fill(&rig, b, i, 1, 3);
    }
    for (unsigned i = 1; i < 6; i++) {
        rig_must_share(&rig, a, 0, a, i, 1);
        rig_must_share(&rig, b, 0, b, i, 1);
    }
    ck_assert_uint_eq(rig_stats(&rig).frames, 2);
    rig_must_share(&rig, a, 0, b, 3, 1);
    rig_settle(&rig);
    for (unsigned i = 0; i < 6; i++)
        ck_assert(rig_together(&rig, a, 0, b, i));
    ck_assert_uint_eq(rig_stats(&rig).frames, 1);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 12);
    rig_close(&rig);
}
END_TEST

/* Two readers, one before and one after the frame's other mappings were to move
 * to another frame; where a frame moves whole, it stays while it is read. */
START_TEST(readers_keep_the_frame_that_they_read)
{
    struct rig rig;
    unsigned a, b;
    int r;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 3);
    rig_fill(&rig, a, 1, 1, 3);
    rig_fill(&rig, b, 0, 1, 3);
    rig_fill(&rig, b, 1, 1, 3);
    rig_must_share(&rig, a, 0, a, 1, 1);
    rig_must_share(&rig, b, 0, b, 1, 1);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(pgshare_gfn_get(rig.host, rig_dom(&rig, a), 1, 1,
                                         PGSHARE_GET_READ, NULL),
                         0);
        r = rig_share(&rig, b, 0, a, 0, 1);
        ck_assert(r == 0 || r == PGSHARE_ERR_BUSY);
        rig_settle(&rig);
    }
    ck_assert(!rig_together(&rig, a, 1, b, 0));
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pgshare_gfn_put(rig.host, rig_dom(&rig, a), 1, 1,
                                         PGSHARE_GET_READ),
                         0);
    rig_must_share(&rig, b, 0, a, 1, 1);
    rig_settle(&rig);
    ck_assert(rig_together(&rig, a, 1, b, 0));
    ck_assert(rig_together(&rig, a, 0, b, 0));
    ck_assert_uint_eq(rig_stats(&rig).frames, 1);
    rig_close(&rig);
}
END_TEST

START_TEST(unmark_of_a_shared_page_is_refused)
{
    struct rig rig;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 3);
    rig_fill(&rig, b, 1, 1, 3);
    rig_must_share(&rig, a, 0, b, 1, 1);
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, a), 0, 1, NULL,
                                    NULL),
                     PGSHARE_ERR_STATE);
    ck_assert_uint_eq(rig_mark(&rig, a, 0), rig_info(&rig, a, 0).ticket);
    rig_close(&rig);
}
END_TEST

START_TEST(marked_pages_that_cannot_be_shared_stay_marked)
{
    struct rig rig;
    uint64_t ta, tb;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 1, 3);
    rig_fill(&rig, b, 0, 1, 4);
    ta = rig_mark(&rig, a, 0);
    tb = rig_mark(&rig, b, 0);
    ck_assert_int_eq(rig_share_tickets(&rig, a, 0, ta, b, 0, tb),
                     PGSHARE_ERR_DIFFERENT);
    ck_assert_uint_eq(rig_info(&rig, b, 0).ticket, tb);
    ck_assert(rig_is(&rig, b, 0, PGSHARE_GFN_PROTECTED));
    rig_close(&rig);
}
END_TEST

/* ---- who may share ----------------------------------------------------- */

START_TEST(groups_do_not_share_with_each_other)
{
    struct rig rig;
    uint64_t other, again;
    unsigned a, b, c;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    ck_assert_int_eq(pgshare_group_open(rig.host, "other", &other), 0);
    ck_assert_int_eq(pgshare_group_open(rig.host, "other", &again), 0);
    ck_assert_uint_eq(other, again);
    b = rig_new_guest(&rig, 0, 0, true);
    rig_join(&rig, b, other);
    c = rig_new_guest(&rig, 0, 0, true);
    rig_join(&rig, c, 0);
    rig_fill(&rig, a, 0, 2, 3);
    rig_fill(&rig, b, 0, 2, 3);
    rig_fill(&rig, c, 0, 2, 3);
    rig_fill(&rig, c, 8, 2, 3);
    ck_assert_int_eq(rig_share(&rig, a, 0, b, 0, 1), PGSHARE_ERR_GROUP);
    ck_assert_int_eq(rig_share(&rig, c, 0, b, 0, 1), PGSHARE_ERR_GROUP);
    ck_assert_int_eq(rig_share(&rig, a, 0, c, 0, 1), PGSHARE_ERR_GROUP);
    rig_must_share(&rig, c, 0, c, 8, 2);
    rig_close(&rig);
}
END_TEST

START_TEST(direct_page_tables_refuse_to_share)
{
    struct rig rig;
    uint64_t ticket;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 2, 3);
    rig_fill(&rig, b, 0, 2, 3);
    ck_assert_int_eq(rig_share(&rig, a, 0, b, 0, 1), PGSHARE_ERR_NOTSUP);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, rig_dom(&rig, a), 0, 1, &ticket,
                                     NULL),
                     PGSHARE_ERR_NOTSUP);
    ck_assert_int_eq(pgshare_domain_freeze(rig.host, rig_dom(&rig, a), NULL),
                     PGSHARE_ERR_NOTSUP);
    pgshare_hint_same(rig.host, rig_dom(&rig, a), 0, rig_dom(&rig, b), 0, 2);
    pgshare_declare_free(rig.host, rig_dom(&rig, a), 8, 4);
    rig_expect(&rig, a, 8, 4, OR_ZERO);
    ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 0);
    ck_assert_uint_eq(rig_stats(&rig).protected_, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(pages_pinned_by_a_device_are_refused)
{
    struct rig rig;
    unsigned a, b;
    uint64_t ticket;
    void *pin;
    int r;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 2, 3);
    rig_fill(&rig, b, 0, 2, 3);
    ck_assert_int_eq(rig.ops->pin(rig.guests[b].impl, 0, &pin), 0);
    r = rig_share(&rig, a, 0, b, 0, 1);
    ck_assert_int_eq(r, PGSHARE_ERR_BUSY);
    r = rig_share(&rig, b, 0, a, 0, 1);
    ck_assert(r == PGSHARE_ERR_BUSY || r == 0);
    ck_assert(!rig_together(&rig, a, 0, b, 0));
    r = pgshare_mark_ro(rig.host, rig_dom(&rig, b), 0, 1, &ticket, NULL);
    ck_assert_int_eq(r, PGSHARE_ERR_BUSY);
    rig.ops->unpin(pin);
    rig_settle(&rig);
    rig_must_share(&rig, a, 0, b, 0, 2);
    rig_close(&rig);
}
END_TEST

START_TEST(holes_are_refused)
{
    struct rig rig;
    unsigned a, b;
    uint64_t ticket;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_empty_guest(&rig);
    ck_assert_int_eq(rig_share(&rig, a, 0, b, 0, 1), PGSHARE_ERR_HOLE);
    ck_assert_int_eq(rig_share(&rig, b, 0, a, 0, 1), PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, rig_dom(&rig, b), 0, 1, &ticket,
                                     NULL),
                     PGSHARE_ERR_HOLE);
    ck_assert_int_eq(rig.ops->populate(rig.guests[b].impl, 4, 1), 0);
    rig_expect_zero(&rig, b, 4, 1);
    ck_assert_int_eq(rig_share(&rig, a, 3, b, 3, 2), PGSHARE_ERR_HOLE);
    rig_must_share(&rig, a, 4, b, 4, 1);
    rig_close(&rig);
}
END_TEST

/* ---- what the cow domain owns ------------------------------------------ */

static int count_mapping(void *ctx, uint64_t dom, uint64_t gfn)
{
    unsigned *n = ctx;

    return ++*n == 100 ? -1 : 0;
}

START_TEST(the_cow_domain_tells_what_it_owns_and_who_maps_it)
{
    struct pgshare_frame_info info = { .size = sizeof(info) };
    struct rig rig;
    unsigned a, b, frames = 0, mappings = 0;
    uint64_t last = 0;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    b = rig_guest(&rig);
    rig_fill(&rig, a, 0, 10, 3);
    rig_fill(&rig, b, 0, 10, 3);
    rig_must_share(&rig, a, 0, b, 0, 10);
    while (!pgshare_cow_next(rig.host, last, &info)) {
        ck_assert_uint_gt(info.frame, last);
        last = info.frame;
        if (!info.group)
            continue;
        frames++;
        ck_assert_uint_eq(info.group, rig.group);
        ck_assert_uint_eq(info.mappings, 2);
        ck_assert_int_eq(pgshare_frame_mappings(rig.host, info.frame,
                                                count_mapping, &mappings),
                         0);
    }
    ck_assert_uint_eq(frames, 10);
    ck_assert_uint_eq(mappings, 20);
    mappings = 99;
    ck_assert_int_eq(pgshare_frame_mappings(rig.host, last, count_mapping,
                                            &mappings),
                     -1);
    ck_assert_int_eq(pgshare_frame_mappings(rig.host, last + 1000,
                                            count_mapping, &mappings),
                     PGSHARE_ERR_RANGE);
    rig_close(&rig);
}
END_TEST

/* ---- calls that do not wait -------------------------------------------- */

START_TEST(a_call_without_time_answers_in_progress_and_the_outcome_follows)
{
    struct pgshare_call call = { .size = sizeof(call), .cookie = &call };
    uint64_t tickets[8];
    struct rig rig;
    unsigned a;
    int r;

    rig_open(&rig, _i);
    a = rig_guest(&rig);
    r = pgshare_mark_ro(rig.host, rig_dom(&rig, a), 0, 8, tickets, &call);
    if (r == PGSHARE_ERR_INPROGRESS) {
        ck_assert_uint_ne(call.token, 0);
        rig_settle(&rig);
        ck_assert_uint_eq(rig.outcomes, 1);
        ck_assert_uint_eq(rig.outcome.token, call.token);
        ck_assert_ptr_eq(rig.outcome.cookie, &call);
        ck_assert_int_eq(rig.outcome.result, 0);
        ck_assert_int_eq(rig.outcome.kind, PGSHARE_OUTCOME_MARK);
        ck_assert_uint_eq(rig.outcome.dom, rig_dom(&rig, a));
        ck_assert_uint_eq(rig.outcome.gfn, 0);
        ck_assert_uint_eq(rig.outcome.count, 8);
        ck_assert_uint_eq(rig.outcome.done, 8);
        memcpy(tickets, rig.tickets, sizeof(tickets));
    } else {
        ck_assert_int_eq(r, 0);
        ck_assert_uint_eq(call.done, 8);
        ck_assert_uint_eq(rig.outcomes, 0);
    }
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(rig_info(&rig, a, i).ticket, tickets[i]);
    rig_close(&rig);
}
END_TEST

/* ------------------------------------------------------------------------ */

/* A share that goes on by itself looks at its tickets later; they are its
 * caller's, who may have used the memory otherwise by then. */
START_TEST(tickets_are_kept_by_a_share_that_goes_on)
{
    struct rig_options options = { .decorated = true };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_LATE,
                                       .kinds = 1 << PGSHARE_OP_HARVEST,
                                       .count = UINT64_MAX };
    struct pgshare_call call = { .size = sizeof(call) };
    uint64_t ours[2], theirs[2];
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .source_gfn = 4,
        .client_gfn = 4,
        .count = 2,
        .source_tickets = ours,
        .client_tickets = theirs,
    };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 4, 2, 7);
    rig_fill(&rig, 1, 4, 2, 7);
    rig_settle(&rig);
    for (unsigned i = 0; i < 2; i++) {
        ours[i] = rig_mark(&rig, 0, 4 + i);
        theirs[i] = rig_mark(&rig, 1, 4 + i);
    }
    request.source_dom = rig_dom(&rig, 0);
    request.client_dom = rig_dom(&rig, 1);
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, 1), 5, 1, NULL,
                                    NULL),
                     0); /* for which the share waits */
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    ck_assert_int_eq(pgshare_share(rig.host, &request, &call),
                     PGSHARE_ERR_INPROGRESS);
    memset(ours, 0, sizeof(ours));
    memset(theirs, 0, sizeof(theirs));
    pgshare_fault_backend_plan(rig.faults, NULL);
    pgshare_fault_backend_release(rig.faults);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.outcomes, 1);
    ck_assert_int_eq(rig.outcome.result, PGSHARE_ERR_CLIENT_TICKET);
    ck_assert(rig_together(&rig, 0, 4, 1, 4));
    ck_assert(!rig_together(&rig, 0, 5, 1, 5));
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &tickets_are_kept_by_a_share_that_goes_on,
      CAN_SHARE | CAN_HARVEST | CAN_INLINE },
    { &a_mark_gives_a_ticket_and_a_second_mark_the_same, CAN_SHARE },
    { &unmark_makes_the_page_writable_and_the_ticket_void, CAN_SHARE },
    { &a_ticket_is_never_used_again, CAN_SHARE },
    { &a_write_makes_a_mark_stale, CAN_SHARE },
    { &a_frame_is_shared_further_by_its_own_ticket_only, CAN_SHARE },
    { &a_share_tells_which_side_was_never_marked, CAN_SHARE },
    { &equal_pages_share_one_frame_and_free_one, CAN_SHARE },
    { &different_pages_are_refused_and_stay_as_they_were, CAN_SHARE },
    { &extents_are_shared_page_by_page_where_they_are_equal, CAN_SHARE },
    { &extents_longer_than_one_operation_are_cut, CAN_SHARE },
    { &a_domain_shares_with_itself_but_not_with_the_same_pages, CAN_SHARE },
    { &sharing_again_what_is_shared_succeeds_and_changes_nothing, CAN_SHARE },
    { &a_third_page_joins_the_frame, CAN_SHARE },
    { &two_frames_with_many_mappings_become_one, CAN_SHARE },
    { &readers_keep_the_frame_that_they_read, CAN_SHARE },
    { &unmark_of_a_shared_page_is_refused, CAN_SHARE },
    { &marked_pages_that_cannot_be_shared_stay_marked, CAN_SHARE },
    { &groups_do_not_share_with_each_other, CAN_SHARE },
    { &direct_page_tables_refuse_to_share, CAN_REFUSE },
    { &pages_pinned_by_a_device_are_refused, CAN_SHARE | CAN_PIN },
    { &holes_are_refused, CAN_SHARE },
    { &the_cow_domain_tells_what_it_owns_and_who_maps_it, CAN_SHARE },
    { &a_call_without_time_answers_in_progress_and_the_outcome_follows,
      CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("contract-share", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-share", make, argc, argv);
}
