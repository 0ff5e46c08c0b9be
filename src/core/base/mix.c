/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fingerprints are taken by backends, in whatever process the page is; the
 * core itself hashes one page only, the one that is known without reading any
 * guest's memory. Comparing a page's fingerprint with this finds the pages
 * that may become mappings of the zero frame.
 */
#include "base/mix.h"

#include <pgshare/common.h>
#include <xxhash.h>

uint64_t pgs_fingerprint_zero(uint64_t seed)
{
    static const unsigned char zeroes[PGSHARE_PAGE_SIZE];

    return XXH3_64bits_withSeed(zeroes, sizeof(zeroes), seed);
}
