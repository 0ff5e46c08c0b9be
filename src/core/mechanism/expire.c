/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations that get no answer.
 *
 * A backend can lose an answer, or a peer can be slow. Guessing either way
 * would be wrong: a page that we take for private may be a mapping. So after
 * the host's op_timeout the core asks what the pages are (QUERY), and answers
 * its own operation by what it is told. Should the old answer come after all,
 * its token is not awaited any more. Without QUERY the pages simply stay in
 * flight, until the answer or the domain's end.
 *
 * What the reserve gained by the lost answer is unknown. The runner asks the
 * backend for the reserve when nothing is under way (recount).
 */
#include "mechanism/call.h"
#include "mechanism/host.h"

#include <pgshare/gfn.h>

/* What the operation would have answered, had it answered, for a page that is
 * now in `state` and, if shared, maps `id`. */
static int infer(const struct pgshare_op *op, uint32_t i, int state,
                 uint64_t id)
{
    switch (op->kind) {
    case PGSHARE_OP_PROTECT:
        return state == PGSHARE_GFN_PROTECTED ? 0 : PGSHARE_ERR_BACKEND;
    case PGSHARE_OP_PUBLISH:
        return state == PGSHARE_GFN_SHARED ? 0 : PGSHARE_ERR_BACKEND;
    case PGSHARE_OP_MAP:
    case PGSHARE_OP_MERGE:
        return state == PGSHARE_GFN_SHARED && id == op->ids[i]
                   ? 0
                   : PGSHARE_ERR_BACKEND;
    case PGSHARE_OP_UNPROTECT:
    case PGSHARE_OP_UNSHARE:
    case PGSHARE_OP_GRANT:
    case PGSHARE_OP_CLONE:
        return state == PGSHARE_GFN_PRIVATE ? 0 : PGSHARE_ERR_BACKEND;
    case PGSHARE_OP_RECLAIM:
    case PGSHARE_OP_DISCARD:
        return state == PGSHARE_GFN_HOLE ? 0 : PGSHARE_ERR_BACKEND;
    case PGSHARE_OP_QUERY:
        return state;
    default:
        return PGSHARE_ERR_BACKEND;
    }
}

/* Did the question fail itself? Then nothing is known. */
static bool was_refused(const struct pgs_call *call)
{
    for (uint32_t i = 0; i < call->op.count; i++)
        if (call->status[i] < 0 && call->status[i] != PGSHARE_ERR_HOLE &&
            call->status[i] != PGSHARE_ERR_GONE)
            return true;
    return false;
}

/* The query was answered: turns its answers into the operation's. */
static enum pgs_verdict inferred(struct pgs_call *call)
{
    struct pgshare_op op = call->lost;

    if (was_refused(call))
        return pgs_call_lose(call, inferred);
    call->op = op;
    call->clean = false;
    for (uint32_t i = 0; i < op.count; i++) {
        if (call->status[i] >= 0)
            call->status[i] =
                (int8_t)infer(&op, i, call->status[i], call->ids[i]);
        if (call->status[i] == PGSHARE_ERR_HOLE)
            call->status[i] =
                (int8_t)infer(&op, i, PGSHARE_GFN_HOLE, PGSHARE_ID_NONE);
    }
    call->step = call->lost_step;
    call->lost_step = NULL;
    return PGS_NEXT;
}

static void ask(struct pgs_call *call)
{
    struct pgshare_op query = call->op;

    if (!pgs_call_withdraw(call))
        return;
    if (!call->lost_step) {
        call->lost = call->op;
        call->lost_step = call->step;
    }
    query.kind = PGSHARE_OP_QUERY;
    query.flags = 0;
    query.peer = NULL;
    query.ids = query.own_ids = NULL;
    call->verdict = pgs_call_submit_into(call, &query, inferred, call->status,
                                         call->ids);
}

/* Does it matter what became of it? If not, it may be taken for failed. */
static bool is_harmless(const struct pgshare_op *op)
{
    switch (op->kind) {
    case PGSHARE_OP_FINGERPRINT:
    case PGSHARE_OP_COMPARE:
    case PGSHARE_OP_RELEASE: /* is sent again, see release.c */
    case PGSHARE_OP_RESERVE:
    case PGSHARE_OP_HARVEST:
    case PGSHARE_OP_CHANGES:
    case PGSHARE_OP_ANSWER:
    case PGSHARE_OP_READ_ONLY:
    case PGSHARE_OP_SUSPEND:
        return true;
    default:
        return op->flags & PGSHARE_OP_CHARGE;
    }
}

void pgs_call_expire(struct pgs_call *call, uint64_t now)
{
    struct pgshare_host *host = call->host;

    if (call->verdict != PGS_WAIT_OP ||
        atomic_load_explicit(&call->answered, memory_order_acquire))
        return;
    if (!call->op_since) {
        call->op_since = now ? now : 1;
        return;
    }
    if (now - call->op_since < host->options.op_timeout_ns)
        return;
    call->op_since = 0;
    pgs_count(&host->shards, PGS_COUNT_BACKEND_LOST, 1);
    atomic_store_explicit(&host->recount, PGS_RECOUNT_WANTED,
                          memory_order_relaxed);
    if (is_harmless(&call->op))
        pgs_call_abandon(call, PGSHARE_ERR_BACKEND);
    else if (host->info.ops >> PGSHARE_OP_QUERY & 1)
        ask(call);
}

void pgs_calls_expire(struct pgshare_host *host, uint64_t now)
{
    struct pgs_call *call;

    if (!atomic_load_explicit(&host->calls.n_running, memory_order_relaxed))
        return;
    pgs_mutex_lock(&host->calls.lock);
    call = host->calls.running;
    pgs_mutex_unlock(&host->calls.lock);
    for (; call; call = call->next)
        pgs_call_expire(call, now);
}
