/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The GFN table: one 64-bit word for every GFN that has or had memory.
 *
 * Words stand in chunks of 65,536; a domain has a directory of chunks, the
 * host has a list of all chunks. A word's place in that list, (chunk << 16 |
 * offset), is the page's *ordinal*: 32 bits that name (domain, GFN) within the
 * host, which is what reverse maps, indices and side tables store.
 *
 *      bits  0-1   state
 *      bit   2     BUSY: an operation owns the word (see below)
 *      bit   3     WANTED: somebody waits for BUSY to end soon
 *      bits  4-15  attributes, as declared
 *      bits 16-47  index, by state:
 *                  PRIVATE    32 bits of the page's fingerprint, or 0: unknown;
 *                             with VOLATILE: its slot in the FIFO
 *                  PROTECTED  its mark (tables/mark.h)
 *                  SHARED     its rmap node, or PGS_NODE_ZERO
 *                  HOLE       0
 *      bits 48-63  epoch: PRIVATE, HOLE: low bits of the domain's harvest epoch
 *                  in which an operation of ours made it so, with a mark; or of
 *                  a PRIVATE or SHARED page, when the scanner comes back if it
 *                  is private then (policy/scan.h);
 *                  else 0
 *
 * BUSY is the word's lock, held across backend operations (that is what "in
 * flight" means): only its holder changes state and payload. Attributes may be
 * set and cleared by anyone at any time, with an atomic OR or AND; whoever
 * commits looks at them again. So: state or payload changed ⇒ BUSY was held;
 * and no thread waits for a BUSY while it holds another, but in ascending
 * order of ordinals. All transitions are compare-and-swap or fetch-and-op, so
 * that a declaration is never lost.
 */
#ifndef PGS_TABLES_GFN_H
#define PGS_TABLES_GFN_H

#include "base/alloc.h"

#include <pgshare/error.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PGS_CHUNK_SHIFT 16
#define PGS_CHUNK_GFNS (1u << PGS_CHUNK_SHIFT)
/* One less than 32 bits of ordinals would allow: PGS_PAGE_NONE is none. */
#define PGS_CHUNKS_MAX 65535u
#define PGS_PAGE_NONE UINT32_MAX

enum pgs_state {
    PGS_HOLE = 0,
    PGS_PRIVATE = 1,
    PGS_PROTECTED = 2,
    PGS_SHARED = 3
};

#define PGS_STATE UINT64_C(0x3)
#define PGS_BUSY (UINT64_C(1) << 2)
#define PGS_WANTED (UINT64_C(1) << 3)
#define PGS_ATTR_FREE (UINT64_C(1) << 4)
#define PGS_ATTR_SCRUB (UINT64_C(1) << 5)
#define PGS_ATTR_VOLATILE (UINT64_C(1) << 6)
#define PGS_ATTR_NEVER (UINT64_C(1) << 7)
#define PGS_ATTR_READONLY (UINT64_C(1) << 8)
#define PGS_ATTR_HELD (UINT64_C(1) << 9)
#define PGS_ATTR_OVERWRITE (UINT64_C(1) << 10)
#define PGS_ATTR_RECLAIMED (UINT64_C(1) << 11)
#define PGS_ATTR_BONUS (UINT64_C(1) << 12)
#define PGS_ATTR_HELD_WRITE (UINT64_C(1) << 13) /* some holds may write */
#define PGS_ATTR_BROKEN (UINT64_C(1) << 14) /* a break was told during BUSY */
#define PGS_ATTR_STUCK (UINT64_C(1) << 15) /* the backend may still protect it */
#define PGS_ATTR_ALL UINT64_C(0xfff0)
#define PGS_PAYLOAD_SHIFT 16
#define PGS_WORD_EPOCH (UINT64_C(0xffff) << 48)
#define PGS_WORD_INDEX (UINT64_C(0xffffffff) << PGS_PAYLOAD_SHIFT)
#define PGS_NODE_ZERO UINT32_MAX

/* No page with one of these may become a mapping or be protected. */
#define PGS_UNSHAREABLE \
    (PGS_ATTR_NEVER | PGS_ATTR_VOLATILE | PGS_ATTR_HELD | PGS_ATTR_RECLAIMED | \
     PGS_ATTR_STUCK)

static inline enum pgs_state pgs_word_state(uint64_t word)
{
    return (enum pgs_state)(word & PGS_STATE);
}

static inline uint32_t pgs_word_index(uint64_t word)
{
    return (uint32_t)(word >> PGS_PAYLOAD_SHIFT);
}

static inline uint16_t pgs_word_epoch(uint64_t word)
{
    return (uint16_t)(word >> 48);
}

static inline uint64_t pgs_word_with(enum pgs_state state, uint32_t index,
                                     uint16_t epoch)
{
    return (uint64_t)state | (uint64_t)index << PGS_PAYLOAD_SHIFT |
           (uint64_t)epoch << 48;
}

struct pgs_domain;

/* Regions of 512 pages, 2 MiB, in a chunk. */
#define PGS_CHUNK_REGIONS (PGS_CHUNK_GFNS / 512)
/* Bits of so many passes of the scanner, one for each region. */
#define PGS_REDO_TURNS 3u
#define PGS_REDO_WORDS (PGS_CHUNK_REGIONS / 64)

/* Invariant: words of a chunk belong to one domain; GFN = base + offset. */
struct pgs_chunk {
    _Atomic uint64_t *words; /* NULL: the chunk is free */
    struct pgs_domain *domain;
    uint64_t base; /* first GFN */
    /* to be looked at whole; see policy/scan_batch.c */
    _Atomic uint64_t redo[PGS_REDO_TURNS][PGS_REDO_WORDS];
    /* so when a page of theirs is not held any more */
    _Atomic uint64_t missed[PGS_REDO_WORDS];
};

/* All chunks of a host. Changed under PGS_RANK_DOMAINS; a chunk's contents are
 * stable from when its ordinals are known until its domain is torn down. */
struct pgs_chunks {
    struct pgs_heap *heap;
    struct pgs_chunk *list; /* PGS_CHUNKS_MAX, lazily backed */
    uint32_t used;          /* list[used …] are free, list[used - 1] is not */
    uint32_t first_free;    /* ≤ used; list[0 … first_free - 1] are in use */
};

int pgs_chunks_init(struct pgs_chunks *chunks, struct pgs_heap *heap);
void pgs_chunks_fini(struct pgs_chunks *chunks);
/* What is said at `used` and `first_free`, as far as O(1) goes. */
bool pgs_chunks_is_valid(const struct pgs_chunks *chunks);
/* Sets *ret to a chunk with zeroed words. _NOMEM, _FULL. */
int pgs_chunks_add(struct pgs_chunks *chunks, struct pgs_domain *domain,
                   uint64_t base, uint32_t *ret);
void pgs_chunks_remove(struct pgs_chunks *chunks, uint32_t chunk);

static inline _Atomic uint64_t *pgs_word_at(const struct pgs_chunks *chunks,
                                            uint32_t page)
{
    return &chunks->list[page >> PGS_CHUNK_SHIFT]
                .words[page & (PGS_CHUNK_GFNS - 1)];
}

/* One attempt to take BUSY. The word as it was (without BUSY) in *ret_word, or
 * false where it is BUSY; then WANTED is set if `want`: while it was BUSY, so
 * that its holder finds it there at the end. */
static inline bool pgs_word_trylock(_Atomic uint64_t *word, bool want,
                                    uint64_t *ret_word)
{
    uint64_t seen;

    do {
        seen = atomic_fetch_or_explicit(word, PGS_BUSY, memory_order_seq_cst);
        if (!(seen & PGS_BUSY)) {
            *ret_word = seen;
            return true;
        }
        if (want && !(seen & PGS_WANTED))
            seen = atomic_fetch_or_explicit(word, PGS_WANTED,
                                            memory_order_relaxed);
    } while (!(seen & PGS_BUSY));
    return false;
}

/* Ends BUSY, nothing changed. Answers whether somebody may be waiting. */
static inline bool pgs_word_unlock(_Atomic uint64_t *word)
{
    return atomic_fetch_and_explicit(word, ~(PGS_BUSY | PGS_WANTED),
                                     memory_order_release) &
           PGS_WANTED;
}

/*
 * Sets state and payload to those of `next`, clears the attributes in `clear`,
 * keeps all others as they are at this instant, and ends BUSY. Fails, and
 * changes nothing, if one of the attributes in `unless` is set by now. The
 * word before is left in *ret_old (may be NULL).
 */
static inline bool pgs_word_commit(_Atomic uint64_t *word, uint64_t next,
                                   uint64_t clear, uint64_t unless,
                                   uint64_t *ret_old)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
    uint64_t attributes;

    do {
        if (old & unless)
            return false;
        attributes = old & PGS_ATTR_ALL & ~clear;
    } while (!atomic_compare_exchange_weak_explicit(
        word, &old, (next & ~(PGS_ATTR_ALL | PGS_BUSY | PGS_WANTED)) | attributes,
        memory_order_acq_rel, memory_order_relaxed));
    if (ret_old)
        *ret_old = old;
    return true;
}

#endif
