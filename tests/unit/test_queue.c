/* SPDX-License-Identifier: BSD-2-Clause */
/* The hint queue: bounds, wrapping, many producers. */
#include "tables/queue.h"
#include "support/suite.h"

#include <pgshare/error.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define PRODUCERS 3u

static struct pgs_queue *queue_new(struct pgs_heap *heap, uint64_t size)
{
    struct pgs_queue *queue = aligned_alloc(64, sizeof(*queue));

    pgs_heap_init(heap, pgs_test_allocator());
    ck_assert_ptr_nonnull(queue);
    ck_assert_int_eq(pgs_queue_init(queue, heap, size), 0);
    return queue;
}

static void queue_free(struct pgs_queue *queue)
{
    pgs_queue_fini(queue);
    pgs_queue_fini(queue);
    free(queue);
}

static bool put(struct pgs_queue *queue, uint64_t gfn)
{
    struct pgs_hint hint = { .kind = PGS_HINT_SAME, .gfn = gfn };

    return pgs_queue_put(queue, &hint);
}

static uint64_t take(struct pgs_queue *queue)
{
    struct pgs_hint hint;

    ck_assert(pgs_queue_take(queue, &hint));
    ck_assert_uint_eq(hint.kind, PGS_HINT_SAME);
    return hint.gfn;
}

START_TEST(test_full_and_empty)
{
    uint64_t sizes[] = { 0, 1, 2, 3, 8, 1000 };
    uint64_t cells[] = { 2, 2, 2, 4, 8, 1024 };

    for (int i = 0; i < 6; i++) {
        struct pgs_heap heap;
        struct pgs_queue *queue = queue_new(&heap, sizes[i]);
        struct pgs_hint hint = { .gfn = 4711 };

        ck_assert(!pgs_queue_take(queue, &hint));
        for (uint64_t n = 0; n < cells[i]; n++)
            ck_assert(put(queue, n));
        ck_assert(!put(queue, 99));
        for (uint64_t n = 0; n < cells[i]; n++)
            ck_assert_uint_eq(take(queue), n);
        ck_assert(!pgs_queue_take(queue, &hint));
        ck_assert_uint_eq(hint.gfn, 4711);
        queue_free(queue);
    }
}
END_TEST

START_TEST(test_laps)
{
    struct pgs_heap heap;
    struct pgs_queue *queue = queue_new(&heap, 8);
    uint64_t in = 0;
    uint64_t out = 0;

    for (int lap = 0; lap < 1000; lap++) {
        for (int i = 0; i < 1 + lap % 8; i++)
            ck_assert(put(queue, in++));
        while (out < in)
            ck_assert_uint_eq(take(queue), out++);
    }
    queue_free(queue);
}
END_TEST

START_TEST(test_positions_may_wrap)
{
    struct pgs_heap heap;
    struct pgs_queue *queue = queue_new(&heap, 4);

    /* As after 2^64 - 8 hints. */
    queue->head = queue->tail = UINT64_MAX - 7;
    for (int i = 0; i < 4; i++)
        queue->cells[i].turn = UINT64_MAX - 7;
    for (uint64_t n = 0; n < 4; n++)
        ck_assert(put(queue, n));
    for (uint64_t n = 0; n < 4; n++)
        ck_assert_uint_eq(take(queue), n);
    /* Full in the last lap: the next position is 0. */
    for (uint64_t n = 0; n < 4; n++)
        ck_assert(put(queue, n));
    ck_assert_uint_eq(queue->head, 0);
    ck_assert(!put(queue, 4));
    for (uint64_t n = 0; n < 4; n++)
        ck_assert_uint_eq(take(queue), n);
    for (uint64_t n = 0; n < 40; n += 3) {
        for (uint64_t i = 0; i < 3; i++)
            ck_assert(put(queue, n + i));
        for (uint64_t i = 0; i < 3; i++)
            ck_assert_uint_eq(take(queue), n + i);
    }
    for (uint64_t n = 0; n < 4; n++)
        ck_assert(put(queue, n));
    ck_assert(!put(queue, 4));
    queue_free(queue);
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_heap heap;
    struct pgs_queue *queue = aligned_alloc(64, sizeof(*queue));

    pgs_heap_init(&heap, pgs_test_allocator());
    pgs_tracker_fail_once(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgs_queue_init(queue, &heap, 16), PGSHARE_ERR_NOMEM);
    pgs_queue_fini(queue);
    ck_assert_int_eq(pgs_queue_init(queue, &heap, UINT64_MAX),
                     PGSHARE_ERR_NOMEM);
    free(queue);
}
END_TEST

struct producer {
    struct pgs_queue *queue;
    uint64_t name;
    uint64_t hints;
    uint64_t refused;
};

static void *produce(void *arg)
{
    struct producer *producer = arg;

    for (uint64_t i = 0; i < producer->hints; i++) {
        struct pgs_hint hint = {
            .kind = PGS_HINT_BLOCK,
            .dom = producer->name,
            .gfn = i,
            .object = i * 3,
            .position = ~i,
            .born_ns = i + 1,
        };

        while (!pgs_queue_put(producer->queue, &hint)) {
            producer->refused++;
            sched_yield();
        }
    }
    return NULL;
}

START_TEST(test_many_producers)
{
    struct pgs_heap heap;
    struct pgs_queue *queue = queue_new(&heap, 64);
    struct producer producer[PRODUCERS];
    pthread_t threads[PRODUCERS];
    uint64_t next[PRODUCERS] = { 0 };
    uint64_t hints = 20000 * pgs_test_scale();
    struct pgs_hint hint;

    for (uint32_t i = 0; i < PRODUCERS; i++) {
        producer[i] = (struct producer){ queue, i, hints, 0 };
        pthread_create(&threads[i], NULL, produce, &producer[i]);
    }
    for (uint64_t taken = 0; taken < PRODUCERS * hints;) {
        if (!pgs_queue_take(queue, &hint)) {
            sched_yield();
            continue;
        }
        taken++;
        /* Whole, and each producer's in its order. */
        ck_assert_uint_lt(hint.dom, PRODUCERS);
        ck_assert_uint_eq(hint.gfn, next[hint.dom]++);
        ck_assert_uint_eq(hint.object, hint.gfn * 3);
        ck_assert_uint_eq(hint.position, ~hint.gfn);
        ck_assert_uint_eq(hint.born_ns, hint.gfn + 1);
    }
    for (uint32_t i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert(!pgs_queue_take(queue, &hint));
    queue_free(queue);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("queue");
    TCase *bounds = pgs_tcase(suite, "bounds");
    TCase *threads = pgs_tcase(suite, "threads");

    tcase_add_test(bounds, test_full_and_empty);
    tcase_add_test(bounds, test_laps);
    tcase_add_test(bounds, test_positions_may_wrap);
    tcase_add_test(bounds, test_each_allocation_failing);
    tcase_add_test(threads, test_many_producers);
    tcase_set_timeout(threads, 60);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("queue", make, argc, argv);
}
