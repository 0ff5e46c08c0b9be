/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains: their page tables, their life, and their being in a host.
 *
 * A p2m is one flat table, reserved at once and backed by the kernel as
 * entries become other than zero. For walks `touched` has a byte per 1024
 * GFNs, so that those of a terabyte that nobody wrote to are skipped.
 *
 * A domain lives apart from its being in a host. When it leaves (or the host
 * goes), it keeps its content: frames that it still maps are *orphans*, which
 * the machine itself keeps until the last such mapping is written or gone.
 */
#include "machine.h"

#include "base/abi.h"

#include <pgshare/domain.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GFNS_MAX ((uint64_t)1 << 32)
#define TOUCH_SHIFT 10
#define SPINS_BEFORE_YIELD 64u

void pgs_mock_lock_slow(_Atomic uint32_t *lock)
{
    unsigned spins = 0;

    for (;;) {
        uint32_t value = atomic_load_explicit(lock, memory_order_relaxed);

        if (!(value & ENTRY_LOCK) &&
            atomic_compare_exchange_weak_explicit(lock, &value,
                                                  value | ENTRY_LOCK,
                                                  memory_order_acquire,
                                                  memory_order_relaxed))
            return;
        if (++spins % SPINS_BEFORE_YIELD == 0)
            sched_yield();
    }
}

void *pgs_mock_domain_cookie(const struct pgshare_mock_domain *domain)
{
    uintptr_t generation = domain->machine->generations[domain->slot];

    return (void *)(generation << SLOT_BITS | (domain->slot + 1));
}

void pgs_mock_touch(struct pgshare_mock_domain *domain, uint64_t gfn)
{
    _Atomic uint8_t *touched = &domain->touched[gfn >> TOUCH_SHIFT];

    if (!atomic_load_explicit(touched, memory_order_relaxed))
        atomic_store_explicit(touched, 1, memory_order_relaxed);
}

/* The first GFN from `gfn` on whose entry may be other than DEFAULT. */
uint64_t pgs_mock_next_touched(const struct pgshare_mock_domain *domain,
                               uint64_t gfn)
{
    while (gfn < domain->gfns &&
           !atomic_load_explicit(&domain->touched[gfn >> TOUCH_SHIFT],
                                 memory_order_relaxed))
        gfn = ((gfn >> TOUCH_SHIFT) + 1) << TOUCH_SHIFT;
    return gfn < domain->gfns ? gfn : domain->gfns;
}

static void *reserve_table(uint64_t bytes)
{
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return table == MAP_FAILED ? NULL : table;
}

static uint64_t touched_size(const struct pgshare_mock_domain *domain)
{
    return (domain->gfns >> TOUCH_SHIFT) + 1;
}

static int find_slot(struct pgshare_mock_machine *machine, uint32_t *ret_slot)
{
    for (uint32_t i = 0; i < machine->slots_used; i++)
        if (!machine->slots[i]) {
            *ret_slot = i;
            return 0;
        }
    if (machine->slots_used == DOMAINS_MAX)
        return PGSHARE_ERR_FULL;
    *ret_slot = machine->slots_used++;
    return 0;
}

static void domain_destroy(struct pgshare_mock_domain *domain)
{
    if (domain->p2m)
        munmap(domain->p2m, domain->gfns * sizeof(*domain->p2m));
    if (domain->touched)
        munmap(domain->touched, touched_size(domain));
    pthread_mutex_destroy(&domain->log_lock);
    free(domain->breaks);
    free(domain);
}

static struct pgshare_mock_domain *domain_make(
    struct pgshare_mock_machine *machine, uint64_t gfns,
    const struct pgshare_mock_domain_options *options)
{
    struct pgshare_mock_domain *domain;

    if (posix_memalign((void **)&domain, _Alignof(struct pgshare_mock_domain),
                       sizeof(*domain)))
        return NULL;
    memset(domain, 0, sizeof(*domain));
    domain->machine = machine;
    domain->gfns = gfns;
    domain->domid = options->domid;
    atomic_init(&domain->seq, 1);
    domain->generation = options->generation ? options->generation : 1;
    domain->sparse = options->flags & PGSHARE_MOCK_SPARSE;
    domain->direct = options->flags & PGSHARE_MOCK_DIRECT;
    domain->enlightened = options->flags & PGSHARE_MOCK_ENLIGHTENED;
    domain->content = options->content;
    domain->content_ctx = options->ctx;
    domain->parked_last = &domain->parked_first;
    domain->dropped_last = &domain->dropped_first;
    pthread_mutex_init(&domain->log_lock, NULL);
    domain->p2m = reserve_table(gfns * sizeof(*domain->p2m));
    domain->touched = reserve_table(touched_size(domain));
    if (!domain->p2m || !domain->touched) {
        domain_destroy(domain);
        return NULL;
    }
    return domain;
}

int pgshare_mock_domain_new(struct pgshare_mock_machine *machine, uint64_t gfns,
                            const struct pgshare_mock_domain_options *options,
                            struct pgshare_mock_domain **ret_domain)
{
    const uint32_t all_flags = PGSHARE_MOCK_DIRECT | PGSHARE_MOCK_SPARSE |
                               PGSHARE_MOCK_ENLIGHTENED;
    struct pgshare_mock_domain_options ours = { 0 };
    struct pgshare_mock_domain *domain;
    uint32_t slot = 0;
    int error;

    if (!machine || !ret_domain || !gfns || gfns > GFNS_MAX)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (error)
        return error;
    if (ours.flags & ~all_flags)
        return PGSHARE_ERR_INVALID;
    if (!ours.domid)
        ours.domid = ++machine->next_domid;
    domain = domain_make(machine, gfns, &ours);
    if (!domain)
        return PGSHARE_ERR_NOMEM;
    error = find_slot(machine, &slot);
    if (!error && domain->sparse && !pgs_mock_free_charge(machine, gfns))
        error = PGSHARE_ERR_NOFRAME;
    if (error) {
        domain_destroy(domain);
        return error;
    }
    if (domain->sparse)
        atomic_fetch_add(&machine->sparse, gfns);
    domain->slot = slot;
    machine->slots[slot] = domain;
    *ret_domain = domain;
    return 0;
}

struct pgshare_mock_domain *pgshare_mock_domain_free(
    struct pgshare_mock_domain *domain)
{
    struct pgshare_mock_machine *machine;
    struct pgs_mock_give_back back = { .n = 0 };

    if (!domain)
        return NULL;
    machine = domain->machine;
    if (domain->handle)
        pgs_mock_violate(machine, "domain %u is destroyed within its host",
                         domain->domid);
    while (domain->kernels)
        pgshare_mock_kernel_free(domain->kernels);
    pgs_mock_parked_drop(domain);
    pgs_mock_dropped_forget(domain);
    pgs_mock_overlays_free(domain);
    if (domain->sparse) {
        /* Those that were never touched are counted only. */
        uint64_t untouched = 0;

        for (uint64_t i = 0; i < touched_size(domain) - 1; i++)
            if (!domain->touched[i])
                untouched += (uint64_t)1 << TOUCH_SHIFT;
        if (!domain->touched[touched_size(domain) - 1])
            untouched += domain->gfns & (((uint64_t)1 << TOUCH_SHIFT) - 1);
        atomic_fetch_sub(&machine->sparse, untouched);
        pgs_mock_free_uncharge(machine, untouched);
    }
    for (uint64_t gfn = pgs_mock_next_touched(domain, 0); gfn < domain->gfns;
         gfn = pgs_mock_next_touched(domain, gfn + 1))
        pgs_mock_empty_entry(domain, domain->p2m[gfn] & ~ENTRY_LOCK, &back);
    pgs_mock_give_back_flush(machine, &back);
    machine->slots[domain->slot] = NULL;
    machine->generations[domain->slot]++;
    domain_destroy(domain);
    return NULL;
}

uint64_t pgshare_mock_handle(const struct pgshare_mock_domain *domain)
{
    return domain ? atomic_load(&domain->handle) : 0;
}

void *pgshare_mock_attach(struct pgshare_mock_domain *domain)
{
    return domain;
}

/* Tells the host of the runs of populated pages. */
static int declare_ram(struct pgshare_mock_domain *domain, uint64_t handle)
{
    struct pgshare_host *host = domain->machine->host;
    uint64_t gfn = domain->sparse ? 0 : pgs_mock_next_touched(domain, 0);

    while (gfn < domain->gfns) {
        uint64_t end = gfn;
        int error;

        while (end < domain->gfns &&
               !pgs_mock_is_hole(domain, domain->p2m[end]))
            end++;
        error = end > gfn ? pgshare_domain_ram_add(host, handle, gfn, end - gfn)
                          : 0;
        if (error)
            return error;
        gfn = end + 1;
        if (!domain->sparse)
            gfn = pgs_mock_next_touched(domain, gfn);
    }
    return 0;
}

int pgshare_mock_join(struct pgshare_mock_domain *domain,
                      struct pgshare_host *host, uint64_t group)
{
    struct pgshare_domain_options options = { .size = sizeof(options) };
    uint64_t handle;
    int error;

    if (!domain || !host || host != domain->machine->host)
        return PGSHARE_ERR_INVALID;
    if (domain->handle)
        return PGSHARE_ERR_EXISTS;
    error = pgs_mock_privatise(domain);
    if (error)
        return error;
    options.domid = domain->domid;
    options.generation = domain->generation;
    options.gfns = domain->gfns;
    options.group = group;
    options.attach = domain;
    error = pgshare_domain_add(host, &options, &handle);
    if (error)
        return error;
    error = declare_ram(domain, handle);
    if (error)
        pgshare_domain_remove(host, handle);
    return error;
}

int pgshare_mock_leave(struct pgshare_mock_domain *domain)
{
    uint64_t handle = pgshare_mock_handle(domain);

    if (!handle)
        return PGSHARE_ERR_STATE;
    return pgshare_domain_remove(domain->machine->host, handle);
}

/* The host's frames that the domain maps are not the host's to count any
 * more; its content stays as it is. */
void pgs_mock_domain_orphan(struct pgshare_mock_domain *domain)
{
    struct pgshare_mock_machine *machine = domain->machine;

    if (domain->removed)
        return;
    for (uint64_t gfn = pgs_mock_next_touched(domain, 0); gfn < domain->gfns;
         gfn = pgs_mock_next_touched(domain, gfn + 1)) {
        uint32_t entry = pgs_mock_lock(domain, gfn);
        uint32_t frame = entry & ENTRY_FRAME;

        switch (pgs_mock_kind(entry)) {
        case KIND_SHARED:
            atomic_fetch_add_explicit(&machine->orphans[frame], 1,
                                      memory_order_relaxed);
            break;
        case KIND_PROTECTED:
            pgs_mock_frame_plain(machine, frame);
            entry = pgs_mock_entry(entry, KIND_PRIVATE, frame);
            break;
        case KIND_SPARSE_PROTECTED:
            entry = pgs_mock_entry(entry, KIND_DEFAULT, 0);
            break;
        default:
            break;
        }
        pgs_mock_unlock(domain, gfn, entry & ~ENTRY_READ_ONLY);
    }
    domain->removed = true;
}
