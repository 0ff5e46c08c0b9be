/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel's page tables say: which mappings were broken, which pages
 * were written.
 *
 * A break is not an event but a state, of which the kernel keeps the account: a
 * page of the guest's own in a mapping of the pool. It is found by walking, and
 * told once, when the page's kind changes. A walk may see a region twice or not
 * yet; since what is told is a set, neither matters.
 *
 * The log of writes is the absence of write protection by our userfaultfd
 * (WP_ASYNC: the kernel takes it away by itself at the first write). Asking
 * protects again what had been written, in the same walk.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <string.h>

#define REGIONS 64u
#define ALL                                                                   \
    (PGS_PAGE_WRITTEN | PGS_PAGE_FILE | PGS_PAGE_PRESENT | PGS_PAGE_SWAPPED | \
     PGS_PAGE_PFNZERO)

/* Has a page with these categories memory of its own? */
static bool is_own(uint64_t categories)
{
    if (categories & PGS_PAGE_FILE)
        return false;
    if (categories & PGS_PAGE_PRESENT)
        return !(categories & PGS_PAGE_PFNZERO);
    return categories & PGS_PAGE_SWAPPED;
}

/* A word of /proc/self/pagemap. Of what nobody else maps the kernel's zero page
 * is none. */
static uint8_t categories_in(uint64_t word)
{
    uint64_t found = 0;

    if (word & PGS_PAGEMAP_PRESENT)
        found |= PGS_PAGE_PRESENT;
    if (word & PGS_PAGEMAP_SWAPPED)
        found |= PGS_PAGE_SWAPPED;
    if (found && word & PGS_PAGEMAP_FILE)
        found |= PGS_PAGE_FILE;
    if (found && !(word & PGS_PAGEMAP_PROTECTED))
        found |= PGS_PAGE_WRITTEN;
    if (found == PGS_PAGE_PRESENT || found == (PGS_PAGE_PRESENT |
                                               PGS_PAGE_WRITTEN))
        found |= word & PGS_PAGEMAP_EXCLUSIVE ? 0 : PGS_PAGE_PFNZERO;
    return (uint8_t)found;
}

/* The same without PAGEMAP_SCAN. */
static int read_categories(const struct pgshare_kvm *kvm, const void *at,
                           uint32_t n, uint8_t *ret_categories)
{
    uint64_t words[CHUNK];
    size_t bytes = n * sizeof(words[0]);

    if (pgs_sys_pread(kvm->pagemap, words, bytes,
                      (uintptr_t)at / PAGE * sizeof(words[0])) !=
        (ssize_t)bytes)
        return -EIO;
    for (uint32_t i = 0; i < n; i++)
        ret_categories[i] = categories_in(words[i]);
    return 0;
}

/* Sets categories[] of `n` pages; 0: nothing there, or it cannot be told. */
static int categories_of(const struct pgshare_kvm *kvm, const void *at,
                         uint32_t n, uint8_t *ret_categories)
{
    struct pgs_page_region regions[REGIONS];
    uintptr_t start = (uintptr_t)at;
    struct pgs_pm_scan scan = {
        .size = sizeof(scan),
        .start = start,
        .end = start + n * PAGE,
        .vec = (uintptr_t)regions,
        .vec_len = REGIONS,
        .category_anyof_mask = PGS_PAGE_PRESENT | PGS_PAGE_SWAPPED,
        .return_mask = ALL,
    };

    memset(ret_categories, 0, n);
    if (kvm->in_place)
        return read_categories(kvm, at, n, ret_categories);
    while (scan.start < scan.end) {
        int found = pgs_sys_pagemap_scan(kvm->pagemap, &scan);

        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            memset(ret_categories + (regions[i].start - start) / PAGE,
                   (int)regions[i].categories,
                   (regions[i].end - regions[i].start) / PAGE);
        if (scan.walk_end <= scan.start)
            return -EIO;
        scan.start = scan.walk_end;
    }
    return 0;
}

/* What depends on a page being the guest's own may not be decided where the
 * kernel does not say. */
int pgs_scan_is_own(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    uint8_t categories;

    if (categories_of(guest->kvm, pgs_at(guest, gfn), 1, &categories))
        return PGSHARE_ERR_BACKEND;
    return is_own(categories);
}

bool pgs_scan_is_written(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    uint8_t categories;

    return categories_of(guest->kvm, pgs_at(guest, gfn), 1, &categories) ||
           categories & PGS_PAGE_WRITTEN;
}

int pgs_scan_window(const struct pgshare_kvm *kvm, const void *at, uint32_t n,
                    bool *ret_nothing, bool *ret_own)
{
    uint8_t categories[CHUNK];
    int error = categories_of(kvm, at, n, categories);

    for (uint32_t i = 0; i < n; i++) {
        ret_nothing[i] = !error && !categories[i];
        ret_own[i] = !error && is_own(categories[i]);
    }
    return error;
}

/* ---- harvest ----------------------------------------------------------- */

/* Lock held. Is the page broken, and nobody knows? It is private then. */
static bool settle(struct pgshare_kvm_guest *guest, uint64_t gfn,
                   uint8_t categories)
{
    switch (pgs_kind(guest, gfn)) {
    case KIND_FRAME:
        if (!is_own(categories))
            return false;
        pgs_set_kind(guest, gfn, KIND_LEFT, NO_PLACE);
        return true;
    case KIND_UNTOLD:
        pgs_set_kind(guest, gfn, KIND_LEFT, NO_PLACE);
        return true;
    case KIND_ZERO:
        if (!is_own(categories))
            return false;
        pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
        return true;
    case KIND_MARKED:
        if (!(categories & PGS_PAGE_WRITTEN))
            return false;
        pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
        return true;
    default:
        return false;
    }
}

/* Lock held. Pages of one chunk and one slot; broken[i] is set. */
static int harvest_span(struct pgshare_kvm_guest *guest, uint64_t gfn,
                        uint32_t n, bool *broken)
{
    uint8_t categories[CHUNK];
    int error = categories_of(guest->kvm, pgs_at(guest, gfn), n, categories);

    for (uint32_t i = 0; !error && i < n; i++)
        broken[i] = settle(guest, gfn + i, categories[i]);
    return error;
}

static void tell(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                 const bool *broken, uint64_t seq)
{
    const struct pgshare_sink *sink = guest->kvm->sink;

    for (uint32_t i = 0; i < n;) {
        uint32_t end = i;

        while (end < n && broken[end])
            end++;
        if (end > i)
            sink->broken(sink->ctx, atomic_load(&guest->handle), gfn + i,
                         end - i, seq);
        i = end + 1;
    }
}

static int harvest_chunk(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    uint64_t end = gfn + CHUNK < guest->gfns ? gfn + CHUNK : guest->gfns;
    bool broken[CHUNK] = { false };
    uint64_t seq;
    int error = 0;

    pthread_mutex_lock(&guest->lock);
    for (uint64_t at = gfn; !error && at < end;) {
        uint32_t n = pgs_span(guest, at, (uint32_t)(end - at));

        if (n)
            error = harvest_span(guest, at, n, broken + (at - gfn));
        at += n ? n : 1;
    }
    seq = pgs_seq(guest);
    pthread_mutex_unlock(&guest->lock);
    tell(guest, gfn, (uint32_t)(end - gfn), broken, seq);
    return error;
}

int pgs_scan_harvest(struct pgshare_kvm_guest *guest)
{
    int error = 0;

    for (uint64_t i = 0; i * CHUNK < guest->gfns; i++)
        if (guest->watched[i] && harvest_chunk(guest, i * CHUNK))
            error = PGSHARE_ERR_BACKEND;
    return error;
}

/* ---- the log ----------------------------------------------------------- */

/* Lock held. Written pages of the guest's own, which are protected again. */
static int written(struct pgshare_kvm_guest *guest, const void *at, uint32_t n,
                   int8_t *status)
{
    struct pgs_page_region regions[REGIONS];
    uintptr_t start = (uintptr_t)at;
    struct pgs_pm_scan scan = {
        .size = sizeof(scan),
        .flags = PGS_PM_SCAN_WP_MATCHING,
        .start = start,
        .end = start + n * PAGE,
        .vec = (uintptr_t)regions,
        .vec_len = REGIONS,
        .category_inverted = PGS_PAGE_FILE,
        .category_mask = PGS_PAGE_WRITTEN | PGS_PAGE_FILE,
        .category_anyof_mask = PGS_PAGE_PRESENT | PGS_PAGE_SWAPPED,
        .return_mask = PGS_PAGE_WRITTEN,
    };

    while (scan.start < scan.end) {
        int found = pgs_sys_pagemap_scan(guest->kvm->pagemap, &scan);

        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            memset(status + (regions[i].start - start) / PAGE, 1,
                   (regions[i].end - regions[i].start) / PAGE);
        if (scan.walk_end <= scan.start)
            break;
        scan.start = scan.walk_end;
    }
    return 0;
}

static bool take_changed(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    uint64_t bit = UINT64_C(1) << gfn % 64;

    if (!(__atomic_load_n(&guest->changed[gfn / 64], __ATOMIC_RELAXED) & bit))
        return false;
    return __atomic_fetch_and(&guest->changed[gfn / 64], ~bit,
                              __ATOMIC_RELAXED) &
           bit;
}

/* One page that is not anonymous memory alone. A mark's own protection is
 * not renewed, since its absence is the break. */
static int changed(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    switch (pgs_kind(guest, gfn)) {
    case KIND_MARKED:
        return pgs_scan_is_written(guest, gfn);
    case KIND_LEFT:
    case KIND_UNTOLD:
        return 1; /* no log there */
    default:
        return 0;
    }
}

/* Lock held, within one slot. */
int pgs_scan_changes(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                     int8_t *ret_status)
{
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i;

        while (end < n && pgs_kind(guest, gfn + end) == KIND_ANON)
            ret_status[end++] = 0;
        if (end > i &&
            written(guest, pgs_at(guest, gfn + i), end - i, ret_status + i))
            memset(ret_status + i, 1, end - i);
        if (end < n)
            ret_status[end] = (int8_t)changed(guest, gfn + end);
        i = end + 1;
    }
    for (uint32_t i = 0; i < n; i++)
        ret_status[i] |= take_changed(guest, gfn + i);
    return 0;
}
