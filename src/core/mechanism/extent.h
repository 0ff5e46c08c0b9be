/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An extent: up to 512 pages of a source and of a client on their way through
 * the share protocol. One struct carries a pair of extents from candidate to
 * backend operation, so that what was consecutive stays so; each page has a
 * set of flags that say where it stands, and a stage is run over all maximal
 * runs of pages that are ready for it.
 *
 * What a page's flags say it holds (BUSY words, protections, rmap nodes, a
 * fresh frame) is given back by the last stages, whatever happened before.
 */
#ifndef PGS_MECHANISM_EXTENT_H
#define PGS_MECHANISM_EXTENT_H

#include "mechanism/host.h"

/* How an extent is to be shared. */
enum pgs_extent_flag {
    PGS_EXTENT_MARK = 1 << 0,   /* protect private pages as part of it */
    PGS_EXTENT_ZERO = 1 << 1,   /* the source is the zero frame */
    PGS_EXTENT_FREE = 1 << 2,   /* clients are declared free: no compare */
    PGS_EXTENT_HOLES = 1 << 3,  /* clients are holes (fork): no compare */
    PGS_EXTENT_SOURCE = 1 << 4, /* publish the source, there is no client */
    PGS_EXTENT_UNSECURED = 1 << 5 /* clients are counted as unsecured (fork) */
};

/* Where a page stands. */
enum pgs_page_flag {
    PGS_PAGE_LIVE = 1 << 0,       /* is still to be shared */
    PGS_PAGE_SOURCE = 1 << 1,     /* the source's BUSY is ours */
    PGS_PAGE_CLIENT = 1 << 2,     /* the client's BUSY is ours */
    PGS_PAGE_SOURCE_PRIVATE = 1 << 3, /* source needs protection */
    PGS_PAGE_CLIENT_PRIVATE = 1 << 4, /* client needs protection */
    PGS_PAGE_SOURCE_OURS = 1 << 5,    /* protected by us: to be undone */
    PGS_PAGE_CLIENT_OURS = 1 << 6,
    PGS_PAGE_FRAME = 1 << 7,      /* the source is a frame: id[] is known */
    PGS_PAGE_NEW = 1 << 8,        /* frame[] is a record to be published */
    PGS_PAGE_SOURCE_LINK = 1 << 9,  /* source_node[] is linked, not committed */
    PGS_PAGE_CLIENT_LINK = 1 << 10, /* client_node[] is linked, not committed */
    PGS_PAGE_JOIN = 1 << 11,      /* the client maps another frame, which is
                                   * pinned for us */
    PGS_PAGE_DONE = 1 << 12,      /* shared by this; what was so before is
                                   * neither LIVE nor DONE, its result 0 */
    PGS_PAGE_PINNED = 1 << 13,    /* frame[] is pinned for us, too */
    PGS_PAGE_PENDING = 1 << 14,   /* it takes no part in other joins yet */
    PGS_PAGE_UNSURE = 1 << 15     /* its JOIN failed, but may have been done */
};

/* A page's result, beside errors: it is equal, but its block is not. */
#define PGS_EXTENT_APART 1

/* One side's pages; consecutive ordinals, since an extent never crosses a
 * chunk of the GFN table. */
struct pgs_side {
    struct pgs_domain *domain; /* NULL: none (zero frame, publish only) */
    uint64_t gfn;
    uint32_t page;             /* ordinal of the first */
    const uint64_t *tickets;   /* demanded, or NULL; of a share, whose pages may
                                * be looked at after its caller has gone on, in
                                * own[] until then */
    uint64_t *own;             /* [count] PROTECT's answers; of a client that
                                * is to be joined: the frame that it maps */
};

struct pgs_extent {
    uint32_t count;
    uint32_t flags; /* enum pgs_extent_flag */
    uint32_t cause; /* enum pgshare_cause */
    uint32_t block; /* so many pages are shared together or not at all, from
                     * the first on; `count` is a multiple. 0, 1: no blocks */
    uint32_t cursor;
    uint32_t first; /* the run that the current operation is about */
    uint32_t n;
    uint32_t shared;     /* pages that were shared by this */
    uint32_t joined;     /* more mappings that were moved with them */
    uint32_t missed;     /* pages that somebody else had at the time */
    uint32_t new_frames; /* published and not counted yet */
    uint32_t new_mapped; /* mappings made and not counted yet: of frames, … */
    uint32_t new_zero;   /* … and of the zero frame */
    uint32_t new_shared; /* of these: clients */
    uint32_t *old_frame; /* [count] JOIN: what the client mapped */
    uint64_t born_ns; /* of the hint, or 0 */
    uint32_t map;     /* policy: which map proposed it (enum pgs_map), … */
    uint64_t object;  /* … and the key of its first page */
    uint64_t position;
    struct pgs_side source;
    struct pgs_side client;
    uint16_t *page; /* [count] enum pgs_page_flag */
    int8_t *result; /* [count] */
    uint32_t *frame;
    uint64_t *id;
    uint32_t *source_node;
    uint32_t *client_node;
    int8_t *status; /* answers of the operation under way */
    uint64_t *ids;
};

/* Everything zero. NULL: no memory. */
struct pgs_extent *pgs_extent_new(struct pgshare_host *host, uint32_t count);
void pgs_extent_free(struct pgshare_host *host, struct pgs_extent *extent);
/* Frees those that shards keep. */
void pgs_extents_fini(struct pgshare_host *host);

/*
 * The longest extent, at most `count`, that begins at this GFN and does not
 * cross a chunk, and the ordinal it begins with; 0: there is no word.
 */
uint32_t pgs_extent_cut(const struct pgs_domain *domain, uint64_t gfn,
                        uint64_t count, uint32_t *ret_page);

bool pgs_extent_find_run(struct pgs_extent *extent, uint32_t limit,
                         uint16_t mask, uint16_t want);

/*
 * The next run, from the cursor on, of pages whose flags have `want` of `mask`:
 * sets first and n. False, and the cursor at 0 again: no more.
 */
static inline bool pgs_extent_run(struct pgs_extent *extent, uint32_t limit,
                                  uint16_t mask, uint16_t want)
{
    if (extent->count > 1 && extent->cursor < extent->count)
        return pgs_extent_find_run(extent, limit, mask, want);
    /* a single page, or none is left */
    extent->first = 0;
    extent->n = !extent->cursor && (extent->page[0] & mask) == want;
    extent->cursor = extent->n;
    return extent->n;
}

/* The page is not shared, for this reason; what it holds is undone later. */
static inline void pgs_extent_drop(struct pgs_extent *extent, uint32_t i,
                                   int error)
{
    extent->page[i] &= (uint16_t)~PGS_PAGE_LIVE;
    extent->result[i] = (int8_t)error;
}

/*
 * Does the backend move all mappings of a frame at once? Then links that are
 * not mapped yet are counted (`pending`), and a frame that is being joined
 * takes no new ones.
 */
static inline bool pgs_moves_frames(const struct pgshare_host *host)
{
    return host->info.caps & PGSHARE_CAP_MAP_MOVES_FRAME;
}

/* The first error among the results, or 0. */
int pgs_extent_result(const struct pgs_extent *extent);

/*
 * Takes BUSY of all pages of both sides as far as they are free and fit for
 * being shared; others are dropped. (extent_lock.c)
 */
void pgs_extent_lock(struct pgs_extent *extent, struct pgshare_host *host);

/* extent_link.c: links nodes (and takes records for new frames) for all pages that are LIVE,
 * so that nothing can fail for lack of memory once the backend has mapped. */
void pgs_extent_link(struct pgs_extent *extent, struct pgshare_host *host);

/* Page i, whose operation did not come to pass: its links are taken back. */
void pgs_extent_unlink_source(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i);
void pgs_extent_unlink_client(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i);

/* extent_block.c: blocks of which not all pages are LIVE or shared are dropped;
 * links of theirs are taken back. */
void pgs_extent_settle(struct pgs_extent *extent, struct pgshare_host *host);

/* Page i is mapped: the word becomes SHARED, BUSY ends, the books are kept. */
void pgs_extent_commit_source(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i);
void pgs_extent_commit_client(struct pgs_extent *extent,
                              struct pgshare_host *host, uint32_t i);

/* Page i's link is not pending any more. */
void pgs_extent_end_pending(struct pgs_extent *extent,
                            struct pgshare_host *host, uint32_t i);

/* Counts what was committed since the last time: once for an operation, not for
 * each page. */
void pgs_extent_count(struct pgs_extent *extent, struct pgshare_host *host);

/* Ends BUSY of all that is still ours. */
void pgs_extent_unlock(struct pgs_extent *extent, struct pgshare_host *host);

#endif
