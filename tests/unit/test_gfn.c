/* SPDX-License-Identifier: BSD-2-Clause */
/* The GFN table: chunks and ordinals; words, which several threads change. */
#include "tables/gfn.h"
#include "support/suite.h"
#include "random.h"

#include <pthread.h>

#define THREADS 3
#define ROUNDS 20000

static struct pgs_domain *domain_named(uintptr_t name)
{
    return (struct pgs_domain *)name;
}

START_TEST(test_lowest_chunk_first)
{
    struct pgs_heap heap;
    struct pgs_chunks chunks;
    uint32_t chunk;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_chunks_init(&chunks, &heap), 0);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_int_eq(pgs_chunks_add(&chunks, domain_named(8),
                                        (uint64_t)i << PGS_CHUNK_SHIFT,
                                        &chunk), 0);
        ck_assert_uint_eq(chunk, i);
    }
    ck_assert_uint_eq(chunks.list[3].base, 3 << PGS_CHUNK_SHIFT);
    ck_assert_ptr_eq(chunks.list[3].domain, domain_named(8));
    pgs_chunks_remove(&chunks, 3);
    pgs_chunks_remove(&chunks, 1);
    ck_assert_uint_eq(chunks.used, 5);
    ck_assert_int_eq(pgs_chunks_add(&chunks, domain_named(16), 0, &chunk), 0);
    ck_assert_uint_eq(chunk, 1);
    pgs_chunks_remove(&chunks, 4);
    ck_assert_uint_eq(chunks.used, 3);
    pgs_chunks_remove(&chunks, 1);
    pgs_chunks_remove(&chunks, 2);
    pgs_chunks_remove(&chunks, 0);
    ck_assert_uint_eq(chunks.used, 0);
    pgs_chunks_fini(&chunks);
    pgs_chunks_fini(&chunks);
}
END_TEST

START_TEST(test_words_are_zero_and_their_own)
{
    struct pgs_heap heap;
    struct pgs_chunks chunks;
    uint32_t chunk[2];

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_chunks_init(&chunks, &heap), 0);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pgs_chunks_add(&chunks, NULL, 0, &chunk[i]), 0);
    atomic_store(pgs_word_at(&chunks, PGS_CHUNK_GFNS - 1), 1);
    atomic_store(pgs_word_at(&chunks, PGS_CHUNK_GFNS), 2);
    ck_assert_uint_eq(chunks.list[0].words[PGS_CHUNK_GFNS - 1], 1);
    ck_assert_uint_eq(chunks.list[1].words[0], 2);
    pgs_chunks_remove(&chunks, 0);
    ck_assert_int_eq(pgs_chunks_add(&chunks, NULL, 0, &chunk[0]), 0);
    for (uint32_t i = 0; i < PGS_CHUNK_GFNS; i++)
        ck_assert_uint_eq(atomic_load(pgs_word_at(&chunks, i)), 0);
    pgs_chunks_fini(&chunks);
}
END_TEST

START_TEST(test_no_ordinal_is_none)
{
    static _Atomic uint64_t dummy;
    struct pgs_heap heap;
    struct pgs_chunks chunks;
    uint32_t chunk;

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_chunks_init(&chunks, &heap), 0);
    /* As if all were in use; real ones would be 32 GiB. */
    for (uint32_t i = 0; i < PGS_CHUNKS_MAX; i++)
        chunks.list[i].words = &dummy;
    chunks.used = PGS_CHUNKS_MAX;
    ck_assert_int_eq(pgs_chunks_add(&chunks, NULL, 0, &chunk),
                     PGSHARE_ERR_FULL);
    chunks.list[PGS_CHUNKS_MAX - 1].words = NULL;
    chunks.used = PGS_CHUNKS_MAX - 1;
    chunks.first_free = 7;
    ck_assert_int_eq(pgs_chunks_add(&chunks, NULL, 0, &chunk), 0);
    ck_assert_uint_lt(((uint64_t)chunk << PGS_CHUNK_SHIFT) +
                          PGS_CHUNK_GFNS - 1,
                      PGS_PAGE_NONE);
    pgs_chunks_remove(&chunks, chunk);
    for (uint32_t i = 0; i < PGS_CHUNKS_MAX; i++)
        chunks.list[i].words = NULL;
    chunks.used = 0;
    chunks.first_free = 0;
    pgs_chunks_fini(&chunks);
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    uint64_t i = 0;

    do {
        struct pgs_heap heap;
        struct pgs_chunks chunks;
        uint32_t chunk;
        int error;

        pgs_heap_init(&heap, &tracker->allocator);
        pgs_tracker_fail_once(tracker, i++);
        error = pgs_chunks_init(&chunks, &heap);
        for (int n = 0; n < 3 && !error; n++)
            error = pgs_chunks_add(&chunks, NULL, 0, &chunk);
        ck_assert_int_eq(error, pgs_tracker_has_failed(tracker)
                                    ? PGSHARE_ERR_NOMEM
                                    : 0);
        if (chunks.list)
            ck_assert(pgs_chunks_is_valid(&chunks));
        pgs_chunks_fini(&chunks);
        pgs_tracker_assert_empty(tracker);
    } while (pgs_tracker_has_failed(tracker));
    ck_assert_uint_eq(i, 5);
}
END_TEST

START_TEST(test_chunks_model)
{
    enum { N = 40 };
    struct pgs_heap heap;
    struct pgs_chunks chunks;
    struct random random = random_start(1);
    bool used[N] = { false };

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_chunks_init(&chunks, &heap), 0);
    for (uint64_t step = 0; step < 2000 * pgs_test_scale(); step++) {
        uint32_t at = random_below(&random, N);
        uint32_t lowest = 0;

        while (lowest < N && used[lowest])
            lowest++;
        if (used[at]) {
            pgs_chunks_remove(&chunks, at);
            used[at] = false;
        } else {
            uint32_t chunk;

            ck_assert_int_eq(pgs_chunks_add(&chunks, NULL, 0, &chunk), 0);
            ck_assert_uint_eq(chunk, lowest);
            used[chunk] = true;
        }
        ck_assert(pgs_chunks_is_valid(&chunks));
    }
    pgs_chunks_fini(&chunks);
}
END_TEST

START_TEST(test_word_fields)
{
    uint64_t word = pgs_word_with(PGS_SHARED, 0x89abcdef, 0x4567);

    ck_assert_uint_eq(pgs_word_state(word), PGS_SHARED);
    ck_assert_uint_eq(pgs_word_index(word), 0x89abcdef);
    ck_assert_uint_eq(pgs_word_epoch(word), 0x4567);
    ck_assert_uint_eq(word & (PGS_ATTR_ALL | PGS_BUSY | PGS_WANTED), 0);
}
END_TEST

START_TEST(test_busy_and_wanted)
{
    _Atomic uint64_t word = PGS_PRIVATE | PGS_ATTR_FREE;
    uint64_t seen = 0;

    ck_assert(pgs_word_trylock(&word, true, &seen));
    ck_assert_uint_eq(seen, PGS_PRIVATE | PGS_ATTR_FREE);
    ck_assert(!pgs_word_trylock(&word, false, &seen));
    ck_assert_uint_eq(word, PGS_PRIVATE | PGS_ATTR_FREE | PGS_BUSY);
    ck_assert(!pgs_word_unlock(&word));
    ck_assert(pgs_word_trylock(&word, false, &seen));
    ck_assert(!pgs_word_trylock(&word, true, &seen));
    ck_assert(pgs_word_unlock(&word));
    ck_assert_uint_eq(word, PGS_PRIVATE | PGS_ATTR_FREE);
}
END_TEST

START_TEST(test_commit)
{
    _Atomic uint64_t word =
        PGS_PRIVATE | PGS_BUSY | PGS_WANTED | PGS_ATTR_FREE | PGS_ATTR_SCRUB;
    uint64_t before = word;
    uint64_t next = pgs_word_with(PGS_SHARED, 77, 3);
    uint64_t old = 0;

    ck_assert(!pgs_word_commit(&word, next, 0, PGS_ATTR_SCRUB, &old));
    ck_assert_uint_eq(word, before);
    ck_assert_uint_eq(old, 0);
    ck_assert(pgs_word_commit(&word, next, PGS_ATTR_FREE, PGS_ATTR_NEVER,
                              &old));
    ck_assert_uint_eq(old, before);
    ck_assert_uint_eq(word, next | PGS_ATTR_SCRUB);
}
END_TEST

struct contest {
    _Atomic uint64_t word;
    uint64_t plain; /* the holder of BUSY's */
};

static void *take_turns(void *arg)
{
    struct contest *contest = arg;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t seen;

        while (!pgs_word_trylock(&contest->word, i % 2, &seen))
            sched_yield();
        contest->plain++;
        if (i % 3 == 0)
            pgs_word_unlock(&contest->word);
        else
            ck_assert(pgs_word_commit(&contest->word,
                                      pgs_word_with(PGS_PRIVATE, 1, 0), 0, 0,
                                      NULL));
    }
    return NULL;
}

static void *declare(void *arg)
{
    struct contest *contest = arg;
    void *lost = NULL;

    for (int i = 0; i < ROUNDS; i++) {
        atomic_fetch_or(&contest->word, PGS_ATTR_NEVER);
        if (!(atomic_load(&contest->word) & PGS_ATTR_NEVER))
            lost = arg;
        atomic_fetch_and(&contest->word, ~PGS_ATTR_NEVER);
        if (atomic_load(&contest->word) & PGS_ATTR_NEVER)
            lost = arg;
    }
    return lost;
}

START_TEST(test_declarations_are_not_lost)
{
    struct contest contest = { .word = PGS_PRIVATE };
    pthread_t threads[THREADS];
    pthread_t declarer;
    void *lost = NULL;

    pthread_create(&declarer, NULL, declare, &contest);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, take_turns, &contest);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(declarer, &lost);
    ck_assert_ptr_null(lost);
    ck_assert_uint_eq(contest.plain, THREADS * ROUNDS);
    ck_assert_uint_eq(contest.word & (PGS_BUSY | PGS_ATTR_ALL), 0);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("gfn");
    TCase *chunks = pgs_tcase(suite, "chunks");
    TCase *words = pgs_tcase(suite, "words");

    tcase_add_test(chunks, test_lowest_chunk_first);
    tcase_add_test(chunks, test_words_are_zero_and_their_own);
    tcase_add_test(chunks, test_no_ordinal_is_none);
    tcase_add_test(chunks, test_each_allocation_failing);
    tcase_add_test(chunks, test_chunks_model);
    tcase_add_test(words, test_word_fields);
    tcase_add_test(words, test_busy_and_wanted);
    tcase_add_test(words, test_commit);
    tcase_add_test(words, test_declarations_are_not_lost);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("gfn", make, argc, argv);
}
