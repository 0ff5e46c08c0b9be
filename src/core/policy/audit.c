/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit of the tables that propose; see policy/audit.h. */
#include "policy/audit.h"

#include "policy/policy.h"

static void report(struct pgs_audit *audit, uint64_t expected, uint64_t found)
{
    pgs_audit_report(audit, PGSHARE_INVARIANT_INDEX, PGS_NOWHERE, expected,
                     found);
}

/* Ordinals from here on are no page's. Lower ones may name pages of domains
 * that have gone. */
#define PAGES_END ((uint64_t)PGS_CHUNKS_MAX << PGS_CHUNK_SHIFT)

static void check_index(struct pgs_audit *audit)
{
    const struct pgs_index *index = &audit->host->policy->index;
    uint64_t used = 0;

    if (!pgs_index_is_valid(index)) {
        report(audit, index->n_buckets, index->level);
        return;
    }
    for (uint64_t b = 0; b < index->n_buckets; b++) {
        const struct pgs_bucket *bucket = pgs_slab_at(&index->buckets,
                                                      (uint32_t)b);

        for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++) {
            uint64_t page = PGS_PAGE_NONE - bucket->page[i];

            if (page == PGS_PAGE_NONE)
                continue;
            used++;
            if (page >= PAGES_END)
                report(audit, PAGES_END, page);
        }
    }
    if (used != index->used)
        report(audit, used, index->used);
}

static void check_map(struct pgs_audit *audit, const struct pgs_keymap *map)
{
    uint64_t n = map->entries ? map->sets * PGS_KEYMAP_WAYS : 0, used = 0;

    for (uint64_t i = 0; i < n; i++) {
        if (!map->entries[i].check)
            continue;
        used++;
        if (map->entries[i].page >= PAGES_END)
            report(audit, PAGES_END, map->entries[i].page);
    }
    if (used != map->used)
        report(audit, used, map->used);
}

void pgs_policy_audit(struct pgs_audit *audit)
{
    struct pgs_policy *policy = audit->host->policy;

    check_index(audit);
    check_map(audit, &policy->blocks);
    check_map(audit, &policy->files);
}
