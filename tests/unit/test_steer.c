/* SPDX-License-Identifier: BSD-2-Clause */
/* Steering: how much the scanner's threads do, all together, and when. */
#include "policy/policy.h"
#include "unit/world.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

/* No time is spent but what the test says is. */
static uint64_t tell_spent(void *ctx)
{
    (void)ctx;
    return 0;
}

/* Guests that have nothing in common, and a scanner that is always on. */
static void open_on(struct world *w, uint32_t core_ppm, uint64_t pages_per_s,
                    uint64_t cpu_ns)
{
    struct pgshare_scan_options on = {
        .size = sizeof(on),
        .flags = PGSHARE_SCAN_ON | PGSHARE_SCAN_STEADY,
        .core_ppm = core_ppm,
        .pages_per_s = pages_per_s,
        .cpu_ns = cpu_ns,
    };
    unsigned char page[PGSHARE_PAGE_SIZE];

    world_open(w, NULL);
    w->host->platform.cpu_ns = tell_spent;
    for (uint64_t i = 0; i < WORLD_PAGES; i++) {
        world_page(100000 + i, page);
        ck_assert_int_eq(pgshare_mock_write_page(w->guest[1], i, page), 0);
    }
    ck_assert_int_eq(pgshare_scan_set(w->host, &on), 0);
}

static struct pgshare_scan_info info_of(struct world *w)
{
    struct pgshare_scan_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_scan_info(w->host, &info), 0);
    return info;
}

/* Some time later the runner does one step. */
static void run_after(struct world *w, uint64_t ns)
{
    struct pgshare_budget tiny = { .size = sizeof(tiny), .pages = 1 };

    pgshare_mock_clock_advance(w->machine, ns);
    ck_assert_int_eq(pgshare_host_run(w->host, &tiny, NULL), 0);
}

/* A worker's block; answers how many pages it had. */
static uint64_t work(struct world *w)
{
    struct pgshare_budget block = { .size = sizeof(block), .pages = 1 };
    uint64_t pages;

    ck_assert_int_eq(pgshare_scan_step(w->host, &block, &pages), 0);
    return pages;
}

/* ---- workers ------------------------------------------------------------- */

START_TEST(test_a_worker_that_finds_nothing_uses_nothing_up)
{
    uint64_t spent;
    struct world w;

    world_open(&w, NULL); /* with the thread's own clock */
    spent = info_of(&w).cpu_ns;
    for (unsigned i = 0; i < 1000; i++)
        ck_assert_uint_eq(work(&w), 0);
    ck_assert_uint_eq(info_of(&w).cpu_ns, spent);
    world_close(&w);
}
END_TEST

START_TEST(test_workers_keep_to_what_all_threads_may_spend)
{
    struct world w;

    open_on(&w, 0, 0, 0);
    run_after(&w, 10 * MS);
    ck_assert_uint_gt(work(&w), 0);
    pgs_steer_charge(w.host, SECOND); /* another worker's */
    ck_assert_uint_eq(work(&w), 0);
    run_after(&w, SECOND / 2);
    ck_assert_uint_eq(work(&w), 0);
    ck_assert_uint_eq(info_of(&w).passes, 0);
    for (unsigned i = 0; i < 4; i++)
        run_after(&w, SECOND);
    ck_assert_uint_gt(info_of(&w).passes, 0);
    ck_assert_int_eq(pgshare_scan_set(w.host, NULL), 0);
    ck_assert_uint_eq(work(&w), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_workers_end_with_the_budget_of_time)
{
    struct world w;

    open_on(&w, 0, 0, 3 * SECOND);
    run_after(&w, 10 * MS);
    ck_assert_uint_gt(work(&w), 0);
    pgs_steer_charge(w.host, 3 * SECOND);
    run_after(&w, 10 * SECOND);
    ck_assert_uint_eq(work(&w), 0);
    /* a pass that was asked for is nobody's budget */
    ck_assert_int_eq(pgshare_host_pass(w.host, 0), 0);
    run_after(&w, 0);
    ck_assert_uint_gt(work(&w), 0);
    world_close(&w);
}
END_TEST

/* ---- pages per second ---------------------------------------------------- */

/* A main loop, until that time on the clock; answers how often it ran. */
static unsigned loop_until(struct world *w, uint64_t end)
{
    unsigned n = 0;

    for (;; n++) {
        struct pgshare_poll poll = { .size = sizeof(poll) };
        uint64_t now = pgs_now(&w->host->platform);

        ck_assert_int_eq(pgshare_host_run(w->host, NULL, NULL), 0);
        ck_assert_int_eq(pgshare_host_poll(w->host, &poll), 0);
        if (poll.deadline_ns >= end)
            return n;
        if (poll.deadline_ns > now)
            pgshare_mock_clock_advance(w->machine, poll.deadline_ns - now);
        ck_assert_uint_lt(n, 100000);
    }
}

START_TEST(test_few_pages_per_second_come_evenly_and_without_spinning)
{
    static const uint64_t rates[] = { 5, 100, 900, 5000 };
    uint64_t rate = rates[_i], begin, before;
    struct world w;
    unsigned runs;

    open_on(&w, 0, rate, 0);
    begin = pgs_now(&w.host->platform);
    loop_until(&w, begin + SECOND);
    for (unsigned i = 1; i <= 4; i++) {
        before = world_stats(&w).scanned;
        runs = loop_until(&w, begin + (i + 1) * SECOND);
        ck_assert_uint_le(runs, 60);
        ck_assert_uint_ge(world_stats(&w).scanned - before, rate * 8 / 10);
        ck_assert_uint_le(world_stats(&w).scanned - before, rate * 12 / 10);
    }
    world_close(&w);
}
END_TEST

/* What is in batches counts, though the runner has not looked at it yet. */
START_TEST(test_what_is_in_batches_is_not_allowed_once_more)
{
    struct pgshare_mock_chaos slow = { .delay_op = MS };
    struct world w;

    open_on(&w, 0, 1000, 0);
    pgshare_mock_chaos_set(w.machine, &slow);
    run_after(&w, SECOND / 10);
    for (unsigned i = 0; i < 20; i++) {
        run_after(&w, 0);
        ck_assert_uint_eq(work(&w), 0);
    }
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("steer");
    TCase *workers = pgs_tcase(suite, "workers");
    TCase *rate = pgs_tcase(suite, "rate");

    tcase_add_test(workers, test_a_worker_that_finds_nothing_uses_nothing_up);
    tcase_add_test(workers, test_workers_keep_to_what_all_threads_may_spend);
    tcase_add_test(workers, test_workers_end_with_the_budget_of_time);
    tcase_add_loop_test(
        rate, test_few_pages_per_second_come_evenly_and_without_spinning, 0, 4);
    tcase_add_test(rate, test_what_is_in_batches_is_not_allowed_once_more);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("steer", make, argc, argv);
}
