/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What mechanisms tell the embedder.
 */
#include "mechanism/host.h"

#include <pgshare/host.h>

void pgs_wake(struct pgshare_host *host)
{
    if (atomic_exchange_explicit(&host->work, 1, memory_order_acq_rel))
        return;
    host->platform.wake(host->platform.ctx);
}

void pgs_backend_error(struct pgshare_host *host)
{
    pgs_count(&host->shards, PGS_COUNT_BACKEND_ERRORS, 1);
    pgs_wake(host);
}

void pgs_report(struct pgshare_host *host, uint32_t kind, int error,
                uint64_t dom, uint64_t gfn, uint64_t count)
{
    struct pgshare_report report = {
        .size = sizeof(report),
        .kind = kind,
        .error = error,
        .dom = dom,
        .gfn = gfn,
        .count = count,
    };

    pgs_lock_assert_none();
    if (host->options.report)
        host->options.report(host->options.ctx, &report);
}
