/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mutexes with ranks. A thread that holds a lock may take only locks of a
 * higher rank (equal ranks: never two at once, but for frame stripes in
 * ascending order of address). Builds with PGS_DEBUG_CHECKS keep a list of the
 * locks that each thread holds, and abort on a reversal, printing the chain;
 * pgs_lock_assert_none() is called before every backend call and callback.
 * Other builds have nothing but the mutex.
 */
#ifndef PGS_BASE_LOCK_H
#define PGS_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum pgs_rank {
    PGS_RANK_RUN = 1, /* host: there is one runner */
    PGS_RANK_DOMAINS, /* host: domain slots, groups, chunk directory */
    PGS_RANK_DOMAIN,  /* domain: guest ring, FIFO, claims */
    PGS_RANK_HOLDS,   /* host: side table of gets */
    PGS_RANK_MARKS,   /* host: records of protected pages */
    PGS_RANK_STRIPE,  /* frames of one stripe, their rmap lists */
    PGS_RANK_NODES,   /* host: rmap nodes not in a stripe */
    PGS_RANK_CALL,    /* one call's completion state */
    PGS_RANK_CALLS,   /* host: the runner's list, free calls */
    PGS_RANK_EVENTS,  /* host: the event queue */
    PGS_RANK_WAIT,    /* host: the wait channel */
    PGS_RANK_LEAF     /* nothing is taken under it */
};

struct pgs_mutex {
    pthread_mutex_t mutex;
    enum pgs_rank rank;
};

int pgs_mutex_init(struct pgs_mutex *mutex, enum pgs_rank rank);
void pgs_mutex_fini(struct pgs_mutex *mutex);
void pgs_mutex_lock(struct pgs_mutex *mutex);
bool pgs_mutex_trylock(struct pgs_mutex *mutex);
void pgs_mutex_unlock(struct pgs_mutex *mutex);

/* Debug builds: aborts if this thread holds a lock of the library, other than
 * PGS_RANK_RUN, under which the runner does all its work. */
void pgs_lock_assert_none(void);

/*
 * The wait channel: an event count. A waiter takes a snapshot with prepare(),
 * looks at its condition again, and sleeps until the count has moved or `ns`
 * of real time have passed. notify() costs one load where nobody waits.
 */
struct pgs_channel {
    struct pgs_mutex mutex;
    pthread_cond_t cond;
    _Atomic uint32_t waiters;
    _Atomic uint32_t count;
};

int pgs_channel_init(struct pgs_channel *channel);
void pgs_channel_fini(struct pgs_channel *channel);
uint32_t pgs_channel_prepare(struct pgs_channel *channel);
void pgs_channel_cancel(struct pgs_channel *channel);
void pgs_channel_wait(struct pgs_channel *channel, uint32_t seen, uint64_t ns);
void pgs_channel_notify(struct pgs_channel *channel);

#endif
