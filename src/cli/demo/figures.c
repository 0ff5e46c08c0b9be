/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of a demo: everything is compared, audited, added up.
 */
#include "figures.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void compare(struct figures *figures)
{
    struct demo *demo = figures->demo;

    figures->content = demo->content_verdict;
    for (uint32_t i = 0; i < demo->n_guests; i++) {
        struct guest *guest = &demo->guests[i];
        uint64_t wrong = figures->content.wrong;

        if (!guest->domain)
            continue;
        shadow_check(&guest->shadow, guest->domain, &figures->content);
        if (figures->content.wrong != wrong)
            fprintf(stderr,
                    "pgshare: %s: %" PRIu64 " pages do not read as "
                    "they should, GFN %" PRIu64 " among them\n",
                    guest->name, figures->content.wrong - wrong,
                    figures->content.first);
        live_tick(demo);
    }
}

static void on_finding(void *ctx, const struct pgshare_finding *finding)
{
    (void)ctx;
    fprintf(stderr,
            "pgshare: audit: %s: domain %#" PRIx64 " GFN %#" PRIx64
            " frame %" PRIu64 ": %" PRIu64 " expected, %" PRIu64 " found\n",
            pgshare_invariant_name(finding->invariant), finding->dom,
            finding->gfn, finding->frame, finding->expected, finding->found);
}

static int audit(struct figures *figures)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_AUDIT_BACKEND,
        .finding = on_finding,
    };
    int error;

    figures->audit.size = sizeof(figures->audit);
    error = pgshare_host_audit(figures->demo->host, &options, &figures->audit);
    pgshare_mock_check(figures->demo->machine);
    return error ? complain(error, "audit") : 0;
}

/* Who maps the frame that is being looked at? */
struct mappers {
    struct demo *demo;
    uint64_t frame;
    uint64_t seen[GUESTS_MAX + GUESTS_MORE]; /* the last frame of each guest */
    uint64_t guests;
    uint64_t mappings;
};

static int on_mapping(void *ctx, uint64_t dom, uint64_t gfn)
{
    struct mappers *mappers = ctx;
    uint32_t i = 0;

    (void)gfn;
    while (i < mappers->demo->n_guests && mappers->demo->guests[i].dom != dom)
        i++;
    if (i < mappers->demo->n_guests && mappers->seen[i] != mappers->frame) {
        mappers->seen[i] = mappers->frame;
        mappers->guests++;
    }
    mappers->mappings++;
    return 0;
}

/* Asks the cow domain what it owns, and each frame who maps it. */
static int split_savings(struct figures *figures)
{
    struct pgshare_frame_info info = { .size = sizeof(info) };
    struct mappers mappers = { .demo = figures->demo };
    struct pgshare_host *host = figures->demo->host;
    int error;

    figures->saved_zero = figures->stats.zero_mappings;
    while (!(error = pgshare_cow_next(host, info.frame, &info))) {
        if (!info.group)
            continue; /* the zero frame */
        mappers.frame = info.frame;
        mappers.guests = 0;
        mappers.mappings = 0;
        error = pgshare_frame_mappings(host, info.frame, on_mapping, &mappers);
        if (error)
            return complain(error, "asking who maps a frame");
        figures->saved_within += mappers.mappings - mappers.guests;
        figures->saved_across += mappers.guests ? mappers.guests - 1 : 0;
    }
    return error == PGSHARE_ERR_RANGE ? 0 : complain(error, "listing frames");
}

/* The bucket's upper bound in which that part of all pages is reached. */
static uint64_t percentile(const struct figures *figures, uint64_t percent)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < PGSHARE_HISTOGRAM_BUCKETS; i++) {
        sum += figures->stats.hint_to_share[i];
        if (sum * 100 >= figures->hinted * percent)
            return UINT64_C(1) << i;
    }
    return 0;
}

static int guest_figures(struct figures *figures)
{
    struct demo *demo = figures->demo;

    for (uint32_t i = 0; i < demo->n_guests; i++) {
        struct guest_figures *ours = &figures->guests[figures->n_guests];
        int error;

        if (!demo->guests[i].domain)
            continue;
        snprintf(ours->name, sizeof(ours->name), "%s", demo->guests[i].name);
        ours->stats.size = sizeof(ours->stats);
        error = pgshare_domain_stats(demo->host, demo->guests[i].dom,
                                     &ours->stats);
        if (error)
            return complain(error, "statistics of %s", ours->name);
        figures->n_guests++;
    }
    return 0;
}

int figures_collect(struct figures *figures)
{
    struct demo *demo = figures->demo;
    int error;

    error = demo_settle(demo);
    if (!error)
        compare(figures);
    if (!error)
        error = audit(figures);
    figures->stats.size = sizeof(figures->stats);
    figures->machine.size = sizeof(figures->machine);
    if (!error)
        error = pgshare_host_stats(demo->host, &figures->stats);
    if (!error)
        error = pgshare_mock_info(demo->machine, &figures->machine);
    if (!error)
        error = split_savings(figures);
    if (!error)
        error = guest_figures(figures);
    for (uint32_t i = 0; i < PGSHARE_HISTOGRAM_BUCKETS; i++)
        figures->hinted += figures->stats.hint_to_share[i];
    figures->p50_us = percentile(figures, 50);
    figures->p99_us = percentile(figures, 99);
    figures->in_use = figures->machine.private_ + figures->machine.cow;
    return error;
}

bool figures_good(const struct figures *figures)
{
    return !figures->content.wrong && !figures->audit.violations &&
           !figures->machine.violations && !figures->stats.backend_errors;
}
