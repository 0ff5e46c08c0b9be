/* SPDX-License-Identifier: BSD-2-Clause */
/* Marks: all or none, within the limit, from several threads. */
#include "tables/gfn.h"
#include "tables/mark.h"
#include "support/suite.h"
#include "random.h"

#include <pgshare/error.h>

#include <pthread.h>
#include <stdlib.h>

#define THREADS 3u

START_TEST(test_taken_marks_are_clean)
{
    struct pgs_heap heap;
    struct pgs_marks marks;
    uint32_t taken[10];

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_marks_init(&marks, &heap, 100), 0);
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(pgs_marks_take(&marks, 10, taken), 0);
        for (int i = 0; i < 10; i++) {
            struct pgs_mark *mark = pgs_mark_at(&marks, taken[i]);

            ck_assert_uint_eq(mark->page, PGS_PAGE_NONE);
            ck_assert_uint_eq(mark->ticket | mark->own_id, 0);
            mark->page = 5;
            mark->ticket = 6;
        }
        ck_assert_uint_eq(marks.used, 10);
        pgs_marks_give(&marks, 10, taken);
        ck_assert_uint_eq(marks.used, 0);
        for (int i = 0; i < 10; i++)
            ck_assert_uint_eq(pgs_mark_at(&marks, taken[i])->page,
                              PGS_PAGE_NONE);
    }
    ck_assert_uint_eq(marks.next, 10);
    pgs_marks_fini(&marks);
    pgs_marks_fini(&marks);
}
END_TEST

START_TEST(test_limit_is_all_or_none)
{
    struct pgs_heap heap;
    struct pgs_marks marks;
    uint32_t taken[10];

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_marks_init(&marks, &heap, 9), 0);
    ck_assert_int_eq(pgs_marks_take(&marks, 10, taken), PGSHARE_ERR_FULL);
    ck_assert_int_eq(pgs_marks_take(&marks, UINT32_MAX, taken),
                     PGSHARE_ERR_FULL);
    ck_assert_int_eq(pgs_marks_take(&marks, 0, taken), 0);
    ck_assert_int_eq(pgs_marks_take(&marks, 7, taken), 0);
    ck_assert_int_eq(pgs_marks_take(&marks, 3, taken + 7), PGSHARE_ERR_FULL);
    ck_assert_int_eq(pgs_marks_take(&marks, 2, taken + 7), 0);
    pgs_marks_give(&marks, 9, taken);
    pgs_marks_fini(&marks);

    ck_assert_int_eq(pgs_marks_init(&marks, &heap, 0), 0);
    ck_assert_int_eq(pgs_marks_take(&marks, 1, taken), PGSHARE_ERR_FULL);
    pgs_marks_fini(&marks);
    ck_assert_int_eq(pgs_marks_init(&marks, &heap, UINT64_MAX), 0);
    ck_assert_int_eq(pgs_marks_take(&marks, 1, taken), 0);
    pgs_marks_fini(&marks);
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    uint32_t *taken = calloc(10000, sizeof(*taken));
    uint64_t i = 0;

    do {
        struct pgs_heap heap;
        struct pgs_marks marks;
        int error;

        pgs_heap_init(&heap, &tracker->allocator);
        pgs_tracker_fail_once(tracker, i++);
        error = pgs_marks_init(&marks, &heap, 20000);
        if (!error) {
            /* Three chunks in one call. */
            error = pgs_marks_take(&marks, 10000, taken);
            ck_assert_uint_eq(marks.used, error ? 0 : 10000);
            if (error)
                ck_assert_int_eq(pgs_marks_take(&marks, 10000, taken), 0);
            pgs_marks_fini(&marks);
        }
        ck_assert_int_eq(error, pgs_tracker_has_failed(tracker)
                                    ? PGSHARE_ERR_NOMEM
                                    : 0);
        pgs_tracker_assert_empty(tracker);
    } while (pgs_tracker_has_failed(tracker));
    ck_assert_uint_eq(i, 5);
    free(taken);
}
END_TEST

struct worker {
    struct pgs_marks *marks;
    uint32_t name;
};

static void *take_and_give(void *arg)
{
    const struct worker *worker = arg;
    struct random random = random_start(worker->name);
    uint32_t taken[50];

    for (int step = 0; step < 3000; step++) {
        uint32_t n = random_below(&random, 50);

        if (pgs_marks_take(worker->marks, n, taken))
            abort();
        for (uint32_t i = 0; i < n; i++) {
            if (pgs_mark_at(worker->marks, taken[i])->page != PGS_PAGE_NONE)
                abort();
            pgs_mark_at(worker->marks, taken[i])->page = worker->name;
        }
        for (uint32_t i = 0; i < n; i++) {
            if (pgs_mark_at(worker->marks, taken[i])->page != worker->name)
                abort();
        }
        pgs_marks_give(worker->marks, n, taken);
    }
    return NULL;
}

START_TEST(test_threads_take_and_give)
{
    struct pgs_heap heap;
    struct pgs_marks marks;
    struct worker worker[THREADS];
    pthread_t threads[THREADS];

    pgs_heap_init(&heap, pgs_test_allocator());
    ck_assert_int_eq(pgs_marks_init(&marks, &heap, THREADS * 50), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){ &marks, i + 1 };
        pthread_create(&threads[i], NULL, take_and_give, &worker[i]);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(marks.used, 0);
    ck_assert(pgs_marks_is_valid(&marks));
    pgs_marks_fini(&marks);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("mark");
    TCase *marks = pgs_tcase(suite, "marks");

    tcase_add_test(marks, test_taken_marks_are_clean);
    tcase_add_test(marks, test_limit_is_all_or_none);
    tcase_add_test(marks, test_each_allocation_failing);
    tcase_add_test(marks, test_threads_take_and_give);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("mark", make, argc, argv);
}
