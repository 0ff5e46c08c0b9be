/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The content index: fingerprint → pages that may hold that content.
 *
 * Only proposals: an entry is a page ordinal and 19 bits of the fingerprint,
 * in buckets of ten that fill a cache line. The page's word tells whether it
 * still has that fingerprint, and the bytes are compared before anything is
 * shared. Stale entries are harmless and are dropped when met.
 *
 * An entry may stand in either of two buckets, so a lookup reads two cache
 * lines. The table grows by splitting one bucket at a time (linear hashing),
 * so that it never needs twice its size; an entry for which there is no room
 * displaces others to their second bucket (cuckoo hashing), and where that
 * does not end soon, one entry is lost: a missed chance, not an error. What is
 * displaced waits in a short queue while its bucket's cache line is on its way,
 * and is found there.
 *
 * Only the low 32 bits of a fingerprint are looked at, which is what a page's
 * word keeps, and an entry knows 31 of them: a page that is proposed may have
 * another content, and its entry is that content's. pgs_index_is_of() tells it
 * from one that is stale. Of pages that look alike so many are entered that a
 * few contents may do so; one more does nothing.
 *
 * The runner's (PGS_RANK_RUN).
 */
#ifndef PGS_TABLES_INDEX_H
#define PGS_TABLES_INDEX_H

#include "base/slab.h"

#include <stdbool.h>

#define PGS_BUCKET_ENTRIES 10u
/* Entries with one tag in a pair of buckets. */
#define PGS_INDEX_REPEATS 12u
/* Entries that are on their way to another bucket, at the most. */
#define PGS_INDEX_HOMELESS 16u

/* Invariant: an empty entry is all zero, so that fresh memory is empty. */
struct pgs_bucket {
    uint32_t page[PGS_BUCKET_ENTRIES]; /* complement of the ordinal; 0: empty */
    uint16_t tag[PGS_BUCKET_ENTRIES];  /* lower 16 bits of the tags */
    uint32_t tag_tops;                 /* 3 upper bits of each */
};

static_assert(sizeof(struct pgs_bucket) == 64, "one cache line");

/* Invariants: n_buckets = 0, or 2^level ≤ n_buckets < 2^(level + 1);
 * n_buckets ≤ buckets.size; used = entries that are not empty. */
struct pgs_index {
    struct pgs_slab buckets;
    uint64_t n_buckets; /* in use */
    uint32_t level;
    uint32_t walk;  /* chooses what is displaced */
    uint32_t swept; /* the bucket where a sweep goes on */
    uint64_t used; /* without the homeless */
    uint64_t lost; /* entries that found no room */
    struct pgs_homeless {
        uint32_t root; /* of where it is to go */
        uint32_t page;
        uint32_t steps;
    } homeless[PGS_INDEX_HOMELESS]; /* a ring */
    /* Their tags, apart, so that one look tells that none is sought; elsewhere,
     * and of an entry that was taken out, PGS_NONE. */
    uint32_t homeless_tag[PGS_INDEX_HOMELESS];
    uint32_t first_homeless;
    uint32_t n_homeless;
};

/* Where the entries of one fingerprint may be, until the index grows. */
struct pgs_seek {
    uint32_t tag;
    uint32_t root; /* one of two; see index.c */
    struct pgs_bucket *bucket[2]; /* NULL: the index is empty */
};

int pgs_index_init(struct pgs_index *index, struct pgs_heap *heap);
void pgs_index_fini(struct pgs_index *index);
/* The invariants, as far as O(1) goes. */
bool pgs_index_is_valid(const struct pgs_index *index);

/* Room for `n` more, while memory can be had. What was sought is void. An index
 * that is empty begins with room for `expected`, but at most one chunk. */
void pgs_index_reserve(struct pgs_index *index, uint32_t n, uint64_t expected);
/* Finds the places of a fingerprint's entries and sends for them, so that who
 * seeks many at once waits for memory once. */
void pgs_index_seek(const struct pgs_index *index, uint64_t fingerprint,
                    struct pgs_seek *ret_seek);

/* Enters a page; never fails (see above). The caller has looked first, and
 * reserved; `alone`: there was no entry. */
void pgs_index_add(struct pgs_index *index, const struct pgs_seek *seek,
                   uint32_t page, bool alone);
/* Do entries of this fingerprint, too, have the places that were sought? */
bool pgs_index_is_of(const struct pgs_seek *seek, uint64_t fingerprint);
/* Takes one entry out; no error if it is not there. */
void pgs_index_remove(struct pgs_index *index, const struct pgs_seek *seek,
                      uint32_t page);
/*
 * The next page proposed for a fingerprint. *cursor starts at 0. False: no
 * more. Entries may be removed between two calls; after an add, begin again.
 */
bool pgs_index_next(const struct pgs_index *index, const struct pgs_seek *seek,
                    uint32_t *cursor, uint32_t *ret_page);
/*
 * Goes on through the next `n` buckets, and takes out entries of pages that
 * have no fingerprint (`look` answers false) or another one.
 */
void pgs_index_sweep(struct pgs_index *index, uint32_t n,
                     bool (*look)(void *ctx, uint32_t page,
                                  uint64_t *ret_fingerprint),
                     void *ctx);

#endif
