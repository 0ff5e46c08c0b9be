/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks by hand: pgshare_mark_ro() and pgshare_unmark().
 */
#ifndef PGS_MECHANISM_MARK_H
#define PGS_MECHANISM_MARK_H

#include "mechanism/extent.h"

/*
 * Calls over extent->source. mark: extent->id[] gets the tickets (0 where the
 * page failed), result[] tells why. unmark: source.tickets (or NULL) must be
 * current. The extent stays the caller's. NULL: no call is free.
 */
struct pgs_call *pgs_mark_take(struct pgshare_host *host,
                               struct pgs_extent *extent);
struct pgs_call *pgs_unmark_take(struct pgshare_host *host,
                                 struct pgs_extent *extent);

#endif
