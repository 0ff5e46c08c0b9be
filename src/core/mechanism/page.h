/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words that change: ending BUSY, breaks, and what follows for the frame.
 */
#ifndef PGS_MECHANISM_PAGE_H
#define PGS_MECHANISM_PAGE_H

#include "mechanism/host.h"

/* Ends BUSY, nothing changed but what was told meanwhile (a break); wakes
 * whoever waits for the page. */
void pgs_page_unlock(struct pgshare_host *host, uint32_t page);

/*
 * Sets state, index and epoch to those of `next`, clears the attributes in
 * `clear`, ends BUSY and wakes. False, nothing changed and BUSY still held: an
 * attribute of `unless` is set, or `next` is a mapping or mark that has been
 * told broken already.
 */
bool pgs_page_commit(struct pgshare_host *host, uint32_t page, uint64_t next,
                     uint64_t clear, uint64_t unless);

/* The page becomes private by an operation of ours: commit, unconditionally;
 * clears what ends with a write, and `clear`. */
void pgs_page_privatise(struct pgshare_host *host, uint32_t page,
                        uint64_t clear);

/* The same for a page that was protected and not written meanwhile: what its
 * word remembers of its content still holds. */
void pgs_page_privatise_known(struct pgshare_host *host, uint32_t page);

/* The page became private for us, but the backend could not make it writable:
 * the next fault, or the runner, tries again. */
void pgs_page_privatise_stuck(struct pgshare_host *host, uint32_t page);

/* BUSY held, word SHARED: unlinks the mapping `node` (or of the zero frame);
 * a frame without mappings is put on the list of doomed ones. */
void pgs_page_unmap(struct pgshare_host *host, uint32_t node);
/* The same for a mapping that the platform has broken by itself. */
void pgs_page_unmap_broken(struct pgs_domain *domain, uint32_t node);

/* BUSY held, word PROTECTED: gives its mark back. */
void pgs_page_unmark(struct pgshare_host *host, uint32_t mark);

/* The sink's broken(), discarded(). */
void pgs_page_broken(void *host, uint64_t dom, uint64_t gfn, uint64_t count,
                     uint64_t seq);
int pgs_page_discarded(void *host, uint64_t dom, uint64_t gfn, uint64_t count,
                       int hole, uint64_t seq);

/* Puts a doomed frame (stripe not locked) on the host's list. */
void pgs_frame_defer(struct pgshare_host *host, uint32_t frame);

/* Stripe locked. Counts the frame as empty, or not any more, by what it is: at
 * once when a mapping goes, since holds may pin the frame for long. */
void pgs_frame_count_empty(struct pgshare_host *host, uint32_t frame);
/*
 * An operation that maps the frame in this domain was given up, since the domain
 * is being removed; the backend forgets it only when the removal ends. Until then
 * the frame is neither released nor taken over. Stripe not locked.
 */
void pgs_frame_keep(struct pgs_domain *domain, uint32_t frame);
/* The domain has ended, and what was kept for it can go. */
void pgs_frames_let_go(struct pgs_domain *domain);

/* Stripe locked, or DOOMED. May a domain that leaves map it yet? */
static inline bool pgs_frame_is_left(const struct pgshare_host *host,
                                     const struct pgs_frame *frame)
{
    return frame->left &&
           atomic_load_explicit(&host->n_left, memory_order_acquire);
}

/* Releases up to PGS_INLINE doomed frames; an internal call for the runner.
 * False: none are doomed, or no call is free. */
bool pgs_release_launch(struct pgshare_host *host);
/* The runner: gives doomed frames up as long as they become fewer; those that
 * the backend refuses to take come back. Answers how many calls ended. */
uint32_t pgs_release_all(struct pgshare_host *host);
/* Releases a batch within the call, and goes on with `next`. */
enum pgs_verdict pgs_release(struct pgs_call *call, pgs_step next);

/* Gives the record of a released, or taken over, frame back. */
void pgs_frame_retire(struct pgshare_host *host, uint32_t frame);

#endif
