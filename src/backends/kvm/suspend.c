/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM that migrates or takes a snapshot wants fault handling and the log of
 * writes for itself: a page can be registered with one userfaultfd only. So
 * ours lets go of a suspended guest's memory, and takes it back afterwards; what
 * was written meanwhile nobody has logged, and all pages count as written.
 *
 * What is shared or marked stays ours, so that nobody else's userfaultfd gets
 * there: it would not see writes to frames, and its protection of a place
 * without a page looks like a page that is swapped out, which would be taken for
 * a break. In kernel mode, where mappings of frames are not registered, they are
 * as long as that lasts. A page that becomes private is let go at once.
 */
#include "kvm/backend.h"

#include <errno.h>

/* How a page is registered: so that it can be let go (MEMORY: anonymous; POOL:
 * left in the pool), for good (OURS), not at all unless the guest is suspended
 * (GUARD), never (NOT). */
enum watch { WATCH_MEMORY, WATCH_POOL, WATCH_OURS, WATCH_GUARD, WATCH_NOT };

static enum watch watch_of(const struct pgshare_kvm_guest *guest,
                           enum pgs_kvm_kind kind)
{
    switch (kind) {
    case KIND_HOLE:
    case KIND_ANON:
        return WATCH_MEMORY;
    case KIND_LEFT:
        return guest->trapped ? WATCH_POOL : WATCH_NOT;
    case KIND_FRAME:
        return guest->trapped ? WATCH_OURS : WATCH_GUARD;
    case KIND_UNTOLD:
        return WATCH_NOT;
    case KIND_ZERO:
    case KIND_MARKED:
    case KIND_OWED:
    default:
        return WATCH_OURS;
    }
}

/* Lock held. What is to be let go is somebody else's now, or (`off`) ours
 * again. */
static int hand_over_run(struct pgshare_kvm_guest *guest, uint64_t gfn,
                         uint64_t n, bool off)
{
    enum watch watch = watch_of(guest, pgs_kind(guest, gfn));
    int staging = guest->kvm->staging;
    void *at = pgs_at(guest, gfn);

    for (uint64_t i = gfn; off && i < gfn + n; i++)
        pgs_set_changed(guest, i);
    switch (watch) {
    case WATCH_MEMORY:
        return off ? pgs_vma_arm(guest, at, n * PAGE)
                   : pgs_sys_uffd_unregister(guest->uffd, at, n * PAGE);
    case WATCH_POOL:
        return off ? pgs_sys_uffd_register(guest->uffd, at, n * PAGE,
                                           UFFDIO_REGISTER_MODE_WP)
                   : pgs_sys_uffd_unregister(guest->uffd, at, n * PAGE);
    case WATCH_GUARD:
        return off ? pgs_sys_uffd_unregister(staging, at, n * PAGE)
                   : pgs_sys_uffd_register(staging, at, n * PAGE,
                                           UFFDIO_REGISTER_MODE_WP);
    case WATCH_OURS:
    case WATCH_NOT:
    default:
        return 0;
    }
}

/* Lock held. The slot's pages before `end`. Answers an error, and where. */
static int hand_over(struct pgshare_kvm_guest *guest,
                     const struct pgs_kvm_slot *slot, uint64_t end, bool off,
                     uint64_t *ret_at)
{
    uint64_t gfn = slot->gfn;
    int error = 0;

    while (!error && gfn < end) {
        enum watch watch = watch_of(guest, pgs_kind(guest, gfn));
        uint64_t stop = gfn + 1;

        while (stop < end && watch_of(guest, pgs_kind(guest, stop)) == watch)
            stop++;
        error = hand_over_run(guest, gfn, stop - gfn, off);
        if (!error && off)
            error = pgs_guard(guest, gfn, stop - gfn);
        if (!error)
            gfn = stop;
    }
    *ret_at = gfn;
    return error;
}

/* Lock held. Should a part fail, what was done before is undone. To take back
 * fails where somebody else is still registered. */
static int switch_over(struct pgshare_kvm_guest *guest, bool off)
{
    uint64_t at, ignored;
    uint32_t i;
    int error = 0;

    guest->suspended = false;
    for (i = 0; !error && i < guest->n_slots; i++)
        error = hand_over(guest, &guest->slots[i],
                          guest->slots[i].gfn + guest->slots[i].count, off,
                          &at);
    if (error)
        hand_over(guest, &guest->slots[--i], at, !off, &ignored);
    while (error && i--)
        hand_over(guest, &guest->slots[i],
                  guest->slots[i].gfn + guest->slots[i].count, !off, &ignored);
    guest->suspended = off == (error != 0);
    return error;
}

void pgs_suspend_page(struct pgshare_kvm_guest *guest, uint64_t gfn,
                      enum pgs_kvm_kind old, enum pgs_kvm_kind kind)
{
    enum watch was = watch_of(guest, old), is = watch_of(guest, kind);
    int uffd = was == WATCH_GUARD ? guest->kvm->staging : guest->uffd;

    if (was != WATCH_OURS && was != WATCH_GUARD)
        return;
    if (is == WATCH_MEMORY || is == WATCH_POOL || is == WATCH_NOT)
        pgs_sys_uffd_unregister(uffd, pgs_at(guest, gfn), PAGE);
}

int pgs_suspend_end(struct pgshare_kvm_guest *guest)
{
    int error = 0;

    pthread_mutex_lock(&guest->lock);
    if (guest->suspended)
        error = switch_over(guest, true);
    pthread_mutex_unlock(&guest->lock);
    return error == -ENOMEM ? PGSHARE_ERR_NOMEM
           : error          ? PGSHARE_ERR_BUSY
                            : 0;
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
        work->result = PGSHARE_ERR_NOMEM;
    pthread_mutex_unlock(&guest->lock);
}
