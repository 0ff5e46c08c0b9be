/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What many threads count at once is kept in shards: a thread uses the shard
 * that its identity hashes to, so that faults on different pages do not fight
 * for a cache line. Sums are added up when somebody asks.
 *
 * The shards also know who is inside the library (the reader side of a
 * grace period): enter() and leave() bracket every public call, and
 * pgs_shards_drain() returns when all that were inside when it was called have
 * left. Domain removal uses it before it tears a domain down.
 *
 * The first to enter a shard owns it until it leaves, and counts there without
 * a locked instruction, of which the path of a fault would have a dozen. Whoever
 * else enters meanwhile (a thread of the same hash, or the owner once more) is
 * a guest, and who counts without having entered is treated as one.
 */
#ifndef PGS_BASE_SHARD_H
#define PGS_BASE_SHARD_H

#include "base/alloc.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define PGS_SHARDS 64u

/* Counters of the host; see pgshare_host_stats for their meaning. */
enum pgs_counter {
    PGS_COUNT_SHARED,                          /* + cause, 16 */
    PGS_COUNT_FAULT = PGS_COUNT_SHARED + 16,   /* + outcome, 16 */
    PGS_COUNT_PAYER = PGS_COUNT_FAULT + 16,    /* + payer, 16 */
    PGS_COUNT_HINTS = PGS_COUNT_PAYER + 16,
    PGS_COUNT_HINTS_DROPPED,
    PGS_COUNT_HINTS_USELESS,
    PGS_COUNT_COMPARED,
    PGS_COUNT_DIFFERENT,
    PGS_COUNT_ROLLED_BACK,
    PGS_COUNT_BROKEN,
    PGS_COUNT_RECLAIMED,
    PGS_COUNT_SCANNED,
    PGS_COUNT_BACKEND_OPS,
    PGS_COUNT_BACKEND_ERRORS,
    PGS_COUNT_BACKEND_LOST,
    /* levels: the sum over the shards is the value, a shard's may wrap */
    PGS_LEVEL_TRACKED,
    PGS_LEVEL_PROTECTED,
    PGS_LEVEL_MAPPINGS,      /* of frames other than zero */
    PGS_LEVEL_ZERO_MAPPINGS,
    PGS_LEVEL_FRAMES,
    PGS_LEVEL_EMPTY,         /* of these: nothing maps them any more */
    PGS_LEVEL_RESERVE,
    PGS_LEVEL_FIFO,
    PGS_LEVEL_CLAIMED,
    PGS_LEVEL_VERSION,       /* moves with every change of a level */
    PGS_COUNTERS
};

/* Invariants: session is odd iff the shard has an owner, and owner is then its
 * identity, else 0; readers[p] = enters - leaves of guests with tickets of this
 * shard and p; a counter's share is count[] + own[]. */
struct pgs_shard {
    _Alignas(64) _Atomic uint64_t session;
    _Atomic uintptr_t owner;
    _Atomic uint64_t own[PGS_COUNTERS]; /* written by the owner alone */
    _Alignas(64) _Atomic uint32_t readers[2];
    _Atomic uint64_t count[PGS_COUNTERS];
};

static_assert(PGS_SHARDS == 1u << 6, "pgs_shard_mine() takes six bits");

struct pgs_shards {
    struct pgs_shard shard[PGS_SHARDS];
    _Atomic uint32_t phase;    /* which readers[] enter() uses */
    _Atomic uint32_t draining; /* one drain at a time */
};

int pgs_shards_init(struct pgs_shards *shards);
void pgs_shards_fini(struct pgs_shards *shards);

/* The shard of a thread, by its pthread_self(). */
static inline struct pgs_shard *pgs_shard_of(struct pgs_shards *shards,
                                             uintptr_t thread)
{
    /* Stacks are equally spaced; a golden ratio's multiples spread evenly. */
    return &shards->shard[((uint64_t)thread >> 6) *
                              UINT64_C(0x9e3779b97f4a7c15) >> 58];
}

/* The calling thread's; *ret_owned: is it inside as the owner? */
static inline struct pgs_shard *pgs_shard_mine(struct pgs_shards *shards,
                                               bool *ret_owned)
{
    uintptr_t self = (uintptr_t)pthread_self();
    struct pgs_shard *shard = pgs_shard_of(shards, self);

    *ret_owned =
        atomic_load_explicit(&shard->owner, memory_order_relaxed) == self;
    return shard;
}

/* Counts in one's own shard, for those who count several things. */
static inline void pgs_shard_count(struct pgs_shard *shard, bool owned,
                                   unsigned counter, uint64_t n)
{
    assert(counter < PGS_COUNTERS);
    if (owned)
        atomic_store_explicit(&shard->own[counter],
                              atomic_load_explicit(&shard->own[counter],
                                                   memory_order_relaxed) + n,
                              memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&shard->count[counter], n,
                                  memory_order_relaxed);
}

static inline void pgs_count(struct pgs_shards *shards, unsigned counter,
                             uint64_t n)
{
    bool owned;
    struct pgs_shard *shard = pgs_shard_mine(shards, &owned);

    pgs_shard_count(shard, owned, counter, n);
}

uint64_t pgs_shards_sum(struct pgs_shards *shards, unsigned counter);

/* In tickets, beside the shard and the guest's phase. */
#define PGS_TICKET_OWNER (UINT32_C(1) << 31)

/* The ticket is to be handed to leave(), by the same thread or another. What
 * is to be protected from a drain is looked up after enter(), by a seq_cst
 * load; a drain is preceded by a seq_cst store (or exchange) that makes it
 * unreachable. */
static inline uint32_t pgs_shards_enter(struct pgs_shards *shards)
{
    uintptr_t self = (uintptr_t)pthread_self();
    struct pgs_shard *shard = pgs_shard_of(shards, self);
    uint32_t index = (uint32_t)(shard - shards->shard);
    uint64_t session = atomic_load_explicit(&shard->session,
                                            memory_order_relaxed);
    uint32_t phase;

    if (session % 2 == 0 &&
        atomic_compare_exchange_strong_explicit(&shard->session, &session,
                                                session + 1,
                                                memory_order_seq_cst,
                                                memory_order_relaxed)) {
        atomic_store_explicit(&shard->owner, self, memory_order_relaxed);
        return index << 1 | PGS_TICKET_OWNER;
    }
    phase = atomic_load_explicit(&shards->phase, memory_order_relaxed);
    assert(phase < 2);
    atomic_fetch_add_explicit(&shard->readers[phase], 1,
                              memory_order_seq_cst);
    return index << 1 | phase;
}

static inline void pgs_shards_leave(struct pgs_shards *shards, uint32_t ticket)
{
    uint32_t index = (ticket & ~PGS_TICKET_OWNER) >> 1;
    struct pgs_shard *shard = &shards->shard[index];
    uint64_t session = atomic_load_explicit(&shard->session,
                                            memory_order_relaxed);
    uint32_t before;

    assert(index < PGS_SHARDS);
    if (ticket & PGS_TICKET_OWNER) {
        assert(session % 2 == 1);
        atomic_store_explicit(&shard->owner, 0, memory_order_relaxed);
        atomic_store_explicit(&shard->session, session + 1,
                              memory_order_release);
        return;
    }
    before = atomic_fetch_sub_explicit(&shard->readers[ticket & 1], 1,
                                       memory_order_release);
    assert(before > 0);
    (void)before;
}

/* Waits for all that are inside now; `own` is the caller's own ticket, or
 * NULL: it is not waited for (it is left before and entered again). Calls
 * `help` (may be NULL), with no lock held, about each millisecond while it
 * waits; help must not drain, and ends the wait by answering false, as the
 * drain does then. */
bool pgs_shards_drain(struct pgs_shards *shards, uint32_t *own,
                      bool (*help)(void *ctx), void *ctx);

#endif
