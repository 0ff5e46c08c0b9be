/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of `pgshare demo` share: the machine, its host, the guests.
 *
 *     demo.c      options, from beginning to end
 *     story.c     what happens to guests that boot from a disk, act by act
 *     ram.c       what happens to guests that come as RAM images
 *     guest.c     a guest: whatever it does, its shadow copy does too
 *     figures.c   what came of it;  table.c, json.c  and how it is told
 *     live.c      the view while it runs
 *
 * Errors are values; who finds one says so on stderr (complain()) and hands it
 * on, so that it is said once.
 */
#ifndef PGSHARE_CLI_DEMO_H
#define PGSHARE_CLI_DEMO_H

#include "content.h"
#include "guest.h"
#include "image.h"
#include "live.h"

#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#define GUESTS_MAX 64u
/* Guests that the story adds to those asked for. */
#define GUESTS_MORE 8u

struct demo_options {
    uint32_t guests;
    uint64_t memory; /* of each guest, in bytes */
    uint64_t seed;
    bool json;
    bool live;
    char **images; /* RAM images, or NULL */
    uint32_t n_images;
};

/* What the host has reported, by enum pgshare_report_kind. */
#define REPORTS_MAX 16u

struct demo {
    const struct demo_options *options;
    struct pgshare_mock_machine *machine;
    struct pgshare_mock_disk *disk; /* NULL with RAM images */
    struct pgshare_jemalloc *arena; /* NULL where it is not built in */
    struct pgshare_host *host;
    uint64_t group;
    struct content content; /* empty with RAM images */
    struct image images[GUESTS_MAX];
    struct guest guests[GUESTS_MAX + GUESTS_MORE];
    uint32_t n_guests;
    uint64_t reports[REPORTS_MAX];
    uint64_t most_saved;   /* frames, at any tick */
    uint64_t most_claimed; /* bonus pages, likewise */
    struct shadow_verdict content_verdict;
    struct live live;
};

/* "pgshare: WHAT: the error's text". Answers the error. */
int complain(int error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Makes machine and host; `pages` is the machine's memory. */
int demo_machine(struct demo *demo, uint64_t pages);

/* Adds a guest; it has joined the host, its GFNs are holes or sparse.
 * The name is copied. */
int demo_guest_add(struct demo *demo, const char *name, uint64_t gfns,
                   const struct pgshare_mock_domain_options *options,
                   struct guest **ret_guest);

/* The guest ends, its content having been checked. */
int demo_guest_remove(struct demo *demo, struct guest *guest);

/* The host does what there is to do, and the view is refreshed. */
int demo_tick(struct demo *demo);

/* The same until nothing is left to do. */
int demo_settle(struct demo *demo);

/* The two stories, up to the point where all is to be checked. */
int story_run(struct demo *demo);
int ram_run(struct demo *demo);

/* Opens the RAM images, if there are any. An error: one is none. */
int ram_open(struct demo *demo);

#endif
