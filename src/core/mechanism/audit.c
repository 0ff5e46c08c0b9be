/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit: every invariant, on the living host.
 *
 *   words   ─ state and attributes, the mapping, the mark, the FIFO, the hold
 *   frames  ─ their records and reverse maps, back to the words
 *   holds, FIFOs ─ back to the words
 *   sums    ─ what the walks found against what was counted
 *
 * What is checked of one page or one frame is checked under the lock that
 * makes it true, or looked at again when it seems wrong; a page whose BUSY
 * somebody has is passed over. So no finding comes from two things that were
 * read at different times, however much goes on meanwhile.
 *
 * Sums are another matter. They are compared only if nothing has moved while
 * they were added up: no page was in flight, no operation under way, and all
 * of the host's counters, one of which every change moves, are what they were.
 * A thread may still stand between its change and its count; so sums that do
 * not agree are added up again, and are reported only if they never do.
 *
 * Memory is used sequentially: words and frames in their order, and the
 * reverse maps by lists, whose nodes mostly lie in the order of their making.
 */
#include "mechanism/audit.h"

#include "mechanism/ledger.h"
#include "mechanism/page.h"

#include <string.h>

/* A word and its node that do not agree are looked at so often. */
#define LOOKS 3
#define FIRST_ROOM 64u

/* ---- findings ---------------------------------------------------------- */

static bool make_room(struct pgs_audit *audit)
{
    struct pgs_heap *heap = &audit->host->heap;
    uint64_t room = audit->room ? 2 * audit->room : FIRST_ROOM;
    struct pgshare_finding *list;

    if (audit->n < audit->room)
        return true;
    list = PGS_NEW_N(heap, struct pgshare_finding, room);
    if (!list)
        return false;
    if (audit->n)
        memcpy(list, audit->list, audit->n * sizeof(*list));
    PGS_FREE_N(heap, audit->list, audit->room);
    audit->list = list;
    audit->room = room;
    return true;
}

void pgs_audit_report(struct pgs_audit *audit, uint32_t invariant,
                      struct pgs_place place, uint64_t expected, uint64_t found)
{
    audit->verdict.violations++;
    if (!audit->keep || audit->error)
        return;
    if (!make_room(audit)) {
        audit->error = PGSHARE_ERR_NOMEM;
        return;
    }
    audit->list[audit->n++] = (struct pgshare_finding){
        .size = sizeof(struct pgshare_finding),
        .invariant = invariant,
        .dom = place.domain ? place.domain->handle : 0,
        .gfn = place.gfn,
        .frame = place.frame == PGS_NONE ? 0 : PGS_NAME_FIRST + place.frame,
        .expected = expected,
        .found = found,
    };
}

void pgs_audit_fini(struct pgs_audit *audit)
{
    PGS_FREE_N(&audit->host->heap, audit->list, audit->room);
    audit->list = NULL;
    audit->n = audit->room = 0;
}

static void report_page(struct pgs_audit *audit, uint32_t invariant,
                        uint64_t gfn, uint64_t expected, uint64_t found)
{
    struct pgs_place place = { audit->domain, gfn, PGS_NONE };

    pgs_audit_report(audit, invariant, place, expected, found);
}

/* ---- words ------------------------------------------------------------- */

/* Attributes that this one, nobody's BUSY word must not have. */
static uint64_t forbidden(uint64_t word)
{
    uint64_t ret = PGS_ATTR_BROKEN;
    enum pgs_state state = pgs_word_state(word);

    if (state != PGS_HOLE)
        ret |= PGS_ATTR_RECLAIMED;
    if (state != PGS_PRIVATE)
        ret |= PGS_ATTR_VOLATILE | PGS_ATTR_STUCK;
    if (state == PGS_PROTECTED)
        ret |= PGS_WORD_EPOCH;
    if (state == PGS_SHARED)
        ret |= (uint64_t)PGS_EPOCH_MARK << 48;
    if (state == PGS_HOLE)
        ret |= PGS_ATTR_BONUS | PGS_WORD_INDEX;
    if (state >= PGS_PROTECTED || !(word & PGS_ATTR_HELD))
        ret |= PGS_ATTR_HELD_WRITE;
    if (word & PGS_ATTR_VOLATILE)
        ret |= PGS_ATTR_READONLY;
    if (!(word & PGS_ATTR_FREE))
        ret |= PGS_ATTR_SCRUB;
    return ret;
}

/* Has the word changed since it was read, or is somebody about to? */
static bool is_stale(struct pgs_audit *audit, uint32_t page, uint64_t word)
{
    uint64_t now = atomic_load_explicit(pgs_word_at(&audit->host->chunks, page),
                                        memory_order_acquire);

    if (((now ^ word) & ~PGS_WANTED) == 0)
        return false;
    audit->moved = true;
    return true;
}

static void check_mapping(struct pgs_audit *audit, uint64_t gfn, uint32_t page,
                          uint64_t word)
{
    struct pgs_frames *frames = &audit->host->frames;
    uint32_t node = pgs_word_index(word), frame = PGS_NONE;

    if (node == PGS_NODE_ZERO) {
        audit->sums.zero++;
        audit->sums.entitlement += pgs_ledger_share(audit->zero_sharers);
        return;
    }
    audit->sums.mappings++;
    for (unsigned i = 0; frame == PGS_NONE && i < LOOKS; i++) {
        frame = pgs_lookup_frame(&audit->lookup, node, page);
        if (frame == PGS_NONE && is_stale(audit, page, word))
            return;
    }
    if (frame == PGS_NONE) {
        report_page(audit, PGSHARE_INVARIANT_RMAP, gfn, page, node);
        return;
    }
    audit->sums.entitlement += pgs_ledger_share(
        pgs_frame_at(frames, frame)->mappings);
}

/* A mark is read by who has the page's BUSY. */
static void check_mark(struct pgs_audit *audit, uint64_t gfn, uint32_t page)
{
    struct pgshare_host *host = audit->host;
    uint64_t last = atomic_load_explicit(&host->ticket, memory_order_relaxed);
    uint64_t word;
    uint32_t index;

    if (!pgs_word_trylock(pgs_word_at(&host->chunks, page), false, &word)) {
        audit->moved = true;
        return;
    }
    index = pgs_word_index(word);
    if (pgs_word_state(word) != PGS_PROTECTED) {
        audit->moved = true;
    } else if (index >= atomic_load_explicit(&host->marks.slab.size,
                                             memory_order_relaxed)) {
        report_page(audit, PGSHARE_INVARIANT_TICKET, gfn, 0, index);
    } else {
        const struct pgs_mark *mark = pgs_mark_at(&host->marks, index);

        if (mark->page != page)
            report_page(audit, PGSHARE_INVARIANT_TICKET, gfn, page, mark->page);
        else if (!mark->ticket || mark->ticket > last)
            report_page(audit, PGSHARE_INVARIANT_TICKET, gfn, last,
                        mark->ticket);
    }
    pgs_page_unlock(host, page);
}

static void check_volatile(struct pgs_audit *audit, uint64_t gfn, uint32_t page,
                           uint64_t word)
{
    struct pgs_domain *domain = audit->domain;
    bool has;

    audit->sums.volatile_++;
    pgs_mutex_lock(&domain->lock);
    has = pgs_fifo_has(&domain->fifo, pgs_word_index(word), page) ||
          is_stale(audit, page, word);
    pgs_mutex_unlock(&domain->lock);
    if (!has)
        report_page(audit, PGSHARE_INVARIANT_FIFO, gfn, page,
                    pgs_word_index(word));
}

static void check_held(struct pgs_audit *audit, uint64_t gfn, uint32_t page)
{
    struct pgs_holds *holds = &audit->host->holds;
    uint64_t word;
    bool has;

    pgs_mutex_lock(&holds->lock);
    word = atomic_load_explicit(pgs_word_at(&audit->host->chunks, page),
                                memory_order_relaxed);
    has = pgs_holds_find(holds, page) != NULL;
    pgs_mutex_unlock(&holds->lock);
    if (has != !!(word & PGS_ATTR_HELD))
        report_page(audit, PGSHARE_INVARIANT_HOLD, gfn, has, !has);
    audit->sums.held += has;
}

static int check_word(void *ctx, uint64_t gfn, uint32_t page, uint64_t word)
{
    struct pgs_audit *audit = ctx;

    audit->verdict.gfns++;
    if (word & PGS_BUSY) {
        audit->moved = true;
        return 0;
    }
    if (word & forbidden(word))
        report_page(audit, PGSHARE_INVARIANT_ENTRY, gfn, 0,
                    word & forbidden(word));
    audit->sums.tracked += pgs_word_state(word) != PGS_HOLE;
    if (pgs_word_state(word) == PGS_SHARED)
        check_mapping(audit, gfn, page, word);
    else
        pgs_lookup_end(&audit->lookup);
    if (pgs_word_state(word) == PGS_PROTECTED) {
        audit->sums.protected_++;
        check_mark(audit, gfn, page);
    }
    if (word & (PGS_ATTR_VOLATILE | PGS_ATTR_HELD))
        pgs_lookup_end(&audit->lookup);
    if (word & PGS_ATTR_VOLATILE)
        check_volatile(audit, gfn, page, word);
    if (word & PGS_ATTR_HELD)
        check_held(audit, gfn, page);
    return 0;
}

/* ---- FIFOs and claims -------------------------------------------------- */

/* Domain locked. The page in this slot says that it is there, or is BUSY. */
static bool slot_agrees(struct pgs_audit *audit, uint32_t slot)
{
    struct pgs_domain *domain = audit->domain;
    uint32_t page = domain->fifo.slots[slot].page;
    uint64_t word;

    if (page == PGS_PAGE_NONE || page >> PGS_CHUNK_SHIFT >= PGS_CHUNKS_MAX ||
        pgs_page_domain(audit->host, page) != domain)
        return false;
    word = atomic_load_explicit(pgs_word_at(&audit->host->chunks, page),
                                memory_order_acquire);
    return word & PGS_ATTR_VOLATILE &&
           (word & PGS_BUSY || pgs_word_index(word) == slot);
}

/* From the oldest to the newest page. */
static void check_fifo(struct pgs_audit *audit)
{
    struct pgs_domain *domain = audit->domain;
    struct pgs_fifo *fifo = &domain->fifo;
    uint32_t before = PGS_FIFO_END, slot, bad = PGS_FIFO_END;
    uint64_t n = 0, used, secured;

    pgs_mutex_lock(&domain->lock);
    used = fifo->used;
    secured = pgs_ledger_secured(domain);
    for (slot = fifo->oldest; slot != PGS_FIFO_END && n <= used; n++) {
        if (slot >= fifo->size || fifo->slots[slot].prev != before ||
            !slot_agrees(audit, slot)) {
            bad = slot;
            break;
        }
        before = slot;
        slot = fifo->slots[slot].next;
    }
    pgs_mutex_unlock(&domain->lock);
    if (bad != PGS_FIFO_END || n != used)
        report_page(audit, PGSHARE_INVARIANT_FIFO, PGSHARE_GFN_NONE, used, n);
    if (used < secured)
        audit->uncovered = domain;
    audit->sums.fifo += used;
}

/* domains_lock held: claims change only under it. */
static uint64_t claims_served(struct pgs_domain *service)
{
    struct pgshare_host *host = service->host;
    struct pgs_domain *other;
    uint64_t claims = 0;

    for (uint32_t slot = 1; slot < host->slots_used; slot++) {
        other = atomic_load_explicit(&host->slots[slot], memory_order_seq_cst);
        if (other && other->service == service)
            claims += other->claimed;
    }
    for (other = host->dying; other; other = other->next_dying)
        if (other->service == service)
            claims += other->claimed;
    return claims;
}

static void check_claims(struct pgs_audit *audit)
{
    struct pgs_domain *domain = audit->domain;
    uint64_t claims = 0, secures;
    bool charged;

    pgs_mutex_lock(&audit->host->domains_lock);
    secures = domain->secures;
    if (secures)
        claims = claims_served(domain);
    audit->sums.claimed += domain->claimed;
    charged = domain->charged > domain->claimed;
    pgs_mutex_unlock(&audit->host->domains_lock);
    if (claims != secures || charged)
        report_page(audit, PGSHARE_INVARIANT_COVER, PGSHARE_GFN_NONE, claims,
                    secures);
}

void pgs_audit_domains(struct pgs_audit *audit)
{
    struct pgshare_host *host = audit->host;

    for (uint32_t slot = 1; slot < host->slots_used; slot++) {
        audit->domain = atomic_load_explicit(&host->slots[slot],
                                             memory_order_seq_cst);
        if (!audit->domain)
            continue;
        pgs_lookup_begin(&audit->lookup, host);
        pgs_words_walk(audit->domain, check_word, audit);
        pgs_lookup_end(&audit->lookup);
        check_fifo(audit);
        check_claims(audit);
    }
    pgs_mutex_lock(&host->domains_lock);
    audit->moved |= host->dying != NULL;
    pgs_mutex_unlock(&host->domains_lock);
}
