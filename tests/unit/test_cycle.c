/* SPDX-License-Identifier: BSD-2-Clause */
/* Declarations: the allocation cycle, overwrite, secrets, read-only memory. */
#include "mechanism/cycle.h"
#include "unit/world.h"

#define D(what, gfn, count) \
    pgshare_declare_##what(w.host, w.dom[0], (gfn), (count))

static uint32_t flags(struct world *w, uint64_t gfn)
{
    return world_gfn(w, 0, gfn).flags;
}

static int never_share(struct world *w, uint64_t gfn, uint64_t count, int on,
                       struct pgshare_never_share *ret_left)
{
    return pgshare_declare_never_share(w->host, w->dom[0], gfn, count, on,
                                       ret_left);
}

static int read_only(struct world *w, uint64_t gfn, uint64_t count, int on)
{
    return pgshare_declare_read_only(w->host, w->dom[0], gfn, count, on);
}

static struct pgshare_fault fault(struct world *w, uint64_t gfn, uint32_t how)
{
    struct pgshare_fault ret = { .size = sizeof(ret) };

    ck_assert_int_eq(pgshare_fault_write(w->host, w->dom[0], gfn, how, NULL,
                                         &ret),
                     0);
    return ret;
}

/* ---- the cycle --------------------------------------------------------- */

START_TEST(test_pages_go_through_the_cycle)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(D(scrub, 10, 1), PGSHARE_ERR_STATE);
    ck_assert_int_eq(D(free, 10, 2), 0);
    ck_assert_uint_eq(flags(&w, 10), PGSHARE_GFN_FREE);
    ck_assert_int_eq(D(scrub, 10, 1), 0);
    ck_assert_uint_eq(flags(&w, 10), PGSHARE_GFN_FREE | PGSHARE_GFN_SCRUB);
    ck_assert_int_eq(D(free, 10, 1), 0);
    ck_assert_uint_eq(flags(&w, 10), PGSHARE_GFN_FREE);
    ck_assert_int_eq(D(scrub, 10, 2), 0);
    ck_assert_int_eq(D(allocated, 10, 2), 0);
    ck_assert_uint_eq(flags(&w, 10), 0);
    ck_assert_uint_eq(flags(&w, 11), 0);
    ck_assert_int_eq(D(allocated, 10, 1), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_the_cycle_refuses_what_is_no_memory)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(D(free, WORLD_PAGES, 1), PGSHARE_ERR_HOLE);
    ck_assert_int_eq(D(free, WORLD_PAGES - 1, 2), PGSHARE_ERR_HOLE);
    ck_assert_uint_eq(flags(&w, WORLD_PAGES - 1), PGSHARE_GFN_FREE);
    ck_assert_int_eq(D(allocated, WORLD_PAGES, 1), PGSHARE_ERR_HOLE);
    ck_assert_int_eq(D(overwrite, WORLD_PAGES, 1), PGSHARE_ERR_HOLE);
    ck_assert_int_eq(D(free, WORLD_GFNS, 1), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(D(free, 0, 0), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(D(scrub, 1, UINT64_MAX), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_declare_free(w.host, 1234567, 0, 1),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_declare_free(NULL, w.dom[0], 0, 1),
                     PGSHARE_ERR_INVALID);
    world_close(&w);
}
END_TEST

START_TEST(test_a_free_page_is_not_copied)
{
    struct world w;

    world_open(&w, NULL);
    world_share(&w, 0, 4);
    ck_assert_int_eq(D(free, 0, 3), 0);
    ck_assert_int_eq(D(scrub, 1, 1), 0);
    ck_assert_int_eq(D(allocated, 2, 1), 0);
    ck_assert_uint_eq(fault(&w, 0, 0).outcome, PGSHARE_FAULT_FREE);
    ck_assert_uint_eq(fault(&w, 1, 0).outcome, PGSHARE_FAULT_FREE);
    ck_assert_uint_eq(fault(&w, 2, 0).outcome, PGSHARE_FAULT_COPIED);
    ck_assert(world_holds(&w, 0, 0, 0));
    ck_assert(world_holds(&w, 1, 0, 1000));
    ck_assert(world_holds(&w, 0, 2, 1002));
    world_close(&w);
}
END_TEST

/* "allocated" waits for a page that is in flight, for a limited time. */
START_TEST(test_allocated_waits_for_a_page_in_flight)
{
    struct world_options options = { .timeout_ns = 3000000 };
    struct world w;
    struct pgs_domain *domain;
    _Atomic uint64_t *word;
    uint64_t seen;

    world_open(&w, &options);
    domain = pgs_domain_of(w.host, w.dom[0]);
    word = pgs_word_of(domain, 11);
    ck_assert_int_eq(D(free, 10, 3), 0);
    ck_assert(pgs_word_trylock(word, false, &seen));
    ck_assert_int_eq(D(allocated, 10, 3), PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_eq(flags(&w, 10), 0);
    ck_assert_uint_eq(flags(&w, 12), PGSHARE_GFN_FREE);
    ck_assert(pgs_word_unlock(word));
    ck_assert_int_eq(D(allocated, 10, 3), 0);
    /* a page that is not free is waited for by nobody */
    ck_assert(pgs_word_trylock(word, false, &seen));
    ck_assert_int_eq(D(allocated, 11, 1), 0);
    pgs_word_unlock(word);
    world_close(&w);
}
END_TEST

static void end_free_in_flight(void *ctx)
{
    _Atomic uint64_t *word = ctx;

    if (atomic_load(word) & PGS_BUSY)
        atomic_fetch_and(word, ~PGS_ATTR_FREE);
}

/* Free, protected, still free? "Allocated" waits for a page in flight; the
 * second look does not rely on that. */
START_TEST(test_free_is_asked_again_before_a_page_is_given_up)
{
    struct world w;
    _Atomic uint64_t *word;

    world_open(&w, NULL);
    word = pgs_word_of(pgs_domain_of(w.host, w.dom[0]), 11);
    ck_assert_int_eq(pgshare_mock_schedule(w.machine, end_free_in_flight, word,
                                           1000000),
                     0);
    ck_assert_int_eq(D(free, 10, 3), 0);
    world_settle(&w);
    ck_assert_int_eq(pgshare_mock_schedule(w.machine, end_free_in_flight, word,
                                           0),
                     0);
    ck_assert_uint_eq(world_gfn(&w, 0, 10).state, PGSHARE_GFN_SHARED);
    ck_assert_uint_eq(world_gfn(&w, 0, 11).state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(world_gfn(&w, 0, 12).state, PGSHARE_GFN_SHARED);
    ck_assert(world_holds(&w, 0, 11, 1011));
    world_close(&w);
}
END_TEST

START_TEST(test_overwrite_speaks_of_the_next_write)
{
    struct world w;

    world_open(&w, NULL);
    world_share(&w, 0, 2);
    ck_assert_int_eq(D(overwrite, 0, 3), 0);
    ck_assert_uint_eq(flags(&w, 0), PGSHARE_GFN_OVERWRITE);
    ck_assert_uint_eq(flags(&w, 2), 0); /* private: its write is not seen */
    ck_assert_uint_eq(fault(&w, 0, 0).outcome, PGSHARE_FAULT_OVERWRITE);
    ck_assert_uint_eq(flags(&w, 0), 0);
    ck_assert_uint_eq(fault(&w, 1, PGSHARE_FAULT_WHOLE_PAGE).outcome,
                      PGSHARE_FAULT_OVERWRITE);
    ck_assert_uint_eq(flags(&w, 1), 0);
    world_close(&w);
}
END_TEST

/* ---- secrets ----------------------------------------------------------- */

START_TEST(test_a_secret_is_not_shared)
{
    struct world w;
    struct pgshare_never_share left = { .size = sizeof(left) };
    uint64_t ticket;

    world_open(&w, NULL);
    ck_assert_int_eq(never_share(&w, 5, 2, 1, &left), 0);
    ck_assert_uint_eq(left.shared + left.marked + left.in_flight, 0);
    ck_assert_uint_eq(flags(&w, 5), PGSHARE_GFN_NEVER_SHARE);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 5, 1, &ticket, NULL),
                     PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(never_share(&w, 5, 1, 0, NULL), 0);
    ck_assert_uint_eq(flags(&w, 5), 0);
    ck_assert_uint_eq(flags(&w, 6), PGSHARE_GFN_NEVER_SHARE);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 5, 1, &ticket, NULL), 0);
    world_close(&w);
}
END_TEST

static void keep_secret_in_flight(void *ctx)
{
    struct world *w = ctx;
    _Atomic uint64_t *word = pgs_word_of(pgs_domain_of(w->host, w->dom[0]), 5);

    if (atomic_load(word) & PGS_BUSY)
        ck_assert_int_eq(never_share(w, 5, 1, 1, NULL), 0);
}

START_TEST(test_what_became_a_secret_during_a_share_is_not_even_mapped)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_gfn = 5,
        .client_gfn = 5,
        .count = 1,
    };
    struct world w;

    world_open(&w, NULL);
    request.source_dom = w.dom[1];
    request.client_dom = w.dom[0];
    ck_assert_int_eq(pgshare_mock_schedule(w.machine, keep_secret_in_flight, &w,
                                           1000000),
                     0);
    ck_assert_int_eq(pgshare_share(w.host, &request, NULL),
                     PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(pgshare_mock_schedule(w.machine, keep_secret_in_flight, &w,
                                           0),
                     0);
    ck_assert_uint_eq(world_stats(&w).rolled_back, 1);
    ck_assert_uint_eq(world_stats(&w).saved, 0);
    world_settle(&w);
    ck_assert_uint_eq(world_gfn(&w, 0, 5).state, PGSHARE_GFN_PRIVATE);
    world_close(&w);
}
END_TEST

START_TEST(test_what_is_shared_of_a_secret_is_undone)
{
    struct world w;
    struct pgshare_never_share left = { .size = sizeof(left) };
    uint64_t ticket, seen;
    _Atomic uint64_t *word;

    world_open(&w, NULL);
    world_share(&w, 0, 10);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 10, 1, &ticket, NULL),
                     0);
    word = pgs_word_of(pgs_domain_of(w.host, w.dom[0]), 11);
    ck_assert(pgs_word_trylock(word, false, &seen));
    ck_assert_int_eq(never_share(&w, 0, WORLD_GFNS, 1, &left), 0);
    ck_assert_uint_eq(left.shared, 10);
    ck_assert_uint_eq(left.marked, 1);
    ck_assert_uint_eq(left.in_flight, 1);
    pgs_word_unlock(word);
    world_settle(&w);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 1);
    for (uint64_t gfn = 0; gfn < 12; gfn++) {
        ck_assert_uint_eq(world_gfn(&w, 0, gfn).state, PGSHARE_GFN_PRIVATE);
        ck_assert(world_holds(&w, 0, gfn, 1000 + gfn));
    }
    world_close(&w);
}
END_TEST

START_TEST(test_a_secret_may_be_told_before_its_memory_comes)
{
    const uint64_t gfns = 4 * PGS_CHUNK_GFNS, at = 2 * PGS_CHUNK_GFNS;
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    struct pgshare_never_share left;
    struct pgshare_mock_domain *mock;
    uint64_t dom, ticket, done;
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_mock_domain_new(w.machine, gfns, NULL, &mock), 0);
    ck_assert_int_eq(pgshare_mock_join(mock, w.host, w.group), 0);
    dom = pgshare_mock_handle(mock);
    /* by a guest's ring: it is told where it ended */
    ck_assert_int_eq(pgs_cycle_never_share(pgs_domain_of(w.host, dom), at, 8,
                                           true, &left, &done),
                     PGSHARE_ERR_HOLE);
    ck_assert_uint_eq(done, 0);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgshare_declare_never_share(w.host, dom, at - 4, 8, 1,
                                                 NULL),
                     PGSHARE_ERR_NOMEM);
    pgs_tracker_fail_never(pgs_test_tracker());
    ck_assert_int_eq(pgshare_declare_never_share(w.host, dom, at - 4, 8, 1,
                                                 NULL),
                     0);
    ck_assert_int_eq(pgshare_mock_populate(mock, at - 8, 16), 0);
    ck_assert_int_eq(pgshare_gfn_info(w.host, dom, at + 3, &info), 0);
    ck_assert_uint_eq(info.state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(info.flags, PGSHARE_GFN_NEVER_SHARE);
    for (uint64_t gfn = at - 4; gfn < at + 4; gfn++)
        ck_assert_int_eq(pgshare_mark_ro(w.host, dom, gfn, 1, &ticket, NULL),
                         PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(pgshare_mark_ro(w.host, dom, at + 4, 1, &ticket, NULL), 0);
    /* what is no secret needs no table to be none */
    ck_assert_int_eq(pgshare_declare_never_share(w.host, dom, 0, gfns, 0, NULL),
                     0);
    ck_assert_int_eq(pgshare_mark_ro(w.host, dom, at, 1, &ticket, NULL), 0);
    ck_assert_int_eq(pgshare_mock_leave(mock), 0);
    pgshare_mock_domain_free(mock);
    world_close(&w);
}
END_TEST

START_TEST(test_never_share_checks_its_output)
{
    struct world w;
    struct pgshare_never_share left = { .size = 4 };

    world_open(&w, NULL);
    ck_assert_int_eq(never_share(&w, 0, 1, 1, &left), PGSHARE_ERR_ABI);
    ck_assert_uint_eq(flags(&w, 0), 0);
    world_close(&w);
}
END_TEST

/* ---- read-only memory -------------------------------------------------- */

START_TEST(test_writes_to_read_only_memory_are_reported)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(read_only(&w, 0, 40, 1), 0);
    ck_assert_uint_eq(flags(&w, 39), PGSHARE_GFN_READ_ONLY);
    ck_assert_uint_eq(flags(&w, 40), 0);
    ck_assert_int_eq(world_write(&w, 0, 7, 1), PGSHARE_ERR_READONLY);
    ck_assert(world_holds(&w, 0, 7, 1007));
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_READONLY_WRITE), 1);
    ck_assert_int_eq(D(free, 7, 1), PGSHARE_ERR_READONLY);
    ck_assert_int_eq(D(scrub, 7, 1), PGSHARE_ERR_READONLY);
    ck_assert_int_eq(D(allocated, 7, 1), PGSHARE_ERR_READONLY);
    ck_assert_int_eq(D(overwrite, 7, 1), PGSHARE_ERR_READONLY);
    ck_assert_int_eq(read_only(&w, 0, 40, 0), 0);
    ck_assert_int_eq(world_write(&w, 0, 7, 1), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_read_only_memory_is_shared_and_never_copied)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(read_only(&w, 0, 4, 1), 0);
    world_share(&w, 0, 4);
    ck_assert_uint_eq(fault(&w, 1, 0).outcome, PGSHARE_FAULT_READ_ONLY);
    ck_assert_uint_eq(world_gfn(&w, 0, 1).state, PGSHARE_GFN_SHARED);
    ck_assert_int_eq(world_write(&w, 1, 1, 3), 0);
    ck_assert(world_holds(&w, 0, 1, 1001));
    world_close(&w);
}
END_TEST

START_TEST(test_read_only_refuses_what_is_in_use)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(D(free, 5, 1), 0);
    ck_assert_int_eq(read_only(&w, 4, 2, 1), PGSHARE_ERR_STATE);
    ck_assert_uint_eq(flags(&w, 4), 0);
    ck_assert_int_eq(read_only(&w, WORLD_PAGES, 1, 1), PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_declare_volatile(w.host, w.dom[0], 6, 1, NULL), 0);
    ck_assert_int_eq(read_only(&w, 6, 1, 1), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[0], 7, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    ck_assert_int_eq(read_only(&w, 7, 1, 1), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[0], 7, 1, PGSHARE_GET_WRITE),
                     0);
    ck_assert_int_eq(read_only(&w, WORLD_GFNS - 1, 2, 1), PGSHARE_ERR_RANGE);
    world_close(&w);
}
END_TEST

START_TEST(test_read_only_needs_the_backend)
{
    struct world_options options = { .faulty = true, .timeout_ns = 1000000 };
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_FAIL,
    };
    struct world w;

    world_open(&w, &options);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(read_only(&w, 0, 4, 1), PGSHARE_ERR_BACKEND);
    ck_assert_uint_eq(flags(&w, 0), 0);
    plan.mode = PGSHARE_INJECT_LATE;
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(read_only(&w, 0, 4, 1), PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_eq(pgshare_fault_backend_release(w.faults), 1);
    world_settle(&w);
    ck_assert_uint_eq(flags(&w, 0), PGSHARE_GFN_READ_ONLY);
    ck_assert_uint_eq(w.n_outcomes, 0);
    w.host->info.ops &= ~(UINT64_C(1) << PGSHARE_OP_READ_ONLY);
    ck_assert_int_eq(read_only(&w, 0, 4, 0), PGSHARE_ERR_NOTSUP);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("cycle");
    TCase *cycle = pgs_tcase(suite, "cycle");
    TCase *secrets = pgs_tcase(suite, "secrets");
    TCase *readonly = pgs_tcase(suite, "read-only");

    tcase_add_test(cycle, test_pages_go_through_the_cycle);
    tcase_add_test(cycle, test_the_cycle_refuses_what_is_no_memory);
    tcase_add_test(cycle, test_a_free_page_is_not_copied);
    tcase_add_test(cycle, test_allocated_waits_for_a_page_in_flight);
    tcase_add_test(cycle, test_free_is_asked_again_before_a_page_is_given_up);
    tcase_add_test(cycle, test_overwrite_speaks_of_the_next_write);
    tcase_add_test(secrets, test_a_secret_is_not_shared);
    tcase_add_test(secrets,
                   test_what_became_a_secret_during_a_share_is_not_even_mapped);
    tcase_add_test(secrets, test_what_is_shared_of_a_secret_is_undone);
    tcase_add_test(secrets,
                   test_a_secret_may_be_told_before_its_memory_comes);
    tcase_add_test(secrets, test_never_share_checks_its_output);
    tcase_add_test(readonly, test_writes_to_read_only_memory_are_reported);
    tcase_add_test(readonly, test_read_only_memory_is_shared_and_never_copied);
    tcase_add_test(readonly, test_read_only_refuses_what_is_in_use);
    tcase_add_test(readonly, test_read_only_needs_the_backend);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("cycle", make, argc, argv);
}
