/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The share protocol: one way for every extent, whoever proposed it.
 */
#ifndef PGS_MECHANISM_SHARE_H
#define PGS_MECHANISM_SHARE_H

#include "mechanism/extent.h"

/*
 * A call that shares an extent: lock → protect → compare → publish → map →
 * commit → undo → unlock. When it is done, extent->result[] tells of each page
 * and call->result is the first error. The extent stays the caller's.
 * NULL: no call is free.
 */
struct pgs_call *pgs_share_take(struct pgshare_host *host,
                                struct pgs_extent *extent);

/*
 * harvest.c. Runs one harvest of the domain and goes on with `next`; waits for
 * one that is under way first. call->result: 0, or the backend's error.
 */
enum pgs_verdict pgs_harvest(struct pgs_call *call, struct pgs_domain *domain,
                             pgs_step next);
/* Starts a harvest of its own for the runner. False: one is under way, or no
 * call is free. */
bool pgs_harvest_launch(struct pgs_domain *domain);

/*
 * join.c. The client's frames, other than its own pages', are moved to the
 * source's frames: goes through all pages of the extent that were joined.
 */
enum pgs_verdict pgs_join(struct pgs_call *call, pgs_step next);

#endif
