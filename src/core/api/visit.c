/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The caller's struct pgshare_call, on its way in and out. An older caller
 * knows no smaller struct than the one of version 0.1, so that all its members
 * are there; a caller that has none gets the host's time-out.
 */
#include "api/visit.h"

int pgs_visit_call(struct pgs_visit *visit, struct pgshare_call *ours,
                   const struct pgshare_call *theirs)
{
    int r;

    ours->size = 0; /* refused: report() leaves theirs alone */
    r = pgs_abi_in(ours, sizeof(*ours), sizeof(*ours), theirs);
    if (r)
        return r;
    if (!theirs)
        ours->timeout_ns = visit->host->options.timeout_ns;
    ours->token = 0;
    ours->done = 0;
    return 0;
}

void pgs_visit_report(const struct pgshare_call *ours,
                      struct pgshare_call *theirs)
{
    if (!theirs || !ours->size)
        return;
    if (ours->token)
        theirs->token = ours->token;
    theirs->done = ours->done;
}

bool pgs_visit_drive(struct pgs_call *call, struct pgshare_call *ours)
{
    call->timeout = ours->timeout_ns;
    call->cookie = ours->cookie;
    return pgs_call_drive(call, &ours->token);
}

int pgs_visit_note(struct pgshare_call *ours, uint64_t i, int result,
                   int *first)
{
    if (ours->results)
        ours->results[i] = (int8_t)result;
    if (!result) {
        ours->done++;
        return 0;
    }
    if (!*first)
        *first = result;
    return ours->results && result != PGSHARE_ERR_INPROGRESS ? 0 : result;
}
