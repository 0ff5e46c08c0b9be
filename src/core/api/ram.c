/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that a domain gets and gives up.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"

#include <pgshare/domain.h>

/* From a GiB on, metadata is so much that a huge page for each table does not
 * count. */
#define TRACKED_LARGE (UINT64_C(1) << (30 - PGSHARE_PAGE_SHIFT))

static void count_tracked(struct pgshare_host *host, uint64_t count)
{
    pgs_count(&host->shards, PGS_LEVEL_TRACKED, count);
    if (pgs_shards_sum(&host->shards, PGS_LEVEL_TRACKED) >= TRACKED_LARGE)
        atomic_store_explicit(&host->heap.large, true, memory_order_relaxed);
}

/* ---- memory comes -------------------------------------------------------- */

/* Looks after the time itself: a call that the runner took over would have an
 * outcome to tell. */
static enum pgs_verdict await_page(struct pgs_call *call)
{
    _Atomic uint64_t *at = pgs_word_at(&call->host->chunks, call->page);
    uint64_t word;

    call->result = 0;
    if (pgs_word_trylock(at, true, &word)) {
        pgs_page_unlock(call->host, call->page);
        return PGS_DONE;
    }
    call->waits = call->page;
    call->result = PGSHARE_ERR_BUSY;
    return pgs_now(&call->host->platform) < call->again_ns ? PGS_WAIT_CALM
                                                           : PGS_DONE;
}

/* Whoever has the hole mostly finds that it is one, and goes. */
static int wait_for_page(struct pgs_visit *visit, uint64_t gfn)
{
    struct pgshare_host *host = visit->host;
    struct pgs_call *call = pgs_call_take(host, visit->domain, await_page);
    uint64_t token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    call->page = pgs_page_of(visit->domain, gfn);
    call->timeout = PGSHARE_FOREVER;
    call->again_ns = pgs_now(&host->platform) +
                     (pgs_is_runner(host) ? 0 : host->options.timeout_ns);
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_BUSY;
    r = call->result;
    pgs_call_give(call);
    return r;
}

static int add_page(struct pgs_visit *visit, uint64_t gfn)
{
    const uint64_t kept = PGS_ATTR_NEVER | PGS_ATTR_READONLY | PGS_ATTR_HELD |
                          PGS_ATTR_HELD_WRITE | PGS_WORD_EPOCH;
    _Atomic uint64_t *at = pgs_word_of(visit->domain, gfn);
    uint64_t word = atomic_load_explicit(at, memory_order_relaxed);

    while (pgs_word_state(word) == PGS_HOLE) {
        if (word & PGS_BUSY) {
            int r = wait_for_page(visit, gfn);

            if (r)
                return r;
            word = atomic_load_explicit(at, memory_order_relaxed);
        } else if (atomic_compare_exchange_weak_explicit(
                       at, &word, PGS_PRIVATE | (word & kept),
                       memory_order_acq_rel, memory_order_relaxed)) {
            return 0;
        }
    }
    return PGSHARE_ERR_EXISTS;
}

int pgshare_domain_ram_add(struct pgshare_host *host, uint64_t dom,
                           uint64_t gfn, uint64_t count)
{
    struct pgs_visit visit;
    uint64_t added = 0;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_domain_words(visit.domain, gfn, count);
    while (!r && added < count) {
        r = add_page(&visit, gfn + added);
        added += !r;
    }
    for (uint64_t i = 0; r && i < added; i++)
        atomic_fetch_and_explicit(pgs_word_of(visit.domain, gfn + i),
                                  ~PGS_STATE, memory_order_release);
    if (!r)
        count_tracked(host, count);
    return pgs_visit_end(&visit, r);
}

/* ---- memory goes --------------------------------------------------------- */

/* One page goes away; the backend forgets its mapping, if it has one. */
static enum pgs_verdict ram_discarded(struct pgs_call *call)
{
    uint64_t word = atomic_load_explicit(
        pgs_word_at(&call->host->chunks, call->page), memory_order_relaxed);

    if (call->status[0] != PGSHARE_ERR_HOLE) /* else it is one already */
        call->result = call->status[0];
    if (call->result)
        pgs_page_unlock(call->host, call->page);
    else
        pgs_page_drop(call->host, call->page, word);
    return PGS_DONE;
}

static int give_up_volatile(struct pgs_domain *domain, uint32_t page,
                            uint64_t word)
{
    int r = PGSHARE_ERR_OWED;

    pgs_mutex_lock(&domain->lock);
    if (!pgs_fifo_has(&domain->fifo, pgs_word_index(word), page)) {
        r = 0; /* the domain's end has emptied it */
    } else if (domain->fifo.used > pgs_ledger_secured(domain)) {
        pgs_fifo_remove(&domain->fifo, pgs_word_index(word));
        pgs_count(&domain->host->shards, PGS_LEVEL_FIFO, (uint64_t)-1);
        r = 0;
    }
    pgs_mutex_unlock(&domain->lock);
    return r;
}

static enum pgs_verdict ram_discard(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    _Atomic uint64_t *at = pgs_word_at(&call->host->chunks, call->page);
    struct pgshare_op op = {
        .kind = PGSHARE_OP_DISCARD,
        .domain = domain->cookie,
        .gfn = call->gfn,
        .count = 1,
    };
    uint64_t word;

    if (!pgs_word_trylock(at, true, &word)) {
        call->waits = call->page;
        return PGS_WAIT_PAGE;
    }
    if (word & PGS_ATTR_HELD)
        call->result = PGSHARE_ERR_BUSY;
    else if (word & PGS_ATTR_VOLATILE)
        call->result = give_up_volatile(domain, call->page, word);
    if (call->result) {
        pgs_page_unlock(call->host, call->page);
        return PGS_DONE;
    }
    if (pgs_word_state(word) >= PGS_PROTECTED)
        return pgs_call_submit(call, &op, ram_discarded);
    pgs_page_drop(call->host, call->page, word);
    return PGS_DONE;
}

static int ram_remove_page(struct pgs_visit *visit, uint64_t gfn,
                           struct pgshare_call *ours)
{
    uint32_t page = pgs_page_of(visit->domain, gfn);
    struct pgs_call *call;
    int r;

    if (page == PGS_PAGE_NONE)
        return 0;
    call = pgs_call_take(visit->host, visit->domain, ram_discard);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->gfn = gfn;
    call->page = page;
    if (!pgs_visit_drive(call, ours))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    return r;
}

int pgshare_domain_ram_remove(struct pgshare_host *host, uint64_t dom,
                              uint64_t gfn, uint64_t count,
                              struct pgshare_call *theirs)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count), first = 0;

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    for (uint64_t i = 0; !r && i < count; i++)
        r = pgs_visit_note(&ours, i, ram_remove_page(&visit, gfn + i, &ours),
                           &first);
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r ? r : first);
}
