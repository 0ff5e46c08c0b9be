/* SPDX-License-Identifier: BSD-2-Clause */
/* Mutexes, their ranks, and the wait channel. */
#include "base/lock.h"
#include "support/suite.h"

#include <pgshare/common.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 20000

struct counted {
    struct pgs_mutex mutex;
    uint64_t plain;
};

static void *count_up(void *arg)
{
    struct counted *counted = arg;

    for (int i = 0; i < ROUNDS; i++) {
        if (i % 8 != 0)
            pgs_mutex_lock(&counted->mutex);
        else if (!pgs_mutex_trylock(&counted->mutex))
            continue;
        counted->plain += i % 8 != 0;
        pgs_mutex_unlock(&counted->mutex);
    }
    return NULL;
}

START_TEST(test_a_mutex_excludes)
{
    struct counted counted = { .plain = 0 };
    pthread_t threads[THREADS];

    ck_assert_int_eq(pgs_mutex_init(&counted.mutex, PGS_RANK_LEAF), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count_up, &counted);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(counted.plain, THREADS * ROUNDS * 7 / 8);
    pgs_lock_assert_none();
    pgs_mutex_fini(&counted.mutex);
}
END_TEST

static void *try_it(void *arg)
{
    bool *taken = pgs_mutex_trylock(arg) ? arg : NULL;

    if (taken)
        pgs_mutex_unlock(arg);
    return taken;
}

START_TEST(test_trylock_answers_at_once)
{
    struct pgs_mutex mutex;
    pthread_t thread;
    void *taken = NULL;

    ck_assert_int_eq(pgs_mutex_init(&mutex, PGS_RANK_LEAF), 0);
    pgs_mutex_lock(&mutex);
    pthread_create(&thread, NULL, try_it, &mutex);
    pthread_join(thread, &taken);
    ck_assert_ptr_null(taken);
    pgs_mutex_unlock(&mutex);
    pthread_create(&thread, NULL, try_it, &mutex);
    pthread_join(thread, &taken);
    ck_assert_ptr_nonnull(taken);
    pgs_mutex_fini(&mutex);
}
END_TEST

/* How `act` ends on two mutexes of these ranks: a signal's number, or 0. */
static int ends_by(void (*act)(struct pgs_mutex *), enum pgs_rank first,
                   enum pgs_rank second)
{
    int status = 0;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct pgs_mutex mutex[2];

        fclose(stderr); /* the chain that it prints is expected */
        if (pgs_mutex_init(&mutex[0], first) ||
            pgs_mutex_init(&mutex[1], second))
            _exit(1);
        act(mutex);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void take_both(struct pgs_mutex *mutex)
{
    pgs_mutex_lock(&mutex[0]);
    pgs_mutex_lock(&mutex[1]);
    pgs_mutex_unlock(&mutex[0]);
    pgs_mutex_unlock(&mutex[1]);
    pgs_lock_assert_none();
}

static void take_both_downwards(struct pgs_mutex *mutex)
{
    pgs_mutex_lock(&mutex[1]);
    pgs_mutex_lock(&mutex[0]);
    pgs_mutex_unlock(&mutex[0]);
    pgs_mutex_unlock(&mutex[1]);
}

static void try_second(struct pgs_mutex *mutex)
{
    pgs_mutex_lock(&mutex[0]);
    if (pgs_mutex_trylock(&mutex[1]))
        pgs_mutex_unlock(&mutex[1]);
    pgs_mutex_unlock(&mutex[0]);
}

static void leave_with_one(struct pgs_mutex *mutex)
{
    pgs_mutex_lock(&mutex[0]);
    pgs_lock_assert_none();
}

static void unlock_untaken(struct pgs_mutex *mutex)
{
    pgs_mutex_unlock(&mutex[0]);
}

START_TEST(test_legal_orders_pass)
{
    for (int first = PGS_RANK_RUN; first < PGS_RANK_LEAF; first++)
        ck_assert_int_eq(ends_by(take_both, first, first + 1), 0);
    ck_assert_int_eq(ends_by(take_both, PGS_RANK_STRIPE, PGS_RANK_STRIPE), 0);
    ck_assert_int_eq(ends_by(try_second, PGS_RANK_LEAF, PGS_RANK_RUN), 0);
}
END_TEST

START_TEST(test_reversals_are_caught)
{
#ifndef PGS_DEBUG_CHECKS
    pgs_skip("no debug checks in this build");
#else
    for (int first = PGS_RANK_RUN; first < PGS_RANK_LEAF; first++) {
        ck_assert_int_eq(ends_by(take_both, first + 1, first), SIGABRT);
        if (first != PGS_RANK_STRIPE)
            ck_assert_int_eq(ends_by(take_both, first, first), SIGABRT);
    }
    ck_assert_int_eq(ends_by(take_both_downwards, PGS_RANK_STRIPE,
                             PGS_RANK_STRIPE), SIGABRT);
    for (int rank = PGS_RANK_RUN; rank <= PGS_RANK_LEAF; rank++)
        ck_assert_int_eq(ends_by(leave_with_one, rank, rank),
                         rank == PGS_RANK_RUN ? 0 : SIGABRT);
    ck_assert_int_eq(ends_by(unlock_untaken, PGS_RANK_RUN, PGS_RANK_RUN),
                     SIGABRT);
#endif
    (void)take_both_downwards;
    (void)leave_with_one;
    (void)unlock_untaken;
}
END_TEST

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

START_TEST(test_a_wait_ends_in_time)
{
    struct pgs_channel channel;
    uint64_t start = now_ns();

    ck_assert_int_eq(pgs_channel_init(&channel), 0);
    pgs_channel_wait(&channel, pgs_channel_prepare(&channel), 5000000);
    ck_assert_uint_ge(now_ns() - start, 5000000);
    pgs_channel_wait(&channel, pgs_channel_prepare(&channel), 0);
    ck_assert_uint_eq(channel.waiters, 0);
    pgs_channel_fini(&channel);
}
END_TEST

START_TEST(test_a_notification_between_is_not_lost)
{
    struct pgs_channel channel;
    uint32_t seen;

    ck_assert_int_eq(pgs_channel_init(&channel), 0);
    pgs_channel_notify(&channel); /* nobody waits: nothing */
    seen = pgs_channel_prepare(&channel);
    pgs_channel_notify(&channel);
    pgs_channel_wait(&channel, seen, PGSHARE_FOREVER);
    pgs_channel_prepare(&channel);
    pgs_channel_cancel(&channel);
    ck_assert_uint_eq(channel.waiters, 0);
    pgs_channel_fini(&channel);
}
END_TEST

struct game {
    struct pgs_channel channel;
    _Atomic uint32_t ball;
};

/* Waits for the ball to be `mine` modulo 2, then plays it on. */
static void play(struct game *game, uint32_t mine)
{
    for (int round = 0; round < ROUNDS / 4; round++) {
        while (atomic_load_explicit(&game->ball, memory_order_relaxed) % 2 !=
               mine) {
            uint32_t seen = pgs_channel_prepare(&game->channel);

            if (atomic_load_explicit(&game->ball, memory_order_relaxed) % 2 ==
                mine)
                pgs_channel_cancel(&game->channel);
            else
                pgs_channel_wait(&game->channel, seen, PGSHARE_FOREVER);
        }
        atomic_fetch_add_explicit(&game->ball, 1, memory_order_relaxed);
        pgs_channel_notify(&game->channel);
    }
}

static void *second_player(void *arg)
{
    play(arg, 1);
    return NULL;
}

START_TEST(test_no_wakeup_is_lost)
{
    struct game game = { .ball = 0 };
    pthread_t thread;

    ck_assert_int_eq(pgs_channel_init(&game.channel), 0);
    pthread_create(&thread, NULL, second_player, &game);
    play(&game, 0);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(game.ball, ROUNDS / 4 * 2);
    pgs_channel_fini(&game.channel);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("lock");
    TCase *mutex = pgs_tcase(suite, "mutex");
    TCase *ranks = pgs_tcase(suite, "ranks");
    TCase *channel = pgs_tcase(suite, "channel");

    tcase_add_test(mutex, test_a_mutex_excludes);
    tcase_add_test(mutex, test_trylock_answers_at_once);
    tcase_add_test(ranks, test_legal_orders_pass);
    tcase_add_test(ranks, test_reversals_are_caught);
    tcase_add_test(channel, test_a_wait_ends_in_time);
    tcase_add_test(channel, test_a_notification_between_is_not_lost);
    tcase_add_test(channel, test_no_wakeup_is_lost);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("lock", make, argc, argv);
}
