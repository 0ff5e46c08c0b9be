/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest rings, at the edge (mechanism/ring.c). Who finds that a guest broke the
 * protocol reports it: here the doorbell's thread, else the runner.
 */
#include "api/visit.h"

#include "mechanism/ring.h"

#include <pgshare/ring.h>

int pgshare_ring_attach(struct pgshare_host *host, uint64_t dom,
                        struct pgshare_guest_ring *page, size_t len)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    r = pgs_ring_attach(visit.domain, page, len);
    if (!r)
        pgs_wake(host);
    return pgs_visit_end(&visit, r);
}

int pgshare_ring_detach(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    return pgs_visit_end(&visit, pgs_ring_detach(visit.domain));
}

int pgshare_ring_kick(struct pgshare_host *host, uint64_t dom)
{
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, dom);

    if (r)
        return r;
    r = pgs_ring_serve(visit.domain, NULL);
    if (r == PGSHARE_ERR_PROTOCOL)
        pgs_report(host, PGSHARE_REPORT_RING_DETACHED, r, dom, 0, 0);
    return pgs_visit_end(&visit, r);
}
