/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mark that tells a process from its children; see origin.h. The check
 * stands on the path of every fault, where a system call would cost more than
 * the rest of the path.
 */
#include "base/origin.h"

#include <stdint.h>
#include <sys/mman.h>

#define MARK_BYTES 4096

void pgs_origin_init(struct pgs_origin *origin)
{
    unsigned char *mark = mmap(NULL, MARK_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    origin->pid = getpid();
    origin->mark = NULL;
    if (mark == MAP_FAILED)
        return;
    if (madvise(mark, MARK_BYTES, MADV_WIPEONFORK)) {
        munmap(mark, MARK_BYTES);
        return;
    }
    *mark = 1;
    origin->mark = mark;
}

void pgs_origin_fini(struct pgs_origin *origin)
{
    if (origin->mark)
        munmap((void *)(uintptr_t)origin->mark, MARK_BYTES);
    origin->mark = NULL;
}
