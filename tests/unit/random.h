/* SPDX-License-Identifier: BSD-2-Clause */
/* Random numbers for model tests, from the run's seed. */
#ifndef PGS_TESTS_UNIT_RANDOM_H
#define PGS_TESTS_UNIT_RANDOM_H

#include "base/mix.h"
#include "support/suite.h"

struct random {
    uint64_t state;
};

/* A stream of its own for each `salt`. */
static inline struct random random_start(uint64_t salt)
{
    return (struct random){ pgs_mix(pgs_test_seed() + salt) };
}

static inline uint64_t random_next(struct random *random)
{
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    return pgs_mix(random->state);
}

/* Below `n`. */
static inline uint32_t random_below(struct random *random, uint32_t n)
{
    return (uint32_t)(random_next(random) >> 32) % n;
}

#endif
