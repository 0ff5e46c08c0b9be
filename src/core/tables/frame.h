/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames and their reverse maps.
 *
 * A frame is a page of the cow domain. Its record heads a doubly linked list
 * of rmap nodes, one for each GFN that maps it; the GFN's word names the node,
 * the node names the frame and the GFN's ordinal. So adding, removing and
 * looking up a mapping is O(1) at any number of mappings, and costs 16 bytes.
 * The zero frame (id PGSHARE_ID_ZERO) has no record: its mappings are a count
 * (PGS_LEVEL_ZERO_MAPPINGS), since nothing ever needs to remap them.
 *
 * Locks: frames are divided among PGS_STRIPES stripes, 512 consecutive frames
 * to a stripe in turn. A stripe's lock protects the records and lists of its
 * frames, and its stock of free frames and nodes, so that unlinking a mapping
 * and giving its node back is one short critical section without allocation.
 * A GFN's word turns into or out of SHARED by the holder of its BUSY bit: under
 * the lock, list and words agree, but for words that are BUSY.
 */
#ifndef PGS_TABLES_FRAME_H
#define PGS_TABLES_FRAME_H

#include "base/lock.h"
#include "base/slab.h"

#include <stdbool.h>

#define PGS_STRIPES 256u
#define PGS_STRIPE_SHIFT 9

enum pgs_frame_flag {
    PGS_FRAME_LIVE = 1 << 0,   /* in use */
    PGS_FRAME_TAKING = 1 << 1, /* its last mapping is taking it over */
    PGS_FRAME_DOOMED = 1 << 2, /* has no mapping; being released */
    PGS_FRAME_JOINING = 1 << 3, /* all its mappings are being moved at once */
    PGS_FRAME_EMPTY = 1 << 4 /* nothing maps it: is in PGS_LEVEL_EMPTY */
};

/*
 * Invariants (under the stripe's lock, LIVE):
 *   mappings = length of the list from `head`;
 *   TAKING ⇒ mappings = 1 and pending = 0 and pins = 0;
 *   mappings = 0 and pending = 0 and pins = 0 ⇒ DOOMED.
 */
struct pgs_frame {
    uint64_t id;      /* the backend's name */
    uint64_t ticket;  /* never reused */
    uint64_t fingerprint; /* 0: unknown */
    uint32_t head;    /* rmap list, or PGS_NONE; free: next free frame */
    uint32_t mappings;
    uint32_t pins;    /* holds for reading */
    uint32_t pending; /* operations under way that will map it */
    uint16_t group;
    uint16_t flags;   /* enum pgs_frame_flag */
    uint32_t left;    /* 0, or which leaving domain may yet map it (page.h) */
};

static_assert(sizeof(struct pgs_frame) == 48, "with its share of free records "
                                              "a frame costs 64 bytes at most");

/* Invariant: linked ⇒ page's word is SHARED with this node's index. `frame`
 * alone may be read without the stripe's lock, to know which that is. */
struct pgs_node {
    uint32_t frame; /* free: PGS_NONE */
    uint32_t prev; /* PGS_NONE: it is the head */
    uint32_t next;
    uint32_t page; /* ordinal */
};

static_assert(sizeof(struct pgs_node) == 16, "budget of a mapping");

/* Free nodes change hands so many at a time. */
#define PGS_NODE_BATCH 128u

/* Invariants: free_nodes[0 … n_free_nodes - 1] are free; n_free_frames =
 * length of free_frames. */
struct pgs_stripe {
    _Alignas(64) struct pgs_mutex lock;
    uint32_t free_frames; /* list by `head` */
    uint32_t n_free_frames;
    uint32_t n_free_nodes;
    uint32_t free_nodes[2 * PGS_NODE_BATCH]; /* the last is taken first */
};

/* `frames` grows under `grow`; `nodes` too. Invariant: there is room in
 * idle_nodes for all nodes, so that each can be given back without memory. */
struct pgs_frames {
    struct pgs_slab frames;
    struct pgs_slab nodes;
    struct pgs_slab idle_nodes;  /* numbers of free nodes of no stripe */
    struct pgs_stripe stripe[PGS_STRIPES];
    struct pgs_mutex grow;       /* the slabs' ends, and idle_nodes */
    _Atomic uint32_t next_frame; /* frames at and above were never used */
    uint32_t next_node;
    uint32_t n_idle_nodes;
    _Atomic uint32_t idle_frames; /* about how many the stripes have free */
    _Atomic uint32_t cursor;     /* stripe where to look for free frames */
};

int pgs_frames_init(struct pgs_frames *frames, struct pgs_heap *heap);
void pgs_frames_fini(struct pgs_frames *frames);

/* The invariants above, but for the length of the list: O(1). */
bool pgs_frame_is_valid(const struct pgs_frame *frame);

/* All records ever used are below this. For walks, which lock each frame's
 * stripe and look for LIVE ones. No stripe's lock needed, one may be held. */
uint32_t pgs_frames_end(struct pgs_frames *frames);

static inline struct pgs_frame *pgs_frame_at(const struct pgs_frames *frames,
                                             uint32_t frame)
{
    return pgs_slab_at(&frames->frames, frame);
}

/* How many mappings it has, as seen without its stripe's lock. */
static inline uint32_t pgs_frame_mappings(const struct pgs_frame *frame)
{
    return __atomic_load_n(&frame->mappings, __ATOMIC_RELAXED);
}

static inline struct pgs_node *pgs_node_at(const struct pgs_frames *frames,
                                           uint32_t node)
{
    return pgs_slab_at(&frames->nodes, node);
}

static inline struct pgs_stripe *pgs_stripe_of(struct pgs_frames *frames,
                                               uint32_t frame)
{
    return &frames->stripe[(frame >> PGS_STRIPE_SHIFT) % PGS_STRIPES];
}

static inline uint32_t pgs_node_frame(const struct pgs_frames *frames,
                                      uint32_t node)
{
    return __atomic_load_n(&pgs_node_at(frames, node)->frame,
                           __ATOMIC_RELAXED);
}

static inline void pgs_frame_lock(struct pgs_frames *frames, uint32_t frame)
{
    pgs_mutex_lock(&pgs_stripe_of(frames, frame)->lock);
}

static inline void pgs_frame_unlock(struct pgs_frames *frames, uint32_t frame)
{
    pgs_mutex_unlock(&pgs_stripe_of(frames, frame)->lock);
}

/*
 * Takes `n` records for new frames, consecutive ones where possible, each LIVE
 * with pending = 1, no mapping, everything else zero. All or nothing: _NOMEM,
 * _FULL. No stripe's lock held.
 */
int pgs_frames_take(struct pgs_frames *frames, uint32_t n, uint32_t *ret);

/* Stripe locked. The record is free of mappings, and DOOMED, TAKING or never
 * published; it goes back into its stripe's stock. */
void pgs_frame_give(struct pgs_frames *frames, uint32_t frame);

/*
 * Fills a stripe's stock so that `n` links, at most PGS_NODE_BATCH, can be made
 * under its lock without allocation. Stripe locked (grow's rank is above).
 * _NOMEM, _FULL.
 */
int pgs_nodes_stock(struct pgs_frames *frames, struct pgs_stripe *stripe,
                    uint32_t n);

/* Stripe locked, stock filled. Answers the node to put into the word. */
uint32_t pgs_rmap_link(struct pgs_frames *frames, uint32_t frame,
                       uint32_t page);

/* Stripe locked. Answers the mappings that are left. */
uint32_t pgs_rmap_unlink(struct pgs_frames *frames, uint32_t node);

/*
 * Stripe locked. Sets DOOMED and answers true if nothing maps, pins or is
 * about to map the frame, which is for the caller to release then. False also
 * where it is DOOMED already: of several callers one gets true.
 */
bool pgs_frame_doom(struct pgs_frame *frame);

/*
 * The frame of a linked node, with its stripe locked. A node stays with its
 * frame for as long as it is linked, but for pgs_rmap_move().
 */
uint32_t pgs_node_lock(struct pgs_frames *frames, uint32_t node);

/* Moves all nodes of one frame to another, for a backend that has moved the
 * mappings; answers how many. Neither stripe is locked; the words keep their
 * nodes. */
uint32_t pgs_rmap_move(struct pgs_frames *frames, uint32_t from, uint32_t to);

#endif
