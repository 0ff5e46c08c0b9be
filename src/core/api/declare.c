/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Declarations, at the edge: handles and ranges are checked, then the words
 * are changed (mechanism/cycle.c, mechanism/volatile.c). Only a read-only
 * range needs the backend, and is cut into operations here.
 */
#include "api/visit.h"

#include "mechanism/cycle.h"
#include "mechanism/domain.h"
#include "mechanism/ledger.h"
#include "policy/scan.h"

/* ---- the allocation cycle ---------------------------------------------- */

int pgshare_declare_free(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                         uint64_t count)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_cycle_free(visit.domain, gfn, count, NULL);
    return pgs_visit_end(&visit, r);
}

int pgshare_declare_scrub(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                          uint64_t count)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_cycle_scrub(visit.domain, gfn, count, NULL);
    return pgs_visit_end(&visit, r);
}

int pgshare_declare_allocated(struct pgshare_host *host, uint64_t dom,
                              uint64_t gfn, uint64_t count)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_cycle_allocated_wait(visit.domain, gfn, count);
    return pgs_visit_end(&visit, r);
}

int pgshare_declare_overwrite(struct pgshare_host *host, uint64_t dom,
                              uint64_t gfn, uint64_t count)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_cycle_overwrite(visit.domain, gfn, count, NULL);
    return pgs_visit_end(&visit, r);
}

/* ---- volatile pages ---------------------------------------------------- */

int pgshare_declare_volatile(struct pgshare_host *host, uint64_t dom,
                             uint64_t gfn, uint64_t count,
                             struct pgshare_call *call)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, call);
    if (r)
        return pgs_visit_end(&visit, r);
    r = pgs_cycle_push(visit.domain, gfn, count, &ours.done);
    pgs_visit_report(&ours, call);
    return pgs_visit_end(&visit, r);
}

/* Every page on its own, each with its result. */
static int withdraw_each(struct pgs_domain *domain, uint64_t gfn,
                         uint64_t count, struct pgshare_call *call)
{
    int first = 0;

    for (uint64_t i = 0; i < count; i++) {
        int r = pgs_cycle_withdraw(domain, gfn + i, 1, NULL);

        call->results[i] = (int8_t)r;
        call->done += !r;
        if (!first)
            first = r;
    }
    return first;
}

int pgshare_declare_withdraw(struct pgshare_host *host, uint64_t dom,
                             uint64_t gfn, uint64_t count,
                             struct pgshare_call *call)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, call);
    if (r)
        return pgs_visit_end(&visit, r);
    r = ours.results ? withdraw_each(visit.domain, gfn, count, &ours)
                     : pgs_cycle_withdraw(visit.domain, gfn, count, &ours.done);
    pgs_visit_report(&ours, call);
    return pgs_visit_end(&visit, r);
}

/* ---- secrets ----------------------------------------------------------- */

int pgshare_declare_never_share(struct pgshare_host *host, uint64_t dom,
                                uint64_t gfn, uint64_t count, int on,
                                struct pgshare_never_share *ret_left)
{
    struct pgshare_never_share left;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_abi_check_out(ret_left, sizeof(*ret_left));
    if (r)
        return pgs_visit_end(&visit, r);
    if (on) /* it holds for memory that is yet to come, too */
        r = pgs_domain_words(visit.domain, gfn, count);
    if (!r)
        r = pgs_cycle_never_share(visit.domain, gfn, count, on != 0, &left,
                                  NULL);
    if (!r && !on)
        pgs_scan_redo(visit.domain, gfn, count);
    if (!r)
        pgs_abi_out(ret_left, &left, sizeof(left));
    return pgs_visit_end(&visit, r);
}

/* ---- read-only memory -------------------------------------------------- */

/* Pages of one operation: within a chunk, no more than a call answers for. */
static uint32_t cut(uint64_t gfn, uint64_t count)
{
    uint64_t n = PGS_CHUNK_GFNS - gfn % PGS_CHUNK_GFNS;

    if (n > count)
        n = count;
    return n < PGS_INLINE ? (uint32_t)n : PGS_INLINE;
}

static int set_read_only(struct pgs_domain *domain, uint64_t gfn,
                         uint32_t count, bool on)
{
    struct pgs_call *call;
    uint64_t token;
    int r;

    if (pgs_page_of(domain, gfn) == PGS_PAGE_NONE)
        return PGSHARE_ERR_HOLE;
    call = pgs_readonly_take(domain, gfn, count, on);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->timeout = domain->host->options.timeout_ns;
    if (!pgs_call_drive(call, &token))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    return r;
}

int pgshare_declare_read_only(struct pgshare_host *host, uint64_t dom,
                              uint64_t gfn, uint64_t count, int on)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    if (!(host->info.ops >> PGSHARE_OP_READ_ONLY & 1))
        r = PGSHARE_ERR_NOTSUP;
    while (count && !r) {
        uint32_t n = cut(gfn, count);
        uint32_t most = host->info.extent_max;

        n = n < most ? n : most;
        r = set_read_only(visit.domain, gfn, n, on != 0);
        gfn += n;
        count -= n;
    }
    return pgs_visit_end(&visit, r);
}
