/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A jemalloc arena as an allocator object.
 *
 * Blocks bypass the threads' caches: a cache may hold blocks of any arena past
 * the arena's end, and destroying an arena that caches still know of is
 * undefined. The host calls the allocator seldom and for large tables, so that
 * nothing is lost. Fresh extents are mapped and known to be zero: a table asked
 * for with PGSHARE_ALLOC_ZERO costs memory only where it is touched.
 *
 * mallctl() takes names; "arena.<i>.x" is the only way to name one arena.
 */
#include <pgshare/error.h>
#include <pgshare/jemalloc.h>
#include <pgshare/sys/allocator.h>

#include <jemalloc/jemalloc.h>

#include <stdio.h>
#include <string.h>

#define NAME_MAX_LEN 64

struct pgshare_jemalloc {
    struct pgshare_allocator allocator; /* its ctx is this struct */
    unsigned index;                     /* jemalloc's number of the arena */
};

static int flags_of(const struct pgshare_jemalloc *arena)
{
    return (int)MALLOCX_ARENA(arena->index) | MALLOCX_TCACHE_NONE;
}

static void *arena_alloc(void *ctx, size_t bytes, size_t align, uint32_t flags)
{
    int zero = flags & PGSHARE_ALLOC_ZERO ? MALLOCX_ZERO : 0;

    return mallocx(bytes, flags_of(ctx) | MALLOCX_ALIGN(align) | zero);
}

/* Without the size: it would have to come with the alignment. */
static void arena_free(void *ctx, void *ptr, size_t bytes)
{
    (void)bytes;
    dallocx(ptr, flags_of(ctx));
}

/* Control */

static void name_of(const struct pgshare_jemalloc *arena, const char *prefix,
                    const char *suffix, char ret_name[NAME_MAX_LEN])
{
    snprintf(ret_name, NAME_MAX_LEN, "%s.%u.%s", prefix, arena->index, suffix);
}

static int set_decay(const struct pgshare_jemalloc *arena, uint64_t decay_ms)
{
    const char *const suffixes[] = { "dirty_decay_ms", "muzzy_decay_ms" };
    ssize_t value = decay_ms == PGSHARE_JEMALLOC_DECAY_NONE ? 0
                                                            : (ssize_t)decay_ms;
    char name[NAME_MAX_LEN];

    if (!decay_ms)
        return 0;
    if (value < 0)
        return PGSHARE_ERR_INVALID;
    for (size_t i = 0; i < 2; i++) {
        name_of(arena, "arena", suffixes[i], name);
        /* What jemalloc refuses is a time beyond its range. */
        if (mallctl(name, NULL, NULL, &value, sizeof(value)) != 0)
            return PGSHARE_ERR_INVALID;
    }
    return 0;
}

static uint64_t read_size(const struct pgshare_jemalloc *arena,
                          const char *suffix)
{
    char name[NAME_MAX_LEN];
    size_t value = 0;
    size_t len = sizeof(value);

    name_of(arena, "stats.arenas", suffix, name);
    return mallctl(name, &value, &len, NULL, 0) == 0 ? value : 0;
}

/* Copies the caller's options: a tail that we do not know must be zero. */
static int options_in(struct pgshare_jemalloc_options *ours,
                      const struct pgshare_jemalloc_options *theirs)
{
    const unsigned char *tail = (const unsigned char *)theirs;

    memset(ours, 0, sizeof(*ours));
    if (!theirs)
        return 0;
    if (theirs->size < sizeof(theirs->size) || theirs->size > 4096)
        return PGSHARE_ERR_ABI;
    for (size_t i = sizeof(*ours); i < theirs->size; i++)
        if (tail[i])
            return PGSHARE_ERR_ABI;
    memcpy(ours, theirs,
           theirs->size < sizeof(*ours) ? theirs->size : sizeof(*ours));
    return ours->flags || ours->reserved ? PGSHARE_ERR_INVALID : 0;
}

int pgshare_jemalloc_new(const struct pgshare_jemalloc_options *options,
                         struct pgshare_jemalloc **ret_arena)
{
    struct pgshare_jemalloc_options ours;
    struct pgshare_jemalloc *arena;
    size_t len = sizeof(arena->index);
    int error;

    if (!ret_arena)
        return PGSHARE_ERR_INVALID;
    error = options_in(&ours, options);
    if (error)
        return error;
    arena = mallocx(sizeof(*arena), MALLOCX_ZERO);
    if (!arena)
        return PGSHARE_ERR_NOMEM;
    arena->allocator.size = sizeof(arena->allocator);
    arena->allocator.ctx = arena;
    arena->allocator.alloc = arena_alloc;
    arena->allocator.free = arena_free;
    if (mallctl("arenas.create", &arena->index, &len, NULL, 0) != 0) {
        dallocx(arena, 0);
        return PGSHARE_ERR_NOMEM;
    }
    error = set_decay(arena, ours.decay_ms);
    if (error) {
        pgshare_jemalloc_free(arena);
        return error;
    }
    *ret_arena = arena;
    return 0;
}

struct pgshare_jemalloc *pgshare_jemalloc_free(struct pgshare_jemalloc *arena)
{
    char name[NAME_MAX_LEN];

    if (!arena)
        return NULL;
    name_of(arena, "arena", "destroy", name);
    mallctl(name, NULL, NULL, NULL, 0);
    dallocx(arena, 0);
    return NULL;
}

const struct pgshare_allocator *pgshare_jemalloc_allocator(
    const struct pgshare_jemalloc *arena)
{
    return &arena->allocator;
}

int pgshare_jemalloc_info(const struct pgshare_jemalloc *arena,
                          struct pgshare_jemalloc_info *ret_info)
{
    struct pgshare_jemalloc_info info = { 0 };
    uint64_t epoch = 1;
    size_t known;

    if (!arena || !ret_info)
        return PGSHARE_ERR_INVALID;
    if (ret_info->size < sizeof(ret_info->size) || ret_info->size > 4096)
        return PGSHARE_ERR_ABI;
    mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)); /* refreshes them */
    info.size = ret_info->size;
    info.allocated = read_size(arena, "small.allocated") +
                     read_size(arena, "large.allocated");
    info.resident = read_size(arena, "resident");
    known = info.size < sizeof(info) ? info.size : sizeof(info);
    memset((char *)ret_info + known, 0, info.size - known);
    memcpy(ret_info, &info, known);
    return 0;
}
