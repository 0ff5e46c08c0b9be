/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Public structs begin with their size. What a caller of another version hands
 * in or wants back is converted here, once, at the API's edge.
 */
#ifndef PGS_BASE_ABI_H
#define PGS_BASE_ABI_H

#include <stddef.h>

/*
 * Copies a caller's struct into `ours` (size `size`, the part that the caller
 * does not know stays zero). NULL `theirs`: all zero. PGSHARE_ERR_ABI: the
 * caller's size is below `least` or above 4096, or its unknown tail is not
 * zero.
 */
int pgs_abi_in(void *ours, size_t size, size_t least, const void *theirs);

/* Is `theirs`, which we shall fill, of a plausible size? NULL is. */
int pgs_abi_check_out(const void *theirs, size_t least);

/*
 * Copies as much of `ours` out as the caller has room for, zeroes the rest of
 * the caller's struct, keeps the caller's size. NULL `theirs`: nothing.
 */
void pgs_abi_out(void *theirs, const void *ours, size_t size);

#endif
