/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hashing: the mixer for table keys, and the fingerprint of a page, XXH3-64
 * with the secret seed of a trust group. A fingerprint only proposes.
 */
#ifndef PGS_BASE_MIX_H
#define PGS_BASE_MIX_H

#include <stdint.h>

/* A bijection of 64-bit values with good avalanche (Stafford's variant 13 of
 * the MurmurHash3 finaliser, as SplitMix64 uses it). */
static inline uint64_t pgs_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* What a page of zeroes hashes to. */
uint64_t pgs_fingerprint_zero(uint64_t seed);

#endif
