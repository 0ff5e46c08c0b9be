/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hints: checked for form, cut to what one entry of the queue carries, and
 * handed over. What they say is looked at by the runner.
 */
#include "api/visit.h"
#include "policy/policy.h"

#include <pgshare/hint.h>

/* Puts a hint of any length, in pieces. */
static int put(struct pgs_visit *visit, struct pgs_hint *hint, uint64_t count)
{
    int r = 0;

    hint->born_ns = pgs_now(&visit->host->platform);
    for (uint64_t at = 0; !r && at < count;) {
        struct pgs_hint piece = *hint;
        uint64_t left = count - at;

        piece.count = left < PGSHARE_EXTENT_MAX ? (uint32_t)left
                                                : PGSHARE_EXTENT_MAX;
        piece.gfn += at;
        piece.position += at;
        r = pgs_hint_put(visit->host, &piece);
        at += piece.count;
    }
    return r;
}

static int put_keyed(struct pgshare_host *host, uint32_t kind, uint64_t dom,
                     uint64_t gfn, uint64_t count, uint64_t object,
                     uint64_t position)
{
    struct pgs_hint hint = {
        .kind = kind,
        .dom = dom,
        .gfn = gfn,
        .object = object,
        .position = position,
    };
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    if (!object || position > UINT64_MAX - count)
        r = PGSHARE_ERR_INVALID;
    return pgs_visit_end(&visit, r ? r : put(&visit, &hint, count));
}

int pgshare_hint_block(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                       uint64_t count, uint64_t image, uint64_t block)
{
    return put_keyed(host, PGS_HINT_BLOCK, dom, gfn, count, image, block);
}

int pgshare_hint_file(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                      uint64_t count, uint64_t file, uint64_t page)
{
    return put_keyed(host, PGS_HINT_FILE, dom, gfn, count, file, page);
}

int pgshare_library_add(struct pgshare_host *host, uint64_t file,
                        uint64_t page, uint64_t count)
{
    struct pgs_library library = { file, page, count };
    struct pgs_visit visit;
    int r = pgs_visit_host(&visit, host);

    if (r)
        return r;
    r = file && count ? pgs_library_enter(host, &library)
                      : PGSHARE_ERR_INVALID;
    return pgs_visit_end(&visit, r);
}

int pgshare_hint_same(struct pgshare_host *host, uint64_t dom_a,
                      uint64_t gfn_a, uint64_t dom_b, uint64_t gfn_b,
                      uint64_t count)
{
    struct pgs_hint hint = {
        .kind = PGS_HINT_SAME,
        .dom = dom_a,
        .gfn = gfn_a,
        .object = dom_b,
        .position = gfn_b,
    };
    struct pgs_domain *other;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom_a, gfn_a, count);

    if (r)
        return r;
    other = pgs_domain_of(host, dom_b);
    if (!other)
        r = PGSHARE_ERR_NODOMAIN;
    else if (!pgs_range_ok(other, gfn_b, count))
        r = PGSHARE_ERR_RANGE;
    return pgs_visit_end(&visit, r ? r : put(&visit, &hint, count));
}

int pgshare_hint_lineage(struct pgshare_host *host, uint64_t child,
                         uint64_t parent)
{
    struct pgs_hint hint = {
        .kind = PGS_HINT_LINEAGE,
        .dom = child,
        .object = parent,
    };
    struct pgs_visit visit;
    int r = pgs_visit_domain(&visit, host, child);

    if (r)
        return r;
    if (!pgs_domain_of(host, parent))
        r = PGSHARE_ERR_NODOMAIN;
    else if (child == parent)
        r = PGSHARE_ERR_INVALID;
    return pgs_visit_end(&visit, r ? r : put(&visit, &hint, 1));
}
