/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy's part of the audit: the content index, block and file maps. Their
 * entries are never believed, so that a stale one is no fault; one that names
 * no page at all, or is not counted, is.
 */
#ifndef PGS_POLICY_AUDIT_H
#define PGS_POLICY_AUDIT_H

#include "mechanism/audit.h"

/* The caller is the runner. */
void pgs_policy_audit(struct pgs_audit *audit);

#endif
