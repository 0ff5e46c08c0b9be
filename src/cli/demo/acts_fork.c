/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests made of guests: children forked from a stub, which share all of its
 * pages from their first instant, and a clone restored from a snapshot, whose
 * pages a lineage hint finds.
 */
#include "story.h"

#include <stdio.h>

#define CHILDREN 2u

/* Pages written by a child, of each hundred. */
#define WRITTEN_PERCENT 5u

static int copy_shadow(struct guest *to, const struct guest *from)
{
    int error = 0;

    for (uint64_t gfn = 0; !error && gfn < from->shadow.pages; gfn++) {
        unsigned flags = from->shadow.flags[gfn];

        if (flags & (SHADOW_HOLE | SHADOW_OFFERED))
            continue; /* volatile pages are not inherited */
        error = shadow_copy(&to->shadow, gfn, &from->shadow, gfn);
        shadow_clear(&to->shadow, gfn, 1, SHADOW_HOLE);
        shadow_set(&to->shadow, gfn, 1, flags & SHADOW_FREE);
    }
    return error ? complain(error, "%s: shadow", to->name) : 0;
}

static int fork_one(struct demo *demo, struct guest *stub,
                    const struct plan *plan, uint32_t i)
{
    struct guest *child;
    char name[24];
    int error;

    snprintf(name, sizeof(name), "child-%u", i + 1);
    error = demo_guest_add(demo, name, stub->shadow.pages, NULL, &child);
    if (error)
        return error;
    child->ram = plan->pages;
    error = pgshare_fork(demo->host, stub->dom, child->dom, NULL, NULL, NULL);
    if (error)
        return complain(error, "forking %s", name);
    return copy_shadow(child, stub);
}

/* A child goes its own way: from the keys on, past the read-only kernel. */
static int write_some(struct guest *guest, const struct plan *plan)
{
    uint64_t count = plan->pages - plan->text;
    int error = 0;

    for (uint64_t n = count * WRITTEN_PERCENT / 100; !error && n; n--) {
        uint64_t gfn = plan->text + guest_random(guest, count);
        uint64_t mark = guest_random(guest, UINT64_MAX);

        if (shadow_has(&guest->shadow, gfn, SHADOW_HOLE | SHADOW_FREE))
            continue;
        error = guest_write(guest, gfn, 128, &mark, sizeof(mark));
        if (!error && n % TURN == 0)
            error = demo_tick(guest->demo);
    }
    return error;
}

int act_fork(struct demo *demo, const struct plan *plan)
{
    struct guest *stub = &demo->guests[0];
    uint32_t first = demo->n_guests;
    int error = pgshare_domain_freeze(demo->host, stub->dom, NULL);

    if (error)
        return complain(error, "freezing %s", stub->name);
    for (uint32_t i = 0; !error && i < CHILDREN; i++)
        error = fork_one(demo, stub, plan, i);
    for (uint32_t i = 0; !error && i < CHILDREN; i++)
        error = write_some(&demo->guests[first + i], plan);
    if (!error)
        error = demo_settle(demo);
    if (error)
        return error;
    error = pgshare_domain_thaw(demo->host, stub->dom);
    if (error)
        return complain(error, "thawing %s", stub->name);
    error = write_some(stub, plan);
    if (!error) /* one child has done its work */
        error = demo_guest_remove(demo, &demo->guests[first]);
    return error ? error : demo_settle(demo);
}

/* ---- a snapshot ----------------------------------------------------------- */

static int restore(struct guest *clone, const struct guest *parent)
{
    int error = 0;

    for (uint64_t gfn = 0; !error && gfn < clone->ram; gfn++) {
        if (shadow_has(&parent->shadow, gfn,
                       SHADOW_HOLE | SHADOW_FREE | SHADOW_OFFERED))
            continue;
        error = guest_write_page(clone, gfn,
                                 shadow_bytes(&parent->shadow, gfn));
    }
    return error;
}

int act_clone(struct demo *demo, const struct plan *plan)
{
    struct guest *parent = &demo->guests[1], *clone;
    int error = demo_guest_add(demo, "clone", plan->pages, NULL, &clone);

    if (error)
        return error;
    clone->ram = plan->pages;
    error = pgshare_mock_populate(clone->domain, 0, plan->pages);
    if (error)
        return complain(error, "clone: memory");
    shadow_clear(&clone->shadow, 0, plan->pages, SHADOW_HOLE);
    error = restore(clone, parent);
    if (!error)
        error = pgshare_hint_lineage(demo->host, clone->dom, parent->dom);
    if (error)
        return complain(error, "clone");
    error = demo_settle(demo);
    return error ? error : write_some(clone, plan);
}
