/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trust groups.
 *
 * A named group lives as long as its host and is found by its name. A group
 * that is a domain's own ends with it; the next such group takes its place in
 * the table, with another secret. So churn costs no memory, and there is room
 * for all the names and for one more group for each domain.
 */
#include "mechanism/group.h"

#include <string.h>

static uint32_t *bucket_of(struct pgshare_host *host, const char *name)
{
    uint64_t hash = 0;

    for (; *name; name++)
        hash = pgs_mix(hash ^ (unsigned char)*name);
    return &host->named_groups[hash % PGS_GROUP_BUCKETS];
}

static uint32_t find(struct pgshare_host *host, const char *name)
{
    uint32_t index = *bucket_of(host, name);

    while (index && strcmp(host->groups[index].name, name) != 0)
        index = host->groups[index].next;
    return index;
}

static int grow(struct pgshare_host *host)
{
    uint32_t max = host->max_groups ? 2 * host->max_groups : 16;
    struct pgs_group *groups;

    static_assert(PGS_GROUPS > PGSHARE_GROUPS_MAX + PGSHARE_DOMAINS_MAX,
                  "room for all");
    assert(max <= PGS_GROUPS);
    groups = PGS_NEW_N(&host->heap, struct pgs_group, max);
    if (!groups)
        return PGSHARE_ERR_NOMEM;
    if (host->n_groups)
        memcpy(groups, host->groups, host->n_groups * sizeof(*groups));
    else
        host->n_groups = 1;
    PGS_FREE_N(&host->heap, host->groups, host->max_groups);
    host->groups = groups;
    host->max_groups = max;
    return 0;
}

static int take_place(struct pgshare_host *host, uint32_t *ret_index)
{
    int r = 0;

    *ret_index = host->spare_groups;
    if (*ret_index) {
        host->spare_groups = host->groups[*ret_index].next;
        return 0;
    }
    if (host->n_groups == host->max_groups)
        r = grow(host);
    if (!r)
        *ret_index = host->n_groups++;
    return r;
}

static void name_it(struct pgshare_host *host, uint32_t index, const char *name)
{
    uint32_t *bucket = bucket_of(host, name);
    struct pgs_group *group = &host->groups[index];

    memcpy(group->name, name, strlen(name) + 1);
    group->next = *bucket;
    *bucket = index;
    host->n_named++;
}

int pgs_group_open(struct pgshare_host *host, const char *name,
                   uint32_t *ret_group)
{
    struct pgs_group *group;
    uint32_t index = name ? find(host, name) : 0;
    int r;

    if (index) {
        *ret_group = index;
        return 0;
    }
    if (name && host->n_named == PGSHARE_GROUPS_MAX)
        return PGSHARE_ERR_FULL;
    r = take_place(host, &index);
    if (r)
        return r;
    group = &host->groups[index];
    group->seed = pgs_mix(pgs_secret(&host->platform) ^ index);
    group->zero = pgs_fingerprint_zero(group->seed);
    if (name)
        name_it(host, index, name);
    *ret_group = index;
    return 0;
}

bool pgs_group_is_named(struct pgshare_host *host, uint64_t group)
{
    return group && group < host->n_groups && host->groups[group].name[0];
}

void pgs_group_leave(struct pgshare_host *host, uint32_t index)
{
    struct pgs_group *group = &host->groups[index];

    group->domains--;
    if (group->name[0] || group->domains)
        return;
    group->next = host->spare_groups;
    host->spare_groups = index;
}
