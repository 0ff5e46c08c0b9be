/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocation cycle, and the other declarations.
 *
 *            free                scrub
 *   in use ───────→ FREE ───────────────→ FREE|SCRUB
 *      ↑              │ allocated             │ allocated
 *      └──────────────┴───────────────────────┘
 *
 * A declaration is an attribute of the page's word, set and cleared by atomic
 * operations that never wait: an operation that has the page in flight looks
 * at the attributes again when it commits, and rolls back if it may not go on.
 *
 * Only "allocated" needs the page not to be in flight. A page that is free may
 * be on its way to the zero frame, past the point where its content could be
 * had back; the guest may not use it before that has ended. So FREE is cleared
 * by one compare-and-swap from a word without BUSY. A page that is not free is
 * on no such way, and is never waited for. Nor is a hole that is becoming memory:
 * where the guest may have used that already, and we have not heard of it yet,
 * a declaration is to be made again.
 *
 * Pages that become free may be given up for the zero frame; the policy is told
 * of them, and decides.
 *
 * OVERWRITE speaks of the next write. On a page that the guest can write to
 * already, that write is never seen, and the attribute would outlive it and
 * spoil a later, smaller one: it is set only on pages whose next write faults.
 *
 * A secret that is shared already is made private by the runner; what is
 * declared here widens the range that it looks at.
 */
#include "mechanism/cycle.h"

#include "mechanism/ledger.h"
#include "mechanism/page.h"

#define NAP_NS UINT64_C(1000000)
#define IN_CYCLE (PGS_ATTR_FREE | PGS_ATTR_SCRUB)

/* ---- one page ---------------------------------------------------------- */

/* How one page's word is to change: 0, *next set; or an error. */
typedef int (*declaration)(uint64_t word, uint64_t *next);

static int declare(struct pgs_domain *domain, uint64_t gfn, declaration change)
{
    _Atomic uint64_t *at = pgs_word_of(domain, gfn);
    uint64_t word, next;

    if (!at)
        return PGSHARE_ERR_HOLE;
    word = atomic_load_explicit(at, memory_order_acquire);
    do {
        int r;

        if (pgs_word_state(word) == PGS_HOLE)
            return word & PGS_BUSY ? PGSHARE_ERR_INPROGRESS : PGSHARE_ERR_HOLE;
        if (word & PGS_ATTR_READONLY)
            return PGSHARE_ERR_READONLY;
        r = change(word, &next);
        if (r)
            return r;
    } while (word != next &&
             !atomic_compare_exchange_weak_explicit(at, &word, next,
                                                    memory_order_acq_rel,
                                                    memory_order_acquire));
    return 0;
}

static int declare_all(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                       declaration change, uint64_t *ret_done)
{
    uint64_t done = 0;
    int r = 0;

    while (done < count && !r) {
        r = declare(domain, gfn + done, change);
        done += !r;
    }
    if (ret_done)
        *ret_done = done;
    return r;
}

/* ---- the cycle --------------------------------------------------------- */

static int to_free(uint64_t word, uint64_t *next)
{
    *next = (word | PGS_ATTR_FREE) & ~PGS_ATTR_SCRUB;
    return 0;
}

static int to_scrubbed(uint64_t word, uint64_t *next)
{
    if (!(word & PGS_ATTR_FREE))
        return PGSHARE_ERR_STATE;
    *next = word | PGS_ATTR_SCRUB;
    return 0;
}

static int to_used(uint64_t word, uint64_t *next)
{
    if (word & IN_CYCLE && word & PGS_BUSY)
        return PGSHARE_ERR_INPROGRESS;
    *next = word & ~IN_CYCLE;
    return 0;
}

static int to_overwritten(uint64_t word, uint64_t *next)
{
    *next = pgs_word_state(word) == PGS_PRIVATE ? word
                                                : word | PGS_ATTR_OVERWRITE;
    return 0;
}

int pgs_cycle_free(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                   uint64_t *ret_done)
{
    struct pgshare_host *host = domain->host;
    uint64_t done;
    int r = declare_all(domain, gfn, count, to_free, &done);

    if (done && host->freed)
        host->freed(domain, gfn, done);
    if (ret_done)
        *ret_done = done;
    return r;
}

int pgs_cycle_scrub(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                    uint64_t *ret_done)
{
    return declare_all(domain, gfn, count, to_scrubbed, ret_done);
}

int pgs_cycle_allocated(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                        uint64_t *ret_done)
{
    return declare_all(domain, gfn, count, to_used, ret_done);
}

int pgs_cycle_overwrite(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                        uint64_t *ret_done)
{
    return declare_all(domain, gfn, count, to_overwritten, ret_done);
}

/* Sleeps until the page's BUSY may have ended, for NAP_NS at the most. */
static void await(struct pgs_domain *domain, uint64_t gfn)
{
    struct pgs_channel *channel = &domain->host->channel;
    _Atomic uint64_t *at = pgs_word_of(domain, gfn);
    uint32_t seen;

    seen = pgs_channel_prepare(channel);
    if (atomic_fetch_or_explicit(at, PGS_WANTED, memory_order_acquire) &
        PGS_BUSY)
        pgs_channel_wait(channel, seen, NAP_NS);
    else
        pgs_channel_cancel(channel);
}

/* Time is over by the platform's clock, or by the naps that were taken, since
 * a clock may stand still while everybody waits. */
int pgs_cycle_allocated_wait(struct pgs_domain *domain, uint64_t gfn,
                             uint64_t count)
{
    struct pgshare_host *host = domain->host;
    uint64_t timeout = host->options.timeout_ns;
    uint64_t start = 0, slept = 0, done = 0;

    for (;;) {
        uint64_t n;
        int r = pgs_cycle_allocated(domain, gfn + done, count - done, &n);

        done += n;
        if (r != PGSHARE_ERR_INPROGRESS || slept >= timeout)
            return r;
        if (!slept)
            start = pgs_now(&host->platform);
        else if (pgs_now(&host->platform) - start >= timeout)
            return r;
        pgs_host_poll_backend(host);
        await(domain, gfn + done);
        slept += NAP_NS;
    }
}

/* ---- volatile pages ---------------------------------------------------- */

static int fifo_all(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                    int (*one)(struct pgs_domain *domain, uint32_t page),
                    uint64_t *ret_done)
{
    uint64_t done = 0;
    int r = 0;

    while (done < count && !r) {
        uint32_t page = pgs_page_of(domain, gfn + done);

        r = page == PGS_PAGE_NONE ? PGSHARE_ERR_STATE : one(domain, page);
        done += !r;
    }
    if (ret_done)
        *ret_done = done;
    return r;
}

int pgs_cycle_push(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                   uint64_t *ret_done)
{
    return fifo_all(domain, gfn, count, pgs_volatile_push, ret_done);
}

int pgs_cycle_withdraw(struct pgs_domain *domain, uint64_t gfn, uint64_t count,
                       uint64_t *ret_done)
{
    return fifo_all(domain, gfn, count, pgs_volatile_withdraw, ret_done);
}

/* ---- secrets ----------------------------------------------------------- */

/* What is there to be undone about a page that has just become a secret? */
static void count_left(uint64_t word, struct pgshare_never_share *left)
{
    if (word & PGS_BUSY)
        left->in_flight++;
    else if (pgs_word_state(word) == PGS_SHARED)
        left->shared++;
    else if (pgs_word_state(word) == PGS_PROTECTED)
        left->marked++;
}

int pgs_cycle_never_share(struct pgs_domain *domain, uint64_t gfn,
                          uint64_t count, bool on,
                          struct pgshare_never_share *ret, uint64_t *ret_done)
{
    struct pgshare_never_share left = { .size = sizeof(left) };
    uint64_t i;
    int r = 0;

    for (i = 0; i < count; i++) {
        _Atomic uint64_t *at = pgs_word_of(domain, gfn + i);

        if (!at && on) {
            r = PGSHARE_ERR_HOLE;
            break;
        }
        if (!at)
            continue;
        if (on)
            count_left(atomic_fetch_or_explicit(at, PGS_ATTR_NEVER,
                                                memory_order_acq_rel),
                       &left);
        else
            atomic_fetch_and_explicit(at, ~PGS_ATTR_NEVER,
                                      memory_order_acq_rel);
    }
    if (left.shared || left.in_flight || left.marked) {
        pgs_undo_widen(domain, gfn, gfn + count);
        pgs_wake(domain->host);
    }
    *ret = left;
    if (ret_done)
        *ret_done = i;
    return r;
}

/* ---- read-only memory -------------------------------------------------- */

enum { READONLY_ON = 1 };
#define TAKE_BACK_TRIES 3

static void unlock_pages(struct pgs_call *call, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        pgs_page_unlock(call->host, call->page + (uint32_t)i);
}

/* What failed may have been done, its answer lost: a page that traps for good
 * and is not known to be read-only would never be written again. */
static enum pgs_verdict take_back(struct pgs_call *call)
{
    struct pgshare_op op = {
        .kind = PGSHARE_OP_READ_ONLY,
        .flags = PGSHARE_OP_OFF,
        .domain = call->domain->cookie,
        .count = 1,
    };

    if (call->op.flags & PGSHARE_OP_OFF && call->status[0] &&
        call->tries++ < TAKE_BACK_TRIES)
        call->intent--; /* once more */
    for (; call->intent < call->count; call->intent++) {
        uint32_t page = call->page + call->intent;

        if (atomic_load_explicit(pgs_word_at(&call->host->chunks, page),
                                 memory_order_relaxed) &
            PGS_ATTR_READONLY)
            continue;
        op.gfn = call->gfn + call->intent++;
        return pgs_call_submit(call, &op, take_back);
    }
    unlock_pages(call, call->count);
    return PGS_DONE;
}

static enum pgs_verdict readonly_answered(struct pgs_call *call)
{
    for (uint32_t i = 0; i < call->op.count; i++) {
        _Atomic uint64_t *at = pgs_word_at(&call->host->chunks, call->page + i);

        if (call->status[i]) {
            if (!call->result)
                call->result = call->status[i];
            continue;
        }
        if (call->flags & READONLY_ON)
            atomic_fetch_or_explicit(at, PGS_ATTR_READONLY,
                                     memory_order_release);
        else
            atomic_fetch_and_explicit(at, ~PGS_ATTR_READONLY,
                                      memory_order_release);
        call->done++;
    }
    if (call->result && call->flags & READONLY_ON)
        return take_back(call);
    unlock_pages(call, call->count);
    return PGS_DONE;
}

static int may_be_readonly(const struct pgs_call *call, uint64_t word)
{
    if (pgs_word_state(word) == PGS_HOLE)
        return PGSHARE_ERR_HOLE;
    if (!(call->flags & READONLY_ON))
        return 0;
    if (word & (PGS_ATTR_VOLATILE | PGS_ATTR_HELD_WRITE))
        return PGSHARE_ERR_BUSY;
    return word & IN_CYCLE ? PGSHARE_ERR_STATE : 0;
}

static enum pgs_verdict readonly(struct pgs_call *call)
{
    struct pgs_domain *domain = call->domain;
    struct pgshare_op op = {
        .kind = PGSHARE_OP_READ_ONLY,
        .flags = call->flags & READONLY_ON ? 0 : PGSHARE_OP_OFF,
        .domain = domain->cookie,
        .gfn = call->gfn,
        .count = (uint32_t)call->count,
    };

    for (uint32_t i = 0; i < call->count; i++) {
        uint64_t word;
        bool ours = pgs_word_trylock(pgs_word_at(&call->host->chunks,
                                                 call->page + i),
                                     false, &word);

        call->result = ours ? may_be_readonly(call, word) : PGSHARE_ERR_BUSY;
        if (call->result) {
            unlock_pages(call, i + ours);
            return PGS_DONE;
        }
    }
    return pgs_call_submit(call, &op, readonly_answered);
}

static void finish(struct pgs_call *call)
{
    (void)call;
}

struct pgs_call *pgs_readonly_take(struct pgs_domain *domain, uint64_t gfn,
                                   uint32_t count, bool on)
{
    struct pgs_call *call = pgs_call_take(domain->host, domain, readonly);

    assert(count <= PGS_INLINE);
    if (!call)
        return NULL;
    call->flags = on ? READONLY_ON : 0;
    call->finish = finish;
    call->gfn = gfn;
    call->count = count;
    call->page = pgs_page_of(domain, gfn);
    return call;
}
