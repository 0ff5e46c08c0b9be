/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Marks and shares by hand, and forks: ranges of any length, cut into extents
 * that the protocol carries.
 */
#include "api/visit.h"
#include "mechanism/fork.h"
#include "mechanism/ledger.h"
#include "mechanism/mark.h"
#include "mechanism/share.h"

#include <pgshare/share.h>
#include <pgshare/stats.h>

#include <string.h>

/* An extent that the runner finishes: the embedder is told, then it goes. */
static void finish_mark(struct pgs_call *call)
{
    call->gfn = call->extent->source.gfn;
    call->count = call->extent->count;
    for (uint32_t i = 0; i < call->extent->count; i++)
        call->done += !call->extent->result[i];
    pgs_call_deliver(call, call->extent->id);
    pgs_extent_free(call->host, call->extent);
}

static void finish_share(struct pgs_call *call)
{
    call->gfn = call->extent->client.gfn;
    call->count = call->extent->count;
    for (uint32_t i = 0; i < call->extent->count; i++)
        call->done += !call->extent->result[i];
    pgs_call_deliver(call, NULL);
    pgs_extent_free(call->host, call->extent);
}

/*
 * Drives the call of one extent, whose first page is number `at` of the range.
 * 0: go on. On return the extent is gone; `ret_ids` NULL, or gets its ids.
 */
static int drive(struct pgs_call *call, struct pgs_extent *extent, uint64_t at,
                 struct pgshare_call *ours, uint64_t *ret_ids, int *first)
{
    struct pgshare_host *host;
    int r = 0;

    if (!pgs_visit_drive(call, ours))
        return PGSHARE_ERR_INPROGRESS;
    host = call->host;
    for (uint32_t i = 0; i < extent->count; i++) {
        int noted = pgs_visit_note(ours, at + i, extent->result[i], first);

        if (noted && !r)
            r = noted;
        if (ret_ids)
            ret_ids[at + i] = extent->id[i];
    }
    pgs_call_give(call);
    pgs_extent_free(host, extent);
    return r;
}

/* An extent of one side at GFN + `at`. NULL and *ret_error otherwise. */
static struct pgs_extent *cut(struct pgs_visit *visit, uint64_t gfn,
                              uint64_t count, int *ret_error)
{
    uint32_t page, n = pgs_extent_cut(visit->domain, gfn, count, &page);
    struct pgs_extent *extent = NULL;

    *ret_error = PGSHARE_ERR_HOLE;
    if (n) {
        extent = pgs_extent_new(visit->host, n);
        *ret_error = PGSHARE_ERR_NOMEM;
    }
    if (!extent)
        return NULL;
    extent->source.domain = visit->domain;
    extent->source.gfn = gfn;
    extent->source.page = page;
    return extent;
}

/* ---- marks ------------------------------------------------------------- */

static int may_mark(const struct pgs_domain *domain)
{
    uint32_t flags = pgs_domain_flags(domain);

    if (domain->caps & PGSHARE_CAP_NO_REMAP)
        return PGSHARE_ERR_NOTSUP;
    if (flags & PGS_DOMAIN_GONE)
        return PGSHARE_ERR_GONE;
    return flags & PGS_DOMAIN_SUSPENDED ? PGSHARE_ERR_SUSPENDED : 0;
}

static int mark_range(struct pgs_visit *visit, uint64_t gfn, uint64_t count,
                      uint64_t *ret_tickets, struct pgshare_call *ours)
{
    int r = 0, first = 0;

    for (uint64_t at = 0; !r && at < count;) {
        struct pgs_extent *extent = cut(visit, gfn + at, count - at, &r);
        struct pgs_call *call;
        uint32_t n;

        if (!extent) {
            r = pgs_visit_note(ours, at++, r, &first);
            continue;
        }
        r = 0;
        n = extent->count;
        call = pgs_mark_take(visit->host, extent);
        if (!call) {
            pgs_extent_free(visit->host, extent);
            return PGSHARE_ERR_BUSY;
        }
        call->finish = finish_mark;
        r = drive(call, extent, at, ours, ret_tickets, &first);
        at += n;
    }
    return r ? r : first;
}

int pgshare_mark_ro(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                    uint64_t count, uint64_t *ret_tickets,
                    struct pgshare_call *theirs)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r && !ret_tickets)
        r = PGSHARE_ERR_INVALID;
    if (!r)
        r = may_mark(visit.domain);
    for (uint64_t i = 0; !r && i < count; i++)
        ret_tickets[i] = 0;
    if (!r)
        r = mark_range(&visit, gfn, count, ret_tickets, &ours);
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r);
}

static int unmark_range(struct pgs_visit *visit, uint64_t gfn, uint64_t count,
                        const uint64_t *tickets, struct pgshare_call *ours)
{
    int r = 0, first = 0;

    for (uint64_t at = 0; !r && at < count;) {
        struct pgs_extent *extent = cut(visit, gfn + at, count - at, &r);
        struct pgs_call *call;
        uint32_t n;

        if (!extent) {
            if (r == PGSHARE_ERR_HOLE)
                r = PGSHARE_ERR_TICKET;
            r = pgs_visit_note(ours, at++, r, &first);
            continue;
        }
        r = 0;
        n = extent->count;
        extent->source.tickets = tickets ? tickets + at : NULL;
        call = pgs_unmark_take(visit->host, extent);
        if (!call) {
            pgs_extent_free(visit->host, extent);
            return PGSHARE_ERR_BUSY;
        }
        call->finish = finish_share;
        r = drive(call, extent, at, ours, NULL, &first);
        at += n;
    }
    return r ? r : first;
}

int pgshare_unmark(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                   uint64_t count, const uint64_t *tickets,
                   struct pgshare_call *theirs)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r)
        r = unmark_range(&visit, gfn, count, tickets, &ours);
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r);
}

/* ---- shares ------------------------------------------------------------ */

static int check_request(struct pgs_visit *visit,
                         const struct pgshare_share_request *q,
                         struct pgs_domain **ret_client)
{
    struct pgs_domain *source = pgs_domain_of(visit->host, q->source_dom);
    struct pgs_domain *client = pgs_domain_of(visit->host, q->client_dom);
    bool mark = q->flags & PGSHARE_SHARE_MARK;
    uint64_t apart;
    int r;

    if (q->flags & ~PGSHARE_SHARE_MARK || q->reserved)
        return PGSHARE_ERR_INVALID;
    if (mark ? q->source_tickets || q->client_tickets
             : !q->source_tickets || !q->client_tickets)
        return PGSHARE_ERR_INVALID;
    if (!source || !client)
        return PGSHARE_ERR_NODOMAIN;
    if (!pgs_range_ok(source, q->source_gfn, q->count) ||
        !pgs_range_ok(client, q->client_gfn, q->count))
        return PGSHARE_ERR_RANGE;
    apart = q->source_gfn > q->client_gfn ? q->source_gfn - q->client_gfn
                                          : q->client_gfn - q->source_gfn;
    if (source == client && apart < q->count)
        return PGSHARE_ERR_INVALID;
    if (source->group != client->group)
        return PGSHARE_ERR_GROUP;
    r = may_mark(source);
    visit->domain = source;
    *ret_client = client;
    return r ? r : may_mark(client);
}

/* The share may go on after its caller has left. */
static void keep_tickets(const struct pgs_extent *extent, struct pgs_side *side,
                         const uint64_t *tickets)
{
    memcpy(side->own, tickets, extent->count * sizeof(*tickets));
    side->tickets = side->own;
}

static struct pgs_extent *cut_both(struct pgs_visit *visit,
                                   struct pgs_domain *client,
                                   const struct pgshare_share_request *q,
                                   uint64_t at, int *ret_error)
{
    uint32_t page, n = pgs_extent_cut(client, q->client_gfn + at,
                                      q->count - at, &page);
    struct pgs_extent *extent;

    *ret_error = PGSHARE_ERR_HOLE;
    if (!n)
        return NULL;
    extent = cut(visit, q->source_gfn + at, n, ret_error);
    if (!extent)
        return NULL;
    extent->cause = PGSHARE_CAUSE_CALL;
    extent->client.domain = client;
    extent->client.gfn = q->client_gfn + at;
    extent->client.page = page;
    if (q->flags & PGSHARE_SHARE_MARK) {
        extent->flags = PGS_EXTENT_MARK;
    } else {
        keep_tickets(extent, &extent->source, q->source_tickets + at);
        keep_tickets(extent, &extent->client, q->client_tickets + at);
    }
    return extent;
}

static int share_range(struct pgs_visit *visit, struct pgs_domain *client,
                       const struct pgshare_share_request *q,
                       struct pgshare_call *ours)
{
    int r = 0, first = 0;

    for (uint64_t at = 0; !r && at < q->count;) {
        struct pgs_extent *extent = cut_both(visit, client, q, at, &r);
        struct pgs_call *call;
        uint32_t n;

        if (!extent) {
            r = pgs_visit_note(ours, at++, r, &first);
            continue;
        }
        r = 0;
        n = extent->count;
        call = pgs_share_take(visit->host, extent);
        if (!call) {
            pgs_extent_free(visit->host, extent);
            return PGSHARE_ERR_BUSY;
        }
        call->kind = PGSHARE_OUTCOME_SHARE;
        call->finish = finish_share;
        r = drive(call, extent, at, ours, NULL, &first);
        at += n;
    }
    return r ? r : first;
}

int pgshare_share(struct pgshare_host *host,
                  const struct pgshare_share_request *given,
                  struct pgshare_call *theirs)
{
    struct pgshare_share_request request;
    struct pgs_domain *client;
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!given)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r)
        r = pgs_abi_in(&request, sizeof(request), sizeof(request), given);
    if (!r)
        r = check_request(&visit, &request, &client);
    if (!r)
        r = share_range(&visit, client, &request, &ours);
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r);
}

/* ---- forks ------------------------------------------------------------- */

int pgshare_domain_freeze(struct pgshare_host *host, uint64_t dom,
                          struct pgshare_call *theirs)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r)
        r = pgs_freeze(visit.domain, ours.timeout_ns);
    return pgs_visit_end(&visit, r);
}

int pgshare_domain_thaw(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    if (!(atomic_fetch_and_explicit(&visit.domain->flags, ~PGS_DOMAIN_FROZEN,
                                    memory_order_acq_rel) &
          PGS_DOMAIN_FROZEN))
        r = PGSHARE_ERR_STATE;
    if (!r)
        pgs_unsecured_end_stub(visit.domain);
    return pgs_visit_end(&visit, r);
}

int pgshare_fork(struct pgshare_host *host, uint64_t stub, uint64_t child,
                 const struct pgshare_fork_options *given,
                 struct pgshare_call *theirs,
                 struct pgshare_fork_info *ret_info)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct pgshare_fork_options options;
    struct pgs_domain *domain;
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, stub);

    if (r)
        return r;
    domain = pgs_domain_of(host, child);
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r)
        r = pgs_abi_in(&options, sizeof(options), sizeof(options), given);
    if (!r && (options.flags & ~PGSHARE_FORK_UNSECURED || options.reserved))
        r = PGSHARE_ERR_INVALID;
    if (!r)
        r = pgs_abi_check_out(ret_info, sizeof(info));
    if (!r && (!domain || domain == visit.domain))
        r = domain ? PGSHARE_ERR_STATE : PGSHARE_ERR_NODOMAIN;
    if (!r)
        r = pgs_fork(visit.domain, domain, options.flags, ours.timeout_ns,
                     &info);
    if (!r)
        pgs_abi_out(ret_info, &info, sizeof(info));
    return pgs_visit_end(&visit, r);
}
