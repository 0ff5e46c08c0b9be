/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vCPUs that stand still: writes whose fault could not be resolved at once.
 *
 * A domain's parked writes are a queue, and are done in its order. Each poll
 * tries the oldest: at once where the page has become writable, and by a new
 * fault every PATIENCE polls, so that waiting costs the library little. A
 * write that found no memory raises a demand first.
 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

/* Polls between two faults of one parked write. */
#define PATIENCE 16u

/* Raises a demand for a write that found no memory. Returns its cookie, or 0
 * where too many wait. */
static uint64_t raise_demand(struct pgshare_mock_domain *domain, uint64_t gfn)
{
    struct pgshare_mock_machine *machine = domain->machine;
    uint64_t handle = atomic_load(&domain->handle);
    uint64_t cookie;

    if (!machine->platform_cow || !handle)
        return 0;
    pthread_mutex_lock(&domain->log_lock);
    if (!++domain->next_demand)
        domain->next_demand = 1;
    cookie = (uint64_t)domain->slot << 32 | domain->next_demand;
    pthread_mutex_unlock(&domain->log_lock);
    if (machine->sink->demand(machine->sink->ctx, handle, gfn, cookie))
        return 0;
    atomic_fetch_add(&machine->demands, 1);
    return cookie;
}

int pgs_mock_park(struct pgshare_mock_domain *domain, uint64_t gfn,
                  uint32_t offset, const void *bytes, uint32_t len)
{
    struct pgs_mock_parked *parked = malloc(sizeof(*parked) + len);

    if (!parked)
        return PGSHARE_ERR_NOMEM;
    *parked = (struct pgs_mock_parked){
        .gfn = gfn, .offset = offset, .len = len, .patience = 1
    };
    memcpy(parked->bytes, bytes, len);
    pthread_mutex_lock(&domain->log_lock);
    *domain->parked_last = parked;
    domain->parked_last = &parked->next;
    pthread_mutex_unlock(&domain->log_lock);
    atomic_fetch_add(&domain->machine->parked, 1);
    return PGSHARE_ERR_INPROGRESS;
}

bool pgs_mock_is_parked(struct pgshare_mock_domain *domain)
{
    bool parked;

    if (!atomic_load_explicit(&domain->machine->parked, memory_order_acquire))
        return false;
    pthread_mutex_lock(&domain->log_lock);
    parked = domain->parked_first;
    pthread_mutex_unlock(&domain->log_lock);
    return parked;
}

static bool is_writable(struct pgshare_mock_domain *domain, uint64_t gfn)
{
    uint32_t entry = atomic_load(&domain->p2m[gfn]);

    return !(entry & ENTRY_READ_ONLY) && pgs_mock_is_private(domain, entry);
}

/* Tries the oldest write of a domain. Returns whether it is over with. */
static bool parked_try(struct pgshare_mock_domain *domain,
                       struct pgs_mock_parked *parked)
{
    struct pgshare_mock_machine *machine = domain->machine;
    int error;

    if (parked->killed) {
        atomic_fetch_add(&machine->killed, 1);
        return true;
    }
    if (!is_writable(domain, parked->gfn)) {
        if (parked->patience-- > 1)
            return false;
        parked->patience = PATIENCE;
    }
    atomic_fetch_add(&machine->retries, 1);
    error = pgs_mock_write_part(domain, parked->gfn, parked->offset,
                                parked->bytes, parked->len, 0);
    if (error == PGSHARE_ERR_NOFRAME && !parked->cookie)
        parked->cookie = raise_demand(domain, parked->gfn);
    if (error == PGSHARE_ERR_NOFRAME || error == PGSHARE_ERR_INPROGRESS)
        return false;
    pgs_mock_count_dropped(machine, error);
    if (error && error != PGSHARE_ERR_READONLY)
        atomic_fetch_add(&machine->killed, 1);
    return true;
}

/* Does what has waited, in order, as far as it goes. */
void pgs_mock_parked_run(struct pgshare_mock_domain *domain)
{
    struct pgs_mock_parked *parked;

    pthread_mutex_lock(&domain->log_lock);
    if (domain->draining) {
        pthread_mutex_unlock(&domain->log_lock);
        return;
    }
    domain->draining = true;
    while ((parked = domain->parked_first)) {
        bool over;

        pthread_mutex_unlock(&domain->log_lock);
        over = parked_try(domain, parked);
        pthread_mutex_lock(&domain->log_lock);
        if (!over)
            break;
        domain->parked_first = parked->next;
        if (!parked->next)
            domain->parked_last = &domain->parked_first;
        free(parked);
        atomic_fetch_sub(&domain->machine->parked, 1);
    }
    domain->draining = false;
    pthread_mutex_unlock(&domain->log_lock);
}

/* The demand of a parked write has been answered. */
void pgs_mock_parked_answer(struct pgshare_mock_domain *domain, uint64_t cookie,
                            bool paid)
{
    struct pgs_mock_parked *parked;

    pthread_mutex_lock(&domain->log_lock);
    for (parked = domain->parked_first; parked; parked = parked->next)
        if (parked->cookie == cookie) {
            parked->cookie = 0;
            parked->patience = 1;
            parked->killed = !paid;
        }
    pthread_mutex_unlock(&domain->log_lock);
}

/* The guest is gone, and with it what it wanted to write. */
void pgs_mock_parked_drop(struct pgshare_mock_domain *domain)
{
    while (domain->parked_first) {
        struct pgs_mock_parked *parked = domain->parked_first;

        domain->parked_first = parked->next;
        free(parked);
        atomic_fetch_sub(&domain->machine->parked, 1);
    }
    domain->parked_last = &domain->parked_first;
}
