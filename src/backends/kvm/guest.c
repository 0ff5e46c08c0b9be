/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests: their slots, what each of their pages is, and their being in a host.
 *
 * The tables are reserved for all GFNs at once and backed by the kernel as
 * they are used; undoing never needs memory. A guest outlives its being in a
 * host: what it shared by then stays as it is, and its frames with it.
 */
#include "kvm/backend.h"

#include "base/abi.h"

#include <pgshare/domain.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GFNS_MAX PGSHARE_GFNS_MAX

/* ---- slots ------------------------------------------------------------- */

const struct pgs_kvm_slot *pgs_slot_of(const struct pgshare_kvm_guest *guest,
                                       uint64_t gfn)
{
    for (uint32_t i = 0; i < guest->n_slots; i++)
        if (gfn - guest->slots[i].gfn < guest->slots[i].count)
            return &guest->slots[i];
    return NULL;
}

unsigned char *pgs_at(const struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    const struct pgs_kvm_slot *slot = pgs_slot_of(guest, gfn);

    return slot ? slot->at + (gfn - slot->gfn) * PAGE : NULL;
}

uint32_t pgs_span(const struct pgshare_kvm_guest *guest, uint64_t gfn,
                  uint32_t n)
{
    const struct pgs_kvm_slot *slot = pgs_slot_of(guest, gfn);
    uint64_t left = slot ? slot->gfn + slot->count - gfn : 0;

    return left < n ? (uint32_t)left : n;
}

/* ---- pages ------------------------------------------------------------- */

static bool is_watched(enum pgs_kvm_kind kind)
{
    return kind == KIND_FRAME || kind == KIND_ZERO || kind == KIND_MARKED ||
           kind == KIND_UNTOLD;
}

void pgs_set_kind(struct pgshare_kvm_guest *guest, uint64_t gfn,
                  enum pgs_kvm_kind kind, uint64_t place)
{
    enum pgs_kvm_kind old = pgs_kind(guest, gfn);

    if (guest->suspended)
        pgs_suspend_page(guest, gfn, old, kind);
    if (is_watched(old))
        guest->watched[gfn / CHUNK]--;
    if (is_watched(kind))
        guest->watched[gfn / CHUNK]++;
    if (old == KIND_FRAME && kind != KIND_FRAME)
        pgs_pool_unmap(guest->pool, pgs_place(guest, gfn));
    if (!pgs_in_pool(kind)) {
        guest->kind[gfn] = (uint8_t)kind;
        return;
    }
    if (place != NO_PLACE) {
        guest->place[gfn] = (uint32_t)place;
        guest->kind[gfn] = (uint8_t)(place >> 32 << KIND_BITS);
    }
    guest->kind[gfn] = (uint8_t)((guest->kind[gfn] & ~KIND_MASK) |
                                 (unsigned)kind);
}

/* A guest without a host has nobody to tell, and nobody's frames. */
int pgs_guest_privatise(struct pgshare_kvm_guest *guest)
{
    int r = 0;

    pthread_mutex_lock(&guest->lock);
    for (uint64_t gfn = 0; gfn < guest->gfns; gfn++) {
        switch (pgs_kind(guest, gfn)) {
        case KIND_FRAME:
            if (pgs_own(guest, gfn, pgs_at(guest, gfn)))
                r = PGSHARE_ERR_NOFRAME;
            break;
        case KIND_ZERO:
        case KIND_MARKED:
            if (guest->trapped)
                pgs_sys_uffd_protect(guest->uffd, pgs_at(guest, gfn), PAGE,
                                     false);
            pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
            break;
        case KIND_UNTOLD:
            pgs_set_kind(guest, gfn, KIND_LEFT, NO_PLACE);
            break;
        case KIND_OWED:
            pgs_set_kind(guest, gfn, KIND_HOLE, NO_PLACE);
            break;
        default:
            break;
        }
    }
    pthread_mutex_unlock(&guest->lock);
    return r;
}

/* ---- tables ------------------------------------------------------------ */

static void *table(uint64_t bytes)
{
    void *at;

    return pgs_sys_map_anon(NULL, bytes, &at) ? NULL : at;
}

static uint64_t chunks_of(uint64_t gfns)
{
    return (gfns + CHUNK - 1) / CHUNK;
}

static bool make_tables(struct pgshare_kvm_guest *guest)
{
    uint64_t gfns = guest->gfns;

    guest->kind = table(gfns);
    guest->place = table(gfns * sizeof(*guest->place));
    guest->changed = table((gfns / 64 + 1) * sizeof(*guest->changed));
    guest->readonly = table((gfns / 64 + 1) * sizeof(*guest->readonly));
    guest->watched = table(chunks_of(gfns) * sizeof(*guest->watched));
    guest->home = table(chunks_of(gfns) * sizeof(*guest->home));
    guest->mine = table(COMPARE_PAGES * PAGE);
    guest->theirs = table(COMPARE_PAGES * PAGE);
    if (guest->mine)
        pgs_keep_private(guest->mine, COMPARE_PAGES * PAGE);
    if (guest->theirs)
        pgs_keep_private(guest->theirs, COMPARE_PAGES * PAGE);
    return guest->kind && guest->place && guest->changed && guest->readonly &&
           guest->watched && guest->home && guest->mine && guest->theirs;
}

static void untable(void *at, uint64_t bytes)
{
    if (at)
        pgs_sys_unmap(at, bytes);
}

static void destroy(struct pgshare_kvm_guest *guest)
{
    uint64_t gfns = guest->gfns;

    untable(guest->kind, gfns);
    untable(guest->place, gfns * sizeof(*guest->place));
    untable(guest->changed, (gfns / 64 + 1) * sizeof(*guest->changed));
    untable(guest->readonly, (gfns / 64 + 1) * sizeof(*guest->readonly));
    untable(guest->watched, chunks_of(gfns) * sizeof(*guest->watched));
    untable(guest->home, chunks_of(gfns) * sizeof(*guest->home));
    untable(guest->mine, COMPARE_PAGES * PAGE);
    untable(guest->theirs, COMPARE_PAGES * PAGE);
    if (guest->uffd >= 0)
        close(guest->uffd);
    pthread_mutex_destroy(&guest->lock);
    free(guest);
}

/* ---- life -------------------------------------------------------------- */

static int open_uffd(const struct pgshare_kvm_guest *guest)
{
    uint64_t features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | PGS_UFFD_WP_SHMEM;

    if (!guest->kvm->in_place)
        features |= PGS_UFFD_MOVE;
    if (!guest->kvm->in_place && !guest->trapped)
        features |= PGS_UFFD_WP_ASYNC | PGS_UFFD_WP_UNPOPULATED;
    return pgs_sys_uffd_open(features);
}

int pgshare_kvm_guest_new(struct pgshare_kvm *kvm, uint64_t gfns,
                          const struct pgshare_kvm_guest_options *options,
                          struct pgshare_kvm_guest **ret_guest)
{
    struct pgshare_kvm_guest_options ours = { 0 };
    struct pgshare_kvm_guest *guest;
    int r;

    if (!kvm || !ret_guest || !gfns || gfns > GFNS_MAX)
        return PGSHARE_ERR_INVALID;
    if (pgs_is_child(kvm))
        return PGSHARE_ERR_FORKED;
    r = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (r)
        return r;
    if (ours.flags & ~(uint32_t)PGSHARE_KVM_TRAPPED)
        return PGSHARE_ERR_INVALID;
    guest = calloc(1, sizeof(*guest));
    if (!guest)
        return PGSHARE_ERR_NOMEM;
    pthread_mutex_init(&guest->lock, NULL);
    guest->kvm = kvm;
    guest->gfns = gfns;
    guest->domid = ours.domid;
    guest->generation = ours.generation ? ours.generation : 1;
    guest->trapped = ours.flags & PGSHARE_KVM_TRAPPED;
    guest->uffd = open_uffd(guest);
    if (guest->uffd < 0 || !make_tables(guest)) {
        r = guest->uffd < 0 ? PGSHARE_ERR_BACKEND : PGSHARE_ERR_NOMEM;
        destroy(guest);
        return r;
    }
    pthread_mutex_lock(&kvm->lock);
    if (!guest->domid)
        guest->domid = ++kvm->next_domid;
    guest->next = kvm->guests;
    kvm->guests = guest;
    pthread_mutex_unlock(&kvm->lock);
    pgs_handler_kick(kvm);
    *ret_guest = guest;
    return 0;
}

static void unlink_guest(struct pgshare_kvm_guest *guest)
{
    struct pgshare_kvm_guest **link = &guest->kvm->guests;

    while (*link != guest)
        link = &(*link)->next;
    *link = guest->next;
}

/* In a child: locks may be held by threads that it does not have, and what is to
 * be undone is the parent's. Tables go with the child. */
static void forget(struct pgshare_kvm_guest *guest)
{
    unlink_guest(guest);
    close(guest->uffd);
    free(guest);
}

struct pgshare_kvm_guest *pgshare_kvm_guest_free(
    struct pgshare_kvm_guest *guest)
{
    struct pgshare_kvm *kvm;

    if (!guest)
        return NULL;
    kvm = guest->kvm;
    if (pgs_is_child(kvm)) {
        forget(guest);
        return NULL;
    }
    while (guest->n_slots)
        pgs_slot_release(guest, &guest->slots[guest->n_slots - 1]);
    pthread_mutex_lock(&kvm->lock);
    unlink_guest(guest);
    pgs_pool_put(kvm, guest->pool);
    pthread_mutex_unlock(&kvm->lock);
    pgs_handler_forget(guest);
    destroy(guest);
    return NULL;
}

uint64_t pgshare_kvm_handle(const struct pgshare_kvm_guest *guest)
{
    return guest ? atomic_load(&guest->handle) : 0;
}

void *pgshare_kvm_attach(struct pgshare_kvm_guest *guest)
{
    return guest;
}

/* ---- in a host --------------------------------------------------------- */

/* Calls `declare` for each run of pages that are memory. */
static int each_run(struct pgshare_kvm_guest *guest, struct pgshare_host *host,
                    uint64_t handle)
{
    uint64_t gfn = 0;

    while (gfn < guest->gfns) {
        uint64_t end = gfn;
        int r;

        while (end < guest->gfns && pgs_kind(guest, end) != KIND_HOLE)
            end++;
        r = end > gfn ? pgshare_domain_ram_add(host, handle, gfn, end - gfn)
                      : 0;
        if (r)
            return r;
        gfn = end + 1;
    }
    return 0;
}

int pgshare_kvm_join(struct pgshare_kvm_guest *guest, struct pgshare_host *host,
                     uint64_t group)
{
    struct pgshare_domain_options options = { .size = sizeof(options) };
    uint64_t handle;
    int r;

    if (!guest || !host || host != guest->kvm->host)
        return PGSHARE_ERR_INVALID;
    if (pgs_is_child(guest->kvm))
        return PGSHARE_ERR_FORKED;
    if (atomic_load(&guest->handle))
        return PGSHARE_ERR_EXISTS;
    r = pgs_suspend_end(guest); /* it left while it was suspended */
    if (!r)
        r = pgs_guest_privatise(guest);
    if (r)
        return r;
    options.domid = guest->domid;
    options.generation = guest->generation;
    options.gfns = guest->gfns;
    options.group = group;
    options.attach = guest;
    r = pgshare_domain_add(host, &options, &handle);
    if (r)
        return r;
    r = each_run(guest, host, handle);
    if (r)
        pgshare_domain_remove(host, handle);
    return r;
}

int pgshare_kvm_leave(struct pgshare_kvm_guest *guest)
{
    uint64_t handle = pgshare_kvm_handle(guest);

    if (!handle)
        return PGSHARE_ERR_STATE;
    if (pgs_is_child(guest->kvm))
        return PGSHARE_ERR_FORKED;
    return pgshare_domain_remove(guest->kvm->host, handle);
}
