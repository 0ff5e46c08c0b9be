/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the demo's host takes its metadata from: a jemalloc arena of its own
 * where libpgshare-jemalloc is built, else the library's default. One of the
 * twins allocator_jemalloc.c and allocator_default.c is built.
 */
#ifndef PGSHARE_CLI_ALLOCATOR_H
#define PGSHARE_CLI_ALLOCATOR_H

struct pgshare_allocator;
struct pgshare_jemalloc;

int demo_allocator_new(struct pgshare_jemalloc **ret_arena);
void demo_allocator_free(struct pgshare_jemalloc *arena);

/* NULL: the library's default. */
const struct pgshare_allocator *demo_allocator(
    const struct pgshare_jemalloc *arena);

#endif
