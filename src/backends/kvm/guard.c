/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Read-only memory.
 *
 * In a trapped guest a read-only page is write-protected by our userfaultfd,
 * whatever else it is, so that each write comes to the handler, and the library
 * reports it in place of doing it. Whoever takes the protection away for a
 * moment, or puts other memory in the page's place, guards it again. A write
 * that comes in just that moment is done, as if it had come before.
 *
 * In kernel mode nobody hears of a write. There only memory can be read-only that
 * KVM keeps the guest from writing to (KVM_MEM_READONLY); the VMM says so of a
 * slot (PGSHARE_KVM_SLOT_READONLY), and tells of the exits (vcpu.c).
 *
 * While a guest is suspended, its private memory is not ours to guard.
 */
#include "kvm/backend.h"

static void set(struct pgshare_kvm_guest *guest, uint64_t gfn, bool on)
{
    uint64_t bit = UINT64_C(1) << gfn % 64;

    if (pgs_is_readonly(guest, gfn) == on)
        return;
    guest->readonly[gfn / 64] ^= bit;
    guest->n_readonly += on ? 1 : UINT64_MAX;
}

int pgs_guard(struct pgshare_kvm_guest *guest, uint64_t gfn, uint64_t n)
{
    int error = 0;

    if (!guest->n_readonly || guest->suspended)
        return 0;
    for (uint64_t i = 0; i < n;) {
        uint64_t end = i;
        int r = 0;

        while (end < n && pgs_is_readonly(guest, gfn + end))
            end++;
        if (end > i)
            r = pgs_sys_uffd_protect(guest->uffd, pgs_at(guest, gfn + i),
                                     (end - i) * PAGE, true);
        if (r)
            error = r;
        i = end + 1;
    }
    return error;
}

void pgs_unguard(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    enum pgs_kvm_kind kind = pgs_kind(guest, gfn);
    unsigned char *at = pgs_at(guest, gfn);

    if (!pgs_is_readonly(guest, gfn))
        return;
    set(guest, gfn, false);
    if (!at || guest->suspended)
        return;
    if (kind == KIND_HOLE || kind == KIND_ANON || kind == KIND_LEFT)
        pgs_sys_uffd_protect(guest->uffd, at, PAGE, false);
    pgs_sys_uffd_wake(guest->uffd, at, PAGE);
}

void pgs_unguard_all(struct pgshare_kvm_guest *guest)
{
    pthread_mutex_lock(&guest->lock);
    for (uint64_t gfn = 0; guest->n_readonly && gfn < guest->gfns; gfn++)
        pgs_unguard(guest, gfn);
    pthread_mutex_unlock(&guest->lock);
}

static int8_t guard_page(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    enum pgs_kvm_kind kind = pgs_kind(guest, gfn);

    if (kind == KIND_HOLE || kind == KIND_OWED)
        return PGSHARE_ERR_HOLE;
    set(guest, gfn, true);
    atomic_fetch_add(&guest->guarded, 1);
    if (!pgs_guard(guest, gfn, 1))
        return 0;
    set(guest, gfn, false);
    return PGSHARE_ERR_BACKEND;
}

static void read_only(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_kvm_guest *guest = work->guest;
    const struct pgs_kvm_slot *slot = pgs_slot_of(guest, work->op->gfn + first);

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;

        if (work->op->flags & PGSHARE_OP_OFF)
            pgs_unguard(guest, gfn);
        else if (guest->trapped)
            work->status[i] = guard_page(guest, gfn);
        else if (!(slot->attributes & ATTRIBUTE_READONLY))
            work->status[i] = PGSHARE_ERR_NOTSUP;
    }
}

void pgs_kvm_op_read_only(struct pgs_kvm_work *work)
{
    pgs_each_span(work, read_only);
}
