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

/*
 * All holes are taken before one of them becomes a page: else a page that is
 * there already could be shared before the whole is refused. Whoever has a hole
 * mostly finds that it is one, and goes; he is waited for with nothing taken.
 */

/* Looks after the time itself: a call that the runner took over would have an
 * outcome to tell. */
static enum pgs_verdict await_page(struct pgs_call *call)
{
    _Atomic uint64_t *at = pgs_word_at(&call->host->chunks, call->page);
    uint64_t word;

    call->result = PGSHARE_ERR_GONE;
    if (pgs_domain_flags(call->domain) & (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE))
        return PGS_DONE;
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

static int wait_for_page(struct pgs_visit *visit, uint64_t gfn, uint64_t end)
{
    struct pgs_call *call = pgs_call_take(visit->host, visit->domain,
                                          await_page);
    uint64_t token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    call->page = pgs_page_of(visit->domain, gfn);
    call->timeout = PGSHARE_FOREVER;
    call->again_ns = end;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_BUSY;
    r = call->result;
    pgs_call_give(call);
    return r;
}

static void let_go(struct pgs_domain *domain, uint64_t gfn, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        pgs_page_unlock(domain->host, pgs_page_of(domain, gfn + i));
}

/* Takes all of them, or none. *ret_at: how many are holes that could be had. */
static int take_holes(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                      uint64_t *ret_at)
{
    uint64_t i, word;
    int r = 0;

    for (i = 0; i < count; i++) {
        _Atomic uint64_t *at = pgs_word_of(domain, gfn + i);

        if (!pgs_word_trylock(at, false, &word)) {
            word = atomic_load_explicit(at, memory_order_relaxed);
            r = pgs_word_state(word) == PGS_HOLE ? PGSHARE_ERR_BUSY
                                                 : PGSHARE_ERR_EXISTS;
            break;
        }
        if (pgs_word_state(word) != PGS_HOLE) {
            pgs_page_unlock(domain->host, pgs_page_of(domain, gfn + i));
            r = PGSHARE_ERR_EXISTS;
            break;
        }
    }
    if (r)
        let_go(domain, gfn, i);
    *ret_at = i;
    return r;
}

static void make_pages(struct pgs_domain *domain, uint64_t gfn, uint64_t count)
{
    const uint64_t kept = PGS_ATTR_NEVER | PGS_ATTR_READONLY | PGS_ATTR_HELD |
                          PGS_ATTR_HELD_WRITE;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t word = atomic_load_explicit(pgs_word_of(domain, gfn + i),
                                             memory_order_relaxed);

        pgs_page_commit(domain->host, pgs_page_of(domain, gfn + i),
                        PGS_PRIVATE | (word & PGS_WORD_EPOCH),
                        PGS_ATTR_ALL & ~kept, 0);
    }
    count_tracked(domain->host, count);
}

static int ram_add(struct pgs_visit *visit, uint64_t gfn, uint64_t count)
{
    struct pgshare_host *host = visit->host;
    uint64_t timeout = pgs_is_runner(host) ? 0 : host->options.timeout_ns;
    uint64_t now = pgs_now(&host->platform), at;
    uint64_t end = timeout < UINT64_MAX - now ? now + timeout : UINT64_MAX;
    int r = pgs_domain_words(visit->domain, gfn, count);

    while (!r) {
        r = take_holes(visit->domain, gfn, count, &at);
        if (!r) {
            make_pages(visit->domain, gfn, count);
            return 0;
        }
        if (r == PGSHARE_ERR_BUSY)
            r = wait_for_page(visit, gfn + at, end);
    }
    return r;
}

int pgshare_domain_ram_add(struct pgshare_host *host, uint64_t dom,
                           uint64_t gfn, uint64_t count)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    return r ? r : pgs_visit_end(&visit, ram_add(&visit, gfn, count));
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
