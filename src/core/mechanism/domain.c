/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a domain.
 *
 * Its name, (domid, generation), is taken from before the backend knows the
 * domain until it is unlisted.
 *
 * A removed domain is unlisted first: its slot is empty, so nobody new finds
 * it. Then those who are inside the library must have left (a grace period of
 * base/shard.h), and the calls that concern it must have ended; operations on
 * its own pages are answered GONE for the backend, so only an operation on
 * another domain's page that names this one as its source can make us wait. A
 * stuck one cannot hold up the caller for ever: the domain stays on the list
 * of the dying, and the runner buries it when the answer has come.
 *
 * Giving up what it has is linear in its words and takes no memory: mappings
 * are unlinked, marks, holds and volatile pages forgotten. The backend drops
 * its own view at once by domain_remove().
 */
#include "mechanism/domain.h"

#include "mechanism/fault.h"
#include "mechanism/group.h"
#include "mechanism/hold.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"
#include "mechanism/ring.h"

#include <string.h>

#define NAP_NS UINT64_C(1000000)
/* After an undo that failed, the next one comes so much later. */
#define UNDO_PAUSE_NS UINT64_C(1000000)
/* Words that one turn of an undo looks at. */
#define UNDO_LOOKS PGS_CHUNK_GFNS

/* ---- names ------------------------------------------------------------- */

static struct pgs_domain **bucket_of(struct pgshare_host *host, uint32_t domid,
                                     uint64_t generation)
{
    return &host->names[pgs_mix(pgs_mix(generation) ^ domid) % PGS_NAMES];
}

struct pgs_domain *pgs_domain_named(struct pgshare_host *host, uint32_t domid,
                                    uint64_t generation)
{
    struct pgs_domain *domain = *bucket_of(host, domid, generation);

    while (domain &&
           (domain->domid != domid || domain->generation != generation))
        domain = domain->next_named;
    return domain;
}

static void enter_name(struct pgs_domain *domain)
{
    struct pgs_domain **bucket = bucket_of(domain->host, domain->domid,
                                           domain->generation);

    domain->next_named = *bucket;
    *bucket = domain;
}

static void forget_name(struct pgs_domain *domain)
{
    struct pgs_domain **link = bucket_of(domain->host, domain->domid,
                                         domain->generation);

    while (*link != domain)
        link = &(*link)->next_named;
    *link = domain->next_named;
}

/* ---- making ------------------------------------------------------------ */

static void free_domain(struct pgs_domain *domain)
{
    struct pgs_heap *heap = &domain->host->heap;

    if (!domain->dir)
        goto no_dir;
    for (uint32_t i = 0; i < domain->dir_len; i++) {
        uint32_t chunk =
            atomic_load_explicit(&domain->dir[i], memory_order_relaxed);

        if (chunk)
            pgs_chunks_remove(&domain->host->chunks, chunk - 1);
    }
    pgs_fifo_fini(&domain->fifo);
    pgs_mutex_fini(&domain->lock);
    pgs_heap_free(heap, domain->floors, domain->dir_len, PGS_CHUNK_REGIONS);
    PGS_FREE_N(heap, domain->dir, domain->dir_len);
no_dir:
    PGS_FREE(heap, domain);
}

static struct pgs_domain *new_domain(struct pgshare_host *host,
                                     const struct pgshare_domain_options *o)
{
    struct pgs_domain *domain = PGS_NEW(&host->heap, struct pgs_domain);

    if (!domain)
        return NULL;
    domain->host = host;
    domain->domid = o->domid;
    domain->generation = o->generation;
    domain->gfns = o->gfns;
    domain->caps = host->info.caps;
    domain->dir_len =
        (uint32_t)((o->gfns + PGS_CHUNK_GFNS - 1) >> PGS_CHUNK_SHIFT);
    atomic_init(&domain->undo_lo, UINT64_MAX);
    if (pgs_mutex_init(&domain->lock, PGS_RANK_DOMAIN))
        goto no_lock;
    pgs_fifo_init(&domain->fifo, &host->heap);
    domain->dir = PGS_NEW_N(&host->heap, _Atomic uint32_t, domain->dir_len);
    if (domain->dir)
        return domain;
    pgs_fifo_fini(&domain->fifo);
    pgs_mutex_fini(&domain->lock);
no_lock:
    PGS_FREE(&host->heap, domain);
    return NULL;
}

/* A slot that nobody uses; the dying keep theirs until they are buried. */
static uint32_t find_slot(struct pgshare_host *host)
{
    const uint8_t *free = memchr(host->taken + 1, 0, PGS_SLOTS - 1);

    return free ? (uint32_t)(free - host->taken) : 0;
}

/* domains_lock held: gives the domain its group, slot and handle. */
static int list_domain(struct pgs_domain *domain,
                       const struct pgshare_domain_options *o)
{
    struct pgshare_host *host = domain->host;
    int r;

    if (pgs_domain_named(host, o->domid, o->generation))
        return PGSHARE_ERR_EXISTS;
    if (o->group && !pgs_group_is_named(host, o->group))
        return PGSHARE_ERR_GROUP;
    domain->slot = find_slot(host);
    if (!domain->slot)
        return PGSHARE_ERR_FULL;
    domain->group = (uint32_t)o->group;
    if (!domain->group) {
        r = pgs_group_open(host, NULL, &domain->group);
        if (r)
            return r;
    }
    host->groups[domain->group].domains++;
    domain->seed = host->groups[domain->group].seed;
    domain->zero = host->groups[domain->group].zero;
    host->taken[domain->slot] = 1;
    if (domain->slot >= host->slots_used)
        host->slots_used = domain->slot + 1;
    domain->handle = ++host->serial * PGS_SLOTS + domain->slot;
    enter_name(domain);
    host->n_domains++;
    return 0;
}

static void delist_domain(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;

    pgs_mutex_lock(&host->domains_lock);
    pgs_group_leave(host, domain->group);
    host->taken[domain->slot] = 0;
    host->n_domains--;
    pgs_mutex_unlock(&host->domains_lock);
}

int pgs_domain_new(struct pgshare_host *host,
                   const struct pgshare_domain_options *options,
                   struct pgs_domain **ret_domain)
{
    struct pgshare_domain_attach attach = { .size = sizeof(attach) };
    struct pgs_domain *domain = new_domain(host, options);
    int r;

    if (!domain)
        return PGSHARE_ERR_NOMEM;
    pgs_mutex_lock(&host->domains_lock);
    r = list_domain(domain, options);
    pgs_mutex_unlock(&host->domains_lock);
    if (r) {
        free_domain(domain);
        return r;
    }
    pgs_lock_assert_none();
    r = host->backend->ops->domain_add(host->backend, domain->handle, options,
                                       &attach);
    if (r) {
        pgs_mutex_lock(&host->domains_lock);
        forget_name(domain);
        pgs_mutex_unlock(&host->domains_lock);
        delist_domain(domain);
        free_domain(domain);
        return r < 0 ? r : PGSHARE_ERR_BACKEND;
    }
    domain->cookie = attach.cookie;
    domain->caps |= attach.caps;
    atomic_store_explicit(&host->slots[domain->slot], domain,
                          memory_order_release);
    *ret_domain = domain;
    return 0;
}

int pgs_domain_words(struct pgs_domain *domain, uint64_t gfn, uint64_t count)
{
    struct pgshare_host *host = domain->host;
    uint64_t last = (gfn + count - 1) >> PGS_CHUNK_SHIFT;
    int r = 0;

    assert(pgs_range_ok(domain, gfn, count));
    pgs_mutex_lock(&host->domains_lock);
    for (uint64_t i = gfn >> PGS_CHUNK_SHIFT; !r && i <= last; i++) {
        uint32_t chunk;

        if (atomic_load_explicit(&domain->dir[i], memory_order_relaxed))
            continue;
        r = pgs_chunks_add(&host->chunks, domain, i << PGS_CHUNK_SHIFT,
                           &chunk);
        if (!r)
            atomic_store_explicit(&domain->dir[i], chunk + 1,
                                  memory_order_release);
    }
    pgs_mutex_unlock(&host->domains_lock);
    return r;
}

/* ---- giving up --------------------------------------------------------- */

void pgs_page_drop(struct pgshare_host *host, uint32_t page, uint64_t word)
{
    const uint64_t all = PGS_ATTR_ALL & ~(PGS_ATTR_NEVER | PGS_ATTR_READONLY);

    if (pgs_word_state(word) == PGS_SHARED) {
        pgs_unsecured_end(pgs_page_domain(host, page), 1);
        pgs_page_unmap(host, pgs_word_index(word));
    } else if (pgs_word_state(word) == PGS_PROTECTED) {
        pgs_page_unmark(host, pgs_word_index(word));
    }
    if (pgs_word_state(word) != PGS_HOLE)
        pgs_count(&host->shards, PGS_LEVEL_TRACKED, (uint64_t)-1);
    pgs_page_commit(host, page, PGS_HOLE, all, 0);
}

static bool clear_chunk(struct pgshare_host *host, uint32_t chunk)
{
    uint32_t first = chunk << PGS_CHUNK_SHIFT;
    bool clear = true;

    for (uint32_t page = first; page - first < PGS_CHUNK_GFNS; page++) {
        _Atomic uint64_t *at = pgs_word_at(&host->chunks, page);
        uint64_t word = atomic_load_explicit(at, memory_order_relaxed);

        if (pgs_word_state(word) == PGS_HOLE && !(word & PGS_BUSY) &&
            !(word & PGS_ATTR_HELD))
            continue;
        if (!pgs_word_trylock(at, true, &word)) {
            clear = false;
            continue;
        }
        if (word & PGS_ATTR_HELD)
            pgs_hold_forget(host, page);
        pgs_page_drop(host, page, word);
    }
    return clear;
}

bool pgs_domain_clear(struct pgs_domain *domain)
{
    bool clear = true;

    pgs_ledger_forget(domain);
    for (uint32_t i = 0; i < domain->dir_len; i++) {
        uint32_t chunk =
            atomic_load_explicit(&domain->dir[i], memory_order_acquire);

        if (chunk && !clear_chunk(domain->host, chunk - 1))
            clear = false;
    }
    return clear;
}

void pgs_domain_gone(void *ctx, uint64_t dom)
{
    struct pgshare_host *host = ctx;
    uint32_t ticket = pgs_shards_enter(&host->shards);
    struct pgs_domain *domain = pgs_domain_of(host, dom);

    if (domain) {
        atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_GONE,
                                 memory_order_release);
        pgs_wake(host);
    }
    pgs_shards_leave(&host->shards, ticket);
}

bool pgs_domain_unlist(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;
    bool ours;

    pgs_mutex_lock(&host->domains_lock);
    ours = atomic_load_explicit(&host->slots[domain->slot],
                                memory_order_relaxed) == domain;
    if (ours) {
        atomic_store_explicit(&host->slots[domain->slot], NULL,
                              memory_order_seq_cst); /* see base/shard.c */
        forget_name(domain);
        atomic_fetch_or_explicit(&domain->flags, PGS_DOMAIN_DYING,
                                 memory_order_release);
        domain->next_dying = host->dying;
        host->dying = domain;
    }
    pgs_mutex_unlock(&host->domains_lock);
    return ours;
}

static void unlink_dying(struct pgs_domain *domain)
{
    struct pgs_domain **link = &domain->host->dying;

    pgs_mutex_lock(&domain->host->domains_lock);
    while (*link != domain)
        link = &(*link)->next_dying;
    *link = domain->next_dying;
    pgs_mutex_unlock(&domain->host->domains_lock);
}

/* How long a burial may wait. */
struct vigil {
    struct pgs_domain *domain;
    uint64_t start;
    uint64_t timeout;
};

/* Answers, for the backend, whatever concerns the domain's own pages, and lets
 * the calls go on that end by it. False: the time is over. */
static bool push_on(void *ctx)
{
    struct vigil *vigil = ctx;
    struct pgshare_host *host = vigil->domain->host;

    pgs_calls_cancel(host, vigil->domain);
    pgs_calls_run(host, vigil->domain);
    pgs_host_poll_backend(host);
    return pgs_now(&host->platform) - vigil->start <= vigil->timeout;
}

static bool wait_for_calls(struct vigil *vigil)
{
    struct pgshare_host *host = vigil->domain->host;

    while (pgs_calls_cancel(host, vigil->domain)) {
        bool in_time = push_on(vigil);
        uint32_t seen;

        pgs_calls_expire(host, pgs_now(&host->platform));
        if (!pgs_calls_cancel(host, vigil->domain))
            break;
        if (!in_time)
            return false;
        seen = pgs_channel_prepare(&host->channel);
        pgs_channel_wait(&host->channel, seen, NAP_NS);
    }
    return true;
}

/* Nobody and nothing concerns it any more. */
static void inter(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;

    pgs_domain_clear(domain);
    pgs_lock_assert_none();
    host->backend->ops->domain_remove(host->backend, domain->cookie);
    unlink_dying(domain);
    if (pgs_domain_flags(domain) & PGS_DOMAIN_LEFT) /* by now they are done */
        atomic_store_explicit(&host->recount, PGS_RECOUNT_WANTED,
                              memory_order_relaxed);
    pgs_frames_let_go(domain);
    delist_domain(domain);
    pgs_mutex_lock(&host->domains_lock);
    free_domain(domain);
    pgs_mutex_unlock(&host->domains_lock);
}

bool pgs_domain_bury(struct pgs_domain *domain, uint64_t timeout,
                     uint32_t *own)
{
    struct vigil vigil = { domain, pgs_now(&domain->host->platform), timeout };

    if (!pgs_shards_drain(&domain->host->shards, own, push_on, &vigil) ||
        !wait_for_calls(&vigil))
        return false;
    inter(domain);
    return true;
}

void pgs_domain_abandon(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;

    for (uint32_t i = 0; i < host->calls.size; i++)
        pgs_call_abandon(&host->calls.pool[i], PGSHARE_ERR_GONE);
    pgs_calls_run(host, NULL);
    inter(domain);
}

/* ---- undo -------------------------------------------------------------- */

/* Is a page to be undone: a secret that is shared or marked, or one that the
 * backend has not made writable yet? */
static bool is_overdue(uint64_t word)
{
    return word & PGS_ATTR_STUCK ||
           (word & PGS_ATTR_NEVER &&
            (word & PGS_BUSY || pgs_word_state(word) >= PGS_PROTECTED));
}

/* What fails now (for want of memory, say) would fail again at once. */
static void note_undone(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;

    if (call->result)
        atomic_store_explicit(&domain->undo_after,
                              pgs_now(&call->host->platform) + UNDO_PAUSE_NS,
                              memory_order_relaxed);
}

/* False: all calls are taken. */
static bool undo_page(struct pgs_domain *domain, uint64_t gfn)
{
    struct pgs_call *call = pgs_fault_take(
        domain, pgs_page_of(domain, gfn), 0, PGS_FAULT_UNDO | PGS_FAULT_FORCE);

    if (!call)
        return false;
    call->gfn = gfn;
    call->finish = note_undone;
    pgs_call_launch(call);
    return true;
}

static bool is_walking(struct pgs_domain *domain)
{
    return atomic_load_explicit(&domain->undo_next, memory_order_acquire) <
           atomic_load_explicit(&domain->undo_end, memory_order_acquire);
}

uint64_t pgs_domain_undo_due(struct pgs_domain *domain)
{
    uint64_t lo = atomic_load_explicit(&domain->undo_lo, memory_order_acquire);
    uint64_t hi = atomic_load_explicit(&domain->undo_hi, memory_order_acquire);

    if (pgs_domain_flags(domain) & PGS_DOMAIN_GONE)
        return PGSHARE_FOREVER;
    return lo < hi || is_walking(domain)
               ? atomic_load_explicit(&domain->undo_after,
                                      memory_order_relaxed)
               : PGSHARE_FOREVER;
}

/* Takes what was declared until now; whoever declares more widens an empty
 * range, which is walked after this one. */
static void begin_walk(struct pgs_domain *domain)
{
    uint64_t hi;

    pgs_mutex_lock(&domain->lock);
    domain->undo_first =
        atomic_load_explicit(&domain->undo_lo, memory_order_relaxed);
    hi = atomic_load_explicit(&domain->undo_hi, memory_order_relaxed);
    domain->undo_left = domain->undo_secrets = false;
    atomic_store_explicit(&domain->undo_next, domain->undo_first,
                          memory_order_release);
    atomic_store_explicit(&domain->undo_end, hi, memory_order_release);
    atomic_store_explicit(&domain->undo_lo, UINT64_MAX, memory_order_release);
    atomic_store_explicit(&domain->undo_hi, 0, memory_order_release);
    pgs_mutex_unlock(&domain->lock);
}

/* Goes on from `gfn`; answers where this turn has to stop. */
static uint64_t walk(struct pgs_domain *domain, uint64_t gfn, uint64_t end,
                     uint32_t budget)
{
    for (uint32_t n = 0; gfn < end && n < UNDO_LOOKS; n++, gfn++) {
        uint64_t word;

        if (pgs_page_of(domain, gfn) == PGS_PAGE_NONE) {
            gfn |= PGS_CHUNK_GFNS - 1;
            continue;
        }
        word = pgs_word_peek(domain, gfn);
        domain->undo_secrets |= (word & PGS_ATTR_NEVER) != 0;
        if (!is_overdue(word))
            continue;
        domain->undo_left = true;
        if (word & PGS_BUSY)
            continue;
        if (!budget || !undo_page(domain, gfn))
            break;
        budget--;
    }
    return gfn < end ? gfn : end;
}

/* What was left is walked over again, until there is nothing; then it is told,
 * once for the whole range. */
static void end_walk(struct pgs_domain *domain, uint64_t end)
{
    uint64_t first = domain->undo_first;
    bool more;

    /* what was declared behind the walk may be of this range */
    pgs_mutex_lock(&domain->lock);
    more = atomic_load_explicit(&domain->undo_lo, memory_order_relaxed) <
           atomic_load_explicit(&domain->undo_hi, memory_order_relaxed);
    pgs_mutex_unlock(&domain->lock);
    if (domain->undo_left || (more && domain->undo_secrets))
        pgs_undo_widen(domain, first, end);
    else if (domain->undo_secrets)
        pgs_report(domain->host, PGSHARE_REPORT_NEVER_SHARE_DONE, 0,
                   domain->handle, first, end - first);
}

bool pgs_domain_undo(struct pgs_domain *domain, uint32_t budget)
{
    uint64_t next, end;

    if (pgs_now(&domain->host->platform) < pgs_domain_undo_due(domain))
        return false;
    if (!is_walking(domain))
        begin_walk(domain);
    next = atomic_load_explicit(&domain->undo_next, memory_order_relaxed);
    end = atomic_load_explicit(&domain->undo_end, memory_order_relaxed);
    next = walk(domain, next, end, budget);
    atomic_store_explicit(&domain->undo_next, next, memory_order_release);
    if (next == end)
        end_walk(domain, end);
    return pgs_domain_undo_due(domain) != PGSHARE_FOREVER;
}

void pgs_undo_widen(struct pgs_domain *domain, uint64_t lo, uint64_t hi)
{
    pgs_mutex_lock(&domain->lock);
    if (lo < atomic_load_explicit(&domain->undo_lo, memory_order_relaxed))
        atomic_store_explicit(&domain->undo_lo, lo, memory_order_release);
    if (hi > atomic_load_explicit(&domain->undo_hi, memory_order_relaxed))
        atomic_store_explicit(&domain->undo_hi, hi, memory_order_release);
    pgs_mutex_unlock(&domain->lock);
}
