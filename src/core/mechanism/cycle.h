/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Declarations: what owners say about their pages, on words. Each works on a
 * range that is legal, in ascending order, and stops at the first error; the
 * pages before *ret_done (may be NULL) are done. They are in force on return
 * and, but for the read-only call, wait for nothing.
 */
#ifndef PGS_MECHANISM_CYCLE_H
#define PGS_MECHANISM_CYCLE_H

#include "mechanism/host.h"

#include <pgshare/declare.h>

/* What becomes of pages between free and allocated. _HOLE, _READONLY. */
int pgs_cycle_free(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                   uint64_t *ret_done);
/* And _STATE: a page is not free. */
int pgs_cycle_scrub(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                    uint64_t *ret_done);
/* And _INPROGRESS: a page is being given up for the zero frame. */
int pgs_cycle_allocated(struct pgs_domain *domain, uint64_t gfn,
                        uint64_t count, uint64_t *ret_done);
/* The same, which waits up to the host's time-out for such a page. */
int pgs_cycle_allocated_wait(struct pgs_domain *domain, uint64_t gfn,
                             uint64_t count);
int pgs_cycle_overwrite(struct pgs_domain *domain, uint64_t gfn,
                        uint64_t count, uint64_t *ret_done);

/* The FIFO, by ranges; see mechanism/ledger.h for the errors. */
int pgs_cycle_push(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                   uint64_t *ret_done);
int pgs_cycle_withdraw(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                       uint64_t *ret_done);

/* _HOLE: with `on`, where a GFN has no word, before which it ends. `ret` gets
 * what is left to be undone, all 0 with !on. */
int pgs_cycle_never_share(struct pgs_domain *domain, uint64_t gfn,
                          uint64_t count, bool on,
                          struct pgshare_never_share *ret, uint64_t *ret_done);

/* A call that makes up to PGS_INLINE pages read-only, or not; the range lies
 * in one chunk and has words. Internal: nobody is told how it ended. NULL: no
 * call is free. */
struct pgs_call *pgs_readonly_take(struct pgs_domain *domain, uint64_t gfn,
                                   uint32_t count, bool on);

#endif
