/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bonus pages: claimed, and handed back.
 *
 *   claim:  lock all ─ enter the books ─ GRANT by extents ─┬ all ─→ commit
 *                                                          └ DISCARD those had
 *   return: lock all ─ DISCARD by extents, each off the books ─→ holes
 *
 * A claim is all or nothing. So the words of all its GFNs stay BUSY until the
 * last frame is there; a page that has got its frame is told by its BONUS
 * attribute. If a frame cannot be had, those that were come back. Should even
 * that fail, they stay, and the claim with them: the books say what is.
 *
 * Where the embedder populates (PGS_BONUS_CHARGE) there are no words, and
 * GRANT only moves the domain's allowance; its reverse undoes it.
 *
 * Extents are as long as the backend takes them if there is memory for their
 * answers, else as long as fits into the call; nothing fails for want of it.
 */
#include "mechanism/ledger.h"

#include "mechanism/extent.h"
#include "mechanism/page.h"

/* ---- common ------------------------------------------------------------ */

static _Atomic uint64_t *word_of(struct pgs_call *call, uint64_t i)
{
    return pgs_word_of(call->domain, call->gfn + i);
}

static bool is_charge(const struct pgs_call *call)
{
    return call->flags & PGS_BONUS_CHARGE;
}

static uint32_t room(const struct pgs_call *call)
{
    uint32_t most = call->host->info.extent_max;

    if (call->extent)
        return call->extent->count;
    return most < PGS_INLINE ? most : PGS_INLINE;
}

static uint32_t cut(const struct pgs_call *call, uint64_t count)
{
    return count < room(call) ? (uint32_t)count : room(call);
}

static bool is_lost(struct pgs_call *call)
{
    return pgs_domain_flags(call->domain) &
           (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE);
}

/* One operation on the `n` pages from the i-th on. */
static enum pgs_verdict submit(struct pgs_call *call, uint32_t kind, uint64_t i,
                               uint32_t n, pgs_step next)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = kind,
        .domain = domain->cookie,
        .gfn = call->gfn + i,
        .count = n,
    };

    if (is_charge(call)) {
        op.gfn = 0;
        op.kind = PGSHARE_OP_GRANT;
        op.flags = PGSHARE_OP_CHARGE;
        if (kind == PGSHARE_OP_DISCARD)
            op.flags |= PGSHARE_OP_OFF;
    }
    if (!call->extent)
        return pgs_call_submit(call, &op, next);
    return pgs_call_submit_into(call, &op, next, call->extent->status,
                                call->extent->ids);
}

/* Pages of the last operation that succeeded; its first error in *ret. */
static uint32_t succeeded(const struct pgs_call *call, int *ret)
{
    uint32_t n = 0;

    *ret = 0;
    for (uint32_t i = 0; i < call->op.count; i++) {
        if (!call->status[i])
            n++;
        else if (!*ret)
            *ret = call->status[i];
    }
    return n;
}

static void unlock_range(struct pgs_call *call, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to && !is_charge(call); i++)
        pgs_page_unlock(call->host, pgs_page_of(call->domain, call->gfn + i));
}

/* Takes BUSY of all pages, if `fit` finds nothing wrong with any. */
static int lock_range(struct pgs_call *call, int (*fit)(uint64_t word))
{
    for (uint64_t i = 0; i < call->count && !is_charge(call); i++) {
        uint64_t word;
        int r;

        if (!pgs_word_trylock(word_of(call, i), false, &word)) {
            unlock_range(call, 0, i);
            return PGSHARE_ERR_BUSY;
        }
        r = fit(word);
        if (r) {
            unlock_range(call, 0, i + 1);
            return r;
        }
    }
    return 0;
}

static enum pgs_verdict end(struct pgs_call *call, int result)
{
    call->result = result;
    return PGS_DONE;
}

/* ---- claim ------------------------------------------------------------- */

static enum pgs_verdict grant(struct pgs_call *call);
static enum pgs_verdict take_back(struct pgs_call *call);

static int is_hole(uint64_t word)
{
    return pgs_word_state(word) == PGS_HOLE ? 0 : PGSHARE_ERR_EXISTS;
}

static bool is_had(struct pgs_call *call, uint64_t i)
{
    return atomic_load_explicit(word_of(call, i), memory_order_relaxed) &
           PGS_ATTR_BONUS;
}

/* Pages that have their frame become the domain's, others stay holes. */
static void commit_claim(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    uint64_t had = 0;

    for (uint64_t i = 0; i < call->count; i++) {
        uint32_t page = pgs_page_of(domain, call->gfn + i);

        if (!is_had(call, i)) {
            pgs_page_unlock(call->host, page);
            continue;
        }
        pgs_count(&call->host->shards, PGS_LEVEL_TRACKED, 1);
        pgs_page_privatise(call->host, page, PGS_ATTR_READONLY);
        had++;
    }
    call->done = had;
}

static enum pgs_verdict end_claim(struct pgs_call *call)
{
    if (!is_charge(call))
        commit_claim(call);
    if (call->done < call->count)
        pgs_bonus_book(call->domain, (int64_t)(call->done - call->count),
                       is_charge(call));
    return PGS_DONE;
}

static enum pgs_verdict taken_back(struct pgs_call *call)
{
    uint64_t first = call->op.gfn - call->gfn;
    int error;
    uint32_t n = succeeded(call, &error);

    if (is_charge(call)) {
        call->done -= n;
        return error ? end_claim(call) : take_back(call);
    }
    for (uint32_t i = 0; i < call->op.count; i++)
        if (!call->status[i])
            atomic_fetch_and_explicit(word_of(call, first + i), ~PGS_ATTR_BONUS,
                                      memory_order_relaxed);
    call->done = first;
    return error ? end_claim(call) : take_back(call);
}

/* Gives frames back that were had in vain: the last run of such pages below
 * the first `done`. */
static enum pgs_verdict take_back(struct pgs_call *call)
{
    uint32_t n = 0;

    if (is_charge(call)) {
        n = cut(call, call->done);
        return n ? submit(call, PGSHARE_OP_DISCARD, 0, n, taken_back)
                 : end_claim(call);
    }
    while (call->done && !is_had(call, call->done - 1))
        call->done--;
    while (n < cut(call, call->done) && is_had(call, call->done - n - 1))
        n++;
    return n ? submit(call, PGSHARE_OP_DISCARD, call->done - n, n, taken_back)
             : end_claim(call);
}

static enum pgs_verdict granted(struct pgs_call *call)
{
    uint64_t first = call->done;
    int error;
    uint32_t n = succeeded(call, &error);

    for (uint32_t i = 0; i < call->op.count && !is_charge(call); i++)
        if (!call->status[i])
            atomic_fetch_or_explicit(word_of(call, first + i), PGS_ATTR_BONUS,
                                     memory_order_relaxed);
    call->done += is_charge(call) ? n : call->op.count;
    if (!error)
        return grant(call);
    call->result = error;
    return take_back(call);
}

static enum pgs_verdict grant(struct pgs_call *call)
{
    if (call->done == call->count)
        return end_claim(call);
    return submit(call, PGSHARE_OP_GRANT, call->done,
                  cut(call, call->count - call->done), granted);
}

static enum pgs_verdict enter(struct pgs_call *call);

/* What sharing freed does not bring the frame that is lent to last breaks: the
 * machine has to. */
static enum pgs_verdict borrow(struct pgs_call *call)
{
    struct pgshare_op op = {
        .kind = PGSHARE_OP_RESERVE,
        .count = 1,
        .arg = 1,
    };

    call->tries++;
    return pgs_call_submit(call, &op, enter);
}

static enum pgs_verdict claim(struct pgs_call *call)
{
    int r;

    if (is_lost(call))
        return end(call, PGSHARE_ERR_GONE);
    r = lock_range(call, is_hole);
    return r ? end(call, r) : enter(call);
}

static enum pgs_verdict enter(struct pgs_call *call)
{
    struct pgshare_host *host = call->host;
    int r = pgs_bonus_enter(call->domain, call->count, is_charge(call));

    if (r == PGSHARE_ERR_NOFRAME && !call->tries && pgs_ledger_loan(host) &&
        host->info.ops >> PGSHARE_OP_RESERVE & 1)
        return borrow(call);
    if (r) {
        unlock_range(call, 0, call->count);
        return end(call, r);
    }
    return grant(call);
}

/* ---- return ------------------------------------------------------------ */

static enum pgs_verdict discard(struct pgs_call *call);

static int may_return(uint64_t word)
{
    if (pgs_word_state(word) != PGS_PRIVATE ||
        word & (PGS_ATTR_VOLATILE | PGS_ATTR_READONLY))
        return PGSHARE_ERR_STATE;
    return word & PGS_ATTR_HELD ? PGSHARE_ERR_BUSY : 0;
}

static bool has_claimed(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    uint64_t claimed;

    pgs_mutex_lock(&domain->lock);
    claimed = is_charge(call) ? domain->charged
                              : domain->claimed - domain->charged;
    pgs_mutex_unlock(&domain->lock);
    return call->count <= claimed;
}

static void commit_return(struct pgs_call *call, uint64_t first)
{
    for (uint32_t i = 0; i < call->op.count; i++) {
        uint32_t page = pgs_page_of(call->domain, call->gfn + first + i);

        if (call->status[i]) {
            pgs_page_unlock(call->host, page);
            continue;
        }
        pgs_count(&call->host->shards, PGS_LEVEL_TRACKED, (uint64_t)-1);
        pgs_page_commit(call->host, page, PGS_HOLE,
                        PGS_ATTR_FREE | PGS_ATTR_SCRUB | PGS_ATTR_OVERWRITE |
                            PGS_ATTR_BONUS,
                        0);
    }
}

static enum pgs_verdict discarded(struct pgs_call *call)
{
    uint64_t first = call->done;
    int error;
    uint32_t n = succeeded(call, &error);

    pgs_bonus_book(call->domain, -(int64_t)n, is_charge(call));
    if (!is_charge(call))
        commit_return(call, first);
    call->done += n;
    if (!error)
        return discard(call);
    unlock_range(call, first + call->op.count, call->count);
    return end(call, error);
}

static enum pgs_verdict discard(struct pgs_call *call)
{
    if (call->done == call->count)
        return end(call, 0);
    return submit(call, PGSHARE_OP_DISCARD, call->done,
                  cut(call, call->count - call->done), discarded);
}

static enum pgs_verdict hand_back(struct pgs_call *call)
{
    int r;

    if (is_lost(call))
        return end(call, PGSHARE_ERR_GONE);
    if (!has_claimed(call))
        return end(call, PGSHARE_ERR_STATE);
    r = lock_range(call, may_return);
    return r ? end(call, r) : discard(call);
}

/* ---- the calls --------------------------------------------------------- */

static void free_room(struct pgs_call *call)
{
    pgs_extent_free(call->host, call->extent);
    call->extent = NULL;
}

static void finish(struct pgs_call *call)
{
    pgs_call_deliver(call, NULL);
    free_room(call);
}

void pgs_bonus_end(struct pgs_call *call)
{
    free_room(call);
    pgs_call_give(call);
}

static struct pgs_call *take(struct pgs_domain *domain, uint64_t gfn,
                             uint64_t count, uint32_t flags, pgs_step first)
{
    struct pgshare_host *host = domain->host;
    struct pgs_call *call = pgs_call_take(host, domain, first);

    if (!call)
        return NULL;
    call->kind = PGSHARE_OUTCOME_BONUS;
    call->finish = finish;
    call->flags = flags;
    call->gfn = gfn;
    call->count = count;
    if (count > PGS_INLINE && host->info.extent_max > PGS_INLINE)
        call->extent = pgs_extent_new(host, host->info.extent_max);
    return call;
}

struct pgs_call *pgs_bonus_claim_take(struct pgs_domain *domain, uint64_t gfn,
                                      uint64_t count, uint32_t flags)
{
    return take(domain, gfn, count, flags, claim);
}

struct pgs_call *pgs_bonus_return_take(struct pgs_domain *domain, uint64_t gfn,
                                       uint64_t count, uint32_t flags)
{
    return take(domain, gfn, count, flags, hand_back);
}
