/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The share protocol's foresight: which blocks will be equal as a whole?
 *
 *   print client ─ print source ─ settle
 *
 * A backend that protects, compares and maps in one go finds the page that
 * differs when others of its block are mapped already. So the fingerprints of
 * both sides are compared before. That decides nothing about pages that are
 * alike: their bytes are compared as ever.
 */
#include "mechanism/share.h"

#include "mechanism/share_stage.h"

#define LIVE PGS_PAGE_LIVE

static enum pgs_verdict print_client(struct pgs_call *call);
static enum pgs_verdict print_source(struct pgs_call *call);

/* The client's fingerprint of page i waits where nodes are not linked yet. */
static void keep(struct pgs_extent *extent, uint32_t i, uint64_t print)
{
    extent->client_node[i] = (uint32_t)print;
    extent->source_node[i] = (uint32_t)(print >> 32);
}

static uint64_t kept(const struct pgs_extent *extent, uint32_t i)
{
    return extent->client_node[i] | (uint64_t)extent->source_node[i] << 32;
}

static enum pgs_verdict source_printed(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;
        int r = extent->status[k];

        if (!r && extent->ids[k] != kept(extent, i))
            r = PGSHARE_ERR_DIFFERENT;
        if (r)
            pgs_extent_drop(extent, i, r);
    }
    call->step = print_source;
    return PGS_NEXT;
}

static enum pgs_verdict print_source(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_FINGERPRINT,
        .arg = extent->client.domain->seed,
    };

    if (!pgs_share_next_run(call, LIVE, LIVE))
        return pgs_share_go(call, pgs_share_link); /* settles */
    return pgs_share_submit(call, &op, &extent->source, source_printed);
}

/* The source is the zero frame: that is the only one to be printed. */
static int is_zero(const struct pgs_extent *extent, uint32_t k)
{
    return extent->ids[k] == extent->client.domain->zero
               ? 0
               : PGSHARE_ERR_DIFFERENT;
}

static enum pgs_verdict client_printed(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;

    for (uint32_t k = 0; k < extent->n; k++) {
        uint32_t i = extent->first + k;
        int r = extent->status[k];

        if (!r && !extent->source.domain)
            r = is_zero(extent, k);
        if (r)
            pgs_extent_drop(extent, i, r);
        keep(extent, i, extent->ids[k]);
    }
    call->step = print_client;
    return PGS_NEXT;
}

static enum pgs_verdict print_client(struct pgs_call *call)
{
    struct pgs_extent *extent = call->extent;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_FINGERPRINT,
        .arg = extent->client.domain->seed,
    };

    if (!pgs_share_next_run(call, LIVE, LIVE))
        return pgs_share_go(call, extent->source.domain ? print_source
                                                        : pgs_share_link);
    return pgs_share_submit(call, &op, &extent->client, client_printed);
}

/* Without fingerprints nothing can be foreseen, so no block is shared. */
static void drop_all(struct pgs_extent *extent)
{
    for (uint32_t i = 0; i < extent->count; i++)
        if (extent->page[i] & LIVE)
            pgs_extent_drop(extent, i, PGSHARE_ERR_NOTSUP);
}

enum pgs_verdict pgs_share_foresee(struct pgs_call *call)
{
    if (call->extent->block < 2)
        return pgs_share_go(call, pgs_share_link);
    if (call->host->info.ops >> PGSHARE_OP_FINGERPRINT & 1)
        return pgs_share_go(call, print_client);
    drop_all(call->extent);
    return pgs_share_go(call, pgs_share_link);
}
