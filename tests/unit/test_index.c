/* SPDX-License-Identifier: BSD-2-Clause */
/* The content index: what it finds, what it costs, what it loses. */
#include "tables/index.h"
#include "tables/gfn.h"
#include "support/suite.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

static void index_init(struct pgs_index *index, struct pgs_heap *heap)
{
    pgs_heap_init(heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_index_init(index, heap), 0);
}

static void add(struct pgs_index *index, uint64_t fingerprint, uint32_t page)
{
    struct pgs_seek seek;

    pgs_index_reserve(index, 1, 0);
    pgs_index_seek(index, fingerprint, &seek);
    pgs_index_add(index, &seek, page, false);
}

static void take_out(struct pgs_index *index, uint64_t fingerprint,
                     uint32_t page)
{
    struct pgs_seek seek;

    pgs_index_seek(index, fingerprint, &seek);
    pgs_index_remove(index, &seek, page);
}

static bool next(const struct pgs_index *index, uint64_t fingerprint,
                 uint32_t *cursor, uint32_t *ret_page)
{
    struct pgs_seek seek;

    pgs_index_seek(index, fingerprint, &seek);
    return pgs_index_next(index, &seek, cursor, ret_page);
}

static uint64_t fingerprint_of(uint64_t page)
{
    return pgs_mix(page + pgs_test_seed());
}

/* How often `page` is proposed; *ret_others: how often another is. */
static unsigned proposals(const struct pgs_index *index, uint64_t fingerprint,
                          uint32_t page, uint64_t *ret_others)
{
    uint32_t cursor = 0;
    uint32_t found;
    unsigned n = 0;

    while (next(index, fingerprint, &cursor, &found)) {
        if (found == page)
            n++;
        else
            ++*ret_others;
    }
    ck_assert(!next(index, fingerprint, &cursor, &found));
    return n;
}

START_TEST(test_empty)
{
    struct pgs_heap heap;
    struct pgs_index index;
    uint32_t cursor = 0;
    uint32_t page = 1;

    index_init(&index, &heap);
    ck_assert(!next(&index, 5, &cursor, &page));
    ck_assert_uint_eq(page, 1);
    take_out(&index, 5, 1);
    ck_assert_uint_eq(index.used, 0);
    pgs_index_fini(&index);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_any_ordinal_and_fingerprint)
{
    uint32_t pages[] = { 0, 1, UINT32_MAX - 1 };
    uint64_t fingerprints[] = { 0, 1, UINT32_MAX, UINT64_MAX };
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;

    index_init(&index, &heap);
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < 4; j++) {
            add(&index, fingerprints[j], pages[i]);
            ck_assert_uint_ge(proposals(&index, fingerprints[j], pages[i],
                                        &others),
                              1);
            take_out(&index, fingerprints[j], pages[i]);
            ck_assert_uint_eq(proposals(&index, fingerprints[j], pages[i],
                                        &others),
                              0);
        }
    }
    ck_assert_uint_eq(others, 0);
    ck_assert_uint_eq(index.used, 0);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_the_low_32_bits_count)
{
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;

    index_init(&index, &heap);
    add(&index, UINT64_C(0x1234567889abcdef), 3);
    ck_assert_uint_eq(proposals(&index, 0x89abcdef, 3, &others), 1);
    take_out(&index, 0x89abcdef, 3);
    ck_assert_uint_eq(index.used, 0);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_repeats_are_few)
{
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;

    index_init(&index, &heap);
    for (uint32_t page = 0; page < 20000; page++)
        add(&index, 77, page);
    ck_assert_uint_eq(index.used, PGS_INDEX_REPEATS);
    ck_assert_uint_eq(index.lost, 0);
    /* When one goes there is room for one. */
    take_out(&index, 77, 2);
    add(&index, 77, 19999);
    add(&index, 77, 19998);
    ck_assert_uint_eq(proposals(&index, 77, 19999, &others), 1);
    ck_assert_uint_eq(others, PGS_INDEX_REPEATS - 1);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_stale_ones_are_dropped_while_walking)
{
    struct pgs_heap heap;
    struct pgs_index index;
    uint32_t cursor = 0;
    uint32_t page;
    uint32_t seen = 0;

    index_init(&index, &heap);
    for (uint32_t i = 0; i < PGS_INDEX_REPEATS; i++)
        add(&index, 9, i);
    while (next(&index, 9, &cursor, &page)) {
        seen |= 1u << page;
        take_out(&index, 9, page);
    }
    ck_assert_uint_eq(seen, (1u << PGS_INDEX_REPEATS) - 1);
    ck_assert_uint_eq(index.used, 0);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_steady_growth_is_dense_and_loses_next_to_nothing)
{
    const uint32_t pages = 300000;
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;
    uint64_t missing = 0;
    double least_fill = 1;

    index_init(&index, &heap);
    for (uint32_t page = 0; page < pages; page++) {
        double fill;

        add(&index, fingerprint_of(page), page);
        fill = (double)index.used /
               ((double)index.n_buckets * PGS_BUCKET_ENTRIES);
        /* From the first split on: a base of 256 KiB is there at once. */
        if (page > 40000 && fill < least_fill)
            least_fill = fill;
    }
    ck_assert_double_ge(least_fill, 0.85);
    ck_assert_uint_le(index.lost, pages / 10000);
    for (uint32_t page = 0; page < pages; page++)
        missing += !proposals(&index, fingerprint_of(page), page, &others);
    ck_assert_uint_eq(missing, index.lost);
    ck_assert_uint_eq(index.used + index.n_homeless + index.lost, pages);
    ck_assert_uint_le(others, pages / 500);
    pgs_index_fini(&index);
}
END_TEST

/* Begun with room for all, for some, and with more than a chunk at once. */
START_TEST(test_it_begins_as_large_as_is_expected)
{
    static const uint32_t expected[] = { 100, 100000, 4000000 };
    const uint32_t pages = 100000;
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;

    index_init(&index, &heap);
    pgs_index_reserve(&index, 1, expected[_i]);
    ck_assert(pgs_index_is_valid(&index));
    ck_assert_uint_eq(index.n_buckets == index.buckets.size, _i == 2);
    ck_assert_uint_eq(index.n_buckets > 10000, _i > 0);
    for (uint32_t page = 0; page < pages; page++)
        add(&index, fingerprint_of(page), page);
    ck_assert_uint_eq(index.lost, 0);
    for (uint32_t page = 0; page < pages; page++)
        ck_assert(proposals(&index, fingerprint_of(page), page, &others));
    if (_i == 1) /* enough, and not more */
        ck_assert_double_ge((double)index.used /
                                ((double)index.n_buckets * PGS_BUCKET_ENTRIES),
                            0.84);
    pgs_index_fini(&index);
}
END_TEST

/* A page that was removed is not proposed, whatever was asked; and each that is
 * has a content that looks the same. */
static void check_proposals(const struct pgs_index *index,
                            const uint64_t *fingerprint, uint32_t page)
{
    struct pgs_seek seek;
    uint32_t cursor = 0;
    uint32_t found;

    pgs_index_seek(index, fingerprint[page], &seek);
    while (pgs_index_next(index, &seek, &cursor, &found)) {
        ck_assert(fingerprint[found] != 0);
        ck_assert(pgs_index_is_of(&seek, fingerprint[found]));
    }
}

START_TEST(test_whose_entry_it_is)
{
    const uint32_t pages = 500000;
    struct pgs_heap heap;
    struct pgs_index index;
    struct pgs_seek seek;
    uint32_t others = 0;

    index_init(&index, &heap);
    for (uint32_t page = 0; page < pages; page++)
        add(&index, fingerprint_of(page), page);
    pgs_index_seek(&index, fingerprint_of(0), &seek);
    for (uint32_t page = 1; page < pages; page++)
        others += pgs_index_is_of(&seek, fingerprint_of(page));
    ck_assert(pgs_index_is_of(&seek, fingerprint_of(0)));
    ck_assert(pgs_index_is_of(&seek, fingerprint_of(0) ^ UINT64_C(1) << 40));
    ck_assert_uint_le(others, 1); /* 31 bits tell nearly all apart */
    /* Of half a million, a hundred looks like another one. */
    others = 0;
    for (uint32_t page = 0; page < pages; page++) {
        uint32_t cursor = 0;
        uint32_t found;

        pgs_index_seek(&index, fingerprint_of(page), &seek);
        while (pgs_index_next(&index, &seek, &cursor, &found)) {
            others += found != page;
            ck_assert(pgs_index_is_of(&seek, fingerprint_of(found)));
        }
    }
    ck_assert_uint_gt(others, 20);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_an_array_does_nearly_the_same)
{
    enum { PAGES = 120000 };
    struct random random = random_start(7);
    uint64_t *fingerprint = calloc(PAGES, sizeof(*fingerprint));
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;
    uint64_t live = 0;
    uint64_t missing = 0;

    index_init(&index, &heap);
    for (uint64_t step = 0; step < 400000 * pgs_test_scale(); step++) {
        uint32_t page = random_below(&random, PAGES);

        if (fingerprint[page]) {
            take_out(&index, fingerprint[page], page);
            fingerprint[page] = 0;
        } else {
            fingerprint[page] = random_next(&random) | 1;
            add(&index, fingerprint[page], page);
        }
        ck_assert(pgs_index_is_valid(&index));
    }
    for (uint32_t page = 0; page < PAGES; page++) {
        uint64_t old = others;

        if (!fingerprint[page])
            continue;
        live++;
        missing += !proposals(&index, fingerprint[page], page, &others);
        if (others > old)
            check_proposals(&index, fingerprint, page);
    }
    ck_assert_uint_eq(index.used + index.n_homeless, live - missing);
    ck_assert_uint_le(missing, index.lost);
    ck_assert_uint_le(index.lost, 10 * pgs_test_scale());
    ck_assert_uint_le(others, PAGES / 100);
    free(fingerprint);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_without_memory)
{
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;

    index_init(&index, &heap);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    add(&index, 1, 1);
    ck_assert_uint_eq(index.used, 0);
    ck_assert_uint_eq(index.lost, 1);
    ck_assert_uint_eq(proposals(&index, 1, 1, &others), 0);
    take_out(&index, 1, 1);
    pgs_tracker_fail_never(pgs_test_tracker());
    add(&index, 1, 1);
    ck_assert_uint_eq(proposals(&index, 1, 1, &others), 1);
    pgs_index_fini(&index);
}
END_TEST

START_TEST(test_without_more_memory_it_fills_up_and_stays_whole)
{
    struct pgs_heap heap;
    struct pgs_index index;
    uint64_t others = 0;
    uint64_t found = 0;
    uint64_t room;
    uint32_t pages;

    index_init(&index, &heap);
    add(&index, fingerprint_of(0), 0);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    room = index.buckets.size * PGS_BUCKET_ENTRIES;
    pages = (uint32_t)(room + room / 20);
    for (uint32_t page = 1; page < pages; page++)
        add(&index, fingerprint_of(page), page);
    ck_assert_uint_eq(index.n_buckets, index.buckets.size);
    ck_assert_uint_eq(index.used + index.n_homeless + index.lost, pages);
    ck_assert_uint_ge(index.used, room / 100 * 98);
    for (uint32_t page = 0; page < pages; page++)
        found += proposals(&index, fingerprint_of(page), page, &others);
    ck_assert_uint_eq(found, index.used + index.n_homeless);
    /* Memory is back: it grows on, and loses no more. */
    pgs_tracker_fail_never(pgs_test_tracker());
    found = index.lost;
    for (uint32_t page = pages; page < pages + 20000; page++)
        add(&index, fingerprint_of(page), page);
    ck_assert_uint_gt(index.n_buckets, room / PGS_BUCKET_ENTRIES);
    ck_assert_uint_le(index.lost - found, 20);
    pgs_index_fini(&index);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("index");
    TCase *lookup = pgs_tcase(suite, "lookup");
    TCase *growth = pgs_tcase(suite, "growth");

    tcase_add_test(lookup, test_empty);
    tcase_add_test(lookup, test_any_ordinal_and_fingerprint);
    tcase_add_test(lookup, test_the_low_32_bits_count);
    tcase_add_test(lookup, test_repeats_are_few);
    tcase_add_test(lookup, test_stale_ones_are_dropped_while_walking);
    tcase_add_test(lookup, test_whose_entry_it_is);
    tcase_add_test(growth,
                   test_steady_growth_is_dense_and_loses_next_to_nothing);
    tcase_add_loop_test(growth, test_it_begins_as_large_as_is_expected, 0, 3);
    tcase_add_test(growth, test_an_array_does_nearly_the_same);
    tcase_add_test(growth, test_without_memory);
    tcase_add_test(growth,
                   test_without_more_memory_it_fills_up_and_stays_whole);
    tcase_set_timeout(growth, 60);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("index", make, argc, argv);
}
