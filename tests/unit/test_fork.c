/* SPDX-License-Identifier: BSD-2-Clause */
/* Forks without cover: what the ledger knows of them. */
#include "unit/world.h"

#include <pgshare/fork.h>

static struct pgshare_mock_domain *open_stub(struct world *w, uint64_t *ret_dom)
{
    struct pgshare_mock_domain *child;

    world_open(w, NULL);
    ck_assert_int_eq(pgshare_mock_domain_new(w->machine, WORLD_GFNS, NULL,
                                             &child),
                     0);
    ck_assert_int_eq(pgshare_mock_join(child, w->host, w->group), 0);
    *ret_dom = pgshare_mock_handle(child);
    ck_assert_int_eq(pgshare_domain_freeze(w->host, w->dom[0], NULL), 0);
    return child;
}

static int fork_without_cover(struct world *w, uint64_t child)
{
    struct pgshare_fork_options options = { .size = sizeof(options),
                                            .flags = PGSHARE_FORK_UNSECURED };

    return pgshare_fork(w->host, w->dom[0], child, &options, NULL, NULL);
}

START_TEST(test_what_a_child_lacks_ends_with_it)
{
    struct pgshare_mock_domain *child;
    struct world w;
    uint64_t dom, value = 1;

    child = open_stub(&w, &dom);
    ck_assert_int_eq(fork_without_cover(&w, dom), 0);
    ck_assert_int_eq(w.host->unsecured, WORLD_PAGES);
    for (uint64_t gfn = 0; gfn < 3; gfn++)
        ck_assert_int_eq(pgshare_mock_write(child, gfn, 0, &value,
                                            sizeof(value)),
                         0);
    ck_assert_int_eq(w.host->unsecured, WORLD_PAGES - 3);
    world_assert_sound(&w);
    ck_assert_int_eq(pgshare_mock_leave(child), 0);
    ck_assert_int_eq(w.host->unsecured, 0);
    world_settle(&w);
    ck_assert_int_eq(w.host->written_off, 0);
    world_close(&w);
}
END_TEST

START_TEST(test_a_page_that_is_forked_later_counts_once)
{
    struct world w;
    _Atomic uint64_t *at;
    uint64_t dom;

    open_stub(&w, &dom);
    at = pgs_word_of(pgs_domain_of(w.host, w.dom[0]), 7);
    atomic_fetch_or(at, PGS_BUSY);
    ck_assert_int_ne(fork_without_cover(&w, dom), 0);
    ck_assert_int_eq(w.host->unsecured, world_stats(&w).saved);
    atomic_fetch_and(at, ~PGS_BUSY);
    ck_assert_int_eq(fork_without_cover(&w, dom), 0);
    ck_assert_int_eq(w.host->unsecured, WORLD_PAGES);
    world_close(&w);
}
END_TEST

/* What others have in reserve stays there, whoever goes. */
START_TEST(test_a_stub_that_is_none_any_more_may_demand)
{
    struct pgshare_mock_domain *child;
    uint64_t dom, value = 1;
    struct world w;

    child = open_stub(&w, &dom);
    ck_assert_int_eq(fork_without_cover(&w, dom), 0);
    if (_i)
        ck_assert_int_eq(pgshare_domain_thaw(w.host, w.dom[0]), 0);
    else
        ck_assert_int_eq(pgshare_mock_leave(w.guest[0]), 0);
    ck_assert_int_eq(w.host->unsecured, 0);
    world_settle(&w);
    ck_assert_int_eq(w.host->written_off, 0);
    ck_assert_uint_ge(world_stats(&w).reserve, world_stats(&w).saved);
    ck_assert_int_eq(pgshare_mock_write(child, 3, 0, &value, sizeof(value)),
                     0);
    world_close(&w);
}
END_TEST

START_TEST(test_pages_that_the_child_loses_are_none_of_its_demands)
{
    struct pgshare_mock_domain *child;
    struct world w;
    uint64_t dom;

    child = open_stub(&w, &dom);
    ck_assert_int_eq(fork_without_cover(&w, dom), 0);
    ck_assert_int_eq(pgshare_mock_depopulate(child, 8, 4), 0);
    ck_assert_int_eq(w.host->unsecured, WORLD_PAGES - 4);
    ck_assert_int_eq(pgshare_mock_leave(child), 0);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("fork");
    TCase *tcase = pgs_tcase(suite, "without cover");

    tcase_add_test(tcase, test_what_a_child_lacks_ends_with_it);
    tcase_add_test(tcase, test_a_page_that_is_forked_later_counts_once);
    tcase_add_loop_test(tcase, test_a_stub_that_is_none_any_more_may_demand, 0,
                        2);
    tcase_add_test(tcase,
                   test_pages_that_the_child_loses_are_none_of_its_demands);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("fork", make, argc, argv);
}
