/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way back: memory made private again, and domains that keep out of
 * sharing for a while.
 *
 * To begin or to end a suspension is to switch. One switches at a time, who
 * has set SWITCHING; so the backend never has two such operations of a domain,
 * whose order would be open. If the time-out ends before the operation, the
 * runner concludes in place of the caller, and the domain is SUSPENDED as long
 * as its backend may be. UNTOLD then remembers that the caller does not know:
 * when it calls again it is told, and nothing is done twice.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/fault.h"
#include "mechanism/page.h"
#include "mechanism/reserve.h"
#include "policy/scan.h"

#include <pgshare/domain.h>
#include <pgshare/fault.h>

/* ---- unshare ----------------------------------------------------------- */

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

/* ---- suspension: what is in flight -------------------------------------- */

/* Somebody else's BUSY, who is told that its end is waited for. */
static bool is_in_flight(struct pgs_domain *domain, uint32_t page)
{
    struct pgshare_host *host = domain->host;
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t word;

    /* in one order with SUSPENDED: a share that has not seen it has the word */
    if (!(atomic_load_explicit(at, memory_order_seq_cst) & PGS_BUSY))
        return false;
    if (!pgs_word_trylock(at, true, &word))
        return true;
    pgs_page_unlock(host, page);
    return false;
}

/* Each page has been seen to be nobody's once since shares were forbidden: so
 * none that began before has any. */
static enum pgs_verdict await_pages(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;

    for (; call->gfn < domain->gfns; call->gfn++) {
        uint32_t page = pgs_page_of(domain, call->gfn);

        if (page == PGS_PAGE_NONE) {
            call->gfn |= PGS_CHUNK_GFNS - 1;
        } else if (is_in_flight(domain, page)) {
            call->waits = page;
            call->result = PGSHARE_ERR_INPROGRESS;
            return pgs_now(&call->host->platform) < call->again_ns
                       ? PGS_WAIT_CALM
                       : PGS_DONE;
        }
    }
    call->result = 0;
    return PGS_DONE;
}

/* Not handed to the runner when the time is over: a caller that asks again and
 * again would leave all calls there, waiting for one stuck page. So the step
 * looks after the time, and *timeout is what is left of it. */
static int settle_pages(struct pgs_visit *visit, uint64_t *timeout)
{
    struct pgs_call *call =
        pgs_call_take(visit->host, visit->domain, await_pages);
    uint64_t now = pgs_now(&visit->host->platform), end, token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    end = *timeout < UINT64_MAX - now ? now + *timeout : UINT64_MAX;
    call->again_ns = end;
    call->timeout = PGSHARE_FOREVER;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    if (pgs_domain_flags(visit->domain) & (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE))
        r = PGSHARE_ERR_GONE;
    now = pgs_now(&visit->host->platform);
    *timeout = now < end ? end - now : 0;
    return r;
}

/* ---- suspension: the switch --------------------------------------------- */

/* False: somebody else is at it. What was there before is in *ret_flags. */
static bool begin_switch(struct pgs_domain *domain, uint32_t *ret_flags)
{
    *ret_flags = atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_SWITCHING,
                                          memory_order_acq_rel);
    return !(*ret_flags & PGS_DOMAIN_SWITCHING);
}

/* What was tried has ended with `r`. */
static void conclude(struct pgs_domain *domain, bool off, int r, bool untold)
{
    uint32_t clear = PGS_DOMAIN_SWITCHING;

    if (off == !r)
        clear |= PGS_DOMAIN_SUSPENDED;
    if (r || !untold)
        clear |= PGS_DOMAIN_UNTOLD;
    else
        atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_UNTOLD,
                                 memory_order_relaxed);
    atomic_fetch_and_explicit(&domain->flags, ~clear, memory_order_release);
    if (off && !r)
        pgs_scan_redo(domain, 0, domain->gfns);
}

/* The caller has not waited. */
static void conclude_late(struct pgs_call *call)
{
    conclude(call->domain, call->flags & PGSHARE_OP_OFF, call->result, true);
}

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

/* Switches, and concludes; or the runner does when the time is over. */
static int drive_switch(struct pgs_visit *visit, uint32_t flags,
                        uint64_t timeout)
{
    struct pgs_call *call =
        pgs_call_take(visit->host, visit->domain, switch_over);
    uint64_t token;
    int r = PGSHARE_ERR_BUSY;

    if (call) {
        call->flags = flags;
        call->timeout = timeout;
        call->finish = conclude_late;
        if (!pgs_call_drive(call, &token))
            return PGSHARE_ERR_INPROGRESS;
        r = call->result;
        pgs_call_give(call);
    }
    conclude(visit->domain, flags & PGSHARE_OP_OFF, r, false);
    return r;
}

/* There is nothing to be done. */
static int tell(struct pgs_domain *domain, uint32_t flags)
{
    atomic_fetch_and_explicit(&domain->flags,
                              ~(PGS_DOMAIN_SWITCHING | PGS_DOMAIN_UNTOLD),
                              memory_order_release);
    return flags & PGS_DOMAIN_UNTOLD ? 0 : PGSHARE_ERR_STATE;
}

int pgshare_domain_suspend(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);
    uint64_t timeout;
    uint32_t flags;

    if (r)
        return r;
    timeout = host->options.timeout_ns;
    if (!begin_switch(visit.domain, &flags))
        return pgs_visit_end(&visit, PGSHARE_ERR_INPROGRESS);
    if (flags & PGS_DOMAIN_SUSPENDED)
        return pgs_visit_end(&visit, tell(visit.domain, flags));
    atomic_fetch_or_explicit(&visit.domain->flags, PGS_DOMAIN_SUSPENDED,
                             memory_order_seq_cst);
    r = settle_pages(&visit, &timeout);
    if (r)
        conclude(visit.domain, false, r, false);
    else
        r = drive_switch(&visit, 0, timeout);
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_resume(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);
    uint32_t flags;

    if (r)
        return r;
    if (!begin_switch(visit.domain, &flags))
        return pgs_visit_end(&visit, PGSHARE_ERR_INPROGRESS);
    if (!(flags & PGS_DOMAIN_SUSPENDED))
        return pgs_visit_end(&visit, tell(visit.domain, flags));
    r = drive_switch(&visit, PGSHARE_OP_OFF, host->options.timeout_ns);
    return pgs_visit_end(&visit, r);
}
