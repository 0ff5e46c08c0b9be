/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Most pages hold what a disk block holds, so a shadow borrows these bytes and
 * has its own only of pages that the guest has written.
 */
#include "shadow.h"

#include <pgshare/error.h>
#include <pgshare/mock.h>

#include <stdlib.h>
#include <string.h>

static const unsigned char zeroes[PGSHARE_PAGE_SIZE];

int shadow_init(struct shadow *shadow, uint64_t pages)
{
    memset(shadow, 0, sizeof(*shadow));
    shadow->at = calloc(pages, sizeof(*shadow->at));
    shadow->flags = calloc(pages, sizeof(*shadow->flags));
    if (!shadow->at || !shadow->flags) {
        shadow_fini(shadow);
        return PGSHARE_ERR_NOMEM;
    }
    shadow->pages = pages;
    return 0;
}

static void drop(struct shadow *shadow, uint64_t gfn)
{
    union {
        const unsigned char *borrowed;
        void *owned;
    } bytes = { .borrowed = shadow->at[gfn] };

    if (shadow->flags[gfn] & SHADOW_OWNED)
        free(bytes.owned);
    shadow->flags[gfn] &= (uint8_t)~SHADOW_OWNED;
    shadow->at[gfn] = NULL;
}

void shadow_fini(struct shadow *shadow)
{
    for (uint64_t gfn = 0; gfn < shadow->pages; gfn++)
        drop(shadow, gfn);
    free(shadow->at);
    free(shadow->flags);
    memset(shadow, 0, sizeof(*shadow));
}

const unsigned char *shadow_bytes(const struct shadow *shadow, uint64_t gfn)
{
    const unsigned char *bytes = shadow->at[gfn];

    if (!bytes && shadow->base)
        bytes = shadow->base(shadow->ctx, gfn);
    return bytes ? bytes : zeroes;
}

void shadow_borrow(struct shadow *shadow, uint64_t gfn,
                   const unsigned char *bytes)
{
    drop(shadow, gfn);
    shadow->at[gfn] = bytes ? bytes : zeroes;
}

/* The page's own bytes, made from what it reads as. */
static unsigned char *own(struct shadow *shadow, uint64_t gfn)
{
    union {
        const unsigned char *borrowed;
        unsigned char *owned;
    } bytes = { .borrowed = shadow->at[gfn] };

    if (shadow->flags[gfn] & SHADOW_OWNED)
        return bytes.owned;
    bytes.owned = malloc(PGSHARE_PAGE_SIZE);
    if (!bytes.owned)
        return NULL;
    memcpy(bytes.owned, shadow_bytes(shadow, gfn), PGSHARE_PAGE_SIZE);
    shadow->at[gfn] = bytes.owned;
    shadow->flags[gfn] |= SHADOW_OWNED;
    return bytes.owned;
}

int shadow_write(struct shadow *shadow, uint64_t gfn, uint32_t offset,
                 const void *bytes, uint32_t len)
{
    unsigned char *page = own(shadow, gfn);

    if (!page)
        return PGSHARE_ERR_NOMEM;
    memcpy(page + offset, bytes, len);
    return 0;
}

int shadow_copy(struct shadow *shadow, uint64_t gfn, const struct shadow *from,
                uint64_t from_gfn)
{
    if (from->flags[from_gfn] & SHADOW_OWNED)
        return shadow_write(shadow, gfn, 0, from->at[from_gfn],
                            PGSHARE_PAGE_SIZE);
    shadow_borrow(shadow, gfn, shadow_bytes(from, from_gfn));
    return 0;
}

void shadow_set(struct shadow *shadow, uint64_t gfn, uint64_t count,
                unsigned flags)
{
    for (uint64_t i = 0; i < count; i++)
        shadow->flags[gfn + i] |= (uint8_t)flags;
}

void shadow_clear(struct shadow *shadow, uint64_t gfn, uint64_t count,
                  unsigned flags)
{
    for (uint64_t i = 0; i < count; i++)
        shadow->flags[gfn + i] &= (uint8_t)~flags;
}

bool shadow_has(const struct shadow *shadow, uint64_t gfn, unsigned flags)
{
    return shadow->flags[gfn] & flags;
}

bool shadow_adopt(struct shadow *shadow, struct pgshare_mock_domain *domain,
                  uint64_t gfn)
{
    const unsigned char *as_was = shadow_bytes(shadow, gfn);

    if (!pgshare_mock_compare(domain, gfn, 0, zeroes, PGSHARE_PAGE_SIZE))
        shadow_borrow(shadow, gfn, zeroes);
    else if (pgshare_mock_compare(domain, gfn, 0, as_was, PGSHARE_PAGE_SIZE))
        return false;
    shadow->flags[gfn] &= (uint8_t) ~(SHADOW_FREE | SHADOW_OFFERED);
    return true;
}

static bool reads_right(const struct shadow *shadow,
                        struct pgshare_mock_domain *domain, uint64_t gfn)
{
    int error = pgshare_mock_compare(domain, gfn, 0, shadow_bytes(shadow, gfn),
                                     PGSHARE_PAGE_SIZE);

    if (error && shadow_has(shadow, gfn, SHADOW_FREE | SHADOW_OFFERED))
        error = pgshare_mock_compare(domain, gfn, 0, zeroes, PGSHARE_PAGE_SIZE);
    return !error;
}

void shadow_check(const struct shadow *shadow,
                  struct pgshare_mock_domain *domain,
                  struct shadow_verdict *verdict)
{
    for (uint64_t gfn = 0; gfn < shadow->pages; gfn++) {
        if (shadow_has(shadow, gfn, SHADOW_HOLE))
            continue;
        verdict->checked++;
        if (reads_right(shadow, domain, gfn))
            continue;
        if (!verdict->wrong++)
            verdict->first = gfn;
    }
}
