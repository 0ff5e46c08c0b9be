/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Trust groups: who may share with whom.
 *
 * By default a domain shares only with itself, in a group of its own. Sharing
 * across domains is opted into by naming a group. The zero frame alone is
 * common to all groups: it reveals nothing. (ESXi calls it salting; see VMware
 * KB 2080735.)
 */
#ifndef PGSHARE_GROUP_H
#define PGSHARE_GROUP_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** The longest name of a group, without its NUL. */
#define PGSHARE_GROUP_NAME_MAX 63u

/** Groups with a name of one host at the most. A domain's own group does not
 * count: there is room for one for each domain. */
#define PGSHARE_GROUPS_MAX 65535u

/**
 * Finds the group of that name, or makes it. A group lives as long as its
 * host; its fingerprints have a secret seed of their own.
 * @param[in] name 1 … PGSHARE_GROUP_NAME_MAX bytes
 * @param[out] ret_group never 0
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_FULL,
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int pgshare_group_open(struct pgshare_host *host,
                                      const char *name, uint64_t *ret_group);

PGSHARE_END_DECLS

#endif
