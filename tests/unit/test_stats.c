/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be read: statistics, one GFN, the cow domain, reverse maps. */
#include "unit/world.h"

#include <pgshare/fault.h>
#include <pgshare/ledger.h>

/* ---- statistics -------------------------------------------------------- */

START_TEST(test_levels_add_up)
{
    struct world w;
    struct pgshare_host_stats stats;
    uint64_t tickets[3];

    world_open(&w, NULL);
    world_share(&w, 0, 10);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 20, 3, tickets, NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_volatile(w.host, w.dom[1], 30, 4, NULL),
                     0);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.domains, 2);
    ck_assert_uint_eq(stats.tracked, 2 * WORLD_PAGES);
    ck_assert_uint_eq(stats.mappings, 20);
    ck_assert_uint_eq(stats.zero_mappings, 0);
    ck_assert_uint_eq(stats.protected_, 3);
    ck_assert_uint_eq(stats.private_, 2 * WORLD_PAGES - 23);
    ck_assert_uint_eq(stats.frames, 10);
    ck_assert_uint_eq(stats.saved, 10);
    ck_assert_uint_eq(stats.reserve, 10);
    ck_assert_uint_eq(stats.fifo, 4);
    ck_assert_uint_eq(stats.metadata, pgs_test_tracker()->live_bytes);
    ck_assert_uint_eq(stats.shared[PGSHARE_CAUSE_CALL], 10);
    ck_assert_uint_ge(stats.compared, 10);
    ck_assert_uint_eq(stats.different, 0);
    ck_assert_uint_gt(stats.backend_ops, 0);
    ck_assert_uint_eq(stats.backend_errors, 0);
    world_close(&w);
}
END_TEST

START_TEST(test_faults_are_counted_by_outcome_and_payer)
{
    struct world w;
    struct pgshare_host_stats stats;
    struct pgshare_domain_stats own = { .size = sizeof(own) };

    world_open(&w, NULL);
    world_share(&w, 0, 3);
    ck_assert_int_eq(world_write(&w, 0, 0, 1), 0);
    ck_assert_int_eq(world_write(&w, 1, 0, 1), 0);
    ck_assert_int_eq(pgshare_declare_free(w.host, w.dom[0], 1, 1), 0);
    ck_assert_int_eq(world_write(&w, 0, 1, 1), 0);
    ck_assert_int_eq(pgshare_fault_write(w.host, w.dom[0], 0, 0, NULL, NULL),
                     0);
    stats = world_stats(&w);
    ck_assert_uint_eq(stats.faults[PGSHARE_FAULT_COPIED], 1);
    ck_assert_uint_eq(stats.faults[PGSHARE_FAULT_LAST_MAPPING], 1);
    ck_assert_uint_eq(stats.faults[PGSHARE_FAULT_FREE], 1);
    ck_assert_uint_eq(stats.faults[PGSHARE_FAULT_SPURIOUS], 1);
    ck_assert_uint_eq(stats.payers[PGSHARE_PAID_RESERVE], 2);
    ck_assert_uint_eq(stats.payers[PGSHARE_PAID_NOTHING], 2);
    ck_assert_int_eq(pgshare_domain_stats(w.host, w.dom[0], &own), 0);
    ck_assert_uint_eq(own.faults[PGSHARE_FAULT_COPIED], 1);
    ck_assert_uint_eq(own.faults[PGSHARE_FAULT_LAST_MAPPING], 0);
    ck_assert_uint_eq(own.broken, 2);
    world_close(&w);
}
END_TEST

START_TEST(test_a_domain_is_walked)
{
    struct world w;
    struct pgshare_domain_stats stats = { .size = sizeof(stats) };
    uint64_t ticket;

    world_open(&w, NULL);
    world_share(&w, 0, 8);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[1], 20, 1, &ticket, NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_free(w.host, w.dom[1], 30, 5), 0);
    ck_assert_int_eq(pgshare_declare_never_share(w.host, w.dom[1], 40, 6, 1,
                                                 NULL),
                     0);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[1], 50, 2, PGSHARE_GET_READ,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_volatile(w.host, w.dom[1], 60, 3, NULL),
                     0);
    ck_assert_int_eq(pgshare_domain_stats(w.host, w.dom[1], &stats), 0);
    ck_assert_uint_eq(stats.tracked, WORLD_PAGES);
    ck_assert_uint_eq(stats.private_, WORLD_PAGES - 9);
    ck_assert_uint_eq(stats.protected_, 1);
    ck_assert_uint_eq(stats.shared, 8);
    ck_assert_uint_eq(stats.zero, 0);
    ck_assert_uint_eq(stats.pss, 4 * PGSHARE_ENTITLEMENT_ONE);
    ck_assert_uint_eq(stats.held, 2);
    ck_assert_uint_eq(stats.never_share, 6);
    ck_assert_uint_eq(stats.logically_free, 5);
    ck_assert_uint_eq(stats.fifo, 3);
    ck_assert_uint_eq(stats.made[PGSHARE_CAUSE_CALL], 8);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[1], 50, 2, PGSHARE_GET_READ),
                     0);
    world_close(&w);
}
END_TEST

START_TEST(test_statistics_check_their_output)
{
    struct world w;
    struct pgshare_host_stats host = { .size = 1 };
    struct pgshare_domain_stats domain = { .size = 1 };

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_host_stats(w.host, NULL), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_host_stats(NULL, &host), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_host_stats(w.host, &host), PGSHARE_ERR_ABI);
    ck_assert_int_eq(pgshare_domain_stats(w.host, w.dom[0], NULL),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_domain_stats(w.host, 1, &domain),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_domain_stats(w.host, w.dom[0], &domain),
                     PGSHARE_ERR_ABI);
    world_close(&w);
}
END_TEST

START_TEST(test_names)
{
    for (uint32_t i = 0; i < PGSHARE_CAUSE_MAX; i++)
        ck_assert_ptr_nonnull(pgshare_cause_name(i));
    ck_assert_str_eq(pgshare_cause_name(PGSHARE_CAUSE_BLOCK), "block");
    ck_assert_ptr_null(pgshare_cause_name(PGSHARE_CAUSE_MAX));
    ck_assert_str_eq(pgshare_fault_name(PGSHARE_FAULT_LAST_MAPPING),
                     "last-mapping");
    for (uint32_t i = 1; i <= PGSHARE_FAULT_POPULATED; i++)
        ck_assert_ptr_nonnull(pgshare_fault_name(i));
    ck_assert_ptr_null(pgshare_fault_name(0));
    ck_assert_ptr_null(pgshare_fault_name(PGSHARE_FAULT_POPULATED + 1));
}
END_TEST

/* ---- one GFN ----------------------------------------------------------- */

START_TEST(test_a_gfn_tells_what_it_is)
{
    struct world w;
    struct pgshare_gfn_info info, other;
    uint64_t ticket;

    world_open(&w, NULL);
    world_share(&w, 0, 2);
    info = world_gfn(&w, 0, 1);
    other = world_gfn(&w, 1, 1);
    ck_assert_uint_eq(info.state, PGSHARE_GFN_SHARED);
    ck_assert_uint_eq(info.sharers, 2);
    ck_assert_uint_gt(info.frame, 1);
    ck_assert_uint_eq(info.frame, other.frame);
    ck_assert_uint_eq(info.ticket, other.ticket);
    ck_assert_uint_ne(info.frame, world_gfn(&w, 0, 0).frame);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 9, 1, &ticket, NULL), 0);
    info = world_gfn(&w, 0, 9);
    ck_assert_uint_eq(info.state, PGSHARE_GFN_PROTECTED);
    ck_assert_uint_eq(info.ticket, ticket);
    ck_assert_uint_eq(info.frame, 0);
    info = world_gfn(&w, 0, 10);
    ck_assert_uint_eq(info.state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(info.ticket, 0);
    ck_assert_uint_eq(world_gfn(&w, 0, WORLD_PAGES).state, PGSHARE_GFN_HOLE);
    world_close(&w);
}
END_TEST

START_TEST(test_gfn_info_checks_its_arguments)
{
    struct world w;
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_gfn_info(w.host, w.dom[0], 0, NULL),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_gfn_info(w.host, w.dom[0], WORLD_GFNS, &info),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_gfn_info(w.host, 5, 0, &info),
                     PGSHARE_ERR_NODOMAIN);
    info.size = 7;
    ck_assert_int_eq(pgshare_gfn_info(w.host, w.dom[0], 0, &info),
                     PGSHARE_ERR_ABI);
    world_close(&w);
}
END_TEST

/* ---- the cow domain ---------------------------------------------------- */

START_TEST(test_the_cow_domain_lists_its_frames)
{
    struct world w;
    struct pgshare_frame_info info = { .size = sizeof(info) };
    uint64_t after = 0, n = 0;

    world_open(&w, NULL);
    world_share(&w, 0, 5);
    ck_assert_int_eq(pgshare_cow_next(w.host, 0, &info), 0);
    ck_assert_uint_eq(info.frame, 1);
    ck_assert_uint_eq(info.id, PGSHARE_ID_ZERO);
    ck_assert_uint_eq(info.group, 0);
    for (after = 1; !pgshare_cow_next(w.host, after, &info);
         after = info.frame) {
        ck_assert_uint_gt(info.frame, after);
        ck_assert_uint_eq(info.mappings, 2);
        ck_assert_uint_eq(info.group, w.group);
        ck_assert_uint_ne(info.ticket, 0);
        ck_assert_uint_ne(info.id, 0);
        n++;
    }
    ck_assert_uint_eq(n, 5);
    ck_assert_int_eq(pgshare_cow_next(w.host, after, &info), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_cow_next(w.host, UINT64_MAX, &info),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_cow_next(w.host, 0, NULL), PGSHARE_ERR_INVALID);
    info.size = 9;
    ck_assert_int_eq(pgshare_cow_next(w.host, 0, &info), PGSHARE_ERR_ABI);
    world_close(&w);
}
END_TEST

struct visits {
    struct world *w;
    uint64_t n;
    uint64_t gfns;
    int answer;
};

static int visit(void *ctx, uint64_t dom, uint64_t gfn)
{
    struct visits *v = ctx;

    ck_assert(dom == v->w->dom[0] || dom == v->w->dom[1]);
    v->n++;
    v->gfns += gfn;
    return v->answer;
}

START_TEST(test_a_frame_knows_its_mappings)
{
    struct world w;
    struct visits v = { .w = &w };
    uint64_t frame;

    world_open(&w, NULL);
    world_share(&w, 0, 8);
    frame = world_gfn(&w, 0, 7).frame;
    ck_assert_int_eq(pgshare_frame_mappings(w.host, frame, visit, &v), 0);
    ck_assert_uint_eq(v.n, 2);
    ck_assert_uint_eq(v.gfns, 14);
    v.answer = 42;
    ck_assert_int_eq(pgshare_frame_mappings(w.host, frame, visit, &v), 42);
    ck_assert_uint_eq(v.n, 3);
    ck_assert_int_eq(pgshare_frame_mappings(w.host, frame, NULL, &v),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_frame_mappings(w.host, 0, visit, &v),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_frame_mappings(w.host, UINT64_MAX, visit, &v),
                     PGSHARE_ERR_RANGE);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgshare_frame_mappings(w.host, frame, visit, &v),
                     PGSHARE_ERR_NOMEM);
    pgs_tracker_fail_never(pgs_test_tracker());
    world_close(&w);
}
END_TEST

/* Pages declared free become mappings of the zero frame. */
START_TEST(test_the_zero_frame_is_seen_by_all)
{
    struct world w;
    struct visits v = { .w = &w };
    struct pgshare_frame_info frame = { .size = sizeof(frame) };
    struct pgshare_gfn_info info;
    struct pgshare_account account;

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_frame_mappings(w.host, 1, visit, &v), 0);
    ck_assert_uint_eq(v.n, 0);
    ck_assert_int_eq(pgshare_declare_free(w.host, w.dom[0], 100, 3), 0);
    world_settle(&w);
    info = world_gfn(&w, 0, 101);
    ck_assert_uint_eq(info.state, PGSHARE_GFN_SHARED);
    ck_assert_uint_eq(info.frame, 1);
    ck_assert_uint_eq(info.sharers, 3);
    ck_assert_uint_eq(info.ticket, 1);
    ck_assert_uint_eq(world_stats(&w).zero_mappings, 3);
    ck_assert_int_eq(pgshare_cow_next(w.host, 0, &frame), 0);
    ck_assert_uint_eq(frame.mappings, 3);
    ck_assert_int_eq(pgshare_frame_mappings(w.host, 1, visit, &v), 0);
    ck_assert_uint_eq(v.n, 3);
    ck_assert_uint_eq(v.gfns, 303);
    account = world_account(&w, 0);
    /* the host's mapping is the fourth */
    ck_assert_uint_eq(account.entitlement,
                      3 * (PGSHARE_ENTITLEMENT_ONE / 4 * 3));
    ck_assert_uint_eq(account.pss, 3 * (PGSHARE_ENTITLEMENT_ONE / 4));
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("stats");
    TCase *stats = pgs_tcase(suite, "stats");
    TCase *gfn = pgs_tcase(suite, "gfn");
    TCase *cow = pgs_tcase(suite, "cow");

    tcase_add_test(stats, test_levels_add_up);
    tcase_add_test(stats, test_faults_are_counted_by_outcome_and_payer);
    tcase_add_test(stats, test_a_domain_is_walked);
    tcase_add_test(stats, test_statistics_check_their_output);
    tcase_add_test(stats, test_names);
    tcase_add_test(gfn, test_a_gfn_tells_what_it_is);
    tcase_add_test(gfn, test_gfn_info_checks_its_arguments);
    tcase_add_test(cow, test_the_cow_domain_lists_its_frames);
    tcase_add_test(cow, test_a_frame_knows_its_mappings);
    tcase_add_test(cow, test_the_zero_frame_is_seen_by_all);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("stats", make, argc, argv);
}
