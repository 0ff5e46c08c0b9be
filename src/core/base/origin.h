/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which process made a host? A page that the kernel wipes in a child after
 * fork() (MADV_WIPEONFORK, Linux 4.14) answers with one load; where that is
 * missing, the process's id does.
 */
#ifndef PGS_BASE_ORIGIN_H
#define PGS_BASE_ORIGIN_H

#include <stdbool.h>
#include <sys/types.h>
#include <unistd.h>

struct pgs_origin {
    const volatile unsigned char *mark; /* 1 here, 0 in a child; or NULL */
    pid_t pid;
};

void pgs_origin_init(struct pgs_origin *origin);
void pgs_origin_fini(struct pgs_origin *origin);

static inline bool pgs_origin_is_here(const struct pgs_origin *origin)
{
    return origin->mark ? *origin->mark : origin->pid == getpid();
}

#endif
