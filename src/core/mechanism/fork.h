/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forking: stubs and children. Sequential, driven by the caller; each step is
 * an extent of the share protocol.
 */
#ifndef PGS_MECHANISM_FORK_H
#define PGS_MECHANISM_FORK_H

#include "mechanism/host.h"

#include <pgshare/fork.h>

int pgs_freeze(struct pgs_domain *domain, uint64_t timeout);
int pgs_fork(struct pgs_domain *stub, struct pgs_domain *child,
             uint32_t flags, uint64_t timeout, struct pgshare_fork_info *info);

#endif
