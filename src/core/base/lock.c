/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutexes as installed builds have them: the ranks are remembered for the sake
 * of lock_debug.c, which takes this file's place in builds with debug checks,
 * and otherwise ignored.
 *
 * The library's critical sections are some dozens of nanoseconds long, while
 * putting a thread to sleep and waking it costs many microseconds. So they are
 * adaptive: a lock that is taken is tried again for a short while before its
 * taker goes to sleep. Two vCPUs that fault on frames of one stripe hardly ever
 * do. (glibc's adaptive kind locks in half the time of a try and an unlock.)
 */
#define _GNU_SOURCE /* PTHREAD_MUTEX_ADAPTIVE_NP */

#include "base/lock.h"

#include <pgshare/error.h>

#include <assert.h>

int pgs_mutex_init(struct pgs_mutex *mutex, enum pgs_rank rank)
{
    pthread_mutexattr_t attr;
    int error;

    assert(mutex != NULL);
    assert(rank >= PGS_RANK_RUN && rank <= PGS_RANK_LEAF);
    mutex->rank = rank;
    if (pthread_mutexattr_init(&attr))
        return PGSHARE_ERR_NOMEM;
    error = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    if (!error)
        error = pthread_mutex_init(&mutex->mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return error ? PGSHARE_ERR_NOMEM : 0;
}

void pgs_mutex_fini(struct pgs_mutex *mutex)
{
    int error = pthread_mutex_destroy(&mutex->mutex);

    assert(error == 0);
    (void)error;
}

void pgs_mutex_lock(struct pgs_mutex *mutex)
{
    int error = pthread_mutex_lock(&mutex->mutex);

    assert(error == 0);
    (void)error;
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
