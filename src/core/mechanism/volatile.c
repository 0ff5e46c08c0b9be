/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Volatile pages: into a domain's repayment FIFO, and out of it again.
 *
 * The page's word and the FIFO name each other. Both change under the page's
 * BUSY and the domain's lock, taken in this order; who comes by the other end
 * (a payment takes the oldest page under the lock) only tries for BUSY. BUSY
 * itself is tried for once: what has the page this instant may be a payment
 * with it, and a guest that asks again learns how it ended.
 *
 * A page can be withdrawn as long as the FIFO stays as long as the claims that
 * it secures.
 */
#include "mechanism/ledger.h"

#include "mechanism/page.h"

static int may_push(uint64_t word)
{
    if (pgs_word_state(word) != PGS_PRIVATE ||
        word & (PGS_ATTR_VOLATILE | PGS_ATTR_READONLY))
        return PGSHARE_ERR_STATE;
    /* a stuck page is about to be unprotected, for which its slot has no room */
    return word & (PGS_ATTR_HELD | PGS_ATTR_STUCK) ? PGSHARE_ERR_BUSY : 0;
}

/* BUSY held. The slot, for the word. */
static int enter_fifo(struct pgs_domain *domain, uint32_t page,
                      uint32_t *ret_slot)
{
    uint64_t stamp;
    int r = PGSHARE_ERR_GONE;

    pgs_mutex_lock(&domain->lock);
    stamp = atomic_fetch_add_explicit(&domain->host->pushed, 1,
                                      memory_order_relaxed);
    if (!(pgs_domain_flags(domain) & (PGS_DOMAIN_GONE | PGS_DOMAIN_DYING)))
        r = pgs_fifo_push(&domain->fifo, page, stamp, ret_slot);
    if (!r)
        atomic_fetch_or_explicit(pgs_word_at(&domain->host->chunks, page),
                                 PGS_ATTR_VOLATILE, memory_order_relaxed);
    pgs_mutex_unlock(&domain->lock);
    return r;
}

int pgs_volatile_push(struct pgs_domain *domain, uint32_t page)
{
    struct pgshare_host *host = domain->host;
    uint64_t word;
    uint32_t slot;
    int r;

    if (!pgs_word_trylock(pgs_word_at(&host->chunks, page), false, &word))
        return PGSHARE_ERR_BUSY;
    r = may_push(word);
    if (!r)
        r = enter_fifo(domain, page, &slot);
    if (r) {
        pgs_page_unlock(host, page);
        return r;
    }
    pgs_count(&host->shards, PGS_LEVEL_FIFO, 1);
    pgs_page_commit(host, page,
                    pgs_word_with(PGS_PRIVATE, slot, pgs_word_epoch(word)), 0,
                    0);
    return 0;
}

bool pgs_volatile_restore(struct pgs_domain *domain, uint32_t page)
{
    struct pgshare_host *host = domain->host;
    uint64_t word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                         memory_order_relaxed);
    uint32_t slot;
    int r = enter_fifo(domain, page, &slot);

    if (r) {
        pgs_page_unlock(host, page);
        return r != PGSHARE_ERR_NOMEM;
    }
    pgs_count(&host->shards, PGS_LEVEL_FIFO, 1);
    pgs_page_commit(host, page,
                    pgs_word_with(PGS_PRIVATE, slot, pgs_word_epoch(word)), 0,
                    0);
    return true;
}

/* BUSY held, the word was VOLATILE. */
static int leave_fifo(struct pgs_domain *domain, uint32_t page, uint32_t slot)
{
    int r = 0;

    pgs_mutex_lock(&domain->lock);
    if (!pgs_fifo_has(&domain->fifo, slot, page))
        r = PGSHARE_ERR_STATE; /* the domain's end has emptied it */
    else if (domain->fifo.used <= pgs_ledger_secured(domain))
        r = PGSHARE_ERR_OWED;
    else
        pgs_fifo_remove(&domain->fifo, slot);
    pgs_mutex_unlock(&domain->lock);
    return r;
}

int pgs_volatile_withdraw(struct pgs_domain *domain, uint32_t page)
{
    struct pgshare_host *host = domain->host;
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t word;
    int r;

    if (atomic_load_explicit(at, memory_order_acquire) & PGS_ATTR_RECLAIMED)
        return PGSHARE_ERR_RECLAIMED;
    if (!pgs_word_trylock(at, false, &word))
        return PGSHARE_ERR_BUSY;
    if (word & PGS_ATTR_RECLAIMED)
        r = PGSHARE_ERR_RECLAIMED;
    else if (!(word & PGS_ATTR_VOLATILE))
        r = PGSHARE_ERR_STATE;
    else
        r = leave_fifo(domain, page, pgs_word_index(word));
    if (r) {
        pgs_page_unlock(host, page);
        return r;
    }
    pgs_count(&host->shards, PGS_LEVEL_FIFO, (uint64_t)-1);
    pgs_page_commit(host, page,
                    pgs_word_with(PGS_PRIVATE, 0, pgs_word_epoch(word)),
                    PGS_ATTR_VOLATILE, 0);
    return 0;
}
