/* SPDX-License-Identifier: BSD-2-Clause */
/* See allocator.h. */
#include "allocator.h"

#include <stddef.h>

int demo_allocator_new(struct pgshare_jemalloc **ret_arena)
{
    *ret_arena = NULL;
    return 0;
}

void demo_allocator_free(struct pgshare_jemalloc *arena)
{
    (void)arena;
}

const struct pgshare_allocator *demo_allocator(
    const struct pgshare_jemalloc *arena)
{
    (void)arena;
    return NULL;
}
