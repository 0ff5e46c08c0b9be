/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wait channel is an event count: waiting for "something has changed" in a
 * library whose conditions are bits of atomic words and not guarded by a lock.
 *
 *     waiter                          changer
 *     seen = prepare()                changes the condition
 *     looks at the condition again    notify()
 *     wait(seen) or cancel()
 *
 * No wake-up is lost. prepare() announces the waiter and then has a full
 * fence, before the waiter looks; notify() has a full fence and then looks for
 * waiters. Of two such fences one comes first: if the waiter's, then notify()
 * finds the waiter and moves the count, which wait() compares with `seen`
 * under the mutex; if the changer's, then the waiter sees the change when it
 * looks. What kind of atomic access the condition is changed by does not
 * matter, so a changer needs to think of nothing.
 */
#include "base/lock.h"

#include <pgshare/common.h>
#include <pgshare/error.h>

#include <assert.h>
#include <stdatomic.h>
#include <time.h>

#define NS_PER_SECOND UINT64_C(1000000000)
/* Longer waits are as good as endless, and time_t must not overflow. */
#define LONGEST_NS (UINT64_C(1000000) * NS_PER_SECOND)

int pgs_channel_init(struct pgs_channel *channel)
{
    pthread_condattr_t attr;
    int error = pgs_mutex_init(&channel->mutex, PGS_RANK_WAIT);

    if (error)
        return error;
    atomic_init(&channel->waiters, 0);
    atomic_init(&channel->count, 0);
    error = pthread_condattr_init(&attr);
    if (error)
        goto no_attr;
    /* Time must not jump with the wall clock. */
    error = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (!error)
        error = pthread_cond_init(&channel->cond, &attr);
    pthread_condattr_destroy(&attr);
    if (!error)
        return 0;
no_attr:
    pgs_mutex_fini(&channel->mutex);
    return PGSHARE_ERR_NOMEM;
}

void pgs_channel_fini(struct pgs_channel *channel)
{
    assert(atomic_load(&channel->waiters) == 0);
    pthread_cond_destroy(&channel->cond);
    pgs_mutex_fini(&channel->mutex);
}

uint32_t pgs_channel_prepare(struct pgs_channel *channel)
{
    uint32_t seen;

    atomic_fetch_add_explicit(&channel->waiters, 1, memory_order_relaxed);
    seen = atomic_load_explicit(&channel->count, memory_order_acquire);
    atomic_thread_fence(memory_order_seq_cst);
    return seen;
}

void pgs_channel_cancel(struct pgs_channel *channel)
{
    uint32_t before = atomic_fetch_sub_explicit(&channel->waiters, 1,
                                                memory_order_relaxed);

    assert(before > 0);
    (void)before;
}

static struct timespec deadline_after(uint64_t ns)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    ns = (ns < LONGEST_NS ? ns : LONGEST_NS) + (uint64_t)at.tv_nsec;
    at.tv_sec += (time_t)(ns / NS_PER_SECOND);
    at.tv_nsec = (long)(ns % NS_PER_SECOND);
    return at;
}

void pgs_channel_wait(struct pgs_channel *channel, uint32_t seen, uint64_t ns)
{
    struct timespec at = deadline_after(ns);
    int error = 0;

    assert(atomic_load(&channel->waiters) > 0);
    pgs_mutex_lock(&channel->mutex);
    while (error == 0 && atomic_load_explicit(&channel->count,
                                              memory_order_relaxed) == seen)
        error = pthread_cond_timedwait(&channel->cond, &channel->mutex.mutex,
                                       &at);
    pgs_mutex_unlock(&channel->mutex);
    pgs_channel_cancel(channel);
}

void pgs_channel_notify(struct pgs_channel *channel)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&channel->waiters, memory_order_relaxed) == 0)
        return;
    pgs_mutex_lock(&channel->mutex);
    atomic_fetch_add_explicit(&channel->count, 1, memory_order_release);
    pthread_cond_broadcast(&channel->cond);
    pgs_mutex_unlock(&channel->mutex);
}
