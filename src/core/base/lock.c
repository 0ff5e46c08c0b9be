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

/* In turns of an empty loop, about 2 ns each; doubled by each attempt. */
#define FIRST_PAUSE 16u
#define LONGEST_PAUSE 1024u

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

static void turn(unsigned n)
{
    for (volatile unsigned i = 0; i < n; i++)
        ;
}

static void lock_contended(pthread_mutex_t *mutex)
{
    int error;

    for (unsigned n = FIRST_PAUSE; n <= LONGEST_PAUSE; n *= 2) {
        turn(n);
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
