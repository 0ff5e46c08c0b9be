/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of a host and of a domain, which the mechanisms share.
 *
 * Who may touch what:
 *   - words, frames, marks, holds: as their tables say, from any thread;
 *   - a domain's FIFO, ring and claims: under its lock;
 *   - the policy's state: the runner only (PGS_RANK_RUN);
 *   - slots and groups change under domains_lock; a slot is read without it,
 *     by whoever is inside (base/shard.h), and its domain stays valid as long
 *     as that one stays inside.
 *
 * The life of a domain: LIVE → DYING (handle void; nobody new finds it) → all
 * that were inside have left, its calls have ended → torn down → freed.
 */
#ifndef PGS_MECHANISM_HOST_H
#define PGS_MECHANISM_HOST_H

#include "base/alloc.h"
#include "base/lock.h"
#include "base/mix.h"
#include "base/origin.h"
#include "base/platform.h"
#include "base/shard.h"
#include "mechanism/call.h"
#include "tables/fifo.h"
#include "tables/frame.h"
#include "tables/gfn.h"
#include "tables/hold.h"
#include "tables/mark.h"

#include <pgshare/host.h>
#include <pgshare/sys/backend.h>

struct pgs_policy;
struct pgshare_guest_ring;

#define PGS_SLOTS 65536u
#define PGS_NAMES 8192u    /* buckets */
#define PGS_GROUPS 131072u /* none, the named, one more for each domain */
#define PGS_GROUP_BUCKETS 256u

/* A trust group. Group 0 of the table is none. */
struct pgs_group {
    char name[64];    /* empty: a domain's own */
    uint64_t seed;    /* of fingerprints, secret */
    uint64_t zero;    /* fingerprint of a page of zeroes */
    uint32_t domains; /* that are in it; own groups are reused at 0 */
    uint32_t next;    /* named: of its bucket; ended: of the spare ones */
};

enum pgs_domain_flag {
    PGS_DOMAIN_DYING = 1 << 0,     /* removed by the embedder */
    PGS_DOMAIN_GONE = 1 << 1,      /* lost by the backend */
    PGS_DOMAIN_SUSPENDED = 1 << 2, /* no sharing, by the embedder */
    PGS_DOMAIN_FROZEN = 1 << 3,    /* a stub: writes are reported */
    PGS_DOMAIN_UNSECURED = 1 << 4, /* forked without cover: see fork.c */
    PGS_DOMAIN_CLEARED = 1 << 5,   /* gone, and nothing is left of it */
    PGS_DOMAIN_LEFT = 1 << 6,      /* dying, and the backend may yet do an
                                    * operation that was given up with it */
    PGS_DOMAIN_SWITCHING = 1 << 7, /* a suspension begins or ends: see
                                    * api/suspend.c */
    PGS_DOMAIN_UNTOLD = 1 << 8,    /* that was done after its caller had left */
    PGS_DOMAIN_DOUBTFUL = 1 << 9   /* SUSPENDED, but the backend may not be */
};

/* What several vCPU threads count; a thread uses one of a few copies. */
#define PGS_TALLIES 8u
struct pgs_tally {
    _Alignas(64) _Atomic uint64_t faults[16];
    _Atomic uint64_t made[16];
    _Atomic uint64_t broken; /* mappings, but for those that a fault broke */
};

/*
 * Invariants (under lock): fifo.used pages have VOLATILE;
 *   claimed + secures ≤ fifo.used, or service is set and the service's hold;
 *   service->secures counts the claims of all domains that it serves.
 */
struct pgs_domain {
    struct pgshare_host *host;
    uint64_t handle;
    uint32_t slot;
    uint32_t domid;
    uint64_t generation;
    uint64_t gfns;
    uint32_t group;
    uint64_t seed;          /* the group's, of fingerprints, … */
    uint64_t zero;          /* … and what a page of zeroes has */
    uint32_t caps;          /* enum pgshare_cap, host's and its own */
    void *cookie;           /* the backend's */
    _Atomic uint32_t flags; /* enum pgs_domain_flag */
    _Atomic uint32_t *dir;  /* [gfns >> 16]: chunk + 1, or 0 */
    uint32_t dir_len;
    _Atomic uint32_t harvesting; /* 1: a harvest is under way */
    _Atomic uint32_t harvests_begun;
    _Atomic uint32_t harvests_done; /* the number of the last that ended well */
    _Atomic uint64_t harvested;  /* its `seq`: earlier breaks have been told */
    _Atomic uint64_t undo_lo;    /* GFNs to look at for declarations that are */
    _Atomic uint64_t undo_hi;    /* not carried out yet: [lo, hi); changed under
                                  * lock */
    uint64_t undo_first;         /* the runner's walk over such a range … */
    _Atomic uint64_t undo_next;  /* … goes on here, … */
    _Atomic uint64_t undo_end;   /* … up to here; not below it: there is none */
    bool undo_left;              /* it has met pages that are to be undone … */
    bool undo_secrets;           /* … and secrets */
    _Atomic uint64_t undo_after; /* on the clock: one failed, not before this */

    struct pgs_mutex lock;
    struct pgs_fifo fifo;
    uint64_t claimed; /* bonus pages held */
    uint64_t charged; /* of these: by account only */
    uint64_t secures; /* claims of others that its FIFO secures */
    _Atomic int64_t unsecured; /* its part of the host's; never negative */
    uint64_t repaid;
    struct pgs_domain *service;
    uint32_t n_served;          /* domains whose service it is; domains_lock */
    struct pgshare_guest_ring *ring;
    uint32_t ring_request_tail; /* our own copies of what we produce */
    uint32_t ring_answer_head;
    uint32_t ring_lost;
    uint32_t ring_turn; /* moves with attach and detach */
    bool ring_serving;  /* a thread is between request and answer */

    uint64_t fork_of; /* the stub that it is being built from */
    struct pgs_domain *next_named;
    uint32_t scans;   /* policy: passes over it, under scan.lock */
    _Atomic(_Atomic uint8_t *) floors; /* policy: of each 2 MiB region, or
                                        * NULL; see policy/floor.c */
    struct pgs_domain *next_dying;
    struct pgs_tally tally[PGS_TALLIES];
};

/* pgshare_host::recount; 0: the count is right. */
enum { PGS_RECOUNT_WANTED = 1, PGS_RECOUNT_ASKED = 2 };

struct pgshare_host {
    struct pgs_origin origin; /* the process that made it */
    struct pgs_heap heap;
    struct pgshare_platform platform;
    struct pgshare_host_options options; /* defaults filled in */
    struct pgshare_backend *backend;
    struct pgshare_backend_info info;
    struct pgshare_sink sink;

    struct pgs_shards shards;
    struct pgs_channel channel; /* waits for words, completions, drains */
    struct pgs_mutex run;
    _Atomic uintptr_t runner; /* the thread that runs, or 0 */
    uint32_t *runner_ticket;  /* its own visit (base/shard.h) */

    struct pgs_mutex domains_lock;
    struct pgs_domain *_Atomic *slots; /* PGS_SLOTS, lazily backed */
    uint8_t *taken;                    /* [PGS_SLOTS]: by a domain, listed or
                                        * dying */
    _Atomic uint32_t slots_used;       /* slots[slots_used …] never used */
    struct pgs_domain **names;         /* [PGS_NAMES] by next_named */
    struct pgs_domain *dying;
    uint32_t n_domains;
    uint64_t serial; /* of the last handle */
    struct pgs_chunks chunks;
    struct pgs_group *groups; /* [n_groups] */
    uint32_t n_groups;
    uint32_t max_groups;
    uint32_t n_named;
    uint32_t spare_groups; /* groups that have ended, by `next` */
    uint32_t named_groups[PGS_GROUP_BUCKETS];

    struct pgs_frames frames;
    struct pgs_marks marks;
    struct pgs_holds holds;
    struct pgs_calls calls;
    struct pgs_spare {
        _Alignas(64) struct pgs_extent *extent;
    } spares[PGS_SHARDS];    /* each its shard's owner's (extent.c) */
    _Atomic uint64_t ticket; /* the last one issued */

    struct pgs_mutex doomed_lock; /* leaf */
    uint32_t doomed;              /* frames to be released, by `head` */
    _Atomic uint64_t n_doomed;
    uint32_t kept;                /* doomed, but a domain that leaves may map
                                   * them yet; by `head` */
    _Atomic uint32_t n_left;      /* domains that are LEFT */
    _Atomic int64_t unsecured;    /* mappings that forks did not cover, fork.c;
                                   * the sum of all domains' */
    _Atomic int64_t written_off;  /* cover that went with a domain; ledger.c */
    _Atomic int64_t advanced;     /* frames handed out for breaks not told yet */
    _Atomic int64_t reserve_leaving; /* frames on their way to the machine */
    _Atomic uint64_t reserve_wish; /* frames to hold beyond what is owed */
    _Atomic uint64_t harvest_ns; /* time spent in harvests; the runner takes it */
    _Atomic uint64_t refill_due;  /* on the clock: a reserve that is short takes
                                   * nothing from the machine before */
    uint64_t refill_pause;        /* the runner's: how long that is put off */
    _Atomic uint64_t pushed;      /* volatile pages so far, of all FIFOs: the
                                   * next one's stamp */
    _Atomic uint32_t recount;     /* the reserve's count is in doubt, see below */
    _Atomic uint32_t work;        /* 1: something arrived for the runner */
    _Atomic uint64_t demands;     /* platform faults that wait for memory */

    struct pgs_policy *policy;
    /* the policy's ear for pages that were declared free; may be NULL */
    void (*freed)(struct pgs_domain *domain, uint64_t gfn, uint64_t count);
};

/* Frames of the reserve that are not on their way to the machine. */
static inline int64_t pgs_reserve_at_hand(struct pgshare_host *host)
{
    return (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE) -
           atomic_load_explicit(&host->reserve_leaving, memory_order_relaxed);
}

/* ---- domains and pages ------------------------------------------------- */

/* Inside only. NULL: no such domain. */
static inline struct pgs_domain *pgs_domain_of(struct pgshare_host *host,
                                               uint64_t handle)
{
    struct pgs_domain *domain = atomic_load_explicit(
        &host->slots[handle % PGS_SLOTS], memory_order_seq_cst);

    return domain && domain->handle == handle ? domain : NULL;
}

static inline uint32_t pgs_domain_flags(const struct pgs_domain *domain)
{
    return atomic_load_explicit(&domain->flags, memory_order_acquire);
}

/* For those who have just taken a page's BUSY: either they see the suspension,
 * or it sees BUSY and waits for them. */
static inline bool pgs_is_suspended(const struct pgs_domain *domain)
{
    return atomic_load_explicit(&domain->flags, memory_order_seq_cst) &
           PGS_DOMAIN_SUSPENDED;
}

/* The ordinal of a GFN, PGS_PAGE_NONE where it has no word. gfn < gfns. */
static inline uint32_t pgs_page_of(const struct pgs_domain *domain,
                                   uint64_t gfn)
{
    uint32_t chunk = atomic_load_explicit(&domain->dir[gfn >> PGS_CHUNK_SHIFT],
                                          memory_order_acquire);

    if (!chunk)
        return PGS_PAGE_NONE;
    return (chunk - 1) << PGS_CHUNK_SHIFT |
           (uint32_t)(gfn & (PGS_CHUNK_GFNS - 1));
}

/* The word of a GFN, or NULL. */
static inline _Atomic uint64_t *pgs_word_of(const struct pgs_domain *domain,
                                            uint64_t gfn)
{
    uint32_t page = pgs_page_of(domain, gfn);

    return page == PGS_PAGE_NONE ? NULL
                                 : pgs_word_at(&domain->host->chunks, page);
}

/* The word of a GFN as it is, 0 (a hole) where it has none. */
static inline uint64_t pgs_word_peek(const struct pgs_domain *domain,
                                     uint64_t gfn)
{
    _Atomic uint64_t *word = pgs_word_of(domain, gfn);

    return word ? atomic_load_explicit(word, memory_order_acquire) : 0;
}

/* Whose page is it? The ordinal is of a page whose BUSY, or whose frame's
 * stripe, the caller holds, or of a domain that cannot go meanwhile. */
static inline struct pgs_domain *pgs_page_domain(struct pgshare_host *host,
                                                 uint32_t page)
{
    return host->chunks.list[page >> PGS_CHUNK_SHIFT].domain;
}

static inline uint64_t pgs_page_gfn(struct pgshare_host *host, uint32_t page)
{
    return host->chunks.list[page >> PGS_CHUNK_SHIFT].base +
           (page & (PGS_CHUNK_GFNS - 1));
}

/* Is [gfn, gfn + count) legal, count > 0? */
static inline bool pgs_range_ok(const struct pgs_domain *domain, uint64_t gfn,
                                uint64_t count)
{
    return count && gfn < domain->gfns && count <= domain->gfns - gfn;
}

static inline struct pgs_tally *pgs_tally_mine(struct pgs_domain *domain)
{
    uint64_t self = (uint64_t)(uintptr_t)pthread_self();

    return &domain->tally[(self >> 12 ^ self >> 20 ^ self >> 23) % PGS_TALLIES];
}

/* ---- words ------------------------------------------------------------- */

/*
 * Quarantine. Where the platform resolves CoW, a break of a mapping may be told
 * after we have made the page private ourselves, and must not be taken for a
 * break of its next mapping. So a page that an operation of ours makes private
 * remembers how many harvests had been started by then (15 bits and a marker
 * bit), and is not mapped again before a later one is over. When the 15 bits
 * wrap, a page may wait for nothing; it is never let through too early. A break
 * that is older than a harvest which is over, by its `seq`, comes too late to
 * be believed (page.c).
 */
#define PGS_EPOCH_MARK 0x8000u

static inline uint64_t pgs_private_word(const struct pgs_domain *domain)
{
    uint32_t epoch = 0;

    if (domain->caps & PGSHARE_CAP_PLATFORM_COW)
        epoch = atomic_load_explicit(&domain->harvests_begun,
                                     memory_order_acquire) |
                PGS_EPOCH_MARK;
    return pgs_word_with(PGS_PRIVATE, 0, (uint16_t)epoch);
}

static inline bool pgs_quarantined(const struct pgs_domain *domain,
                                   uint64_t word)
{
    uint32_t done = atomic_load_explicit(&domain->harvests_done,
                                         memory_order_acquire);
    uint32_t ahead = (done - pgs_word_epoch(word)) & (PGS_EPOCH_MARK - 1);

    return pgs_word_epoch(word) & PGS_EPOCH_MARK &&
           (!ahead || ahead > PGS_EPOCH_MARK / 2);
}

/* The ticket of every mapping of the zero frame. */
#define PGS_TICKET_ZERO UINT64_C(1)

/* The first of `n` new, never-reused tickets. */
static inline uint64_t pgs_ticket_next(struct pgshare_host *host, uint32_t n)
{
    return atomic_fetch_add_explicit(&host->ticket, n, memory_order_relaxed) +
           1;
}

/* Adds [lo, hi) to the GFNs whose declarations are to be carried out. */
void pgs_undo_widen(struct pgs_domain *domain, uint64_t lo, uint64_t hi);

/* Lets the backend send what it has queued, and deliver what has arrived. */
void pgs_host_poll_backend(struct pgshare_host *host);

/* Announces work for the runner. */
void pgs_wake(struct pgshare_host *host);

/* The backend broke its contract: counts it, and the runner reports it. Any
 * thread, also under locks. */
void pgs_backend_error(struct pgshare_host *host);

/* Calls the embedder's report; no lock held. */
void pgs_report(struct pgshare_host *host, uint32_t kind, int error,
                uint64_t dom, uint64_t gfn, uint64_t count);

#endif
