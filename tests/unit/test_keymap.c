/* SPDX-License-Identifier: BSD-2-Clause */
/* The block and file maps: which entry goes first. */
#include "tables/keymap.h"
#include "tables/gfn.h"
#include "support/suite.h"
#include "random.h"

#include <pgshare/error.h>

static void map_init(struct pgs_keymap *map, struct pgs_heap *heap,
                     uint64_t entries)
{
    pgs_heap_init(heap, pgs_test_allocator());
    pgs_keymap_init(map, heap, entries, pgs_mix(pgs_test_seed()));
}

static struct pgs_key key(uint64_t object, uint64_t position)
{
    return (struct pgs_key){ object, position };
}

static void put(struct pgs_keymap *map, uint64_t position, bool sticky)
{
    struct pgs_key at = key(1, position);

    ck_assert_int_eq(pgs_keymap_put(map, &at, (uint32_t)position, sticky), 0);
}

static bool has(struct pgs_keymap *map, uint64_t position)
{
    struct pgs_key at = key(1, position);
    uint32_t page = PGS_PAGE_NONE;

    if (!pgs_keymap_get(map, &at, &page)) {
        ck_assert_uint_eq(page, PGS_PAGE_NONE);
        return false;
    }
    ck_assert_uint_eq(page, position);
    return true;
}

START_TEST(test_last_page_of_a_key)
{
    struct pgs_heap heap;
    struct pgs_keymap map;
    struct pgs_key at = key(1, 2);
    struct pgs_key turned = key(2, 1);
    uint32_t page = 0;

    map_init(&map, &heap, 100);
    ck_assert(!pgs_keymap_get(&map, &at, &page));
    ck_assert_uint_eq(heap.bytes, 0);
    ck_assert_int_eq(pgs_keymap_put(&map, &at, 5, false), 0);
    ck_assert_int_eq(pgs_keymap_put(&map, &at, 6, false), 0);
    ck_assert(pgs_keymap_get(&map, &at, &page));
    ck_assert_uint_eq(page, 6);
    ck_assert(!pgs_keymap_get(&map, &turned, &page));
    ck_assert_uint_eq(map.used, 1);
    pgs_keymap_fini(&map);
    pgs_keymap_fini(&map);
    ck_assert_uint_eq(heap.bytes, 0);
}
END_TEST

START_TEST(test_sizes_are_rounded_up_to_sets)
{
    uint64_t entries[] = { 0, 1, 8, 9, 64, 65, 1000 };
    uint64_t sets[] = { 1, 1, 1, 2, 8, 16, 128 };

    for (int i = 0; i < 7; i++) {
        struct pgs_heap heap;
        struct pgs_keymap map;

        map_init(&map, &heap, entries[i]);
        ck_assert_uint_eq(map.sets, sets[i]);
        put(&map, 1, false);
        ck_assert_uint_eq(heap.bytes, sets[i] * 128);
        pgs_keymap_fini(&map);
    }
}
END_TEST

START_TEST(test_least_recently_used_goes_first)
{
    struct pgs_heap heap;
    struct pgs_keymap map;

    map_init(&map, &heap, PGS_KEYMAP_WAYS);
    for (uint64_t i = 0; i < PGS_KEYMAP_WAYS; i++)
        put(&map, i, false);
    ck_assert_uint_eq(map.used, PGS_KEYMAP_WAYS);
    ck_assert(has(&map, 0)); /* used again */
    put(&map, 2, false);     /* so is this */
    put(&map, 100, false);   /* 1 goes */
    put(&map, 101, false);   /* 3 goes */
    ck_assert(!has(&map, 1));
    ck_assert(!has(&map, 3));
    ck_assert(has(&map, 0));
    ck_assert(has(&map, 2));
    ck_assert(has(&map, 4));
    ck_assert(has(&map, 100));
    ck_assert(has(&map, 101));
    ck_assert_uint_eq(map.used, PGS_KEYMAP_WAYS);
    pgs_keymap_fini(&map);
}
END_TEST

START_TEST(test_libraries_go_last)
{
    struct pgs_heap heap;
    struct pgs_keymap map;

    map_init(&map, &heap, PGS_KEYMAP_WAYS);
    put(&map, 0, true);
    put(&map, 1, true);
    for (uint64_t i = 2; i < 1000; i++)
        put(&map, i, false);
    ck_assert(has(&map, 0));
    ck_assert(has(&map, 1));
    /* Among themselves, by age. */
    for (uint64_t i = 2; i < PGS_KEYMAP_WAYS; i++)
        put(&map, 2000 + i, true);
    ck_assert(has(&map, 0));
    put(&map, 3000, false);
    ck_assert(!has(&map, 1));
    ck_assert(has(&map, 0));
    put(&map, 3001, true);
    ck_assert(!has(&map, 3000));
    pgs_keymap_fini(&map);
}
END_TEST

START_TEST(test_the_clock_may_wrap)
{
    struct pgs_heap heap;
    struct pgs_keymap map;

    map_init(&map, &heap, PGS_KEYMAP_WAYS);
    map.clock = INT32_MAX - 3;
    for (uint64_t i = 0; i < 100; i++) {
        put(&map, i, false);
        for (uint64_t j = 0; j < 110; j++) {
            bool last = j <= i && i - j < PGS_KEYMAP_WAYS;

            /* Asking makes young, but in the same order. */
            ck_assert_int_eq(has(&map, j), last);
        }
    }
    pgs_keymap_fini(&map);
}
END_TEST

START_TEST(test_keys_spread_by_the_secret)
{
    struct pgs_heap heap;
    struct pgs_keymap map[2];
    uint64_t kept[2] = { 0 };
    uint64_t differ = 0;

    map_init(&map[0], &heap, 4096);
    pgs_keymap_init(&map[1], &heap, 4096, pgs_mix(pgs_test_seed() + 1));
    for (uint64_t i = 0; i < 4096; i++) {
        put(&map[0], i * 4096, false);
        put(&map[1], i * 4096, false);
    }
    for (uint64_t i = 0; i < 4096; i++) {
        bool first = has(&map[0], i * 4096);
        bool second = has(&map[1], i * 4096);

        kept[0] += first;
        kept[1] += second;
        differ += first != second;
    }
    /* As many as random sets of eight would keep: about 86 %. */
    ck_assert_uint_gt(kept[0], 4096 * 80 / 100);
    ck_assert_uint_gt(kept[1], 4096 * 80 / 100);
    ck_assert_uint_gt(differ, 100);
    pgs_keymap_fini(&map[0]);
    pgs_keymap_fini(&map[1]);
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_heap heap;
    struct pgs_keymap map;
    struct pgs_key at = key(1, 3);

    map_init(&map, &heap, 100);
    pgs_tracker_fail_once(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgs_keymap_put(&map, &at, 3, false), PGSHARE_ERR_NOMEM);
    ck_assert(!has(&map, 3));
    for (uint64_t i = 0; i < 10000; i++)
        put(&map, i, false);
    ck_assert_uint_eq(pgs_test_tracker()->calls, 2);
    pgs_keymap_fini(&map);
    pgs_keymap_init(&map, &heap, UINT64_MAX, 0);
    pgs_tracker_fail_once(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgs_keymap_put(&map, &at, 3, false), PGSHARE_ERR_NOMEM);
    pgs_keymap_fini(&map);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("keymap");
    TCase *keys = pgs_tcase(suite, "keys");
    TCase *eviction = pgs_tcase(suite, "eviction");

    tcase_add_test(keys, test_last_page_of_a_key);
    tcase_add_test(keys, test_sizes_are_rounded_up_to_sets);
    tcase_add_test(keys, test_keys_spread_by_the_secret);
    tcase_add_test(keys, test_each_allocation_failing);
    tcase_add_test(eviction, test_least_recently_used_goes_first);
    tcase_add_test(eviction, test_libraries_go_last);
    tcase_add_test(eviction, test_the_clock_may_wrap);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("keymap", make, argc, argv);
}
