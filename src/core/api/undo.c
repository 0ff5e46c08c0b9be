/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way back: memory made private again.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/fault.h"
#include "mechanism/reserve.h"

#include <pgshare/domain.h>
#include <pgshare/fault.h>

/* Looks at the page at *gfn, or at the chunk's worth of GFNs without words that
 * begins there: steps over those. False: the range or the budget is at its end.
 */
static bool look(struct pgs_domain *domain, uint64_t *gfn, uint64_t end,
                 uint64_t *budget)
{
    while (*gfn < end && *budget) {
        --*budget;
        if (pgs_page_of(domain, *gfn) != PGS_PAGE_NONE)
            return true;
        *gfn = (*gfn | (PGS_CHUNK_GFNS - 1)) + 1;
        *gfn = *gfn < end ? *gfn : end;
    }
    return false;
}

static bool needs_frame(struct pgs_frames *frames, uint64_t word)
{
    uint32_t frame;
    bool needs;

    if (pgs_word_state(word) != PGS_SHARED)
        return false;
    if (pgs_word_index(word) == PGS_NODE_ZERO)
        return true;
    frame = pgs_node_frame(frames, pgs_word_index(word));
    if (frame == PGS_NONE)
        return false; /* it breaks this instant */
    pgs_frame_lock(frames, frame);
    needs = pgs_frame_at(frames, frame)->mappings > 1;
    pgs_frame_unlock(frames, frame);
    return needs;
}

/* Frames that the range would need if all of it that the budget reaches broke
 * now; *ret_end is where that ends. */
static uint64_t frames_needed(struct pgs_domain *domain, uint64_t gfn,
                              uint64_t end, uint64_t budget, uint64_t *ret_end)
{
    uint64_t needed = 0;

    for (; look(domain, &gfn, end, &budget); gfn++)
        needed += needs_frame(&domain->host->frames,
                              pgs_word_peek(domain, gfn));
    *ret_end = gfn;
    return needed;
}

/* Frames that are missing, after the machine was asked for them. */
static uint64_t frames_missing(struct pgs_visit *visit, uint64_t needed)
{
    struct pgshare_host *host = visit->host;
    int64_t have = (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE) +
                   (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_FIFO);
    int64_t missing = (int64_t)needed - have, got = 0;

    if (missing <= 0)
        return 0;
    pgs_reserve_exchange(host, missing, host->options.timeout_ns, &got);
    if (got < missing && got > 0)
        pgs_reserve_exchange(host, -got, host->options.timeout_ns, &have);
    return got < missing ? (uint64_t)(missing - got) : 0;
}

static int unshare_page(struct pgs_visit *visit, uint64_t gfn,
                        uint64_t *ret_private)
{
    uint64_t word = pgs_word_peek(visit->domain, gfn);
    struct pgs_call *call;
    uint64_t token;
    int r;

    if (pgs_word_state(word) != PGS_SHARED && !(word & PGS_BUSY))
        return 0;
    call = pgs_fault_take(visit->domain, pgs_page_of(visit->domain, gfn), 0,
                          PGS_FAULT_UNDO | PGS_FAULT_FORCE);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->gfn = gfn;
    call->timeout = visit->host->options.timeout_ns;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    *ret_private += !r && call->outcome != PGSHARE_FAULT_SPURIOUS;
    pgs_call_give(call);
    return r == PGSHARE_ERR_HOLE ? 0 : r;
}

/* Makes the part private that the budget reaches. */
static int unshare_part(struct pgs_visit *visit, uint64_t end, uint64_t budget,
                        struct pgshare_unshare_progress *progress)
{
    uint64_t needed = frames_needed(visit->domain, progress->next, end, budget,
                                    &end);
    uint64_t left = budget;
    int r = 0;

    progress->missing = frames_missing(visit, needed);
    if (progress->missing)
        return PGSHARE_ERR_NOFRAME;
    while (!r && look(visit->domain, &progress->next, end, &left)) {
        r = unshare_page(visit, progress->next, &progress->private_);
        if (!r)
            progress->next++;
    }
    /* pages that should have paid could not, since they are held: what is left
     * needs frames of its own */
    if (r == PGSHARE_ERR_NOFRAME) {
        progress->missing = frames_needed(visit->domain, progress->next, end,
                                          budget, &end);
        progress->missing += !progress->missing;
    }
    return r;
}

int pgshare_domain_unshare(struct pgshare_host *host, uint64_t dom,
                           uint64_t gfn, uint64_t count, uint64_t budget,
                           struct pgshare_unshare_progress *ret_progress)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress),
                                                 .next = gfn };
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_abi_check_out(ret_progress, sizeof(progress));
    if (r)
        return pgs_visit_end(&visit, r);
    r = unshare_part(&visit, gfn + count, budget ? budget : UINT64_MAX,
                     &progress);
    if (!r || r == PGSHARE_ERR_NOFRAME)
        pgs_abi_out(ret_progress, &progress, sizeof(progress));
    return pgs_visit_end(&visit, r);
}
