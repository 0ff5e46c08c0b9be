/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scanner: finds equal pages that no hint has named.
 *
 *   walk ─ block ─ CHANGES ─ choose ─ FINGERPRINT ─┐          any thread
 *    ┌─────────────────── queue ───────────────────┘
 *    └ look up ─ runs ─ floors ─ candidates                   the runner
 *
 * scan.c         passes: which block is next, and what the runner does
 * scan_batch.c   a block on its way from the walk to the queue
 * match.c        fingerprints against the index
 * blocks.c       matches that grow to runs, and which of them go first
 * turn.c         which side of a run becomes frames
 * floor.c        what is kept whole
 * steer.c        how much CPU time all that may take
 *
 * What a page's word remembers of it decides whether it is looked at: a
 * fingerprint of 0 says that its content is not known, so the scanner comes
 * back. A page that is known is found by others, through the index; who makes
 * two known pages shareable that were not (a floor, a domain that is resumed)
 * has their blocks done again.
 */
#ifndef PGS_POLICY_SCAN_H
#define PGS_POLICY_SCAN_H

#include "mechanism/host.h"
#include "tables/index.h"

#include <pgshare/scan.h>

struct pgs_budget;
struct pgs_candidate;
struct pgs_extent;

/* Batches under way at the most: what the runner has not looked at yet. */
#define PGS_BATCHES_MAX 16u
#define PGS_BLOCK PGSHARE_EXTENT_MAX
#define PGS_RUNS_MAX 64u
/* Fingerprints that are remembered for having proposed wrongly. */
#define PGS_MISMATCHES 1024u

/* Up to 512 consecutive GFNs of one chunk, and those of them that are looked
 * at. `wanted` and `ids` are an operation's; they are valid from GFN
 * gfn + first on. */
struct pgs_batch {
    struct pgs_batch *next;
    uint64_t dom; /* handle: it may go while the batch waits */
    uint64_t gfn;
    uint32_t page; /* ordinal of the first GFN */
    uint32_t count;
    uint32_t turn;      /* pgs_domain::scans */
    uint32_t pages;     /* GFNs that have memory */
    uint32_t n;         /* pages chosen, that are still to be looked up */
    uint32_t n_printed; /* all that were chosen */
    uint32_t first;     /* of those, the first one's offset */
    bool logged;        /* the change log has chosen */
    bool all;           /* the block is done again, whatever is known */
    bool again; /* what is left of it: ids are by k, as at and old are */
    uint16_t at[PGS_BLOCK];  /* [n] offsets, ascending */
    uint32_t old[PGS_BLOCK]; /* [n] what the word remembered, or 0 */
    int8_t status[PGS_BLOCK + 8];
    uint64_t ids[PGS_BLOCK];
    uint64_t wanted[PGS_BLOCK];
};

/* Consecutive pages that match consecutive pages elsewhere (or the zero frame:
 * source PGS_PAGE_NONE). */
struct pgs_run {
    uint32_t client;
    uint32_t source;
    uint32_t count;
    uint32_t order; /* of the largest aligned block within it */
    bool turned;    /* its own pages are to be the frames: turn.c */
};

/* A run of so many pages is one that will do. */
#define PGS_RUN_LONG 64u

static inline bool pgs_bit_has(const uint64_t *bits, uint32_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

static inline void pgs_bit_set(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= UINT64_C(1) << i % 64;
}

/* The runner's notes on one batch. */
struct pgs_match {
    struct pgshare_host *host;
    struct pgs_domain *domain;
    struct pgs_batch *batch;
    struct pgs_budget *budget;
    uint32_t steps; /* of growth that may still be made */
    uint32_t n_runs;
    struct pgs_run runs[PGS_RUNS_MAX];
    uint32_t print[PGS_BLOCK];      /* by offset; 0: not looked at, or failed */
    uint64_t taken[PGS_BLOCK / 64]; /* by offset: part of a candidate */
    uint64_t left[PGS_BLOCK / 64];  /* by offset: there was no room */
    uint64_t matched[PGS_BLOCK / 64];    /* [n] to be noted when proposed */
    struct pgs_seek seek[PGS_BLOCK];     /* [n] where it may be indexed */
    struct pgs_seek old_seek[PGS_BLOCK]; /* [n] where it was */
    uint32_t batches;                    /* that have been looked at */
};

struct pgs_mismatch {
    uint32_t key;
    uint32_t n;
    uint32_t page;  /* the last that it was proposed to, its ordinal … */
    uint32_t batch; /* … and when: pgs_match::batches */
};

/* What the embedder allows, and what steering makes of it. All times in ns. */
struct pgs_steer {
    struct pgshare_scan_options options; /* defaults filled in */
    _Atomic uint64_t spent;              /* CPU time of all passes, ever */
    uint64_t since;                      /* `spent` when the options were set */
    uint64_t last_ns;                    /* when credit was last given, … */
    uint64_t seen;                       /* … `spent` then, … */
    uint64_t chosen;                     /* … and pages fingerprinted, ever */
    _Atomic uint64_t limit; /* a pass of steering ends its slice when `spent`
                             * is here */
    double credit;          /* CPU time that may be spent */
    double page_credit;     /* pages that may be fingerprinted */
    double rate;            /* of a core, by yield */
    double yield;           /* pages saved per CPU second, last pass */
    uint64_t pass_spent;    /* `spent` when this pass began, … */
    uint64_t pass_shared;   /* … and what had been shared by scanning */
};

struct pgs_scan {
    struct pgs_mutex lock; /* leaf: the walk and the batches */
    uint32_t slot;         /* domain that is walked; 0: no pass is under way */
    uint64_t gfn;          /* from here on */
    bool all;              /* go on with the next domain */
    uint64_t only;         /* if not: the domain of this pass, or the last */
    uint32_t last;         /* the runner: slot that was asked for last */
    bool steered;          /* begun by steering, not asked for */
    bool begun;            /* the runner: this run has begun such a pass */
    uint32_t out;          /* batches between walk and end, … */
    uint32_t out_pages;    /* … and their pages */
    int64_t allowed;    /* pages that steering lets be fingerprinted, those in
                      * batches among them */
    uint32_t n_batches; /* that have memory */
    struct pgs_batch *free;
    struct pgs_batch *done;
    struct pgs_batch **done_last;
    /* Passes that are asked for: one bit for each slot, bit 0 for all.
     * Invariant: n_wanted ≥ bits set; equal when nobody is asking. */
    _Atomic uint64_t wanted[PGS_SLOTS / 64];
    _Atomic uint32_t n_wanted;
    _Atomic uint64_t passes; /* that have ended */
    _Atomic uint64_t looked; /* pages walked over in this pass */
    _Atomic uint64_t chosen; /* pages fingerprinted in this pass */

    /* the runner's */
    struct pgs_steer steer;
    struct pgs_match match;
    struct pgs_mismatch mismatches[PGS_MISMATCHES];
    _Atomic uint64_t order_pages[PGSHARE_ORDERS];
    _Atomic uint64_t order_saved[PGSHARE_ORDERS];
    _Atomic uint64_t length_pages[PGSHARE_ORDERS];
    _Atomic uint64_t length_saved[PGSHARE_ORDERS];
};

/* ---- scan.c: the runner -------------------------------------------------- */

int pgs_scan_init(struct pgs_scan *scan);
void pgs_scan_fini(struct pgshare_host *host);
/* Asks for a pass; any thread. */
void pgs_scan_want(struct pgshare_host *host, uint64_t dom);
/* Goes on with the pass, as long as no hint comes. True: work is left that
 * could be done now. */
bool pgs_scan_run(struct pgshare_host *host, struct pgs_budget *budget);
/* Fills in all but the size, and but for `tracked` if the pass is over one
 * domain only: that is answered then, else 0. */
uint64_t pgs_scan_tell(struct pgshare_host *host,
                       struct pgshare_scan_info *info);
/* When there will be work, though nothing happens. */
uint64_t pgs_scan_due(struct pgshare_host *host);
/* Any thread: takes the next block of the walk. False: there is none. */
bool pgs_scan_next(struct pgshare_host *host, struct pgs_domain **ret_domain,
                   struct pgs_batch **ret_batch);
/* Any thread: the batch is for the runner. */
void pgs_scan_queue(struct pgshare_host *host, struct pgs_batch *batch);
/* Any thread: one block. Answers how many pages it has; 0: no work. */
uint32_t pgs_scan_step(struct pgshare_host *host);

/* ---- scan_batch.c: any thread -------------------------------------------- */

/* Takes the next block of the walk; it is queued when it has its answers. Its
 * number of pages; 0: there is none, or no call is free. */
uint32_t pgs_batch_start(struct pgshare_host *host);
/* The domain's next pass looks at all pages of the blocks that [gfn, gfn +
 * count) touches, whatever is known of them. */
void pgs_scan_redo(struct pgs_domain *domain, uint64_t gfn, uint64_t count);
/* Does this for the page's block when the page, which is held, is put. False:
 * it has been meanwhile. */
bool pgs_scan_miss(struct pgshare_host *host, uint32_t page);
/* Any thread: the page is not held any more. */
void pgs_scan_put(struct pgs_domain *domain, uint32_t page);
/* The next pass looks at this page of the domain again. */
void pgs_scan_forget(struct pgs_domain *domain, uint32_t page);

/* ---- match.c, blocks.c: the runner --------------------------------------- */

/* Looks at the batch. False: candidates under way left no room for some of its
 * pages; the batch is what is left, and to be looked at again. */
bool pgs_match_batch(struct pgs_match *match);
/* The pages that have matched are known from now on: they are proposed. */
void pgs_match_note(struct pgs_match *match);
/* This page was to be proposed, but there was no room for its candidate. */
void pgs_match_leave(struct pgs_match *match, uint32_t page);
/* An extent of a scan has ended. */
void pgs_match_learn(struct pgshare_host *host,
                     const struct pgs_extent *extent);
/* Has page `page` of the group the content with this fingerprint, as far as its
 * word or frame remembers, and may one more page share it? */
bool pgs_match_holds(struct pgshare_host *host, uint32_t page, uint32_t group,
                     uint32_t print);

/* Page `client` may equal page `source`: grows a run from there, unless it is
 * part of one at that distance already. Answers its length; 0: it is one with
 * which a floor does not let this page be shared. */
uint32_t pgs_blocks_anchor(struct pgs_match *match, uint32_t client,
                           uint32_t source);
/* How many runs propose to share this page. */
uint32_t pgs_blocks_proposed(const struct pgs_match *match, uint32_t source);
/* Pages of zeroes become candidates at once. */
void pgs_blocks_zeroes(struct pgs_match *match, uint32_t client,
                       uint32_t count);
/* The runs become candidates, those with the largest blocks first. */
void pgs_blocks_share(struct pgs_match *match);
/* The largest aligned block in [first, first + count). */
uint32_t pgs_blocks_order(uint64_t first, uint64_t count);
/* turn.c: short runs that are neighbours become frames in place, … */
void pgs_turn_runs(struct pgs_match *match);
/* … page i of a run is then the source, and not the client, … */
bool pgs_turn_is(const struct pgs_match *match, const struct pgs_run *run,
                 uint32_t i);
/* … and when all runs were tried, it is seen what came of it. */
void pgs_turn_end(struct pgs_match *match);
/* Counts what an extent has shared. */
void pgs_blocks_count(struct pgs_scan *scan, const struct pgs_extent *extent);

/* ---- steer.c ------------------------------------------------------------- */

void pgs_steer_init(struct pgs_steer *steer);
/* The runner is locked out. */
void pgs_steer_set(struct pgshare_host *host,
                   const struct pgshare_scan_options *options);
/* Of a core, as of now. */
double pgs_steer_rate(struct pgshare_host *host);
/* May a pass be begun, or gone on with? Sets what all threads may do of it. */
bool pgs_steer_may(struct pgshare_host *host);
/* The same for one more block of such a pass; any thread. */
bool pgs_steer_left(const struct pgs_steer *steer);
uint64_t pgs_steer_due(struct pgshare_host *host);
void pgs_steer_begun(struct pgshare_host *host);
void pgs_steer_ended(struct pgshare_host *host);
/* So much was spent; any thread. */
void pgs_steer_charge(struct pgshare_host *host, uint64_t cpu_ns);

/* ---- floor.c ------------------------------------------------------------- */

/* Any thread. [gfn, gfn + count) is legal, order < PGSHARE_ORDERS. _NOMEM. */
int pgs_floor_set(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                  uint32_t order);
/* A part of a candidate that no floor forbids: blocks of `block` pages. */
struct pgs_part {
    uint32_t at;
    uint32_t count; /* a multiple of `block` */
    uint32_t block; /* the larger one of both sides' */
};

/* The first such part from page `at` on. False: there is no more. */
bool pgs_floor_next(const struct pgs_candidate *candidate, uint32_t at,
                    struct pgs_part *ret_part);
/* Pages of the blocks in which the page's region is shared; 1: no floor. */
uint32_t pgs_floor_size(const struct pgs_domain *domain, uint64_t gfn);

/* ---- what a word says ---------------------------------------------------- */

/*
 * How long a page that keeps changing is left alone: in a word's epoch, where
 * that has no mark (see pgs_quarantined()). 3 bits: how much it changes; 12
 * bits: the turn from which on it is looked at again. Each time that it is found
 * changed weighs as much as two that it is not, so a page that is written before
 * every second pass gets there, too.
 *
 * A page that was proposed in some turn, and is private later with nothing known
 * of it, was shared and has been written since.
 */
#define PGS_WAIT_BITS 12u
#define PGS_WAIT_MASK ((1u << PGS_WAIT_BITS) - 1)
#define PGS_CHANGED_MAX 7u
#define PGS_TURNS_MAX 32u

static inline uint32_t pgs_scan_times(uint64_t word)
{
    uint32_t wait = pgs_word_epoch(word);

    return wait & PGS_EPOCH_MARK ? 0 : wait >> PGS_WAIT_BITS;
}

/* For so many turns. */
static inline uint32_t pgs_scan_turns(uint32_t times)
{
    return times > 2 ? PGS_TURNS_MAX >> (PGS_CHANGED_MAX - times) : 1;
}

/* A turn that is further ahead than any wait is one that has long passed. */
static inline bool pgs_scan_is_due(uint64_t word, uint32_t turn)
{
    uint32_t wait = pgs_word_epoch(word);

    return !wait || wait & PGS_EPOCH_MARK ||
           ((wait - turn - 1) & PGS_WAIT_MASK) >= PGS_TURNS_MAX;
}

/* The epoch of a page that is left alone from `turn` on, for as long as it was
 * the last time. */
static inline uint16_t pgs_scan_pause(uint64_t word, uint32_t turn)
{
    uint32_t times = pgs_scan_times(word);

    return (uint16_t)(times << PGS_WAIT_BITS |
                      ((turn + pgs_scan_turns(times)) & PGS_WAIT_MASK));
}

/* The epoch of a page that was looked at in `turn`: found changed, or not. */
static inline uint16_t pgs_scan_wait(uint64_t word, uint32_t turn, bool changed)
{
    uint32_t times = pgs_scan_times(word);

    if (changed)
        times = times + 2 < PGS_CHANGED_MAX ? times + 2 : PGS_CHANGED_MAX;
    else
        times -= times > 0;
    word = (uint64_t)times << (48 + PGS_WAIT_BITS);
    return times ? pgs_scan_pause(word, turn) : 0;
}

/* Did sharing this page, of which nothing is known, last no longer than it had
 * been left alone for? */
static inline bool pgs_scan_is_broken(uint64_t word, uint32_t turn)
{
    uint32_t wait = pgs_word_epoch(word);

    return wait && !(wait & PGS_EPOCH_MARK) &&
           ((turn - wait) & PGS_WAIT_MASK) <=
               pgs_scan_turns(pgs_scan_times(word));
}

/* What speaks against looking at a page. */
#define PGS_NOT_PLAIN \
    (PGS_STATE | PGS_BUSY | PGS_UNSHAREABLE | PGS_ATTR_FREE | PGS_ATTR_SCRUB)

/* Pages to be shared are PRIVATE, plain, and not in flight. */
static inline bool pgs_scan_is_plain(const struct pgs_domain *domain,
                                     uint64_t word)
{
    return (word & PGS_NOT_PLAIN) == PGS_PRIVATE &&
           !pgs_quarantined(domain, word);
}

/* The bits of a fingerprint that a word keeps; never 0. */
static inline uint32_t pgs_scan_print(uint64_t fingerprint)
{
    uint32_t print = (uint32_t)(fingerprint >> 16);

    return print ? print : 1;
}

/* What is indexed: the group keeps contents of other groups apart. */
static inline uint64_t pgs_scan_key(uint32_t print, uint32_t group)
{
    return print ^ (uint32_t)pgs_mix(group);
}

#endif
