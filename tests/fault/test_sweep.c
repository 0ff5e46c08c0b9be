/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Failure sweeps: the scenario with its i-th allocation failing, for every i;
 * with all from the i-th on; with its i-th operation failing in every way that
 * there is.
 */
#include "fault/scenario.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- allocations ------------------------------------------------------- */

struct allocations {
    uint64_t i;
    bool for_good;
    bool none;
    bool failed; /* out: the i-th came */
    uint64_t calls;
};

static void begin_allocations(struct rig *rig, void *ctx)
{
    struct allocations *plan = ctx;

    if (plan->none)
        pgs_tracker_fail_never(pgs_test_tracker());
    else if (plan->for_good)
        pgs_tracker_fail_from(pgs_test_tracker(), plan->i);
    else
        pgs_tracker_fail_once(pgs_test_tracker(), plan->i);
}

static void calm_allocations(struct rig *rig, void *ctx)
{
    struct allocations *plan = ctx;

    plan->failed = pgs_tracker_has_failed(pgs_test_tracker());
    plan->calls = pgs_test_tracker()->calls;
    pgs_tracker_fail_never(pgs_test_tracker());
}

static void sweep_allocations(int machine, bool for_good)
{
    struct allocations plan = { .for_good = for_good };
    struct failure failure = { begin_allocations, calm_allocations, &plan };

    do {
        scenario_run(machine, &failure);
        plan.i++;
    } while (plan.failed);
    ck_assert_uint_gt(plan.i, 10);
}

START_TEST(any_allocation_may_fail_once)
{
    sweep_allocations(_i, false);
}
END_TEST

START_TEST(any_allocation_and_all_that_follow_may_fail)
{
    sweep_allocations(_i, true);
}
END_TEST

/* A host that cannot be made leaves nothing behind. */
START_TEST(any_allocation_of_a_new_host_may_fail)
{
    for (uint64_t i = 0, failed = 1; failed; i++) {
        struct rig rig;
        int r;

        pgs_tracker_fail_once(pgs_test_tracker(), i);
        r = rig_try_open(&rig, _i, NULL);
        failed = pgs_tracker_has_failed(pgs_test_tracker());
        ck_assert_int_eq(r, failed ? PGSHARE_ERR_NOMEM : 0);
        pgs_tracker_fail_never(pgs_test_tracker());
        rig_drop(&rig);
    }
}
END_TEST

/* ---- operations -------------------------------------------------------- */

struct operations {
    struct pgshare_fault_plan plan;
    uint64_t seen;
    uint64_t failed;
};

static void begin_operations(struct rig *rig, void *ctx)
{
    struct operations *operations = ctx;

    if (rig->trace) /* to find one's place in PGS_TEST_TRACE */
        fprintf(stderr, "mode %" PRIu32 ", operation %" PRIu64 " fails\n",
                operations->plan.mode, operations->plan.first);
    ck_assert_int_eq(
        pgshare_fault_backend_plan(rig->faults, &operations->plan), 0);
}

static void calm_operations(struct rig *rig, void *ctx)
{
    struct operations *operations = ctx;

    operations->seen = pgshare_fault_backend_seen(rig->faults);
    operations->failed = pgshare_fault_backend_failed(rig->faults);
    pgshare_fault_backend_release(rig->faults);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig->faults, NULL), 0);
}

static void sweep_operations(int machine, uint32_t mode, int error)
{
    struct operations operations = {
        .plan = { .size = sizeof(operations.plan),
                  .mode = mode,
                  .error = error,
                  .kinds = UINT64_MAX,
                  .count = 1 },
    };
    struct failure failure = { begin_operations, calm_operations, &operations };

    do {
        scenario_run(machine, &failure);
        operations.plan.first++;
    } while (operations.failed);
    ck_assert_uint_gt(operations.plan.first, 20);
}

START_TEST(any_submission_may_be_refused)
{
    sweep_operations(_i, PGSHARE_INJECT_REFUSE, PGSHARE_ERR_BACKEND);
}
END_TEST

START_TEST(any_operation_may_fail)
{
    sweep_operations(_i, PGSHARE_INJECT_FAIL, PGSHARE_ERR_BACKEND);
}
END_TEST

START_TEST(any_operation_may_find_no_memory)
{
    sweep_operations(_i, PGSHARE_INJECT_FAIL, PGSHARE_ERR_NOFRAME);
}
END_TEST

START_TEST(any_operation_may_fail_in_part)
{
    sweep_operations(_i, PGSHARE_INJECT_PARTIAL, PGSHARE_ERR_BUSY);
}
END_TEST

START_TEST(any_completion_may_be_lost)
{
    sweep_operations(_i, PGSHARE_INJECT_LOSE, 0);
}
END_TEST

START_TEST(any_operation_may_be_swallowed)
{
    sweep_operations(_i, PGSHARE_INJECT_SWALLOW, 0);
}
END_TEST

START_TEST(any_completion_may_come_twice)
{
    sweep_operations(_i, PGSHARE_INJECT_TWICE, 0);
}
END_TEST

START_TEST(any_completion_may_come_late)
{
    sweep_operations(_i, PGSHARE_INJECT_LATE, 0);
}
END_TEST

/* ---- what must not need memory ----------------------------------------- */

START_TEST(undoing_allocates_nothing)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct pgs_tracker *tracker = pgs_test_tracker();
    struct rig rig;

    pgs_tracker_fail_never(tracker);
    rig_open(&rig, _i);
    for (unsigned g = 0; g < 4; g++) {
        rig_guest(&rig);
        rig_fill(&rig, g, 0, 32, 7);
        if (g)
            rig_must_share(&rig, 0, 0, g, 0, 32);
    }
    rig_mark(&rig, 0, 40);
    rig_settle(&rig);
    pgs_tracker_fail_from(tracker, 0);
    for (unsigned gfn = 0; gfn < 8; gfn++)
        ck_assert_int_eq(rig_write(&rig, gfn % 4, gfn), 0);
    ck_assert_int_eq(rig_write(&rig, 0, 40), 0);
    ck_assert_int_eq(pgshare_unshare(rig.host, rig_dom(&rig, 1), 8, 8, NULL),
                     0);
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, rig_dom(&rig, 2), 0, 32,
                                            0, &progress),
                     0);
    rig_settle(&rig);
    ck_assert_int_eq(rig_leave(&rig, 0), 0);
    rig_settle(&rig);
    rig_check_content(&rig);
    rig.host = pgshare_host_free(rig.host);
    ck_assert_uint_eq(tracker->calls, 0);
    rig_check_content(&rig);
    rig_drop(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &any_allocation_may_fail_once, CAN_SHARE | CAN_INLINE },
    { &any_allocation_and_all_that_follow_may_fail, CAN_SHARE | CAN_INLINE },
    { &any_allocation_of_a_new_host_may_fail, CAN_INLINE },
    { &any_submission_may_be_refused, CAN_SHARE | CAN_INLINE },
    { &any_operation_may_fail, CAN_SHARE | CAN_INLINE },
    { &any_operation_may_find_no_memory, CAN_SHARE | CAN_INLINE },
    { &any_operation_may_fail_in_part, CAN_SHARE | CAN_INLINE },
    { &any_completion_may_be_lost, CAN_SHARE | CAN_INLINE },
    { &any_operation_may_be_swallowed, CAN_SHARE | CAN_INLINE },
    { &any_completion_may_come_twice, CAN_SHARE | CAN_INLINE },
    { &any_completion_may_come_late, CAN_SHARE | CAN_INLINE },
    { &undoing_allocates_nothing, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("fault-sweep", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("fault-sweep", make, argc, argv);
}
