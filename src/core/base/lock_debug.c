/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutexes for builds with debug checks. Every thread keeps a list of the locks
 * that it holds, in the order in which it took them. Taking a lock whose rank
 * is not above all of these could meet another thread that takes the two the
 * other way round, so it ends the program at once, on the first run and not
 * on the unlucky one, and prints the list.
 *
 * A trylock cannot wait and so cannot deadlock: it is listed, not checked.
 * This is the one place of the library that prints and aborts; it is not part
 * of installed builds (see lock.c).
 */
#include "base/lock.h"

#include <pgshare/error.h>

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define HELD_MAX 16u

/* Invariant: lock[0 … n-1] are the thread's own, oldest first. */
struct held {
    const struct pgs_mutex *lock[HELD_MAX];
    unsigned n;
};

static _Thread_local struct held held;

static const char *rank_name(enum pgs_rank rank)
{
    static const char *const names[] = {
        [PGS_RANK_RUN] = "run",       [PGS_RANK_DOMAINS] = "domains",
        [PGS_RANK_DOMAIN] = "domain", [PGS_RANK_HOLDS] = "holds",
        [PGS_RANK_MARKS] = "marks",   [PGS_RANK_STRIPE] = "stripe",
        [PGS_RANK_NODES] = "nodes",   [PGS_RANK_CALL] = "call",
        [PGS_RANK_CALLS] = "calls",   [PGS_RANK_EVENTS] = "events",
        [PGS_RANK_WAIT] = "wait",     [PGS_RANK_LEAF] = "leaf",
    };

    return names[rank] ? names[rank] : "?";
}

static _Noreturn void fail(const char *what, const struct pgs_mutex *mutex)
{
    fprintf(stderr, "libpgshare: %s", what);
    if (mutex)
        fprintf(stderr, " %s (%p)", rank_name(mutex->rank),
                (const void *)mutex);
    fprintf(stderr, "; this thread holds, oldest first:\n");
    for (unsigned i = 0; i < held.n; i++)
        fprintf(stderr, "  %2d %s (%p)\n", (int)held.lock[i]->rank,
                rank_name(held.lock[i]->rank), (const void *)held.lock[i]);
    abort();
}

/* Two stripes may be held at once, in ascending order of address. */
static bool may_follow(const struct pgs_mutex *first,
                       const struct pgs_mutex *next)
{
    if (first->rank != next->rank)
        return first->rank < next->rank;
    return next->rank == PGS_RANK_STRIPE && first < next;
}

static void push(const struct pgs_mutex *mutex)
{
    if (held.n == HELD_MAX)
        fail("too many locks at once, the last is", mutex);
    held.lock[held.n++] = mutex;
}

static void remove_held(const struct pgs_mutex *mutex)
{
    unsigned i = held.n;

    while (i > 0 && held.lock[i - 1] != mutex)
        i--;
    if (i == 0)
        fail("unlocks what it has not locked:", mutex);
    for (; i < held.n; i++)
        held.lock[i - 1] = held.lock[i];
    held.n--;
}

int pgs_mutex_init(struct pgs_mutex *mutex, enum pgs_rank rank)
{
    pthread_mutexattr_t attr;
    int error;

    assert(rank >= PGS_RANK_RUN && rank <= PGS_RANK_LEAF);
    mutex->rank = rank;
    if (pthread_mutexattr_init(&attr) != 0)
        return PGSHARE_ERR_NOMEM;
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    error = pthread_mutex_init(&mutex->mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return error ? PGSHARE_ERR_NOMEM : 0;
}

void pgs_mutex_fini(struct pgs_mutex *mutex)
{
    if (pthread_mutex_destroy(&mutex->mutex) != 0)
        fail("destroys a lock that is taken:", mutex);
}

void pgs_mutex_lock(struct pgs_mutex *mutex)
{
    for (unsigned i = 0; i < held.n; i++) {
        if (!may_follow(held.lock[i], mutex))
            fail("lock order violated by taking", mutex);
    }
    if (pthread_mutex_lock(&mutex->mutex) != 0)
        fail("cannot take", mutex);
    push(mutex);
}

bool pgs_mutex_trylock(struct pgs_mutex *mutex)
{
    if (pthread_mutex_trylock(&mutex->mutex) != 0)
        return false;
    push(mutex);
    return true;
}

void pgs_mutex_unlock(struct pgs_mutex *mutex)
{
    remove_held(mutex);
    if (pthread_mutex_unlock(&mutex->mutex) != 0)
        fail("cannot unlock", mutex);
}

void pgs_lock_assert_none(void)
{
    for (unsigned i = 0; i < held.n; i++)
        if (held.lock[i]->rank != PGS_RANK_RUN)
            fail("leaves the library with a lock", held.lock[i]);
}
