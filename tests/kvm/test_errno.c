/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every system call of the backend fails, in turn: what was asked for may fail
 * or be undone, but guests keep their bytes, nothing leaks, and sharing goes on
 * afterwards.
 */
#include "contract/rig.h"

#include "kvm/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGES 12u

/* Each step works on what the one before left, whatever that is. */
static void work(struct rig *rig)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    uint64_t a = rig_dom(rig, 0), b = rig_dom(rig, 1), tickets[4];

    rig_share(rig, 0, 0, 1, 0, PAGES);
    rig_fill(rig, 0, 0, PAGES, 7); /* broken, and as they were */
    pgshare_host_settle(rig->host, SECOND);
    rig_share(rig, 1, 0, 0, 0, PAGES);
    rig_write(rig, 0, 1);
    rig_write(rig, 1, 2);
    rig_write(rig, 1, 3);
    pgshare_host_settle(rig->host, SECOND);
    rig_fill(rig, 0, 0, PAGES, 8);
    rig_fill(rig, 1, 0, PAGES, 8);
    pgshare_host_settle(rig->host, SECOND);
    rig_share(rig, 1, 0, 0, 0, PAGES); /* pages that were broken */
    pgshare_mark_ro(rig->host, a, 20, 4, tickets, NULL);
    rig_write(rig, 0, 20);
    pgshare_unmark(rig->host, a, 20, 4, NULL, NULL);
    pgshare_declare_read_only(rig->host, a, 22, 2, 1);
    rig_share(rig, 0, 22, 1, 22, 2);
    pgshare_declare_read_only(rig->host, a, 22, 2, 0);
    pgshare_unshare(rig->host, b, 0, 4, NULL);
    pgshare_declare_volatile(rig->host, b, 30, 2, NULL);
    pgshare_declare_withdraw(rig->host, b, 30, 2, NULL);
    rig_expect(rig, 0, 40, 4, OR_ZERO);
    pgshare_declare_free(rig->host, a, 40, 4);
    pgshare_host_pass(rig->host, 0);
    pgshare_host_settle(rig->host, SECOND);
    rig_expect(rig, 1, 50, 4, NOTHING);
    rig->ops->depopulate(rig->guests[1].impl, 50, 4);
    pgshare_domain_unshare(rig->host, a, 0, GFNS, 0, &progress);
    pgshare_host_settle(rig->host, SECOND);
}

/* Answers whether call number i came. */
static bool attempt(int machine, uint64_t i, uint64_t count, int error)
{
    struct rig rig;
    uint64_t calls;

    rig_open(&rig, machine);
    if (getenv("PGS_TEST_ERRNO")) /* to find one's place */
        fprintf(stderr, "call %" PRIu64 " fails\n", i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, PAGES, 7);
    rig_fill(&rig, 1, 0, PAGES, 7);
    pgs_sys_fail(i, count, error);
    work(&rig);
    calls = pgs_sys_fail(UINT64_MAX, 0, 0);
    rig_settle(&rig);
    rig_fill(&rig, 0, 56, 4, 9);
    rig_fill(&rig, 1, 56, 4, 9);
    rig_settle(&rig);
    rig_must_share(&rig, 0, 56, 1, 56, 4);
    rig_close(&rig);
    return calls > i;
}

/* Of so many calls one is tried in a run. */
#define STRIDE UINT64_C(211)

/* Some of them at a time, others each time. */
static void sweep(int machine, uint64_t count, int error)
{
    uint64_t stride = STRIDE > pgs_test_scale() ? STRIDE / pgs_test_scale() : 1;
    uint64_t i = pgs_test_seed() % stride;

    while (attempt(machine, i, count, error))
        i += stride;
    ck_assert_uint_gt(i, 100);
}

START_TEST(any_call_may_find_no_memory)
{
    sweep(_i, 1, ENOMEM);
}
END_TEST

START_TEST(any_call_may_be_told_to_try_again)
{
    sweep(_i, 1, EAGAIN);
}
END_TEST

START_TEST(any_three_calls_may_fail)
{
    sweep(_i, 3, EINVAL);
}
END_TEST

static const struct contract_test tests[] = {
    { &any_call_may_find_no_memory, CAN_SHARE },
    { &any_call_may_be_told_to_try_again, CAN_SHARE },
    { &any_three_calls_may_fail, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("kvm-errno", tests, sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-errno", make, argc, argv);
}
