/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One page becomes private: for a write fault, a get, an unshare.
 */
#ifndef PGS_MECHANISM_FAULT_H
#define PGS_MECHANISM_FAULT_H

#include "mechanism/host.h"

/* pgs_call::flags */
enum pgs_fault_flag {
    PGS_FAULT_WHOLE = 1 << 0,  /* the write covers the page */
    PGS_FAULT_FORCE = 1 << 1,  /* read-only or frozen: all the same */
    PGS_FAULT_UNDO = 1 << 2,   /* an unshare: no fault is counted */
    PGS_FAULT_LISTED = 1 << 3, /* get: this call has entered the hold */
    PGS_FAULT_TAKING = 1 << 4, /* the last mapping takes its frame over */
    PGS_FAULT_OBTAINED = 1 << 5 /* a frame was had beside the reserve */
};

/*
 * A call that makes `page` of `domain` private. kind: FAULT, GET (with
 * `intent`, then the page is held) or UNSHARE; its gfn is set by the caller.
 */
struct pgs_call *pgs_fault_take(struct pgs_domain *domain, uint32_t page,
                                uint32_t kind, uint32_t flags);

/* The quick answer to a fault: is the page plainly writable? */
static inline bool pgs_fault_is_spurious(const struct pgs_domain *domain,
                                         uint64_t word)
{
    return (word & (PGS_STATE | PGS_BUSY | PGS_ATTR_READONLY |
                    PGS_ATTR_STUCK)) == PGS_PRIVATE &&
           !(pgs_domain_flags(domain) & PGS_DOMAIN_FROZEN);
}

/*
 * pay.c. Produces one frame in the reserve: volatile pages of the breaker, then
 * of whoever claims too much, then the machine, then any volatile page. Goes on
 * with `resume`, call->result 0 or PGSHARE_ERR_NOFRAME.
 */
enum pgs_verdict pgs_pay(struct pgs_call *call, pgs_step resume);

/* pay.c. The same for memory that nothing secures: from the machine, else of
 * the breaker's own volatile pages. */
enum pgs_verdict pgs_obtain(struct pgs_call *call, pgs_step resume);

#endif
