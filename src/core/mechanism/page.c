/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words that change: ending BUSY, and breaks.
 *
 * A break is told by the platform: a guest's write has made a page private
 * below us. If the page's word is free, the mapping is unlinked at once, on
 * whatever thread the backend speaks; that needs no memory and calls nobody.
 * If an operation holds the word, the break is left there as an attribute, and
 * whoever ends BUSY settles it. So a break is neither lost nor applied twice,
 * and never overtakes the operation that made the mapping.
 *
 * It cannot be taken for a break of a later mapping either: a page that an
 * operation of ours has made private is not mapped again before the domain's
 * next harvest (pgs_quarantined()), and a harvest ends only when all earlier
 * breaks were told. A backend that tells one after that harvest after all is
 * found out by `seq`, and not believed: a mapping kept too long costs a frame,
 * one forgotten too early a guest's content.
 *
 * What a guest dropped is not left behind in a busy word: it is the backend
 * that keeps it, and the page as it is, until we have heard (sys/backend.h).
 * Whether it did cannot be seen from here, as no word has room for a number.
 */
#include "mechanism/page.h"

void pgs_page_unmark(struct pgshare_host *host, uint32_t mark)
{
    pgs_marks_give(&host->marks, 1, &mark);
    pgs_count(&host->shards, PGS_LEVEL_PROTECTED, (uint64_t)-1);
}

void pgs_page_unmap(struct pgshare_host *host, uint32_t node)
{
    struct pgs_frames *frames = &host->frames;
    uint32_t frame;
    bool doomed;

    if (node == PGS_NODE_ZERO) {
        pgs_count(&host->shards, PGS_LEVEL_ZERO_MAPPINGS, (uint64_t)-1);
        return;
    }
    frame = pgs_node_lock(frames, node);
    pgs_rmap_unlink(frames, node);
    pgs_frame_count_empty(host, frame); /* first, see ledger.c */
    doomed = pgs_frame_doom(pgs_frame_at(frames, frame));
    pgs_frame_unlock(frames, frame);
    if (doomed)
        pgs_frame_defer(host, frame);
    pgs_count(&host->shards, PGS_LEVEL_MAPPINGS, (uint64_t)-1);
}

/* When the scanner comes back outlasts sharing, so that a page which is shared
 * and broken again and again is left alone like any that keeps changing. Only
 * BUSY's holder changes it. */
static uint64_t keep_wait(uint64_t word, uint64_t next)
{
    const uint64_t mark = (uint64_t)PGS_EPOCH_MARK << 48;
    bool was = pgs_word_state(word) == PGS_PRIVATE ||
               pgs_word_state(word) == PGS_SHARED;
    bool is = pgs_word_state(next) == PGS_PRIVATE ||
              pgs_word_state(next) == PGS_SHARED;

    if (!was || !is || word & mark || next & PGS_WORD_EPOCH)
        return next;
    return next | (word & PGS_WORD_EPOCH);
}

bool pgs_page_commit(struct pgshare_host *host, uint32_t page, uint64_t next,
                     uint64_t clear, uint64_t unless)
{
    _Atomic uint64_t *word = pgs_word_at(&host->chunks, page);
    uint64_t old;

    /* memory that comes back there is in the quarantine, too */
    if (pgs_word_state(next) == PGS_HOLE)
        next |= pgs_private_word(pgs_page_domain(host, page)) & ~PGS_STATE;
    if (pgs_word_state(next) >= PGS_PROTECTED)
        unless |= PGS_ATTR_BROKEN;
    else
        clear |= PGS_ATTR_BROKEN;
    next = keep_wait(atomic_load_explicit(word, memory_order_relaxed), next);
    if (!pgs_word_commit(word, next, clear, unless, &old))
        return false;
    if (old & PGS_WANTED)
        pgs_channel_notify(&host->channel);
    return true;
}

void pgs_page_privatise(struct pgshare_host *host, uint32_t page,
                        uint64_t clear)
{
    struct pgs_domain *domain = pgs_page_domain(host, page);

    pgs_page_commit(host, page, pgs_private_word(domain),
                    clear | PGS_ATTR_OVERWRITE | PGS_ATTR_RECLAIMED |
                        PGS_ATTR_STUCK,
                    0);
}

void pgs_page_privatise_known(struct pgshare_host *host, uint32_t page)
{
    uint64_t word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                         memory_order_relaxed);
    uint64_t next = pgs_private_word(pgs_page_domain(host, page));

    if (pgs_word_state(word) == PGS_PRIVATE)
        next |= word & PGS_WORD_INDEX;
    pgs_page_commit(host, page, next,
                    PGS_ATTR_OVERWRITE | PGS_ATTR_RECLAIMED | PGS_ATTR_STUCK,
                    0);
}

void pgs_page_privatise_stuck(struct pgshare_host *host, uint32_t page)
{
    struct pgs_domain *domain = pgs_page_domain(host, page);
    uint64_t gfn = pgs_page_gfn(host, page);

    atomic_fetch_or_explicit(pgs_word_at(&host->chunks, page), PGS_ATTR_STUCK,
                             memory_order_relaxed);
    pgs_page_commit(host, page, pgs_private_word(domain), 0, 0);
    pgs_undo_widen(domain, gfn, gfn + 1);
    pgs_wake(host);
}

/* A frame that was handed out for a break has been made up for by one. */
static void end_advance(struct pgshare_host *host)
{
    int64_t seen = atomic_load_explicit(&host->advanced, memory_order_relaxed);

    while (seen > 0 && !atomic_compare_exchange_weak_explicit(
                           &host->advanced, &seen, seen - 1,
                           memory_order_relaxed, memory_order_relaxed)) {
    }
}

void pgs_page_unmap_broken(struct pgs_domain *domain, uint32_t node)
{
    struct pgshare_host *host = domain->host;

    pgs_page_unmap(host, node);
    end_advance(host);
    pgs_count(&host->shards, PGS_COUNT_BROKEN, 1);
    atomic_fetch_add_explicit(&pgs_tally_mine(domain)->broken, 1,
                              memory_order_relaxed);
}

/* BUSY held: what `word` speaks of was broken; the page is private. */
static void settle_break(struct pgshare_host *host, uint32_t page,
                         uint64_t word)
{
    if (pgs_word_state(word) == PGS_PROTECTED) {
        pgs_page_unmark(host, pgs_word_index(word));
        pgs_count(&host->shards, PGS_COUNT_BROKEN, 1);
    } else if (pgs_word_state(word) == PGS_SHARED) {
        pgs_page_unmap_broken(pgs_page_domain(host, page),
                              pgs_word_index(word));
    } else {
        pgs_page_commit(host, page, word, 0, 0);
        return;
    }
    pgs_page_commit(host, page, PGS_PRIVATE, PGS_ATTR_OVERWRITE, 0);
}

void pgs_page_unlock(struct pgshare_host *host, uint32_t page)
{
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);

    do {
        if (word & PGS_ATTR_BROKEN) {
            settle_break(host, page, word);
            return;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        at, &word, word & ~(PGS_BUSY | PGS_WANTED), memory_order_release,
        memory_order_acquire));
    if (word & PGS_WANTED)
        pgs_channel_notify(&host->channel);
}

/* Takes the word, or leaves the break to whoever has it. */
static void break_one(struct pgshare_host *host, uint32_t page)
{
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t word = atomic_load_explicit(at, memory_order_acquire);
    uint64_t next;

    do {
        next = word | (word & PGS_BUSY ? PGS_ATTR_BROKEN : PGS_BUSY);
    } while (!atomic_compare_exchange_weak_explicit(
        at, &word, next, memory_order_acquire, memory_order_acquire));
    if (!(word & PGS_BUSY))
        settle_break(host, page, word);
}

/* Should a harvest that is over have told of it? */
static bool is_late(const struct pgs_domain *domain, uint64_t seq)
{
    return seq < atomic_load_explicit(&domain->harvested,
                                      memory_order_acquire);
}

void pgs_page_broken(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                     uint64_t seq)
{
    struct pgshare_host *host = ctx;
    uint32_t ticket = pgs_shards_enter(&host->shards);
    struct pgs_domain *domain = pgs_domain_of(host, dom);

    if (domain && pgs_range_ok(domain, gfn, count) && !is_late(domain, seq)) {
        for (uint64_t i = 0; i < count; i++) {
            uint32_t page = pgs_page_of(domain, gfn + i);

            if (page != PGS_PAGE_NONE)
                break_one(host, page);
        }
        pgs_wake(host);
    } else if (domain) {
        pgs_backend_error(host);
    }
    pgs_shards_leave(&host->shards, ticket);
}

static int discard_one(struct pgshare_host *host, uint32_t page, int hole)
{
    _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
    uint64_t word;

    if (!pgs_word_trylock(at, true, &word))
        return PGSHARE_ERR_BUSY;
    if (pgs_word_state(word) == PGS_HOLE || word & PGS_ATTR_VOLATILE) {
        pgs_page_unlock(host, page); /* a volatile page stays one of zeroes */
        return 0;
    }
    if (pgs_word_state(word) == PGS_PROTECTED)
        pgs_page_unmark(host, pgs_word_index(word));
    else if (pgs_word_state(word) == PGS_SHARED)
        pgs_page_unmap(host, pgs_word_index(word));
    if (hole) {
        pgs_count(&host->shards, PGS_LEVEL_TRACKED, (uint64_t)-1);
        pgs_page_commit(host, page, PGS_HOLE,
                        PGS_ATTR_FREE | PGS_ATTR_SCRUB | PGS_ATTR_OVERWRITE |
                            PGS_ATTR_BONUS | PGS_ATTR_STUCK,
                        0);
    } else {
        pgs_page_privatise(host, page, 0);
    }
    return 0;
}

int pgs_page_discarded(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                       int hole, uint64_t seq)
{
    struct pgshare_host *host = ctx;
    uint32_t ticket = pgs_shards_enter(&host->shards);
    struct pgs_domain *domain = pgs_domain_of(host, dom);
    int r = 0;

    (void)seq; /* the backend sees to the order, see above */
    if (!domain)
        r = PGSHARE_ERR_NODOMAIN;
    else if (!pgs_range_ok(domain, gfn, count))
        r = PGSHARE_ERR_RANGE;
    if (r == PGSHARE_ERR_RANGE)
        pgs_backend_error(host);
    for (uint64_t i = 0; !r && i < count; i++) {
        uint32_t page = pgs_page_of(domain, gfn + i);

        if (page != PGS_PAGE_NONE)
            r = discard_one(host, page, hole);
    }
    pgs_wake(host);
    pgs_shards_leave(&host->shards, ticket);
    return r;
}
