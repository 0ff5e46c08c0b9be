/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables at their limits, names in use, and guests that lie in their rings.
 */
#include "contract/rig.h"

#include <pgshare/guest_ring.h>

#include <stdio.h>

#define is(call, error) ck_assert_int_eq(call, PGSHARE_ERR_##error)

/* ---- domains and groups ------------------------------------------------ */

START_TEST(a_domain_is_not_added_twice)
{
    struct rig rig;
    uint64_t dom;
    unsigned a, b;

    rig_open(&rig, _i);
    a = rig_new_guest(&rig, 5, 1, true);
    rig_join(&rig, a, rig.group);
    b = rig_new_guest(&rig, 5, 1, true);
    ck_assert_int_eq(rig_try_join(&rig, b, rig.group), PGSHARE_ERR_EXISTS);
    is(pgshare_domain_find(rig.host, 5, 2, &dom), NODOMAIN);
    b = rig_new_guest(&rig, 6, 1, true);
    is(rig_try_join(&rig, b, 12345), GROUP);
    rig_close(&rig);
}
END_TEST

START_TEST(a_domain_of_no_or_too_many_pages_is_refused)
{
    struct pgshare_domain_options options = { .size = sizeof(options),
                                              .domid = 9 };
    struct rig rig;
    uint64_t dom;

    rig_open(&rig, _i);
    is(pgshare_domain_add(rig.host, &options, &dom), RANGE);
    options.gfns = (UINT64_C(1) << 32) + 1;
    is(pgshare_domain_add(rig.host, &options, &dom), RANGE);
    options.gfns = UINT64_MAX;
    is(pgshare_domain_add(rig.host, &options, &dom), RANGE);
    rig_close(&rig);
}
END_TEST

START_TEST(groups_of_domains_that_left_are_used_again)
{
    struct pgshare_domain_info info = { .size = sizeof(info) };
    struct rig rig;
    uint64_t before;

    rig_open(&rig, _i);
    rig_new_guest(&rig, 0, 0, true);
    before = pgs_test_tracker()->live_bytes;
    for (unsigned i = 0; i < 500; i++) {
        rig_join(&rig, 0, 0);
        if (pgshare_domain_info(rig.host, rig_dom(&rig, 0), &info) ||
            info.group > rig.group + 1)
            ck_abort_msg("group %u", (unsigned)info.group);
        ck_assert_int_eq(rig_leave(&rig, 0), 0);
        rig_settle(&rig);
    }
    ck_assert_uint_le(pgs_test_tracker()->live_bytes, before + 200000);
    rig_close(&rig);
}
END_TEST

START_TEST(names_of_groups_run_out_but_not_the_domains_own_groups)
{
    struct rig rig;
    uint64_t group, first = 0;
    char name[16];

    rig_open(&rig, _i); /* has a group of its own */
    for (unsigned i = 1; i < PGSHARE_GROUPS_MAX; i++) {
        snprintf(name, sizeof(name), "%u", i);
        if (pgshare_group_open(rig.host, name, &group))
            ck_abort_msg("group %u", i);
        if (i == 1)
            first = group;
    }
    is(pgshare_group_open(rig.host, "one more", &group), FULL);
    ck_assert_int_eq(pgshare_group_open(rig.host, "1", &group), 0);
    ck_assert_uint_eq(group, first);
    rig_new_guest(&rig, 0, 0, true);
    rig_join(&rig, 0, 0);
    ck_assert_int_eq(rig_leave(&rig, 0), 0);
    rig_join(&rig, 0, group);
    rig_close(&rig);
}
END_TEST

/* ---- marks and calls --------------------------------------------------- */

START_TEST(marks_beyond_max_protected_are_refused)
{
    struct rig_options options = { .host.max_protected = 10 };
    uint64_t tickets[GFNS];
    int8_t results[GFNS];
    struct pgshare_call call = { .size = sizeof(call),
                                 .timeout_ns = 10 * SECOND,
                                 .results = results };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    for (unsigned gfn = 0; gfn < 10; gfn++)
        rig_mark(&rig, 0, gfn);
    is(pgshare_mark_ro(rig.host, rig_dom(&rig, 0), 0, 20, tickets, &call),
       FULL);
    ck_assert_uint_eq(call.done, 10);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(results[i], i < 10 ? 0 : PGSHARE_ERR_FULL);
        ck_assert_int_eq(tickets[i] != 0, i < 10);
    }
    ck_assert_int_eq(pgshare_unmark(rig.host, rig_dom(&rig, 0), 0, 10, NULL,
                                    NULL),
                     0);
    rig_settle(&rig);
    rig_mark(&rig, 0, 30);
    rig_close(&rig);
}
END_TEST

START_TEST(calls_beyond_max_calls_are_busy_and_come_free_again)
{
    struct rig_options options = { .decorated = true,
                                   .host = { .max_calls = 4,
                                             .op_timeout_ns = 100 * SECOND } };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_LATE,
                                       .kinds = 1 << PGSHARE_OP_UNPROTECT,
                                       .count = UINT64_MAX };
    struct pgshare_call call = { .size = sizeof(call) };
    uint64_t dom, ticket;
    struct rig rig;
    unsigned busy = 0, going = 0;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    for (unsigned gfn = 0; gfn < 10; gfn++)
        rig_mark(&rig, 0, gfn);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    for (unsigned gfn = 0; gfn < 10; gfn++) {
        int r = pgshare_fault_write(rig.host, dom, gfn, 0, &call, NULL);

        ck_assert(r == PGSHARE_ERR_INPROGRESS || r == PGSHARE_ERR_BUSY);
        busy += r == PGSHARE_ERR_BUSY;
        going += r == PGSHARE_ERR_INPROGRESS;
    }
    ck_assert_uint_eq(going, 4);
    ck_assert_uint_eq(busy, 6);
    is(pgshare_mark_ro(rig.host, dom, 20, 1, &ticket, &call), BUSY);
    is(pgshare_gfn_get(rig.host, dom, 9, 1, PGSHARE_GET_WRITE, &call), BUSY);
    pgshare_host_run(rig.host, NULL, NULL);
    pgshare_fault_backend_release(rig.faults);
    pgshare_fault_backend_plan(rig.faults, NULL);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.outcomes, 4);
    for (unsigned gfn = 0; gfn < 10; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_lineage_waits_until_a_call_comes_free)
{
    struct rig_options options = { .decorated = true,
                                   .host = { .max_calls = 4,
                                             .op_timeout_ns = 100 * SECOND } };
    struct pgshare_fault_plan plan = { .size = sizeof(plan),
                                       .mode = PGSHARE_INJECT_LATE,
                                       .kinds = 1 << PGSHARE_OP_UNPROTECT,
                                       .count = UINT64_MAX };
    struct pgshare_call call = { .size = sizeof(call) };
    struct rig rig;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    rig_guest(&rig);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        rig_mark(&rig, 0, gfn);
    ck_assert_int_eq(pgshare_fault_backend_plan(rig.faults, &plan), 0);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        is(pgshare_fault_write(rig.host, rig_dom(&rig, 0), gfn, 0, &call, NULL),
           INPROGRESS);
    ck_assert_int_eq(pgshare_hint_lineage(rig.host, rig_dom(&rig, 1),
                                          rig_dom(&rig, 0)),
                     0);
    ck_assert_int_eq(pgshare_host_run(rig.host, NULL, NULL), 0);
    pgshare_fault_backend_plan(rig.faults, NULL);
    pgshare_fault_backend_release(rig.faults);
    rig_settle(&rig);
    ck_assert(rig_together(&rig, 0, 30, 1, 30));
    rig_close(&rig);
}
END_TEST

START_TEST(a_host_with_impossible_limits_is_refused)
{
    static const struct pgshare_host_options bad[] = {
        { .max_calls = 32769 },
        { .max_hints = (1u << 24) + 1 },
        { .reserved = 1 },
        { .flags = 1u << 31 },
    };
    struct rig rig;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rig_options options = { .host = bad[i] };

        is(rig_try_open(&rig, _i, &options), INVALID);
        rig_drop(&rig);
    }
    {
        struct rig_options options = { .host.reserve_min = FRAMES + 1 };

        is(rig_try_open(&rig, _i, &options), NOFRAME);
        ck_assert_uint_eq(rig.ops->free_frames(rig.state), FRAMES);
        rig_drop(&rig);
        options.host.reserve_min = UINT64_MAX;
        is(rig_try_open(&rig, _i, &options), NOFRAME);
        rig_drop(&rig);
    }
}
END_TEST

/* ---- guests that lie in their rings ------------------------------------ */

static _Alignas(4096) unsigned char memory[8192];
static struct pgshare_guest_ring *const ring = (void *)memory;

static void fresh_ring(void)
{
    memset(memory, 0, sizeof(memory));
    pgshare_guest_ring_init(ring);
}

START_TEST(a_page_that_is_no_ring_is_refused)
{
    struct rig rig;
    uint64_t dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    fresh_ring();
    is(pgshare_ring_attach(rig.host, dom, (void *)(memory + 64), 4096),
       INVALID);
    is(pgshare_ring_attach(rig.host, dom, ring, sizeof(*ring) - 1), INVALID);
    ring->magic++;
    is(pgshare_ring_attach(rig.host, dom, ring, 4096), PROTOCOL);
    fresh_ring();
    ring->version++;
    is(pgshare_ring_attach(rig.host, dom, ring, 4096), PROTOCOL);
    is(pgshare_ring_kick(rig.host, dom), STATE);
    is(pgshare_ring_detach(rig.host, dom), STATE);
    fresh_ring();
    ck_assert_int_eq(pgshare_ring_attach(rig.host, dom, ring, 4096), 0);
    is(pgshare_ring_attach(rig.host, dom, ring, 4096), EXISTS);
    ck_assert_int_eq(pgshare_ring_detach(rig.host, dom), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_guest_that_breaks_the_rings_protocol_loses_it)
{
    struct rig rig;
    uint64_t dom;

    rig_open(&rig, _i);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    for (unsigned i = 0; i < 4; i++) {
        fresh_ring();
        ck_assert_int_eq(pgshare_ring_attach(rig.host, dom, ring, 4096), 0);
        if (i & 1)
            ring->request_head = PGSHARE_GUEST_RING_REQUESTS + 1;
        else
            ring->answer_tail = 1;
        if (i & 2) {
            is(pgshare_ring_kick(rig.host, dom), PROTOCOL);
        } else {
            rig_settle(&rig);
            ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_RING_DETACHED],
                              i + 1);
        }
        is(pgshare_ring_kick(rig.host, dom), STATE);
    }
    rig_close(&rig);
}
END_TEST

START_TEST(any_bytes_in_a_ring_harm_nobody_but_its_guest)
{
    struct rig rig;
    uint64_t dom, random = pgs_test_seed();

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    dom = rig_dom(&rig, 0);
    rig_fill(&rig, 0, 0, 32, 7);
    rig_fill(&rig, 1, 0, 32, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 16);
    rig_expect(&rig, 0, 0, GFNS, NOTHING); /* it may lose its own */
    for (unsigned round = 0; round < 300; round++) {
        fresh_ring();
        if (pgshare_ring_attach(rig.host, dom, ring, 4096))
            ck_abort_msg("attach");
        for (unsigned i = 0; i < PGSHARE_GUEST_RING_REQUESTS; i++) {
            struct pgshare_guest_ring_request *request = &ring->requests[i];

            random = random * UINT64_C(6364136223846793005) + 1;
            request->op = (random >> 33) % 9;
            request->gfn = (random >> 40) % (2 * GFNS);
            request->count = (random >> 50) % 5;
            request->id = (uint16_t)i;
            if (random >> 60 == 3)
                request->gfn = ~request->gfn;
            if (random >> 60 == 4)
                request->count = ~request->count;
        }
        ring->request_head = (random >> 35) % 70;
        if (random >> 61 == 1)
            ring->answer_tail = (uint32_t)random;
        pgshare_ring_kick(rig.host, dom);
        memset(memory, (int)(random >> 40), 1000);
        rig_settle(&rig);
        pgshare_ring_detach(rig.host, dom);
    }
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &a_domain_is_not_added_twice, 0 },
    { &a_domain_of_no_or_too_many_pages_is_refused, 0 },
    { &groups_of_domains_that_left_are_used_again, CAN_INLINE },
    { &names_of_groups_run_out_but_not_the_domains_own_groups, CAN_INLINE },
    { &marks_beyond_max_protected_are_refused, CAN_SHARE },
    { &calls_beyond_max_calls_are_busy_and_come_free_again,
      CAN_SHARE | CAN_INLINE },
    { &a_lineage_waits_until_a_call_comes_free, CAN_SHARE | CAN_INLINE },
    { &a_host_with_impossible_limits_is_refused, CAN_EXHAUST | CAN_INLINE },
    { &a_page_that_is_no_ring_is_refused, CAN_INLINE },
    { &a_guest_that_breaks_the_rings_protocol_loses_it, CAN_INLINE },
    { &any_bytes_in_a_ring_harm_nobody_but_its_guest, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("contract-limits", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-limits", make, argc, argv);
}
