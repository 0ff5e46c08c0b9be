/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the scanner, on top of the small world (world.h): contents by
 * number, passes, and who shares with whom.
 */
#ifndef PGS_TESTS_UNIT_PASSES_H
#define PGS_TESTS_UNIT_PASSES_H

#include "unit/world.h"

/* Like world_open(), with a change log or without. */
static inline void open_scan(struct world *w, bool logged)
{
    struct world_options options = { .logged = logged };

    world_open(w, &options);
}

static inline void fill(struct world *w, unsigned guest, uint64_t gfn,
                        uint64_t count, uint64_t value)
{
    unsigned char page[PGSHARE_PAGE_SIZE];

    for (uint64_t i = 0; i < count; i++) {
        world_page(value + i, page);
        ck_assert_int_eq(pgshare_mock_write_page(w->guest[guest], gfn + i,
                                                 page),
                         0);
    }
}

/* One pass; answers how many pages it fingerprinted. */
static inline uint64_t pass(struct world *w)
{
    uint64_t before = world_stats(w).scanned;

    ck_assert_int_eq(pgshare_host_pass(w->host, 0), 0);
    world_settle(w);
    return world_stats(w).scanned - before;
}

static inline bool together(struct world *w, unsigned a, uint64_t gfn_a,
                            unsigned b, uint64_t gfn_b)
{
    struct pgshare_gfn_info one = world_gfn(w, a, gfn_a);
    struct pgshare_gfn_info two = world_gfn(w, b, gfn_b);

    return one.state == PGSHARE_GFN_SHARED && one.frame == two.frame;
}

static inline uint64_t saved(struct world *w)
{
    return world_stats(w).saved;
}

static inline struct pgshare_scan_info info_of(struct world *w)
{
    struct pgshare_scan_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_scan_info(w->host, &info), 0);
    return info;
}

static inline int set_floor(struct world *w, unsigned guest, uint64_t gfn,
                            uint64_t count, uint32_t order)
{
    return pgshare_scan_floor(w->host, w->dom[guest], gfn, count, order);
}

#endif
