/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fingerprints against the content index.
 *
 * A batch is gone through several times, each time for one reason: first the
 * places of all its fingerprints in the index are computed and sent for, so
 * that memory is waited for once and not page by page; then each page is looked
 * up. One that is known proposes a run (blocks.c); one that is not is noted in
 * its word and enters the index; at last the runs become candidates.
 *
 * A page that is part of a candidate enters the index, too, so that its content
 * is still found when the other page is written, and it is noted when it is
 * proposed. Should it stay private for a reason that lasts (a floor, other
 * bytes), it costs nothing more until one of the two pages changes; a reason
 * that passes (a page in flight, no memory) makes it unknown again, so that it
 * is looked at by the next pass. So is a page whose equal is in flight.
 *
 * A fingerprint proposes only; equality is the protocol's to find. One that has
 * proposed wrongly max_mismatches times (a guest can make collisions) is given
 * up: its pages are noted as if they had no equal. Nor has a page whose equals
 * are all full (the backend limits the mappings of a frame): the next one that
 * is equal begins another frame with it.
 *
 * Where so many candidates are under way that there is no room for more, the
 * rest of the batch waits, and is looked up again when there is.
 *
 * Entries of pages that have changed are taken out when they are looked at
 * again, and others by a sweep that begins when there are more entries than
 * pages.
 */
#include "policy/policy.h"

#include "mechanism/lookup.h"

#include <string.h>

/* Growth may look at so many pages for one batch. */
#define STEPS_MAX (16u * PGS_BLOCK)

/* A content that very many pages have (a pattern, say) has so many entries. */
#define COPIES 4u

/* What the index knew of a page that was looked up. */
struct found {
    bool any;        /* there are entries that look like it */
    bool self;       /* it has its own */
    bool later;      /* a page in flight may match */
    bool match;      /* it is part of a run */
    uint32_t copies; /* pages that are known to have the same content, … */
    uint32_t full;   /* … and those of frames that take no more mappings */
};

/* ---- what pages hold ----------------------------------------------------- */

/* How many may share a page that has so many mappings. */
static uint64_t room_of(const struct pgshare_host *host, uint64_t mappings)
{
    if (!host->info.sharers_max)
        return UINT64_MAX;
    return host->info.sharers_max > mappings ? host->info.sharers_max - mappings
                                             : 0;
}

/* Has page `page` of the group the content with this fingerprint, as far as its
 * word or frame remembers? *ret_room: how many more may share it then. */
static bool holds(struct pgshare_host *host, uint32_t page, uint32_t group,
                  uint32_t print, uint64_t *ret_room)
{
    const struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];
    struct pgs_lookup lookup;
    uint64_t word;
    uint32_t frame;
    bool equal;

    if (!chunk->words || !chunk->domain || chunk->domain->group != group)
        return false;
    word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                memory_order_acquire);
    if (word & PGS_BUSY)
        return false;
    *ret_room = room_of(host, 1);
    if (pgs_word_state(word) == PGS_PRIVATE)
        return pgs_word_index(word) == print && !(word & PGS_UNSHAREABLE);
    if (pgs_word_state(word) != PGS_SHARED ||
        pgs_word_index(word) == PGS_NODE_ZERO)
        return false;
    pgs_lookup_begin(&lookup, host);
    frame = pgs_lookup_frame(&lookup, pgs_word_index(word), page);
    equal = frame != PGS_NONE &&
            pgs_frame_at(&host->frames, frame)->fingerprint == print;
    if (equal)
        *ret_room = room_of(host, pgs_frame_at(&host->frames, frame)->mappings);
    pgs_lookup_end(&lookup);
    return equal;
}

bool pgs_match_holds(struct pgshare_host *host, uint32_t page, uint32_t group,
                     uint32_t print)
{
    uint64_t room;

    return holds(host, page, group, print, &room) && room;
}

/* A page in flight may match when it has come down; it stays in the index. */
static bool is_in_flight(struct pgshare_host *host, uint32_t page)
{
    return host->chunks.list[page >> PGS_CHUNK_SHIFT].words &&
           atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                memory_order_acquire) &
               PGS_BUSY;
}

/*
 * Is that a page with this content that somebody holds? Its block is done again
 * when it is not held any more, which may have come meanwhile: then it is like
 * one in flight.
 */
static bool is_held(struct pgshare_host *host, uint32_t page, uint32_t group,
                    uint32_t print, bool *ret_later)
{
    const struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];
    uint64_t word;

    if (!chunk->words || !chunk->domain)
        return false;
    word = atomic_load(pgs_word_at(&host->chunks, page));
    if (pgs_word_state(word) != PGS_PRIVATE || pgs_word_index(word) != print ||
        chunk->domain->group != group ||
        word & PGS_UNSHAREABLE & ~PGS_ATTR_HELD)
        return false;
    *ret_later |= !(word & PGS_ATTR_HELD) || !pgs_scan_miss(host, page);
    return true;
}

/* What an entry's page is known for. */
static bool look(void *ctx, uint32_t page, uint64_t *ret_key)
{
    struct pgshare_host *host = ctx;
    const struct pgs_chunk *chunk = &host->chunks.list[page >> PGS_CHUNK_SHIFT];
    struct pgs_lookup lookup;
    uint32_t frame, print = 0;
    uint64_t word;

    if (!chunk->words || !chunk->domain)
        return false;
    word = atomic_load_explicit(pgs_word_at(&host->chunks, page),
                                memory_order_acquire);
    if (pgs_word_state(word) == PGS_PRIVATE && !(word & PGS_ATTR_VOLATILE)) {
        print = pgs_word_index(word);
    } else if (pgs_word_state(word) == PGS_SHARED &&
               pgs_word_index(word) != PGS_NODE_ZERO) {
        pgs_lookup_begin(&lookup, host);
        frame = pgs_lookup_frame(&lookup, pgs_word_index(word), page);
        if (frame != PGS_NONE)
            print = pgs_frame_at(&host->frames, frame)->fingerprint;
        pgs_lookup_end(&lookup);
    }
    *ret_key = pgs_scan_key(print, chunk->domain->group);
    return print;
}

/* ---- fingerprints that proposed wrongly ---------------------------------- */

static struct pgs_mismatch *mismatch_of(struct pgs_scan *scan, uint32_t key)
{
    return &scan->mismatches[pgs_mix(key) % PGS_MISMATCHES];
}

static bool is_given_up(const struct pgs_match *match, uint32_t key)
{
    struct pgshare_host *host = match->host;
    const struct pgs_mismatch *mismatch = mismatch_of(&host->policy->scan, key);

    return mismatch->key == key && mismatch->n >= host->options.max_mismatches;
}

/* Its bytes differ, or those of a page that a floor keeps it together with. */
static bool is_refuted(const struct pgs_extent *extent, uint32_t k)
{
    return extent->result[k] == PGSHARE_ERR_DIFFERENT ||
           extent->result[k] == PGS_EXTENT_APART;
}

/* While the batch is looked at: these pages are anybody's again. Later nobody
 * else wants them, but for fingerprints that collide: two pages that equalled a
 * third would have been shared. */
static void untake_different(struct pgs_match *match,
                             const struct pgs_extent *extent)
{
    for (uint32_t k = 0; match->batch && k < extent->count; k++) {
        uint32_t i = extent->client.page + k - match->batch->page;

        if (!is_refuted(extent, k) || i >= match->batch->count)
            continue;
        match->taken[i / 64] &= ~(UINT64_C(1) << i % 64);
    }
}

/* What was kept from being shared by something that passes, the next pass looks
 * at again. */
static void forget_missed(struct pgshare_host *host,
                          const struct pgs_extent *extent)
{
    for (uint32_t k = 0; k < extent->count; k++)
        if (!(extent->page[k] & PGS_PAGE_DONE) && !is_refuted(extent, k))
            pgs_scan_forget(extent->client.domain, extent->client.page + k);
}

void pgs_match_learn(struct pgshare_host *host, const struct pgs_extent *extent)
{
    struct pgs_scan *scan = &host->policy->scan;
    uint32_t key = (uint32_t)extent->object; /* of its first page */
    struct pgs_mismatch *mismatch = mismatch_of(scan, key);

    if (extent->cause != PGSHARE_CAUSE_SCAN)
        return;
    untake_different(&scan->match, extent);
    forget_missed(host, extent);
    if (!extent->source.domain || extent->position)
        return;
    if (!extent->result[0] && mismatch->key == key)
        mismatch->n = 0; /* two contents, one of which was the right one */
    if (extent->result[0] != PGSHARE_ERR_DIFFERENT)
        return;
    if (mismatch->key != key)
        *mismatch = (struct pgs_mismatch){ .key = key, .page = PGS_PAGE_NONE };
    /* a look counts once: all mappings of one frame may have been proposed */
    mismatch->n += mismatch->page != extent->client.page ||
                   mismatch->batch != scan->match.batches;
    mismatch->page = extent->client.page;
    mismatch->batch = scan->match.batches;
}

/* ---- one batch ----------------------------------------------------------- */

/* The whole fingerprint of the k-th page chosen; false: it has none. */
static bool print_of(const struct pgs_batch *batch, uint32_t k,
                     uint64_t *ret_print)
{
    uint32_t i = batch->at[k] - (uint32_t)batch->first;

    if (batch->again) {
        *ret_print = batch->ids[k];
        return true;
    }
    *ret_print = batch->ids[i];
    return !batch->status[i];
}

static uint32_t key_of(const struct pgs_match *match, uint32_t print)
{
    return (uint32_t)pgs_scan_key(print, match->domain->group);
}

static void set_matched(struct pgs_match *match, uint32_t k)
{
    pgs_bit_set(match->matched, k);
}

/* The page is left alone for a while, if it is still as it was. */
static void set_wait(struct pgs_match *match, uint32_t k, uint64_t word,
                     uint16_t wait)
{
    const struct pgs_batch *batch = match->batch;
    _Atomic uint64_t *at = pgs_word_at(&match->host->chunks,
                                       batch->page + batch->at[k]);
    uint64_t next = (word & ~PGS_WORD_EPOCH) | (uint64_t)wait << 48;

    if (next != word && pgs_scan_is_plain(match->domain, word))
        atomic_compare_exchange_strong_explicit(at, &word, next,
                                                memory_order_release,
                                                memory_order_relaxed);
}

static uint64_t word_of(const struct pgs_match *match, uint32_t k)
{
    const struct pgs_batch *batch = match->batch;

    return atomic_load_explicit(pgs_word_at(&match->host->chunks,
                                            batch->page + batch->at[k]),
                                memory_order_acquire);
}

/* What was not written needs no look: it is in the index. What keeps changing
 * is left alone for a while. */
static bool note_turn(struct pgs_match *match, uint32_t k, uint32_t print)
{
    const struct pgs_batch *batch = match->batch;
    uint64_t word = word_of(match, k);
    bool changed = batch->old[k] ? batch->old[k] != print
                                 : pgs_scan_is_broken(word, batch->turn);

    set_wait(match, k, word, pgs_scan_wait(word, batch->turn, changed));
    return batch->old[k] == print;
}

/* Prints by offset; zero pages apart; sends for the places of all others. The
 * batch's arrays keep only what is to be looked up. */
static void prepare(struct pgs_match *match)
{
    struct pgs_policy *policy = match->host->policy;
    struct pgs_batch *batch = match->batch;
    uint32_t n = 0;

    memset(match->print, 0, batch->count * sizeof(match->print[0]));
    for (uint32_t k = 0; k < batch->n; k++) {
        uint64_t whole;
        uint32_t print;

        if (!print_of(batch, k, &whole))
            continue;
        print = pgs_scan_print(whole);
        match->print[batch->at[k]] = print;
        if (!batch->logged && !batch->again && note_turn(match, k, print) &&
            !batch->all)
            continue;
        if (batch->old[k] && batch->old[k] != print)
            pgs_index_seek(&policy->index, key_of(match, batch->old[k]),
                           &match->old_seek[n]);
        pgs_index_seek(&policy->index, key_of(match, print), &match->seek[n]);
        batch->at[n] = batch->at[k];
        batch->old[n] = batch->old[k];
        batch->ids[n] = whole;
        n++;
    }
    batch->n = n;
}

/* Entries of pages that have changed go. */
static void forget_old(struct pgs_match *match)
{
    struct pgs_index *index = &match->host->policy->index;
    const struct pgs_batch *batch = match->batch;

    for (uint32_t k = 0; k < batch->n; k++)
        if (batch->old[k] && batch->old[k] != match->print[batch->at[k]])
            pgs_index_remove(index, &match->old_seek[k],
                             batch->page + batch->at[k]);
}

/* Without memory, or beyond the batch, a later pass has to do. */
void pgs_match_leave(struct pgs_match *match, uint32_t page)
{
    uint32_t i = page - match->batch->page;

    if (i < match->batch->count && match->print[i] &&
        !pgs_candidate_room(match->host))
        pgs_bit_set(match->left, i);
    else
        pgs_scan_forget(match->domain, page);
}

/* The run of pages of zeroes that begins with the k-th; its length. */
static uint32_t share_zeroes(struct pgs_match *match, uint32_t k)
{
    const struct pgs_batch *batch = match->batch;
    uint32_t first = batch->at[k], n = 0;

    for (; k + n < batch->n && batch->ids[k + n] == match->domain->zero &&
           batch->at[k + n] == first + n;
         n++)
        set_matched(match, k + n);
    pgs_blocks_zeroes(match, batch->page + first, n);
    return n;
}

/* Is the entry of this page, which does not hold the content that was sought,
 * that of no other content either? */
static bool is_stale(struct pgs_match *match, uint32_t k, uint32_t page)
{
    uint64_t key;

    return !look(match->host, page, &key) ||
           !pgs_index_is_of(&match->seek[k], key);
}

/* A page of this batch has its entry before its word is noted, or after it was
 * forgotten. */
static bool is_of_batch(const struct pgs_match *match, uint32_t page,
                        uint32_t print)
{
    uint32_t i = page - match->batch->page;

    return i < match->batch->count && match->print[i] == print;
}

/*
 * Has this page, which looks like the k-th, room for it beside those that are
 * proposed already? When they use it up they go first, and then it is known.
 */
static bool has_room(struct pgs_match *match, uint32_t k, uint32_t page,
                     uint64_t room)
{
    if (room > pgs_blocks_proposed(match, page))
        return true;
    pgs_blocks_share(match);
    return pgs_match_holds(match->host, page, match->domain->group,
                           match->print[match->batch->at[k]]);
}

/* Of full frames few entries stay, so that there is room for other pages of
 * that content, and they are found when a mapping goes. */
static void note_full(struct pgs_match *match, uint32_t k, uint32_t page,
                      struct found *found)
{
    if (++found->full > COPIES)
        pgs_index_remove(&match->host->policy->index, &match->seek[k], page);
}

/* Each page that the index proposes for the k-th page is an anchor. */
static void look_up(struct pgs_match *match, uint32_t k,
                    struct found *ret_found)
{
    struct pgs_index *index = &match->host->policy->index;
    const struct pgs_batch *batch = match->batch;
    uint32_t self = batch->page + batch->at[k];
    uint32_t print = match->print[batch->at[k]];
    uint32_t cursor = 0, page, n;
    uint64_t room;

    ret_found->any = pgs_index_next(index, &match->seek[k], &cursor, &page);
    if (!ret_found->any || is_given_up(match, key_of(match, print)))
        return;
    do {
        if (page == self) {
            ret_found->self = true;
        } else if (is_in_flight(match->host, page)) {
            ret_found->later = true;
        } else if (holds(match->host, page, match->domain->group, print,
                         &room)) {
            if (!has_room(match, k, page, room)) {
                note_full(match, k, page, ret_found);
                continue;
            }
            n = pgs_blocks_anchor(match, self, page);
            if (!n) /* a floor forbids it: as if there were none */
                continue;
            ret_found->match = true;
            ret_found->copies++;
            if (n >= PGS_RUN_LONG)
                break;
        } else if (is_held(match->host, page, match->domain->group, print,
                           &ret_found->later)) {
            continue;
        } else if (is_of_batch(match, page, print)) {
            ret_found->copies++;
        } else if (is_stale(match, k, page)) {
            pgs_index_remove(index, &match->seek[k], page);
        }
    } while (pgs_index_next(index, &match->seek[k], &cursor, &page));
}

/* Notes the fingerprint in the word, or 0 and that nothing is known, if the page
 * is still as it was. */
static bool note(struct pgs_match *match, uint32_t k, uint32_t print)
{
    const struct pgs_batch *batch = match->batch;
    _Atomic uint64_t *at = pgs_word_at(&match->host->chunks,
                                       batch->page + batch->at[k]);
    uint64_t word = word_of(match, k);
    uint64_t keep = PGS_ATTR_ALL | PGS_STATE;
    uint32_t known = pgs_word_index(word);
    uint64_t next;

    if (print && !(word & (uint64_t)PGS_EPOCH_MARK << 48))
        keep |= PGS_WORD_EPOCH;
    next = (word & keep) | (uint64_t)print << PGS_PAYLOAD_SHIFT;
    return pgs_scan_is_plain(match->domain, word) &&
           (!known || known == batch->old[k] ||
            known == match->print[batch->at[k]]) &&
           atomic_compare_exchange_strong_explicit(at, &word, next,
                                                   memory_order_release,
                                                   memory_order_relaxed);
}

static void enter(struct pgs_match *match, uint32_t k, bool alone)
{
    pgs_index_add(&match->host->policy->index, &match->seek[k],
                  match->batch->page + match->batch->at[k], alone);
}

/* Without a log their words keep the turn, too: should a page come back private,
 * it has changed. */
static void note_proposed(struct pgs_match *match, uint32_t k)
{
    const struct pgs_batch *batch = match->batch;
    uint64_t word;

    if (!note(match, k, match->print[batch->at[k]]) || batch->logged)
        return;
    word = word_of(match, k);
    set_wait(match, k, word, pgs_scan_pause(word, batch->turn));
}

void pgs_match_note(struct pgs_match *match)
{
    for (uint32_t k = 0; k < match->batch->n; k++)
        if (pgs_bit_has(match->matched, k))
            note_proposed(match, k);
    memset(match->matched, 0, sizeof(match->matched));
}

/* Looks at the k-th page; answers how many pages that dealt with. */
static uint32_t look_at(struct pgs_match *match, uint32_t k)
{
    const struct pgs_batch *batch = match->batch;
    uint32_t print = match->print[batch->at[k]];
    struct found found = { 0 };

    if (batch->ids[k] == match->domain->zero)
        return share_zeroes(match, k);
    look_up(match, k, &found);
    if (found.later)
        note(match, k, 0);
    else if (found.match)
        set_matched(match, k);
    else if (!note(match, k, print))
        return 1;
    if (!found.self && (found.match ? found.copies < COPIES : !found.later))
        enter(match, k, !found.any);
    return 1;
}

/* More entries than pages: some are of contents that are gone. As many buckets
 * are looked at as pages may be entered. */
static void sweep(struct pgs_match *match, uint64_t tracked)
{
    struct pgshare_host *host = match->host;
    struct pgs_index *index = &host->policy->index;

    if (index->used > tracked + tracked / 32 + PGS_BLOCK)
        pgs_index_sweep(index, match->batch->n, look, host);
}

/* The batch becomes what is left of it: pages without room, and from the k-th
 * one on. */
static void keep_left(struct pgs_match *match, uint32_t k)
{
    struct pgs_batch *batch = match->batch;
    uint32_t n = 0;

    for (uint32_t j = 0; j < batch->n; j++) {
        uint32_t i = batch->at[j];

        if (j < k && !pgs_bit_has(match->left, i))
            continue;
        batch->at[n] = batch->at[j];
        batch->old[n] = batch->old[j];
        batch->ids[n] = batch->ids[j];
        n++;
    }
    batch->n = n;
    batch->again = true;
}

static void begin(struct pgs_match *match)
{
    uint64_t tracked = pgs_shards_sum(&match->host->shards, PGS_LEVEL_TRACKED);

    sweep(match, tracked);
    pgs_index_reserve(&match->host->policy->index, match->batch->n, tracked);
    memset(match->taken, 0, sizeof(match->taken));
    memset(match->left, 0, sizeof(match->left));
    memset(match->matched, 0, sizeof(match->matched));
    match->steps = STEPS_MAX;
    match->n_runs = 0;
    match->batches++;
    prepare(match);
    forget_old(match);
}

bool pgs_match_batch(struct pgs_match *match)
{
    struct pgs_batch *batch = match->batch;
    uint32_t k = 0;

    begin(match);
    while (k < batch->n && pgs_candidate_room(match->host))
        k += look_at(match, k);
    pgs_blocks_share(match);
    keep_left(match, k);
    match->batch = NULL;
    return !batch->n;
}
