/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The whole user API.
 *
 * @mainpage libpgshare
 *
 * Content-based page sharing between virtual machines: one copy of each
 * duplicate page, read-only and copy-on-write, with hints before scanning and
 * memory that can always be paid back.
 *
 * A host (host.h) over a backend (mock.h, later kvm.h and xen.h) has domains
 * (domain.h) in trust groups (group.h). Duplicates are found by hints (hint.h)
 * and by the scanner (scan.h), or named by the embedder (share.h). Write faults are
 * resolved by fault.h; owners speak of their pages by declare.h and ring.h;
 * gfn.h holds pages; ledger.h pays; fork.h builds domains; stats.h and audit.h
 * tell.
 *
 * Caveats:
 *  - A page that DMA or pinned I/O writes to must be held (gfn.h).
 *  - After fork() only pgshare_host_free() works in the child.
 *  - A domain's handle is void from the moment of its removal.
 *  - Read docs/architecture.md for threads, errors and stability.
 */
#ifndef PGSHARE_PGSHARE_H
#define PGSHARE_PGSHARE_H

#include <pgshare/audit.h>
#include <pgshare/common.h>
#include <pgshare/declare.h>
#include <pgshare/domain.h>
#include <pgshare/error.h>
#include <pgshare/fault.h>
#include <pgshare/fork.h>
#include <pgshare/gfn.h>
#include <pgshare/group.h>
#include <pgshare/hint.h>
#include <pgshare/host.h>
#include <pgshare/ledger.h>
#include <pgshare/ring.h>
#include <pgshare/scan.h>
#include <pgshare/share.h>
#include <pgshare/stats.h>

#endif
