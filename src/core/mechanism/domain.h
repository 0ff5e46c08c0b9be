/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of domains.
 */
#ifndef PGS_MECHANISM_DOMAIN_H
#define PGS_MECHANISM_DOMAIN_H

#include "mechanism/host.h"

#include <pgshare/domain.h>

/* domains_lock held. The domain of that name, which may be one that is only
 * being added; NULL: none. */
struct pgs_domain *pgs_domain_named(struct pgshare_host *host, uint32_t domid,
                                    uint64_t generation);

/* Makes a domain and enters it: it can be found when this returns. */
int pgs_domain_new(struct pgshare_host *host,
                   const struct pgshare_domain_options *options,
                   struct pgs_domain **ret_domain);

/* Memory for the words of [gfn, gfn + count): _NOMEM, _FULL; what was added
 * stays. */
int pgs_domain_words(struct pgs_domain *domain, uint64_t gfn, uint64_t count);

/* The handle is void; the domain is on the list of those that are to be
 * buried. False: somebody else has removed it. */
bool pgs_domain_unlist(struct pgs_domain *domain);

/*
 * The runner: waits up to `timeout` until nobody and no call concerns the
 * domain, tears it down and frees it. False: some call still waits for another
 * domain; it stays on the list. `own`: the caller's visit.
 */
bool pgs_domain_bury(struct pgs_domain *domain, uint64_t timeout,
                     uint32_t *own);

/* pgshare_host_free(): a call still waits for an answer that does not come;
 * the domain is torn down all the same, and the call given up. */
void pgs_domain_abandon(struct pgs_domain *domain);

/* The runner: a domain that the backend has lost gives up all that it has, as
 * far as nobody holds it. True: nothing is left. */
bool pgs_domain_clear(struct pgs_domain *domain);

/* The sink's gone(). */
void pgs_domain_gone(void *host, uint64_t dom);

/* One page gives up whatever it has and becomes a hole; BUSY held, ends. */
void pgs_page_drop(struct pgshare_host *host, uint32_t page, uint64_t word);

/*
 * The runner: carries out never-share declarations on pages that are shared
 * or marked; launches up to `budget` calls, and looks at no more than a chunk's
 * worth of words. True: it is to be called again; after a failure there is a
 * pause.
 */
bool pgs_domain_undo(struct pgs_domain *domain, uint32_t budget);
/* When it is to be called next, on the clock; PGSHARE_FOREVER: nothing is left
 * to be carried out. */
uint64_t pgs_domain_undo_due(struct pgs_domain *domain);

#endif
