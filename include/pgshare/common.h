/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief What every public header needs: export marks, page arithmetic, the
 * call context.
 */
#ifndef PGSHARE_COMMON_H
#define PGSHARE_COMMON_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define PGSHARE_BEGIN_DECLS extern "C" {
#define PGSHARE_END_DECLS }
#else
#define PGSHARE_BEGIN_DECLS
#define PGSHARE_END_DECLS
#endif

/** Marks the symbols of the stable ABI. */
#define PGSHARE_EXPORT __attribute__((visibility("default")))

/** The header's version; compare with pgshare_version(). @since 0.1 */
#define PGSHARE_VERSION_MAJOR 0
#define PGSHARE_VERSION_MINOR 1 /**< see _MAJOR */
#define PGSHARE_VERSION_PATCH 0 /**< see _MAJOR */

/** Size of a page, as a power of two. */
#define PGSHARE_PAGE_SHIFT 12
/** Size of a page, which is the unit of sharing, in bytes. */
#define PGSHARE_PAGE_SIZE ((size_t)1 << PGSHARE_PAGE_SHIFT)

/** "No GFN", where a call takes an optional one. */
#define PGSHARE_GFN_NONE UINT64_MAX

/** A time-out that never comes. */
#define PGSHARE_FOREVER UINT64_MAX

/**
 * The longest extent that one backend operation carries, in pages (2 MiB).
 * Public calls take ranges of any length and cut them.
 */
#define PGSHARE_EXTENT_MAX 512u
/** Orders of aligned blocks: 2^0 … 2^9 pages. */
#define PGSHARE_ORDERS 10u

struct pgshare_host;
struct pgshare_backend;

PGSHARE_BEGIN_DECLS

/**
 * @struct pgshare_call
 * How one call waits, and what it has to say beside its result.
 *
 * Wherever a function takes one, NULL means: wait for the host's default
 * time-out, no per-element results. A call that has to wait for the backend
 * longer than `timeout_ns` returns ::PGSHARE_ERR_INPROGRESS and leaves a token
 * here; the work goes on, and its outcome reaches the host's `outcome`
 * callback, from pgshare_host_run(), with the same token and cookie. The
 * struct itself is not kept.
 *
 * A call over a range works element by element. With `results` every element
 * is tried and gets its own 0 or ::pgshare_error there; the call then returns
 * the first error or 0. Without it the call stops at the first error.
 */
struct pgshare_call {
    size_t size;         /**< [in] sizeof(struct pgshare_call) */
    uint64_t timeout_ns; /**< [in] 0: do not wait; PGSHARE_FOREVER */
    void *cookie;        /**< [in] handed to the `outcome` callback */
    int8_t *results;     /**< [in] NULL, or one element per page */
    uint64_t token;      /**< [out] set with PGSHARE_ERR_INPROGRESS only */
    uint64_t done;       /**< [out] elements that succeeded; left as it was where
                          *   the call is refused as such (handle, range, …) */
};

/**
 * The library's version as "major.minor.patch".
 * @return a static string. Callable from any thread. @since 0.1
 */
PGSHARE_EXPORT const char *pgshare_version(void);

PGSHARE_END_DECLS

#endif
