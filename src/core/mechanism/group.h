/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trust groups. All of it under domains_lock.
 */
#ifndef PGS_MECHANISM_GROUP_H
#define PGS_MECHANISM_GROUP_H

#include "mechanism/host.h"

#include <pgshare/domain.h>
#include <pgshare/group.h>

/* Finds or makes the group of that name; `name` NULL: a new one of its own for
 * one domain. _NOMEM, _FULL. */
int pgs_group_open(struct pgshare_host *host, const char *name,
                   uint32_t *ret_group);

/* Is that the number of a group that was opened by a name? */
bool pgs_group_is_named(struct pgshare_host *host, uint64_t group);

/* One domain less; a group of its own ends with it. */
void pgs_group_leave(struct pgshare_host *host, uint32_t group);

#endif
