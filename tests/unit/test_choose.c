/* SPDX-License-Identifier: BSD-2-Clause */
/* The scanner: which pages a pass looks at, and which it leaves alone. */
#include "policy/policy.h"
#include "unit/passes.h"

START_TEST(test_after_the_first_pass_only_what_was_written_is_looked_at)
{
    struct world w;

    open_scan(&w, true);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    ck_assert_uint_eq(pass(&w), 2 * WORLD_PAGES);
    ck_assert_uint_eq(pass(&w), 0);
    fill(&w, 0, 5, 1, 5);
    fill(&w, 0, 7, 2, 6);
    fill(&w, 1, 500, 1, 8);
    ck_assert_uint_eq(pass(&w), 4);
    ck_assert_uint_eq(pass(&w), 0);
    fill(&w, 1, 9, 1, 100007);
    ck_assert_uint_eq(pass(&w), 1);
    ck_assert_uint_eq(saved(&w), 1);
    world_close(&w);
}
END_TEST

START_TEST(test_pages_that_became_private_without_a_write_are_looked_at)
{
    struct world w;

    open_scan(&w, _i);
    pass(&w);
    ck_assert_int_eq(pgshare_unshare(w.host, w.dom[1], 10, 3, NULL), 0);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES - 3);
    ck_assert_uint_eq(pass(&w), 3);
    ck_assert_uint_eq(saved(&w), WORLD_PAGES);
    world_close(&w);
}
END_TEST

START_TEST(test_a_page_written_while_it_was_held_is_looked_at_later)
{
    struct world w;

    open_scan(&w, true);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    ck_assert_int_eq(pgshare_gfn_get(w.host, w.dom[1], 4, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    fill(&w, 1, 4, 1, 1004);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_int_eq(pgshare_gfn_put(w.host, w.dom[1], 4, 1, PGSHARE_GET_WRITE),
                     0);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 1);
    world_close(&w);
}
END_TEST

static void hold(struct world *w, unsigned guest, uint64_t gfn, uint32_t intent)
{
    ck_assert_int_eq(pgshare_gfn_get(w->host, w->dom[guest], gfn, 1, intent,
                                     NULL),
                     0);
}

static void put(struct world *w, unsigned guest, uint64_t gfn, uint32_t intent)
{
    ck_assert_int_eq(pgshare_gfn_put(w->host, w->dom[guest], gfn, 1, intent),
                     0);
}

START_TEST(test_what_became_known_beside_a_held_page_is_shared_when_it_is_put)
{
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    hold(&w, 1, 4, PGSHARE_GET_READ);
    hold(&w, 1, 4, PGSHARE_GET_READ);
    hold(&w, 1, 300, PGSHARE_GET_WRITE); /* which nobody makes use of */
    fill(&w, 0, 4, 1, 100004);
    fill(&w, 0, 300, 1, 100300);
    pass(&w);
    pass(&w);
    put(&w, 1, 4, PGSHARE_GET_READ);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0);
    put(&w, 1, 4, PGSHARE_GET_READ);
    pass(&w);
    ck_assert(together(&w, 0, 4, 1, 4));
    put(&w, 1, 300, PGSHARE_GET_WRITE); /* of the same block */
    pass(&w);
    ck_assert(together(&w, 0, 300, 1, 300));
    hold(&w, 1, 5, PGSHARE_GET_READ);
    put(&w, 1, 5, PGSHARE_GET_READ);
    if (_i) /* nobody has missed it */
        ck_assert_uint_eq(pass(&w), 0);
    ck_assert_uint_eq(saved(&w), 2);
    world_close(&w);
}
END_TEST

START_TEST(test_what_became_known_beside_a_secret_is_shared_when_it_is_none)
{
    struct pgshare_never_share left = { .size = sizeof(left) };
    struct world w;

    open_scan(&w, _i);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    ck_assert_int_eq(pgshare_declare_never_share(w.host, w.dom[1], 300, 2, 1,
                                                 &left),
                     0);
    fill(&w, 0, 300, 2, 100300);
    pass(&w);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 0);
    ck_assert_int_eq(pgshare_declare_never_share(w.host, w.dom[1], 300, 1, 0,
                                                 &left),
                     0);
    pass(&w);
    ck_assert(together(&w, 0, 300, 1, 300));
    ck_assert_uint_eq(saved(&w), 1);
    world_close(&w);
}
END_TEST

START_TEST(test_a_page_written_while_it_was_in_flight_is_looked_at_later)
{
    _Atomic uint64_t *word;
    struct world w;
    uint64_t seen;

    open_scan(&w, true);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    word = pgs_word_of(pgs_domain_of(w.host, w.dom[1]), 4);
    ck_assert(pgs_word_trylock(word, false, &seen));
    fill(&w, 1, 4, 1, 1004);
    pass(&w);
    pgs_word_unlock(word);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 1);
    ck_assert_uint_eq(pass(&w), 0);
    world_close(&w);
}
END_TEST

START_TEST(test_without_a_log_what_keeps_changing_is_left_alone)
{
    uint64_t looked = 0, least = UINT64_MAX;
    struct world w;

    open_scan(&w, false);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t n;

        for (unsigned k = 0; k < 100; k++)
            fill(&w, 0, k, 1, 500000 + 1000 * i + k);
        n = pass(&w);
        looked += n;
        least = n < least ? n : least;
    }
    ck_assert_uint_eq(least, 2 * WORLD_PAGES - 100);
    ck_assert_uint_lt(looked, 40 * 2 * WORLD_PAGES - 25 * 100);
    /* once it keeps still it is found again */
    for (unsigned i = 0; i < 100; i++)
        pass(&w);
    fill(&w, 1, 3, 1, 500000 + 1000 * 39 + 3);
    pass(&w);
    ck_assert_uint_eq(saved(&w), 1);
    ck_assert_uint_eq(pass(&w), 2 * WORLD_PAGES - 2);
    world_close(&w);
}
END_TEST

START_TEST(test_what_changes_before_every_second_pass_is_left_alone)
{
    uint64_t looked = 0;
    struct world w;

    open_scan(&w, false);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    for (unsigned i = 0; i < 64; i++) {
        if (i % 2)
            fill(&w, 0, 0, 100, 500000 + 1000 * i);
        looked += pass(&w);
    }
    ck_assert_uint_lt(looked, 64 * 2 * WORLD_PAGES - 50 * 100);
    world_close(&w);
}
END_TEST

/* Equal whenever it is looked at, and written as soon as it is shared. */
START_TEST(test_what_is_broken_again_and_again_is_left_alone)
{
    uint64_t before;
    struct world w;

    open_scan(&w, false);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    before = world_stats(&w).shared[PGSHARE_CAUSE_SCAN];
    for (unsigned i = 0; i < 40; i++) {
        fill(&w, 0, 3, 1, 100007);
        pass(&w);
        ck_assert_int_eq(world_write(&w, 0, 3, 77 + i), 0);
    }
    ck_assert_uint_ge(world_stats(&w).shared[PGSHARE_CAUSE_SCAN] - before, 3);
    ck_assert_uint_le(world_stats(&w).shared[PGSHARE_CAUSE_SCAN] - before, 6);
    /* once it keeps still it is shared again */
    fill(&w, 0, 3, 1, 100007);
    for (unsigned i = 0; i < 33; i++)
        pass(&w);
    ck_assert(together(&w, 0, 3, 1, 7));
    world_close(&w);
}
END_TEST

START_TEST(test_the_wait_grows_and_shrinks)
{
    static const uint32_t waits[] = { 1, 4, 16, 32, 32, 32 };
    uint64_t word = PGS_PRIVATE;
    uint32_t turn = 4090;

    for (unsigned i = 0; i < 6; i++) {
        ck_assert(pgs_scan_is_due(word, turn));
        word = PGS_PRIVATE | (uint64_t)pgs_scan_wait(word, turn, true) << 48;
        ck_assert_uint_eq(word >> 63, 0);
        ck_assert(waits[i] == 1 || !pgs_scan_is_due(word, turn + waits[i] - 1));
        ck_assert(pgs_scan_is_due(word, turn + waits[i]));
        turn += waits[i];
    }
    /* of a page that was shared for long it is long over */
    for (unsigned i = 0; i < 4096 - 32; i++)
        ck_assert(pgs_scan_is_due(word, turn + i));
    for (unsigned i = 0; i < 7; i++) {
        word = PGS_PRIVATE | (uint64_t)pgs_scan_wait(word, turn, false) << 48;
        turn += 64;
        ck_assert(pgs_scan_is_due(word, turn));
    }
    ck_assert_uint_eq(pgs_word_epoch(word), 0);
}
END_TEST

START_TEST(test_the_index_does_not_fill_with_what_is_gone)
{
    struct pgs_index *index;
    struct world w;

    open_scan(&w, _i);
    index = &w.host->policy->index;
    for (unsigned i = 0; i < 60; i++) {
        fill(&w, 0, 0, WORLD_PAGES, 100000 + 1000 * i);
        fill(&w, 1, 0, WORLD_PAGES, 100000 + 1000 * i);
        pass(&w);
        ck_assert_uint_le(index->used, 8 * WORLD_PAGES * 2);
    }
    world_close(&w);
}
END_TEST

START_TEST(test_a_fingerprint_that_proposes_wrongly_is_given_up)
{
    struct world w;
    uint64_t compared, print = 0;
    _Atomic uint64_t *word[2];

    open_scan(&w, true);
    fill(&w, 1, 0, WORLD_PAGES, 100000);
    pass(&w);
    word[0] = pgs_word_of(pgs_domain_of(w.host, w.dom[0]), 9);
    word[1] = pgs_word_of(pgs_domain_of(w.host, w.dom[1]), 9);
    for (unsigned i = 0; i < 6; i++) {
        /* the page that is known is said to be like the one that is written */
        if (print)
            *word[0] = (*word[0] & 0xffff) | print << PGS_PAYLOAD_SHIFT;
        fill(&w, 1, 9, 1, 100009);
        if (print) {
            struct pgs_domain *domain = pgs_domain_of(w.host, w.dom[0]);
            struct pgs_seek seek;

            pgs_index_seek(&w.host->policy->index,
                           pgs_scan_key((uint32_t)print, domain->group), &seek);
            pgs_index_remove(&w.host->policy->index, &seek,
                             pgs_page_of(domain, 9));
            pgs_index_add(&w.host->policy->index, &seek,
                          pgs_page_of(domain, 9), false);
        }
        compared = world_stats(&w).different;
        pass(&w);
        if (!print)
            print = pgs_word_index(*word[1]);
        else
            ck_assert_uint_eq(world_stats(&w).different - compared, i <= 4);
    }
    ck_assert_uint_eq(world_stats(&w).different, 4);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("choose");
    TCase *chosen = pgs_tcase(suite, "chosen");

    tcase_add_test(
        chosen, test_after_the_first_pass_only_what_was_written_is_looked_at);
    tcase_add_loop_test(
        chosen, test_pages_that_became_private_without_a_write_are_looked_at, 1,
        2);
    tcase_add_test(chosen,
                   test_a_page_written_while_it_was_held_is_looked_at_later);
    tcase_add_loop_test(
        chosen,
        test_what_became_known_beside_a_held_page_is_shared_when_it_is_put, 0,
        2);
    tcase_add_loop_test(
        chosen,
        test_what_became_known_beside_a_secret_is_shared_when_it_is_none, 0,
        2);
    tcase_add_test(
        chosen, test_a_page_written_while_it_was_in_flight_is_looked_at_later);
    tcase_add_test(chosen,
                   test_without_a_log_what_keeps_changing_is_left_alone);
    tcase_add_test(chosen,
                   test_what_changes_before_every_second_pass_is_left_alone);
    tcase_add_test(chosen, test_what_is_broken_again_and_again_is_left_alone);
    tcase_add_test(chosen, test_the_wait_grows_and_shrinks);
    tcase_add_loop_test(chosen, test_the_index_does_not_fill_with_what_is_gone,
                        0, 2);
    tcase_add_test(chosen,
                   test_a_fingerprint_that_proposes_wrongly_is_given_up);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("choose", make, argc, argv);
}
