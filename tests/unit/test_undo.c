/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way back in large and in busy domains: what one call or one turn looks
 * at, and suspensions that have to wait.
 */
#include "mechanism/domain.h"
#include "unit/world.h"

#include <unistd.h>

/* ---- a large guest ----------------------------------------------------- */

#define LARGE (UINT64_C(1) << 28) /* GFNs; 1 TiB */
#define END_PAGES 8u              /* with memory, at both ends */

static struct pgshare_mock_domain *add_large(struct world *w, uint64_t *ret_dom)
{
    struct pgshare_mock_domain *guest;

    ck_assert_int_eq(pgshare_mock_domain_new(w->machine, LARGE, NULL, &guest),
                     0);
    ck_assert_int_eq(pgshare_mock_populate(guest, 0, END_PAGES), 0);
    ck_assert_int_eq(pgshare_mock_populate(guest, LARGE - END_PAGES, END_PAGES),
                     0);
    ck_assert_int_eq(pgshare_mock_join(guest, w->host, w->group), 0);
    *ret_dom = pgshare_mock_handle(guest);
    return guest;
}

/* Pages of the large guest become mappings of the first guest's. */
static void share_with(struct world *w, struct pgshare_mock_domain *guest,
                       uint64_t dom, uint64_t gfn)
{
    for (uint64_t i = 0; i < END_PAGES; i++) {
        struct pgshare_share_request request = {
            .size = sizeof(request),
            .flags = PGSHARE_SHARE_MARK,
            .source_dom = w->dom[0],
            .source_gfn = gfn % WORLD_GFNS % WORLD_PAGES + i,
            .client_dom = dom,
            .client_gfn = gfn + i,
            .count = 1,
        };
        unsigned char page[PGSHARE_PAGE_SIZE];

        world_page(1000 + request.source_gfn, page);
        ck_assert_int_eq(pgshare_mock_write_page(guest, gfn + i, page), 0);
        ck_assert_int_eq(pgshare_share(w->host, &request, NULL), 0);
    }
}

static struct pgshare_mock_domain *open_large(struct world *w,
                                              uint64_t *ret_dom)
{
    struct pgshare_mock_domain *guest;

    world_open(w, NULL);
    guest = add_large(w, ret_dom);
    share_with(w, guest, *ret_dom, 0);
    share_with(w, guest, *ret_dom, LARGE - END_PAGES);
    world_settle(w);
    return guest;
}

static uint64_t shared_of(struct world *w, uint64_t dom)
{
    struct pgshare_account account = { .size = sizeof(account) };

    ck_assert_int_eq(pgshare_account(w->host, dom, &account), 0);
    return account.shared;
}

/* ---- unshare ----------------------------------------------------------- */

START_TEST(test_unshare_steps_over_gfns_that_never_had_memory)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct world w;
    uint64_t dom;

    open_large(&w, &dom);
    ck_assert_int_eq(pgshare_domain_unshare(w.host, dom, 0, LARGE, 4,
                                            &progress),
                     0);
    ck_assert_uint_eq(progress.next, 4);
    ck_assert_uint_eq(progress.private_, 4);
    ck_assert_uint_eq(shared_of(&w, dom), 2 * END_PAGES - 4);
    ck_assert_int_eq(pgshare_domain_unshare(w.host, dom, PGS_CHUNK_GFNS - 1,
                                            LARGE - PGS_CHUNK_GFNS, 3,
                                            &progress),
                     0);
    ck_assert_uint_eq(progress.next, 3 * PGS_CHUNK_GFNS);
    ck_assert_int_eq(pgshare_domain_unshare(w.host, dom, PGS_CHUNK_GFNS + 5, 10,
                                            3, &progress),
                     0);
    ck_assert_uint_eq(progress.next, PGS_CHUNK_GFNS + 15);
    ck_assert_int_eq(pgshare_domain_unshare(w.host, dom, 4, LARGE - 4, 0,
                                            &progress),
                     0);
    ck_assert_uint_eq(progress.next, LARGE);
    ck_assert_uint_eq(shared_of(&w, dom), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_unshare_with_a_budget_asks_for_the_frames_of_its_part)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    /* all of the machine is used by the two guests and a third */
    struct world_options options = { .frames = 2 * WORLD_PAGES + 200,
                                     .reserve_keep = 1 };
    struct pgshare_mock_info info = { .size = sizeof(info) };
    struct pgshare_mock_domain *third;
    struct world w;
    uint64_t frames;

    world_open(&w, &options);
    for (uint64_t gfn = 0; gfn < 100; gfn++)
        world_share(&w, gfn, 1);
    world_settle(&w);
    ck_assert_int_eq(pgshare_mock_info(w.machine, &info), 0);
    ck_assert_int_eq(pgshare_mock_domain_new(w.machine, WORLD_GFNS, NULL,
                                             &third),
                     0);
    ck_assert_int_eq(pgshare_mock_populate(third, 0, info.free), 0);
    frames = world_stats(&w).reserve;
    ck_assert_uint_lt(frames, 90);
    ck_assert_int_eq(pgshare_domain_unshare(w.host, w.dom[1], 0, WORLD_GFNS, 0,
                                            &progress),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(progress.missing, 100 - frames);
    ck_assert_int_eq(pgshare_domain_unshare(w.host, w.dom[1], 0, WORLD_GFNS, 95,
                                            &progress),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(progress.missing, 95 - frames);
    ck_assert_uint_eq(progress.next, 0);
    ck_assert_uint_eq(progress.private_, 0);
    if (frames) {
        ck_assert_int_eq(pgshare_domain_unshare(w.host, w.dom[1], 0, WORLD_GFNS,
                                                frames, &progress),
                         0);
        ck_assert_uint_eq(progress.next, frames);
    }
    world_close(&w);
}
END_TEST

/* ---- secrets ----------------------------------------------------------- */

static void keep_secret(struct world *w, uint64_t dom, uint64_t gfn)
{
    ck_assert_int_eq(pgshare_declare_never_share(w->host, dom, gfn, 1, 1, NULL),
                     0);
}

START_TEST(test_two_secrets_far_apart_are_undone_in_a_few_turns)
{
    struct pgs_domain *domain;
    struct world w;
    unsigned turns = 0;
    uint64_t dom;

    open_large(&w, &dom);
    domain = pgs_domain_of(w.host, dom);
    keep_secret(&w, dom, 0);
    keep_secret(&w, dom, LARGE - 1);
    ck_assert(pgs_domain_undo(domain, 64)); /* the first chunk, to its end */
    ck_assert_uint_eq(domain->undo_next, PGS_CHUNK_GFNS);
    ck_assert(pgs_domain_undo(domain, 64)); /* all that are missing, and more */
    ck_assert_uint_gt(domain->undo_next, LARGE - PGS_CHUNK_GFNS);
    ck_assert_uint_eq(shared_of(&w, dom), 2 * END_PAGES);
    do {
        pgs_calls_run(w.host, NULL);
        turns++;
    } while (pgs_domain_undo(domain, 64));
    ck_assert_uint_le(turns, 5);
    ck_assert_uint_eq(shared_of(&w, dom), 2 * END_PAGES - 2);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 1);
    ck_assert_uint_eq(w.report[0].gfn, 0);
    ck_assert_uint_eq(w.report[0].count, LARGE);
    world_settle(&w);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 1);
    world_close(&w);
}
END_TEST

START_TEST(test_a_secret_behind_a_walk_is_undone_by_the_next)
{
    struct pgs_domain *domain;
    struct world w;
    uint64_t dom;

    open_large(&w, &dom);
    domain = pgs_domain_of(w.host, dom);
    keep_secret(&w, dom, 1);
    keep_secret(&w, dom, LARGE - 1);
    ck_assert(pgs_domain_undo(domain, 64));
    ck_assert_uint_gt(domain->undo_next, 2);
    keep_secret(&w, dom, 2);
    ck_assert_uint_ne(pgs_domain_undo_due(domain), PGSHARE_FOREVER);
    world_settle(&w);
    ck_assert_uint_eq(shared_of(&w, dom), 2 * END_PAGES - 3);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 1);
    ck_assert_uint_eq(pgs_domain_undo_due(domain), PGSHARE_FOREVER);
    world_close(&w);
}
END_TEST

static void end_walk(struct world *w, struct pgs_domain *domain)
{
    do {
        pgs_domain_undo(domain, 64);
        pgs_calls_run(w->host, NULL);
    } while (domain->undo_next < domain->undo_end);
}

START_TEST(test_a_secret_behind_a_walk_is_not_told_to_be_done_with_it)
{
    struct pgs_domain *domain;
    struct world w;
    uint64_t dom;

    open_large(&w, &dom);
    domain = pgs_domain_of(w.host, dom);
    keep_secret(&w, dom, 1);
    keep_secret(&w, dom, LARGE - 1);
    end_walk(&w, domain);
    pgs_domain_undo(domain, 64); /* the second one, which finds nothing */
    ck_assert_uint_gt(domain->undo_next, 2);
    keep_secret(&w, dom, 2);
    end_walk(&w, domain);
    ck_assert_uint_eq(shared_of(&w, dom), 2 * END_PAGES - 2);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 0);
    world_settle(&w);
    ck_assert_uint_eq(shared_of(&w, dom), 2 * END_PAGES - 3);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 1);
    world_close(&w);
}
END_TEST

/* Ten pages that are shared, and secrets now. */
static struct pgs_domain *open_secrets(struct world *w)
{
    world_open(w, NULL);
    world_share(w, 0, 10);
    ck_assert_int_eq(pgshare_declare_never_share(w->host, w->dom[0], 0, 10, 1,
                                                 NULL),
                     0);
    return pgs_domain_of(w->host, w->dom[0]);
}

START_TEST(test_a_turn_without_budget_goes_on_where_it_stopped)
{
    struct world w;
    struct pgs_domain *domain = open_secrets(&w);

    ck_assert(pgs_domain_undo(domain, 4));
    ck_assert_uint_eq(domain->undo_next, 4);
    pgs_calls_run(w.host, NULL);
    ck_assert_uint_eq(world_account(&w, 0).shared, 6);
    ck_assert(pgs_domain_undo(domain, 4));
    ck_assert_uint_eq(domain->undo_next, 8);
    world_settle(&w);
    ck_assert_uint_eq(world_account(&w, 0).shared, 0);
    ck_assert_uint_eq(world_reports(&w, PGSHARE_REPORT_NEVER_SHARE_DONE), 1);
    world_close(&w);
}
END_TEST

START_TEST(test_a_peer_that_has_gone_keeps_no_runner_busy)
{
    struct world w;
    struct pgs_domain *domain = open_secrets(&w);

    ck_assert_uint_ne(pgs_domain_undo_due(domain), PGSHARE_FOREVER);
    atomic_fetch_or(&domain->flags, PGS_DOMAIN_GONE);
    ck_assert_uint_eq(pgs_domain_undo_due(domain), PGSHARE_FOREVER);
    atomic_fetch_and(&domain->flags, ~(uint32_t)PGS_DOMAIN_GONE);
    world_settle(&w);
    world_close(&w);
}
END_TEST

/* ---- suspension -------------------------------------------------------- */

/* Somebody who has a page, and lets it go when the domain is being suspended.
 */
struct holder {
    struct world *w;
    _Atomic uint64_t *word;
    int mark; /* what a new mark answered meanwhile */
};

static void hold(struct holder *holder, struct world *w, uint64_t gfn)
{
    uint64_t seen;

    holder->w = w;
    holder->word = pgs_word_of(pgs_domain_of(w->host, w->dom[0]), gfn);
    ck_assert(pgs_word_trylock(holder->word, false, &seen));
}

static void *let_go(void *ctx)
{
    struct holder *holder = ctx;
    struct world *w = holder->w;
    struct pgs_domain *domain = pgs_domain_of(w->host, w->dom[0]);
    uint64_t ticket;

    while (!(pgs_domain_flags(domain) & PGS_DOMAIN_SUSPENDED))
        usleep(100);
    holder->mark = pgshare_mark_ro(w->host, w->dom[0], 20, 1, &ticket, NULL);
    usleep(10000);
    pgs_word_unlock(holder->word);
    return NULL;
}

static int suspend(struct world *w)
{
    return pgshare_domain_suspend(w->host, w->dom[0]);
}

static int resume(struct world *w)
{
    return pgshare_domain_resume(w->host, w->dom[0]);
}

static bool is_suspended(struct world *w)
{
    struct pgshare_domain_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_domain_info(w->host, w->dom[0], &info), 0);
    return info.suspended;
}

START_TEST(test_suspend_waits_for_a_page_in_flight_and_lets_none_begin)
{
    struct holder holder;
    struct world w;
    pthread_t thread;

    world_open(&w, NULL);
    hold(&holder, &w, 9);
    ck_assert_int_eq(pthread_create(&thread, NULL, let_go, &holder), 0);
    ck_assert_int_eq(suspend(&w), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(holder.mark, PGSHARE_ERR_SUSPENDED);
    ck_assert(is_suspended(&w));
    ck_assert_int_eq(resume(&w), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_suspend_gives_up_in_time_and_leaves_nothing_behind)
{
    struct world_options options = { .timeout_ns = 50000 };
    struct holder holder;
    struct world w;

    world_open(&w, &options);
    hold(&holder, &w, 9);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(suspend(&w), PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_eq(pgs_calls_busy(w.host), 0);
    ck_assert(!is_suspended(&w));
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_STATE);
    world_share(&w, 20, 1);
    pgs_word_unlock(holder.word);
    ck_assert_int_eq(suspend(&w), 0);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_STATE);
    world_close(&w);
}
END_TEST

/* The next suspend or resume is done, and answered late. */
static void answer_late(struct world *w, uint32_t mode)
{
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = mode,
        .kinds = UINT64_C(1) << PGSHARE_OP_SUSPEND,
    };

    ck_assert_int_eq(pgshare_fault_backend_plan(w->faults, &plan), 0);
}

static void answer_now(struct world *w)
{
    ck_assert_uint_eq(pgshare_fault_backend_release(w->faults), 1);
    world_settle(w);
    ck_assert_uint_eq(w->n_outcomes, 0);
}

START_TEST(test_a_suspension_that_is_answered_late_counts_all_the_same)
{
    struct world_options options = { .faulty = true, .timeout_ns = 50000 };
    struct world w;

    world_open(&w, &options);
    answer_late(&w, PGSHARE_INJECT_LATE);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_INPROGRESS);
    ck_assert(is_suspended(&w)); /* since the backend may be */
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_INPROGRESS);
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_INPROGRESS);
    answer_now(&w);
    ck_assert_int_eq(suspend(&w), 0);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_STATE);
    answer_late(&w, PGSHARE_INJECT_LATE);
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_INPROGRESS);
    ck_assert(is_suspended(&w));
    answer_now(&w);
    ck_assert(!is_suspended(&w));
    ck_assert_int_eq(resume(&w), 0);
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_STATE);
    /* and whoever changes their mind is right, too */
    answer_late(&w, PGSHARE_INJECT_LATE);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_INPROGRESS);
    answer_now(&w);
    ck_assert_int_eq(resume(&w), 0);
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_STATE);
    world_share(&w, 20, 1);
    world_close(&w);
}
END_TEST

START_TEST(test_a_suspension_that_fails_leaves_the_domain_as_it_was)
{
    struct world_options options = { .faulty = true };
    struct world w;

    world_open(&w, &options);
    answer_late(&w, PGSHARE_INJECT_FAIL);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_BACKEND);
    ck_assert(!is_suspended(&w));
    ck_assert_int_eq(suspend(&w), 0);
    answer_late(&w, PGSHARE_INJECT_FAIL);
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_BACKEND);
    ck_assert(is_suspended(&w));
    ck_assert_int_eq(resume(&w), 0);
    world_close(&w);
}
END_TEST

/* The runner does, on the backend's answer. */
static void give_up_waiting(struct world *w)
{
    for (unsigned i = 0; i < 4; i++) {
        pgshare_mock_clock_advance(w->machine, w->host->options.op_timeout_ns);
        world_settle(w);
    }
}

START_TEST(test_a_suspension_that_nobody_answers_is_asked_for_again)
{
    struct world_options options = { .faulty = true, .timeout_ns = 50000 };
    struct world w;

    world_open(&w, &options);
    answer_late(&w, PGSHARE_INJECT_LOSE);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_INPROGRESS);
    give_up_waiting(&w);
    ck_assert_uint_eq(world_stats(&w).backend_lost, 1);
    ck_assert(is_suspended(&w));
    /* that another attempt fails says nothing of the first */
    answer_late(&w, PGSHARE_INJECT_FAIL);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_BACKEND);
    ck_assert(is_suspended(&w));
    ck_assert_int_eq(suspend(&w), 0);
    ck_assert_int_eq(suspend(&w), PGSHARE_ERR_STATE);
    answer_late(&w, PGSHARE_INJECT_LOSE);
    ck_assert_int_eq(resume(&w), PGSHARE_ERR_INPROGRESS);
    give_up_waiting(&w);
    ck_assert(is_suspended(&w));
    ck_assert_int_eq(resume(&w), 0);
    ck_assert(!is_suspended(&w));
    world_share(&w, 20, 1);
    world_close(&w);
}
END_TEST

START_TEST(test_a_suspended_domain_is_not_joined_to_another_frame)
{
    struct pgshare_share_request request = { .size = sizeof(request),
                                             .flags = PGSHARE_SHARE_MARK };
    unsigned char page[PGSHARE_PAGE_SIZE];
    struct world w;
    uint64_t frame;

    world_open(&w, NULL);
    world_share(&w, 1, 1);
    frame = world_gfn(&w, 0, 1).frame;
    world_page(1001, page);
    ck_assert_int_eq(pgshare_mock_write_page(w.guest[1], 3, page), 0);
    ck_assert_int_eq(suspend(&w), 0);
    /* what both map is joined to another frame */
    request.source_dom = request.client_dom = w.dom[1];
    request.source_gfn = 3;
    request.client_gfn = 1;
    request.count = 1;
    ck_assert_int_eq(pgshare_share(w.host, &request, NULL), 0);
    world_settle(&w);
    ck_assert_uint_eq(world_gfn(&w, 1, 1).frame, world_gfn(&w, 1, 3).frame);
    ck_assert_uint_eq(world_gfn(&w, 0, 1).frame, frame);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("undo");
    TCase *unshare = pgs_tcase(suite, "unshare");
    TCase *secrets = pgs_tcase(suite, "secrets");
    TCase *suspension = pgs_tcase(suite, "suspension");

    tcase_add_test(unshare, test_unshare_steps_over_gfns_that_never_had_memory);
    tcase_add_test(unshare,
                   test_unshare_with_a_budget_asks_for_the_frames_of_its_part);
    tcase_add_test(secrets,
                   test_two_secrets_far_apart_are_undone_in_a_few_turns);
    tcase_add_test(secrets,
                   test_a_secret_behind_a_walk_is_undone_by_the_next);
    tcase_add_test(secrets,
                   test_a_secret_behind_a_walk_is_not_told_to_be_done_with_it);
    tcase_add_test(secrets,
                   test_a_turn_without_budget_goes_on_where_it_stopped);
    tcase_add_test(secrets, test_a_peer_that_has_gone_keeps_no_runner_busy);
    tcase_add_test(suspension,
                   test_suspend_waits_for_a_page_in_flight_and_lets_none_begin);
    tcase_add_test(suspension,
                   test_suspend_gives_up_in_time_and_leaves_nothing_behind);
    tcase_add_test(suspension,
                   test_a_suspension_that_is_answered_late_counts_all_the_same);
    tcase_add_test(suspension,
                   test_a_suspension_that_fails_leaves_the_domain_as_it_was);
    tcase_add_test(suspension,
                   test_a_suspension_that_nobody_answers_is_asked_for_again);
    tcase_add_test(suspension,
                   test_a_suspended_domain_is_not_joined_to_another_frame);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("undo", make, argc, argv);
}
