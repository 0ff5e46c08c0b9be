/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Declarations, and the ledger.
 */
#include "world.h"

#include <inttypes.h>

static unsigned number(const struct world *w, const struct guest *g)
{
    return (unsigned)(g - w->guests);
}

static bool may_declare(struct world *w, const struct record *r)
{
    return op_is_in(r->guest) && !r->guest->stub && !r->guest->dead &&
           op_may_use(w, r, r->count);
}

/* What a declaration may answer for want of memory or permission. */
static uint64_t cycle_errors(const struct record *r)
{
    uint64_t legal = 0;

    for (uint32_t i = 0; i < r->count; i++) {
        uint32_t flags = r->guest->pages[r->at + i].flags;

        if (!(flags & P_PRESENT) ||
            flags & (P_MAYBE | P_VOLATILE | P_RECLAIMED | P_GOING))
            legal |= E(HOLE) | E(INPROGRESS);
        if (flags & (P_READ_ONLY | P_READ_ONLY_MAYBE))
            legal |= E(READONLY);
    }
    return legal;
}

void op_free(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!may_declare(w, r))
        return;
    world_say(w, "free %u:%" PRIu64 "+%u", number(w, g), op_gfn(r), r->count);
    /* those before an error are free */
    for (uint32_t i = 0; i < r->count; i++) {
        struct page *page = &g->pages[r->at + i];

        if (!(page->flags & P_READ_ONLY)) {
            page->flags |= P_FREE;
            page->freed = ++w->serial;
        }
    }
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_free(w->host, g->dom, op_gfn(r), r->count);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, cycle_errors(r));
}

void op_scrub(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!may_declare(w, r))
        return;
    world_say(w, "declare scrub %u:%" PRIu64 "+%u", number(w, g), op_gfn(r),
              r->count);
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_scrub(w->host, g->dom, op_gfn(r), r->count);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, cycle_errors(r) | E(STATE));
    for (uint32_t i = 0; !error && i < r->count; i++)
        if (!(g->pages[r->at + i].flags & P_FREE))
            world_fail(w, "scrubbed what is not free");
}

void op_allocated(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!may_declare(w, r))
        return;
    world_say(w, "allocated %u:%" PRIu64 "+%u", number(w, g), op_gfn(r),
              r->count);
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_allocated(w->host, g->dom, op_gfn(r), r->count);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, cycle_errors(r) | E(INPROGRESS));
    for (uint32_t i = 0; !error && i < r->count; i++) {
        struct page *page = &g->pages[r->at + i];

        /* a request in the ring may still say that it is free */
        if (!(page->flags & P_FREE) || g->ring_open)
            continue;
        page->flags &= ~(uint32_t)P_FREE;
        page->flags |= P_LOOSE;
    }
}

void op_overwrite(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!may_declare(w, r) || g->frozen)
        return;
    world_say(w, "overwrite %u:%" PRIu64 "+%u", number(w, g), op_gfn(r),
              r->count);
    for (uint32_t i = 0; i < r->count; i++)
        if (!(g->pages[r->at + i].flags & P_READ_ONLY))
            g->pages[r->at + i].flags |= P_OVER;
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_overwrite(w->host, g->dom, op_gfn(r), r->count);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, cycle_errors(r));
}

/* ---- volatile pages ---------------------------------------------------- */

void op_volatile(struct world *w, const struct record *r)
{
    struct pgshare_call call = { .size = sizeof(call) };
    struct guest *g = r->guest;
    int error;

    if (!may_declare(w, r))
        return;
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_volatile(w->host, g->dom, op_gfn(r), r->count,
                                     &call);
    op_mine(w, NULL, 0, 0);
    world_say(w, "volatile %u:%" PRIu64 "+%u: %s, %" PRIu64, number(w, g),
              op_gfn(r), r->count, pgshare_error_name(error), call.done);
    world_expect(w, error, E(STATE) | E(BUSY) | E(NOMEM));
    for (uint32_t i = 0; i < call.done; i++) {
        struct page *page = &g->pages[r->at + i];
        struct pgshare_gfn_info info = check_info(w, g, r->at + i);

        if (!(page->flags & (P_PRESENT | P_MAYBE)))
            world_fail(w, "a hole is volatile");
        if (page->flags & P_READ_ONLY)
            world_fail(w, "a read-only page is volatile");
        if (model_is_held(w, g, op_gfn(r) + i, false))
            world_fail(w, "a held page is volatile");
        if (op_is_calm(w) && !(info.flags & PGSHARE_GFN_VOLATILE))
            world_fail(w, "pushed, but not in the FIFO");
        page->flags |= P_VOLATILE;
        page->pushed = ++w->serial;
    }
}

static void withdrawn(struct world *w, const struct record *r, uint32_t i,
                      int error)
{
    struct guest *g = r->guest;
    struct page *page = &g->pages[r->at + i];

    if (error == PGSHARE_ERR_RECLAIMED &&
        !(page->flags & (P_VOLATILE | P_RECLAIMED)))
        world_fail(w, "reclaimed, but never volatile");
    if (error)
        return;
    if (!(page->flags & P_VOLATILE))
        world_fail(w, "withdrawn, but was not in the FIFO");
    /* a request in the ring may push it again */
    if (!g->ring_open)
        page->flags &= ~(uint32_t)P_VOLATILE;
    check_page(w, g, r->at + i, false);
}

void op_withdraw(struct world *w, const struct record *r)
{
    struct pgshare_account account = { .size = sizeof(account) };
    struct guest *g = r->guest;
    int8_t results[PAGES];
    struct pgshare_call call = { .size = sizeof(call), .results = results };
    int error;

    if (!may_declare(w, r))
        return;
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_withdraw(w->host, g->dom, op_gfn(r), r->count,
                                     &call);
    op_mine(w, NULL, 0, 0);
    world_say(w, "withdraw %u:%" PRIu64 "+%u: %s, %" PRIu64, number(w, g),
              op_gfn(r), r->count, pgshare_error_name(error), call.done);
    world_expect(w, error, E(RECLAIMED) | E(STATE) | E(OWED) | E(BUSY));
    for (uint32_t i = 0; i < r->count; i++)
        withdrawn(w, r, i, results[i]);
    if (!pgshare_account(w->host, g->dom, &account) &&
        account.fifo < (account.service ? 0 : account.claimed) +
                           account.secures)
        world_fail(w, "withdrew what it owes");
}

/* ---- secrets and read-only ranges -------------------------------------- */

void op_never(struct world *w, const struct record *r)
{
    struct pgshare_never_share left = { .size = sizeof(left) };
    struct guest *g = r->guest;
    int on = r->b % 3 != 0;

    if (!may_declare(w, r))
        return;
    world_say(w, "never-share %u:%" PRIu64 "+%u %s", number(w, g), op_gfn(r),
              r->count, on ? "on" : "off");
    world_expect(w, pgshare_declare_never_share(w->host, g->dom, op_gfn(r),
                                                r->count, on, &left),
                 0);
    if (left.shared + left.in_flight + left.marked > r->count ||
        (!on && left.shared + left.in_flight + left.marked))
        world_fail(w, "more is left than was asked for");
    for (uint32_t i = 0; i < r->count; i++) {
        struct page *page = &g->pages[r->at + i];

        page->flags &= ~(uint32_t)P_NEVER;
        if (on && page->flags & P_PRESENT)
            page->flags |= P_NEVER;
    }
}

void op_read_only(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int on = r->b % 3 != 0, error;

    if (!may_declare(w, r) || w->in_hook || g->frozen)
        return;
    world_say(w, "read-only %u:%" PRIu64 "+%u %s", number(w, g), op_gfn(r),
              r->count, on ? "on" : "off");
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_declare_read_only(w->host, g->dom, op_gfn(r), r->count,
                                      on);
    op_mine(w, NULL, 0, 0);
    world_say(w, "  %s", pgshare_error_name(error));
    world_expect(w, error, E(BUSY) | E(STATE) | E(HOLE) | E(INPROGRESS));
    for (uint32_t i = 0; i < r->count; i++) {
        struct page *page = &g->pages[r->at + i];
        bool was = page->flags & (P_READ_ONLY | P_READ_ONLY_MAYBE);

        page->flags &= ~(uint32_t)(P_READ_ONLY | P_READ_ONLY_MAYBE);
        if (error && (was || on))
            page->flags |= P_READ_ONLY_MAYBE;
        else if (!error && on)
            page->flags |= P_READ_ONLY;
    }
}

/* ---- the ledger -------------------------------------------------------- */

static struct pgshare_account account_of(struct world *w, uint64_t dom)
{
    struct pgshare_account account = { .size = sizeof(account) };

    if (pgshare_account(w->host, dom, &account))
        world_fail(w, "no account");
    return account;
}

/* Would the rules refuse a claim, whatever the machine has? */
static bool must_refuse(struct world *w, struct guest *g, uint64_t count)
{
    struct pgshare_account own = account_of(w, g->dom), payer = own;
    uint64_t secured;

    if (own.claimed + count > own.entitlement / PGSHARE_ENTITLEMENT_ONE)
        return true;
    if (own.service && pgshare_account(w->host, own.service, &payer))
        return true; /* the service is being removed */
    secured = payer.secures + (payer.service ? 0 : payer.claimed);
    return payer.fifo < secured + count;
}

/* The pages of a claim or a return that goes on may be there or not. */
static void maybe(struct guest *g, const struct record *r, uint32_t n,
                  bool claim)
{
    for (uint32_t i = 0; i < n; i++) {
        struct page *page = &g->pages[r->at + i];

        if (claim && !(page->flags & (P_PRESENT | P_MAYBE))) {
            model_hole(page);
            model_zero(page);
            page->flags |= P_MAYBE;
        } else if (!claim && page->flags & P_PRESENT) {
            page->flags |= P_MAYBE;
        }
    }
}

void op_claim(struct world *w, const struct record *r)
{
    uint64_t gfn = r->b % 5 ? op_gfn(r) : PGSHARE_GFN_NONE;
    uint32_t n = r->count > 4 ? 4 : r->count;
    struct guest *g = r->guest;
    struct pgshare_call call;
    struct waiting *waiting;
    bool refuse;
    int error;

    if (!may_declare(w, r) || w->in_hook || g->frozen || g->ring_open ||
        world_info(w).parked)
        return;
    waiting = op_begin(w, r, n, &call);
    if (!waiting)
        return;
    refuse = must_refuse(w, g, n);
    op_mine(w, g, op_gfn(r), n);
    error = pgshare_bonus_claim(w->host, g->dom, gfn, n, &call);
    op_mine(w, NULL, 0, 0);
    world_say(w, "claim %u:%" PRIu64 "+%u: %s", number(w, g), gfn, n,
              pgshare_error_name(error));
    world_expect(w, error, E(ENTITLEMENT) | E(OWED) | E(NOFRAME) | E(EXISTS) |
                               E(INPROGRESS) | E(BUSY) | E(NOTSUP));
    if (!error && refuse && op_is_calm(w))
        world_fail(w, "granted more than the rules allow");
    if (!error || error == PGSHARE_ERR_INPROGRESS ||
        error == PGSHARE_ERR_BACKEND)
        g->claimed += n;
    for (uint32_t i = 0; gfn == op_gfn(r) && !error && i < n; i++) {
        struct page *page = &g->pages[r->at + i];

        if (page->flags & P_PRESENT &&
            !(page->flags &
              (P_MAYBE | P_RECLAIMED | P_VOLATILE | P_GOING)))
            world_fail(w, "granted what is no hole");
        model_hole(page);
        page->flags &= P_NEVER;
        page->flags |= P_PRESENT;
        model_zero(page);
    }
    if (gfn == op_gfn(r) && (error == PGSHARE_ERR_INPROGRESS ||
                             error == PGSHARE_ERR_BACKEND))
        maybe(g, r, n, true);
    op_ended(w, waiting, error, &call);
}

void op_return(struct world *w, const struct record *r)
{
    uint64_t gfn = r->b % 5 ? op_gfn(r) : PGSHARE_GFN_NONE;
    uint32_t n = r->count > 4 ? 4 : r->count;
    struct guest *g = r->guest;
    uint64_t legal = E(STATE) | E(BUSY) | E(INPROGRESS) | E(NOTSUP);
    struct pgshare_account before;
    struct pgshare_call call;
    struct waiting *waiting;
    int error;

    if (!may_declare(w, r) || w->in_hook || g->frozen || g->ring_open ||
        world_info(w).parked)
        return;
    if (gfn != op_gfn(r))
        legal |= E(NOFRAME); /* the machine has used the memory otherwise */
    for (uint32_t i = 0; i < n; i++)
        if (g->pages[r->at + i].flags & (P_UNSURE | P_GOING))
            return;
    waiting = op_begin(w, r, n, &call);
    if (!waiting)
        return;
    before = account_of(w, g->dom);
    op_mine(w, g, op_gfn(r), n);
    error = pgshare_bonus_return(w->host, g->dom, gfn, n, &call);
    op_mine(w, NULL, 0, 0);
    world_say(w, "return %u:%" PRIu64 "+%u: %s", number(w, g), gfn, n,
              pgshare_error_name(error));
    world_expect(w, error, legal);
    if (!error && before.claimed < n && op_is_calm(w))
        world_fail(w, "returned %u of %" PRIu64 " bonus pages", n,
                   before.claimed);
    for (uint32_t i = 0; gfn == op_gfn(r) && !error && i < n; i++) {
        if (model_is_held(w, g, gfn + i, false))
            world_fail(w, "a held page was returned");
        model_hole(&g->pages[r->at + i]);
    }
    if (gfn == op_gfn(r) && (error == PGSHARE_ERR_INPROGRESS ||
                             error == PGSHARE_ERR_BACKEND))
        maybe(g, r, n, false);
    op_ended(w, waiting, error, &call);
}

void op_service(struct world *w, const struct record *r)
{
    struct guest *other = op_other(w, r->b);
    uint64_t service = r->c % 3 && op_is_in(other) ? other->dom : 0;
    int error;

    if (!op_is_in(r->guest) || w->in_hook)
        return;
    error = pgshare_service_set(w->host, r->guest->dom, service);
    world_say(w, "service of %u is %u: %s", number(w, r->guest),
              service ? number(w, other) : 99, pgshare_error_name(error));
    world_expect(w, error, E(OWED) | E(INVALID));
    if (service == r->guest->dom && error != PGSHARE_ERR_INVALID)
        world_fail(w, "a domain serves itself");
    if (!error && account_of(w, r->guest->dom).service != service)
        world_fail(w, "another service than was set");
}

void op_reserve(struct world *w, const struct record *r)
{
    uint64_t frames = r->b % 32, got = 0;
    int error;

    if (w->in_hook)
        return;
    error = pgshare_reserve_set(w->host, frames, &got);
    world_say(w, "reserve %" PRIu64 ": %s, %" PRIu64, frames,
              pgshare_error_name(error), got);
    world_expect(w, error,
                 E(NOFRAME) | E(OWED) | E(INPROGRESS) | E(NOTSUP) | E(BUSY));
    if (!error && got < frames && op_is_calm(w))
        world_fail(w, "%" PRIu64 " frames in reserve, not %" PRIu64, got,
                   frames);
}
