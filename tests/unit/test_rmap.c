/* SPDX-License-Identifier: BSD-2-Clause */
/* Reverse maps against naive sets; stocks of nodes; stripes under threads. */
#include "tables/frame.h"
#include "tables/gfn.h"
#include "support/suite.h"
#include "random.h"

#include <pgshare/error.h>

#include <pthread.h>
#include <stdlib.h>

#define PAGES 3000u
#define FRAMES 40u
#define THREADS 3u

struct world {
    struct pgs_heap heap;
    struct pgs_frames *frames;
    uint32_t frame[FRAMES];
};

static void world_init(struct world *world)
{
    pgs_heap_init(&world->heap, pgs_test_allocator());
    world->frames = aligned_alloc(64, sizeof(*world->frames));
    ck_assert_ptr_nonnull(world->frames);
    ck_assert_int_eq(pgs_frames_init(world->frames, &world->heap), 0);
    ck_assert_int_eq(pgs_frames_take(world->frames, FRAMES, world->frame), 0);
}

static void world_fini(struct world *world)
{
    pgs_frames_fini(world->frames);
    free(world->frames);
}

static uint32_t link_page(struct pgs_frames *frames, uint32_t frame,
                          uint32_t page)
{
    uint32_t node;

    pgs_frame_lock(frames, frame);
    ck_assert_int_eq(pgs_nodes_stock(frames, pgs_stripe_of(frames, frame), 1),
                     0);
    node = pgs_rmap_link(frames, frame, page);
    pgs_frame_unlock(frames, frame);
    return node;
}

static uint32_t unlink_page(struct pgs_frames *frames, uint32_t node)
{
    uint32_t frame = pgs_node_at(frames, node)->frame;
    uint32_t left;

    pgs_frame_lock(frames, frame);
    left = pgs_rmap_unlink(frames, node);
    pgs_frame_unlock(frames, frame);
    return left;
}

/* The frame's list is what the model says, forwards and backwards. */
static void check_list(struct world *world, uint32_t which,
                       const uint32_t *mapped, const uint32_t *node)
{
    const struct pgs_frame *frame =
        pgs_frame_at(world->frames, world->frame[which]);
    uint32_t prev = PGS_NONE;
    uint32_t n = 0;

    for (uint32_t i = frame->head; i != PGS_NONE;) {
        const struct pgs_node *at = pgs_node_at(world->frames, i);

        ck_assert_uint_eq(at->frame, world->frame[which]);
        ck_assert_uint_eq(at->prev, prev);
        ck_assert_uint_eq(mapped[at->page], which + 1);
        ck_assert_uint_eq(node[at->page], i);
        prev = i;
        i = at->next;
        n++;
    }
    ck_assert_uint_eq(n, frame->mappings);
    for (uint32_t page = 0; page < PAGES; page++)
        n -= mapped[page] == which + 1;
    ck_assert_uint_eq(n, 0);
}

START_TEST(test_lists_are_sets)
{
    static uint32_t mapped[PAGES]; /* which frame + 1, or 0 */
    static uint32_t node[PAGES];
    uint32_t count[FRAMES] = { 0 };
    struct random random = random_start(3);
    struct world world;

    world_init(&world);
    for (uint64_t step = 0; step < 30000 * pgs_test_scale(); step++) {
        uint32_t page = random_below(&random, PAGES);
        uint32_t which = mapped[page] - 1;

        if (mapped[page]) {
            ck_assert_uint_eq(unlink_page(world.frames, node[page]),
                              --count[which]);
            mapped[page] = 0;
        } else {
            /* A few frames get most of the mappings. */
            which = random_below(&random, 1 + random_below(&random, FRAMES));
            node[page] = link_page(world.frames, world.frame[which], page);
            mapped[page] = which + 1;
            count[which]++;
        }
        if (step % 1000 == 0) {
            for (uint32_t i = 0; i < FRAMES; i++)
                check_list(&world, i, mapped, node);
        }
    }
    for (uint32_t page = 0; page < PAGES; page++) {
        if (mapped[page])
            unlink_page(world.frames, node[page]);
        mapped[page] = 0;
    }
    for (uint32_t i = 0; i < FRAMES; i++)
        check_list(&world, i, mapped, node);
    world_fini(&world);
}
END_TEST

START_TEST(test_a_list_moves_whole)
{
    static uint32_t mapped[PAGES];
    static uint32_t node[PAGES];
    struct world world;
    uint32_t taken[600];

    world_init(&world);
    ck_assert_int_eq(pgs_frames_take(world.frames, 600, taken), 0);
    world.frame[2] = taken[599]; /* of another stripe */
    for (uint32_t page = 0; page < 30; page++) {
        node[page] = link_page(world.frames, world.frame[page % 3], page);
        mapped[page] = 1 + page % 3;
    }
    for (uint32_t from = 0; from < 2; from++) {
        uint32_t to = from + 1;

        ck_assert_uint_eq(pgs_rmap_move(world.frames, world.frame[from],
                                        world.frame[to]),
                          10 * (from + 1));
        ck_assert_uint_eq(pgs_rmap_move(world.frames, world.frame[from],
                                        world.frame[to]), 0);
        for (uint32_t page = 0; page < 30; page++)
            mapped[page] = mapped[page] == from + 1 ? to + 1 : mapped[page];
        for (uint32_t i = 0; i < 3; i++)
            check_list(&world, i, mapped, node);
    }
    /* And back, into an empty list. */
    ck_assert_uint_eq(pgs_rmap_move(world.frames, world.frame[2],
                                    world.frame[0]), 30);
    for (uint32_t page = 0; page < 30; page++) {
        ck_assert_uint_eq(pgs_node_lock(world.frames, node[page]),
                          world.frame[0]);
        ck_assert_uint_eq(pgs_rmap_unlink(world.frames, node[page]),
                          29 - page);
        pgs_frame_unlock(world.frames, world.frame[0]);
    }
    world_fini(&world);
}
END_TEST

START_TEST(test_unlinking_needs_no_memory_and_nodes_come_back)
{
    struct world world;
    uint32_t *node = calloc(100000, sizeof(*node));
    uint32_t taken[600];
    uint32_t far;
    uint32_t used;

    world_init(&world);
    ck_assert_int_eq(pgs_frames_take(world.frames, 600, taken), 0);
    far = taken[599];
    for (uint32_t i = 0; i < 100000; i++)
        node[i] = link_page(world.frames, world.frame[0], i);
    used = world.frames->next_node;
    ck_assert_uint_eq(used, 100000);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    for (uint32_t i = 0; i < 100000; i++)
        ck_assert_uint_eq(unlink_page(world.frames, node[i]), 99999 - i);
    /* The nodes of the one stripe serve another, but for what it may keep. */
    ck_assert_ptr_ne(pgs_stripe_of(world.frames, far), pgs_stripe_of(
                                                           world.frames,
                                                           world.frame[0]));
    for (uint32_t i = 0; i < 100000 - 3 * PGS_NODE_BATCH; i++)
        link_page(world.frames, far, i);
    ck_assert_uint_eq(world.frames->next_node, used);
    ck_assert_uint_eq(pgs_test_tracker()->failed, 0);
    free(node);
    world_fini(&world);
}
END_TEST

START_TEST(test_stock_fills_up)
{
    struct world world;
    struct pgs_stripe *stripe;
    uint32_t node[PGS_NODE_BATCH];
    uint32_t linked = 0;
    int error;

    world_init(&world);
    stripe = pgs_stripe_of(world.frames, world.frame[0]);
    pgs_mutex_lock(&stripe->lock);
    ck_assert_int_eq(pgs_nodes_stock(world.frames, stripe, PGS_NODE_BATCH), 0);
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    for (uint32_t i = 0; i < PGS_NODE_BATCH; i++)
        node[i] = pgs_rmap_link(world.frames, world.frame[0], i);
    for (uint32_t i = 0; i < PGS_NODE_BATCH; i++)
        ck_assert_uint_eq(pgs_rmap_unlink(world.frames, node[i]),
                          PGS_NODE_BATCH - 1 - i);
    /* Up to the last node that there is memory for. */
    while (!(error = pgs_nodes_stock(world.frames, stripe, 3))) {
        pgs_rmap_link(world.frames, world.frame[0], linked);
        linked++;
    }
    ck_assert_int_eq(error, PGSHARE_ERR_NOMEM);
    /* What had been found by then is kept. */
    ck_assert_uint_eq(stripe->n_free_nodes, 2);
    ck_assert_uint_eq(linked + 2, world.frames->next_node);
    pgs_mutex_unlock(&stripe->lock);
    world_fini(&world);
}
END_TEST

START_TEST(test_stock_at_the_limit_is_full)
{
    struct world world;
    struct pgs_stripe *stripe;
    uint64_t limit;

    world_init(&world);
    limit = world.frames->nodes.limit;
    stripe = pgs_stripe_of(world.frames, world.frame[0]);
    world.frames->nodes.limit = 1u << world.frames->nodes.shift;
    world.frames->next_node = (1u << world.frames->nodes.shift) - 3;
    ck_assert_int_eq(pgs_slab_grow(&world.frames->nodes), 0);
    pgs_mutex_lock(&stripe->lock);
    ck_assert_int_eq(pgs_nodes_stock(world.frames, stripe, 3), 0);
    ck_assert_int_eq(pgs_nodes_stock(world.frames, stripe, 4),
                     PGSHARE_ERR_FULL);
    pgs_mutex_unlock(&stripe->lock);
    world.frames->nodes.limit = limit;
    world_fini(&world);
}
END_TEST

struct worker {
    struct world *world;
    uint64_t salt;
    uint32_t own; /* pages own … own + 99 */
};

static void *map_and_unmap(void *arg)
{
    const struct worker *worker = arg;
    struct random random = random_start(worker->salt);
    struct pgs_frames *frames = worker->world->frames;
    uint32_t node[100];
    uint32_t frame[100];
    bool mapped[100] = { false };

    for (uint64_t step = 0; step < 20000 * pgs_test_scale(); step++) {
        uint32_t i = random_below(&random, 100);

        if (mapped[i]) {
            pgs_frame_lock(frames, frame[i]);
            pgs_rmap_unlink(frames, node[i]);
        } else {
            frame[i] = worker->world->frame[random_below(&random, FRAMES)];
            pgs_frame_lock(frames, frame[i]);
            if (pgs_nodes_stock(frames, pgs_stripe_of(frames, frame[i]), 1))
                abort();
            node[i] = pgs_rmap_link(frames, frame[i], worker->own + i);
        }
        mapped[i] = !mapped[i];
        pgs_frame_unlock(frames, frame[i]);
    }
    for (uint32_t i = 0; i < 100; i++) {
        if (mapped[i])
            unlink_page(frames, node[i]);
    }
    return NULL;
}

START_TEST(test_threads_share_stripes)
{
    struct world world;
    struct worker worker[THREADS];
    pthread_t threads[THREADS];
    uint32_t extra[4000];

    world_init(&world);
    /* Frames of several stripes. */
    ck_assert_int_eq(pgs_frames_take(world.frames, 4000, extra), 0);
    for (uint32_t i = 0; i < FRAMES; i += 2)
        world.frame[i] = extra[i * 99];
    for (uint32_t i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){ &world, 10 + i, 1000 * i };
        pthread_create(&threads[i], NULL, map_and_unmap, &worker[i]);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < pgs_frames_end(world.frames); i++)
        ck_assert_uint_eq(pgs_frame_at(world.frames, i)->mappings, 0);
    world_fini(&world);
}
END_TEST

struct mover {
    struct world *world;
    _Atomic bool stop;
};

/* All of the world's mappings, from frame to frame. */
static void *move_about(void *arg)
{
    struct mover *mover = arg;
    const uint32_t *frame = mover->world->frame;

    for (uint32_t i = 0; !atomic_load(&mover->stop); i++)
        pgs_rmap_move(mover->world->frames, frame[i % FRAMES],
                      frame[(i + 7) % FRAMES]);
    return NULL;
}

START_TEST(test_nodes_are_locked_wherever_they_are)
{
    struct world world;
    struct mover mover = { .world = &world };
    pthread_t thread;
    uint32_t extra[4000];
    uint32_t node[PAGES];

    world_init(&world);
    ck_assert_int_eq(pgs_frames_take(world.frames, 4000, extra), 0);
    for (uint32_t i = 0; i < FRAMES; i++)
        world.frame[i] = extra[i * 99];
    for (uint32_t page = 0; page < PAGES; page++)
        node[page] = link_page(world.frames, world.frame[page % FRAMES], page);
    pthread_create(&thread, NULL, move_about, &mover);
    for (uint32_t page = 0; page < PAGES; page++) {
        uint32_t frame = pgs_node_lock(world.frames, node[page]);

        ck_assert_uint_eq(pgs_node_frame(world.frames, node[page]), frame);
        ck_assert_uint_eq(pgs_node_at(world.frames, node[page])->page, page);
        pgs_rmap_unlink(world.frames, node[page]);
        pgs_frame_unlock(world.frames, frame);
    }
    atomic_store(&mover.stop, true);
    pthread_join(thread, NULL);
    for (uint32_t i = 0; i < FRAMES; i++)
        ck_assert_uint_eq(pgs_frame_at(world.frames,
                                       world.frame[i])->mappings, 0);
    world_fini(&world);
}
END_TEST

static void *take_and_give(void *arg)
{
    const struct worker *worker = arg;
    struct random random = random_start(worker->salt);
    struct pgs_frames *frames = worker->world->frames;
    uint32_t taken[64];

    for (int step = 0; step < 1000; step++) {
        uint32_t n = 1 + random_below(&random, 64);

        if (pgs_frames_take(frames, n, taken))
            abort();
        for (uint32_t i = 0; i < n; i++) {
            pgs_frame_lock(frames, taken[i]);
            if (pgs_frame_at(frames, taken[i])->id != 0)
                abort();
            pgs_frame_at(frames, taken[i])->id = worker->salt;
            pgs_frame_unlock(frames, taken[i]);
        }
        for (uint32_t i = 0; i < n; i++) {
            pgs_frame_lock(frames, taken[i]);
            if (pgs_frame_at(frames, taken[i])->id != worker->salt)
                abort();
            pgs_frame_give(frames, taken[i]);
            pgs_frame_unlock(frames, taken[i]);
        }
    }
    return NULL;
}

START_TEST(test_threads_take_and_give)
{
    struct world world;
    struct worker worker[THREADS];
    pthread_t threads[THREADS];

    world_init(&world);
    for (uint32_t i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){ &world, 20 + i, 0 };
        pthread_create(&threads[i], NULL, take_and_give, &worker[i]);
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    world_fini(&world);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("rmap");
    TCase *lists = pgs_tcase(suite, "lists");
    TCase *stocks = pgs_tcase(suite, "stocks");
    TCase *threads = pgs_tcase(suite, "threads");

    tcase_add_test(lists, test_lists_are_sets);
    tcase_add_test(lists, test_a_list_moves_whole);
    tcase_add_test(stocks, test_unlinking_needs_no_memory_and_nodes_come_back);
    tcase_add_test(stocks, test_stock_fills_up);
    tcase_add_test(stocks, test_stock_at_the_limit_is_full);
    tcase_add_test(threads, test_threads_share_stripes);
    tcase_add_test(threads, test_nodes_are_locked_wherever_they_are);
    tcase_add_test(threads, test_threads_take_and_give);
    tcase_set_timeout(threads, 60);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("rmap", make, argc, argv);
}
