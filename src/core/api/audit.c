/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit, at the edge (mechanism/audit.c). It takes the runner's place while
 * it walks, so that the tables stand still that are the runner's alone. What
 * it finds is told when everything of the library has been left.
 */
#include "api/visit.h"

#include "mechanism/audit.h"
#include "policy/audit.h"

#define NAP_NS UINT64_C(1000000)

/* Waits for the runner up to the host's time-out, by naps, which are real time:
 * the platform's clock may stand still meanwhile. */
static bool take_runners_place(struct pgshare_host *host)
{
    uint64_t slept = 0;

    if (pgs_is_runner(host))
        return false;
    while (!pgs_mutex_trylock(&host->run)) {
        uint32_t seen;

        if (slept >= host->options.timeout_ns)
            return false;
        seen = pgs_channel_prepare(&host->channel);
        pgs_channel_wait(&host->channel, seen, NAP_NS);
        slept += NAP_NS;
    }
    return true;
}

static int audit_all(struct pgs_audit *audit, uint32_t flags)
{
    struct pgshare_host *host = audit->host;

    if (flags & PGSHARE_AUDIT_BACKEND &&
        !(host->info.ops >> PGSHARE_OP_QUERY & 1))
        return PGSHARE_ERR_NOTSUP;
    if (!take_runners_place(host))
        return PGSHARE_ERR_BUSY;
    pgs_audit_walk(audit);
    pgs_policy_audit(audit);
    pgs_mutex_unlock(&host->run);
    if (flags & PGSHARE_AUDIT_BACKEND)
        pgs_audit_backend(audit);
    return audit->error;
}

static void tell(const struct pgs_audit *audit,
                 const struct pgshare_audit_options *options)
{
    pgs_lock_assert_none();
    for (uint64_t i = 0; i < audit->n; i++)
        options->finding(options->ctx, &audit->list[i]);
}

int pgshare_host_audit(struct pgshare_host *host,
                       const struct pgshare_audit_options *options,
                       struct pgshare_audit *ret_audit)
{
    struct pgshare_audit_options ours;
    struct pgs_audit audit = { .host = host };
    struct pgs_visit visit;
    int r;

    if (!ret_audit)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_host(&visit, host);
    if (r)
        return r;
    r = pgs_abi_in(&ours, sizeof(ours), sizeof(ours), options);
    if (!r)
        r = pgs_abi_check_out(ret_audit, sizeof(*ret_audit));
    if (!r && (ours.flags & ~PGSHARE_AUDIT_BACKEND || ours.reserved))
        r = PGSHARE_ERR_INVALID;
    if (!r) {
        audit.keep = ours.finding != NULL;
        r = audit_all(&audit, ours.flags);
    }
    r = pgs_visit_end(&visit, r);
    if (!r) {
        tell(&audit, &ours);
        pgs_abi_out(ret_audit, &audit.verdict, sizeof(audit.verdict));
    }
    pgs_audit_fini(&audit);
    return r;
}

const char *pgshare_invariant_name(uint32_t invariant)
{
    static const char *const names[] = {
        [PGSHARE_INVARIANT_ENTRY] = "entry",
        [PGSHARE_INVARIANT_RMAP] = "rmap",
        [PGSHARE_INVARIANT_COUNT] = "count",
        [PGSHARE_INVARIANT_FRAME] = "frame",
        [PGSHARE_INVARIANT_TICKET] = "ticket",
        [PGSHARE_INVARIANT_HOLD] = "hold",
        [PGSHARE_INVARIANT_FIFO] = "fifo",
        [PGSHARE_INVARIANT_COVER] = "cover",
        [PGSHARE_INVARIANT_ENTITLEMENT] = "entitlement",
        [PGSHARE_INVARIANT_TOTALS] = "totals",
        [PGSHARE_INVARIANT_INDEX] = "index",
        [PGSHARE_INVARIANT_BACKEND] = "backend",
    };

    return invariant < sizeof(names) / sizeof(names[0]) ? names[invariant]
                                                        : NULL;
}
