/* SPDX-License-Identifier: BSD-2-Clause */
/* The repayment FIFO against a sorted array, and against a mean guest. */
#include "tables/fifo.h"
#include "tables/gfn.h"
#include "support/suite.h"
#include "random.h"

#include <pgshare/error.h>

#define PAGES 2000u

START_TEST(test_first_in_first_out)
{
    struct pgs_heap heap;
    struct pgs_fifo fifo;
    uint32_t slot[100];
    uint32_t page = 99;
    uint64_t stamp = 99;

    pgs_heap_init(&heap, pgs_test_allocator());
    pgs_fifo_init(&fifo, &heap);
    ck_assert(!pgs_fifo_oldest(&fifo, &page, &stamp));
    ck_assert_uint_eq(page, 99);
    for (uint32_t i = 0; i < 100; i++)
        ck_assert_int_eq(pgs_fifo_push(&fifo, 1000 + i, 7 * i, &slot[i]), 0);
    pgs_fifo_remove(&fifo, slot[0]);
    pgs_fifo_remove(&fifo, slot[50]);
    pgs_fifo_remove(&fifo, slot[99]);
    for (uint32_t i = 1; i < 99; i++) {
        if (i == 50)
            continue;
        ck_assert(pgs_fifo_oldest(&fifo, &page, &stamp));
        ck_assert_uint_eq(page, 1000 + i);
        ck_assert_uint_eq(stamp, 7 * i);
        pgs_fifo_remove(&fifo, slot[i]);
    }
    ck_assert_uint_eq(fifo.used, 0);
    pgs_fifo_fini(&fifo);
    pgs_fifo_fini(&fifo);
}
END_TEST

START_TEST(test_any_slot_may_be_asked_about)
{
    struct pgs_heap heap;
    struct pgs_fifo fifo;
    uint32_t slot;

    pgs_heap_init(&heap, pgs_test_allocator());
    pgs_fifo_init(&fifo, &heap);
    ck_assert(!pgs_fifo_has(&fifo, 0, 5));
    ck_assert_int_eq(pgs_fifo_push(&fifo, 5, 0, &slot), 0);
    ck_assert(pgs_fifo_has(&fifo, slot, 5));
    ck_assert(!pgs_fifo_has(&fifo, slot, 6));
    ck_assert(!pgs_fifo_has(&fifo, slot + 1, 5));
    ck_assert(!pgs_fifo_has(&fifo, slot + 1, 0));
    ck_assert(!pgs_fifo_has(&fifo, UINT32_MAX, 5));
    pgs_fifo_remove(&fifo, slot);
    ck_assert(!pgs_fifo_has(&fifo, slot, 5));
    ck_assert(!pgs_fifo_has(&fifo, slot, PGS_PAGE_NONE));
    pgs_fifo_fini(&fifo);
}
END_TEST

START_TEST(test_a_guest_cannot_make_it_grow)
{
    struct pgs_heap heap;
    struct pgs_fifo fifo;
    uint32_t slot[3];

    pgs_heap_init(&heap, pgs_test_allocator());
    pgs_fifo_init(&fifo, &heap);
    ck_assert_int_eq(pgs_fifo_push(&fifo, 1, 1, &slot[0]), 0);
    ck_assert_int_eq(pgs_fifo_push(&fifo, 2, 2, &slot[1]), 0);
    /* The oldest stays, the others overtake each other. */
    for (uint64_t i = 3; i < 100000; i++) {
        ck_assert_int_eq(pgs_fifo_push(&fifo, 3, i, &slot[2]), 0);
        pgs_fifo_remove(&fifo, slot[1]);
        slot[1] = slot[2];
    }
    ck_assert_uint_le(fifo.size, 32);
    pgs_fifo_fini(&fifo);
}
END_TEST

START_TEST(test_an_empty_fifo_keeps_little)
{
    struct pgs_heap heap;
    struct pgs_fifo fifo;
    uint32_t slot;

    pgs_heap_init(&heap, pgs_test_allocator());
    pgs_fifo_init(&fifo, &heap);
    for (uint32_t i = 0; i < 20000; i++)
        ck_assert_int_eq(pgs_fifo_push(&fifo, i, i, &slot), 0);
    ck_assert_uint_gt(heap.bytes, 20000 * 20);
    for (uint32_t i = 0; i < 20000; i++)
        pgs_fifo_remove(&fifo, i);
    ck_assert_uint_eq(heap.bytes, 0);
    ck_assert_int_eq(pgs_fifo_push(&fifo, 7, 7, &slot), 0);
    ck_assert(pgs_fifo_has(&fifo, slot, 7));
    pgs_fifo_fini(&fifo);
}
END_TEST

/* Pages in the order of their pushes. */
struct model {
    uint32_t page[PAGES];
    uint32_t slot[PAGES];
    uint64_t stamp[PAGES];
    uint32_t n;
};

static void model_remove(struct model *model, uint32_t at)
{
    model->n--;
    for (uint32_t i = at; i < model->n; i++) {
        model->page[i] = model->page[i + 1];
        model->slot[i] = model->slot[i + 1];
        model->stamp[i] = model->stamp[i + 1];
    }
}

static void check_model(const struct pgs_fifo *fifo, const struct model *model)
{
    uint32_t slot = fifo->oldest;

    ck_assert(pgs_fifo_is_valid(fifo));
    ck_assert_uint_eq(fifo->used, model->n);
    for (uint32_t i = 0; i < model->n; i++) {
        ck_assert_uint_eq(slot, model->slot[i]);
        ck_assert(pgs_fifo_has(fifo, slot, model->page[i]));
        ck_assert_uint_eq(fifo->stamps[slot], model->stamp[i]);
        slot = fifo->slots[slot].next;
    }
    ck_assert_uint_eq(slot, PGS_FIFO_END);
}

START_TEST(test_a_sorted_array_does_the_same)
{
    static struct model model;
    struct random random = random_start(6);
    struct pgs_heap heap;
    struct pgs_fifo fifo;

    pgs_heap_init(&heap, pgs_test_allocator());
    pgs_fifo_init(&fifo, &heap);
    for (uint64_t step = 0; step < 20000 * pgs_test_scale(); step++) {
        bool push = random_below(&random, 10) < (step / 4000 % 2 ? 4 : 7);

        if (push && model.n < PAGES) {
            model.page[model.n] = (uint32_t)step;
            model.stamp[model.n] = step * 3;
            ck_assert_int_eq(pgs_fifo_push(&fifo, (uint32_t)step, step * 3,
                                           &model.slot[model.n]), 0);
            model.n++;
        } else if (model.n > 0) {
            /* Half of the time the oldest, else any. */
            uint32_t at = random_below(&random, 2)
                              ? 0
                              : random_below(&random, model.n);

            pgs_fifo_remove(&fifo, model.slot[at]);
            model_remove(&model, at);
        }
        if (step % 100 == 0)
            check_model(&fifo, &model);
    }
    check_model(&fifo, &model);
    pgs_fifo_fini(&fifo);
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    uint64_t i = 0;

    do {
        struct pgs_heap heap;
        struct pgs_fifo fifo;
        uint32_t refused = 0;

        pgs_heap_init(&heap, &tracker->allocator);
        pgs_fifo_init(&fifo, &heap);
        pgs_tracker_fail_once(tracker, i++);
        for (uint32_t page = 0; page < 100; page++) {
            uint32_t slot = 12345;

            if (pgs_fifo_push(&fifo, page, page, &slot) == 0)
                continue;
            refused++;
            ck_assert_uint_eq(slot, 12345);
            ck_assert_uint_eq(fifo.used, page);
            ck_assert_int_eq(pgs_fifo_push(&fifo, page, page, &slot), 0);
        }
        ck_assert_uint_eq(refused, pgs_tracker_has_failed(tracker));
        for (uint32_t page = 0; page < 100; page++)
            ck_assert(pgs_fifo_has(&fifo, page, page));
        pgs_fifo_fini(&fifo);
        pgs_tracker_assert_empty(tracker);
    } while (pgs_tracker_has_failed(tracker));
    ck_assert_uint_eq(i, 7);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("fifo");
    TCase *order = pgs_tcase(suite, "order");
    TCase *memory = pgs_tcase(suite, "memory");

    tcase_add_test(order, test_first_in_first_out);
    tcase_add_test(order, test_any_slot_may_be_asked_about);
    tcase_add_test(order, test_a_sorted_array_does_the_same);
    tcase_add_test(memory, test_a_guest_cannot_make_it_grow);
    tcase_add_test(memory, test_an_empty_fifo_keeps_little);
    tcase_add_test(memory, test_each_allocation_failing);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("fifo", make, argc, argv);
}
