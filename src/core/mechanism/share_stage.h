/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The share protocol's stages have three files (share.c, share_block.c,
 * share_map.c); what all of them use is here. A stage is a step of the call
 * (call.h), run until no page of the extent is left for it.
 */
#ifndef PGS_MECHANISM_SHARE_STAGE_H
#define PGS_MECHANISM_SHARE_STAGE_H

#include "mechanism/extent.h"

/* Does the backend protect, compare and map in one go? */
static inline bool pgs_share_is_fused(const struct pgs_extent *extent,
                                      const struct pgshare_host *host)
{
    return host->info.caps & PGSHARE_CAP_MERGE &&
           !(extent->flags & (PGS_EXTENT_FREE | PGS_EXTENT_HOLES));
}

/* On to the next stage, with all pages. */
static inline enum pgs_verdict pgs_share_go(struct pgs_call *call,
                                            pgs_step stage)
{
    call->extent->cursor = 0;
    call->step = stage;
    return PGS_NEXT;
}

/* Sets the next run; false at the end of this stage. */
static inline bool pgs_share_next_run(struct pgs_call *call, uint16_t mask,
                                      uint16_t want)
{
    return pgs_extent_run(call->extent, call->host->info.extent_max, mask,
                          want);
}

/* Submits an operation on the current run of one side. */
enum pgs_verdict pgs_share_submit(struct pgs_call *call, struct pgshare_op *op,
                                  const struct pgs_side *side,
                                  pgs_step answered);

/* Is page i of this side a mark (the caller's BUSY)? */
bool pgs_share_is_marked(struct pgs_call *call, const struct pgs_side *side,
                         uint32_t i);

/* Page i is not shared. Where the backend says that a side is not protected any
 * more, that side's mark is void, and goes with what is undone. */
void pgs_share_fail_page(struct pgs_call *call, uint32_t i, int error);

/* share_block.c: before pages are compared as they are mapped: blocks that will
 * not be equal as a whole are dropped. On to the link. */
enum pgs_verdict pgs_share_foresee(struct pgs_call *call);
/* share_map.c: links, publishes, maps and joins all pages that are LIVE, and
 * goes on to the undo. */
enum pgs_verdict pgs_share_link(struct pgs_call *call);
/* share.c: gives back what is not shared, and ends. */
enum pgs_verdict pgs_share_undo(struct pgs_call *call);

#endif
