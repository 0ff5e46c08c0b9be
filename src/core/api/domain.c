/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains and trust groups, as the embedder sees them.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/fault.h"
#include "mechanism/ledger.h"
#include "mechanism/page.h"
#include "mechanism/reserve.h"

#include <pgshare/domain.h>
#include <pgshare/fault.h>
#include <pgshare/group.h>

#include <string.h>
#include <time.h>

int pgshare_group_open(struct pgshare_host *host, const char *name,
                       uint64_t *ret_group)
{
    struct pgs_visit visit;
    uint32_t group;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!name || !ret_group || !*name ||
        strnlen(name, PGSHARE_GROUP_NAME_MAX + 1) > PGSHARE_GROUP_NAME_MAX)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    pgs_mutex_lock(&host->domains_lock);
    r = pgs_group_open(host, name, &group);
    pgs_mutex_unlock(&host->domains_lock);
    if (!r)
        *ret_group = group;
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_add(struct pgshare_host *host,
                       const struct pgshare_domain_options *given,
                       uint64_t *ret_dom)
{
    struct pgshare_domain_options options;
    struct pgs_domain *domain;
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!given || !ret_dom)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    r = pgs_abi_in(&options, sizeof(options), sizeof(options), given);
    if (!r && options.flags)
        r = PGSHARE_ERR_INVALID;
    if (!r && (!options.gfns || options.gfns > PGSHARE_TRACKED_MAX))
        r = PGSHARE_ERR_RANGE;
    if (!r)
        r = pgs_domain_new(host, &options, &domain);
    if (!r)
        *ret_dom = domain->handle;
    return pgs_visit_end(&visit, r);
}

/* ---- removal ----------------------------------------------------------- */

/* Waits for the runner's place, but not for ever: a runner that waits for the
 * caller's own outer call would never give it up. */
static bool become_runner(struct pgshare_host *host)
{
    static const struct timespec nap = { .tv_nsec = 50000 };
    uint64_t start = pgs_now(&host->platform);

    if (atomic_load_explicit(&host->runner, memory_order_relaxed) ==
        (uintptr_t)pthread_self())
        return false;
    while (!pgs_mutex_trylock(&host->run)) {
        if (pgs_now(&host->platform) - start >= host->options.timeout_ns)
            return false;
        nanosleep(&nap, NULL);
    }
    atomic_store_explicit(&host->runner, (uintptr_t)pthread_self(),
                          memory_order_relaxed);
    return true;
}

static bool is_dying(struct pgshare_host *host, struct pgs_domain *domain,
                     uint64_t handle)
{
    struct pgs_domain *d;

    pgs_mutex_lock(&host->domains_lock);
    d = host->dying;
    while (d && d != domain)
        d = d->next_dying;
    pgs_mutex_unlock(&host->domains_lock);
    return d && d->handle == handle;
}

int pgshare_domain_remove(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_domain *domain;
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    domain = visit.domain;
    if (!pgs_domain_unlist(domain))
        return pgs_visit_end(&visit, PGSHARE_ERR_NODOMAIN);
    /* outside: the runner may be waiting for all who are inside */
    pgs_visit_end(&visit, 0);
    if (!become_runner(host)) {
        pgs_wake(host);
        return PGSHARE_ERR_INPROGRESS;
    }
    if (is_dying(host, domain, dom) &&
        !pgs_domain_bury(domain, host->options.timeout_ns, NULL))
        r = PGSHARE_ERR_INPROGRESS;
    while (!r && pgs_release_launch(host))
        pgs_calls_run(host, NULL);
    atomic_store_explicit(&host->runner, 0, memory_order_relaxed);
    pgs_mutex_unlock(&host->run);
    return r;
}

/* ---- questions --------------------------------------------------------- */

int pgshare_domain_find(struct pgshare_host *host, uint32_t domid,
                        uint64_t generation, uint64_t *ret_dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!ret_dom)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    r = PGSHARE_ERR_NODOMAIN;
    pgs_mutex_lock(&host->domains_lock);
    for (uint32_t i = 1; r && i < host->slots_used; i++) {
        struct pgs_domain *domain =
            atomic_load_explicit(&host->slots[i], memory_order_seq_cst);

        if (domain && domain->domid == domid &&
            domain->generation == generation) {
            *ret_dom = domain->handle;
            r = 0;
        }
    }
    pgs_mutex_unlock(&host->domains_lock);
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_info(struct pgshare_host *host, uint64_t dom,
                        struct pgshare_domain_info *ret_info)
{
    struct pgshare_domain_info info = { .size = sizeof(info) };
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    r = ret_info ? pgs_abi_check_out(ret_info, sizeof(info))
                 : PGSHARE_ERR_INVALID;
    if (r)
        return pgs_visit_end(&visit, r);
    info.domid = visit.domain->domid;
    info.suspended =
        !!(pgs_domain_flags(visit.domain) & PGS_DOMAIN_SUSPENDED);
    info.generation = visit.domain->generation;
    info.gfns = visit.domain->gfns;
    info.group = visit.domain->group;
    pgs_abi_out(ret_info, &info, sizeof(info));
    return pgs_visit_end(&visit, 0);
}

/* ---- memory ------------------------------------------------------------ */

int pgshare_domain_ram_add(struct pgshare_host *host, uint64_t dom,
                           uint64_t gfn, uint64_t count)
{
    struct pgs_visit visit;
    uint64_t i;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_domain_words(visit.domain, gfn, count);
    for (i = 0; !r && i < count; i++) {
        _Atomic uint64_t *word = pgs_word_of(visit.domain, gfn + i);
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        uint64_t keep = seen & (PGS_ATTR_NEVER | PGS_ATTR_READONLY |
                                PGS_ATTR_HELD | PGS_ATTR_HELD_WRITE |
                                PGS_WORD_EPOCH);

        if (pgs_word_state(seen) != PGS_HOLE || seen & PGS_BUSY ||
            !atomic_compare_exchange_strong_explicit(
                word, &seen, PGS_PRIVATE | keep, memory_order_acq_rel,
                memory_order_relaxed))
            r = PGSHARE_ERR_EXISTS;
    }
    for (; r == PGSHARE_ERR_EXISTS && i-- > 1;)
        atomic_fetch_and_explicit(pgs_word_of(visit.domain, gfn + i - 1),
                                  ~PGS_STATE, memory_order_release);
    if (!r)
        pgs_count(&host->shards, PGS_LEVEL_TRACKED, count);
    return pgs_visit_end(&visit, r);
}

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

/* ---- undo -------------------------------------------------------------- */

/* Frames that the range would need if all of it broke now. */
static uint64_t frames_needed(struct pgs_domain *domain, uint64_t gfn,
                              uint64_t end)
{
    struct pgs_frames *frames = &domain->host->frames;
    uint64_t needed = 0;

    for (; gfn < end; gfn++) {
        uint64_t word = pgs_word_peek(domain, gfn);
        uint32_t frame;

        if (pgs_word_state(word) != PGS_SHARED)
            continue;
        if (pgs_word_index(word) == PGS_NODE_ZERO) {
            needed++;
            continue;
        }
        frame = pgs_node_frame(frames, pgs_word_index(word));
        if (frame == PGS_NONE)
            continue; /* it breaks this instant */
        pgs_frame_lock(frames, frame);
        needed += pgs_frame_at(frames, frame)->mappings > 1;
        pgs_frame_unlock(frames, frame);
    }
    return needed;
}

/* Frames that are missing, after the machine was asked for them. */
static uint64_t frames_missing(struct pgs_visit *visit, uint64_t needed)
{
    struct pgshare_host *host = visit->host;
    int64_t have = (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE) +
                   (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_FIFO);
    int64_t missing = (int64_t)needed - have, got = 0;

    if (missing <= 0)
        return 0;
    pgs_reserve_exchange(host, missing, host->options.timeout_ns, &got);
    if (got < missing && got > 0)
        pgs_reserve_exchange(host, -got, host->options.timeout_ns, &have);
    return got < missing ? (uint64_t)(missing - got) : 0;
}

static int unshare_page(struct pgs_visit *visit, uint64_t gfn,
                        uint64_t *ret_private)
{
    uint64_t word = pgs_word_peek(visit->domain, gfn);
    struct pgs_call *call;
    uint64_t token;
    int r;

    if (pgs_word_state(word) != PGS_SHARED && !(word & PGS_BUSY))
        return 0;
    call = pgs_fault_take(visit->domain, pgs_page_of(visit->domain, gfn), 0,
                          PGS_FAULT_UNDO | PGS_FAULT_FORCE);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->gfn = gfn;
    call->timeout = visit->host->options.timeout_ns;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    *ret_private += !r && call->outcome != PGSHARE_FAULT_SPURIOUS;
    pgs_call_give(call);
    return r == PGSHARE_ERR_HOLE ? 0 : r;
}

int pgshare_domain_unshare(struct pgshare_host *host, uint64_t dom,
                           uint64_t gfn, uint64_t count, uint64_t budget,
                           struct pgshare_unshare_progress *ret_progress)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress),
                                                 .next = gfn };
    struct pgs_visit visit;
    uint64_t end = gfn + count;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_abi_check_out(ret_progress, sizeof(progress));
    if (r)
        return pgs_visit_end(&visit, r);
    progress.missing =
        frames_missing(&visit, frames_needed(visit.domain, gfn, end));
    if (progress.missing)
        r = PGSHARE_ERR_NOFRAME;
    for (uint64_t n = 0; !r && progress.next < end && (!budget || n < budget);
         n++) {
        r = unshare_page(&visit, progress.next, &progress.private_);
        if (!r)
            progress.next++;
    }
    if (!r || r == PGSHARE_ERR_NOFRAME)
        pgs_abi_out(ret_progress, &progress, sizeof(progress));
    return pgs_visit_end(&visit, r);
}

/* ---- suspension -------------------------------------------------------- */

static enum pgs_verdict switched(struct pgs_call *call)
{
    call->result = call->status[0];
    return PGS_DONE;
}

static enum pgs_verdict switch_over(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_SUSPEND,
        .flags = call->flags,
        .domain = domain->cookie,
        .count = 1,
    };

    if (call->host->info.ops & UINT64_C(1) << PGSHARE_OP_SUSPEND)
        return pgs_call_submit(call, &op, switched);
    return PGS_DONE; /* nothing to hand back: all faults are ours anyway */
}

static int drive_switch(struct pgs_visit *visit, uint32_t flags)
{
    struct pgs_call *call =
        pgs_call_take(visit->host, visit->domain, switch_over);
    uint64_t token;
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    call->flags = flags;
    call->timeout = visit->host->options.timeout_ns;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    return r;
}

static bool has_pages_in_flight(struct pgs_domain *domain)
{
    for (uint64_t gfn = 0; gfn < domain->gfns; gfn++) {
        if (pgs_page_of(domain, gfn) == PGS_PAGE_NONE)
            gfn |= PGS_CHUNK_GFNS - 1;
        else if (pgs_word_peek(domain, gfn) & PGS_BUSY)
            return true;
    }
    return false;
}

int pgshare_domain_suspend(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);
    uint32_t before;

    if (r)
        return r;
    before = atomic_fetch_or_explicit(&visit.domain->flags,
                                      PGS_DOMAIN_SUSPENDED,
                                      memory_order_acq_rel);
    if (before & PGS_DOMAIN_SUSPENDED)
        return pgs_visit_end(&visit, PGSHARE_ERR_STATE);
    r = has_pages_in_flight(visit.domain) ? PGSHARE_ERR_INPROGRESS
                                          : drive_switch(&visit, 0);
    if (r)
        atomic_fetch_and_explicit(&visit.domain->flags, ~PGS_DOMAIN_SUSPENDED,
                                  memory_order_release);
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_resume(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    if (!(pgs_domain_flags(visit.domain) & PGS_DOMAIN_SUSPENDED))
        return pgs_visit_end(&visit, PGSHARE_ERR_STATE);
    r = drive_switch(&visit, PGSHARE_OP_OFF);
    if (!r)
        atomic_fetch_and_explicit(&visit.domain->flags, ~PGS_DOMAIN_SUSPENDED,
                                  memory_order_release);
    return pgs_visit_end(&visit, r);
}
