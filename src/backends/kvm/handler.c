/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The thread that hears of faults.
 *
 * Trapped guests' writes to shared pages come here, and in every guest the
 * first touch of a page that was reclaimed; the library resolves them
 * (pgshare_fault_write()), and the vCPU goes on. All else that stops a guest
 * is a window, whose end wakes it: then there is nothing to do here but to look
 * and wake once more, which is harmless.
 *
 * A fault that finds no memory waits in a list and is tried again, while the
 * thread goes on with others. So does a write to what may not be written (a
 * frozen domain's memory): it was reported, the vCPU sleeps until the VMM
 * kicks it with a signal or until the domain thaws. The thread touches no guest memory and holds
 * nothing while the library works.
 */
#include "kvm/backend.h"

#include <pgshare/fault.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 1
#define IDLE_MS 1000
#define RETRY_NS UINT64_C(1000000)
#define REFUSED_NS UINT64_C(2000000000)
#define MESSAGES 16u
#define GUESTS_MAX 1024u
/* A vCPU may wait, but not for ever, before others have their turn. */
#define PATIENCE_NS UINT64_C(20000000)

/* Lock held. Whose page is this? False: not in a slot. */
static bool find_gfn(const struct pgshare_kvm_guest *guest, uint64_t address,
                     uint64_t *ret_gfn)
{
    for (uint32_t i = 0; i < guest->n_slots; i++) {
        const struct pgs_kvm_slot *slot = &guest->slots[i];
        uint64_t offset = address - (uintptr_t)slot->at;

        if (offset / PAGE < slot->count) {
            *ret_gfn = slot->gfn + offset / PAGE;
            return true;
        }
    }
    return false;
}

/* What there is to be done about a fault on a page. */
enum todo { WAKE, ASK };

/* Lock held. Something for a reader to see in place of nothing. It is there to
 * be written to for a moment in a trapped guest: the write is asked about then
 * as if it had been trapped. */
static enum todo show_zeroes(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    unsigned char *at = pgs_at(guest, gfn);

    pgs_sys_uffd_zero(guest->uffd, at, PAGE);
    if (!guest->trapped || (pgs_kind(guest, gfn) != KIND_ZERO &&
                            !pgs_is_readonly(guest, gfn)))
        return WAKE;
    pgs_sys_uffd_protect(guest->uffd, at, PAGE, true);
    return pgs_scan_is_own(guest, gfn) ? ASK : WAKE;
}

/* Lock held. Is the page of a suspended guest, and private? */
static bool is_let_go(const struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    enum pgs_kvm_kind kind = pgs_kind(guest, gfn);

    return guest->suspended && (kind == KIND_HOLE || kind == KIND_ANON ||
                                kind == KIND_LEFT || kind == KIND_UNTOLD);
}

/* Lock held. */
static enum todo judge(struct pgshare_kvm_guest *guest, uint64_t gfn,
                       uint64_t flags)
{
    bool protected_ = flags & UFFD_PAGEFAULT_FLAG_WP;
    bool write = protected_ || flags & UFFD_PAGEFAULT_FLAG_WRITE;

    if (is_let_go(guest, gfn)) /* what is there by now is not ours to mend */
        return WAKE;
    if (write && pgs_is_readonly(guest, gfn))
        return ASK;
    switch (pgs_kind(guest, gfn)) {
    case KIND_OWED:
        return ASK;
    case KIND_ZERO:
        return write ? ASK : show_zeroes(guest, gfn);
    case KIND_MARKED:
        if (protected_ && !guest->trapped) /* the next harvest tells */
            pgs_sys_uffd_protect(guest->uffd, pgs_at(guest, gfn), PAGE, false);
        return protected_ && guest->trapped ? ASK : WAKE;
    case KIND_FRAME:
        return protected_ && guest->trapped ? ASK : WAKE;
    case KIND_LEFT:
    case KIND_UNTOLD:
        if (protected_)
            pgs_sys_uffd_protect(guest->uffd, pgs_at(guest, gfn), PAGE, false);
        return WAKE;
    case KIND_HOLE:
    case KIND_ANON:
    default:
        if (!protected_)
            return show_zeroes(guest, gfn);
        pgs_sys_uffd_protect(guest->uffd, pgs_at(guest, gfn), PAGE, false);
        return WAKE;
    }
}

/* Without a library, the kernel does all by itself again. */
static void let_go(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    unsigned char *at;

    pthread_mutex_lock(&guest->lock);
    at = pgs_at(guest, gfn);
    if (at && !is_let_go(guest, gfn)) {
        pgs_sys_uffd_zero(guest->uffd, at, PAGE);
        pgs_sys_uffd_protect(guest->uffd, at, PAGE, false);
    }
    if (at)
        pgs_sys_uffd_wake(guest->uffd, at, PAGE);
    pthread_mutex_unlock(&guest->lock);
}

/* The vCPU tries again. */
static void wake(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    pthread_mutex_lock(&guest->lock);
    if (pgs_at(guest, gfn))
        pgs_sys_uffd_wake(guest->uffd, pgs_at(guest, gfn), PAGE);
    pthread_mutex_unlock(&guest->lock);
}

/* The library lets it write, also where it has forgotten that the page was
 * read-only (a page that was claimed anew, say), and it did not become so since
 * it was asked. */
static void go_on(struct pgshare_kvm_guest *guest, uint64_t gfn,
                  uint64_t before)
{
    pthread_mutex_lock(&guest->lock);
    if (atomic_load(&guest->guarded) == before)
        pgs_unguard(guest, gfn);
    if (pgs_at(guest, gfn))
        pgs_sys_uffd_wake(guest->uffd, pgs_at(guest, gfn), PAGE);
    pthread_mutex_unlock(&guest->lock);
}

/* Asks the library. Answers in how many nanoseconds to ask again; 0: it is
 * resolved. */
static uint64_t ask(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    struct pgshare_call call = { .size = sizeof(call),
                                 .timeout_ns = PATIENCE_NS };
    struct pgshare_fault answer = { .size = sizeof(answer) };
    struct pgshare_kvm *kvm = guest->kvm;
    uint64_t handle = atomic_load(&guest->handle);
    uint64_t before = atomic_load(&guest->guarded);
    int r = PGSHARE_ERR_NODOMAIN;

    atomic_fetch_add(&kvm->faults, 1);
    if (handle && kvm->host)
        r = pgshare_fault_write(kvm->host, handle, gfn, 0, &call, &answer);
    switch (r) {
    case 0:
        if (answer.outcome == PGSHARE_FAULT_READ_ONLY)
            return REFUSED_NS;
        go_on(guest, gfn, before);
        return 0;
    case PGSHARE_ERR_INPROGRESS:
    case PGSHARE_ERR_NOFRAME:
    case PGSHARE_ERR_BUSY:
    case PGSHARE_ERR_BACKEND:
        return RETRY_NS;
    default:
        let_go(guest, gfn);
        return 0;
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void ask_or_wait(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    struct pgshare_kvm *kvm = guest->kvm;
    uint64_t later = ask(guest, gfn);
    uint32_t i = 0;

    if (!later)
        return;
    while (i < kvm->n_waiting &&
           (kvm->waiting[i].guest != guest || kvm->waiting[i].gfn != gfn))
        i++;
    if (i == kvm->n_waiting && i < WAITING_MAX)
        kvm->n_waiting++;
    if (i < WAITING_MAX)
        kvm->waiting[i] = (struct pgs_kvm_waiting){ guest, gfn,
                                                    now_ns() + later,
                                                    later == REFUSED_NS };
    else
        wake(guest, gfn); /* faults again, and is told again */
}

static void resolve(struct pgshare_kvm_guest *guest, uint64_t address,
                    uint64_t flags)
{
    enum todo todo = WAKE;
    uint64_t gfn = 0;

    pthread_mutex_lock(&guest->lock);
    if (find_gfn(guest, address, &gfn))
        todo = judge(guest, gfn, flags);
    if (todo == WAKE)
        pgs_sys_uffd_wake(guest->uffd,
                          (const void *)(uintptr_t)(address / PAGE * PAGE),
                          PAGE);
    pthread_mutex_unlock(&guest->lock);
    if (todo == ASK)
        ask_or_wait(guest, gfn);
}

static void retry(struct pgshare_kvm *kvm)
{
    uint64_t now = kvm->n_waiting ? now_ns() : 0;
    uint32_t i = 0;

    while (i < kvm->n_waiting) {
        struct pgs_kvm_waiting one = kvm->waiting[i];

        if (one.due > now) {
            i++;
            continue;
        }
        kvm->waiting[i] = kvm->waiting[--kvm->n_waiting];
        if (one.refused) /* whoever is still there faults again */
            wake(one.guest, one.gfn);
        else
            ask_or_wait(one.guest, one.gfn); /* at the end, and due later */
    }
}

static void hear(struct pgshare_kvm_guest *guest)
{
    struct uffd_msg messages[MESSAGES];
    ssize_t n = read(guest->uffd, messages, sizeof(messages));

    for (ssize_t i = 0; i < n / (ssize_t)sizeof(messages[0]); i++)
        if (messages[i].event == UFFD_EVENT_PAGEFAULT)
            resolve(guest, messages[i].arg.pagefault.address,
                    messages[i].arg.pagefault.flags);
}

/* ---- the thread -------------------------------------------------------- */

/* Guests do not go while the thread is at work on them: whoever frees one waits
 * for `hearing` (pgs_handler_forget()). */
static nfds_t collect(struct pgshare_kvm *kvm, struct pollfd *polls,
                      struct pgshare_kvm_guest **guests)
{
    nfds_t n = 0;

    polls[n++] = (struct pollfd){ .fd = kvm->kick, .events = POLLIN };
    for (struct pgshare_kvm_guest *g = kvm->guests; g && n < GUESTS_MAX;
         g = g->next) {
        guests[n] = g;
        polls[n++] = (struct pollfd){ .fd = g->uffd, .events = POLLIN };
    }
    return n;
}

static void round_of(struct pgshare_kvm *kvm, struct pollfd *polls,
                     struct pgshare_kvm_guest **guests)
{
    uint64_t kicks;
    nfds_t n;

    pthread_mutex_lock(&kvm->lock);
    n = collect(kvm, polls, guests);
    pthread_mutex_unlock(&kvm->lock);
    if (poll(polls, n, kvm->n_waiting ? RETRY_MS : IDLE_MS) < 0)
        return;
    if (polls[0].revents && read(kvm->kick, &kicks, sizeof(kicks)) > 0)
        return; /* guests may have come or gone */
    pthread_mutex_lock(&kvm->hearing);
    if (!atomic_load(&kvm->kicked)) {
        retry(kvm);
        for (nfds_t i = 1; i < n; i++)
            if (polls[i].revents & POLLIN)
                hear(guests[i]);
    }
    pthread_mutex_unlock(&kvm->hearing);
}

static void *run(void *ctx)
{
    struct pgshare_kvm *kvm = ctx;
    struct pollfd *polls = calloc(GUESTS_MAX, sizeof(*polls));
    struct pgshare_kvm_guest **guests = calloc(GUESTS_MAX, sizeof(void *));

    while (polls && guests && !atomic_load(&kvm->stopping)) {
        atomic_store(&kvm->kicked, false);
        round_of(kvm, polls, guests);
    }
    free(polls);
    free(guests);
    return NULL;
}

void pgs_handler_kick(struct pgshare_kvm *kvm)
{
    uint64_t one = 1;

    atomic_store(&kvm->kicked, true);
    while (write(kvm->kick, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

/* The guest is in no list any more; afterwards the thread knows of it no
 * more either. */
void pgs_handler_forget(struct pgshare_kvm_guest *guest)
{
    struct pgshare_kvm *kvm = guest->kvm;
    uint32_t kept = 0;

    pgs_handler_kick(kvm);
    pthread_mutex_lock(&kvm->hearing);
    for (uint32_t i = 0; i < kvm->n_waiting; i++)
        if (kvm->waiting[i].guest != guest)
            kvm->waiting[kept++] = kvm->waiting[i];
    kvm->n_waiting = kept;
    pthread_mutex_unlock(&kvm->hearing);
}

int pgs_handler_start(struct pgshare_kvm *kvm)
{
    sigset_t all, old;
    int error;

    kvm->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (kvm->kick < 0)
        return PGSHARE_ERR_BACKEND;
    /* signals are the VMM's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&kvm->handler, NULL, run, kvm);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    kvm->handling = !error;
    return error ? PGSHARE_ERR_NOMEM : 0;
}

void pgs_handler_stop(struct pgshare_kvm *kvm)
{
    if (kvm->handling) {
        atomic_store(&kvm->stopping, true);
        pgs_handler_kick(kvm);
        pthread_join(kvm->handler, NULL);
    }
    if (kvm->kick >= 0)
        close(kvm->kick);
}
