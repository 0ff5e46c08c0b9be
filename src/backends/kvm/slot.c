/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Slots come and go, and memory in them (a balloon's, for instance).
 *
 * The library forgets pages before they are taken from it, and is told of
 * pages only when all is ready: a slot that is refused was never touched.
 */
#include "kvm/backend.h"

#include <pgshare/domain.h>
#include <pgshare/host.h>

#include <sys/mman.h>

#define DISCARD_TRIES 10u /* each as long as the host lets a call wait */
#define SLOT_FLAGS (PGSHARE_KVM_SLOT_EMPTY | PGSHARE_KVM_SLOT_READONLY)

static int refuse(uint32_t why, uint32_t *ret_why)
{
    if (ret_why)
        *ret_why = why;
    return why == PGSHARE_KVM_WHY_OVERLAP ? PGSHARE_ERR_EXISTS
                                          : PGSHARE_ERR_NOTSUP;
}

/* May this be asked of the guest? PGSHARE_ERR_INVALID, _FORKED, _RANGE. */
static int check(const struct pgshare_kvm_guest *guest, uint64_t gfn,
                 uint64_t count)
{
    if (!guest)
        return PGSHARE_ERR_INVALID;
    if (pgs_is_child(guest->kvm))
        return PGSHARE_ERR_FORKED;
    return count && gfn < guest->gfns && count <= guest->gfns - gfn
               ? 0
               : PGSHARE_ERR_RANGE;
}

/* Lock of the backend held. Does a slot of any guest, or one of ours, have a
 * part of these? */
static bool overlaps(struct pgshare_kvm_guest *guest, uint64_t gfn,
                     uint64_t count, const unsigned char *at)
{
    for (struct pgshare_kvm_guest *g = guest->kvm->guests; g; g = g->next) {
        for (uint32_t i = 0; i < g->n_slots; i++) {
            const struct pgs_kvm_slot *slot = &g->slots[i];

            if (at < slot->at + slot->count * PAGE &&
                slot->at < at + count * PAGE)
                return true;
            if (g == guest && gfn < slot->gfn + slot->count &&
                slot->gfn < gfn + count)
                return true;
        }
    }
    return false;
}

static void set_all(struct pgshare_kvm_guest *guest, uint64_t gfn,
                    uint64_t count, enum pgs_kvm_kind kind)
{
    pthread_mutex_lock(&guest->lock);
    for (uint64_t i = gfn; i < gfn + count; i++)
        pgs_set_kind(guest, i, kind, NO_PLACE);
    pthread_mutex_unlock(&guest->lock);
}

int pgshare_kvm_ram_add(struct pgshare_kvm_guest *guest, uint64_t gfn,
                        uint64_t count)
{
    int r = check(guest, gfn, count);
    uint64_t handle;

    if (r)
        return r;
    for (uint64_t i = gfn; i < gfn + count; i++) {
        if (!pgs_slot_of(guest, i))
            return PGSHARE_ERR_RANGE;
        if (pgs_kind(guest, i) != KIND_HOLE)
            return PGSHARE_ERR_EXISTS;
    }
    set_all(guest, gfn, count, KIND_ANON);
    handle = pgshare_kvm_handle(guest);
    if (handle)
        r = pgshare_domain_ram_add(guest->kvm->host, handle, gfn, count);
    if (r)
        set_all(guest, gfn, count, KIND_HOLE);
    return r;
}

static uint32_t some(uint64_t n)
{
    return n < CHUNK ? (uint32_t)n : CHUNK;
}

/* What the library gave up is empty anonymous memory by now, or becomes so
 * where nobody was asked. */
static void empty(struct pgshare_kvm_guest *guest, uint64_t gfn, uint64_t count)
{
    pthread_mutex_lock(&guest->lock);
    for (uint64_t i = gfn; i < gfn + count;) {
        bool pool = pgs_in_pool(pgs_kind(guest, i));
        uint32_t span = pgs_span(guest, i, some(gfn + count - i));
        uint32_t n = 0;

        while (n < span && pgs_in_pool(pgs_kind(guest, i + n)) == pool)
            n++;
        if (n && pool)
            pgs_vma_blank(guest, pgs_slot_of(guest, i), pgs_at(guest, i),
                          n * PAGE);
        else if (n)
            pgs_sys_advise(pgs_at(guest, i), n * PAGE, MADV_DONTNEED);
        for (n = n ? n : 1; n; n--)
            pgs_set_kind(guest, i++, KIND_HOLE, NO_PLACE);
    }
    pthread_mutex_unlock(&guest->lock);
}

int pgshare_kvm_ram_remove(struct pgshare_kvm_guest *guest, uint64_t gfn,
                           uint64_t count)
{
    int r = check(guest, gfn, count);
    uint64_t handle;

    if (r)
        return r;
    handle = pgshare_kvm_handle(guest);
    if (handle)
        r = pgshare_domain_ram_remove(guest->kvm->host, handle, gfn, count,
                                      NULL);
    if (!r)
        empty(guest, gfn, count);
    return r;
}

/* Are the page and those after it memory, or holes? Answers how many. */
static uint64_t run_at(struct pgshare_kvm_guest *guest, uint64_t gfn,
                       uint64_t count, bool *ret_memory)
{
    uint64_t n = 0;

    pthread_mutex_lock(&guest->lock);
    *ret_memory = pgs_kind(guest, gfn) != KIND_HOLE;
    while (n < count && (pgs_kind(guest, gfn + n) != KIND_HOLE) == *ret_memory)
        n++;
    pthread_mutex_unlock(&guest->lock);
    return n;
}

/* What is given up while it is in flight, is given up later: that is awaited,
 * for a while. */
static int remove_now(struct pgshare_kvm_guest *guest, uint64_t gfn,
                      uint64_t count)
{
    struct pgshare_host *host = guest->kvm->host;
    int r = pgshare_kvm_ram_remove(guest, gfn, count);

    for (unsigned i = 0; r == PGSHARE_ERR_INPROGRESS && i < DISCARD_TRIES;
         i++) {
        pgshare_host_run(host, NULL, NULL); /* should nobody else */
        r = pgshare_kvm_ram_remove(guest, gfn, count);
    }
    return r;
}

/* Pages become holes, and memory again: all of them at once or, where one is in
 * the way, each by itself. *done grows by their number. */
static int discard(struct pgshare_kvm_guest *guest, uint64_t gfn,
                   uint64_t count, uint64_t *done)
{
    int r = remove_now(guest, gfn, count);

    if (!r && !pgshare_kvm_ram_add(guest, gfn, count)) {
        *done += count;
        return 0;
    }
    for (uint64_t i = gfn; r != PGSHARE_ERR_INPROGRESS && i < gfn + count;
         i++) {
        r = remove_now(guest, i, 1);
        *done += !r && !pgshare_kvm_ram_add(guest, i, 1);
    }
    return r == PGSHARE_ERR_INPROGRESS ? r : 0;
}

int pgshare_kvm_discard(struct pgshare_kvm_guest *guest, uint64_t gfn,
                        uint64_t count, uint64_t *ret_done)
{
    int r = check(guest, gfn, count);
    uint64_t done = 0, n;
    bool memory;

    if (r)
        return r;
    for (uint64_t i = 0; !r && i < count; i += n) {
        n = run_at(guest, gfn + i, count - i, &memory);
        if (memory)
            r = discard(guest, gfn + i, n, &done);
    }
    if (ret_done)
        *ret_done = done;
    return r;
}

/* Ready to be shared. */
static int prepare(struct pgshare_kvm_guest *guest,
                   const struct pgs_kvm_slot *slot)
{
    size_t bytes = slot->count * PAGE;

    if (pgs_vma_arm(guest, slot->at, bytes))
        return PGSHARE_ERR_NOTSUP;
    pgs_sys_advise(slot->at, bytes, MADV_DONTFORK);
    pgs_sys_advise(slot->at, bytes, MADV_NOHUGEPAGE);
    return 0;
}

int pgshare_kvm_slot_add(struct pgshare_kvm_guest *guest, uint64_t gfn,
                         uint64_t count, void *at, uint32_t flags,
                         uint32_t *ret_why)
{
    struct pgs_kvm_slot slot = { .gfn = gfn, .count = count, .at = at };
    uint32_t why = PGSHARE_KVM_WHY_NONE;
    int r;

    if (flags & ~SLOT_FLAGS)
        return PGSHARE_ERR_INVALID;
    r = check(guest, gfn, count);
    if (r)
        return r;
    if ((uintptr_t)at % PAGE || !at)
        return refuse(PGSHARE_KVM_WHY_UNALIGNED, ret_why);
    r = pgs_vma_check(at, count * PAGE, &slot.attributes, &why);
    if (flags & PGSHARE_KVM_SLOT_READONLY)
        slot.attributes |= ATTRIBUTE_READONLY;
    pthread_mutex_lock(&guest->kvm->lock);
    if (overlaps(guest, gfn, count, at))
        r = refuse(PGSHARE_KVM_WHY_OVERLAP, ret_why);
    else if (why)
        r = refuse(why, ret_why);
    else if (!r && guest->n_slots == SLOTS_MAX)
        r = PGSHARE_ERR_FULL;
    else if (!r && prepare(guest, &slot))
        r = refuse(PGSHARE_KVM_WHY_ANOTHER, ret_why);
    if (!r) {
        pthread_mutex_lock(&guest->lock);
        guest->slots[guest->n_slots++] = slot;
        pthread_mutex_unlock(&guest->lock);
    }
    pthread_mutex_unlock(&guest->kvm->lock);
    if (r || flags & PGSHARE_KVM_SLOT_EMPTY)
        return r;
    r = pgshare_kvm_ram_add(guest, gfn, count);
    if (r)
        pgs_slot_release(guest, &guest->slots[guest->n_slots - 1]);
    return r;
}

/* The memory is the VMM's alone again; what was shared reads as zeroes. */
void pgs_slot_release(struct pgshare_kvm_guest *guest,
                      struct pgs_kvm_slot *slot)
{
    struct pgs_kvm_slot old = *slot;
    size_t bytes = old.count * PAGE;

    pthread_mutex_lock(&guest->lock);
    for (uint64_t i = old.gfn; i < old.gfn + old.count; i++) {
        if (pgs_in_pool(pgs_kind(guest, i)))
            pgs_vma_blank(guest, slot, pgs_at(guest, i), PAGE);
        pgs_set_kind(guest, i, KIND_HOLE, NO_PLACE);
        pgs_unguard(guest, i);
    }
    *slot = guest->slots[--guest->n_slots];
    pthread_mutex_unlock(&guest->lock);
    if (!guest->suspended) /* else what is ours goes with our descriptor */
        pgs_sys_uffd_unregister(guest->uffd, old.at, bytes);
    if (!(old.attributes & ATTRIBUTE_DONTFORK))
        pgs_sys_advise(old.at, bytes, MADV_DOFORK);
    if (old.attributes & ATTRIBUTE_HUGE)
        pgs_sys_advise(old.at, bytes, MADV_HUGEPAGE);
}

int pgshare_kvm_slot_remove(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    struct pgs_kvm_slot *slot = NULL;
    bool suspended;
    uint64_t handle;
    int r = 0;

    if (!guest)
        return PGSHARE_ERR_INVALID;
    if (pgs_is_child(guest->kvm))
        return PGSHARE_ERR_FORKED;
    for (uint32_t i = 0; i < guest->n_slots; i++)
        if (guest->slots[i].gfn == gfn)
            slot = &guest->slots[i];
    if (!slot)
        return PGSHARE_ERR_RANGE;
    pthread_mutex_lock(&guest->lock);
    suspended = guest->suspended;
    pthread_mutex_unlock(&guest->lock);
    if (suspended)
        return PGSHARE_ERR_BUSY;
    handle = pgshare_kvm_handle(guest);
    if (handle)
        r = pgshare_domain_ram_remove(guest->kvm->host, handle, gfn,
                                      slot->count, NULL);
    if (!r)
        pgs_slot_release(guest, slot);
    return r;
}
