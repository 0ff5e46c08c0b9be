/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Gets and puts, page by page. The caller holds the page's BUSY for add().
 */
#ifndef PGS_MECHANISM_HOLD_H
#define PGS_MECHANISM_HOLD_H

#include "mechanism/host.h"

/* BUSY held. Enters a hold and sets the word's attributes; for reading on a
 * shared page it pins the frame. _NOMEM; _BUSY: for reading, while the frame is
 * being joined to another (PGS_WAIT_JOIN). */
int pgs_hold_add(struct pgshare_host *host, uint32_t page, uint32_t intent);

/* Takes a hold back; BUSY need not be held. _STATE: there is none like it.
 * A frame that only this hold kept alive is deferred for release. */
int pgs_hold_drop(struct pgshare_host *host, uint32_t page, uint32_t intent);

/* All holds of a page whose domain is torn down. */
void pgs_hold_forget(struct pgshare_host *host, uint32_t page);

#endif
