/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model: what every byte of every guest should be, and what the library
 * was told about it. Nothing here knows how sharing works.
 *
 * A page's content is known exactly, or, where the documents leave a choice,
 * as "each byte is this, or zero" (LOOSE, and as long as FREE or OVER last).
 * Such a page becomes exact again when it is looked at while nothing is under
 * way. A page may be a hole or not (MAYBE) after a call that has not ended.
 */
#ifndef PGS_TESTS_MODEL_WORLD_H
#define PGS_TESTS_MODEL_WORLD_H

#include "ops.h"

#include <pgshare/guest_ring.h>
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>
#include <pgshare/sys/allocator.h>
#include <pgshare/sys/backend.h>

#define DOMAINS 5u
#define PAGES 48u    /* GFNs of a guest that are used */
#define POPULATED 36u /* of these, with memory at the beginning */
#define HOLDS 32u
#define PATTERNS 6u  /* contents that guests like to write */
#define BLOCKS 64u

enum page_flag {
    P_PRESENT = 1 << 0,
    P_MAYBE = 1 << 1,    /* is a hole, or present */
    P_LOOSE = 1 << 2,    /* each byte as it is here, or 0 */
    P_FREE = 1 << 3,     /* declared free */
    P_OVER = 1 << 4,     /* the next write was declared to cover it all */
    P_VOLATILE = 1 << 5, /* pushed; may have paid by now */
    P_NEVER = 1 << 6,
    P_READ_ONLY = 1 << 7,
    P_READ_ONLY_MAYBE = 1 << 8, /* a call about it failed half-way */
    P_UNSURE = 1 << 9,   /* a write to it waits, or was given up */
    P_GOING = 1 << 10,   /* its removal has not ended */
    P_RECLAIMED = 1 << 11,
    P_UNKNOWN = 1 << 12, /* a copy of what was unsure itself */
    P_DEVICE = 1 << 13   /* a device waits for it, and may empty it yet */
};
#define P_UNEXACT (P_LOOSE | P_FREE | P_OVER)

struct page {
    uint8_t bytes[PGSHARE_PAGE_SIZE];
    uint32_t flags;
    uint64_t pushed;   /* the serial of its push, 0: not known */
    uint64_t freed;    /* the serial of its last free */
    uint64_t ticket;   /* the last one that was answered */
    uint32_t calls;    /* calls under way that may change its content */
};

struct guest {
    struct pgshare_mock_domain *mock; /* NULL: none */
    uint64_t dom;       /* the handle, also after the end */
    uint64_t base;      /* GFN of pages[0] */
    uint64_t gfns;
    uint64_t group;
    uint64_t claimed;   /* bonus pages that it may have at the most */
    bool direct;
    bool dead;
    bool frozen;
    bool suspended;
    bool unsure;        /* … or not: a suspend or resume has not answered */
    bool leaving;       /* removal goes on */
    struct guest *stub; /* being built from it */
    struct pgshare_guest_ring *ring; /* attached, or NULL */
    void *ring_memory;
    uint32_t ring_open; /* requests without an answer */
    struct {
        uint64_t serial;
        uint32_t first, count, op;
    } asked[256];       /* by id */
    uint32_t ring_id;
    struct page pages[PAGES];
};

struct hold {
    struct guest *guest; /* NULL: free */
    uint64_t gfn;
    uint64_t count;
    uint32_t intent;
};

/* A call that has answered INPROGRESS. Its address is the cookie. */
struct waiting {
    struct guest *guest; /* NULL: free */
    uint64_t token;
    uint64_t gfn, count;
    uint32_t intent;     /* of a get */
    bool changes;        /* may change the content of its pages */
};
#define WAITING 64u

struct world {
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    struct pgshare_mock_disk *disk;
    struct pgshare_allocator allocator;
    uint64_t live;       /* bytes allocated */
    uint32_t fail_in;    /* allocations until one fails; 0: never */
    uint32_t fail_every;
    struct pgshare_mock_options options;
    struct pgshare_mock_chaos chaos;
    uint8_t header[PGS_STREAM_HEADER];
    uint64_t groups[3];
    uint64_t serial;
    uint32_t next_domid;
    struct guest guests[DOMAINS];
    struct hold holds[HOLDS];
    struct waiting waiting[WAITING];
    uint64_t devices;    /* gets of the mock's devices that go on */
    uint64_t gave_up;    /* writes that the mock has given up, as seen last */
    bool unsecured;      /* some child may find no memory, not even the
                          * machine's */
    bool uncounted;      /* a domain's end took answers along, and the library
                          * cannot ask what the reserve holds now */

    /* What the operation under way works on: hooks leave it alone. */
    struct guest *mine;
    uint64_t mine_gfn, mine_count;
    bool in_hook;
    bool settling;

    uint64_t ops;
    bool trace;
    char last[24][160];  /* what was done last */
    uint32_t n_last;
};

/* One record, decoded. */
struct record {
    uint8_t code;
    uint8_t a, b, c, d;
    struct guest *guest;
    uint32_t at;      /* index of the page */
    uint32_t count;   /* within the guest's pages */
};

/* world.c */

__attribute__((noreturn, format(printf, 2, 3))) void
world_fail(struct world *w, const char *format, ...);
__attribute__((format(printf, 2, 3))) void world_say(struct world *w,
                                                     const char *format, ...);
void world_make(struct world *w, const uint8_t *header);
void world_unmake(struct world *w);
/* Nothing is to be under way, or lost, afterwards. */
void world_settle(struct world *w);
struct pgshare_mock_info world_info(struct world *w);
bool world_is_quiet(struct world *w);
/* Does chance decide what the library does between two steps? */
bool world_is_racy(const struct world *w);
void world_pattern(uint32_t number, uint8_t *ret_page);
uint64_t world_waits(struct world *w);

/* Errors as a set: E(BUSY) | E(HOLE). */
#define E(name) (UINT64_C(1) << -(PGSHARE_ERR_##name))
/* Fails unless `r` is 0 or in `legal`, or what failing machines may do. */
int world_expect(struct world *w, int r, uint64_t legal);

/* check.c */

void check_page(struct world *w, struct guest *g, uint32_t i, bool quiet);
void check_pages(struct world *w, bool quiet);
/* All that can be said when nothing is under way. */
void check_all(struct world *w);
struct pgshare_gfn_info check_info(struct world *w, const struct guest *g,
                                   uint32_t i);

/* The model's side of operations */

void model_write(struct page *page, uint32_t offset, const void *bytes,
                 uint32_t len);
void model_zero(struct page *page);
/* A call of `guest` is under way; NULL: no room, do not wait for it. */
struct waiting *model_call(struct world *w, struct guest *g, uint64_t gfn,
                           uint64_t count, uint32_t intent);
void model_holds_forget(struct world *w, const struct guest *g);
bool model_hold_add(struct world *w, struct guest *g, uint64_t gfn,
                    uint64_t count, uint32_t intent);
/* A page that is held when it is to pay is passed over, and becomes the youngest
 * in its FIFO: from here on their ages are not known. */
void model_holds(struct guest *g, uint64_t gfn, uint64_t count);
bool model_is_held(const struct world *w, const struct guest *g, uint64_t gfn,
                   bool writes_only);

/* ops_*.c: each does one record. */

typedef void (*operation)(struct world *w, const struct record *r);

/* Begins a call of the record's guest on `count` pages; NULL: do nothing. */
struct waiting *op_begin(struct world *w, const struct record *r,
                         uint32_t count, struct pgshare_call *ret_call);
/* From here on hooks leave these pages alone. */
void op_mine(struct world *w, struct guest *g, uint64_t gfn, uint64_t count);
/* May a guest, or in a hook another guest, use these pages now? */
bool op_may_use(struct world *w, const struct record *r, uint32_t count);
/* Nothing but this operation can change anything. */
bool op_is_calm(struct world *w);
static inline uint64_t op_gfn(const struct record *r)
{
    return r->guest->base + r->at;
}
/* The other domain of the record. */
struct guest *op_other(struct world *w, uint8_t byte);
bool op_is_in(const struct guest *g);
bool op_is_suspended(struct world *w, struct guest *g);
/* The call has answered; with INPROGRESS it goes on. */
void op_ended(struct world *w, struct waiting *waiting, int r,
              const struct pgshare_call *call);

void op_hook(void *ctx);
/* The page has become a hole. */
void model_hole(struct page *page);

void op_write(struct world *w, const struct record *r);
void op_write_page(struct world *w, const struct record *r);
void op_write_many(struct world *w, const struct record *r);
void op_read(struct world *w, const struct record *r);
void op_block_read(struct world *w, const struct record *r);
void op_block_write(struct world *w, const struct record *r);
void op_dma(struct world *w, const struct record *r);
void op_drop(struct world *w, const struct record *r);
void op_populate(struct world *w, const struct record *r);
void op_depopulate(struct world *w, const struct record *r);
void depopulate_again(struct world *w);
void op_scrub_write(struct world *w, const struct record *r);

void op_mark(struct world *w, const struct record *r);
void op_unmark(struct world *w, const struct record *r);
void op_share(struct world *w, const struct record *r);
void op_share_marked(struct world *w, const struct record *r);
void op_unshare(struct world *w, const struct record *r);
void op_unshare_all(struct world *w, const struct record *r);
void op_fault(struct world *w, const struct record *r);
void op_get(struct world *w, const struct record *r);
void op_put(struct world *w, const struct record *r);
void op_hint_block(struct world *w, const struct record *r);
void op_hint_file(struct world *w, const struct record *r);
void op_library(struct world *w, const struct record *r);
void op_hint_same(struct world *w, const struct record *r);
void op_lineage(struct world *w, const struct record *r);
void op_pass(struct world *w, const struct record *r);
void op_freeze(struct world *w, const struct record *r);
void op_fork(struct world *w, const struct record *r);
void op_thaw(struct world *w, const struct record *r);

void op_free(struct world *w, const struct record *r);
void op_scrub(struct world *w, const struct record *r);
void op_allocated(struct world *w, const struct record *r);
void op_overwrite(struct world *w, const struct record *r);
void op_volatile(struct world *w, const struct record *r);
void op_withdraw(struct world *w, const struct record *r);
void op_never(struct world *w, const struct record *r);
void op_read_only(struct world *w, const struct record *r);
void op_claim(struct world *w, const struct record *r);
void op_return(struct world *w, const struct record *r);
void op_service(struct world *w, const struct record *r);
void op_reserve(struct world *w, const struct record *r);

void op_ring_put(struct world *w, const struct record *r);
void op_ring_serve(struct world *w, const struct record *r);
void op_ring_attach(struct world *w, const struct record *r);
void op_join(struct world *w, const struct record *r);
void op_leave(struct world *w, const struct record *r);
void op_kill(struct world *w, const struct record *r);
void op_suspend(struct world *w, const struct record *r);
void op_run(struct world *w, const struct record *r);
void op_settle(struct world *w, const struct record *r);
void op_chaos(struct world *w, const struct record *r);
void op_clock(struct world *w, const struct record *r);
void op_audit(struct world *w, const struct record *r);
void op_look(struct world *w, const struct record *r);
void op_bad(struct world *w, const struct record *r);

/* A guest as it comes into the world, and its end. */
void guest_make(struct world *w, struct guest *g, uint8_t how, bool empty);
void guest_end(struct world *w, struct guest *g);

#endif
