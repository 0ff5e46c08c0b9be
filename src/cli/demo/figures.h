/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What came of a demo.
 */
#ifndef PGSHARE_CLI_FIGURES_H
#define PGSHARE_CLI_FIGURES_H

#include "demo.h"

/* A guest at the end. */
struct guest_figures {
    char name[24];
    struct pgshare_domain_stats stats;
};

struct figures {
    struct demo *demo;
    struct pgshare_host_stats stats;
    struct pgshare_mock_info machine;
    struct pgshare_audit audit;
    struct shadow_verdict content;
    struct guest_figures guests[GUESTS_MAX + GUESTS_MORE];
    uint32_t n_guests;
    /* Where the frames that were freed come from: pages that map the zero
     * frame, further copies in one guest, further guests. */
    uint64_t saved_zero;
    uint64_t saved_within;
    uint64_t saved_across;
    /* From hint to share, on the machine's clock: upper bounds. */
    uint64_t hinted; /* pages */
    uint64_t p50_us;
    uint64_t p99_us;
    uint64_t in_use; /* frames of the machine that guests and host use */
    double seconds;  /* real time, the one figure that differs between runs */
};

/* Compares every guest with its shadow, audits, collects. Complains of what is
 * wrong. An error: could not even be done. */
int figures_collect(struct figures *figures);

/* Is all as it should be? */
bool figures_good(const struct figures *figures);

/* On stdout. */
void figures_table(const struct figures *figures);
int figures_json(const struct figures *figures);

#endif
