/* SPDX-License-Identifier: BSD-2-Clause */
/* Frame records: taking, giving, their states. For lists see test_rmap.c. */
#include "tables/frame.h"
#include "tables/gfn.h"
#include "support/suite.h"
#include "random.h"

#include <pgshare/error.h>

#include <stdlib.h>

#define MANY 5000u

static struct pgs_frames *frames_new(struct pgs_heap *heap)
{
    struct pgs_frames *frames = aligned_alloc(64, sizeof(*frames));

    pgs_heap_init(heap, pgs_test_allocator());
    ck_assert_ptr_nonnull(frames);
    ck_assert_int_eq(pgs_frames_init(frames, heap), 0);
    return frames;
}

static void frames_free(struct pgs_frames *frames)
{
    pgs_frames_fini(frames);
    pgs_frames_fini(frames);
    free(frames);
}

static void give(struct pgs_frames *frames, uint32_t frame)
{
    pgs_frame_lock(frames, frame);
    pgs_frame_give(frames, frame);
    pgs_frame_unlock(frames, frame);
}

START_TEST(test_fresh_frames_are_consecutive_and_live)
{
    struct pgs_heap heap;
    struct pgs_frames *frames = frames_new(&heap);
    uint32_t taken[600];

    ck_assert_uint_eq(pgs_frames_end(frames), 0);
    ck_assert_int_eq(pgs_frames_take(frames, 600, taken), 0);
    for (uint32_t i = 0; i < 600; i++) {
        struct pgs_frame *frame = pgs_frame_at(frames, taken[i]);

        ck_assert_uint_eq(taken[i], taken[0] + i);
        ck_assert_uint_eq(frame->flags, PGS_FRAME_LIVE);
        ck_assert_uint_eq(frame->pending, 1);
        ck_assert_uint_eq(frame->head, PGS_NONE);
        ck_assert_uint_eq(frame->id | frame->ticket | frame->mappings, 0);
        ck_assert(pgs_frame_is_valid(frame));
    }
    ck_assert_uint_eq(pgs_frames_end(frames), 600);
    frames_free(frames);
}
END_TEST

START_TEST(test_many_idle_frames_are_used_again)
{
    struct pgs_heap heap;
    struct pgs_frames *frames = frames_new(&heap);
    uint32_t *taken = calloc(MANY, sizeof(*taken));

    ck_assert_int_eq(pgs_frames_take(frames, MANY, taken), 0);
    for (uint32_t i = 0; i < MANY; i++)
        give(frames, taken[i]);
    /* Whatever is taken now, the table must not grow by more than it may
     * leave idle: an eighth, and a step for each stripe in use. */
    for (uint32_t i = 0; i < MANY; i++)
        ck_assert_int_eq(pgs_frames_take(frames, 1, &taken[i]), 0);
    ck_assert_uint_le(pgs_frames_end(frames), MANY * 9 / 8 + 16 * 10);
    free(taken);
    frames_free(frames);
}
END_TEST

START_TEST(test_taken_frames_are_distinct)
{
    struct pgs_heap heap;
    struct pgs_frames *frames = frames_new(&heap);
    struct random random = random_start(2);
    uint32_t *taken = calloc(MANY, sizeof(*taken));
    bool *live = calloc(2 * MANY, sizeof(*live));
    uint32_t n = 0;

    for (uint64_t step = 0; step < 2000 * pgs_test_scale(); step++) {
        uint32_t some = 1 + random_below(&random, 40);

        if (random_below(&random, 2) && n + some <= MANY) {
            ck_assert_int_eq(pgs_frames_take(frames, some, taken + n), 0);
            for (uint32_t i = n; i < n + some; i++) {
                ck_assert_uint_lt(taken[i], 2 * MANY);
                ck_assert(!live[taken[i]]);
                live[taken[i]] = true;
            }
            n += some;
        }
        for (; n > 0 && some > 20; some--) {
            uint32_t at = random_below(&random, n);

            give(frames, taken[at]);
            live[taken[at]] = false;
            taken[at] = taken[--n];
        }
    }
    for (uint32_t i = 0; i < pgs_frames_end(frames); i++)
        ck_assert_int_eq(live[i], pgs_frame_at(frames, i)->flags ==
                                      PGS_FRAME_LIVE);
    free(live);
    free(taken);
    frames_free(frames);
}
END_TEST

START_TEST(test_without_memory_the_idle_ones_serve)
{
    struct pgs_heap heap;
    struct pgs_frames *frames = frames_new(&heap);
    uint32_t chunk = 1u << frames->frames.shift;
    uint32_t *taken = calloc(chunk, sizeof(*taken));
    uint32_t more[4];

    ck_assert_int_eq(pgs_frames_take(frames, chunk, taken), 0);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgs_frames_take(frames, 1, more), PGSHARE_ERR_NOMEM);
    give(frames, taken[5000]);
    give(frames, taken[100]);
    give(frames, taken[60000]);
    /* All or nothing: the three go back to where they were. */
    ck_assert_int_eq(pgs_frames_take(frames, 4, more), PGSHARE_ERR_NOMEM);
    ck_assert_uint_eq(pgs_frame_at(frames, taken[5000])->flags, 0);
    ck_assert_int_eq(pgs_frames_take(frames, 3, more), 0);
    ck_assert_int_eq(pgs_frames_take(frames, 1, more + 3), PGSHARE_ERR_NOMEM);
    ck_assert_uint_eq(more[0] + more[1] + more[2],
                      taken[5000] + taken[100] + taken[60000]);
    pgs_tracker_fail_never(pgs_test_tracker());
    ck_assert_int_eq(pgs_frames_take(frames, 1, more), 0);
    ck_assert_uint_eq(more[0], chunk);
    free(taken);
    frames_free(frames);
}
END_TEST

START_TEST(test_limit_is_full)
{
    struct pgs_heap heap;
    struct pgs_frames *frames = frames_new(&heap);
    uint32_t taken[3];

    /* As if nearly all had been used. */
    frames->frames.limit = 1u << frames->frames.shift;
    frames->next_frame = (1u << frames->frames.shift) - 2;
    ck_assert_int_eq(pgs_frames_take(frames, 3, taken), PGSHARE_ERR_FULL);
    ck_assert_int_eq(pgs_frames_take(frames, 2, taken), 0);
    ck_assert_int_eq(pgs_frames_take(frames, 1, taken), PGSHARE_ERR_FULL);
    give(frames, taken[1]);
    ck_assert_int_eq(pgs_frames_take(frames, 1, taken), 0);
    /* The directory is freed by the limit that it was made with. */
    frames->frames.limit = (UINT64_C(1) << 32) - (1u << frames->frames.shift);
    frames_free(frames);
}
END_TEST

START_TEST(test_validity)
{
    struct pgs_frame ok = {
        .head = 3, .mappings = 1, .flags = PGS_FRAME_LIVE
    };
    struct pgs_frame frame = ok;

    ck_assert(pgs_frame_is_valid(&frame));
    frame.flags |= PGS_FRAME_TAKING;
    ck_assert(pgs_frame_is_valid(&frame));
    frame.pins = 1;
    ck_assert(!pgs_frame_is_valid(&frame));
    frame = ok;
    frame.flags |= PGS_FRAME_DOOMED;
    ck_assert(!pgs_frame_is_valid(&frame));
    frame.mappings = 0;
    ck_assert(!pgs_frame_is_valid(&frame));
    frame.head = PGS_NONE;
    ck_assert(pgs_frame_is_valid(&frame));
    frame.flags = PGS_FRAME_LIVE;
    ck_assert(!pgs_frame_is_valid(&frame));
    frame.pending = 1;
    ck_assert(pgs_frame_is_valid(&frame));
    frame.flags = 0;
    ck_assert(!pgs_frame_is_valid(&frame));
}
END_TEST

START_TEST(test_doom_comes_once_and_last)
{
    struct pgs_frame frame = {
        .head = PGS_NONE, .pins = 1, .pending = 1, .flags = PGS_FRAME_LIVE
    };

    ck_assert(!pgs_frame_doom(&frame));
    frame.pins = 0;
    ck_assert(!pgs_frame_doom(&frame));
    frame.pending = 0;
    ck_assert(pgs_frame_doom(&frame));
    ck_assert(pgs_frame_is_valid(&frame));
    ck_assert(!pgs_frame_doom(&frame));
}
END_TEST

START_TEST(test_each_allocation_failing)
{
    struct pgs_tracker *tracker = pgs_test_tracker();
    struct pgs_frames *frames = aligned_alloc(64, sizeof(*frames));
    uint32_t taken[10];
    uint64_t i = 0;

    do {
        struct pgs_heap heap;
        int error;

        pgs_heap_init(&heap, &tracker->allocator);
        /* All from one on: a single failure would be made good. */
        pgs_tracker_fail_from(tracker, i++);
        error = pgs_frames_init(frames, &heap);
        if (!error) {
            error = pgs_frames_take(frames, 10, taken);
            ck_assert_uint_eq(pgs_frames_end(frames), error ? 0 : 10);
            pgs_frames_fini(frames);
        }
        ck_assert_int_eq(error, pgs_tracker_has_failed(tracker)
                                    ? PGSHARE_ERR_NOMEM
                                    : 0);
        pgs_tracker_assert_empty(tracker);
    } while (pgs_tracker_has_failed(tracker));
    ck_assert_uint_eq(i, 5);
    free(frames);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("frame");
    TCase *records = pgs_tcase(suite, "records");
    TCase *states = pgs_tcase(suite, "states");

    tcase_add_test(records, test_fresh_frames_are_consecutive_and_live);
    tcase_add_test(records, test_many_idle_frames_are_used_again);
    tcase_add_test(records, test_taken_frames_are_distinct);
    tcase_add_test(records, test_without_memory_the_idle_ones_serve);
    tcase_add_test(records, test_limit_is_full);
    tcase_add_test(records, test_each_allocation_failing);
    tcase_add_test(states, test_validity);
    tcase_add_test(states, test_doom_comes_once_and_last);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("frame", make, argc, argv);
}
