/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extents: blocks, whose pages are shared together or not at all.
 *
 * Policy keeps memory whole by blocks (policy/floor.c), but it is pages that
 * drop out on their way: one is written, held, or turns out to differ. So the
 * protocol settles an extent's blocks whenever pages may have dropped out, up
 * to the last time before they are mapped: all that is left of a block that is
 * not whole drops out, too. A page that the client shares with the source
 * already is where it belongs, and part of a whole block.
 */
#include "mechanism/extent.h"

/* Why the block cannot be shared as a whole; 0: it can. */
static int reason(const struct pgs_extent *extent, uint32_t first)
{
    for (uint32_t i = first; i < first + extent->block; i++)
        if (!(extent->page[i] & PGS_PAGE_LIVE) && extent->result[i])
            return extent->result[i];
    return 0;
}

static void drop(struct pgs_extent *extent, struct pgshare_host *host,
                 uint32_t first, int error)
{
    /* of the page itself that is not true */
    if (error == PGSHARE_ERR_DIFFERENT)
        error = PGS_EXTENT_APART;
    for (uint32_t i = first; i < first + extent->block; i++) {
        if (!(extent->page[i] & PGS_PAGE_LIVE))
            continue;
        pgs_extent_drop(extent, i, error);
        pgs_extent_unlink_client(extent, host, i);
        pgs_extent_unlink_source(extent, host, i);
    }
}

void pgs_extent_settle(struct pgs_extent *extent, struct pgshare_host *host)
{
    if (extent->block < 2)
        return;
    assert(extent->count % extent->block == 0);
    for (uint32_t i = 0; i < extent->count; i += extent->block) {
        int error = reason(extent, i);

        if (error)
            drop(extent, host, i, error);
    }
}
