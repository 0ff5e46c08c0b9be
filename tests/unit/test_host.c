/* SPDX-License-Identifier: BSD-2-Clause */
/* What comes in between: declarations during marks and joins, a backend or a
 * platform that refuses, tables that are full. */
#include "mechanism/extent.h"
#include "mechanism/page.h"
#include "policy/policy.h"
#include "unit/world.h"

#include <pgshare/guest_ring.h>

#include <stdlib.h>

/* ---- declared in flight ------------------------------------------------ */

/* A page to which something happens as soon as an operation has it. */
struct victim {
    struct world *w;
    unsigned guest;
    uint64_t gfn;
    unsigned steps;
};

static void keep_secret_in_flight(void *ctx)
{
    struct victim *secret = ctx;
    struct world *w = secret->w;
    uint64_t dom = w->dom[secret->guest];

    if (atomic_load(pgs_word_of(pgs_domain_of(w->host, dom), secret->gfn)) &
        PGS_BUSY)
        ck_assert_int_eq(pgshare_declare_never_share(w->host, dom, secret->gfn,
                                                     1, 1, NULL),
                         0);
}

static void watch(struct victim *secret, bool on)
{
    ck_assert_int_eq(pgshare_mock_schedule(secret->w->machine,
                                           keep_secret_in_flight, secret,
                                           on ? 1000000 : 0),
                     0);
}

START_TEST(test_what_became_a_secret_is_not_marked)
{
    struct world w;
    struct victim secret = { .w = &w, .gfn = 7 };
    struct pgshare_call call = { .size = sizeof(call) };
    int8_t results[4];
    uint64_t tickets[4];

    world_open(&w, NULL);
    watch(&secret, true);
    call.results = results;
    pgshare_mark_ro(w.host, w.dom[0], 5, 4, tickets, &call);
    watch(&secret, false);
    ck_assert_int_eq(results[1], 0);
    ck_assert_int_eq(results[2], PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(results[3], 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 6).state, PGSHARE_GFN_PROTECTED);
    ck_assert_uint_eq(world_gfn(&w, 0, 7).state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(world_stats(&w).protected_, 3);
    ck_assert_int_eq(world_write(&w, 0, 7, 1), 0);
    world_close(&w);
}
END_TEST

/* Once the page has been protected, and before that was answered, the guest
 * writes to it, and the platform tells of that. */
static void write_after_protect(void *ctx)
{
    struct victim *broken = ctx;
    struct world *w = broken->w;
    uint64_t dom = w->dom[broken->guest];

    if (!(atomic_load(pgs_word_of(pgs_domain_of(w->host, dom), broken->gfn)) &
          PGS_BUSY) ||
        ++broken->steps != 2)
        return;
    ck_assert_int_eq(world_write(w, broken->guest, broken->gfn, 1), 0);
    pgs_page_broken(w->host, dom, broken->gfn, 1, 0);
}

START_TEST(test_what_was_written_meanwhile_is_not_marked)
{
    struct world_options options = { .flavour = PGSHARE_MOCK_PLAIN_PLATFORM };
    struct pgshare_call call = { .size = sizeof(call) };
    struct world w;
    struct victim broken = { .w = &w, .gfn = 7 };
    int8_t results[3];
    uint64_t tickets[3];

    world_open(&w, &options);
    ck_assert_int_eq(pgshare_mock_schedule(w.machine, write_after_protect,
                                           &broken, 1000000),
                     0);
    call.results = results;
    pgshare_mark_ro(w.host, w.dom[0], 6, 3, tickets, &call);
    ck_assert_int_eq(pgshare_mock_schedule(w.machine, write_after_protect,
                                           &broken, 0),
                     0);
    ck_assert_int_eq(results[0], 0);
    ck_assert_int_eq(results[1], PGSHARE_ERR_BUSY);
    ck_assert_int_eq(results[2], 0);
    ck_assert_uint_eq(world_gfn(&w, 0, 7).state, PGSHARE_GFN_PRIVATE);
    ck_assert_int_eq(world_write(&w, 0, 7, 2), 0);
    world_close(&w);
}
END_TEST

static int share(struct world *w, uint64_t source_gfn, unsigned client,
                 uint64_t client_gfn)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = w->dom[0],
        .source_gfn = source_gfn,
        .client_dom = w->dom[client],
        .client_gfn = client_gfn,
        .count = 1,
    };

    return pgshare_share(w->host, &request, NULL);
}

/* The other mappings of a client's frame follow it; this one may not. */
START_TEST(test_what_became_a_secret_does_not_join)
{
    struct world w;
    struct victim secret = { .w = &w, .guest = 1, .gfn = 6 };
    unsigned char page[PGSHARE_PAGE_SIZE];

    world_open(&w, NULL);
    world_page(1005, page);
    for (unsigned g = 0; g < 2; g++)
        ck_assert_int_eq(pgshare_mock_write_page(w.guest[g], 6, page), 0);
    world_share(&w, 5, 1);
    world_share(&w, 6, 1);
    watch(&secret, true);
    ck_assert_int_eq(share(&w, 5, 0, 6), 0);
    watch(&secret, false);
    world_settle(&w);
    ck_assert_uint_eq(world_gfn(&w, 1, 6).state, PGSHARE_GFN_PRIVATE);
    ck_assert_uint_eq(world_stats(&w).frames, 1);
    ck_assert_uint_eq(world_stats(&w).mappings, 3);
    ck_assert(world_holds(&w, 1, 6, 1005));
    world_close(&w);
}
END_TEST

/* This one would be asked about only after a second. */
START_TEST(test_a_removal_waits_for_no_operation_on_its_own_pages)
{
    struct world_options options = { .faulty = true, .timeout_ns = 3000000 };
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_SWALLOW,
        .kinds = UINT64_C(1) << PGSHARE_OP_PROTECT,
        .count = 1,
    };
    struct pgshare_call call = { .size = sizeof(call), .timeout_ns = 1000000 };
    struct world w;
    uint64_t ticket;

    world_open(&w, &options);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(pgshare_mark_ro(w.host, w.dom[0], 7, 1, &ticket, &call),
                     PGSHARE_ERR_INPROGRESS);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[0]), 0);
    world_settle(&w);
    ck_assert_uint_eq(w.n_outcomes, 1);
    ck_assert_int_eq(w.outcome.result, PGSHARE_ERR_GONE);
    world_close(&w);
}
END_TEST

/* A share of guest 0's page 5 with guest 1's, whose comparison is not answered:
 * a removal of guest 0 has to wait for it. */
static void hold_up_removal(struct world *w)
{
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_LATE,
        .kinds = UINT64_C(1) << PGSHARE_OP_COMPARE,
        .count = 1,
    };

    ck_assert_int_eq(pgshare_fault_backend_plan(w->faults, &plan), 0);
    ck_assert_int_eq(share(w, 5, 1, 5), PGSHARE_ERR_INPROGRESS);
}

static int own_share(struct world *w, uint64_t source, unsigned client,
                     uint64_t gfn)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = w->dom[1],
        .source_gfn = source,
        .client_dom = w->dom[client],
        .client_gfn = gfn,
        .count = 1,
    };
    unsigned char page[PGSHARE_PAGE_SIZE];

    world_page(77, page);
    ck_assert_int_eq(pgshare_mock_write_page(w->guest[1], source, page), 0);
    ck_assert_int_eq(pgshare_mock_write_page(w->guest[client], gfn, page), 0);
    return pgshare_share(w->host, &request, NULL);
}

/* One that waits keeps nobody's frames but those that it may map yet. */
START_TEST(test_a_removal_that_waits_keeps_no_frames_of_others)
{
    struct world_options options = { .faulty = true, .timeout_ns = 1000000 };
    struct world w;
    uint64_t reserve;

    world_open(&w, &options);
    ck_assert_int_eq(own_share(&w, 20, 1, 21), 0);
    hold_up_removal(&w);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[0]), PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_eq(world_stats(&w).frames, 1);
    reserve = world_stats(&w).reserve;
    ck_assert_int_eq(pgshare_mock_depopulate(w.guest[1], 20, 2), 0);
    ck_assert_int_eq(pgshare_host_run(w.host, NULL, NULL), 0);
    ck_assert_uint_eq(world_stats(&w).frames, 0);
    ck_assert_uint_eq(world_stats(&w).reserve, reserve + 1);
    ck_assert_uint_eq(pgshare_fault_backend_release(w.faults), 1);
    world_close(&w);
}
END_TEST

START_TEST(test_a_frame_that_a_leaving_domain_may_map_is_kept)
{
    struct world_options options = { .faulty = true, .timeout_ns = 1000000 };
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = PGSHARE_INJECT_LOSE,
        .kinds = UINT64_C(1) << PGSHARE_OP_MAP,
        .count = 1,
    };
    struct world w;

    world_open(&w, &options);
    hold_up_removal(&w);
    ck_assert_int_eq(pgshare_fault_backend_plan(w.faults, &plan), 0);
    ck_assert_int_eq(own_share(&w, 20, 0, 8), PGSHARE_ERR_INPROGRESS);
    ck_assert_int_eq(pgshare_mock_leave(w.guest[0]), PGSHARE_ERR_INPROGRESS);
    /* the last mapping that is known of does not take it over either */
    ck_assert_int_eq(world_write(&w, 1, 20, 1), 0);
    ck_assert_int_eq(pgshare_host_run(w.host, NULL, NULL), 0);
    ck_assert_uint_eq(world_stats(&w).frames, 1);
    ck_assert_uint_eq(world_stats(&w).mappings, 0);
    ck_assert_uint_eq(pgshare_fault_backend_release(w.faults), 1);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).frames, 0);
    world_close(&w);
}
END_TEST

/* Between a page's commit, which frees its word, and the end of its frame's
 * being pending a guest may write to it. */
START_TEST(test_a_frame_that_was_left_while_pending_dies)
{
    struct world_options options = { .flavour = PGSHARE_MOCK_XEN };
    struct pgs_extent *extent;
    struct pgs_frames *frames;
    struct world w;
    uint64_t word;

    world_open(&w, &options);
    frames = &w.host->frames;
    world_share(&w, 20, 1);
    word = atomic_load(pgs_word_of(pgs_domain_of(w.host, w.dom[0]), 20));
    extent = pgs_extent_new(w.host, 1);
    ck_assert_ptr_nonnull(extent);
    extent->frame[0] = pgs_node_frame(frames, pgs_word_index(word));
    pgs_frame_at(frames, extent->frame[0])->pending++;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(world_write(&w, i, 20, 1), 0);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).mappings, 0);
    ck_assert_uint_eq(world_stats(&w).frames, 1);
    pgs_extent_end_pending(extent, w.host, 0);
    pgs_extent_free(w.host, extent);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).frames, 0);
    world_close(&w);
}
END_TEST

/* ---- refusals ---------------------------------------------------------- */

START_TEST(test_memory_is_not_added_twice)
{
    struct world w;

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_mock_populate(w.guest[0], 600, 1), 0);
    ck_assert_int_eq(pgshare_domain_ram_add(w.host, w.dom[0], 598, 4),
                     PGSHARE_ERR_EXISTS);
    for (uint64_t gfn = 598; gfn < 602; gfn++)
        ck_assert_uint_eq(world_gfn(&w, 0, gfn).state,
                          gfn == 600 ? PGSHARE_GFN_PRIVATE : PGSHARE_GFN_HOLE);
    world_close(&w);
}
END_TEST

static int refuse_domain(struct pgshare_backend *backend, uint64_t dom,
                         const struct pgshare_domain_options *options,
                         struct pgshare_domain_attach *ret_attach)
{
    return PGSHARE_ERR_NOTSUP;
}

START_TEST(test_a_domain_that_the_backend_refuses_is_not_there)
{
    struct pgshare_domain_options options = { .size = sizeof(options),
                                              .domid = 77,
                                              .gfns = 16 };
    struct pgshare_backend_ops ops;
    const struct pgshare_backend_ops *real;
    struct world w;
    uint64_t dom = 1;

    world_open(&w, NULL);
    real = w.host->backend->ops;
    ops = *real;
    ops.domain_add = refuse_domain;
    options.group = w.group;
    w.host->backend->ops = &ops;
    ck_assert_int_eq(pgshare_domain_add(w.host, &options, &dom),
                     PGSHARE_ERR_NOTSUP);
    w.host->backend->ops = real;
    ck_assert_uint_eq(dom, 1);
    ck_assert_uint_eq(world_stats(&w).domains, 2);
    world_close(&w);
}
END_TEST

/* ---- harvests ---------------------------------------------------------- */

START_TEST(test_harvests_that_take_long_are_seldom)
{
    const uint64_t took = UINT64_C(1000000000);
    struct world_options options = { .flavour = PGSHARE_MOCK_PLAIN_PLATFORM };
    struct world w;
    uint64_t now;

    world_open(&w, &options);
    world_share(&w, 0, 4);
    world_settle(&w);
    atomic_store(&w.host->harvest_ns, took);
    pgshare_mock_clock_advance(w.machine, UINT64_C(11000000));
    now = pgs_now(&w.host->platform);
    ck_assert_int_eq(pgshare_host_run(w.host, NULL, NULL), 0);
    ck_assert_uint_ge(w.host->policy->next_harvest, now + 20 * took);
    /* unless somebody asks for one */
    ck_assert_int_eq(world_write(&w, 0, 1, 7), 0);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).broken, 1);
    world_close(&w);
}
END_TEST

/* ---- many domains ------------------------------------------------------ */

/* More than half of all slots. */
#define MANY 33000u

static int accept_domain(struct pgshare_backend *backend, uint64_t dom,
                         const struct pgshare_domain_options *options,
                         struct pgshare_domain_attach *ret_attach)
{
    return 0;
}

static void drop_domain(struct pgshare_backend *backend, void *cookie)
{
}

/* Domains of no memory, that the machine knows nothing of. */
struct crowd {
    struct world w;
    struct pgshare_backend_ops ops;
    const struct pgshare_backend_ops *real;
    uint64_t *dom;
    unsigned n;
};

static void add_crowd(struct crowd *crowd, unsigned n)
{
    struct pgshare_domain_options options = { .size = sizeof(options),
                                              .generation = 7,
                                              .gfns = 4 };

    world_open(&crowd->w, NULL);
    crowd->real = crowd->w.host->backend->ops;
    crowd->ops = *crowd->real;
    crowd->ops.domain_add = accept_domain;
    crowd->ops.domain_remove = drop_domain;
    crowd->w.host->backend->ops = &crowd->ops;
    crowd->dom = calloc(n, sizeof(*crowd->dom));
    ck_assert_ptr_nonnull(crowd->dom);
    for (crowd->n = 0; crowd->n < n; crowd->n++) {
        options.domid = crowd->n;
        if (pgshare_domain_add(crowd->w.host, &options, &crowd->dom[crowd->n]))
            ck_abort_msg("domain %u", crowd->n);
    }
}

static void remove_crowd(struct crowd *crowd)
{
    for (unsigned i = 0; i < crowd->n; i++)
        if (pgshare_domain_remove(crowd->w.host, crowd->dom[i]))
            ck_abort_msg("removing %u", i);
    free(crowd->dom);
    crowd->w.host->backend->ops = crowd->real;
    world_close(&crowd->w);
}

START_TEST(test_each_of_many_domains_has_its_own_group_and_name)
{
    struct pgshare_domain_options options = {
        .size = sizeof(options), .domid = 500, .generation = 7, .gfns = 4
    };
    struct pgshare_domain_info one = { .size = sizeof(one) };
    struct pgshare_domain_info two = { .size = sizeof(two) };
    struct crowd crowd;
    uint64_t dom;

    add_crowd(&crowd, MANY);
    ck_assert_int_eq(pgshare_domain_info(crowd.w.host, crowd.dom[0], &one), 0);
    ck_assert_int_eq(pgshare_domain_info(crowd.w.host, crowd.dom[MANY - 1],
                                         &two),
                     0);
    ck_assert_uint_ne(one.group, two.group);
    for (unsigned i = 0; i < MANY; i += 100) {
        ck_assert_int_eq(pgshare_domain_find(crowd.w.host, i, 7, &dom), 0);
        ck_assert_uint_eq(dom, crowd.dom[i]);
    }
    ck_assert_int_eq(pgshare_domain_add(crowd.w.host, &options, &dom),
                     PGSHARE_ERR_EXISTS);
    ck_assert_int_eq(pgshare_domain_remove(crowd.w.host, crowd.dom[500]), 0);
    ck_assert_int_eq(pgshare_domain_find(crowd.w.host, 500, 7, &dom),
                     PGSHARE_ERR_NODOMAIN);
    ck_assert_int_eq(pgshare_domain_add(crowd.w.host, &options,
                                        &crowd.dom[500]),
                     0);
    remove_crowd(&crowd);
}
END_TEST

/* However many they are, none waits for the others to be looked after. */
START_TEST(test_many_domains_have_their_turns_and_hints_theirs)
{
    static _Alignas(PGSHARE_PAGE_SIZE) unsigned char page[PGSHARE_PAGE_SIZE];
    struct pgshare_guest_ring *ring = (void *)page;
    struct pgshare_guest_ring_answer answer;
    struct pgshare_budget budget = { .size = sizeof(budget), .time_ns = 1 };
    struct pgshare_progress progress = { .size = sizeof(progress) };
    struct crowd crowd;
    struct pgshare_host *host;
    unsigned runs = 0;

    add_crowd(&crowd, 3000);
    host = crowd.w.host;
    world_settle(&crowd.w);
    pgshare_guest_ring_init(ring);
    for (unsigned i = 0; i < 3000; i += 2999) {
        memset(page, 0, sizeof(page));
        pgshare_guest_ring_init(ring);
        ck_assert_int_eq(pgshare_ring_attach(host, crowd.dom[i], ring,
                                             sizeof(page)),
                         0);
        ck_assert(
            pgshare_guest_ring_put(ring, PGSHARE_GUEST_RING_FREE, 0, 1, 1));
        ck_assert_int_eq(pgshare_hint_same(host, crowd.w.dom[0], 5 + i % 2,
                                           crowd.w.dom[1], 5 + i % 2, 1),
                         0);
        ck_assert_int_eq(pgshare_host_run(host, &budget, &progress), 0);
        ck_assert_uint_eq(progress.hints, 1);
        for (runs = 0; runs < 10 && progress.more; runs++)
            ck_assert_int_eq(pgshare_host_run(host, &budget, &progress), 0);
        ck_assert_uint_eq(progress.more, 0);
        ck_assert(pgshare_guest_ring_take(ring, &answer));
        ck_assert_int_eq(pgshare_ring_detach(host, crowd.dom[i]), 0);
    }
    remove_crowd(&crowd);
}
END_TEST

static int no_random(void *ctx, void *buf, size_t len)
{
    return -1;
}

/* Secrets are then made from the clock: worse, and no reason to stop. */
START_TEST(test_a_platform_may_have_no_random_bytes)
{
    struct pgshare_mock_options options = { .size = sizeof(options),
                                            .frames = 64 };
    struct pgshare_host_options host = { .size = sizeof(host),
                                         .allocator = pgs_test_allocator() };
    struct pgshare_mock_machine *machine;
    struct pgshare_platform platform;
    struct pgshare_host *h;
    uint64_t group;

    ck_assert_int_eq(pgshare_mock_machine_new(&options, &machine), 0);
    platform = *pgshare_mock_platform(machine);
    platform.random = no_random;
    host.platform = &platform;
    ck_assert_int_eq(pgshare_host_new(pgshare_mock_backend(machine), &host, &h),
                     0);
    ck_assert_int_eq(pgshare_group_open(h, "a", &group), 0);
    ck_assert_ptr_null(pgshare_host_free(h));
    pgshare_mock_machine_free(machine);
}
END_TEST

START_TEST(test_lineages_that_find_no_room_are_counted)
{
    struct world w;

    world_open(&w, NULL);
    for (unsigned i = 0; i <= PGS_LINEAGES_MAX; i++)
        ck_assert_int_eq(pgshare_hint_lineage(w.host, w.dom[0], w.dom[1]), 0);
    world_settle(&w);
    ck_assert_uint_eq(world_stats(&w).hints_dropped, 1);
    ck_assert_uint_eq(world_stats(&w).saved, WORLD_PAGES);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("host");
    TCase *flight = pgs_tcase(suite, "in flight");
    TCase *refusals = pgs_tcase(suite, "refusals");
    TCase *many = pgs_tcase(suite, "many domains");

    tcase_add_test(flight, test_what_became_a_secret_is_not_marked);
    tcase_add_test(flight, test_what_was_written_meanwhile_is_not_marked);
    tcase_add_test(flight, test_what_became_a_secret_does_not_join);
    tcase_add_test(flight,
                   test_a_removal_waits_for_no_operation_on_its_own_pages);
    tcase_add_test(flight,
                   test_a_removal_that_waits_keeps_no_frames_of_others);
    tcase_add_test(flight, test_a_frame_that_a_leaving_domain_may_map_is_kept);
    tcase_add_test(flight, test_a_frame_that_was_left_while_pending_dies);
    tcase_add_test(refusals, test_memory_is_not_added_twice);
    tcase_add_test(refusals,
                   test_a_domain_that_the_backend_refuses_is_not_there);
    tcase_add_test(pgs_tcase(suite, "harvests"),
                   test_harvests_that_take_long_are_seldom);
    tcase_add_test(many, test_each_of_many_domains_has_its_own_group_and_name);
    tcase_add_test(many, test_many_domains_have_their_turns_and_hints_theirs);
    tcase_add_test(refusals, test_a_platform_may_have_no_random_bytes);
    tcase_add_test(refusals, test_lineages_that_find_no_room_are_counted);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("host", make, argc, argv);
}
