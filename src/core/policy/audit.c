/* SPDX-License-Identifier: BSD-2-Clause */
/* The audit of the tables that propose; see policy/audit.h. */
#include "policy/audit.h"

#include "policy/policy.h"

static void report(struct pgs_audit *audit, uint64_t expected, uint64_t found)
{
    pgs_audit_report(audit, PGSHARE_INVARIANT_INDEX, PGS_NOWHERE, expected,
                     found);
}

/* Ordinals at and above were never given to a page. */
static uint64_t pages_end(struct pgshare_host *host)
{
    uint64_t chunks;

    pgs_mutex_lock(&host->domains_lock);
    chunks = host->chunks.used;
    pgs_mutex_unlock(&host->domains_lock);
    return chunks << PGS_CHUNK_SHIFT;
}

static void check_index(struct pgs_audit *audit, uint64_t end)
{
    const struct pgs_index *index = &audit->host->policy->index;
    uint64_t used = 0;

    if (!pgs_index_is_valid(index)) {
        report(audit, index->n_buckets, index->level);
        return;
    }
    for (uint64_t b = 0; b < index->n_buckets; b++) {
        const struct pgs_bucket *bucket =
            pgs_slab_at(&index->buckets, (uint32_t)b);

        for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++) {
            if (!bucket->page[i])
                continue;
            used++;
            if ((uint32_t)~bucket->page[i] >= end)
                report(audit, end, (uint32_t)~bucket->page[i]);
        }
    }
    if (used != index->used)
        report(audit, used, index->used);
}

static void check_map(struct pgs_audit *audit, const struct pgs_keymap *map,
                      uint64_t end)
{
    uint64_t n = map->entries ? map->sets * PGS_KEYMAP_WAYS : 0, used = 0;

    for (uint64_t i = 0; i < n; i++) {
        if (!map->entries[i].check)
            continue;
        used++;
        if (map->entries[i].page >= end)
            report(audit, end, map->entries[i].page);
    }
    if (used != map->used)
        report(audit, used, map->used);
}

void pgs_policy_audit(struct pgs_audit *audit)
{
    struct pgs_policy *policy = audit->host->policy;
    uint64_t end = pages_end(audit->host);

    check_index(audit, end);
    check_map(audit, &policy->blocks, end);
    check_map(audit, &policy->files, end);
}
