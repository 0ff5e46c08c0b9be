/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The way into the library. Every public function on a host begins with one
 * of these and ends with pgs_visit_end(): arguments and handles are checked
 * here once, a call in a forked child is refused, and while the visit lasts
 * the domain that it found stays valid.
 *
 *      struct pgs_visit visit;
 *      int r = pgs_visit_range(&visit, host, dom, gfn, count);
 *
 *      if (r)
 *          return r;
 *      ...
 *      return pgs_visit_end(&visit, r);
 */
#ifndef PGS_API_VISIT_H
#define PGS_API_VISIT_H

#include "base/abi.h"
#include "mechanism/host.h"

struct pgs_visit {
    struct pgshare_host *host;
    struct pgs_domain *domain;
    uint32_t ticket;
};

static inline int pgs_visit_host(struct pgs_visit *visit,
                                 struct pgshare_host *host)
{
    if (!host)
        return PGSHARE_ERR_INVALID;
    if (!pgs_origin_is_here(&host->origin))
        return PGSHARE_ERR_FORKED;
    visit->host = host;
    visit->domain = NULL;
    visit->ticket = pgs_shards_enter(&host->shards);
    return 0;
}

static inline int pgs_visit_end(struct pgs_visit *visit, int result)
{
    pgs_shards_leave(&visit->host->shards, visit->ticket);
    return result;
}

/* _NODOMAIN: the handle is none. A domain that the backend has lost is still
 * found: its calls answer GONE. */
static inline int pgs_visit_domain(struct pgs_visit *visit,
                                   struct pgshare_host *host, uint64_t dom)
{
    int r = pgs_visit_host(visit, host);

    if (r)
        return r;
    visit->domain = pgs_domain_of(host, dom);
    return visit->domain ? 0 : pgs_visit_end(visit, PGSHARE_ERR_NODOMAIN);
}

/* And _RANGE: [gfn, gfn + count) is empty or not the domain's. */
static inline int pgs_visit_range(struct pgs_visit *visit,
                                  struct pgshare_host *host, uint64_t dom,
                                  uint64_t gfn, uint64_t count)
{
    int r = pgs_visit_domain(visit, host, dom);

    if (r)
        return r;
    return pgs_range_ok(visit->domain, gfn, count)
               ? 0
               : pgs_visit_end(visit, PGSHARE_ERR_RANGE);
}

/*
 * The caller's struct pgshare_call with the defaults filled in; `ours` is what
 * the function works with. _ABI as pgs_abi_in(). report(): writes back token
 * and done.
 */
int pgs_visit_call(struct pgs_visit *visit, struct pgshare_call *ours,
                   const struct pgshare_call *theirs);
void pgs_visit_report(const struct pgshare_call *ours,
                      struct pgshare_call *theirs);

/* Drives a call of the embedder's. False: PGSHARE_ERR_INPROGRESS, the token is
 * in `ours`. */
bool pgs_visit_drive(struct pgs_call *call, struct pgshare_call *ours);

/* Notes the result of element `i`. Answers 0 to go on, or the error to stop
 * with; the first error that is passed over is left in *first. */
int pgs_visit_note(struct pgshare_call *ours, uint64_t i, int result,
                   int *first);

/* Is this the thread that is in pgshare_host_run(), in a callback of the host's?
 * What it waited for, nobody else would do. */
static inline bool pgs_is_runner(const struct pgshare_host *host)
{
    return atomic_load_explicit(&host->runner, memory_order_relaxed) ==
           (uintptr_t)pthread_self();
}

#endif
