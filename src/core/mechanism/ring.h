/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's end of guest rings (include/pgshare/guest_ring.h).
 */
#ifndef PGS_MECHANISM_RING_H
#define PGS_MECHANISM_RING_H

#include "mechanism/host.h"

/* Serves the requests that are there, at most as many as the ring has; *ret
 * (may be NULL) says how many. _STATE: no ring. _PROTOCOL: the guest broke the
 * protocol, the ring is detached (the caller reports it, no lock held). */
int pgs_ring_serve(struct pgs_domain *domain, uint32_t *ret);

/* Tells the guest, if it has a ring, that a page of its has paid. */
void pgs_ring_tell_reclaimed(struct pgs_domain *domain, uint64_t gfn);

/* The API's attach and detach; see pgshare/ring.h. */
int pgs_ring_attach(struct pgs_domain *domain, struct pgshare_guest_ring *page,
                    size_t len);
int pgs_ring_detach(struct pgs_domain *domain);

#endif
