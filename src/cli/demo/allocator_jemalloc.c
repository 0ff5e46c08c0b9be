/* SPDX-License-Identifier: BSD-2-Clause */
/* See allocator.h. */
#include "allocator.h"

#include <pgshare/jemalloc.h>

int demo_allocator_new(struct pgshare_jemalloc **ret_arena)
{
    return pgshare_jemalloc_new(NULL, ret_arena);
}

void demo_allocator_free(struct pgshare_jemalloc *arena)
{
    pgshare_jemalloc_free(arena);
}

const struct pgshare_allocator *demo_allocator(
    const struct pgshare_jemalloc *arena)
{
    return pgshare_jemalloc_allocator(arena);
}
