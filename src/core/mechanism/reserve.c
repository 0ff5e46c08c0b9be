/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reserve is memory that the backend holds for the host: what sharing
 * frees goes there by itself, faults take from it. Here it is exchanged with
 * the machine: filled at the start and before a fork, and kept, by the runner,
 * between what the books need and what the embedder wants.
 *
 * The reserve falls short of what the books need when a FIFO leaves with its
 * domain. Nobody gives that back, so the runner takes it from the machine. If
 * the machine has not so much, it is asked less and less often; and not soon
 * after a frame was handed out to it for a guest's fault, which would be taken
 * away again.
 *
 * After an answer was lost the count may be wrong. When no operation is under
 * way, the runner asks the backend and puts it right.
 */
#include "mechanism/reserve.h"

#include "mechanism/ledger.h"

/* A machine that has no memory is asked again after so long, then after twice
 * as long, and so on. */
#define REFILL_FIRST_NS UINT64_C(10000000)
#define REFILL_LAST_NS UINT64_C(5000000000)

/* Frames that the call gives back. */
static int64_t given(const struct pgs_call *call)
{
    int64_t frames = (int64_t)call->count;

    return frames < 0 ? -frames : 0;
}

static enum pgs_verdict exchanged(struct pgs_call *call)
{
    call->result = call->status[0];
    atomic_fetch_sub_explicit(&call->host->reserve_leaving, given(call),
                              memory_order_relaxed);
    return PGS_DONE;
}

/* What is about to leave secures no claim; and what claims need by now does
 * not leave. Claims are entered under the same lock. */
static bool may_leave(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    int64_t rest;

    if (!given(call))
        return true;
    pgs_mutex_lock(&host->domains_lock);
    rest = pgs_reserve_at_hand(host) - given(call);
    if (rest >= (int64_t)pgs_ledger_need(host) &&
        !(pgs_shards_sum(&host->shards, PGS_LEVEL_CLAIMED) &&
          atomic_load_explicit(&host->recount, memory_order_acquire)))
        atomic_fetch_add_explicit(&host->reserve_leaving, given(call),
                                  memory_order_relaxed);
    else
        call->result = PGSHARE_ERR_OWED;
    pgs_mutex_unlock(&host->domains_lock);
    return !call->result;
}

static enum pgs_verdict exchange(struct pgs_call *call)
{
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RESERVE,
        .count = 1,
        .arg = call->count,
    };

    if (!(call->host->info.ops >> PGSHARE_OP_RESERVE & 1)) {
        call->result = PGSHARE_ERR_NOTSUP;
        return PGS_DONE;
    }
    return may_leave(call) ? pgs_call_submit(call, &op, exchanged) : PGS_DONE;
}

struct pgs_call *pgs_exchange_take(struct pgshare_host *host, int64_t frames)
{
    struct pgs_call *call = pgs_call_take(host, NULL, exchange);

    if (!call)
        return NULL;
    call->reserve = 0;
    call->count = (uint64_t)frames;
    return call;
}

int pgs_reserve_exchange(struct pgshare_host *host, int64_t frames,
                         uint64_t timeout, int64_t *ret_got)
{
    struct pgs_call *call = pgs_exchange_take(host, frames);
    uint64_t token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    call->timeout = timeout;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    *ret_got = call->reserve;
    pgs_call_give(call);
    return r;
}

/* ---- the runner -------------------------------------------------------- */

/* No claim is granted on a count in doubt (ledger.c). */
static void end_recount(struct pgshare_host *host, uint64_t difference)
{
    uint32_t asked = PGS_RECOUNT_ASKED;

    pgs_count(&host->shards, PGS_LEVEL_RESERVE, difference);
    atomic_compare_exchange_strong_explicit(&host->recount, &asked, 0,
                                            memory_order_release,
                                            memory_order_relaxed);
}

static enum pgs_verdict recounted(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    uint64_t level = pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE);

    /* other calls make the answer useless, also those that have ended */
    if (!call->status[0] && pgs_calls_busy(host) == 1 &&
        pgs_shards_sum(&host->shards, PGS_COUNT_BACKEND_OPS) == call->count)
        end_recount(host, call->ids[0] - level);
    else
        atomic_store_explicit(&host->recount, PGS_RECOUNT_WANTED,
                              memory_order_relaxed);
    return PGS_DONE;
}

/* An exchange of nothing, which answers with the level. Calls that have begun
 * since it was launched may have operations under way, which `recounted` would
 * not see any more. */
static enum pgs_verdict recount(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    struct pgshare_op op = { .kind = PGSHARE_OP_RESERVE, .count = 1 };

    call->count = pgs_shards_sum(&host->shards, PGS_COUNT_BACKEND_OPS) + 1;
    if (pgs_calls_busy(host) == 1)
        return pgs_call_submit(call, &op, recounted);
    atomic_store_explicit(&host->recount, PGS_RECOUNT_WANTED,
                          memory_order_relaxed);
    return PGS_DONE;
}

static void launch_recount(struct pgshare_host *host)
{
    struct pgs_call *call;

    if (pgs_calls_busy(host) ||
        !(host->info.ops >> PGSHARE_OP_RESERVE & 1))
        return;
    call = pgs_call_take(host, NULL, recount);
    if (!call)
        return;
    atomic_store_explicit(&host->recount, PGS_RECOUNT_ASKED,
                          memory_order_relaxed);
    pgs_call_launch(call);
}

/*
 * What was written off, or handed out for breaks that were not told yet, is
 * forgotten once the reserve has made up for it: else it would hide another
 * shortage. The audit does the same, but nobody need ask for one.
 */
static void forget_agreed(struct pgshare_host *host)
{
    int64_t lost = atomic_load_explicit(&host->written_off,
                                        memory_order_relaxed);
    int64_t lent = atomic_load_explicit(&host->advanced, memory_order_relaxed);

    if ((!lost && !lent) || !pgs_ledger_is_covered(host) ||
        pgs_calls_busy(host))
        return;
    /* but not what has come meanwhile */
    atomic_compare_exchange_strong_explicit(&host->written_off, &lost, 0,
                                            memory_order_relaxed,
                                            memory_order_relaxed);
    atomic_compare_exchange_strong_explicit(&host->advanced, &lent, 0,
                                            memory_order_relaxed,
                                            memory_order_relaxed);
}

/* Frames that neither the books nor the embedder want held. */
static int64_t spare_frames(struct pgshare_host *host)
{
    uint64_t keep = host->options.reserve_keep;
    uint64_t wish =
        atomic_load_explicit(&host->reserve_wish, memory_order_relaxed);
    uint64_t reserve = pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE);

    if (keep != PGSHARE_RESERVE_KEEP_ALL && keep > wish)
        wish = keep;
    if (wish >= reserve)
        return 0;
    return (int64_t)(reserve - pgs_ledger_need(host) - wish);
}

/* Frames that the books want held, and that are not there. */
static int64_t missing_frames(struct pgshare_host *host)
{
    int64_t missing = (int64_t)pgs_ledger_need(host) -
                      pgs_reserve_at_hand(host);

    return missing > 0 ? missing : 0;
}

static void set_due(struct pgshare_host *host, uint64_t pause)
{
    atomic_store_explicit(&host->refill_due, pgs_now(&host->platform) + pause,
                          memory_order_relaxed);
}

void pgs_reserve_put_off(struct pgshare_host *host)
{
    set_due(host, host->options.op_timeout_ns);
}

uint64_t pgs_reserve_due(struct pgshare_host *host)
{
    bool recount = atomic_load_explicit(&host->recount, memory_order_relaxed);

    if (!(host->info.ops >> PGSHARE_OP_RESERVE & 1) ||
        (!recount && !missing_frames(host)))
        return PGSHARE_FOREVER;
    if (recount || pgs_calls_busy(host)) /* they have to wait for others */
        return pgs_now(&host->platform) + REFILL_FIRST_NS;
    return atomic_load_explicit(&host->refill_due, memory_order_relaxed);
}

static void note_refill(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    uint64_t pause = 2 * host->refill_pause;

    if (!call->result)
        pause = 0;
    else if (pause < REFILL_FIRST_NS)
        pause = REFILL_FIRST_NS;
    else if (pause > REFILL_LAST_NS)
        pause = REFILL_LAST_NS;
    host->refill_pause = pause;
    set_due(host, pause);
}

static void refill(struct pgshare_host *host)
{
    uint64_t due = atomic_load_explicit(&host->refill_due,
                                        memory_order_relaxed);
    int64_t missing = missing_frames(host);
    struct pgs_call *call;

    if (!missing || pgs_now(&host->platform) < due)
        return;
    call = pgs_exchange_take(host, missing);
    if (!call)
        return;
    call->finish = note_refill;
    pgs_call_launch(call);
}

void pgs_reserve_balance(struct pgshare_host *host)
{
    struct pgs_call *call;
    int64_t spare;

    if (atomic_load_explicit(&host->recount, memory_order_relaxed)) {
        launch_recount(host);
        return;
    }
    if (!(host->info.ops >> PGSHARE_OP_RESERVE & 1) || pgs_calls_busy(host))
        return;
    forget_agreed(host);
    refill(host);
    /* the reserve is read before what is owed, so that a call which comes and
     * goes in between makes the difference too small, never too large */
    spare = spare_frames(host);
    if (spare <= 0 || pgs_calls_busy(host))
        return;
    call = pgs_exchange_take(host, -spare);
    if (call)
        pgs_call_launch(call);
}
