/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at mappings without holding their pages.
 *
 * Accounts, statistics and the audit read the words of pages that others are
 * changing. A word names an rmap node, which may be another mapping's, or
 * nobody's, by the time it is looked at; only under the lock of its frame's
 * stripe does it stay what it is. A lookup finds the frame of a word, keeps
 * that stripe locked, and goes on with it as long as the words that follow are
 * mappings of frames in the same stripe, as those of one extent are.
 */
#ifndef PGS_MECHANISM_LOOKUP_H
#define PGS_MECHANISM_LOOKUP_H

#include "mechanism/host.h"

/* Users know frames by names: 1 is the zero frame, a record is its index + 2;
 * 0 is none. */
#define PGS_NAME_ZERO UINT64_C(1)
#define PGS_NAME_FIRST UINT64_C(2)

/* Mappings that are looked at under one lock: faults wait for it. */
#define PGS_LOOKUP_RUN 512u

struct pgs_lookup {
    struct pgs_frames *frames;
    struct pgs_stripe *stripe; /* locked, or NULL */
    uint32_t run;              /* looked at under this lock */
};

static inline void pgs_lookup_begin(struct pgs_lookup *lookup,
                                    struct pgshare_host *host)
{
    lookup->frames = &host->frames;
    lookup->stripe = NULL;
    lookup->run = 0;
}

/*
 * The frame that `page` maps by `node`, which is what its word said. It stays
 * so, and may be read, until the next call with this lookup. PGS_NONE: it is
 * not, or no longer, a mapping. Not for PGS_NODE_ZERO.
 */
uint32_t pgs_lookup_frame(struct pgs_lookup *lookup, uint32_t node,
                          uint32_t page);

/* Between begin() and end(), whenever other locks or much time are needed. */
void pgs_lookup_end(struct pgs_lookup *lookup);

/*
 * Walks the words of a domain: `visit` for each that is not 0, in ascending
 * order of GFNs, until it answers something else than 0, which is returned.
 */
int pgs_words_walk(struct pgs_domain *domain,
                   int (*visit)(void *ctx, uint64_t gfn, uint32_t page,
                                uint64_t word),
                   void *ctx);

#endif
