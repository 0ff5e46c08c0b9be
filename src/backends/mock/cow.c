/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's own copy-on-write: for flavours whose platform resolves write
 * faults, and for guests that are in no host.
 *
 * A break takes a frame of the machine's free memory, never of the host's
 * reserve, and is logged with its sequence number for the next harvest. Under
 * ::PGSHARE_MOCK_LINUX the content is copied even for the last mapping, and
 * the frame stays until it is released; else the last mapping takes it.
 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

/* Breaks told at a time. */
#define HARVEST_BATCH 128u

/* Are breaks of this domain to be told to somebody? */
static bool is_logged(struct pgshare_mock_domain *domain)
{
    return domain->machine->platform_cow &&
           atomic_load_explicit(&domain->handle, memory_order_relaxed);
}

/* Makes sure that a break can be remembered, before it is made. */
static bool log_prepare(struct pgshare_mock_domain *domain)
{
    bool ready = true;

    if (!is_logged(domain))
        return true;
    pthread_mutex_lock(&domain->log_lock);
    if (domain->breaks_n + domain->breaks_promised == domain->breaks_room) {
        size_t room = domain->breaks_room ? 2 * domain->breaks_room : 64;
        struct pgs_mock_break *breaks = realloc(domain->breaks,
                                                room * sizeof(*breaks));

        ready = breaks;
        if (breaks) {
            domain->breaks = breaks;
            domain->breaks_room = room;
        }
    }
    domain->breaks_promised += ready;
    pthread_mutex_unlock(&domain->log_lock);
    return ready;
}

/* Remembers a break that was prepared (or, with `gfn` PGSHARE_GFN_NONE, was
 * not made after all); with the page's lock held, so that breaks of a page are
 * in order. Its number is taken under the log's lock, so that a harvest with a
 * higher one finds it there. */
static void log_break(struct pgshare_mock_domain *domain, uint64_t gfn)
{
    pthread_mutex_lock(&domain->log_lock);
    if (domain->breaks_promised) {
        domain->breaks_promised--;
        if (gfn != PGSHARE_GFN_NONE) {
            domain->breaks[domain->breaks_n].gfn = gfn;
            domain->breaks[domain->breaks_n++].seq = pgs_mock_seq(domain);
            atomic_fetch_add(&domain->machine->unharvested, 1);
        }
    }
    pthread_mutex_unlock(&domain->log_lock);
}

/* A write to a page that is only protected makes the protection void. Xen does
 * not tell; stale handles do. False: no memory. */
static bool void_protection(struct pgshare_mock_domain *domain, uint64_t gfn,
                            uint32_t *entry)
{
    struct pgshare_mock_machine *machine = domain->machine;
    bool silent = machine->options.flavour == PGSHARE_MOCK_XEN;

    if (!silent && !log_prepare(domain))
        return false;

    if (pgs_mock_kind(*entry) == KIND_SPARSE_PROTECTED) {
        *entry = pgs_mock_entry(*entry, KIND_DEFAULT, 0);
    } else {
        pgs_mock_frame_plain(machine, *entry & ENTRY_FRAME);
        *entry = pgs_mock_entry(*entry, KIND_PRIVATE, *entry);
    }
    if (!silent)
        log_break(domain, gfn);
    return true;
}

/* Makes a mapping private. False: no memory. */
static bool break_mapping(struct pgshare_mock_domain *domain, uint64_t gfn,
                          uint32_t *entry)
{
    struct pgshare_mock_machine *machine = domain->machine;
    bool zero = pgs_mock_kind(*entry) != KIND_SHARED;
    uint32_t old = *entry & ENTRY_FRAME;
    uint32_t frame;

    if (!log_prepare(domain))
        return false;
    if (!zero && !domain->removed &&
        machine->options.flavour != PGSHARE_MOCK_LINUX &&
        pgs_mock_frame_retake(machine, old)) {
        frame = old;
    } else {
        if (!pgs_mock_free_take(machine, 1, &frame)) {
            log_break(domain, PGSHARE_GFN_NONE);
            return false;
        }
        if (!zero)
            pgs_mock_frame_copy(machine, frame, old);
        else if (!(frame & FRAME_FRESH))
            pgs_mock_frame_zero(machine, frame);
        if (!zero)
            pgs_mock_frame_unmap(machine, old, domain->removed);
        atomic_fetch_add_explicit(&machine->copies, 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&machine->breaks, 1, memory_order_relaxed);
    *entry = pgs_mock_entry(*entry, KIND_PRIVATE, frame & FRAME_NUMBER);
    log_break(domain, gfn);
    return true;
}

/*
 * Makes a page, whose lock the caller holds, writable where this is the
 * machine's to do, and updates `entry`.
 */
enum pgs_mock_access pgs_mock_make_writable(struct pgshare_mock_domain *domain,
                                            uint64_t gfn, uint32_t *entry)
{
    struct pgshare_mock_machine *machine = domain->machine;
    bool alone = !atomic_load_explicit(&domain->handle, memory_order_relaxed);
    bool ours = machine->platform_cow || alone;
    uint32_t frame;

    if (*entry & ENTRY_READ_ONLY)
        return ACCESS_TRAP;
    switch (pgs_mock_kind(*entry)) {
    case KIND_PRIVATE:
        return ACCESS_DONE;
    case KIND_PROTECTED:
        if (!ours)
            return ACCESS_TRAP;
        return void_protection(domain, gfn, entry) ? ACCESS_DONE : ACCESS_NOMEM;
    case KIND_SHARED:
    case KIND_ZERO:
        if (!ours)
            return ACCESS_TRAP;
        return break_mapping(domain, gfn, entry) ? ACCESS_DONE : ACCESS_NOMEM;
    case KIND_RECLAIMED:
        if (!alone)
            return ACCESS_TRAP;
        return break_mapping(domain, gfn, entry) ? ACCESS_DONE : ACCESS_NOMEM;
    case KIND_SPARSE_PROTECTED:
        if (!ours)
            return ACCESS_TRAP;
        if (!void_protection(domain, gfn, entry))
            return ACCESS_NOMEM;
        break;
    default:
        if (!pgs_mock_is_sparse(domain, *entry))
            return ACCESS_HOLE;
        break;
    }
    frame = pgs_mock_materialise(domain, gfn, *entry);
    if (frame == FRAME_NONE)
        return ACCESS_NOMEM;
    *entry = pgs_mock_entry(*entry, KIND_PRIVATE, frame);
    return ACCESS_DONE;
}

/* Takes up to HARVEST_BATCH breaks out of the log. */
static size_t log_take(struct pgshare_mock_domain *domain, size_t most,
                       struct pgs_mock_break *ret_breaks)
{
    size_t n;

    pthread_mutex_lock(&domain->log_lock);
    n = domain->breaks_n - domain->breaks_first;
    if (n > most)
        n = most;
    if (n)
        memcpy(ret_breaks, domain->breaks + domain->breaks_first,
               n * sizeof(*ret_breaks));
    domain->breaks_first += n;
    if (domain->breaks_first == domain->breaks_n) {
        domain->breaks_first = 0;
        domain->breaks_n = 0;
    }
    pthread_mutex_unlock(&domain->log_lock);
    atomic_fetch_sub(&domain->machine->unharvested, n);
    return n;
}

/* Tells breaks in runs. One number for a run is right where nothing came in
 * between. */
static void tell(struct pgshare_mock_domain *domain,
                 const struct pgs_mock_break *breaks, size_t n)
{
    const struct pgshare_sink *sink = domain->machine->sink;

    for (size_t i = 0; i < n;) {
        size_t run = 1;

        while (i + run < n && breaks[i + run].gfn == breaks[i].gfn + run &&
               breaks[i + run].seq == breaks[i].seq + run)
            run++;
        sink->broken(sink->ctx, domain->handle, breaks[i].gfn, run,
                     breaks[i].seq + run - 1);
        i += run;
    }
}

/* One harvest that the host has given up may still be telling; another, or the
 * domain's next life, does not begin before it is over. Telling waits for
 * nothing. */
static void begin_harvest(struct pgshare_mock_domain *domain)
{
    while (atomic_exchange(&domain->harvesting, true))
        sched_yield();
}

void pgs_mock_breaks_forget(struct pgshare_mock_domain *domain)
{
    begin_harvest(domain);
    pthread_mutex_lock(&domain->log_lock);
    atomic_fetch_sub(&domain->machine->unharvested,
                     domain->breaks_n - domain->breaks_first);
    domain->breaks_first = 0;
    domain->breaks_n = 0;
    pthread_mutex_unlock(&domain->log_lock);
    atomic_store(&domain->harvesting, false);
}

/* Tells all breaks so far. Needs no memory. */
void pgs_mock_harvest(struct pgshare_mock_domain *domain)
{
    struct pgs_mock_break breaks[HARVEST_BATCH];
    size_t left;

    begin_harvest(domain);
    pthread_mutex_lock(&domain->log_lock);
    left = domain->breaks_n - domain->breaks_first;
    pthread_mutex_unlock(&domain->log_lock);
    while (left) {
        size_t n = log_take(domain, left < HARVEST_BATCH ? left : HARVEST_BATCH,
                            breaks);

        tell(domain, breaks, n);
        left = n ? left - n : 0;
    }
    atomic_store(&domain->harvesting, false);
}

/* Gives a guest without a host pages of its own for all that it still maps. */
int pgs_mock_privatise(struct pgshare_mock_domain *domain)
{
    for (uint64_t gfn = pgs_mock_next_touched(domain, 0); gfn < domain->gfns;
         gfn = pgs_mock_next_touched(domain, gfn + 1)) {
        uint32_t entry = pgs_mock_lock(domain, gfn);
        bool done = true;

        if (pgs_mock_kind(entry) == KIND_SHARED ||
            pgs_mock_kind(entry) == KIND_ZERO)
            done = break_mapping(domain, gfn, &entry);
        pgs_mock_unlock(domain, gfn, entry);
        if (!done)
            return PGSHARE_ERR_NOFRAME;
    }
    return 0;
}
