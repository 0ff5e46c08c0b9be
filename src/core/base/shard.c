/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shards: counting and being counted without a shared cache line.
 *
 * The grace period of guests works as in SRCU (P. McKenney, "Sleepable RCU",
 * 2006). Each shard has two counts of the guests inside; a ticket names the
 * shard and which of the two, so that leave() takes back exactly what enter()
 * added, on whatever thread, and no count is ever below the number that is
 * inside by it. An owner is inside for one session of its shard; the sessions'
 * number is odd meanwhile.
 *
 * Claim: when drain() has answered true, everybody who entered and can still
 * reach what was made unreachable before (by a store U) has left, and all that
 * they did happened before the answer.
 *
 * Proof. Let a reader enter by an increment I of count c, then look up by a
 * load L. For this c, drain() has read 0 at least once after U; call the last
 * such read Z. U, Z, I, L are seq_cst and so in one order, in which U is
 * before Z and I before L. If I is before Z: c counts I's reader until it
 * leaves, so Z, reading 0, comes after its decrement in c's own order, and
 * reads it or a later increment or decrement of the same release sequence; Z
 * thus acquires what leave() released. If Z is before I: U < Z < I < L, so the
 * lookup sees U and reaches nothing. Both counts of all shards are read.
 *
 * An owner enters by the compare-and-swap I that makes the session's number s.
 * After U the drain has read a number that is not s: the first that it read, or
 * it has waited for another. If that is less than s, it was read before I, and
 * as above the lookup reaches nothing; if it is more, the read acquires what
 * leave() released, by the next owners' swaps and releases if not directly. ∎
 *
 * The phase plays no part in the proof. It is there for progress: new readers
 * are sent to the other count, so that the one being waited for only falls,
 * but for those who had read the phase before it was flipped and enter late
 * (once each). Waiting on the idle count as well, after a second flip, catches
 * exactly these from the drain before; with one flip only they would be
 * missed, which is the race known from SRCU. A drain that was given up has
 * flipped the phase once or twice, which the next one need not know.
 */
#include "base/shard.h"

#include <sched.h>
#include <time.h>

/* Most calls last microseconds: look again at once for so long. */
#define YIELDS 64u
#define NAP_NS 100000L
#define NAPS_PER_HELP 10u

/* What a waiting drain does between two looks. */
struct patience {
    unsigned looks;
    bool (*help)(void *ctx);
    void *ctx;
};

int pgs_shards_init(struct pgs_shards *shards)
{
    for (unsigned i = 0; i < PGS_SHARDS; i++) {
        struct pgs_shard *shard = &shards->shard[i];

        atomic_init(&shard->session, 0);
        atomic_init(&shard->owner, 0);
        atomic_init(&shard->readers[0], 0);
        atomic_init(&shard->readers[1], 0);
        for (unsigned j = 0; j < PGS_COUNTERS; j++) {
            atomic_init(&shard->own[j], 0);
            atomic_init(&shard->count[j], 0);
        }
    }
    atomic_init(&shards->phase, 0);
    atomic_init(&shards->draining, 0);
    return 0;
}

void pgs_shards_fini(struct pgs_shards *shards)
{
    assert(atomic_load(&shards->draining) == 0);
    for (unsigned i = 0; i < PGS_SHARDS; i++) {
        assert(atomic_load(&shards->shard[i].session) % 2 == 0);
        assert(atomic_load(&shards->shard[i].readers[0]) == 0);
        assert(atomic_load(&shards->shard[i].readers[1]) == 0);
    }
    (void)shards;
}

uint64_t pgs_shards_sum(struct pgs_shards *shards, unsigned counter)
{
    uint64_t sum = 0;

    assert(counter < PGS_COUNTERS);
    for (unsigned i = 0; i < PGS_SHARDS; i++)
        sum += atomic_load_explicit(&shards->shard[i].count[counter],
                                    memory_order_relaxed) +
               atomic_load_explicit(&shards->shard[i].own[counter],
                                    memory_order_relaxed);
    return sum;
}

/* False: the caller wants to wait no longer. */
static bool be_patient(struct patience *patience)
{
    static const struct timespec nap = { .tv_nsec = NAP_NS };

    if (patience->looks++ < YIELDS) {
        sched_yield();
        return true;
    }
    nanosleep(&nap, NULL);
    if (patience->help && patience->looks % NAPS_PER_HELP == 0)
        return patience->help(patience->ctx);
    return true;
}

static bool wait_for_phase(struct pgs_shards *shards, uint32_t phase,
                           struct patience *patience)
{
    for (unsigned i = 0; i < PGS_SHARDS; i++) {
        while (atomic_load_explicit(&shards->shard[i].readers[phase],
                                    memory_order_seq_cst) != 0)
            if (!be_patient(patience))
                return false;
    }
    return true;
}

static bool flip_and_wait(struct pgs_shards *shards, struct patience *patience)
{
    uint32_t old = atomic_fetch_xor_explicit(&shards->phase, 1,
                                             memory_order_relaxed);

    assert(old < 2);
    return wait_for_phase(shards, old, patience);
}

/* Sessions that begin later need not be waited for. */
static bool wait_for_owners(struct pgs_shards *shards,
                            struct patience *patience)
{
    for (unsigned i = 0; i < PGS_SHARDS; i++) {
        _Atomic uint64_t *session = &shards->shard[i].session;
        uint64_t seen = atomic_load_explicit(session, memory_order_seq_cst);

        while (seen % 2 == 1 &&
               atomic_load_explicit(session, memory_order_seq_cst) == seen)
            if (!be_patient(patience))
                return false;
    }
    return true;
}

static bool drain(struct pgs_shards *shards, struct patience *patience)
{
    bool drained;

    while (atomic_exchange_explicit(&shards->draining, 1,
                                    memory_order_acquire) != 0)
        if (!be_patient(patience))
            return false;
    drained = wait_for_owners(shards, patience) &&
              flip_and_wait(shards, patience) &&
              flip_and_wait(shards, patience);
    atomic_store_explicit(&shards->draining, 0, memory_order_release);
    return drained;
}

bool pgs_shards_drain(struct pgs_shards *shards, uint32_t *own,
                      bool (*help)(void *ctx), void *ctx)
{
    struct patience patience = { .help = help, .ctx = ctx };
    bool drained;

    /* First of all: two drains must not wait for each other's tickets. */
    if (own)
        pgs_shards_leave(shards, *own);
    drained = drain(shards, &patience);
    if (own)
        *own = pgs_shards_enter(shards);
    return drained;
}
