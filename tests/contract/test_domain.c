/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains and hosts: memory that comes and goes, undo, suspension, removal at
 * any time, death, several hosts, a forked process.
 */
#include "contract/rig.h"

#include <pgshare/domain.h>
#include <sys/wait.h>
#include <unistd.h>

/* Three guests, all of whose first `n` pages are shared. */
static void open_shared(struct rig *rig, int machine, uint64_t n)
{
    rig_open(rig, machine);
    for (unsigned g = 0; g < 3; g++) {
        rig_guest(rig);
        rig_fill(rig, g, 0, n, 7);
        if (g)
            rig_must_share(rig, 0, 0, g, 0, n);
    }
}

/* ---- memory ------------------------------------------------------------ */

START_TEST(memory_comes_and_goes_with_shared_and_marked_pages_in_it)
{
    struct rig rig;

    open_shared(&rig, _i, 8);
    rig_mark(&rig, 0, 9);
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[0].impl, 4, 8), 0);
    rig_expect(&rig, 0, 4, 8, HOLE);
    rig_settle(&rig);
    for (unsigned gfn = 4; gfn < 12; gfn++)
        ck_assert(rig_is(&rig, 0, gfn, PGSHARE_GFN_HOLE));
    ck_assert_uint_eq(rig_stats(&rig).protected_, 0);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 3 * 8 - 4);
    rig_check(&rig);
    ck_assert_int_eq(rig.ops->populate(rig.guests[0].impl, 4, 8), 0);
    rig_expect_zero(&rig, 0, 4, 8);
    ck_assert_int_eq(pgshare_domain_ram_add(rig.host, rig_dom(&rig, 0), 4, 1),
                     PGSHARE_ERR_EXISTS);
    rig_fill(&rig, 0, 4, 4, 9);
    rig_fill(&rig, 1, 12, 4, 9);
    rig_settle(&rig);
    rig_must_share(&rig, 0, 4, 1, 12, 4);
    rig_close(&rig);
}
END_TEST

/* ---- undo -------------------------------------------------------------- */

START_TEST(a_domain_is_unshared_piece_by_piece_within_a_budget)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct rig rig;
    uint64_t gfn = 0, dom, done = 0;
    unsigned calls = 0;

    open_shared(&rig, _i, 20);
    dom = rig_dom(&rig, 1);
    while (gfn < GFNS) {
        ck_assert_int_eq(pgshare_domain_unshare(rig.host, dom, gfn, GFNS - gfn,
                                                10, &progress),
                         0);
        ck_assert_uint_eq(progress.next, gfn + 10 < GFNS ? gfn + 10 : GFNS);
        gfn = progress.next;
        done += progress.private_;
        calls++;
    }
    ck_assert_uint_eq(calls, 7);
    ck_assert_uint_eq(done, 20);
    ck_assert_uint_eq(rig_account(&rig, 1).shared, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(unsharing_refuses_before_it_would_exhaust_memory)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct rig_options options = { .frames = 2 * GFNS + 8,
                                   .host.reserve_keep = 1 };
    struct rig rig;
    uint64_t frames;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 20, 7);
    rig_fill(&rig, 1, 0, 20, 7);
    for (unsigned i = 0; i < 20; i++)
        rig_must_share(&rig, 0, i, 1, i, 1);
    rig_settle(&rig); /* the surplus goes back … */
    rig_empty_guest(&rig);
    frames = rig.ops->free_frames(rig.state); /* … and is used */
    ck_assert_int_eq(rig.ops->populate(rig.guests[2].impl, 0, frames), 0);
    rig_expect_zero(&rig, 2, 0, frames);
    frames = rig_stats(&rig).reserve;
    ck_assert_uint_lt(frames, 20);
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, rig_dom(&rig, 0), 0, GFNS,
                                            0, &progress),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(progress.missing, 20 - frames);
    ck_assert_uint_eq(rig_account(&rig, 0).shared, 20);
    ck_assert_int_eq(rig.ops->depopulate(rig.guests[2].impl, 0, 20), 0);
    rig_expect(&rig, 2, 0, 20, HOLE);
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, rig_dom(&rig, 0), 0, GFNS,
                                            0, &progress),
                     0);
    ck_assert_uint_eq(progress.private_, 20);
    rig_close(&rig);
}
END_TEST

/* Volatile pages that are held count as memory, but cannot pay. */
START_TEST(unsharing_says_what_is_missing_where_held_pages_cannot_pay)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct rig_options options = { .frames = 2 * GFNS + 8,
                                   .host.reserve_keep = 1 };
    struct rig rig;
    uint64_t dom, frames;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 1);
    rig_fill(&rig, 0, 0, 12, 7);
    rig_fill(&rig, 1, 0, 12, 7);
    for (unsigned i = 0; i < 12; i++)
        rig_must_share(&rig, 0, i, 1, i, 1);
    rig_settle(&rig);
    rig_empty_guest(&rig);
    frames = rig.ops->free_frames(rig.state);
    ck_assert_int_eq(rig.ops->populate(rig.guests[2].impl, 0, frames), 0);
    rig_expect_zero(&rig, 2, 0, frames);
    ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 40, 12, NULL), 0);
    ck_assert_int_eq(
        pgshare_gfn_get(rig.host, dom, 40, 12, PGSHARE_GET_READ, NULL), 0);
    frames = rig_stats(&rig).reserve;
    ck_assert_uint_lt(frames, 12);
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, rig_dom(&rig, 0), 0, GFNS,
                                            0, &progress),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(progress.next, frames);
    ck_assert_uint_eq(progress.missing, 12 - frames);
    ck_assert_int_eq(
        pgshare_gfn_put(rig.host, dom, 40, 12, PGSHARE_GET_READ), 0);
    rig_expect(&rig, 1, 40, 12, OR_ZERO);
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, rig_dom(&rig, 0), 0, GFNS,
                                            0, &progress),
                     0);
    ck_assert_uint_eq(rig_account(&rig, 0).shared, 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_suspended_domain_shares_nothing_new_but_its_faults_are_resolved)
{
    struct rig rig;
    uint64_t dom, ticket;

    open_shared(&rig, _i, 4);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 10, 2, 3);
    rig_fill(&rig, 1, 10, 2, 3);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), PGSHARE_ERR_STATE);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, dom), 0);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, dom), PGSHARE_ERR_STATE);
    ck_assert_int_eq(rig_share(&rig, 0, 10, 1, 10, 1), PGSHARE_ERR_SUSPENDED);
    ck_assert_int_eq(rig_share(&rig, 1, 10, 0, 10, 1), PGSHARE_ERR_SUSPENDED);
    ck_assert_int_eq(pgshare_mark_ro(rig.host, dom, 10, 1, &ticket, NULL),
                     PGSHARE_ERR_SUSPENDED);
    pgshare_hint_same(rig.host, dom, 10, rig_dom(&rig, 1), 10, 2);
    pgshare_host_pass(rig.host, 0);
    rig_settle(&rig);
    ck_assert(rig_is(&rig, 0, 10, PGSHARE_GFN_PRIVATE));
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_SHARED));
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    rig_check(&rig);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), 0);
    rig_must_share(&rig, 0, 10, 1, 10, 2);
    rig_close(&rig);
}
END_TEST

/* ---- the end of domains ------------------------------------------------ */

START_TEST(domains_leave_in_any_order_and_keep_their_content)
{
    static const unsigned orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 },
                                           { 1, 0, 2 }, { 1, 2, 0 },
                                           { 2, 0, 1 }, { 2, 1, 0 } };

    for (unsigned i = 0; i < 6; i++) {
        struct rig rig;

        open_shared(&rig, _i, 8);
        for (unsigned k = 0; k < 3; k++) {
            ck_assert_int_eq(rig_leave(&rig, orders[i][k]), 0);
            rig_check(&rig);
            ck_assert_int_eq(pgshare_host_pass(rig.host,
                                               rig_dom(&rig, orders[i][k])),
                             PGSHARE_ERR_NODOMAIN);
            ck_assert_int_eq(rig_write(&rig, orders[i][k], 1), 0);
        }
        ck_assert_uint_eq(rig_stats(&rig).domains, 0);
        ck_assert_uint_eq(rig_stats(&rig).frames, 0);
        rig_close(&rig);
    }
}
END_TEST

START_TEST(the_host_is_freed_with_everything_alive)
{
    struct rig rig;

    open_shared(&rig, _i, 8);
    rig_mark(&rig, 0, 20);
    pgshare_gfn_get(rig.host, rig_dom(&rig, 1), 3, 2, PGSHARE_GET_READ, NULL);
    pgshare_gfn_get(rig.host, rig_dom(&rig, 1), 30, 2, PGSHARE_GET_WRITE, NULL);
    pgshare_declare_volatile(rig.host, rig_dom(&rig, 2), 30, 4, NULL);
    pgshare_declare_free(rig.host, rig_dom(&rig, 2), 40, 4);
    rig_expect(&rig, 2, 40, 4, OR_ZERO);
    pgshare_hint_same(rig.host, rig_dom(&rig, 0), 50, rig_dom(&rig, 1), 50, 4);
    pgshare_host_pass(rig.host, 0);
    rig.host = pgshare_host_free(rig.host);
    ck_assert_ptr_null(rig.host);
    rig_check_content(&rig);
    for (unsigned g = 0; g < 3; g++)
        ck_assert_int_eq(rig_write(&rig, g, 3), 0);
    rig_check_content(&rig);
    rig_drop(&rig);
}
END_TEST

START_TEST(a_domain_may_die_at_any_time)
{
    struct rig rig;
    uint64_t ticket;
    int r;

    open_shared(&rig, _i, 8);
    rig_mark(&rig, 1, 20);
    rig_kill(&rig, 1);
    r = pgshare_mark_ro(rig.host, rig_dom(&rig, 1), 21, 1, &ticket, NULL);
    ck_assert_int_eq(r, PGSHARE_ERR_GONE);
    r = rig_share(&rig, 0, 30, 1, 30, 1);
    ck_assert_int_eq(r, PGSHARE_ERR_GONE);
    r = pgshare_fault_write(rig.host, rig_dom(&rig, 1), 0, 0, NULL, NULL);
    ck_assert_int_eq(r, PGSHARE_ERR_GONE);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_DOMAIN_GONE], 1);
    ck_assert_uint_eq(rig_stats(&rig).mappings, 16);
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    rig_check(&rig);
    ck_assert_int_eq(rig_leave(&rig, 1), 0);
    rig_close(&rig);
}
END_TEST

static void kill_one(void *ctx)
{
    struct rig *rig = ctx;

    if (!rig->guests[1].dead)
        rig_kill(rig, 1);
}

START_TEST(a_domain_may_die_between_any_two_steps_of_a_share)
{
    for (unsigned seed = 0; seed < 12; seed++) {
        struct rig rig;

        rig_open(&rig, _i);
        rig_guest(&rig);
        rig_guest(&rig);
        rig_guest(&rig);
        for (unsigned g = 0; g < 3; g++)
            rig_fill(&rig, g, 0, 8, 7);
        rig_must_share(&rig, 0, 0, 2, 0, 4);
        rig.ops->schedule(rig.state, kill_one, &rig, 20000 * seed + 1000);
        rig_share(&rig, seed % 2, 0, 1 - seed % 2, 0, 8);
        rig_share(&rig, 2, 0, 1, 0, 8);
        rig.ops->schedule(rig.state, kill_one, &rig, 0);
        kill_one(&rig);
        rig_check(&rig);
        ck_assert_int_eq(rig_leave(&rig, 1), 0);
        rig_close(&rig);
    }
}
END_TEST

START_TEST(a_reused_domid_is_another_domain)
{
    struct rig rig;
    uint64_t old, found;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_new_guest(&rig, 77, 1, true);
    rig_join(&rig, a, rig.group);
    old = rig_dom(&rig, a);
    ck_assert_int_eq(pgshare_domain_find(rig.host, 77, 1, &found), 0);
    ck_assert_uint_eq(found, old);
    ck_assert_int_eq(rig_leave(&rig, a), 0);
    ck_assert_int_eq(pgshare_domain_find(rig.host, 77, 1, &found),
                     PGSHARE_ERR_NODOMAIN);
    b = rig_new_guest(&rig, 77, 2, true);
    rig_join(&rig, b, rig.group);
    ck_assert_uint_ne(rig_dom(&rig, b), old);
    ck_assert_int_eq(pgshare_fault_write(rig.host, old, 0, 0, NULL, NULL),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_domain_remove(rig.host, old),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_domain_find(rig.host, 77, 2, &found), 0);
    ck_assert_uint_eq(found, rig_dom(&rig, b));
    rig_close(&rig);
}
END_TEST

/* ---- hosts ------------------------------------------------------------- */

START_TEST(several_hosts_live_in_one_process)
{
    struct rig rigs[3];

    for (unsigned i = 0; i < 3; i++)
        open_shared(&rigs[i], _i, 4);
    for (unsigned i = 0; i < 3; i++) {
        struct pgshare_host *other = NULL;

        ck_assert_int_eq(pgshare_host_new(rigs[i].ops->backend(rigs[i].state),
                                          NULL, &other),
                         PGSHARE_ERR_EXISTS);
        ck_assert_int_eq(rig_write(&rigs[i], i, i), 0);
    }
    rig_close(&rigs[1]);
    ck_assert_int_eq(rig_write(&rigs[0], 2, 0), 0);
    rig_close(&rigs[2]);
    rig_close(&rigs[0]);
}
END_TEST

/* What a forked child finds; 0: all is well. */
static int child(struct rig *rig)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    uint64_t dom = rig_dom(rig, 0), id;

    if (pgshare_host_run(rig->host, NULL, NULL) != PGSHARE_ERR_FORKED)
        return 1;
    if (pgshare_fault_write(rig->host, dom, 0, 0, NULL, NULL) !=
        PGSHARE_ERR_FORKED)
        return 2;
    if (pgshare_host_stats(rig->host, &stats) != PGSHARE_ERR_FORKED)
        return 3;
    if (pgshare_domain_remove(rig->host, dom) != PGSHARE_ERR_FORKED)
        return 4;
    if (pgshare_group_open(rig->host, "x", &id) != PGSHARE_ERR_FORKED)
        return 5;
    if (pgshare_scan_step(rig->host, NULL, NULL) != PGSHARE_ERR_FORKED ||
        pgshare_scan_set(rig->host, NULL) != PGSHARE_ERR_FORKED ||
        pgshare_scan_floor(rig->host, dom, 0, 1, 1) != PGSHARE_ERR_FORKED)
        return 8;
    if (pgshare_host_settle(rig->host, 0) != PGSHARE_ERR_FORKED)
        return 6;
    return pgshare_host_free(rig->host) ? 7 : 0;
}

START_TEST(a_forked_child_may_only_free_the_host)
{
    struct rig rig;
    int status;
    pid_t pid;

    open_shared(&rig, _i, 4);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (!pid)
        _exit(child(&rig));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert_int_eq(rig_write(&rig, 0, 0), 0);
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &memory_comes_and_goes_with_shared_and_marked_pages_in_it, CAN_SHARE },
    { &a_domain_is_unshared_piece_by_piece_within_a_budget, CAN_SHARE },
    { &unsharing_refuses_before_it_would_exhaust_memory,
      CAN_SHARE | CAN_EXHAUST },
    { &unsharing_says_what_is_missing_where_held_pages_cannot_pay,
      CAN_SHARE | CAN_EXHAUST | CAN_PAY | CAN_INLINE },
    { &a_suspended_domain_shares_nothing_new_but_its_faults_are_resolved,
      CAN_SHARE },
    { &domains_leave_in_any_order_and_keep_their_content, CAN_SHARE },
    { &the_host_is_freed_with_everything_alive, CAN_SHARE },
    { &a_domain_may_die_at_any_time, CAN_SHARE | CAN_KILL },
    { &a_domain_may_die_between_any_two_steps_of_a_share,
      CAN_SHARE | CAN_KILL | CAN_STEPS },
    { &a_reused_domid_is_another_domain, 0 },
    { &several_hosts_live_in_one_process, CAN_SHARE },
    { &a_forked_child_may_only_free_the_host, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("contract-domain", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-domain", make, argc, argv);
}
