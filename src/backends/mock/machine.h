/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the mock machine share.
 *
 * Memory is an arena of *frames*; a frame has a number and one 64-bit record.
 * A domain's page table (p2m) has a 32-bit entry per GFN:
 *
 *     31    of the first of each 16 entries: the lock of all of them, held by
 *           a guest's access, or an operation, at work on such a page
 *     30-28 kind, see below
 *     27    written, the change log
 *     26    read-only: writes trap for good
 *     25-0  frame number, of kinds that have one
 *
 * Entry 0 (kind DEFAULT) is what the kernel's zero pages hold, so that nothing
 * needs to be written for a hole of an ordinary domain or for an untouched
 * page of a sparse one.
 *
 * A frame's record, in one word so that it changes at once:
 *
 *     31-0  mappings: p2m entries of kind SHARED with this frame, all domains
 *     33-32 type
 *     39-34 pins: DMA under way
 *     63-40 version: grows whenever the frame gets a new name
 *
 * Invariants, checked by pgshare_mock_check():
 *     type NONE, NOMINATED  ⇒  mappings = 0
 *     type COW, ORPHAN      ⇒  mappings = number of entries SHARED
 *     type ORPHAN           ⇒  mappings = orphans > 0
 *     a frame of an entry PRIVATE or PROTECTED has no other entry
 *     frames = free + reserve + private + cow + orphans
 *
 * Locks, outer before inner: one lock of p2m entries → a shard →
 * `pool.lock`; a domain's `log_lock`; `pending_lock`; `hook_lock`. None is held
 * when the sink, the host or a callback is called.
 */
#ifndef PGS_MOCK_MACHINE_H
#define PGS_MOCK_MACHINE_H

#include <pgshare/error.h>
#include <pgshare/mock.h>
#include <pgshare/sys/backend.h>
#include <pgshare/sys/platform.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* p2m entries */

#define ENTRY_LOCK UINT32_C(0x80000000)
#define LOCK_ENTRIES 16u /* a cache line */
#define ENTRY_WRITTEN UINT32_C(0x08000000)
#define ENTRY_READ_ONLY UINT32_C(0x04000000)
#define ENTRY_FRAME UINT32_C(0x03ffffff)
#define ENTRY_KIND UINT32_C(0x70000000)
#define ENTRY_KIND_SHIFT 28

enum pgs_mock_kind {
    KIND_DEFAULT = 0,   /* sparse domain: private, unwritten; else a hole */
    KIND_HOLE = 1,      /* for sparse domains */
    KIND_PRIVATE = 2,   /* has a frame */
    KIND_PROTECTED = 3, /* has a frame */
    KIND_SHARED = 4,    /* has a frame of type COW or ORPHAN */
    KIND_ZERO = 5,      /* maps the zero frame */
    KIND_RECLAIMED = 6, /* a hole that reads as zeroes */
    KIND_SPARSE_PROTECTED = 7
};

/* Frames */

#define FRAMES_MAX UINT32_C(0x03ffffff)
#define FRAME_NONE UINT32_MAX
/* In numbers handed out by the pool: never used, so its bytes are zero. */
#define FRAME_FRESH UINT32_C(0x80000000)
#define FRAME_NUMBER UINT32_C(0x7fffffff)

enum pgs_mock_type { TYPE_NONE, TYPE_NOMINATED, TYPE_COW, TYPE_ORPHAN };

#define RECORD_TYPE_SHIFT 32
#define RECORD_PIN_SHIFT 34
#define RECORD_PIN_ONE ((uint64_t)1 << RECORD_PIN_SHIFT)
#define RECORD_PINS ((uint64_t)0x3f << RECORD_PIN_SHIFT)
#define RECORD_VERSION_SHIFT 40

/* A cache of reserve frames; threads spread over them. */
#define SHARD_FRAMES 124u
#define SHARD_BATCH 64u
#define SHARDS 64u

struct pgs_mock_shard {
    _Alignas(128) atomic_flag lock;
    uint32_t n;
    uint32_t frames[SHARD_FRAMES];
    _Atomic uint64_t ops; /* done by threads of this shard, about */
};

/*
 * Frame numbers that nobody uses lie in `stack` (last in, first out, so that
 * a recycled frame is warm) or have never been used (from `fresh` on). What
 * they count as is a matter of the two counters: reserve of the host, or free
 * memory of the machine.
 *
 *     n + (numbers - fresh) + Σ shard.n + zeroed ≥ free + reserve - sparse
 */
struct pgs_mock_pool {
    atomic_flag lock;
    uint32_t *stack;
    uint32_t n;
    uint32_t fresh;
    uint32_t numbers; /* frames that can have bytes */
    uint64_t free;
    uint64_t reserve; /* without what shards and `zeroed` hold */

    pthread_mutex_t drain; /* one thread at a time empties the shards */
    atomic_flag zeroed_lock;
    uint32_t *zeroed;
    uint32_t zeroed_n;
    uint32_t zeroed_max;
    struct pgs_mock_shard shards[SHARDS];
};

struct pgs_mock_pending;

struct pgs_mock_hook {
    void (*call)(void *ctx);
    void *ctx;
    uint32_t chance;
};

#define HOOKS_MAX 8u
#define DOMAINS_MAX 65535u

struct pgshare_mock_machine {
    struct pgshare_backend backend; /* first */
    struct pgshare_mock_options options;
    struct pgshare_platform platform;
    bool deterministic;
    bool platform_cow;
    bool stepping;        /* hooks run between pages */
    uint64_t ops; /* bit 1 << kind of each that the host may use */
    _Atomic bool unquiet; /* chaos or hooks: submit() takes the long way */

    /* memory */
    uint64_t frames;
    unsigned char *arena;
    _Atomic uint64_t *records;
    _Atomic uint32_t *orphans; /* mappings by guests that have left */
    struct pgs_mock_pool pool;
    _Atomic uint64_t sparse; /* private pages without bytes */

    /* the host */
    struct pgshare_host *host;
    const struct pgshare_sink *sink;

    /* domains: a cookie is slot + 1, and the slot's generation above */
    struct pgshare_mock_domain **slots;
    uint16_t *generations;
    uint32_t slots_used;
    uint32_t next_domid;
    _Atomic uint64_t next_image;
    struct pgshare_mock_disk *disks;

    /* time, chance, and what is delayed */
    _Atomic uint64_t now;
    _Atomic uint64_t random;
    _Atomic uint32_t pressure;
    pthread_mutex_t pending_lock;
    struct pgs_mock_pending *pending;
    struct pgs_mock_pending *running;
    pthread_mutex_t hook_lock;
    struct pgs_mock_hook hooks[HOOKS_MAX];
    uint32_t n_hooks;
    atomic_flag in_hook;
    _Atomic uint64_t parked; /* writes of all domains */

    /* what happened */
    _Atomic uint64_t polls, faults, breaks, copies, retries, dropped;
    _Atomic uint64_t killed, demands, hooked, lost, doubled, violations;
    _Atomic uint64_t pending_n, unharvested, dropped_n;
    char *texts[PGSHARE_MOCK_VIOLATIONS_KEPT];
};

/*
 * A guest's write that waits for its fault to be resolved, and all that the
 * guest wrote after it. `bytes` has `len` bytes, at `offset` of the page.
 */
struct pgs_mock_parked {
    struct pgs_mock_parked *next;
    uint64_t gfn;
    uint64_t cookie; /* of a demand that is under way, or 0 */
    uint32_t offset;
    uint32_t len;
    uint32_t patience; /* polls before it faults again */
    bool killed;
    unsigned char bytes[];
};

/* Pages that the guest dropped, until the host has heard of it. */
struct pgs_mock_dropped {
    struct pgs_mock_dropped *next;
    uint64_t gfn;
    uint64_t seq;
    int hole;
};

struct pgs_mock_break {
    uint64_t gfn;
    uint64_t seq;
};

struct pgshare_mock_domain {
    struct pgshare_mock_machine *machine;
    _Atomic uint32_t *p2m;
    _Atomic uint8_t *touched; /* per 1024 GFNs: an entry is not DEFAULT */
    uint64_t gfns;
    uint32_t domid;
    uint32_t slot;
    uint64_t generation;
    bool sparse, direct, enlightened;
    bool removed; /* left its host: frames that it maps are orphans */
    _Atomic bool dead;
    _Atomic bool suspended;
    _Atomic uint64_t handle; /* the host's; 0: none */
    _Alignas(64) _Atomic uint64_t seq;
    _Alignas(64) void (*content)(void *ctx, uint32_t domid, uint64_t gfn,
                                 void *ret_page);
    void *content_ctx;

    pthread_mutex_t log_lock; /* of what follows */
    struct pgs_mock_break *breaks;
    /* Breaks not told: [breaks_first, breaks_n). Room for those that are being
     * made is kept: breaks_n + breaks_promised ≤ breaks_room. */
    size_t breaks_first, breaks_n, breaks_promised, breaks_room;
    struct pgs_mock_dropped *dropped_first, **dropped_last;
    bool telling; /* somebody tells the host of dropped_first */
    struct pgs_mock_parked *parked_first, **parked_last;
    _Atomic bool harvesting;
    bool draining;
    uint32_t next_demand;
    struct pgs_mock_overlay *overlays;
    struct pgshare_mock_kernel *kernels;
};

/* machine.c */

__attribute__((format(printf, 2, 3))) void pgs_mock_violate(
    struct pgshare_mock_machine *machine, const char *format, ...);
uint64_t pgs_mock_random(struct pgshare_mock_machine *machine);
bool pgs_mock_chance(struct pgshare_mock_machine *machine, uint32_t ppm);

/* frames.c */

int pgs_mock_frames_init(struct pgshare_mock_machine *machine);
void pgs_mock_frames_fini(struct pgshare_mock_machine *machine);
bool pgs_mock_free_take(struct pgshare_mock_machine *machine, uint32_t n,
                        uint32_t *ret_frames);
void pgs_mock_free_put(struct pgshare_mock_machine *machine, uint32_t n,
                       const uint32_t *frames, uint32_t tokens);
bool pgs_mock_free_charge(struct pgshare_mock_machine *machine, uint64_t n);
void pgs_mock_free_uncharge(struct pgshare_mock_machine *machine, uint64_t n);
uint32_t pgs_mock_number_take(struct pgshare_mock_machine *machine);
uint32_t pgs_mock_reserve_take_one(struct pgshare_mock_machine *machine);
uint32_t pgs_mock_reserve_take(struct pgshare_mock_machine *machine, uint32_t n,
                               uint32_t *ret_frames);
void pgs_mock_reserve_put(struct pgshare_mock_machine *machine, uint32_t n,
                          const uint32_t *frames, uint32_t tokens);
uint32_t pgs_mock_zeroed_take(struct pgshare_mock_machine *machine);
void pgs_mock_zeroed_refill(struct pgshare_mock_machine *machine);
int64_t pgs_mock_reserve_move(struct pgshare_mock_machine *machine,
                              int64_t frames);
void pgs_mock_count_op(struct pgshare_mock_machine *machine);
uint64_t pgs_mock_reserve_level(struct pgshare_mock_machine *machine);
void pgs_mock_reserve_drain(struct pgshare_mock_machine *machine);
void pgs_mock_frame_publish(struct pgshare_mock_machine *machine,
                            uint32_t frame, enum pgs_mock_type type,
                            uint32_t mappings);
bool pgs_mock_frame_map(struct pgshare_mock_machine *machine, uint64_t id);
void pgs_mock_frame_unmap(struct pgshare_mock_machine *machine, uint32_t frame,
                          bool orphan);
bool pgs_mock_frame_retake(struct pgshare_mock_machine *machine,
                           uint32_t frame);
void pgs_mock_frame_plain(struct pgshare_mock_machine *machine, uint32_t frame);

static inline unsigned char *pgs_mock_bytes(
    const struct pgshare_mock_machine *machine, uint32_t frame)
{
    return machine->arena +
           ((size_t)(frame & ENTRY_FRAME) << PGSHARE_PAGE_SHIFT);
}

/* A page's size, which the compiler does not know: what the C library has for
 * the processor at hand is twice as fast as the string instructions that
 * compilers put in place of a copy whose size they know. */
static inline size_t pgs_mock_page_size(void)
{
    size_t size = PGSHARE_PAGE_SIZE;

    __asm__("" : "+r"(size));
    return size;
}

/* As kernels copy pages: a locked instruction that follows does not wait for a
 * string instruction's stores as long as for memcpy()'s. (What checks memory
 * accesses knows memcpy() only.) */
static inline void pgs_mock_frame_copy(struct pgshare_mock_machine *machine,
                                       uint32_t to, uint32_t from)
{
    void *to_bytes = pgs_mock_bytes(machine, to);
    const void *from_bytes = pgs_mock_bytes(machine, from);
    size_t size = pgs_mock_page_size();

#if defined(__x86_64__) && !defined(PGS_DEBUG_CHECKS)
    __asm__ volatile("rep movsb"
                     : "+D"(to_bytes), "+S"(from_bytes), "+c"(size)
                     :
                     : "memory");
#else
    memcpy(to_bytes, from_bytes, size);
#endif
}

static inline void pgs_mock_frame_zero(struct pgshare_mock_machine *machine,
                                       uint32_t frame)
{
    memset(pgs_mock_bytes(machine, frame), 0, pgs_mock_page_size());
}

/* For functions that only send for memory: GCC takes such a function for one
 * without effect, and leaves its calls out unless they are inlined. */
#define FETCH static inline __attribute__((always_inline))

/* Sends for a frame's bytes, so that they come while books are kept. */
FETCH void pgs_mock_frame_fetch(
    const struct pgshare_mock_machine *machine, uint32_t frame)
{
    const unsigned char *bytes = pgs_mock_bytes(machine, frame);

    for (uint32_t at = 0; at < PGSHARE_PAGE_SIZE; at += 64)
        __builtin_prefetch(bytes + at);
}

/* The beginning of a page is sent for while another page is being read; the
 * processor goes on by itself. */
FETCH void pgs_mock_frame_fetch_begin(
    const struct pgshare_mock_machine *machine, uint32_t frame)
{
    const unsigned char *bytes = pgs_mock_bytes(machine, frame);

    for (uint32_t line = 0; line < 4; line++)
        __builtin_prefetch(bytes + line * 64);
}

static inline uint64_t pgs_mock_record(
    const struct pgshare_mock_machine *machine, uint32_t frame)
{
    return atomic_load_explicit(&machine->records[frame], memory_order_acquire);
}

static inline enum pgs_mock_type pgs_mock_record_type(uint64_t record)
{
    return (enum pgs_mock_type)((record >> RECORD_TYPE_SHIFT) & 3);
}

static inline uint32_t pgs_mock_record_mappings(uint64_t record)
{
    return (uint32_t)record;
}

/* The name of a frame in the contract: its version above, never 0. */
static inline uint64_t pgs_mock_id(uint64_t record, uint32_t frame)
{
    return record >> RECORD_VERSION_SHIFT << 32 | frame;
}

/* Is this the present name of a frame of type COW? */
static inline bool pgs_mock_id_is_cow(
    const struct pgshare_mock_machine *machine, uint64_t id)
{
    uint32_t frame = (uint32_t)id;
    uint64_t record;

    if (frame >= machine->pool.numbers)
        return false;
    record = pgs_mock_record(machine, frame);
    return pgs_mock_record_type(record) == TYPE_COW &&
           pgs_mock_id(record, frame) == id;
}

/* domain.c, memory.c */

#define GIVE_BACK 256u

/* Frames that go back to the machine, a batch at a time. */
struct pgs_mock_give_back {
    uint32_t frames[GIVE_BACK];
    uint32_t n;
    uint32_t tokens; /* n, and pages without a frame */
};

void pgs_mock_give_back_flush(struct pgshare_mock_machine *machine,
                              struct pgs_mock_give_back *back);
uint32_t pgs_mock_empty_entry(struct pgshare_mock_domain *domain,
                              uint32_t entry, struct pgs_mock_give_back *back);

#define SLOT_BITS 20

void *pgs_mock_domain_cookie(const struct pgshare_mock_domain *domain);

/* The domain with that cookie, or NULL where there is none (any more). */
static inline struct pgshare_mock_domain *pgs_mock_domain_find(
    struct pgshare_mock_machine *machine, const void *cookie)
{
    uintptr_t value = (uintptr_t)cookie;
    uintptr_t slot = (value & (((uintptr_t)1 << SLOT_BITS) - 1)) - 1;

    if (slot >= machine->slots_used ||
        machine->generations[slot] != value >> SLOT_BITS)
        return NULL;
    return machine->slots[slot];
}

static inline bool pgs_mock_range_ok(const struct pgshare_mock_domain *domain,
                                     uint64_t gfn, uint64_t count)
{
    return count && gfn < domain->gfns && count <= domain->gfns - gfn;
}

void pgs_mock_content(const struct pgshare_mock_domain *domain, uint64_t gfn,
                      void *ret_page);
uint32_t pgs_mock_materialise(struct pgshare_mock_domain *domain, uint64_t gfn,
                              uint32_t entry);
const unsigned char *pgs_mock_view(const struct pgshare_mock_domain *domain,
                                   uint64_t gfn, uint32_t entry,
                                   unsigned char *buffer);
void pgs_mock_touch(struct pgshare_mock_domain *domain, uint64_t gfn);
uint64_t pgs_mock_next_touched(const struct pgshare_mock_domain *domain,
                               uint64_t gfn);
void pgs_mock_domain_orphan(struct pgshare_mock_domain *domain);
bool pgs_mock_is_untold(struct pgshare_mock_domain *domain, uint64_t gfn);
void pgs_mock_dropped_tell(struct pgshare_mock_domain *domain);
void pgs_mock_dropped_forget(struct pgshare_mock_domain *domain);

static inline unsigned pgs_mock_kind(uint32_t entry)
{
    return (entry & ENTRY_KIND) >> ENTRY_KIND_SHIFT;
}

static inline uint32_t pgs_mock_entry(uint32_t old, unsigned kind,
                                      uint32_t frame)
{
    return (old & (ENTRY_WRITTEN | ENTRY_READ_ONLY)) |
           kind << ENTRY_KIND_SHIFT | (frame & ENTRY_FRAME);
}

/* Is the page private memory whose bytes were never written? */
static inline bool pgs_mock_is_sparse(const struct pgshare_mock_domain *domain,
                                      uint32_t entry)
{
    unsigned kind = pgs_mock_kind(entry);

    return (kind == KIND_DEFAULT && domain->sparse) ||
           kind == KIND_SPARSE_PROTECTED;
}

static inline bool pgs_mock_is_hole(const struct pgshare_mock_domain *domain,
                                    uint32_t entry)
{
    unsigned kind = pgs_mock_kind(entry);

    return (kind == KIND_DEFAULT && !domain->sparse) || kind == KIND_HOLE ||
           kind == KIND_RECLAIMED;
}

static inline bool pgs_mock_is_private(const struct pgshare_mock_domain *domain,
                                       uint32_t entry)
{
    unsigned kind = pgs_mock_kind(entry);

    return kind == KIND_PRIVATE || (kind == KIND_DEFAULT && domain->sparse);
}

static inline bool pgs_mock_is_protected(uint32_t entry)
{
    unsigned kind = pgs_mock_kind(entry);

    return kind == KIND_PROTECTED || kind == KIND_SPARSE_PROTECTED;
}

/* The entry whose lock bit stands for this GFN's. */
static inline _Atomic uint32_t *pgs_mock_lock_of(
    const struct pgshare_mock_domain *domain, uint64_t gfn)
{
    return &domain->p2m[gfn & ~(uint64_t)(LOCK_ENTRIES - 1)];
}

void pgs_mock_lock_slow(_Atomic uint32_t *lock);

/* Locks as many of the `n` entries from this one on as one lock covers;
 * answers how many. An operation on an extent pays for one locked instruction
 * where it would pay for sixteen. */
static inline uint32_t pgs_mock_lock_run(struct pgshare_mock_domain *domain,
                                         uint64_t gfn, uint32_t n)
{
    _Atomic uint32_t *lock = pgs_mock_lock_of(domain, gfn);
    uint32_t value = atomic_load_explicit(lock, memory_order_relaxed);
    uint32_t room = LOCK_ENTRIES - (uint32_t)gfn % LOCK_ENTRIES;

    if (value & ENTRY_LOCK ||
        !atomic_compare_exchange_strong_explicit(lock, &value,
                                                 value | ENTRY_LOCK,
                                                 memory_order_acquire,
                                                 memory_order_relaxed))
        pgs_mock_lock_slow(lock);
    return n < room ? n : room;
}

static inline void pgs_mock_unlock_run(struct pgshare_mock_domain *domain,
                                       uint64_t gfn)
{
    _Atomic uint32_t *lock = pgs_mock_lock_of(domain, gfn);
    uint32_t value = atomic_load_explicit(lock, memory_order_relaxed);

    atomic_store_explicit(lock, value & ~ENTRY_LOCK, memory_order_release);
}

/* A page's entry. To be sure that it stays, lock it. */
static inline uint32_t pgs_mock_entry_at(
    const struct pgshare_mock_domain *domain, uint64_t gfn)
{
    return atomic_load_explicit(&domain->p2m[gfn], memory_order_acquire) &
           ~ENTRY_LOCK;
}

/* Locked. The lock stays. */
static inline void pgs_mock_entry_set(struct pgshare_mock_domain *domain,
                                      uint64_t gfn, uint32_t value)
{
    uint32_t lock = gfn % LOCK_ENTRIES ? 0 : ENTRY_LOCK;

    atomic_store_explicit(&domain->p2m[gfn], value | lock,
                          memory_order_release);
}

/* Takes one page's lock; returns the entry. */
static inline uint32_t pgs_mock_lock(struct pgshare_mock_domain *domain,
                                     uint64_t gfn)
{
    pgs_mock_lock_run(domain, gfn, 1);
    return pgs_mock_entry_at(domain, gfn);
}

/* Lets go of it, with a new value. */
static inline void pgs_mock_unlock(struct pgshare_mock_domain *domain,
                                   uint64_t gfn, uint32_t value)
{
    pgs_mock_entry_set(domain, gfn, value);
    pgs_mock_unlock_run(domain, gfn);
}

/* The number of an event. */
static inline uint64_t pgs_mock_seq(struct pgshare_mock_domain *domain)
{
    return atomic_fetch_add_explicit(&domain->seq, 1, memory_order_relaxed) + 1;
}

/* The number of an operation. Where guests break nothing by themselves the
 * last event's will do, and vCPUs that fault at once do not meet there. */
static inline uint64_t pgs_mock_op_seq(struct pgshare_mock_domain *domain)
{
    if (domain->machine->platform_cow)
        return pgs_mock_seq(domain);
    return atomic_load_explicit(&domain->seq, memory_order_relaxed);
}

static inline void pgs_mock_spin_lock(atomic_flag *lock)
{
    unsigned spins = 0;

    while (atomic_flag_test_and_set_explicit(lock, memory_order_acquire))
        if (++spins % 64 == 0)
            sched_yield();
}

static inline void pgs_mock_spin_unlock(atomic_flag *lock)
{
    atomic_flag_clear_explicit(lock, memory_order_release);
}

/* cow.c */

/* How an access to a locked page went on. */
enum pgs_mock_access {
    ACCESS_DONE,  /* the page is private and writable; still locked */
    ACCESS_TRAP,  /* the library must resolve it */
    ACCESS_NOMEM, /* the machine has no free frame for the copy */
    ACCESS_HOLE
};

enum pgs_mock_access pgs_mock_make_writable(struct pgshare_mock_domain *domain,
                                            uint64_t gfn, uint32_t *entry);
void pgs_mock_harvest(struct pgshare_mock_domain *domain);
void pgs_mock_breaks_forget(struct pgshare_mock_domain *domain);
int pgs_mock_privatise(struct pgshare_mock_domain *domain);

/* guest.c */

int pgs_mock_write_held(struct pgshare_mock_domain *domain, uint64_t gfn,
                        const void *page);
int pgs_mock_write_part(struct pgshare_mock_domain *domain, uint64_t gfn,
                        uint32_t offset, const void *bytes, uint32_t len,
                        uint64_t timeout_ns);
int pgs_mock_count_dropped(struct pgshare_mock_machine *machine, int error);

/* parked.c */

int pgs_mock_park(struct pgshare_mock_domain *domain, uint64_t gfn,
                  uint32_t offset, const void *bytes, uint32_t len);
bool pgs_mock_is_parked(struct pgshare_mock_domain *domain);
void pgs_mock_parked_run(struct pgshare_mock_domain *domain);
void pgs_mock_parked_drop(struct pgshare_mock_domain *domain);
void pgs_mock_parked_answer(struct pgshare_mock_domain *domain, uint64_t cookie,
                            bool paid);

/* ops.c, ops_share.c, ops_memory.c */

/*
 * An operation at work. `status` and `ids` have room for `op->count` elements;
 * the functions below do pages first … first+n-1 of it.
 */
struct pgs_mock_work {
    struct pgshare_mock_machine *machine;
    struct pgshare_mock_domain *domain;
    struct pgshare_mock_domain *peer;
    const struct pgshare_op *op;
    int8_t *status;
    uint64_t *ids;
    int64_t reserve;
    int32_t result;
    bool failed; /* a status is not 0 */
};

static inline void pgs_mock_fail(struct pgs_mock_work *work, uint32_t i,
                                 int error)
{
    work->status[i] = (int8_t)error;
    work->failed = true;
}

typedef void pgs_mock_op(struct pgs_mock_work *work, uint32_t first,
                         uint32_t n);

extern const struct pgshare_backend_ops pgs_mock_ops;
void pgs_mock_perform(struct pgshare_mock_machine *machine,
                      const struct pgshare_op *op, struct pgs_mock_work *work,
                      uint64_t *ret_seq);
void pgs_mock_answer(struct pgshare_mock_machine *machine,
                     const struct pgs_mock_work *work, uint64_t token,
                     uint64_t seq);
bool pgs_mock_gives_ids(uint32_t kind);
uint64_t pgs_mock_protected_id(const struct pgshare_mock_machine *machine,
                               uint32_t frame);

pgs_mock_op pgs_mock_op_protect, pgs_mock_op_unprotect, pgs_mock_op_compare,
    pgs_mock_op_publish, pgs_mock_op_map, pgs_mock_op_merge;
pgs_mock_op pgs_mock_op_unshare, pgs_mock_op_release, pgs_mock_op_discard,
    pgs_mock_op_reclaim, pgs_mock_op_grant, pgs_mock_op_clone,
    pgs_mock_op_reserve;
pgs_mock_op pgs_mock_op_fingerprint, pgs_mock_op_read_only, pgs_mock_op_harvest,
    pgs_mock_op_changes, pgs_mock_op_query, pgs_mock_op_answer,
    pgs_mock_op_suspend;

/* schedule.c */

int pgs_mock_submit_unquiet(struct pgshare_mock_machine *machine,
                            const struct pgshare_op *ops, size_t n);
void pgs_mock_step(struct pgshare_mock_machine *machine);
void pgs_mock_deliver_due(struct pgshare_mock_machine *machine, bool all);
void pgs_mock_pending_forget(struct pgshare_mock_machine *machine,
                             const void *cookie);

/* disk.c */

void pgs_mock_overlays_free(struct pgshare_mock_domain *domain);
void pgs_mock_disks_free(struct pgshare_mock_machine *machine);

#endif
