/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The errors, each of which a caller can act upon.
 *
 * Functions return 0 or one of these negative values. Each function's comment
 * lists those to expect, but for two that any of them may answer:
 * ::PGSHARE_ERR_INVALID when it is called wrongly, and ::PGSHARE_ERR_ABI when
 * it is given a struct. Values fit an `int8_t`,
 * the type of per-element results. No function aborts, exits or prints.
 */
#ifndef PGSHARE_ERROR_H
#define PGSHARE_ERROR_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** What can go wrong. Values are never reused. @since 0.1 */
enum pgshare_error {
    PGSHARE_OK = 0,
    /** An argument is NULL, malformed, or has unknown flag bits. */
    PGSHARE_ERR_INVALID = -1,
    /** The struct's size is unknown to this version, or its tail not zero. */
    PGSHARE_ERR_ABI = -2,
    /** A GFN, count or order is outside what the object has. */
    PGSHARE_ERR_RANGE = -3,
    /** The allocator had no memory for metadata; nothing was changed. */
    PGSHARE_ERR_NOMEM = -4,
    /** The machine has no frame: reserve and repayment FIFOs are exhausted. */
    PGSHARE_ERR_NOFRAME = -5,
    /** No such domain: never added, removed, or its domid was reused. */
    PGSHARE_ERR_NODOMAIN = -6,
    /** Such an object is there already. */
    PGSHARE_ERR_EXISTS = -7,
    /** This backend, or this build, cannot do that. */
    PGSHARE_ERR_NOTSUP = -8,
    /** The page is held or in flight; try again later. */
    PGSHARE_ERR_BUSY = -9,
    /** Not finished within the time-out; the outcome will be reported. */
    PGSHARE_ERR_INPROGRESS = -10,
    /** The GFN is not, or no longer, marked with this ticket. */
    PGSHARE_ERR_TICKET = -11,
    /** The source's side of a share was never, or is no longer, marked. */
    PGSHARE_ERR_SOURCE_TICKET = -12,
    /** The client's side of a share was never, or is no longer, marked. */
    PGSHARE_ERR_CLIENT_TICKET = -13,
    /** The two pages do not hold the same bytes. */
    PGSHARE_ERR_DIFFERENT = -14,
    /** The two domains are in different trust groups. */
    PGSHARE_ERR_GROUP = -15,
    /** A page of the call is declared never-share. */
    PGSHARE_ERR_NEVER_SHARE = -16,
    /** A page of the call is in a read-only range. */
    PGSHARE_ERR_READONLY = -17,
    /** There is no memory at that GFN. */
    PGSHARE_ERR_HOLE = -18,
    /** The volatile page was reclaimed before it could be withdrawn. */
    PGSHARE_ERR_RECLAIMED = -19,
    /** The repayment FIFO would be shorter than the bonus claimed. */
    PGSHARE_ERR_OWED = -20,
    /** The claim exceeds the domain's entitlement. */
    PGSHARE_ERR_ENTITLEMENT = -21,
    /** A table is at its documented limit. */
    PGSHARE_ERR_FULL = -22,
    /** The domain's process or machine is dead. */
    PGSHARE_ERR_GONE = -23,
    /** The backend failed or broke its contract. */
    PGSHARE_ERR_BACKEND = -24,
    /** The host object belongs to the parent process. */
    PGSHARE_ERR_FORKED = -25,
    /** The domain is suspended. */
    PGSHARE_ERR_SUSPENDED = -26,
    /** A shared ring or message holds what its protocol forbids. */
    PGSHARE_ERR_PROTOCOL = -27,
    /** The page is not in the state that the call needs. */
    PGSHARE_ERR_STATE = -28
};

/**
 * The symbolic name of an error, e.g. "PGSHARE_ERR_NOFRAME".
 * @param[in] error a result of any function
 * @return a static string, "PGSHARE_ERR_UNKNOWN" for what is none.
 * @since 0.1
 */
PGSHARE_EXPORT const char *pgshare_error_name(int error);

/**
 * One sentence for a person, without a full stop.
 * @param[in] error a result of any function
 * @return a static string, never NULL. @since 0.1
 */
PGSHARE_EXPORT const char *pgshare_error_text(int error);

PGSHARE_END_DECLS

#endif
