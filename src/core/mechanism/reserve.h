/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reserve: frames exchanged with the machine.
 */
#ifndef PGS_MECHANISM_RESERVE_H
#define PGS_MECHANISM_RESERVE_H

#include "mechanism/host.h"

/* A call that takes `frames` from the machine (negative: gives back). When it
 * is done, call->reserve says what was exchanged; result: 0, _NOFRAME (not
 * all), _NOTSUP. NULL: no call is free. */
struct pgs_call *pgs_exchange_take(struct pgshare_host *host, int64_t frames);

/* The same, waited for up to `timeout`. _INPROGRESS: goes on by itself. */
int pgs_reserve_exchange(struct pgshare_host *host, int64_t frames,
                         uint64_t timeout, int64_t *ret_got);

/* The runner: returns to the machine what is beyond the embedder's wish and
 * the claims' need, or takes from it what they lack; asks for the count if it
 * is in doubt. */
void pgs_reserve_balance(struct pgshare_host *host);

/* Takes nothing for as long as a guest may need to find the frame that was
 * handed out to the machine for it. */
void pgs_reserve_put_off(struct pgshare_host *host);

/* When the runner should try again, on the clock; PGSHARE_FOREVER: the reserve
 * lacks nothing, or nothing can be had. */
uint64_t pgs_reserve_due(struct pgshare_host *host);

#endif
