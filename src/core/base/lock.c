/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutexes as installed builds have them: the ranks are remembered for the sake
 * of lock_debug.c, which takes this file's place in builds with debug checks,
 * and otherwise ignored.
 *
 * The library's critical sections are some dozens of nanoseconds long, while
 * putting a thread to sleep and waking it costs many microseconds. So a lock
 * that is taken is tried again for a short while before its taker goes to
 * sleep: two vCPUs that fault on frames of one stripe hardly ever do.
 */
#include "base/lock.h"

#include <pgshare/error.h>

#include <assert.h>

#define SPIN_ROUNDS 40u
#define SPIN_PAUSE 12u

int pgs_mutex_init(struct pgs_mutex *mutex, enum pgs_rank rank)
{
    assert(mutex != NULL);
    assert(rank >= PGS_RANK_RUN && rank <= PGS_RANK_LEAF);
    mutex->rank = rank;
    return pthread_mutex_init(&mutex->mutex, NULL) ? PGSHARE_ERR_NOMEM : 0;
}

void pgs_mutex_fini(struct pgs_mutex *mutex)
{
    int error = pthread_mutex_destroy(&mutex->mutex);

    assert(error == 0);
    (void)error;
}

static void wait_a_little(void)
{
    for (volatile unsigned i = 0; i < SPIN_PAUSE; i++)
        ;
}

static void lock_contended(pthread_mutex_t *mutex)
{
    int error;

    for (unsigned round = 0; round < SPIN_ROUNDS; round++) {
        wait_a_little();
        if (pthread_mutex_trylock(mutex) == 0)
            return;
    }
    error = pthread_mutex_lock(mutex);
    assert(error == 0);
    (void)error;
}

void pgs_mutex_lock(struct pgs_mutex *mutex)
{
    if (pthread_mutex_trylock(&mutex->mutex) != 0)
        lock_contended(&mutex->mutex);
}

bool pgs_mutex_trylock(struct pgs_mutex *mutex)
{
    return pthread_mutex_trylock(&mutex->mutex) == 0;
}

void pgs_mutex_unlock(struct pgs_mutex *mutex)
{
    int error = pthread_mutex_unlock(&mutex->mutex);

    assert(error == 0);
    (void)error;
}

void pgs_lock_assert_none(void)
{
}
