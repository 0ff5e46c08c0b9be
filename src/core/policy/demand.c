/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Demands: a platform that resolves CoW itself has found no memory for a
 * fault, and a vCPU waits.
 *
 *   demand ─┬ reserve has a frame ──┬ RESERVE -1 ─ ANSWER
 *           ├ pay (a volatile page) ┤
 *           ├ harvest all, release ─┤
 *           └ wait for a frame ─────┘
 *
 * Platforms that copy even for the last mapping leave a frame behind that
 * nobody maps; until it is harvested and released, the ledger is one short.
 * So before a demand is refused, all that the platform has not told is learned.
 * For such a break itself the reserve has a frame to lend (ledger.h), which is
 * for no others as long as these can be paid.
 *
 * That may be too early: a frame which was lent comes back only after the guest
 * has written again, which it does when it pleases, or is being released by
 * another call. So last breaks that begin at once take turns. A demand that
 * finds nothing waits until a frame comes into the reserve, as long as an
 * operation may go without an answer, and is refused only then: nothing was on
 * its way, or a guest that was lent a frame does not use it. A frame that is
 * being handed out is no other demand's. A child that does without security has
 * been promised nothing, and waits for nothing.
 *
 * The frame goes from the reserve to the machine, where the platform finds it.
 * The page's break is harvested later, like any other; until then the books
 * say one frame too few is free, which errs on the safe side. The audit knows
 * of it by pgshare_host::advanced.
 */
#include "policy/policy.h"

#include "mechanism/fault.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"
#include "mechanism/reserve.h"
#include "mechanism/share.h"

#include <pgshare/fault.h>

/* A demand that waits looks so often for a volatile page, or memory of the
 * machine, that has come meanwhile. */
#define AGAIN_NS UINT64_C(5000000)

static enum pgs_verdict pay(struct pgs_call *call);

static enum pgs_verdict answered(struct pgs_call *call)
{
    return call->status[0] == PGSHARE_ERR_BUSY ? pay(call) : PGS_DONE;
}

static enum pgs_verdict answer(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_ANSWER,
        .domain = domain->cookie,
        .gfn = call->gfn,
        .count = 1,
        .arg = call->count, /* the demand's cookie */
    };

    if (call->result)
        op.flags = PGSHARE_OP_OFF;
    return pgs_call_submit(call, &op, answered);
}

/* Is it worth waiting for what is on its way? */
static bool may_wait(struct pgs_call *call)
{
    const uint32_t never = PGS_DOMAIN_UNSECURED | PGS_DOMAIN_DYING |
                           PGS_DOMAIN_GONE;

    return !(pgs_domain_flags(call->domain) & never) &&
           (!call->timeout ||
            pgs_now(&call->host->platform) - call->born_ns < call->timeout);
}

static enum pgs_verdict wait_or_refuse(struct pgs_call *call)
{
    if (!may_wait(call))
        return answer(call);
    if (!call->timeout) {
        call->timeout = call->host->options.op_timeout_ns;
        call->born_ns = pgs_now(&call->host->platform);
    }
    call->again_ns = pgs_now(&call->host->platform) + AGAIN_NS;
    call->step = pay;
    return PGS_WAIT_FRAME;
}

static enum pgs_verdict handed_out(struct pgs_call *call)
{
    atomic_fetch_sub_explicit(&call->host->reserve_leaving, 1,
                              memory_order_relaxed);
    if (call->status[0] && call->tries++ < 2)
        return pay(call);
    call->result = call->status[0];
    if (call->result == PGSHARE_ERR_NOFRAME)
        return wait_or_refuse(call); /* others were faster */
    if (!call->result) {
        atomic_fetch_add_explicit(&call->host->advanced, 1,
                                  memory_order_relaxed);
        pgs_reserve_put_off(call->host);
        pgs_unsecured_end(call->domain, 1);
    }
    return answer(call);
}

/* One domain after the other (`intent` counts slots), then what they left. */
static enum pgs_verdict gather(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;

    while (++call->intent < host->slots_used) {
        struct pgs_domain *domain = atomic_load_explicit(
            &host->slots[call->intent], memory_order_acquire);

        if (!domain || pgs_domain_flags(domain) & PGS_DOMAIN_GONE ||
            !(domain->caps & PGSHARE_CAP_PLATFORM_COW))
            continue;
        atomic_store_explicit(&call->victim, domain, memory_order_release);
        return pgs_harvest(call, domain, gather);
    }
    atomic_store_explicit(&call->victim, NULL, memory_order_release);
    return pgs_release(call, pay);
}

static bool reserve_has(struct pgshare_host *host, uint64_t beyond)
{
    return pgs_reserve_at_hand(host) > (int64_t)beyond;
}

/* Has the page's frame no other mapping, as far as has been told? */
static bool is_last(struct pgs_call *call)
{
    struct pgs_frames *frames = &call->host->frames;
    uint64_t word;
    uint32_t frame;
    bool is;

    if (call->gfn >= call->domain->gfns)
        return false;
    word = pgs_word_peek(call->domain, call->gfn);
    if (pgs_word_state(word) != PGS_SHARED ||
        pgs_word_index(word) == PGS_NODE_ZERO)
        return false;
    frame = pgs_node_frame(frames, pgs_word_index(word));
    if (frame == PGS_NONE)
        return false; /* it goes this instant */
    pgs_frame_lock(frames, frame);
    is = pgs_frame_at(frames, frame)->mappings == 1;
    pgs_frame_unlock(frames, frame);
    return is;
}

static enum pgs_verdict hand_out(struct pgs_call *call)
{
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RESERVE,
        .count = 1,
        .arg = (uint64_t)-1,
    };

    if (call->result && !call->intent)
        return gather(call);
    if (call->result &&
        (pgs_domain_flags(call->domain) & PGS_DOMAIN_UNSECURED ||
         !reserve_has(call->host, 0)))
        return wait_or_refuse(call);
    call->result = 0;
    atomic_fetch_add_explicit(&call->host->reserve_leaving, 1,
                              memory_order_relaxed);
    return pgs_call_submit(call, &op, handed_out);
}

/* For a child that does without security: what nobody else may need. */
static enum pgs_verdict pay_unsecured(struct pgs_call *call)
{
    if (reserve_has(call->host, pgs_ledger_need(call->host)))
        return hand_out(call);
    return pgs_obtain(call, hand_out);
}

static enum pgs_verdict pay(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;

    call->result = 0;
    if (pgs_domain_flags(call->domain) & PGS_DOMAIN_UNSECURED)
        return pay_unsecured(call);
    if (reserve_has(host, is_last(call) ? 0 : pgs_ledger_loan(host)))
        return hand_out(call);
    return pgs_pay(call, hand_out);
}

static void finish(struct pgs_call *call)
{
    atomic_fetch_sub_explicit(&call->host->demands, 1, memory_order_relaxed);
}

int pgs_demand(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie)
{
    struct pgshare_host *host = ctx;
    uint32_t ticket = pgs_shards_enter(&host->shards);
    struct pgs_domain *domain = pgs_domain_of(host, dom);
    struct pgs_call *call;
    int r = PGSHARE_ERR_NODOMAIN;

    if (domain) {
        call = pgs_call_take(host, domain, pay);
        r = call ? 0 : PGSHARE_ERR_BUSY;
        if (call) {
            call->gfn = gfn;
            call->count = cookie;
            call->finish = finish;
            atomic_fetch_add_explicit(&host->demands, 1,
                                      memory_order_relaxed);
            pgs_call_launch(call);
        }
    }
    pgs_shards_leave(&host->shards, ticket);
    return r;
}
