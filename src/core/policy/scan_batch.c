/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A block on its way from the walk to the runner's queue.
 *
 *   CHANGES ─ choose ─ FINGERPRINT ─ queue
 *
 * With a change log a page is chosen that was written, or whose content is not
 * known; so a block that nobody has written costs a look at its statuses and
 * its words, eight at a time. The log is cleared by asking, so what it says is
 * put into the words at once: the fingerprint of a page that was written is
 * forgotten, whatever becomes of this batch. A page that is in flight keeps its
 * word, and its block is looked at whole by the next pass (pgs_chunk::redo), as
 * are blocks that something else than a write has made shareable.
 *
 * Without a log every page is chosen, but for those that were found changed
 * again and again, which are left alone for ever more passes, up to 32.
 *
 * All this runs in whatever thread has taken the block. Nothing is committed.
 */
#include "policy/policy.h"

#include <string.h>

#define UNKNOWN_MASK (PGS_NOT_PLAIN | PGS_WORD_INDEX)
/* Where none of these is set, nothing is known that could be forgotten. */
#define FORGET_MASK (PGS_BUSY | PGS_WORD_EPOCH | PGS_WORD_INDEX)
#define STEP 8u

static struct pgs_batch *batch_of(const struct pgs_call *call)
{
    return call->cookie;
}

static void choose_page(struct pgs_batch *batch, uint32_t i, uint32_t print)
{
    batch->at[batch->n] = (uint16_t)i;
    batch->old[batch->n] = print;
    batch->n++;
}

/* ---- blocks that are to be done again ------------------------------------ */

/* The bit of the page's block, of those of its chunk. */
static _Atomic uint64_t *bit_of(_Atomic uint64_t *bits, uint32_t page,
                                uint64_t *ret_bit)
{
    uint32_t block = (page & (PGS_CHUNK_GFNS - 1)) / PGS_BLOCK;

    *ret_bit = UINT64_C(1) << block % 64;
    return &bits[block / 64];
}

/*
 * A pass reads the bits of its own turn, sets those of the next, and clears
 * those of the last, which nobody looks at any more: passes over one domain do
 * not overlap, but the batches of one may come in any order.
 */
static _Atomic uint64_t *redo_of(struct pgshare_host *host, uint32_t page,
                                 uint32_t turn, uint64_t *ret_bit)
{
    struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];

    return bit_of(chunk->redo[turn % PGS_REDO_TURNS], page, ret_bit);
}

/* The lock keeps the next turn from beginning while bits are set for it. */
static void redo(struct pgs_domain *domain, uint32_t page)
{
    struct pgshare_host *host = domain->host;
    struct pgs_scan *scan = &host->policy->scan;
    _Atomic uint64_t *bits;
    uint64_t bit;

    pgs_mutex_lock(&scan->lock);
    bits = redo_of(host, page, domain->scans + 1, &bit);
    atomic_fetch_or_explicit(bits, bit, memory_order_relaxed);
    pgs_mutex_unlock(&scan->lock);
}

void pgs_scan_redo(struct pgs_domain *domain, uint64_t gfn, uint64_t count)
{
    uint64_t end = gfn + count;

    gfn &= ~(uint64_t)(PGS_BLOCK - 1);
    for (; gfn < end; gfn += PGS_BLOCK) {
        uint32_t page = pgs_page_of(domain, gfn);

        if (page == PGS_PAGE_NONE)
            gfn = (gfn | (PGS_CHUNK_GFNS - 1)) + 1 - PGS_BLOCK;
        else
            redo(domain, page);
    }
}

/* Who sets the bit looks at the word after it, who clears HELD at the bit: one
 * of them sees the other's. */
bool pgs_scan_miss(struct pgshare_host *host, uint32_t page)
{
    struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];
    uint64_t bit;
    _Atomic uint64_t *bits = bit_of(chunk->missed, page, &bit);

    atomic_fetch_or(bits, bit);
    return atomic_load(pgs_word_at(&host->chunks, page)) & PGS_ATTR_HELD;
}

void pgs_scan_put(struct pgs_domain *domain, uint32_t page)
{
    struct pgs_chunk *chunk =
        &domain->host->chunks.list[page >> PGS_CHUNK_SHIFT];
    uint64_t bit;
    _Atomic uint64_t *bits = bit_of(chunk->missed, page, &bit);

    if (atomic_load(bits) & bit && atomic_fetch_and(bits, ~bit) & bit)
        redo(domain, page);
}

static bool is_to_be_redone(struct pgshare_host *host,
                            const struct pgs_batch *batch)
{
    uint64_t bit;
    _Atomic uint64_t *last = redo_of(host, batch->page, batch->turn + 2, &bit);
    _Atomic uint64_t *now = redo_of(host, batch->page, batch->turn, &bit);

    if (atomic_load_explicit(last, memory_order_relaxed) & bit)
        atomic_fetch_and_explicit(last, ~bit, memory_order_relaxed);
    return atomic_load_explicit(now, memory_order_relaxed) & bit;
}

/* ---- what is looked at --------------------------------------------------- */

/* What the page's word remembers does not hold any more. Answers the word as it
 * is then. */
static uint64_t forget(struct pgs_domain *domain, uint32_t page)
{
    const uint64_t mark = (uint64_t)PGS_EPOCH_MARK << 48;
    _Atomic uint64_t *at = pgs_word_at(&domain->host->chunks, page);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);

    /* of a volatile page it is the place in its FIFO */
    while (pgs_word_state(word) == PGS_PRIVATE &&
           !(word & (PGS_BUSY | PGS_ATTR_VOLATILE))) {
        uint64_t next = word & ~PGS_WORD_INDEX & ~(word & mark ? 0 : PGS_WORD_EPOCH);

        if (next == word ||
            atomic_compare_exchange_weak_explicit(at, &word, next,
                                                  memory_order_relaxed,
                                                  memory_order_relaxed))
            return next;
    }
    if (word & PGS_BUSY)
        redo(domain, page);
    return word;
}

void pgs_scan_forget(struct pgs_domain *domain, uint32_t page)
{
    forget(domain, page);
}

static void choose_logged(struct pgs_domain *domain, struct pgs_batch *batch,
                          _Atomic uint64_t *words, uint32_t i)
{
    uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);
    uint32_t print = 0;

    if ((batch->status[i] || batch->all) && word & FORGET_MASK) {
        if (!(word & PGS_ATTR_VOLATILE) && pgs_word_state(word) == PGS_PRIVATE)
            print = pgs_word_index(word);
        word = forget(domain, batch->page + i);
    }
    if (pgs_scan_is_plain(domain, word) && !pgs_word_index(word))
        choose_page(batch, i, print);
}

/* Counts pages. Are they unchanged, and is the content of all known that may be
 * shared? */
static bool is_quiet(struct pgs_batch *batch, _Atomic uint64_t *words,
                     uint32_t i, uint32_t n)
{
    uint64_t changed;
    bool unknown = false;

    memcpy(&changed, &batch->status[i], sizeof(changed));
    for (uint32_t k = 0; k < n; k++) {
        uint64_t word = atomic_load_explicit(&words[i + k],
                                             memory_order_relaxed);

        unknown |= (word & UNKNOWN_MASK) == PGS_PRIVATE;
        batch->pages += pgs_word_state(word) != PGS_HOLE;
    }
    return !changed && !unknown;
}

/* By the change log: of a block that is done again, all. */
static void choose_by_log(struct pgs_domain *domain, struct pgs_batch *batch,
                          _Atomic uint64_t *words)
{
    memset(&batch->status[batch->count], 0, STEP);
    for (uint32_t i = 0; i < batch->count; i += STEP) {
        uint32_t n = batch->count - i < STEP ? batch->count - i : STEP;

        if (is_quiet(batch, words, i, n) && !batch->all)
            continue;
        for (uint32_t k = 0; k < n; k++)
            choose_logged(domain, batch, words, i + k);
    }
}

/* A block is done again, but one of its pages cannot be looked at now. */
static void put_off(struct pgs_domain *domain, uint32_t page, uint64_t word)
{
    if (word & PGS_BUSY || (pgs_word_state(word) == PGS_PRIVATE &&
                            word & PGS_ATTR_HELD &&
                            !pgs_scan_miss(domain->host, page)))
        redo(domain, page);
}

static void choose_by_turn(struct pgs_domain *domain,
                           struct pgs_batch *batch, _Atomic uint64_t *words)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_acquire);

        batch->pages += pgs_word_state(word) != PGS_HOLE;
        if (pgs_scan_is_plain(domain, word) &&
            (batch->all || pgs_scan_is_due(word, batch->turn)))
            choose_page(batch, i, pgs_word_index(word));
        else if (batch->all)
            put_off(domain, batch->page + i, word);
    }
}

/* ---- the call ------------------------------------------------------------ */

static enum pgs_verdict printed(struct pgs_call *call)
{
    (void)call;
    return PGS_DONE;
}

/* One operation from the first page chosen to the last; what lies between is
 * passed over. */
static enum pgs_verdict print(struct pgs_call *call)
{
    struct pgs_batch *batch = batch_of(call);
    struct pgs_domain *domain = call->domain;
    uint32_t span = batch->at[batch->n - 1] + 1u - batch->at[0];
    struct pgshare_op op = {
        .kind = PGSHARE_OP_FINGERPRINT,
        .domain = domain->cookie,
        .gfn = batch->gfn + batch->at[0],
        .count = span,
        .arg = domain->seed,
    };

    batch->first = batch->at[0];
    if (batch->n < span) {
        memset(batch->wanted, 0, span * sizeof(batch->wanted[0]));
        for (uint32_t k = 0; k < batch->n; k++)
            batch->wanted[batch->at[k] - batch->first] = 1;
        op.own_ids = batch->wanted;
    }
    return pgs_call_submit_into(call, &op, printed, batch->status, batch->ids);
}

static enum pgs_verdict choose(struct pgs_call *call)
{
    struct pgs_batch *batch = batch_of(call);
    struct pgs_domain *domain = call->domain;
    _Atomic uint64_t *words = pgs_word_at(&call->host->chunks, batch->page);

    batch->all = is_to_be_redone(call->host, batch);
    if (batch->logged)
        choose_by_log(domain, batch, words);
    else
        choose_by_turn(domain, batch, words);
    return batch->n ? print(call) : PGS_DONE;
}

static enum pgs_verdict ask(struct pgs_call *call)
{
    struct pgs_batch *batch = batch_of(call);
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_CHANGES,
        .domain = domain->cookie,
        .gfn = batch->gfn,
        .count = batch->count,
    };

    if (pgs_is_suspended(domain)) /* its log is the embedder's now */
        return PGS_DONE;
    if (!batch->logged)
        return choose(call);
    return pgs_call_submit_into(call, &op, choose, batch->status, NULL);
}

static void finish(struct pgs_call *call)
{
    pgs_scan_queue(call->host, batch_of(call));
}

uint32_t pgs_batch_start(struct pgshare_host *host)
{
    struct pgs_call *call = pgs_call_take(host, NULL, ask);
    struct pgs_domain *domain;
    struct pgs_batch *batch;
    uint64_t token;
    uint32_t count;

    if (!call)
        return 0;
    if (!pgs_scan_next(host, &domain, &batch)) {
        pgs_call_give(call);
        return 0;
    }
    count = batch->count;
    batch->n = batch->pages = 0;
    batch->again = false;
    batch->logged = domain->caps & PGSHARE_CAP_CHANGE_LOG;
    atomic_store_explicit(&call->domain, domain, memory_order_release);
    call->cookie = batch;
    call->finish = finish;
    if (!pgs_call_drive(call, &token))
        return count; /* the runner's list has it */
    finish(call);
    pgs_call_give(call);
    return count;
}
