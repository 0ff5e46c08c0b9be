/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that comes where somebody is looking at the hole just then.
 */
#include "mechanism/domain.h"
#include "unit/world.h"

#include <pthread.h>
#include <unistd.h>

#define AT (WORLD_PAGES + 100u) /* a hole */

static _Atomic uint64_t *look_at(struct world *w, uint64_t gfn)
{
    _Atomic uint64_t *word = pgs_word_of(pgs_domain_of(w->host, w->dom[0]),
                                         gfn);
    uint64_t seen;

    ck_assert(pgs_word_trylock(word, false, &seen));
    return word;
}

static void *look_away(void *word)
{
    usleep(10000);
    pgs_word_unlock(word);
    return NULL;
}

static bool is_hole(struct world *w, uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_gfn_info(w->host, w->dom[0], gfn, &info), 0);
    return info.state == PGSHARE_GFN_HOLE;
}

START_TEST(test_memory_is_added_where_somebody_has_found_a_hole)
{
    struct world w;
    pthread_t thread;

    world_open(&w, NULL);
    ck_assert_int_eq(pthread_create(&thread, NULL, look_away,
                                    look_at(&w, AT)),
                     0);
    ck_assert_int_eq(pgshare_mock_populate(w.guest[0], AT - 8, 16), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; i < 16; i++)
        ck_assert(!is_hole(&w, AT - 8 + i));
    world_close(&w);
}
END_TEST

START_TEST(test_nothing_is_added_when_that_takes_too_long)
{
    struct world_options options = { .timeout_ns = 50000 };
    _Atomic uint64_t *word;
    struct world w;

    world_open(&w, &options);
    word = look_at(&w, AT);
    ck_assert_int_eq(pgshare_domain_ram_add(w.host, w.dom[0], AT - 8, 16),
                     PGSHARE_ERR_BUSY);
    for (unsigned i = 0; i < 16; i++)
        ck_assert(is_hole(&w, AT - 8 + i));
    pgs_word_unlock(word);
    world_settle(&w);
    ck_assert_uint_eq(pgs_calls_busy(w.host), 0);
    ck_assert_uint_eq(w.n_outcomes, 0);
    ck_assert_int_eq(pgshare_mock_populate(w.guest[0], AT - 8, 16), 0);
    world_close(&w);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("ram");
    TCase *tests = pgs_tcase(suite, "ram");

    tcase_add_test(tests, test_memory_is_added_where_somebody_has_found_a_hole);
    tcase_add_test(tests, test_nothing_is_added_when_that_takes_too_long);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("ram", make, argc, argv);
}
