/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block map and the file map: (object, position) → a page that was last
 * filled from there. A cache of fixed size, eight entries to a set; the entry
 * that was used longest ago goes first, entries of shared libraries last.
 * Never believed, so that losing or mistaking an entry costs time only. Keys
 * include the trust group. The runner's (PGS_RANK_RUN).
 */
#ifndef PGS_TABLES_KEYMAP_H
#define PGS_TABLES_KEYMAP_H

#include "base/alloc.h"

#include <stdbool.h>

#define PGS_KEYMAP_WAYS 8

struct pgs_key {
    uint64_t object; /* image or file, mixed with the group by the caller */
    uint64_t position;
};

struct pgs_keymap_entry {
    uint64_t check; /* hash of the key, 0: empty */
    uint32_t page;  /* ordinal */
    uint32_t age : 31;
    uint32_t sticky : 1; /* of a shared library */
};

struct pgs_keymap {
    struct pgs_heap *heap;
    struct pgs_keymap_entry *entries; /* allocated by the first put */
    uint64_t sets;                    /* a power of two */
    uint64_t secret;                  /* seed of the hash */
    uint32_t clock;
    uint64_t used;
};

/*
 * `entries`: at the most, rounded up to sets of a power of two. `secret` is
 * random: who does not know it cannot make keys that meet in one set.
 */
void pgs_keymap_init(struct pgs_keymap *map, struct pgs_heap *heap,
                     uint64_t entries, uint64_t secret);
void pgs_keymap_fini(struct pgs_keymap *map);
bool pgs_keymap_get(struct pgs_keymap *map, const struct pgs_key *key,
                    uint32_t *ret_page);
/* _NOMEM only by the first. */
int pgs_keymap_put(struct pgs_keymap *map, const struct pgs_key *key,
                   uint32_t page, bool sticky);

#endif
