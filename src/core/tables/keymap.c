/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where a disk block or a file's page was last seen in memory. A set-
 * associative cache of fixed size: what a guest reads in bulk may push out
 * what others could have shared, so entries age by use, and those of shared
 * libraries, which everybody maps, go last.
 *
 * Only the hash of a key is kept. Two keys with one 64-bit hash are taken for
 * each other, which costs a comparison of pages; the hash has a secret, so
 * that no guest can choose keys that do so, or that crowd one set.
 */
#include "tables/keymap.h"

#include "tables/gfn.h"

#include <pgshare/error.h>

#include <assert.h>
#include <xxhash.h>

#define AGE_MASK UINT32_C(0x7fffffff)
/* Two cache lines a set; the alignment keeps it at two. */
#define SET_ALIGN 128u
#define MOST_SETS (UINT64_C(1) << 40)

static_assert(sizeof(struct pgs_keymap_entry) == 16, "eight to two lines");
static_assert(sizeof(struct pgs_key) == 16, "hashed as it stands: no padding");

void pgs_keymap_init(struct pgs_keymap *map, struct pgs_heap *heap,
                     uint64_t entries, uint64_t secret)
{
    assert(heap != NULL);
    map->heap = heap;
    map->entries = NULL;
    map->sets = 1;
    map->secret = secret;
    map->clock = 0;
    map->used = 0;
    while (map->sets < MOST_SETS &&
           map->sets * PGS_KEYMAP_WAYS < entries)
        map->sets *= 2;
}

void pgs_keymap_fini(struct pgs_keymap *map)
{
    if (map->entries)
        PGS_FREE_N(map->heap, map->entries,
                   (size_t)map->sets * PGS_KEYMAP_WAYS);
    map->entries = NULL;
    map->used = 0;
}

static uint64_t check_of(const struct pgs_keymap *map,
                         const struct pgs_key *key)
{
    uint64_t hash = XXH3_64bits_withSeed(key, sizeof(*key), map->secret);

    return hash ? hash : 1;
}

static struct pgs_keymap_entry *set_of(struct pgs_keymap *map, uint64_t check)
{
    assert(map->sets > 0 && (map->sets & (map->sets - 1)) == 0);
    return &map->entries[(check & (map->sets - 1)) * PGS_KEYMAP_WAYS];
}

static struct pgs_keymap_entry *find(struct pgs_keymap_entry *set,
                                     uint64_t check)
{
    for (unsigned i = 0; i < PGS_KEYMAP_WAYS; i++) {
        if (set[i].check == check)
            return &set[i];
    }
    return NULL;
}

/* How long ago it was used, modulo the clock's 31 bits. */
static uint32_t idle_time(const struct pgs_keymap *map,
                          const struct pgs_keymap_entry *entry)
{
    return (map->clock - entry->age) & AGE_MASK;
}

/* Is `a` a better victim than `b`? */
static bool goes_before(const struct pgs_keymap *map,
                        const struct pgs_keymap_entry *a,
                        const struct pgs_keymap_entry *b)
{
    if ((a->check == 0) != (b->check == 0))
        return a->check == 0;
    if (a->sticky != b->sticky)
        return !a->sticky;
    return idle_time(map, a) > idle_time(map, b);
}

static struct pgs_keymap_entry *victim(const struct pgs_keymap *map,
                                       struct pgs_keymap_entry *set)
{
    struct pgs_keymap_entry *worst = &set[0];

    for (unsigned i = 1; i < PGS_KEYMAP_WAYS; i++) {
        if (goes_before(map, &set[i], worst))
            worst = &set[i];
    }
    return worst;
}

static void touch(struct pgs_keymap *map, struct pgs_keymap_entry *entry)
{
    map->clock = (map->clock + 1) & AGE_MASK;
    entry->age = map->clock & AGE_MASK;
}

bool pgs_keymap_get(struct pgs_keymap *map, const struct pgs_key *key,
                    uint32_t *ret_page)
{
    struct pgs_keymap_entry *entry;
    uint64_t check;

    if (!map->entries)
        return false;
    check = check_of(map, key);
    entry = find(set_of(map, check), check);
    if (!entry)
        return false;
    assert(entry->page != PGS_PAGE_NONE);
    touch(map, entry);
    *ret_page = entry->page;
    return true;
}

static int allocate(struct pgs_keymap *map)
{
    uint64_t entries = map->sets * PGS_KEYMAP_WAYS;

    if (entries > SIZE_MAX / sizeof(*map->entries))
        return PGSHARE_ERR_NOMEM;
    map->entries = pgs_heap_zalloc(map->heap, (size_t)entries,
                                   sizeof(*map->entries), SET_ALIGN);
    return map->entries ? 0 : PGSHARE_ERR_NOMEM;
}

int pgs_keymap_put(struct pgs_keymap *map, const struct pgs_key *key,
                   uint32_t page, bool sticky)
{
    uint64_t check = check_of(map, key);
    struct pgs_keymap_entry *entry;

    assert(page != PGS_PAGE_NONE);
    if (!map->entries) {
        int error = allocate(map);

        if (error)
            return error;
    }
    entry = find(set_of(map, check), check);
    if (!entry)
        entry = victim(map, set_of(map, check));
    if (entry->check == 0)
        map->used++;
    assert(map->used <= map->sets * PGS_KEYMAP_WAYS);
    entry->check = check;
    entry->page = page;
    entry->sticky = sticky;
    touch(map, entry);
    return 0;
}
