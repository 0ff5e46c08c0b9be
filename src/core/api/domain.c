/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains and trust groups, as the embedder sees them.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/group.h"
#include "mechanism/page.h"

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
    if (!r && (!options.gfns || options.gfns > PGSHARE_GFNS_MAX))
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

    if (pgs_is_runner(host))
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
    if (!r)
        pgs_release_all(host);
    atomic_store_explicit(&host->runner, 0, memory_order_relaxed);
    pgs_mutex_unlock(&host->run);
    return r;
}

/* ---- questions --------------------------------------------------------- */

int pgshare_domain_find(struct pgshare_host *host, uint32_t domid,
                        uint64_t generation, uint64_t *ret_dom)
{
    struct pgs_domain *domain;
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    if (!ret_dom)
        return pgs_visit_end(&visit, PGSHARE_ERR_INVALID);
    r = PGSHARE_ERR_NODOMAIN;
    pgs_mutex_lock(&host->domains_lock);
    domain = pgs_domain_named(host, domid, generation);
    if (domain && pgs_domain_of(host, domain->handle)) {
        *ret_dom = domain->handle;
        r = 0;
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
