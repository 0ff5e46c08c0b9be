/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The host's end of a guest ring (see guest_ring.h).
 */
#ifndef PGSHARE_RING_H
#define PGSHARE_RING_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

struct pgshare_guest_ring;

/**
 * Serves a domain's guest ring: pgshare_host_run() takes its requests and puts
 * answers. All that the guest writes is validated; a guest that breaks the
 * protocol loses its ring (::PGSHARE_REPORT_RING_DETACHED), its declarations
 * stay in force.
 * @param[in] page the page shared with the guest, 4 KiB aligned; borrowed until
 * detach or domain removal; the library initialises the host's half
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_EXISTS,
 * ::PGSHARE_ERR_INVALID (alignment, length), ::PGSHARE_ERR_PROTOCOL (magic,
 * version), ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_ring_attach(struct pgshare_host *host, uint64_t dom,
                                       struct pgshare_guest_ring *page,
                                       size_t len);

/** Ends it; the page is not touched afterwards.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_STATE (none attached),
 * ::PGSHARE_ERR_FORKED. @since 0.1 */
PGSHARE_EXPORT int pgshare_ring_detach(struct pgshare_host *host,
                                       uint64_t dom);

/**
 * Serves the ring now, in this thread (a doorbell's handler), instead of at
 * the next run.
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_STATE (none attached),
 * ::PGSHARE_ERR_PROTOCOL (it was detached), ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_ring_kick(struct pgshare_host *host, uint64_t dom);

PGSHARE_END_DECLS

#endif
