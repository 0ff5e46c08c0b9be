/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest rings: what an honest guest gets, and what a hostile one cannot do. */
#include "mechanism/ring.h"
#include "unit/world.h"

#include <pgshare/guest_ring.h>

#include <stdlib.h>

struct guest {
    struct world w;
    struct pgshare_guest_ring *ring;
    struct pgshare_guest_ring_answer answer;
};

static void open_guest(struct guest *g)
{
    world_open(&g->w, NULL);
    g->ring = aligned_alloc(PGSHARE_PAGE_SIZE, PGSHARE_PAGE_SIZE);
    ck_assert_ptr_nonnull(g->ring);
    memset(g->ring, 0, PGSHARE_PAGE_SIZE);
    pgshare_guest_ring_init(g->ring);
    ck_assert_int_eq(pgshare_ring_attach(g->w.host, g->w.dom[0], g->ring,
                                         PGSHARE_PAGE_SIZE),
                     0);
}

static void close_guest(struct guest *g)
{
    world_close(&g->w);
    free(g->ring);
}

static int kick(struct guest *g)
{
    return pgshare_ring_kick(g->w.host, g->w.dom[0]);
}

/* Puts one request, rings the doorbell, takes the answer's result. */
static int32_t ask(struct guest *g, uint16_t op, uint64_t gfn, uint32_t count)
{
    static uint16_t id;

    ck_assert(pgshare_guest_ring_put(g->ring, op, gfn, count, ++id));
    ck_assert_int_eq(kick(g), 0);
    ck_assert(pgshare_guest_ring_take(g->ring, &g->answer));
    ck_assert_uint_eq(g->answer.id, id);
    ck_assert_uint_eq(g->answer.op, op);
    return g->answer.result;
}

/* ---- attaching --------------------------------------------------------- */

START_TEST(test_attach_checks_the_page)
{
    struct guest g;
    struct pgshare_host *host;
    uint64_t dom;

    open_guest(&g);
    host = g.w.host;
    dom = g.w.dom[1];
    ck_assert_int_eq(pgshare_ring_attach(host, dom, NULL, PGSHARE_PAGE_SIZE),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_ring_attach(host, dom, g.ring, 100),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_ring_attach(host, g.w.dom[0], g.ring,
                                         PGSHARE_PAGE_SIZE),
                     PGSHARE_ERR_EXISTS);
    ck_assert_int_eq(pgshare_ring_kick(host, dom), PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_ring_detach(host, dom), PGSHARE_ERR_STATE);
    ck_assert_int_eq(pgshare_ring_detach(host, g.w.dom[0]), 0);
    g.ring->magic++;
    ck_assert_int_eq(pgshare_ring_attach(host, dom, g.ring, PGSHARE_PAGE_SIZE),
                     PGSHARE_ERR_PROTOCOL);
    g.ring->magic--;
    g.ring->version++;
    ck_assert_int_eq(pgshare_ring_attach(host, dom, g.ring, PGSHARE_PAGE_SIZE),
                     PGSHARE_ERR_PROTOCOL);
    ck_assert_int_eq(pgshare_ring_attach(host, 99, g.ring, PGSHARE_PAGE_SIZE),
                     PGSHARE_ERR_NODOMAIN);
    close_guest(&g);
}
END_TEST

START_TEST(test_a_ring_goes_with_its_domain)
{
    struct guest g;

    open_guest(&g);
    ck_assert_int_eq(pgshare_mock_leave(g.w.guest[0]), 0);
    memset(g.ring, 0xff, PGSHARE_PAGE_SIZE);
    close_guest(&g);
}
END_TEST

/* ---- an honest guest --------------------------------------------------- */

START_TEST(test_requests_are_declarations)
{
    struct guest g;

    open_guest(&g);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, 10, 5), 0);
    ck_assert_uint_eq(g.answer.gfn, 10);
    ck_assert_uint_eq(world_account(&g.w, 0).fifo, 5);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_WITHDRAW, 12, 1), 0);
    ck_assert_uint_eq(world_account(&g.w, 0).fifo, 4);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_NEVER_SHARE, 20, 2), 0);
    ck_assert_uint_eq(world_gfn(&g.w, 0, 21).flags, PGSHARE_GFN_NEVER_SHARE);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_FREE, 30, 2), 0);
    ck_assert_uint_eq(world_gfn(&g.w, 0, 31).flags, PGSHARE_GFN_FREE);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_ALLOCATED, 30, 2), 0);
    ck_assert_uint_eq(world_gfn(&g.w, 0, 31).flags, 0);
    close_guest(&g);
}
END_TEST

START_TEST(test_errors_name_the_page)
{
    struct guest g;

    open_guest(&g);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, 10, 1), 0);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, 8, 5), PGSHARE_ERR_STATE);
    ck_assert_uint_eq(g.answer.gfn, 10);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_FREE, WORLD_PAGES - 1, 2),
                     PGSHARE_ERR_HOLE);
    ck_assert_uint_eq(g.answer.gfn, WORLD_PAGES);
    close_guest(&g);
}
END_TEST

START_TEST(test_nonsense_is_answered)
{
    struct guest g;

    open_guest(&g);
    ck_assert_int_eq(ask(&g, 99, 0, 1), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_RECLAIMED, 0, 1),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, 0, 0), PGSHARE_ERR_RANGE);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, 0, 65537),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, WORLD_GFNS, 1),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_PUSH, UINT64_MAX, 2),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_WITHDRAW, 0, 2),
                     PGSHARE_ERR_RANGE);
    close_guest(&g);
}
END_TEST

START_TEST(test_the_runner_serves_and_the_ring_goes_round)
{
    struct guest g;
    unsigned asked = 0, answered = 0;

    open_guest(&g);
    for (unsigned round = 0; round < 20; round++) {
        while (pgshare_guest_ring_put(g.ring, PGSHARE_GUEST_RING_FREE, 3, 1,
                                      (uint16_t)asked))
            asked++;
        world_settle(&g.w);
        while (pgshare_guest_ring_take(g.ring, &g.answer)) {
            ck_assert_uint_eq(g.answer.id, answered);
            ck_assert_int_eq(g.answer.result, 0);
            answered++;
        }
    }
    ck_assert_uint_eq(asked, 20 * PGSHARE_GUEST_RING_REQUESTS);
    ck_assert_uint_eq(answered, asked);
    close_guest(&g);
}
END_TEST

START_TEST(test_mixed_requests_are_all_answered)
{
    struct guest g;
    uint16_t n = 0;

    open_guest(&g);
    for (uint16_t i = 0; i < 24; i++)
        ck_assert(pgshare_guest_ring_put(
            g.ring, (uint16_t)(1 + i % PGSHARE_GUEST_RING_ALLOCATED), 10u + i,
            1 + i % 3, i));
    ck_assert_int_eq(kick(&g), 0);
    while (pgshare_guest_ring_take(g.ring, &g.answer)) {
        ck_assert_uint_eq(g.answer.id, n);
        ck_assert_uint_eq(g.answer.op, 1 + n % PGSHARE_GUEST_RING_ALLOCATED);
        n++;
    }
    ck_assert_uint_eq(n, 24);
    ck_assert_uint_eq(g.ring->lost, 0);
    close_guest(&g);
}
END_TEST

START_TEST(test_requests_wait_for_room_for_answers)
{
    struct guest g;
    unsigned n = 0;

    open_guest(&g);
    for (unsigned i = 0; i < 3 * PGSHARE_GUEST_RING_REQUESTS; i++) {
        if (!pgshare_guest_ring_put(g.ring, PGSHARE_GUEST_RING_FREE, 3, 1,
                                    (uint16_t)i))
            break;
        ck_assert_int_eq(kick(&g), 0);
    }
    ck_assert_uint_eq(g.ring->answer_head, PGSHARE_GUEST_RING_ANSWERS);
    ck_assert_uint_eq(g.ring->request_tail, PGSHARE_GUEST_RING_ANSWERS);
    while (pgshare_guest_ring_take(g.ring, &g.answer))
        ck_assert_uint_eq(g.answer.id, n++);
    ck_assert_int_eq(kick(&g), 0);
    while (pgshare_guest_ring_take(g.ring, &g.answer))
        ck_assert_uint_eq(g.answer.id, n++);
    ck_assert_uint_eq(n, 3 * PGSHARE_GUEST_RING_REQUESTS);
    close_guest(&g);
}
END_TEST

START_TEST(test_reclaimed_pages_are_told_or_counted)
{
    struct guest g;
    struct pgs_domain *domain;

    open_guest(&g);
    domain = pgs_domain_of(g.w.host, g.w.dom[0]);
    for (uint64_t i = 0; i < PGSHARE_GUEST_RING_ANSWERS + 3; i++)
        pgs_ring_tell_reclaimed(domain, i);
    ck_assert_uint_eq(g.ring->lost, 3);
    for (uint64_t i = 0; i < PGSHARE_GUEST_RING_ANSWERS; i++) {
        ck_assert(pgshare_guest_ring_take(g.ring, &g.answer));
        ck_assert_uint_eq(g.answer.op, PGSHARE_GUEST_RING_RECLAIMED);
        ck_assert_uint_eq(g.answer.gfn, i);
    }
    ck_assert(!pgshare_guest_ring_take(g.ring, &g.answer));
    ck_assert_int_eq(pgshare_ring_detach(g.w.host, g.w.dom[0]), 0);
    pgs_ring_tell_reclaimed(domain, 1);
    ck_assert(!pgshare_guest_ring_take(g.ring, &g.answer));
    close_guest(&g);
}
END_TEST

/* ---- a hostile one ----------------------------------------------------- */

static void expect_detached(struct guest *g)
{
    ck_assert_int_eq(kick(g), PGSHARE_ERR_PROTOCOL);
    ck_assert_uint_eq(world_reports(&g->w, PGSHARE_REPORT_RING_DETACHED), 1);
    ck_assert_int_eq(kick(g), PGSHARE_ERR_STATE);
}

START_TEST(test_a_request_index_beyond_the_ring_ends_it)
{
    struct guest g;

    open_guest(&g);
    g.ring->request_head = PGSHARE_GUEST_RING_REQUESTS + 1;
    expect_detached(&g);
    close_guest(&g);
}
END_TEST

START_TEST(test_an_answer_index_beyond_the_ring_ends_it)
{
    struct guest g;

    open_guest(&g);
    g.ring->answer_tail = 1;
    expect_detached(&g);
    close_guest(&g);
}
END_TEST

START_TEST(test_an_index_that_goes_back_ends_it)
{
    struct guest g;

    open_guest(&g);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_FREE, 1, 1), 0);
    g.ring->request_head = 0;
    world_settle(&g.w);
    ck_assert_uint_eq(world_reports(&g.w, PGSHARE_REPORT_RING_DETACHED), 1);
    ck_assert_int_eq(kick(&g), PGSHARE_ERR_STATE);
    close_guest(&g);
}
END_TEST

/* The host's own half means nothing to the host. */
START_TEST(test_the_hosts_half_is_not_believed)
{
    struct guest g;

    open_guest(&g);
    ck_assert_int_eq(ask(&g, PGSHARE_GUEST_RING_FREE, 1, 1), 0);
    g.ring->answer_head = 77;
    g.ring->request_tail = 99;
    g.ring->lost = 5;
    g.ring->magic = 0;
    g.ring->requests[1] = (struct pgshare_guest_ring_request){
        .gfn = 2, .count = 1, .op = PGSHARE_GUEST_RING_FREE, .id = 9
    };
    g.ring->request_head = 2;
    ck_assert_int_eq(kick(&g), 0);
    ck_assert_uint_eq(g.ring->answer_head, 2);
    ck_assert_uint_eq(g.ring->request_tail, 2);
    ck_assert_uint_eq(g.ring->answers[1].id, 9);
    close_guest(&g);
}
END_TEST

START_TEST(test_random_pages_do_no_harm)
{
    struct guest g;
    uint64_t state = pgs_test_seed() | 1;

    open_guest(&g);
    for (unsigned round = 0; round < 2000 * pgs_test_scale(); round++) {
        unsigned char *bytes = (unsigned char *)g.ring;
        int r;

        for (unsigned i = 0; i < 40; i++) {
            state = state * UINT64_C(6364136223846793005) + 1;
            bytes[state >> 33 & 4095] = (unsigned char)(state >> 55);
        }
        g.ring->request_head = g.ring->request_tail + (uint32_t)(round % 67);
        g.ring->answer_tail = g.ring->answer_head - (uint32_t)(round % 131);
        r = kick(&g);
        if (r == PGSHARE_ERR_PROTOCOL || r == PGSHARE_ERR_STATE) {
            memset(g.ring, 0, 4096);
            pgshare_guest_ring_init(g.ring);
            ck_assert_int_eq(pgshare_ring_attach(g.w.host, g.w.dom[0], g.ring,
                                                 PGSHARE_PAGE_SIZE),
                             0);
        } else {
            ck_assert_int_eq(r, 0);
        }
    }
    world_settle(&g.w);
    world_assert_sound(&g.w);
    ck_assert_int_eq(pgshare_ring_detach(g.w.host, g.w.dom[0]), 0);
    close_guest(&g);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("ring");
    TCase *attach = pgs_tcase(suite, "attach");
    TCase *honest = pgs_tcase(suite, "honest");
    TCase *hostile = pgs_tcase(suite, "hostile");

    tcase_add_test(attach, test_attach_checks_the_page);
    tcase_add_test(attach, test_a_ring_goes_with_its_domain);
    tcase_add_test(honest, test_requests_are_declarations);
    tcase_add_test(honest, test_errors_name_the_page);
    tcase_add_test(honest, test_nonsense_is_answered);
    tcase_add_test(honest, test_the_runner_serves_and_the_ring_goes_round);
    tcase_add_test(honest, test_mixed_requests_are_all_answered);
    tcase_add_test(honest, test_requests_wait_for_room_for_answers);
    tcase_add_test(honest, test_reclaimed_pages_are_told_or_counted);
    tcase_add_test(hostile, test_a_request_index_beyond_the_ring_ends_it);
    tcase_add_test(hostile, test_an_answer_index_beyond_the_ring_ends_it);
    tcase_add_test(hostile, test_an_index_that_goes_back_ends_it);
    tcase_add_test(hostile, test_the_hosts_half_is_not_believed);
    tcase_add_test(hostile, test_random_pages_do_no_harm);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("ring", make, argc, argv);
}
