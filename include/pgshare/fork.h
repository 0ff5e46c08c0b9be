/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Domain building by forking a read-only domain stub.
 */
#ifndef PGSHARE_FORK_H
#define PGSHARE_FORK_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/**
 * @struct pgshare_fork_info
 * What a fork did.
 */
struct pgshare_fork_info {
    size_t size;
    uint64_t shared;  /**< pages that the child maps from the stub */
    uint64_t copied;  /**< never-share or held pages: copied for the child */
    uint64_t skipped; /**< volatile pages: holes in the child */
};

/** Hold no memory for the child's writes: a write that finds none on the
 * machine then answers ::PGSHARE_ERR_NOFRAME. */
#define PGSHARE_FORK_UNSECURED (1u << 0)

/**
 * @struct pgshare_fork_options
 * How to fork.
 */
struct pgshare_fork_options {
    size_t size;
    uint32_t flags; /**< PGSHARE_FORK_UNSECURED */
    uint32_t reserved;
};

/**
 * Makes a domain a stub: its populated pages become frames of the cow domain,
 * and the whole domain is read-only (a write is reported, never done), so that
 * children can be built from it. The stub must not run any more.
 * @param[in,out] call only the time-out is used; may be NULL
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_STATE (a stub already),
 * ::PGSHARE_ERR_SUSPENDED, ::PGSHARE_ERR_NOTSUP, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_NOFRAME, ::PGSHARE_ERR_INPROGRESS (pages are in flight: call
 * again), ::PGSHARE_ERR_BUSY (`max_calls` calls are waiting),
 * ::PGSHARE_ERR_HOLE (memory was removed meanwhile), ::PGSHARE_ERR_GONE,
 * ::PGSHARE_ERR_FORKED, or the backend's error. After an error the domain is an
 * ordinary one, part of whose pages are frames. @since 0.1
 */
PGSHARE_EXPORT int pgshare_domain_freeze(struct pgshare_host *host,
                                         uint64_t dom,
                                         struct pgshare_call *call);

/** Ends a stub's life as such; it may run again. Children keep their pages.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_STATE (no stub),
 * ::PGSHARE_ERR_FORKED. @since 0.1 */
PGSHARE_EXPORT int pgshare_domain_thaw(struct pgshare_host *host,
                                       uint64_t dom);

/**
 * Builds a child: every page of the stub is mapped at the same GFN of the
 * child, read-only and copy-on-write. The child was added with
 * pgshare_domain_add() in the stub's trust group, and its GFNs are holes.
 * A forked guest must renew what may not be twice in the world: VM generation
 * id, random state, MAC addresses, keys.
 *
 * Every page that the child maps is memory that it may demand: unless told
 * otherwise, a fork first takes that much from the machine into the reserve.
 * @param[in] options NULL for the defaults
 * @param[out] ret_info NULL, or what was done
 * @return 0, ::PGSHARE_ERR_STATE (`stub` is none, or the child has memory),
 * ::PGSHARE_ERR_SUSPENDED (one of the two is), ::PGSHARE_ERR_GROUP,
 * ::PGSHARE_ERR_RANGE (the child is smaller), ::PGSHARE_ERR_NODOMAIN,
 * ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_FULL, ::PGSHARE_ERR_NOFRAME,
 * ::PGSHARE_ERR_NOTSUP, ::PGSHARE_ERR_INPROGRESS, ::PGSHARE_ERR_BUSY (pages are
 * in flight, or `max_calls` calls are waiting: call again; it goes on where it
 * was), ::PGSHARE_ERR_NEVER_SHARE (a hole of the child is declared so),
 * ::PGSHARE_ERR_SOURCE_TICKET, ::PGSHARE_ERR_HOLE (a page of the stub was
 * unshared, or removed, meanwhile), ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_FORKED,
 * or the backend's error. After an error part of the child is built; remove it
 * or call again. @since 0.1
 */
PGSHARE_EXPORT int pgshare_fork(struct pgshare_host *host, uint64_t stub,
                                uint64_t child,
                                const struct pgshare_fork_options *options,
                                struct pgshare_call *call,
                                struct pgshare_fork_info *ret_info);

PGSHARE_END_DECLS

#endif
