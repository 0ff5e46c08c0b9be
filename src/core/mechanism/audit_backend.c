/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit of the backend: does it see each page as the words do?
 *
 * A page that is asked about must not change meanwhile, and operations on one
 * GFN never overlap: so its BUSY is taken, by one attempt, for as long as the
 * backend takes to answer. What is in flight is left out, and so is what is no
 * memory to the core. A break that the platform has not told yet is no fault:
 * there the page is private, and will be.
 *
 * Should the backend not answer within the host's time-out, the question goes
 * on without the audit, and the runner lets the pages go when the answer comes.
 */
#include "mechanism/audit.h"

#include "mechanism/page.h"

#include <pgshare/gfn.h>

#define ATTEMPTS 3

/* ---- questions --------------------------------------------------------- */

static enum pgs_verdict answered(struct pgs_call *call)
{
    (void)call;
    return PGS_DONE; /* the answers stay in the call for whoever drives it */
}

static enum pgs_verdict ask_pages(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_QUERY,
        .domain = domain->cookie,
        .gfn = call->gfn,
        .count = (uint32_t)call->count,
    };

    return pgs_call_submit(call, &op, answered);
}

static enum pgs_verdict ask_reserve(struct pgs_call *call)
{
    struct pgshare_op op = { .kind = PGSHARE_OP_RESERVE, .count = 1 };

    return pgs_call_submit(call, &op, answered);
}

static void unlock_pages(struct pgs_call *call)
{
    for (uint32_t i = 0; i < call->count; i++)
        pgs_page_unlock(call->host, call->page + i);
}

/* False: the backend is too slow; the runner has the call now. */
static bool ask(struct pgs_call *call)
{
    uint64_t token;

    call->timeout = call->host->options.timeout_ns;
    call->finish = unlock_pages;
    return pgs_call_drive(call, &token);
}

/* ---- pages ------------------------------------------------------------- */

/* The backend's name of what a mapping maps, 0: it is none any more. */
static uint64_t id_of(struct pgs_audit *audit, uint32_t page, uint64_t word)
{
    struct pgs_frames *frames = &audit->host->frames;
    uint64_t id = PGSHARE_ID_NONE;
    uint32_t frame;

    if (pgs_word_index(word) == PGS_NODE_ZERO)
        return PGSHARE_ID_ZERO;
    pgs_lookup_begin(&audit->lookup, audit->host);
    frame = pgs_lookup_frame(&audit->lookup, pgs_word_index(word), page);
    if (frame != PGS_NONE)
        id = pgs_frame_at(frames, frame)->id;
    pgs_lookup_end(&audit->lookup);
    return id;
}

/* Where mappings move with their frame, the backend has moved them all at once,
 * and the nodes follow when the call that joins the frames goes on (join.c). */
static bool may_be_moved(const struct pgs_audit *audit)
{
    return audit->host->info.caps & PGSHARE_CAP_MAP_MOVES_FRAME &&
           pgs_calls_busy(audit->host) > 1; /* one is ours */
}

static void compare(struct pgs_audit *audit, const struct pgs_call *call,
                    uint32_t i)
{
    struct pgs_domain *domain = audit->domain;
    struct pgs_place place = { domain, call->gfn + i, PGS_NONE };
    uint32_t page = call->page + i;
    uint64_t word = atomic_load_explicit(pgs_word_at(&audit->host->chunks,
                                                     page),
                                         memory_order_relaxed);
    int expected = pgs_word_state(word), found = call->status[i];
    uint64_t id;

    if (found == PGSHARE_ERR_HOLE)
        found = PGSHARE_GFN_HOLE;
    if (found < 0 || word & PGS_ATTR_BROKEN)
        return;
    if (expected >= PGSHARE_GFN_PROTECTED && found == PGSHARE_GFN_PRIVATE &&
        domain->caps & PGSHARE_CAP_PLATFORM_COW)
        return;
    if (expected != found) {
        pgs_audit_report(audit, PGSHARE_INVARIANT_BACKEND, place,
                         (uint64_t)expected, (uint64_t)found);
        return;
    }
    id = expected == PGSHARE_GFN_SHARED ? id_of(audit, page, word) : 0;
    if (expected == PGSHARE_GFN_SHARED && id != call->ids[i] &&
        !may_be_moved(audit))
        pgs_audit_report(audit, PGSHARE_INVARIANT_BACKEND, place, id,
                         call->ids[i]);
}

/* Takes the run of pages from `page` on that are memory and not in flight. */
static uint32_t take_run(struct pgs_audit *audit, uint32_t page, uint32_t max)
{
    struct pgshare_host *host = audit->host;
    uint32_t n;

    for (n = 0; n < max; n++) {
        _Atomic uint64_t *at = pgs_word_at(&host->chunks, page + n);
        uint64_t word;

        if (pgs_word_state(atomic_load_explicit(at, memory_order_relaxed)) ==
                PGS_HOLE ||
            !pgs_word_trylock(at, false, &word))
            break;
        if (pgs_word_state(word) == PGS_HOLE) {
            pgs_page_unlock(host, page + n);
            break;
        }
    }
    return n;
}

/* False: no more can be asked of this domain now. */
static bool check_run(struct pgs_audit *audit, uint64_t gfn, uint32_t page,
                      uint32_t n)
{
    struct pgs_call *call = pgs_call_take(audit->host, audit->domain,
                                          ask_pages);

    if (!call) {
        while (n-- > 0)
            pgs_page_unlock(audit->host, page + n);
        return false;
    }
    call->gfn = gfn;
    call->page = page;
    call->count = n;
    if (!ask(call))
        return false;
    for (uint32_t i = 0; i < n; i++)
        compare(audit, call, i);
    unlock_pages(call);
    pgs_call_give(call);
    return true;
}

static bool check_chunk(struct pgs_audit *audit, uint64_t base)
{
    uint32_t most = audit->host->info.extent_max;
    uint32_t first = pgs_page_of(audit->domain, base);
    uint64_t end = audit->domain->gfns - base;

    if (first == PGS_PAGE_NONE)
        return true;
    if (most > PGS_INLINE)
        most = PGS_INLINE;
    if (end > PGS_CHUNK_GFNS)
        end = PGS_CHUNK_GFNS;
    for (uint32_t i = 0; i < end;) {
        uint32_t max = end - i < most ? (uint32_t)end - i : most;
        uint32_t n = take_run(audit, first + i, max);

        if (n && !check_run(audit, base + i, first + i, n))
            return false;
        i += n ? n : 1;
    }
    return true;
}

/* ---- the reserve ------------------------------------------------------- */

/* How much less the core counted than the backend holds; 0 as well where
 * nothing can be said, since it moves. */
static int64_t reserve_missing(struct pgs_audit *audit)
{
    struct pgshare_host *host = audit->host;
    uint64_t counted = pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE);
    struct pgs_call *call = pgs_call_take(host, NULL, ask_reserve);
    int64_t missing = 0;

    if (!call || !ask(call))
        return 0;
    if (!call->status[0] &&
        pgs_calls_busy(host) == 1 &&
        !atomic_load_explicit(&host->recount, memory_order_relaxed) &&
        counted == pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE))
        missing = (int64_t)(call->ids[0] - counted);
    pgs_call_give(call);
    return missing;
}

static void check_reserve(struct pgs_audit *audit)
{
    uint64_t counted = pgs_shards_sum(&audit->host->shards, PGS_LEVEL_RESERVE);
    int64_t missing = 0;

    for (unsigned i = 0; i < ATTEMPTS; i++) {
        missing = reserve_missing(audit);
        if (!missing)
            return;
    }
    pgs_audit_report(audit, PGSHARE_INVARIANT_BACKEND, PGS_NOWHERE,
                     counted + (uint64_t)missing, counted);
}

void pgs_audit_backend(struct pgs_audit *audit)
{
    struct pgshare_host *host = audit->host;

    for (uint32_t slot = 1; slot < host->slots_used; slot++) {
        uint64_t base = 0;

        audit->domain = atomic_load_explicit(&host->slots[slot],
                                             memory_order_seq_cst);
        if (!audit->domain)
            continue;
        while (base < audit->domain->gfns && check_chunk(audit, base))
            base += PGS_CHUNK_GFNS;
    }
    if (host->info.ops >> PGSHARE_OP_RESERVE & 1)
        check_reserve(audit);
}
