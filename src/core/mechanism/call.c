/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls: the pool, the answers of the backend, the drivers. See call.h for the
 * idea.
 *
 * Tokens. Each operation has a token of its own, serial << 17 | index << 1:
 * the index finds the call, the serial grows with every operation of that
 * call, so that an answer which comes late, or twice, finds another value in
 * the gate and is turned away. Bit 0 of the gate is set by the thread that is
 * copying an answer in; it is held for a few hundred instructions at the most,
 * and waited for by spinning.
 *
 * Waiting. A driver that has nothing to do lets the backend deliver what it
 * has (flush, poll), and then sleeps on the host's channel, a millisecond of
 * real time at the most, so that clocks which are not the real one work too.
 */
#include "mechanism/call.h"

#include "mechanism/host.h"

#include <sched.h>
#include <string.h>

#define INDEX_BITS 16
#define WRITING UINT64_C(1)
#define NAP_NS UINT64_C(1000000)

static uint32_t token_index(uint64_t token)
{
    return (uint32_t)(token >> 1) & ((1u << (INDEX_BITS - 1)) - 1);
}

static uint64_t next_token(struct pgs_call *call)
{
    call->serial++;
    return call->serial << INDEX_BITS | (uint64_t)call->index << 1;
}

/* ---- the pool ---------------------------------------------------------- */

int pgs_calls_init(struct pgshare_host *host, uint32_t size)
{
    struct pgs_calls *calls = &host->calls;
    int r;

    assert(size > 0 && size <= 1u << (INDEX_BITS - 1));
    r = pgs_mutex_init(&calls->lock, PGS_RANK_CALLS);
    if (r)
        return r;
    calls->pool = PGS_NEW_N(&host->heap, struct pgs_call, size);
    if (!calls->pool)
        return PGSHARE_ERR_NOMEM;
    calls->size = size;
    for (uint32_t i = size; i-- > 0;) {
        struct pgs_call *call = &calls->pool[i];

        call->host = host;
        call->index = i;
        call->next = calls->free;
        calls->free = call;
    }
    return 0;
}

void pgs_calls_fini(struct pgshare_host *host)
{
    PGS_FREE_N(&host->heap, host->calls.pool, host->calls.size);
    host->calls.pool = NULL;
    pgs_mutex_fini(&host->calls.lock);
}

/* The place for a free call of this thread's shard, which the shard's owner
 * alone fills, and anybody may empty. */
static struct pgs_call *_Atomic *my_cache(struct pgshare_host *host,
                                          bool *ret_owned)
{
    struct pgs_shard *shard = pgs_shard_mine(&host->shards, ret_owned);

    return &host->calls.cache[shard - host->shards.shard].call;
}

static bool put_into_cache(struct pgs_call *call)
{
    bool owned;
    struct pgs_call *_Atomic *cache = my_cache(call->host, &owned);

    if (!owned || atomic_load_explicit(cache, memory_order_relaxed))
        return false;
    atomic_store_explicit(cache, call, memory_order_release);
    return true;
}

struct pgs_call *pgs_call_take(struct pgshare_host *host,
                               struct pgs_domain *domain, pgs_step first)
{
    struct pgs_calls *calls = &host->calls;
    bool owned;
    struct pgs_call *call = atomic_exchange_explicit(
        my_cache(host, &owned), NULL, memory_order_acquire);

    if (!call) {
        pgs_mutex_lock(&calls->lock);
        call = calls->free;
        if (call)
            calls->free = call->next;
        pgs_mutex_unlock(&calls->lock);
    }
    for (uint32_t i = 0; !call && i < PGS_SHARDS; i++)
        call = atomic_exchange_explicit(&calls->cache[i].call, NULL,
                                        memory_order_acquire);
    if (!call)
        return NULL;
    assert(call->owner == PGS_OWNER_NONE);
    call->step = first;
    atomic_store_explicit(&call->owner, PGS_OWNER_CALLER,
                          memory_order_release);
    atomic_store_explicit(&call->domain, domain, memory_order_release);
    return call;
}

/* Back to how the pool has them: all zero from `kind` on, but the serial. */
static void reset(struct pgs_call *call)
{
    call->kind = 0;
    call->token = 0;
    call->resume = NULL;
    call->result = 0;
    call->flags = 0;
    call->cookie = NULL;
    call->timeout = 0;
    call->op_since = 0;
    atomic_store_explicit(&call->domain, NULL, memory_order_relaxed);
    atomic_store_explicit(&call->peer, NULL, memory_order_relaxed);
    call->gfn = call->count = call->done = 0;
    call->outcome = call->payer = call->intent = 0;
    call->victim = NULL;
    call->tries = 0;
    call->pushed = 0;
    call->extent = NULL;
    call->finish = NULL;
    call->born_ns = 0;
    atomic_store_explicit(&call->owner, PGS_OWNER_NONE, memory_order_release);
}

void pgs_call_give(struct pgs_call *call)
{
    struct pgs_calls *calls = &call->host->calls;

    assert(!atomic_load_explicit(&call->gate, memory_order_relaxed));
    reset(call);
    if (put_into_cache(call))
        return;
    pgs_mutex_lock(&calls->lock);
    call->next = calls->free;
    calls->free = call;
    pgs_mutex_unlock(&calls->lock);
}

/* ---- operations and their answers -------------------------------------- */

static void end_answer(struct pgs_call *call)
{
    bool is_inline =
        atomic_load_explicit(&call->submitter, memory_order_relaxed) ==
        (uintptr_t)pthread_self();
    struct pgshare_host *host = call->host;

    atomic_store_explicit(&call->answered, 1, memory_order_release);
    atomic_store_explicit(&call->gate, 0, memory_order_release);
    if (!is_inline) /* else the driver looks by itself */
        pgs_channel_notify(&host->channel);
}

/* Claims the gate for `token`; false: it is not (any more) awaited. */
static bool claim(struct pgs_call *call, uint64_t token)
{
    uint64_t seen = token;

    while (!atomic_compare_exchange_weak_explicit(
        &call->gate, &seen, token | WRITING, memory_order_acquire,
        memory_order_relaxed)) {
        if (seen != token && seen != (token | WRITING))
            return false;
        if (seen != token)
            sched_yield();
        seen = token;
    }
    return true;
}

/* Gate claimed. What has no answer yet says so from now on; most operations
 * are answered whole, and never come here. */
static void set_pending(struct pgs_call *call)
{
    if (call->pending)
        return;
    memset(call->status, PGS_PENDING, call->op.count);
    call->pending = true;
}

/* All pages at once, and all well: the usual answer. */
static void fill_whole(struct pgs_call *call,
                       const struct pgshare_completion *c)
{
    call->left = 0;
    call->clean = true;
    if (c->count == 1) {
        call->status[0] = 0;
        if (call->ids)
            call->ids[0] = c->ids ? c->ids[0] : 0;
        return;
    }
    memset(call->status, 0, c->count);
    if (c->ids)
        memcpy(call->ids, c->ids, c->count * sizeof(*c->ids));
    else if (call->ids)
        memset(call->ids, 0, c->count * sizeof(*call->ids));
}

/* All pages at once, each with a status of its own. */
static void fill_statuses(struct pgs_call *call,
                          const struct pgshare_completion *c)
{
    call->left = 0;
    for (uint32_t i = 0; i < c->count; i++)
        call->status[i] = c->status[i] == PGS_PENDING ? PGSHARE_ERR_BACKEND
                                                      : c->status[i];
    if (c->ids && call->ids)
        memcpy(call->ids, c->ids, c->count * sizeof(*c->ids));
    else if (call->ids)
        memset(call->ids, 0, c->count * sizeof(*call->ids));
}

static bool fill(struct pgs_call *call, const struct pgshare_completion *c)
{
    bool whole = !c->result && call->left == call->op.count &&
                 c->count == call->left;
    bool twice = false;

    if (whole && !c->status) {
        fill_whole(call, c);
        return true;
    }
    if (whole) {
        fill_statuses(call, c);
        return true;
    }
    set_pending(call);
    for (uint32_t i = 0; i < c->count; i++) {
        uint32_t page = c->first + i;

        if (call->status[page] != PGS_PENDING) {
            twice = true;
            continue;
        }
        call->status[page] = c->status ? c->status[i] : (int8_t)c->result;
        if (call->status[page] == PGS_PENDING)
            call->status[page] = PGSHARE_ERR_BACKEND;
        if (call->ids)
            call->ids[page] = c->ids ? c->ids[i] : 0;
        call->left--;
    }
    return !twice;
}

void pgs_call_complete(void *ctx, const struct pgshare_completion *c)
{
    struct pgshare_host *host = ctx;
    uint32_t index = token_index(c->token);
    struct pgs_call *call;

    if (c->token & WRITING || !c->token || index >= host->calls.size) {
        pgs_backend_error(host);
        return;
    }
    call = &host->calls.pool[index];
    if (!claim(call, c->token)) {
        /* what we have given up may be answered yet */
        if (atomic_load_explicit(&call->given_up, memory_order_acquire) !=
            c->token)
            pgs_backend_error(host);
        return;
    }
    if (c->first > call->op.count || c->count > call->op.count - c->first ||
        !fill(call, c))
        pgs_backend_error(host);
    call->seq = c->seq;
    call->reserve += c->reserve;
    if (c->reserve)
        pgs_count(&host->shards, PGS_LEVEL_RESERVE, (uint64_t)c->reserve);
    if (call->left)
        atomic_store_explicit(&call->gate, c->token, memory_order_release);
    else
        end_answer(call);
}

/* Answers what is still open with `error`, in place of the backend. */
static void answer_all(struct pgs_call *call, uint64_t token, int error)
{
    if (!claim(call, token))
        return;
    atomic_store_explicit(&call->given_up, token, memory_order_relaxed);
    set_pending(call);
    for (uint32_t i = 0; i < call->op.count; i++)
        if (call->status[i] == PGS_PENDING)
            call->status[i] = (int8_t)error;
    call->left = 0;
    end_answer(call);
}

uint32_t pgs_calls_busy(struct pgshare_host *host)
{
    uint32_t busy = 0;

    for (uint32_t i = 0; i < host->calls.size; i++)
        busy += atomic_load_explicit(&host->calls.pool[i].owner,
                                     memory_order_seq_cst) != PGS_OWNER_NONE;
    return busy;
}

bool pgs_call_withdraw(struct pgs_call *call)
{
    uint64_t gate = atomic_load_explicit(&call->gate, memory_order_acquire);

    if (!gate || !claim(call, gate & ~WRITING))
        return false;
    atomic_store_explicit(&call->given_up, gate & ~WRITING,
                          memory_order_release);
    atomic_store_explicit(&call->gate, 0, memory_order_release);
    return true;
}

void pgs_call_abandon(struct pgs_call *call, int error)
{
    uint64_t gate = atomic_load_explicit(&call->gate, memory_order_acquire);

    if (gate)
        answer_all(call, gate & ~WRITING, error);
}

static bool concerns(struct pgs_call *call, struct pgs_domain *domain)
{
    return atomic_load_explicit(&call->domain, memory_order_acquire) ==
               domain ||
           atomic_load_explicit(&call->peer, memory_order_acquire) == domain ||
           atomic_load_explicit(&call->victim, memory_order_acquire) == domain;
}

/* What is lost is the domain that the operation works on, not one that it
 * only names. */
static bool is_gone(struct pgs_call *call, const struct pgshare_op *op)
{
    struct pgs_domain *domain = call->domain, *peer = call->peer;
    struct pgs_domain *victim = call->victim;
    const uint32_t lost = PGS_DOMAIN_DYING | PGS_DOMAIN_GONE;

    if (!op->domain)
        return false;
    return (domain && domain->cookie == op->domain &&
            pgs_domain_flags(domain) & lost) ||
           (peer && peer->cookie == op->domain &&
            pgs_domain_flags(peer) & lost) ||
           (victim && victim->cookie == op->domain &&
            pgs_domain_flags(victim) & lost);
}

/* What moves mappings of other domains, too, is not given up with its own. */
static bool is_cancellable(const struct pgshare_host *host,
                           const struct pgshare_op *op)
{
    return op->kind != PGSHARE_OP_MAP ||
           !(host->info.caps & PGSHARE_CAP_MAP_MOVES_FRAME);
}

/* From here on the operation may be answered. */
static void arm(struct pgs_call *call, struct pgshare_op *op, pgs_step next,
                int8_t *status, uint64_t *ids)
{
    op->token = next_token(call);
    call->op = *op;
    atomic_store_explicit(&call->op_domain,
                          is_cancellable(call->host, op) ? op->domain : NULL,
                          memory_order_relaxed);
    call->status = status;
    call->ids = ids;
    call->left = op->count;
    call->reserve = 0;
    call->seq = 0;
    call->op_since = 0;
    call->step = next;
    call->pending = false;
    call->clean = false;
    atomic_store_explicit(&call->answered, 0, memory_order_relaxed);
    atomic_store_explicit(&call->gate, op->token, memory_order_release);
}

enum pgs_verdict pgs_call_submit_into(struct pgs_call *call,
                                      struct pgshare_op *op, pgs_step next,
                                      int8_t *status, uint64_t *ids)
{
    struct pgshare_host *host = call->host;
    int r;

    assert(op->count > 0 && op->count <= PGSHARE_EXTENT_MAX);
    pgs_lock_assert_none();
    arm(call, op, next, status, ids);
    pgs_count(&host->shards, PGS_COUNT_BACKEND_OPS, 1);
    atomic_store_explicit(&call->submitter, (uintptr_t)pthread_self(),
                          memory_order_relaxed);
    r = is_gone(call, op) ? PGSHARE_ERR_GONE
                          : host->backend->ops->submit(host->backend, op, 1);
    if (r)
        answer_all(call, op->token, r < 0 ? r : PGSHARE_ERR_BACKEND);
    atomic_store_explicit(&call->submitter, 0, memory_order_relaxed);
    return atomic_load_explicit(&call->answered, memory_order_acquire)
               ? PGS_NEXT
               : PGS_WAIT_OP;
}

enum pgs_verdict pgs_call_submit(struct pgs_call *call, struct pgshare_op *op,
                                 pgs_step next)
{
    assert(op->count <= PGS_INLINE);
    return pgs_call_submit_into(call, op, next, call->status1, call->ids1);
}

enum pgs_verdict pgs_call_lose(struct pgs_call *call, pgs_step next)
{
    struct pgshare_op op = call->op;

    arm(call, &op, next, call->status, call->ids);
    return PGS_WAIT_OP;
}

/* The domain leaves, and operations with it that may be done yet. */
static void note_left(struct pgs_domain *domain)
{
    if (pgs_domain_flags(domain) & PGS_DOMAIN_DYING &&
        !(atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_LEFT,
                                   memory_order_acq_rel) &
          PGS_DOMAIN_LEFT))
        atomic_fetch_add_explicit(&domain->host->n_left, 1,
                                  memory_order_release);
}

/* An operation on a page of a domain that is lost never reaches the backend;
 * what the backend still has is answered for it. */
bool pgs_calls_cancel(struct pgshare_host *host, struct pgs_domain *domain)
{
    bool concerned = false;

    for (uint32_t i = 0; i < host->calls.size; i++) {
        struct pgs_call *call = &host->calls.pool[i];
        uint64_t gate;

        if (!concerns(call, domain))
            continue;
        concerned = true;
        gate = atomic_load_explicit(&call->gate, memory_order_acquire);
        if (!gate || atomic_load_explicit(&call->op_domain,
                                          memory_order_relaxed) !=
                         domain->cookie)
            continue;
        /* it may have been done, or be done yet, and change the reserve */
        atomic_store_explicit(&host->recount, PGS_RECOUNT_WANTED,
                              memory_order_relaxed);
        note_left(domain);
        answer_all(call, gate & ~WRITING, PGSHARE_ERR_GONE);
    }
    return concerned;
}

/* ---- drivers ----------------------------------------------------------- */

static bool is_joining(struct pgs_call *call)
{
    struct pgs_frames *frames = &call->host->frames;
    bool joining;

    pgs_frame_lock(frames, call->frame);
    joining = pgs_frame_at(frames, call->frame)->flags & PGS_FRAME_JOINING;
    pgs_frame_unlock(frames, call->frame);
    return joining;
}

static bool is_lost(struct pgs_call *call)
{
    return pgs_domain_flags(call->domain) &
           (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE);
}

static bool is_frame_there(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;

    return pgs_reserve_at_hand(host) > 0 ||
           pgs_now(&host->platform) >= call->again_ns || is_lost(call);
}

static bool is_page_free(struct pgs_call *call)
{
    return !(atomic_load_explicit(pgs_word_at(&call->host->chunks, call->waits),
                                  memory_order_acquire) &
             PGS_BUSY);
}

static bool is_calm(struct pgs_call *call)
{
    return is_page_free(call) ||
           pgs_now(&call->host->platform) >= call->again_ns || is_lost(call);
}

static bool is_ready(struct pgs_call *call)
{
    switch (call->verdict) {
    case PGS_WAIT_OP:
        return atomic_load_explicit(&call->answered, memory_order_acquire);
    case PGS_WAIT_PAGE:
        return is_page_free(call);
    case PGS_WAIT_CALM:
        return is_calm(call);
    case PGS_WAIT_HARVEST:
        return !atomic_load_explicit(&call->harvest->harvesting,
                                     memory_order_acquire);
    case PGS_WAIT_JOIN:
        return !is_joining(call);
    case PGS_WAIT_FRAME:
        return is_frame_there(call);
    default:
        return true;
    }
}

/* Runs steps until the call is done or has to wait. */
static bool advance(struct pgs_call *call)
{
    if (!is_ready(call))
        return false;
    do {
        call->verdict = call->step(call);
    } while (call->verdict == PGS_NEXT);
    return call->verdict == PGS_DONE;
}

static void nap(struct pgs_call *call, uint64_t ns)
{
    struct pgshare_host *host = call->host;
    uint32_t seen = pgs_channel_prepare(&host->channel);

    if (is_ready(call))
        pgs_channel_cancel(&host->channel);
    else
        pgs_channel_wait(&host->channel, seen, ns);
}

void pgs_host_poll_backend(struct pgshare_host *host)
{
    const struct pgshare_backend_ops *ops = host->backend->ops;

    if (ops->flush)
        ops->flush(host->backend);
    if (ops->poll)
        ops->poll(host->backend);
}

static void hand_over(struct pgs_call *call)
{
    struct pgs_calls *calls = &call->host->calls;

    atomic_store_explicit(&call->owner, PGS_OWNER_RUNNER,
                          memory_order_release);
    pgs_mutex_lock(&calls->lock);
    call->next = calls->running;
    calls->running = call;
    atomic_fetch_add_explicit(&calls->n_running, 1, memory_order_relaxed);
    pgs_mutex_unlock(&calls->lock);
    pgs_wake(call->host);
}

bool pgs_call_drive(struct pgs_call *call, uint64_t *ret_token)
{
    struct pgshare_host *host = call->host;
    uint64_t start, spent = 0;

    if (advance(call))
        return true;
    start = pgs_now(&host->platform);
    while (spent < call->timeout) {
        uint64_t left = call->timeout - spent;

        pgs_host_poll_backend(host);
        if (!is_ready(call))
            nap(call, left < NAP_NS ? left : NAP_NS);
        if (advance(call))
            return true;
        pgs_call_expire(call, pgs_now(&host->platform));
        spent = pgs_now(&host->platform) - start;
    }
    call->token = next_token(call);
    *ret_token = call->token;
    hand_over(call);
    return false;
}

void pgs_call_launch(struct pgs_call *call)
{
    assert(call->owner == PGS_OWNER_CALLER);
    call->verdict = PGS_NEXT;
    hand_over(call);
}

void pgs_call_deliver(struct pgs_call *call, const uint64_t *tickets)
{
    struct pgshare_host *host = call->host;
    struct pgs_domain *domain = call->domain;
    struct pgshare_outcome outcome = {
        .size = sizeof(outcome),
        .token = call->token,
        .cookie = call->cookie,
        .kind = call->kind,
        .result = call->result,
        .dom = domain ? domain->handle : 0,
        .gfn = call->gfn,
        .count = call->count,
        .done = call->done,
        .fault = call->outcome,
        .tickets = tickets,
    };

    pgs_lock_assert_none();
    if (host->options.outcome && call->token)
        host->options.outcome(host->options.ctx, &outcome);
}

/* Takes a call that is done out of the list. The runner alone unlinks; others
 * only push in front. */
static void unlink_call(struct pgs_calls *calls, struct pgs_call *call)
{
    struct pgs_call **link = &calls->running;

    pgs_mutex_lock(&calls->lock);
    while (*link != call)
        link = &(*link)->next;
    *link = call->next;
    atomic_fetch_sub_explicit(&calls->n_running, 1, memory_order_relaxed);
    pgs_mutex_unlock(&calls->lock);
}

uint32_t pgs_calls_run(struct pgshare_host *host, struct pgs_domain *only)
{
    struct pgs_calls *calls = &host->calls;
    struct pgs_call *call, *next;
    uint32_t ended = 0;

    if (!atomic_load_explicit(&calls->n_running, memory_order_relaxed))
        return 0;
    pgs_mutex_lock(&calls->lock);
    call = calls->running;
    pgs_mutex_unlock(&calls->lock);
    for (; call; call = next) {
        next = call->next;
        if (only && !concerns(call, only))
            continue;
        if (!advance(call))
            continue;
        unlink_call(calls, call);
        if (call->finish)
            call->finish(call);
        else
            pgs_call_deliver(call, NULL);
        pgs_call_give(call);
        ended++;
    }
    return ended;
}

void pgs_calls_abandon(struct pgshare_host *host)
{
    for (uint32_t rounds = 0; rounds < 1000; rounds++) {
        for (uint32_t i = 0; i < host->calls.size; i++)
            pgs_call_abandon(&host->calls.pool[i], PGSHARE_ERR_INPROGRESS);
        pgs_calls_run(host, NULL);
        if (!atomic_load_explicit(&host->calls.n_running,
                                  memory_order_relaxed))
            return;
    }
}
