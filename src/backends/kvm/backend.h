/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the Linux backend share.
 *
 * A guest's memory is a range of GFNs, of which slots give the addresses. For
 * each GFN there is a byte, and for what stands in a pool mapping 32 bits more:
 *
 *     7-3  bits 36-32 of the place in the pool; the 32 bits have the rest
 *     2-0  kind, see below
 *
 * What the kinds say of the kernel's mappings, which is the invariant of all
 * this code, between any two operations:
 *
 *     HOLE    ANON   private anonymous memory; of a HOLE nobody knows more
 *     MARKED         likewise, write-protected by our userfaultfd
 *     ZERO    OWED   likewise, and nothing or the kernel's zero page in it
 *     FRAME          a private mapping of the pool at that place, and no page
 *                    of its own unless the guest has written (the break)
 *     LEFT           a private mapping of the pool with a page of its own
 *     UNTOLD         likewise, and the next harvest has to tell of it
 *
 * Locks, outer before inner: `hearing` → `kvm->lock` → guest->lock →
 * pool->lock, `kvm->hold.lock`, `kvm->budget.lock`. None is held when the sink
 * or the host is called, nor when guest memory is touched in a way that our own
 * userfaultfd may stop (scratch.c).
 */
#ifndef PGS_KVM_BACKEND_H
#define PGS_KVM_BACKEND_H

#include "kvm/sys.h"

#include <pgshare/error.h>
#include <pgshare/kvm.h>
#include <pgshare/sys/backend.h>

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define PAGE PGSHARE_PAGE_SIZE
#define CHUNK 512u
#define SLOTS_MAX 64u
#define POOLS_MAX 65535u
#define SCRATCHES 4u
#define SCRATCH_PAGES 64u
#define COMPARE_PAGES 32u

enum pgs_kvm_kind {
    KIND_HOLE,
    KIND_ANON,
    KIND_MARKED,
    KIND_ZERO,
    KIND_OWED, /* a hole that was reclaimed: whoever touches it gets memory */
    KIND_FRAME,
    KIND_LEFT,
    KIND_UNTOLD
};

#define KIND_BITS 3
#define KIND_MASK 7u
#define NO_PLACE UINT64_MAX

/* ---- hold.c: staging, and memory that is held -------------------------- */

#define HOLD_NONE UINT32_MAX
/* Frames whose memory is kept after their release, at the most. */
#define DEAD_MAX ((uint64_t)1 << 22)

/*
 * A region of addresses, by slabs of CHUNK pages. A window (window.c) takes
 * pages of it that are empty, and of what was moved there some stay: they are
 * held memory.
 *
 *     used[slab] = pages of it that are held or in a window
 *     used[slab] = 0  ⇔  slab is in `empty`, is `slab`, or ≥ fresh
 *     n = held pages = Σ used - pages in windows
 */
struct pgs_kvm_hold {
    pthread_mutex_t lock;
    unsigned char *base;
    uint32_t slabs;
    uint16_t *used;
    uint32_t *empty;
    uint32_t n_empty;
    uint32_t fresh;
    uint32_t slab; /* which is being filled, at `next` */
    uint32_t next;
    uint32_t *stack;
    uint64_t n;
    uint64_t *dead; /* ids of frames that were released but not yet punched */
    uint64_t n_dead;
};

int pgs_stage_init(struct pgs_kvm_hold *hold);
int pgs_stage_register(struct pgs_kvm_hold *hold, int uffd);
void pgs_stage_fini(struct pgs_kvm_hold *hold);
uint32_t pgs_stage_take(struct pgs_kvm_hold *hold, uint32_t n);
void pgs_stage_keep(struct pgs_kvm_hold *hold, uint32_t page, uint32_t n);
void pgs_stage_drop(struct pgs_kvm_hold *hold, uint32_t page, uint32_t n);
/* Populated pages more, from the machine. Answers how many. */
uint64_t pgs_stage_fill(struct pgs_kvm_hold *hold, uint64_t n);
uint64_t pgs_stage_give(struct pgs_kvm_hold *hold, uint64_t n);

static inline unsigned char *pgs_stage_at(const struct pgs_kvm_hold *hold,
                                          uint32_t page)
{
    return hold->base + (size_t)page * PAGE;
}

/* ---- pool.c: frames ---------------------------------------------------- */

#define POOL_SHIFT 40

/* A count of mappings + 1; 0: no frame (any more). */
#define COUNT_LIVE 1u
#define COUNT_ORPHAN 0x80000000u /* given up by the host; punched at 1 */

struct pgs_kvm_chunk {
    uint64_t used[CHUNK / 64]; /* places that were ever a frame's */
    uint32_t count[CHUNK];
};

/*
 * The frames of one trust group. A frame's place is its page in the file, and
 * no place is used twice:
 *
 *     count > 0  ⇒  used;  a place that is not used is beyond what was written
 *     file size = the end of the last chunk that was written to
 */
struct pgs_kvm_pool {
    pthread_mutex_t lock;
    int fd;
    uint32_t number;
    uint32_t users; /* guests */
    uint64_t group;
    uint64_t frames; /* live ones */
    uint64_t dead;   /* released, not yet punched */
    uint64_t chunks; /* numbers given out */
    uint64_t size;   /* of the file, in chunks */
    struct pgs_kvm_chunk **chunk;
    uint64_t room;
};

struct pgs_kvm_pool *pgs_pool_get(struct pgshare_kvm *kvm, uint64_t group);
void pgs_pool_put(struct pgshare_kvm *kvm, struct pgs_kvm_pool *pool);
uint64_t pgs_pool_id(const struct pgs_kvm_pool *pool, uint64_t place);
struct pgs_kvm_pool *pgs_pool_of(struct pgshare_kvm *kvm, uint64_t id,
                                 uint64_t *ret_place);
/* `n` pages from `at` on become frames, at places[]. Answers how many, with the
 * error that stopped it. */
uint32_t pgs_pool_publish(struct pgs_kvm_pool *pool,
                          struct pgshare_kvm_guest *guest, uint64_t gfn,
                          const unsigned char *at, uint32_t n,
                          uint64_t *ret_places, int *ret_error);
/* Where a page of the guest would be published; NO_PLACE: it has no image. */
uint64_t pgs_pool_home(struct pgs_kvm_pool *pool,
                       const struct pgshare_kvm_guest *guest, uint64_t gfn);
/* The bytes of `n` frames in a row; false: they cannot be had. */
bool pgs_pool_read(const struct pgs_kvm_pool *pool, uint64_t place, uint32_t n,
                   unsigned char *ret_bytes);
bool pgs_pool_is_live(struct pgs_kvm_pool *pool, uint64_t place);
bool pgs_pool_map(struct pgs_kvm_pool *pool, uint64_t place);
void pgs_pool_unmap(struct pgs_kvm_pool *pool, uint64_t place);
/* 1: it is dead and can be punched; 0: it was already, or guests without a
 * host still map it. PGSHARE_ERR_BUSY. */
int pgs_pool_release(struct pgs_kvm_pool *pool, uint64_t place);
void pgs_pool_orphan(struct pgs_kvm_pool *pool);
void pgs_pool_count(struct pgs_kvm_pool *pool, struct pgshare_kvm_info *info);
void pgs_pool_punch(struct pgs_kvm_pool *pool, uint64_t place, uint64_t n);

/* ---- budget.c: mappings ------------------------------------------------ */

/* vm.max_map_count as it is by default; what is left of it to the VMM. */
#define PGS_MAPPINGS_USUAL 65530u
#define PGS_MAPPINGS_SPARE 8192u

/*
 *     seen + since ≈ mappings of the process now;  ≤ limit, but for the VMM's
 */
struct pgs_kvm_budget {
    pthread_mutex_t lock;
    uint64_t spare;
    uint64_t limit;   /* that sharing may reach */
    uint64_t first;   /* mappings before there was sharing */
    int64_t seen;     /* at the last look */
    int64_t since;    /* more by now, as reckoned */
    uint64_t looked_ns;
    uint64_t refused; /* pages, again each time */
};

/* vm.max_map_count, -1: it cannot be read. */
int64_t pgs_budget_limit(void);
void pgs_budget_init(struct pgs_kvm_budget *budget, uint64_t spare);
void pgs_budget_fini(struct pgs_kvm_budget *budget);
/* Counts, if that is due. It takes a while: no lock should be held. */
void pgs_budget_look(struct pgs_kvm_budget *budget);
/* May `pages` in a row take so many mappings more? */
bool pgs_budget_allows(struct pgs_kvm_budget *budget, uint32_t pages,
                       int mappings);
/* The same, and then they do. */
bool pgs_budget_spend(struct pgs_kvm_budget *budget, uint32_t pages,
                      int mappings);
void pgs_budget_tell(struct pgs_kvm_budget *budget,
                     struct pgshare_kvm_info *info);
/* How many mappings more there are when pages in one slot, which are a mapping of
 * the pool at `from` (NO_PLACE: the guest's own memory), become one at `to`. */
int pgs_budget_price(const struct pgshare_kvm_guest *guest, uint64_t gfn,
                     uint32_t n, uint64_t from, uint64_t to);

/* ---- reserve.c --------------------------------------------------------- */

uint64_t pgs_reserve_level(struct pgshare_kvm *kvm);
int64_t pgs_reserve_move(struct pgshare_kvm *kvm, int64_t frames);
bool pgs_reserve_spend(struct pgshare_kvm *kvm, uint64_t frames);
void pgs_reserve_bury(struct pgshare_kvm *kvm, uint64_t id);

/* ---- guests ------------------------------------------------------------ */

struct pgs_kvm_slot {
    uint64_t gfn;
    uint64_t count;
    unsigned char *at;
    uint32_t attributes; /* ATTRIBUTE_… */
};

#define ATTRIBUTE_DONTFORK 1u
#define ATTRIBUTE_DONTDUMP 2u
#define ATTRIBUTE_HUGE 4u
#define ATTRIBUTE_READONLY 8u /* KVM lets the guest not write there */

struct pgshare_kvm_guest {
    struct pgshare_kvm *kvm;
    struct pgshare_kvm_guest *next;
    pthread_mutex_t lock;
    uint64_t gfns;
    uint32_t domid;
    uint64_t generation;
    bool trapped;
    bool suspended; /* only what is not private is registered: suspend.c */
    int uffd; /* trapped: it stops writes; else it logs them */
    _Atomic uint64_t handle;
    _Atomic uint64_t seq;
    struct pgs_kvm_pool *pool; /* while it maps frames */
    struct pgs_kvm_slot slots[SLOTS_MAX];
    uint32_t n_slots;
    uint8_t *kind;
    uint32_t *place;
    uint64_t *changed; /* bits: written as far as the log cannot tell */
    uint64_t *readonly; /* bits, in a trapped guest; so many are set: */
    uint64_t n_readonly;
    _Atomic uint64_t guarded; /* how often a page became read-only */
    uint16_t *watched; /* per chunk: FRAME, ZERO, MARKED, UNTOLD */
    uint32_t *home;    /* per chunk: its chunk in the pool + 1, 0: image's */
    uint64_t image;    /* + 1; 0: it has published nothing */
    unsigned char *mine; /* [COMPARE_PAGES] pages, to be compared … */
    unsigned char *theirs; /* … with these */
};

/* A fault that could not be resolved at once. */
struct pgs_kvm_waiting {
    struct pgshare_kvm_guest *guest;
    uint64_t gfn;
    uint64_t due; /* CLOCK_MONOTONIC, ns */
    bool refused; /* the write may not be done: it may try again then */
};

#define WAITING_MAX 256u

/* Room that guests' pages are copied to. */
struct pgs_kvm_scratch {
    pthread_mutex_t lock;
    unsigned char *bytes; /* [SCRATCH_PAGES] pages */
};

struct pgshare_kvm {
    struct pgshare_backend backend; /* first */
    pthread_mutex_t lock;           /* guests, pools, host */
    struct pgshare_host *host;
    const struct pgshare_sink *sink;
    struct pgshare_kvm_guest *guests;
    struct pgs_kvm_pool **pools; /* [POOLS_MAX], by number */
    uint32_t pools_used;
    struct pgs_kvm_hold hold;
    struct pgs_kvm_budget budget;
    bool in_place; /* pages cannot be moved: still.c */
    int staging; /* userfaultfd of the hold; also stops writes in home.c */
    int pagemap;
    pid_t owner;
    uint32_t next_domid;

    struct pgs_kvm_scratch scratch[SCRATCHES];

    /* handler.c */
    pthread_t handler;
    bool handling;
    int kick;
    _Atomic bool stopping;
    _Atomic bool kicked;     /* guests may have come or gone */
    pthread_mutex_t hearing; /* outermost: the thread is at work on guests */
    struct pgs_kvm_waiting waiting[WAITING_MAX];
    uint32_t n_waiting;

    _Atomic uint64_t merges, moved_back, pinned, slipped, healed, faults;
};

/* In a child of the VMM's process its guests are not there, and the descriptors
 * are the parent's. */
static inline bool pgs_is_child(const struct pgshare_kvm *kvm)
{
    return kvm->owner != getpid();
}

static inline enum pgs_kvm_kind pgs_kind(const struct pgshare_kvm_guest *guest,
                                         uint64_t gfn)
{
    return (enum pgs_kvm_kind)(guest->kind[gfn] & KIND_MASK);
}

static inline bool pgs_in_pool(enum pgs_kvm_kind kind)
{
    return kind >= KIND_FRAME;
}

static inline uint64_t pgs_place(const struct pgshare_kvm_guest *guest,
                                 uint64_t gfn)
{
    return (uint64_t)(guest->kind[gfn] >> KIND_BITS) << 32 | guest->place[gfn];
}

static inline bool pgs_is_readonly(const struct pgshare_kvm_guest *guest,
                                   uint64_t gfn)
{
    return guest->n_readonly &&
           guest->readonly[gfn / 64] & UINT64_C(1) << gfn % 64;
}

static inline uint64_t pgs_seq(struct pgshare_kvm_guest *guest)
{
    return atomic_fetch_add_explicit(&guest->seq, 1, memory_order_relaxed) + 1;
}

static inline void pgs_set_changed(struct pgshare_kvm_guest *guest,
                                   uint64_t gfn)
{
    __atomic_fetch_or(&guest->changed[gfn / 64], UINT64_C(1) << gfn % 64,
                      __ATOMIC_RELAXED);
}

/* guest.c */
const struct pgs_kvm_slot *pgs_slot_of(const struct pgshare_kvm_guest *guest,
                                       uint64_t gfn);
unsigned char *pgs_at(const struct pgshare_kvm_guest *guest, uint64_t gfn);
/* How many of the `n` pages from `gfn` on lie in one slot; 0: the first in
 * none. */
uint32_t pgs_span(const struct pgshare_kvm_guest *guest, uint64_t gfn,
                  uint32_t n);
/* The page becomes `kind`, in the pool at `place`; counts follow. */
void pgs_set_kind(struct pgshare_kvm_guest *guest, uint64_t gfn,
                  enum pgs_kvm_kind kind, uint64_t place);
/* The guest's mappings of frames are its own concern from now on. */
int pgs_guest_privatise(struct pgshare_kvm_guest *guest);

/* guard.c, all but the last with the lock held */

/* The read-only pages among these are protected again; all in one slot. */
int pgs_guard(struct pgshare_kvm_guest *guest, uint64_t gfn, uint64_t n);
/* Read-only no more; who waits for that goes on. */
void pgs_unguard(struct pgshare_kvm_guest *guest, uint64_t gfn);
void pgs_unguard_all(struct pgshare_kvm_guest *guest);

/* suspend.c */
/* The memory is the library's to watch again. PGSHARE_ERR_BUSY: somebody else
 * still does. PGSHARE_ERR_NOMEM. */
int pgs_suspend_end(struct pgshare_kvm_guest *guest);
/* Lock held. A page of a suspended guest has become something else. */
void pgs_suspend_page(struct pgshare_kvm_guest *guest, uint64_t gfn,
                      enum pgs_kvm_kind old, enum pgs_kvm_kind kind);

/* slot.c */
void pgs_slot_release(struct pgshare_kvm_guest *guest,
                      struct pgs_kvm_slot *slot);

/* vma.c */
int pgs_vma_check(const void *at, uint64_t bytes, uint32_t *ret_attributes,
                  uint32_t *ret_why);
/* Memory that holds what guests' pages held: neither for children nor for core
 * files. */
void pgs_keep_private(const void *at, size_t bytes);
void pgs_vma_restore(const struct pgs_kvm_slot *slot, const void *at,
                     size_t bytes);
int pgs_vma_arm(const struct pgshare_kvm_guest *guest, const void *at,
                size_t bytes);
/* Writes to a new mapping of the pool come to the handler. */
int pgs_trap(const struct pgshare_kvm_guest *guest, const void *at,
             size_t bytes);
int pgs_own(struct pgshare_kvm_guest *guest, uint64_t gfn, void *at);
int pgs_vma_blank(const struct pgshare_kvm_guest *guest,
                  const struct pgs_kvm_slot *slot, void *at, size_t bytes);

/* window.c: all with the guest's lock held, within one slot and, but for those
 * whose status is an error from the beginning, on anonymous memory */

enum pgs_kvm_window_state {
    WINDOW_STAYS, /* in its place */
    WINDOW_OUT,   /* in staging, at stage + i */
    WINDOW_EMPTY, /* there was none: it reads as zeroes */
    WINDOW_KEPT   /* in staging for good */
};

/*
 * Pages gfn … gfn+n-1, n ≤ CHUNK. What is OUT at the end goes back.
 *     status[i] ≠ 0  ⇒  state[i] = STAYS, or it is on its way back
 */
struct pgs_kvm_window {
    struct pgshare_kvm_guest *guest;
    const struct pgs_kvm_slot *slot;
    uint64_t gfn;
    uint32_t n;
    uint32_t stage; /* HOLD_NONE: pages are looked at in their places */
    unsigned char *at;
    int8_t *status;
    uint8_t state[CHUNK];
    bool filled[CHUNK];  /* OUT, and known not to be all zeroes */
    bool nothing[CHUNK]; /* if it was looked at: … there was no memory, … */
    bool own[CHUNK];     /* … or memory of the page's own */
    bool looked;
};

/* The place of a page in the guest. */
static inline unsigned char *
pgs_window_at(const struct pgs_kvm_window *window, uint32_t i)
{
    return window->at + (size_t)i * PAGE;
}

int pgs_window_open(struct pgs_kvm_window *window,
                    struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                    int8_t *status);
/* The bytes of pages that are OUT, all of them; false: they cannot be had. */
bool pgs_window_read(struct pgs_kvm_window *window, uint32_t first, uint32_t n,
                     unsigned char *ret_bytes);
void pgs_window_back(struct pgs_kvm_window *window, uint32_t first, uint32_t n);
/* The page comes back write-protected; false: it does not, its status says
 * why. */
bool pgs_window_mark(struct pgs_kvm_window *window, uint32_t i);
/* Its memory is held from now on, its place empty and of that kind; or its
 * status says why not. */
void pgs_window_keep(struct pgs_kvm_window *window, uint32_t i,
                     enum pgs_kvm_kind kind);
/* Pages are replaced by a mapping of the pool; or their status says why not. */
void pgs_window_map(struct pgs_kvm_window *window, uint32_t first, uint32_t n,
                    uint64_t place);
/* Answers how many pages have become held memory. */
uint32_t pgs_window_close(struct pgs_kvm_window *window);

/* still.c: what a window does where pages cannot be moved */
bool pgs_still_is_unsafe(void);
void pgs_still_out(struct pgs_kvm_window *window, uint32_t first, uint32_t end);
/* Gives up the page's memory; false: it stays, its status says so. */
bool pgs_still_drop(struct pgs_kvm_window *window, uint32_t i);
void pgs_still_end(struct pgs_kvm_window *window);
/* Answers how much memory is held for what was given up. */
uint32_t pgs_still_settle(struct pgs_kvm_window *window);

/* home.c: pages in pool mappings */

/* Makes the LEFT pages among them anonymous memory again. status[i]: 0, or
 * PGSHARE_ERR_BUSY: it is pinned. */
void pgs_home(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
              int8_t *status);
/* Drops the LEFT pages among them that are equal to the frame whose mapping they
 * lie in: they map it again. status[i]: 0, or why not. */
void pgs_return(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                int8_t *status);
/* A mapping of a frame is replaced by one of the frame at `place`, or, with
 * NO_PLACE, by nothing. Answers as MAP. */
int pgs_remap(struct pgshare_kvm_guest *guest, uint64_t gfn, uint64_t place);

/* scan.c */

/* One page: does it have memory of its own, other than the pool's? 1, 0, or an
 * error. */
int pgs_scan_is_own(struct pgshare_kvm_guest *guest, uint64_t gfn);
/* In which of `n` ≤ CHUNK pages is there nothing, not even a zero page, and in
 * which memory of their own? With an error, in none of them either. */
int pgs_scan_window(const struct pgshare_kvm *kvm, const void *at, uint32_t n,
                    bool *ret_nothing, bool *ret_own);
bool pgs_scan_is_written(struct pgshare_kvm_guest *guest, uint64_t gfn);
int pgs_scan_harvest(struct pgshare_kvm_guest *guest);
int pgs_scan_changes(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                     int8_t *ret_status);

/* scratch.c */
int pgs_scratch_init(struct pgshare_kvm *kvm);
void pgs_scratch_fini(struct pgshare_kvm *kvm);
/* Pages first … first+n-1 of those that are read; false: enough. */
typedef bool pgs_scratch_use(void *ctx, const unsigned char *bytes,
                             uint32_t first, uint32_t n);
/* Reads `n` pages of a guest, a few at a time. Answers how many could be read
 * and used, and why it were not all: PGSHARE_ERR_HOLE (there is no memory),
 * PGSHARE_ERR_NOFRAME, 0. */
uint32_t pgs_scratch_read(struct pgshare_kvm *kvm, const unsigned char *at,
                          uint32_t n, pgs_scratch_use *use, void *ctx,
                          int *ret_error);

/* handler.c */
int pgs_handler_start(struct pgshare_kvm *kvm);
void pgs_handler_stop(struct pgshare_kvm *kvm);
void pgs_handler_kick(struct pgshare_kvm *kvm);
void pgs_handler_forget(struct pgshare_kvm_guest *guest);

/* ops_share.c, ops_memory.c, suspend.c, guard.c */

/* An operation at work; `status` and `ids` have room for `op->count`. */
struct pgs_kvm_work {
    struct pgshare_kvm *kvm;
    struct pgshare_kvm_guest *guest;
    struct pgshare_kvm_guest *peer;
    const struct pgshare_op *op;
    int8_t *status;
    uint64_t *ids;
    int64_t reserve;
    int32_t result;
};

typedef void pgs_kvm_op(struct pgs_kvm_work *work);
typedef void pgs_kvm_span(struct pgs_kvm_work *work, uint32_t first,
                          uint32_t n);

/* What PROTECT answers: no frame's name. */
#define PGS_ID_MARKED (UINT64_MAX - 1)

extern const unsigned char pgs_zeroes[PGSHARE_PAGE_SIZE];

/* compare.c, with the guest's lock held */

/* The place of the frame that page i is to map, NO_PLACE: the zero frame's. */
uint64_t pgs_target(const struct pgs_kvm_work *work, uint32_t i);
/* Sets statuses of a window's pages, which are the operation's from `first` on,
 * that are not what they are to be. */
void pgs_compare(struct pgs_kvm_work *work, struct pgs_kvm_window *window,
                 uint32_t first);
/* Does the page at `at` equal the frame at `place`? 0, PGSHARE_ERR_DIFFERENT,
 * PGSHARE_ERR_BACKEND. */
int8_t pgs_page_equals(const struct pgshare_kvm_guest *guest, const void *at,
                       uint64_t place);
/* Page i is a mapping of a frame. Does that equal the one it is to map? */
bool pgs_frame_equals(const struct pgs_kvm_work *work, uint32_t i);

/* Calls `span` for each part of the operation's pages that lies in one slot,
 * with the guest's lock held. */
void pgs_each_span(struct pgs_kvm_work *work, pgs_kvm_span *span);

pgs_kvm_op pgs_kvm_op_protect, pgs_kvm_op_unprotect, pgs_kvm_op_publish,
    pgs_kvm_op_map, pgs_kvm_op_merge, pgs_kvm_op_unshare, pgs_kvm_op_release,
    pgs_kvm_op_discard, pgs_kvm_op_reclaim, pgs_kvm_op_grant, pgs_kvm_op_clone,
    pgs_kvm_op_fingerprint, pgs_kvm_op_harvest, pgs_kvm_op_changes,
    pgs_kvm_op_query, pgs_kvm_op_reserve, pgs_kvm_op_suspend,
    pgs_kvm_op_read_only;

extern const struct pgshare_backend_ops pgs_kvm_ops;

#endif
