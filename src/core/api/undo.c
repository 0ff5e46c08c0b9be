/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way back: memory made private again, and domains that keep out of
 * sharing for a while.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/fault.h"
#include "mechanism/reserve.h"
#include "policy/scan.h"

#include <pgshare/domain.h>
#include <pgshare/fault.h>

/* ---- unshare ----------------------------------------------------------- */

/* Frames that the range would need if all of it broke now. */
static uint64_t frames_needed(struct pgs_domain *domain, uint64_t gfn,
                              uint64_t end)
{
    struct pgs_frames *frames = &domain->host->frames;
    uint64_t needed = 0;

    for (; gfn < end; gfn++) {
        uint64_t word = pgs_word_peek(domain, gfn);
        uint32_t frame;

        if (pgs_word_state(word) != PGS_SHARED)
            continue;
        if (pgs_word_index(word) == PGS_NODE_ZERO) {
            needed++;
            continue;
        }
        frame = pgs_node_frame(frames, pgs_word_index(word));
        if (frame == PGS_NONE)
            continue; /* it breaks this instant */
        pgs_frame_lock(frames, frame);
        needed += pgs_frame_at(frames, frame)->mappings > 1;
        pgs_frame_unlock(frames, frame);
    }
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

int pgshare_domain_unshare(struct pgshare_host *host, uint64_t dom,
                           uint64_t gfn, uint64_t count, uint64_t budget,
                           struct pgshare_unshare_progress *ret_progress)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress),
                                                 .next = gfn };
    struct pgs_visit visit;
    uint64_t end = gfn + count;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_abi_check_out(ret_progress, sizeof(progress));
    if (r)
        return pgs_visit_end(&visit, r);
    progress.missing =
        frames_missing(&visit, frames_needed(visit.domain, gfn, end));
    if (progress.missing)
        r = PGSHARE_ERR_NOFRAME;
    for (uint64_t n = 0; !r && progress.next < end && (!budget || n < budget);
         n++) {
        r = unshare_page(&visit, progress.next, &progress.private_);
        if (!r)
            progress.next++;
    }
    /* pages that should have paid could not, since they are held: what is left
     * needs frames of its own */
    if (r == PGSHARE_ERR_NOFRAME && !progress.missing) {
        progress.missing = frames_needed(visit.domain, progress.next, end);
        progress.missing += !progress.missing;
    }
    if (!r || r == PGSHARE_ERR_NOFRAME)
        pgs_abi_out(ret_progress, &progress, sizeof(progress));
    return pgs_visit_end(&visit, r);
}

/* ---- suspension -------------------------------------------------------- */

static enum pgs_verdict switched(struct pgs_call *call)
{
    call->result = call->status[0];
    return PGS_DONE;
}

static enum pgs_verdict switch_over(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_SUSPEND,
        .flags = call->flags,
        .domain = domain->cookie,
        .count = 1,
    };

    if (call->host->info.ops & UINT64_C(1) << PGSHARE_OP_SUSPEND)
        return pgs_call_submit(call, &op, switched);
    return PGS_DONE; /* nothing to hand back: all faults are ours anyway */
}

static int drive_switch(struct pgs_visit *visit, uint32_t flags)
{
    struct pgs_call *call =
        pgs_call_take(visit->host, visit->domain, switch_over);
    uint64_t token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    call->flags = flags;
    call->timeout = visit->host->options.timeout_ns;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    return r;
}

static bool has_pages_in_flight(struct pgs_domain *domain)
{
    for (uint64_t gfn = 0; gfn < domain->gfns; gfn++) {
        if (pgs_page_of(domain, gfn) == PGS_PAGE_NONE)
            gfn |= PGS_CHUNK_GFNS - 1;
        else if (pgs_word_peek(domain, gfn) & PGS_BUSY)
            return true;
    }
    return false;
}

int pgshare_domain_suspend(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);
    uint32_t before;

    if (r)
        return r;
    before = atomic_fetch_or_explicit(&visit.domain->flags,
                                      PGS_DOMAIN_SUSPENDED,
                                      memory_order_acq_rel);
    if (before & PGS_DOMAIN_SUSPENDED)
        return pgs_visit_end(&visit, PGSHARE_ERR_STATE);
    r = has_pages_in_flight(visit.domain) ? PGSHARE_ERR_INPROGRESS
                                          : drive_switch(&visit, 0);
    if (r)
        atomic_fetch_and_explicit(&visit.domain->flags, ~PGS_DOMAIN_SUSPENDED,
                                  memory_order_release);
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_resume(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    if (!(pgs_domain_flags(visit.domain) & PGS_DOMAIN_SUSPENDED))
        return pgs_visit_end(&visit, PGSHARE_ERR_STATE);
    r = drive_switch(&visit, PGSHARE_OP_OFF);
    if (r)
        return pgs_visit_end(&visit, r);
    atomic_fetch_and_explicit(&visit.domain->flags, ~PGS_DOMAIN_SUSPENDED,
                              memory_order_release);
    pgs_scan_redo(visit.domain, 0, visit.domain->gfns);
    return pgs_visit_end(&visit, 0);
}
