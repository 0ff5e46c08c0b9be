/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM that migrates or takes a snapshot wants fault handling and the log of
 * writes for itself: a page can be registered with one userfaultfd only. So
 * ours lets go of a suspended guest's memory, and takes it back afterwards; what
 * was written meanwhile nobody has logged, and all pages count as written.
 *
 * What is shared stays so, and somebody has to see to its faults:
 *
 *              in kernel mode                      trapped
 *     FRAME    nobody was registered               stays ours
 *     LEFT     likewise                            let go
 *     ZERO     let go: page tables tell of breaks  stays ours
 *     MARKED   let go, and void: to lose its       stays ours
 *              protection is to be written
 *     OWED     stays ours: whoever touches it has to ask
 *
 * A VMM that wants all of it makes the domain's memory private first.
 */
#include "kvm/backend.h"

/* How a page was registered, and is to be again. */
enum watch { WATCH_STAYS, WATCH_MEMORY, WATCH_POOL };

static enum watch watch_of(const struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    switch (pgs_kind(guest, gfn)) {
    case KIND_HOLE:
    case KIND_ANON:
        return WATCH_MEMORY;
    case KIND_ZERO:
    case KIND_MARKED:
        return guest->trapped ? WATCH_STAYS : WATCH_MEMORY;
    case KIND_LEFT:
        return guest->trapped ? WATCH_POOL : WATCH_STAYS;
    case KIND_OWED:
    case KIND_FRAME:
    case KIND_UNTOLD:
    default:
        return WATCH_STAYS;
    }
}

static int take_back(struct pgshare_kvm_guest *guest, uint64_t gfn, uint64_t n,
                     enum watch watch)
{
    void *at = pgs_at(guest, gfn);

    for (uint64_t i = gfn; i < gfn + n; i++)
        pgs_set_changed(guest, i);
    if (watch == WATCH_POOL)
        return pgs_sys_uffd_register(guest->uffd, at, n * PAGE,
                                     UFFDIO_REGISTER_MODE_WP);
    return pgs_vma_arm(guest, at, n * PAGE);
}

/* Lock held. The pages of a slot are somebody else's now, or ours again. Answers
 * the first error. */
static int hand_over(struct pgshare_kvm_guest *guest,
                     const struct pgs_kvm_slot *slot, bool off)
{
    uint64_t end = slot->gfn + slot->count;
    int first = 0;

    for (uint64_t gfn = slot->gfn, stop; gfn < end; gfn = stop) {
        enum watch watch = watch_of(guest, gfn);
        int error = 0;

        stop = gfn + 1;
        while (stop < end && watch_of(guest, stop) == watch)
            stop++;
        if (watch != WATCH_STAYS && off)
            error = take_back(guest, gfn, stop - gfn, watch);
        else if (watch != WATCH_STAYS)
            error = pgs_sys_uffd_unregister(guest->uffd, pgs_at(guest, gfn),
                                            (stop - gfn) * PAGE);
        if (!first)
            first = error;
    }
    return first;
}

/* Lock held. To let go cannot fail, but for memory. To take back can: somebody
 * else is still registered there. Then what was taken is let go again. */
static int switch_over(struct pgshare_kvm_guest *guest, bool off)
{
    int error = 0;

    guest->suspended = false;
    for (uint32_t i = 0; !error && i < guest->n_slots; i++)
        error = hand_over(guest, &guest->slots[i], off);
    for (uint32_t i = 0; error && i < guest->n_slots; i++)
        hand_over(guest, &guest->slots[i], !off);
    guest->suspended = off == (error != 0);
    return error;
}

int pgs_suspend_end(struct pgshare_kvm_guest *guest)
{
    int error = 0;

    pthread_mutex_lock(&guest->lock);
    if (guest->suspended)
        error = switch_over(guest, true);
    pthread_mutex_unlock(&guest->lock);
    return error ? PGSHARE_ERR_BUSY : 0;
}

void pgs_kvm_op_suspend(struct pgs_kvm_work *work)
{
    struct pgshare_kvm_guest *guest = work->guest;

    if (work->op->flags & PGSHARE_OP_OFF) {
        work->result = pgs_suspend_end(guest);
        return;
    }
    pthread_mutex_lock(&guest->lock);
    if (!guest->suspended && switch_over(guest, false))
        work->result = PGSHARE_ERR_BACKEND;
    pthread_mutex_unlock(&guest->lock);
}
