/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the repayment ledger, on top of the small world (world.h):
 * guests that lend pages and claim others.
 */
#ifndef PGS_TESTS_UNIT_LEND_H
#define PGS_TESTS_UNIT_LEND_H

#include "mechanism/ledger.h"
#include "unit/world.h"

static inline int push(struct world *w, unsigned guest, uint64_t gfn,
                       uint64_t count)
{
    return pgshare_declare_volatile(w->host, w->dom[guest], gfn, count, NULL);
}

static inline int withdraw(struct world *w, unsigned guest, uint64_t gfn,
                           uint64_t count)
{
    return pgshare_declare_withdraw(w->host, w->dom[guest], gfn, count, NULL);
}

static inline int claim(struct world *w, unsigned guest, uint64_t gfn,
                        uint64_t count)
{
    return pgshare_bonus_claim(w->host, w->dom[guest], gfn, count, NULL);
}

static inline int hand_back(struct world *w, unsigned guest, uint64_t gfn,
                            uint64_t count)
{
    return pgshare_bonus_return(w->host, w->dom[guest], gfn, count, NULL);
}

/* 100 pages shared by both, 60 others volatile in guest 0. */
static inline void open_rich(struct world *w,
                             const struct world_options *options)
{
    world_open(w, options);
    world_share(w, 0, 100);
    ck_assert_int_eq(push(w, 0, 200, 60), 0);
}

#endif
