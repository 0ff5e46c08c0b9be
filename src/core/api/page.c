/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults, gets and puts, and unsharing: the calls that make one page private.
 */
#include "api/visit.h"
#include "mechanism/fault.h"
#include "mechanism/hold.h"
#include "mechanism/page.h"
#include "policy/scan.h"

#include <pgshare/fault.h>
#include <pgshare/gfn.h>
#include <pgshare/share.h>

/* ---- the fault --------------------------------------------------------- */

static void answer_fault(struct pgshare_fault *ret_fault, uint32_t outcome,
                         uint32_t payer)
{
    struct pgshare_fault fault = {
        .size = sizeof(fault),
        .outcome = outcome,
        .payer = payer,
    };

    pgs_abi_out(ret_fault, &fault, sizeof(fault));
}

static int fault_slowly(struct pgs_visit *visit, uint32_t page, uint64_t gfn,
                        uint32_t flags, struct pgshare_call *ours,
                        struct pgshare_fault *ret_fault)
{
    struct pgs_call *call = pgs_fault_take(
        visit->domain, page, PGSHARE_OUTCOME_FAULT,
        flags & PGSHARE_FAULT_WHOLE_PAGE ? PGS_FAULT_WHOLE : 0);
    int r;

    if (!call)
        return PGSHARE_ERR_BUSY;
    call->gfn = gfn;
    call->count = 1;
    if (!pgs_visit_drive(call, ours))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    if (!r)
        answer_fault(ret_fault, call->outcome, call->payer);
    pgs_call_give(call);
    return r;
}

static int fault(struct pgs_visit *visit, uint64_t gfn, uint32_t flags,
                 struct pgshare_call *ours, struct pgshare_fault *ret_fault)
{
    uint32_t page = pgs_page_of(visit->domain, gfn);
    uint64_t word;

    if (page == PGS_PAGE_NONE)
        return PGSHARE_ERR_HOLE;
    word = atomic_load_explicit(pgs_word_at(&visit->host->chunks, page),
                                memory_order_acquire);
    if (!pgs_fault_is_spurious(visit->domain, word))
        return fault_slowly(visit, page, gfn, flags, ours, ret_fault);
    pgs_count(&visit->host->shards, PGS_COUNT_FAULT + PGSHARE_FAULT_SPURIOUS,
              1);
    answer_fault(ret_fault, PGSHARE_FAULT_SPURIOUS, PGSHARE_PAID_NOTHING);
    return 0;
}

int pgshare_fault_write(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                        uint32_t flags, struct pgshare_call *theirs,
                        struct pgshare_fault *ret_fault)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, 1);

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r && flags & ~PGSHARE_FAULT_WHOLE_PAGE)
        r = PGSHARE_ERR_INVALID;
    if (!r)
        r = pgs_abi_check_out(ret_fault, sizeof(*ret_fault));
    if (!r)
        r = fault(&visit, gfn, flags, &ours, ret_fault);
    ours.done = !r;
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r);
}

/* ---- gets and puts ----------------------------------------------------- */

/* A hold that needs no page made private: for reading. */
static int hold_for_reading(struct pgs_visit *visit, uint32_t page)
{
    _Atomic uint64_t *at = pgs_word_at(&visit->host->chunks, page);
    uint64_t word;
    int r = PGSHARE_ERR_HOLE;

    if (!pgs_word_trylock(at, true, &word))
        return PGSHARE_ERR_BUSY;
    if (pgs_word_state(word) != PGS_HOLE)
        r = pgs_hold_add(visit->host, page, PGSHARE_GET_READ);
    pgs_page_unlock(visit->host, page);
    return r;
}

static int get(struct pgs_visit *visit, uint64_t gfn, uint32_t intent,
               struct pgshare_call *ours)
{
    uint32_t page = pgs_page_of(visit->domain, gfn);
    uint32_t flags = intent == PGSHARE_GET_OVERWRITE ? PGS_FAULT_WHOLE : 0;
    struct pgs_call *call;
    int r = PGSHARE_ERR_BUSY;

    if (page == PGS_PAGE_NONE)
        return PGSHARE_ERR_HOLE;
    if (intent == PGSHARE_GET_READ)
        r = hold_for_reading(visit, page);
    if (r != PGSHARE_ERR_BUSY)
        return r;
    call = pgs_fault_take(visit->domain, page, PGSHARE_OUTCOME_GET,
                          flags | PGS_FAULT_UNDO);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->gfn = gfn;
    call->count = 1;
    call->intent = intent;
    if (!pgs_visit_drive(call, ours))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result;
    pgs_call_give(call);
    return r;
}

int pgshare_gfn_get(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                    uint64_t count, uint32_t intent,
                    struct pgshare_call *theirs)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count), first = 0;

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    if (!r && (intent < PGSHARE_GET_READ || intent > PGSHARE_GET_OVERWRITE))
        r = PGSHARE_ERR_INVALID;
    for (uint64_t i = 0; !r && i < count; i++)
        r = pgs_visit_note(&ours, i, get(&visit, gfn + i, intent, &ours),
                           &first);
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r ? r : first);
}

static int put(struct pgs_domain *domain, uint32_t page, uint32_t intent)
{
    int r = pgs_hold_drop(domain->host, page, intent);
    uint64_t word = atomic_load(pgs_word_at(&domain->host->chunks, page));

    if (!r && !(word & PGS_ATTR_HELD))
        pgs_scan_put(domain, page);
    return r;
}

int pgshare_gfn_put(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                    uint64_t count, uint32_t intent)
{
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count);

    if (r)
        return r;
    if (intent < PGSHARE_GET_READ || intent > PGSHARE_GET_OVERWRITE)
        r = PGSHARE_ERR_INVALID;
    for (uint64_t i = 0; !r && i < count; i++) {
        uint32_t page = pgs_page_of(visit.domain, gfn + i);

        r = page == PGS_PAGE_NONE ? PGSHARE_ERR_STATE
                                  : put(visit.domain, page, intent);
    }
    return pgs_visit_end(&visit, r);
}

/* ---- unshare ----------------------------------------------------------- */

static int unshare_one(struct pgs_visit *visit, uint64_t gfn,
                   struct pgshare_call *ours)
{
    uint64_t word = pgs_word_peek(visit->domain, gfn);
    struct pgs_call *call;
    int r;

    if (pgs_word_state(word) != PGS_SHARED && !(word & PGS_BUSY))
        return 0;
    call = pgs_fault_take(visit->domain, pgs_page_of(visit->domain, gfn),
                          PGSHARE_OUTCOME_UNSHARE,
                          PGS_FAULT_UNDO | PGS_FAULT_FORCE);
    if (!call)
        return PGSHARE_ERR_BUSY;
    call->gfn = gfn;
    call->count = 1;
    if (!pgs_visit_drive(call, ours))
        return PGSHARE_ERR_INPROGRESS;
    r = call->result == PGSHARE_ERR_HOLE ? 0 : call->result;
    pgs_call_give(call);
    return r;
}

int pgshare_unshare(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                    uint64_t count, struct pgshare_call *theirs)
{
    struct pgshare_call ours;
    struct pgs_visit visit;
    int r = pgs_visit_range(&visit, host, dom, gfn, count), first = 0;

    if (r)
        return r;
    r = pgs_visit_call(&visit, &ours, theirs);
    for (uint64_t i = 0; !r && i < count; i++)
        r = pgs_visit_note(&ours, i, unshare_one(&visit, gfn + i, &ours), &first);
    pgs_visit_report(&ours, theirs);
    return pgs_visit_end(&visit, r ? r : first);
}
