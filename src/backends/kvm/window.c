/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The window: pages out of the guest's reach, and what stands in their place
 * afterwards.
 *
 *     register MISSING ─ MOVE to staging ─ (the caller compares) ─┬ MOVE back
 *                                                                 ├ map, keep
 *                                                                 └ keep
 *     unregister ─ register the log again ─ WAKE
 *
 * UFFDIO_MOVE is what makes this safe. It takes a page away from all who could
 * write to it at once, and refuses one that somebody has pinned: a disk read
 * under way would write to the page wherever it lies, through any protection.
 * While a page is away, whoever touches its place sleeps in our userfaultfd,
 * which needs no answer but the WAKE at the end; the kernel's own accesses on
 * behalf of the guest (read(), O_DIRECT) likewise.
 *
 * A page that was moved is exclusively ours, so it is compared without haste
 * for correctness' sake, though with haste for the guest's. Going back cannot
 * be allowed to fail: MOVE is tried, then a copy, until one succeeds.
 *
 * The log of a guest in kernel mode does not survive; pages that went back
 * count as written. Where the kernel has no MOVE, still.c does what it can.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#define BACK_TRIES 1000
/* Whoever touches what is not there has to wait. */
#define CLOSED (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)

static unsigned char *staged(const struct pgs_kvm_window *window, uint32_t i)
{
    return pgs_stage_at(&window->guest->kvm->hold, window->stage + i);
}

static bool is_still(const struct pgs_kvm_window *window)
{
    return window->stage == HOLD_NONE;
}

/* ---- out --------------------------------------------------------------- */

/* What the kernel's refusal to move a page says of it. */
static int8_t verdict(int error)
{
    switch (error) {
    case -EBUSY:
    case -EAGAIN:
        return PGSHARE_ERR_BUSY;
    case -ENOMEM:
        return PGSHARE_ERR_NOMEM;
    case -EFAULT:
        return PGSHARE_ERR_HOLE;
    default:
        return PGSHARE_ERR_BACKEND;
    }
}

/* There was nothing to move at `first`. What the guest never touched comes in
 * long runs, and nobody can touch it now: one look finds all of it. Answers
 * where the run ends. */
static uint32_t skip_empty(struct pgs_kvm_window *window, uint32_t first,
                           uint32_t end)
{
    if (!window->looked)
        pgs_scan_window(window->guest->kvm, window->at, window->n,
                        window->nothing, window->own);
    window->looked = true;
    do
        window->state[first++] = WINDOW_EMPTY;
    while (first < end && window->nothing[first]);
    return first;
}

/* Moves pages first … end-1, none of which has a status. */
static void move_out(struct pgs_kvm_window *window, uint32_t first,
                     uint32_t end)
{
    struct pgshare_kvm *kvm = window->guest->kvm;

    while (first < end) {
        size_t moved;
        int error = pgs_sys_uffd_move(kvm->staging, staged(window, first),
                                      pgs_window_at(window, first),
                                      (end - first) * PAGE, &moved);

        for (uint32_t n = (uint32_t)(moved / PAGE); n; n--)
            window->state[first++] = WINDOW_OUT;
        if (!error)
            return;
        if (error == -ENOENT) {
            first = skip_empty(window, first, end);
            continue;
        }
        if (error == -EBUSY)
            atomic_fetch_add(&kvm->pinned, 1);
        window->status[first++] = verdict(error);
    }
}

int pgs_window_open(struct pgs_kvm_window *window,
                    struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                    int8_t *status)
{
    int error = 0;

    window->guest = guest;
    window->slot = pgs_slot_of(guest, gfn);
    window->gfn = gfn;
    window->n = n;
    window->at = pgs_at(guest, gfn);
    window->status = status;
    window->stage = HOLD_NONE;
    if (!guest->kvm->in_place) {
        window->stage = pgs_stage_take(&guest->kvm->hold, n);
        if (window->stage == HOLD_NONE)
            return PGSHARE_ERR_NOMEM;
    }
    if (!guest->trapped)
        error = pgs_sys_uffd_register(guest->uffd, window->at, n * PAGE,
                                      CLOSED);
    if (error) {
        if (!is_still(window))
            pgs_stage_drop(&guest->kvm->hold, window->stage, n);
        return error == -ENOMEM ? PGSHARE_ERR_NOMEM : PGSHARE_ERR_BACKEND;
    }
    memset(window->state, WINDOW_STAYS, n);
    memset(window->filled, false, n);
    window->looked = false;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i;

        while (end < n && !status[end])
            end++;
        if (end > i && is_still(window))
            pgs_still_out(window, i, end);
        else if (end > i)
            move_out(window, i, end);
        i = end + 1;
    }
    return 0;
}

bool pgs_window_read(struct pgs_kvm_window *window, uint32_t first, uint32_t n,
                     unsigned char *ret_bytes)
{
    const void *from = is_still(window) ? pgs_window_at(window, first)
                                        : staged(window, first);

    if (pgs_sys_peek(ret_bytes, from, n * PAGE) != (ssize_t)(n * PAGE))
        return false;
    for (uint32_t i = 0; i < n; i++)
        window->filled[first + i] = *(const uint64_t *)(const void *)(
            ret_bytes + (size_t)i * PAGE);
    return true;
}

/* ---- back -------------------------------------------------------------- */

/* One run of pages that are all in staging. */
static void move_back(struct pgs_kvm_window *window, uint32_t i, uint32_t end)
{
    struct pgshare_kvm_guest *guest = window->guest;
    unsigned tries = 0;

    while (i < end && tries++ < BACK_TRIES) {
        size_t moved;
        int error = pgs_sys_uffd_move(guest->uffd, pgs_window_at(window, i),
                                      staged(window, i), (end - i) * PAGE,
                                      &moved);

        i += (uint32_t)(moved / PAGE);
        if (!error)
            return;
        if (pgs_sys_uffd_copy(guest->uffd, pgs_window_at(window, i), staged(window, i),
                              PAGE, UFFDIO_COPY_MODE_DONTWAKE)) {
            sched_yield();
            continue;
        }
        pgs_sys_advise(staged(window, i), PAGE, MADV_DONTNEED);
        i++;
    }
    pgs_guard(guest, window->gfn, window->n); /* should COPY have failed */
}

/* MOVE cannot protect what it brings; a copy can, so that nobody gets hold of
 * the page in between. */
static bool put_protected(struct pgs_kvm_window *window, uint32_t i)
{
    const uint64_t mode = UFFDIO_COPY_MODE_WP | UFFDIO_COPY_MODE_DONTWAKE;
    const void *from = pgs_zeroes;
    int error;

    if (window->state[i] == WINDOW_OUT && is_still(window)) {
        window->state[i] = WINDOW_STAYS; /* it is protected */
        return true;
    }
    if (window->state[i] != WINDOW_EMPTY)
        from = staged(window, i);
    error = pgs_sys_uffd_copy(window->guest->uffd, pgs_window_at(window, i), from,
                              PAGE, mode);
    if (error) {
        window->status[i] = error == -ENOMEM ? PGSHARE_ERR_NOMEM
                                             : PGSHARE_ERR_BUSY;
        return false;
    }
    if (window->state[i] == WINDOW_OUT)
        pgs_sys_advise(from, PAGE, MADV_DONTNEED);
    window->state[i] = WINDOW_STAYS;
    return true;
}

bool pgs_window_mark(struct pgs_kvm_window *window, uint32_t i)
{
    if (!put_protected(window, i))
        return false;
    pgs_set_kind(window->guest, window->gfn + i, KIND_MARKED, NO_PLACE);
    return true;
}

static bool is_protected(const struct pgs_kvm_window *window, uint32_t i)
{
    return pgs_kind(window->guest, window->gfn + i) == KIND_MARKED ||
           pgs_is_readonly(window->guest, window->gfn + i);
}

/* A mark stays one. Where there is no memory for that it is void; in a trapped
 * guest nobody would notice, so that it is tried until there is. */
static void protected_back(struct pgs_kvm_window *window, uint32_t i)
{
    int8_t status = window->status[i];
    unsigned tries = window->guest->trapped ? BACK_TRIES : 1;

    while (tries-- && !put_protected(window, i))
        sched_yield();
    window->status[i] = status;
}

void pgs_window_back(struct pgs_kvm_window *window, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        if (window->state[i] == WINDOW_OUT && is_protected(window, i))
            protected_back(window, i);
    for (uint32_t i = first; i < first + n;) {
        uint32_t end = i;

        for (; end < first + n && window->state[end] == WINDOW_OUT; end++)
            window->state[end] = WINDOW_STAYS;
        if (end > i && !is_still(window))
            move_back(window, i, end);
        i = end + 1;
    }
    for (uint32_t i = first; i < first + n; i++)
        pgs_set_changed(window->guest, window->gfn + i);
    atomic_fetch_add(&window->guest->kvm->moved_back, n);
}

/* ---- away -------------------------------------------------------------- */

void pgs_window_keep(struct pgs_kvm_window *window, uint32_t i,
                     enum pgs_kvm_kind kind)
{
    /* what is mapped over is given up by that */
    if (is_still(window) && kind != KIND_ANON && !pgs_still_drop(window, i))
        return;
    if (window->state[i] == WINDOW_OUT)
        window->state[i] = WINDOW_KEPT;
    pgs_set_kind(window->guest, window->gfn + i, kind, NO_PLACE);
}

/* In a trapped guest the new mapping can be written to for a moment. A page
 * that was is private, and not shared after all. */
static void trap(struct pgs_kvm_window *window, uint32_t first, uint32_t n)
{
    struct pgshare_kvm_guest *guest = window->guest;
    unsigned char *at = pgs_window_at(window, first);

    if (pgs_trap(guest, at, n * PAGE))
        pgs_sys_advise(at, n * PAGE, MADV_POPULATE_WRITE);
    for (uint32_t i = first; i < first + n; i++) {
        if (!pgs_scan_is_own(guest, window->gfn + i) ||
            pgs_own(guest, window->gfn + i, pgs_window_at(window, i)))
            continue;
        window->status[i] = PGSHARE_ERR_CLIENT_TICKET;
        atomic_fetch_add(&guest->kvm->slipped, 1);
    }
}

/* The frames' counts come first, so that none of them dies under us. */
static int count_all(struct pgs_kvm_pool *pool, uint64_t place, uint32_t n)
{
    uint32_t live = 0;

    while (live < n && pgs_pool_map(pool, place + live))
        live++;
    if (live == n)
        return 0;
    while (live--)
        pgs_pool_unmap(pool, place + live);
    return PGSHARE_ERR_SOURCE_TICKET;
}

void pgs_window_map(struct pgs_kvm_window *window, uint32_t first, uint32_t n,
                    uint64_t place)
{
    struct pgshare_kvm_guest *guest = window->guest;
    unsigned char *at = pgs_window_at(window, first);
    int r = count_all(guest->pool, place, n);

    if (!r && pgs_sys_map_file(at, n * PAGE, guest->pool->fd, place * PAGE,
                               true, NULL)) {
        for (uint32_t i = 0; i < n; i++)
            pgs_pool_unmap(guest->pool, place + i);
        r = PGSHARE_ERR_NOMEM;
    }
    if (r) {
        memset(window->status + first, r, n);
        pgs_window_back(window, first, n);
        return;
    }
    pgs_vma_restore(window->slot, at, n * PAGE);
    for (uint32_t i = first; i < first + n; i++)
        pgs_window_keep(window, i, KIND_ANON);
    for (uint32_t i = 0; i < n; i++)
        pgs_set_kind(guest, window->gfn + first + i, KIND_FRAME, place + i);
    if (guest->trapped)
        trap(window, first, n);
}

/* ---- the end ----------------------------------------------------------- */

/* The kernel's zero page is moved like any other, but is no memory. */
static void drop_nothing(struct pgs_kvm_window *window)
{
    uint32_t i = 0;

    while (i < window->n && (window->state[i] != WINDOW_KEPT ||
                             window->filled[i]))
        i++;
    if (i == window->n)
        return;
    /* where the kernel does not say, nothing is counted */
    pgs_scan_window(window->guest->kvm, staged(window, 0), window->n,
                    window->nothing, window->own);
    for (; i < window->n; i++) {
        if (window->state[i] != WINDOW_KEPT || window->filled[i] || window->own[i])
            continue;
        pgs_sys_advise(staged(window, i), PAGE, MADV_DONTNEED);
        window->state[i] = WINDOW_STAYS;
    }
}

/* What was staged is held memory, or gone. Answers how much was kept. */
static uint32_t settle(struct pgs_kvm_window *window)
{
    struct pgs_kvm_hold *hold = &window->guest->kvm->hold;
    uint32_t kept = 0;

    if (is_still(window))
        return pgs_still_settle(window);
    drop_nothing(window);
    for (uint32_t i = 0; i < window->n;) {
        bool keep = window->state[i] == WINDOW_KEPT;
        uint32_t end = i;

        while (end < window->n && (window->state[end] == WINDOW_KEPT) == keep)
            end++;
        if (keep)
            pgs_stage_keep(hold, window->stage + i, end - i);
        else
            pgs_stage_drop(hold, window->stage + i, end - i);
        kept += keep ? end - i : 0;
        i = end;
    }
    return kept;
}

/* To be unregistered would take a mark's protection; and whoever touches a page
 * that is owed has to ask. */
static bool stays_closed(const struct pgs_kvm_window *window, uint32_t i)
{
    enum pgs_kvm_kind kind = pgs_kind(window->guest, window->gfn + i);

    return kind == KIND_MARKED || kind == KIND_OWED;
}

/* The log goes on where there is still anonymous memory. Should that fail, what
 * is written there is not noticed: nothing is lost but sharing. */
static void log_again(struct pgs_kvm_window *window)
{
    struct pgshare_kvm_guest *guest = window->guest;

    for (uint32_t i = 0; i < window->n;) {
        bool stays = stays_closed(window, i);
        uint32_t end = i;

        while (end < window->n && stays_closed(window, end) == stays &&
               pgs_in_pool(pgs_kind(guest, window->gfn + end)) ==
                   pgs_in_pool(pgs_kind(guest, window->gfn + i)))
            end++;
        if (!stays && !pgs_in_pool(pgs_kind(guest, window->gfn + i))) {
            pgs_sys_uffd_unregister(guest->uffd, pgs_window_at(window, i),
                                    (end - i) * PAGE);
            pgs_vma_arm(guest, pgs_window_at(window, i), (end - i) * PAGE);
        }
        i = end;
    }
}

uint32_t pgs_window_close(struct pgs_kvm_window *window)
{
    struct pgshare_kvm_guest *guest = window->guest;

    for (uint32_t i = 0; i < window->n; i++)
        if (window->state[i] == WINDOW_OUT)
            pgs_window_back(window, i, 1);
    if (is_still(window))
        pgs_still_end(window);
    if (!guest->trapped)
        log_again(window);
    pgs_sys_uffd_wake(guest->uffd, window->at, window->n * PAGE);
    return settle(window);
}
