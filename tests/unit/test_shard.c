/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters in shards, and grace periods. */
#include "base/lock.h"
#include "base/shard.h"
#include "support/suite.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define THREADS 3
#define ROUNDS 20000

static struct pgs_shards *shards_new(void)
{
    struct pgs_shards *shards = aligned_alloc(64, sizeof(*shards));

    ck_assert_ptr_nonnull(shards);
    ck_assert_int_eq(pgs_shards_init(shards), 0);
    return shards;
}

static void shards_free(struct pgs_shards *shards)
{
    pgs_shards_fini(shards);
    free(shards);
}

static void *count_some(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        pgs_count(arg, PGS_COUNT_HINTS, 2);
        pgs_count(arg, PGS_LEVEL_FRAMES, (uint64_t)-1);
    }
    return NULL;
}

START_TEST(test_sums_over_threads)
{
    struct pgs_shards *shards = shards_new();
    pthread_t threads[THREADS];

    pgs_count(shards, PGS_LEVEL_FRAMES, (uint64_t)THREADS * ROUNDS + 5);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count_some, shards);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(pgs_shards_sum(shards, PGS_COUNT_HINTS),
                      2 * THREADS * ROUNDS);
    /* A level: what other threads took away wraps in their shards. */
    ck_assert_uint_eq(pgs_shards_sum(shards, PGS_LEVEL_FRAMES), 5);
    ck_assert_uint_eq(pgs_shards_sum(shards, PGS_LEVEL_FIFO), 0);
    shards_free(shards);
}
END_TEST

START_TEST(test_nobody_inside)
{
    struct pgs_shards *shards = shards_new();
    uint32_t own = pgs_shards_enter(shards);
    uint32_t other;

    pgs_shards_leave(shards, own);
    pgs_shards_drain(shards, NULL, NULL, NULL);
    own = pgs_shards_enter(shards);
    pgs_shards_drain(shards, &own, NULL, NULL);
    other = pgs_shards_enter(shards);
    pgs_shards_leave(shards, own);
    pgs_shards_leave(shards, other);
    shards_free(shards);
}
END_TEST

struct visit {
    struct pgs_shards *shards;
    uint32_t ticket;
    unsigned helped;
    int plain; /* written inside, read after the drain */
};

static void *leave_for_another(void *arg)
{
    struct visit *visit = arg;

    visit->plain = 1;
    pgs_shards_leave(visit->shards, visit->ticket);
    return NULL;
}

/* After some help, the one who is inside leaves. */
static bool help_out(void *ctx)
{
    struct visit *visit = ctx;
    pthread_t thread;

    pgs_lock_assert_none();
    if (++visit->helped != 3)
        return true;
    pthread_create(&thread, NULL, leave_for_another, visit);
    pthread_detach(thread);
    return true;
}

static bool give_up(void *ctx)
{
    ++*(unsigned *)ctx;
    return false;
}

START_TEST(test_a_drain_can_be_given_up)
{
    struct pgs_shards *shards = shards_new();
    uint32_t inside = pgs_shards_enter(shards);
    uint32_t own = pgs_shards_enter(shards);
    unsigned helped = 0;

    ck_assert(!pgs_shards_drain(shards, &own, give_up, &helped));
    ck_assert_uint_eq(helped, 1);
    pgs_shards_leave(shards, inside);
    ck_assert(pgs_shards_drain(shards, &own, give_up, &helped));
    pgs_shards_leave(shards, own);
    shards_free(shards);
}
END_TEST

/* Who read the phase, and entered when it had been flipped, is inside too. */
START_TEST(test_a_drain_waits_for_both_phases_and_helps)
{
    for (uint32_t phase = 0; phase < 2; phase++) {
        struct visit visit = { .shards = shards_new() };
        uint32_t own = pgs_shards_enter(visit.shards);

        atomic_fetch_xor(&visit.shards->phase, phase);
        visit.ticket = pgs_shards_enter(visit.shards);
        atomic_fetch_xor(&visit.shards->phase, phase);
        ck_assert_uint_eq(visit.ticket & 1, phase);
        pgs_shards_drain(visit.shards, &own, help_out, &visit);
        ck_assert_uint_ge(visit.helped, 3);
        ck_assert_int_eq(visit.plain, 1);
        pgs_shards_leave(visit.shards, own);
        shards_free(visit.shards);
    }
}
END_TEST

static void *visit_once(void *arg)
{
    uint32_t ticket = pgs_shards_enter(arg);

    pgs_count(arg, PGS_COUNT_HINTS, 1);
    pgs_shards_leave(arg, ticket);
    return NULL;
}

/* The first one inside owns the shard, its own second visit is a guest's; what
 * either counts is not lost when others own it, or nobody does. */
START_TEST(test_counts_of_owners_and_guests)
{
    struct pgs_shards *shards = shards_new();
    uint32_t own = pgs_shards_enter(shards);
    uint32_t guest = pgs_shards_enter(shards);
    pthread_t thread;

    ck_assert(own & PGS_TICKET_OWNER);
    ck_assert(!(guest & PGS_TICKET_OWNER));
    pgs_count(shards, PGS_COUNT_HINTS, 1);
    pgs_shards_leave(shards, own);
    pgs_count(shards, PGS_COUNT_HINTS, 1);
    pgs_shards_leave(shards, guest);
    pgs_count(shards, PGS_COUNT_HINTS, 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&thread, NULL, visit_once, shards);
        pthread_join(thread, NULL);
    }
    visit_once(shards);
    ck_assert_uint_eq(pgs_shards_sum(shards, PGS_COUNT_HINTS), 4 + THREADS);
    shards_free(shards);
}
END_TEST

/* A drain waits for a shard's owner, but not for the next one. */
START_TEST(test_a_drain_waits_for_owners)
{
    struct visit visit = { .shards = shards_new() };

    visit.ticket = pgs_shards_enter(visit.shards);
    ck_assert(visit.ticket & PGS_TICKET_OWNER);
    ck_assert(pgs_shards_drain(visit.shards, NULL, help_out, &visit));
    ck_assert_uint_ge(visit.helped, 3);
    ck_assert_int_eq(visit.plain, 1);
    shards_free(visit.shards);
}
END_TEST

static void *drain_with_own(void *arg)
{
    for (int i = 0; i < 200; i++) {
        uint32_t own = pgs_shards_enter(arg);

        pgs_shards_drain(arg, &own, NULL, NULL);
        pgs_shards_leave(arg, own);
    }
    return NULL;
}

START_TEST(test_drains_do_not_wait_for_each_other)
{
    struct pgs_shards *shards = shards_new();
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, drain_with_own, shards);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    shards_free(shards);
}
END_TEST

/* A reader that is preempted inside keeps a drain waiting for a time slice; so
 * readers give theirs up outside, now and then. */
#define LOOKS_AT_A_TIME 256

/* An object that readers reach through `slot`; plain on purpose. */
struct object {
    uint64_t alive;
};

struct world {
    struct pgs_shards *shards;
    struct object *_Atomic slot;
    _Atomic bool stop;
    _Atomic uint64_t looks;
    _Atomic uint64_t dead;
};

static void *look(void *arg)
{
    struct world *world = arg;

    for (uint64_t n = 1; !atomic_load(&world->stop); n++) {
        uint32_t ticket = pgs_shards_enter(world->shards);
        struct object *object = atomic_load(&world->slot);

        for (int i = 0; object && i < 10; i++)
            atomic_fetch_add(&world->dead, object->alive != 1);
        atomic_fetch_add(&world->looks, 1);
        pgs_shards_leave(world->shards, ticket);
        if (n % LOOKS_AT_A_TIME == 0)
            sched_yield();
    }
    return NULL;
}

/* A drain takes as long as the kernel lets a reader sleep inside; on a busy
 * machine it is time that ends the test. */
START_TEST(test_nobody_sees_what_was_drained)
{
    struct world world = { .shards = shards_new() };
    pthread_t threads[THREADS];
    uint64_t rounds = 20000 * pgs_test_scale();
    time_t end = time(NULL) + 5 * (time_t)pgs_test_scale();

    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, look, &world);
    while (atomic_load(&world.looks) == 0)
        sched_yield();
    for (uint64_t i = 0; i < rounds && time(NULL) < end; i++) {
        struct object *object = malloc(sizeof(*object));
        struct object *old;

        object->alive = 1;
        old = atomic_exchange(&world.slot, object);
        pgs_shards_drain(world.shards, NULL, NULL, NULL);
        if (old)
            old->alive = 0;
        free(old);
    }
    atomic_store(&world.stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    free(atomic_load(&world.slot));
    ck_assert_uint_eq(world.dead, 0);
    shards_free(world.shards);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("shard");
    TCase *counters = pgs_tcase(suite, "counters");
    TCase *grace = pgs_tcase(suite, "grace");

    tcase_add_test(counters, test_sums_over_threads);
    tcase_add_test(counters, test_counts_of_owners_and_guests);
    tcase_add_test(grace, test_nobody_inside);
    tcase_add_test(grace, test_a_drain_waits_for_both_phases_and_helps);
    tcase_add_test(grace, test_a_drain_waits_for_owners);
    tcase_add_test(grace, test_a_drain_can_be_given_up);
    tcase_add_test(grace, test_drains_do_not_wait_for_each_other);
    tcase_add_test(grace, test_nobody_sees_what_was_drained);
    tcase_set_timeout(grace, 60);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("shard", make, argc, argv);
}
