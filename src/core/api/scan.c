/* SPDX-License-Identifier: BSD-2-Clause */
/* The scanner as the embedder sees it: passes, budgets, workers, floors. */
#include "api/visit.h"
#include "mechanism/lookup.h"
#include "policy/policy.h"

#include <pgshare/scan.h>

#define FLAGS_KNOWN (PGSHARE_SCAN_ON | PGSHARE_SCAN_STEADY)
#define PPM_MAX 1000000u

static bool can_scan(const struct pgshare_host *host)
{
    return host->info.ops >> PGSHARE_OP_FINGERPRINT & 1;
}

int pgshare_host_pass(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = dom ? pgs_visit_domain(&visit, host, dom)
                : pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (can_scan(host))
        pgs_scan_want(host, dom);
    else
        r = PGSHARE_ERR_NOTSUP;
    return pgs_visit_end(&visit, r);
}

/* What is the runner's is looked at in its place. */
static int lock_out_runner(struct pgshare_host *host)
{
    if (pgs_is_runner(host))
        return PGSHARE_ERR_BUSY;
    pgs_mutex_lock(&host->run);
    return 0;
}

int pgshare_scan_set(struct pgshare_host *host,
                     const struct pgshare_scan_options *given)
{
    struct pgshare_scan_options options;
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    r = pgs_abi_in(&options, sizeof(options), sizeof(options), given);
    if (!r && (options.flags & ~(uint32_t)FLAGS_KNOWN ||
               options.idle_ppm > PPM_MAX || options.pressure > 100))
        r = PGSHARE_ERR_INVALID;
    if (!r && !can_scan(host))
        r = PGSHARE_ERR_NOTSUP;
    if (!r)
        r = lock_out_runner(host);
    if (r)
        return pgs_visit_end(&visit, r);
    pgs_steer_set(host, &options);
    pgs_mutex_unlock(&host->run);
    pgs_wake(host);
    return pgs_visit_end(&visit, 0);
}

static int count_page(void *ctx, uint64_t gfn, uint32_t page, uint64_t word)
{
    uint64_t *pages = ctx;

    (void)gfn;
    (void)page;
    *pages += pgs_word_state(word) != PGS_HOLE;
    return 0;
}

/* What the pass has to go through, as of now; what has gone since it was looked
 * at was gone through, too. */
static void count_goal(struct pgshare_host *host, uint64_t only,
                       struct pgshare_scan_info *info)
{
    struct pgs_domain *domain = only ? pgs_domain_of(host, only) : NULL;

    if (only)
        info->tracked = 0;
    if (domain)
        pgs_words_walk(domain, count_page, &info->tracked);
    if (info->tracked < info->looked)
        info->tracked = info->looked;
}

int pgshare_scan_info(struct pgshare_host *host,
                      struct pgshare_scan_info *ret_info)
{
    struct pgshare_scan_info info = { .size = sizeof(info) };
    struct pgs_visit visit;
    uint64_t only;
    int r;

    if (!ret_info)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_host(&visit, host);
    if (r)
        return r;
    r = pgs_abi_check_out(ret_info, sizeof(info));
    if (!r)
        r = lock_out_runner(host);
    if (r)
        return pgs_visit_end(&visit, r);
    only = pgs_scan_tell(host, &info);
    pgs_mutex_unlock(&host->run);
    count_goal(host, only, &info);
    pgs_abi_out(ret_info, &info, sizeof(info));
    return pgs_visit_end(&visit, 0);
}

int pgshare_scan_step(struct pgshare_host *host,
                      const struct pgshare_budget *given, uint64_t *ret_pages)
{
    struct pgs_budget budget;
    struct pgs_visit visit;
    uint64_t pages = 0;
    uint32_t n = 1;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    r = pgs_run_budget(host, given, &budget);
    if (r)
        return pgs_visit_end(&visit, r);
    while (n && pages < budget.pages &&
           pgs_now(&host->platform) < budget.deadline) {
        n = pgs_scan_step(host);
        pages += n;
    }
    if (ret_pages)
        *ret_pages = pages;
    return pgs_visit_end(&visit, 0);
}

int pgshare_scan_floor(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                       uint64_t count, uint32_t order)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    if (order >= PGSHARE_ORDERS)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    r = pgs_floor_set(visit.domain, gfn, count, order);
    if (!r)
        pgs_scan_redo(visit.domain, gfn, count);
    return pgs_visit_end(&visit, r);
}
