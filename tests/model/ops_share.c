/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sharing by hand, faults, gets and puts, hints, forks.
 */
#include "world.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define ANY_CALL (E(INPROGRESS) | E(BUSY))

static unsigned number(const struct world *w, const struct guest *g)
{
    return (unsigned)(g - w->guests);
}

/* ---- marks ------------------------------------------------------------- */

static uint64_t secrets_of(const struct record *r)
{
    uint64_t secrets = 0;

    for (uint32_t i = 0; i < r->count; i++)
        if (r->guest->pages[r->at + i].flags & P_NEVER)
            secrets |= UINT64_C(1) << i;
    return secrets;
}

static void check_marked(struct world *w, const struct record *r,
                         const uint64_t *tickets, uint64_t secrets)
{
    for (uint32_t i = 0; i < r->count; i++) {
        struct pgshare_gfn_info info = check_info(w, r->guest, r->at + i);

        if (!tickets[i])
            world_fail(w, "marked, but without a ticket");
        if (secrets >> i & 1 && r->guest->pages[r->at + i].flags & P_NEVER)
            world_fail(w, "a secret was marked");
        if (op_is_calm(w) && (info.state < PGSHARE_GFN_PROTECTED ||
                              info.ticket != tickets[i]))
            world_fail(w, "GFN %" PRIu64 " was marked, but is not",
                       op_gfn(r) + i);
    }
}

void op_mark(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    uint64_t tickets[PAGES], secrets, legal;
    struct pgshare_call call;
    struct waiting *waiting;
    int error;

    if (!op_is_in(g) || !op_may_use(w, r, r->count))
        return;
    waiting = op_begin(w, r, r->count, &call);
    if (!waiting)
        return;
    world_say(w, "mark %u:%" PRIu64 "+%u", number(w, g), op_gfn(r), r->count);
    legal = ANY_CALL | E(HOLE) | E(NEVER_SHARE);
    if (g->direct)
        legal = E(NOTSUP);
    else if (op_is_suspended(w, g))
        legal = E(SUSPENDED);
    secrets = secrets_of(r); /* one more may be declared, once it is marked */
    error = pgshare_mark_ro(w->host, g->dom, op_gfn(r), r->count, tickets,
                            &call);
    world_expect(w, error, legal);
    if (!error && (g->direct || op_is_suspended(w, g)))
        world_fail(w, "marked in a domain that may not share");
    if (!error)
        check_marked(w, r, tickets, secrets);
    for (uint32_t i = 0; error != PGSHARE_ERR_NOTSUP &&
                         error != PGSHARE_ERR_SUSPENDED &&
                         error != PGSHARE_ERR_GONE && i < r->count; i++)
        if (tickets[i])
            g->pages[r->at + i].ticket = tickets[i];
    op_ended(w, waiting, error, &call);
}

void op_unmark(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    uint64_t tickets[PAGES];
    struct pgshare_call call;
    struct waiting *waiting;
    bool stale = false;
    int error;

    if (!op_is_in(g) || !op_may_use(w, r, r->count))
        return;
    waiting = op_begin(w, r, r->count, &call);
    if (!waiting)
        return;
    for (uint32_t i = 0; i < r->count; i++) {
        struct pgshare_gfn_info info = check_info(w, g, r->at + i);

        tickets[i] = g->pages[r->at + i].ticket;
        stale |= info.state != PGSHARE_GFN_PROTECTED ||
                 (r->c & 1 && info.ticket != tickets[i]);
    }
    world_say(w, "unmark %u:%" PRIu64 "+%u%s", number(w, g), op_gfn(r),
              r->count, stale ? ", stale" : "");
    error = pgshare_unmark(w->host, g->dom, op_gfn(r), r->count,
                           r->c & 1 ? tickets : NULL, &call);
    world_expect(w, error, ANY_CALL | E(TICKET) | E(STATE) | E(HOLE));
    if (!error && stale && op_is_calm(w))
        world_fail(w, "unmarked what was not marked so");
    op_ended(w, waiting, error, &call);
}

/* ---- shares ------------------------------------------------------------ */

struct pairs {
    struct guest *source, *client;
    uint32_t from, to, count;
    bool secret, stale, equal;
};

/* What is known of the pairs before the call. */
static void look(struct world *w, struct pairs *p, bool tickets)
{
    for (uint32_t i = 0; i < p->count; i++) {
        struct page *a = &p->source->pages[p->from + i];
        struct page *b = &p->client->pages[p->to + i];
        struct pgshare_gfn_info ia = check_info(w, p->source, p->from + i);
        struct pgshare_gfn_info ib = check_info(w, p->client, p->to + i);

        p->secret |= (a->flags | b->flags) & P_NEVER;
        p->stale |= tickets && (ia.state < PGSHARE_GFN_PROTECTED ||
                                ia.ticket != a->ticket ||
                                ib.state < PGSHARE_GFN_PROTECTED ||
                                ib.ticket != b->ticket);
        p->equal &= (a->flags | b->flags) & (P_UNEXACT | P_MAYBE | P_UNSURE |
                                             P_VOLATILE | P_RECLAIMED) ||
                    !memcmp(a->bytes, b->bytes, PGSHARE_PAGE_SIZE);
    }
}

static void check_shared(struct world *w, const struct pairs *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        struct pgshare_gfn_info a = check_info(w, p->source, p->from + i);
        struct pgshare_gfn_info b = check_info(w, p->client, p->to + i);

        if (a.state != PGSHARE_GFN_SHARED || b.state != PGSHARE_GFN_SHARED ||
            a.frame != b.frame || a.ticket != b.ticket)
            world_fail(w, "shared, but at frames %" PRIu64 " and %" PRIu64,
                       a.frame, b.frame);
    }
}

static uint64_t share_errors(struct world *w, const struct pairs *p)
{
    uint64_t distance = p->from > p->to ? p->from - p->to : p->to - p->from;
    uint64_t legal = ANY_CALL | E(DIFFERENT) | E(NEVER_SHARE) | E(HOLE) |
                     E(NOFRAME) | E(CLIENT_TICKET) | E(SOURCE_TICKET);

    if (p->source == p->client && distance < p->count)
        return E(INVALID);
    if (p->source->group != p->client->group ||
        (p->source != p->client && !p->source->group))
        return E(GROUP);
    if (p->source->direct || p->client->direct)
        return E(NOTSUP) | (op_is_suspended(w, p->source) ? E(SUSPENDED) : 0);
    if (op_is_suspended(w, p->source) || op_is_suspended(w, p->client))
        return E(SUSPENDED);
    return legal;
}

static void share(struct world *w, const struct record *r, bool tickets)
{
    struct pairs p = {
        .source = r->guest,
        .client = op_other(w, r->b),
        .from = r->at,
        .to = r->c % PAGES,
        .count = r->count,
        .equal = true,
    };
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = tickets ? 0 : PGSHARE_SHARE_MARK,
    };
    uint64_t ours[PAGES], theirs[PAGES], legal;
    struct pgshare_call call;
    struct waiting *waiting;
    int error;

    if (p.count > PAGES - p.to)
        p.count = PAGES - p.to;
    if (!op_is_in(p.source) || !op_is_in(p.client) || w->in_hook)
        return;
    waiting = op_begin(w, r, p.count, &call);
    if (!waiting)
        return;
    waiting->guest = p.client;
    for (uint32_t i = 0; i < p.count; i++) {
        ours[i] = p.source->pages[p.from + i].ticket;
        theirs[i] = p.client->pages[p.to + i].ticket;
    }
    request.source_dom = p.source->dom;
    request.source_gfn = p.source->base + p.from;
    request.client_dom = p.client->dom;
    request.client_gfn = p.client->base + p.to;
    request.count = p.count;
    request.source_tickets = tickets ? ours : NULL;
    request.client_tickets = tickets ? theirs : NULL;
    look(w, &p, tickets);
    legal = share_errors(w, &p);
    world_say(w, "share %u:%" PRIu64 " with %u:%" PRIu64 "+%u%s",
              number(w, p.source), request.source_gfn, number(w, p.client),
              request.client_gfn, p.count, tickets ? ", by tickets" : "");
    error = pgshare_share(w->host, &request, &call);
    world_say(w, "  %s", pgshare_error_name(error));
    world_expect(w, error, legal);
    if (!error && (p.secret || !(legal & E(DIFFERENT))))
        world_fail(w, "shared what may not be shared");
    if (!error && p.stale && op_is_calm(w))
        world_fail(w, "shared with tickets that are void");
    if (!error && !p.equal && !world_is_racy(w) && world_is_quiet(w))
        world_fail(w, "shared pages that differ");
    if (!error && op_is_calm(w))
        check_shared(w, &p);
    op_ended(w, waiting, error, &call);
}

void op_share(struct world *w, const struct record *r)
{
    share(w, r, true);
}

void op_share_marked(struct world *w, const struct record *r)
{
    share(w, r, false);
}

void op_unshare(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    struct pgshare_call call;
    struct waiting *waiting;
    int error;

    if (!op_is_in(g) || !op_may_use(w, r, r->count))
        return;
    waiting = op_begin(w, r, r->count, &call);
    if (!waiting)
        return;
    world_say(w, "unshare %u:%" PRIu64 "+%u", number(w, g), op_gfn(r),
              r->count);
    error = pgshare_unshare(w->host, g->dom, op_gfn(r), r->count, &call);
    world_expect(w, error, ANY_CALL | E(NOFRAME) | E(CLIENT_TICKET));
    for (uint32_t i = 0; !error && i < r->count && op_is_calm(w); i++)
        if (check_info(w, g, r->at + i).state == PGSHARE_GFN_SHARED)
            world_fail(w, "GFN %" PRIu64 " is still shared", op_gfn(r) + i);
    op_ended(w, waiting, error, &call);
}

void op_unshare_all(struct world *w, const struct record *r)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct guest *g = r->guest;
    uint64_t gfn = op_gfn(r), end = gfn + r->count;
    int error = 0;

    if (!op_is_in(g) || w->in_hook)
        return;
    world_say(w, "domain_unshare %u:%" PRIu64 "+%u", number(w, g), gfn,
              r->count);
    while (!error && gfn < end) {
        error = pgshare_domain_unshare(w->host, g->dom, gfn, end - gfn,
                                       r->b % 8, &progress);
        world_expect(w, error, ANY_CALL | E(NOFRAME));
        if (error == PGSHARE_ERR_NOFRAME && !progress.missing)
            world_fail(w, "no frame, but none is missing");
        if (!error && (progress.next <= gfn || progress.next > end))
            world_fail(w, "no progress from GFN %" PRIu64 " to %" PRIu64, gfn,
                       progress.next);
        gfn = progress.next;
    }
}

/* ---- faults ------------------------------------------------------------ */

static bool anybody_reads(const struct world *w)
{
    for (unsigned i = 0; i < HOLDS; i++)
        if (w->holds[i].guest && w->holds[i].intent == PGSHARE_GET_READ)
            return true;
    return false;
}

/* What a fault must do where nothing but the page decides. */
static uint32_t outcome_of(struct world *w, const struct record *r,
                           const struct pgshare_gfn_info *info)
{
    struct guest *g = r->guest;
    uint32_t flags = info->flags;

    if (flags & PGSHARE_GFN_READ_ONLY || g->frozen)
        return PGSHARE_FAULT_READ_ONLY;
    if (info->state == PGSHARE_GFN_HOLE)
        return PGSHARE_FAULT_POPULATED;
    if (info->state == PGSHARE_GFN_PROTECTED)
        return PGSHARE_FAULT_UNMARKED;
    if (info->state == PGSHARE_GFN_PRIVATE)
        return 0; /* spurious, or a mark that got stuck */
    if (info->frame == 1)
        return PGSHARE_FAULT_FREE;
    if (info->sharers == 1) /* somebody may still read the frame */
        return anybody_reads(w) ? 0 : PGSHARE_FAULT_LAST_MAPPING;
    if (flags & (PGSHARE_GFN_FREE | PGSHARE_GFN_SCRUB))
        return PGSHARE_FAULT_FREE;
    if (flags & PGSHARE_GFN_OVERWRITE || r->c & 1)
        return PGSHARE_FAULT_OVERWRITE;
    return PGSHARE_FAULT_COPIED;
}

static bool needs_frame(uint32_t outcome)
{
    return outcome == PGSHARE_FAULT_COPIED || outcome == PGSHARE_FAULT_FREE ||
           outcome == PGSHARE_FAULT_OVERWRITE;
}

void op_fault(struct world *w, const struct record *r)
{
    struct pgshare_fault fault = { .size = sizeof(fault) };
    struct guest *g = r->guest;
    struct pgshare_gfn_info info;
    struct pgshare_call call;
    struct waiting *waiting;
    uint32_t expected;
    bool calm = op_is_calm(w) && w->header[0] % 4 == PGSHARE_MOCK_PLAIN;
    int error;

    if (!op_is_in(g) || g->stub || !op_may_use(w, r, 1))
        return;
    waiting = op_begin(w, r, 1, &call);
    if (!waiting)
        return;
    info = check_info(w, g, r->at);
    expected = outcome_of(w, r, &info);
    waiting->changes = r->c & 1;
    if (waiting->changes) {
        g->pages[r->at].calls++;
        g->pages[r->at].flags |= P_LOOSE;
    }
    world_say(w, "fault %u:%" PRIu64 "%s", number(w, g), op_gfn(r),
              r->c & 1 ? ", whole page" : "");
    error = pgshare_fault_write(w->host, g->dom, op_gfn(r),
                                r->c & 1 ? PGSHARE_FAULT_WHOLE_PAGE : 0,
                                &call, &fault);
    world_expect(w, error, ANY_CALL | E(HOLE) | E(NOFRAME) | E(CLIENT_TICKET));
    if (!error)
        world_say(w, "  %s, paid by %u", pgshare_fault_name(fault.outcome),
                  fault.payer);
    if (!error && calm && expected && fault.outcome != expected)
        world_fail(w, "%s, should be %s", pgshare_fault_name(fault.outcome),
                   pgshare_fault_name(expected));
    if (!error && !needs_frame(fault.outcome) &&
        fault.outcome != PGSHARE_FAULT_POPULATED && fault.payer && calm)
        world_fail(w, "somebody paid for nothing");
    if (!error && needs_frame(fault.outcome) && !fault.payer)
        world_fail(w, "nobody paid");
    if (!error && fault.outcome == PGSHARE_FAULT_POPULATED)
        g->pages[r->at].flags &= ~(uint32_t)P_RECLAIMED;
    op_ended(w, waiting, error, &call);
}

/* ---- gets and puts ----------------------------------------------------- */

void op_get(struct world *w, const struct record *r)
{
    uint32_t intent = 1 + r->b % 3, n = r->count > 4 ? 4 : r->count;
    struct guest *g = r->guest;
    uint64_t legal = ANY_CALL | E(HOLE) | E(NOFRAME) | E(CLIENT_TICKET);
    struct pgshare_call call;
    struct waiting *waiting;
    int error;

    if (!op_is_in(g) || g->stub || !op_may_use(w, r, n) ||
        (w->in_hook && intent != PGSHARE_GET_READ))
        return;
    waiting = op_begin(w, r, n, &call);
    if (!waiting)
        return;
    waiting->intent = intent;
    waiting->changes = intent == PGSHARE_GET_OVERWRITE;
    for (uint32_t i = 0; i < n; i++) {
        struct page *page = &g->pages[r->at + i];

        if (page->flags & (P_READ_ONLY | P_READ_ONLY_MAYBE))
            legal |= E(READONLY);
        page->calls += waiting->changes;
        if (waiting->changes)
            page->flags |= P_LOOSE;
    }
    if (g->frozen)
        legal |= E(READONLY);
    world_say(w, "get %u:%" PRIu64 "+%u intent %u", number(w, g), op_gfn(r), n,
              intent);
    model_holds(g, op_gfn(r), n);
    op_mine(w, g, op_gfn(r), n);
    error = pgshare_gfn_get(w->host, g->dom, op_gfn(r), n, intent, &call);
    op_mine(w, NULL, 0, 0);
    world_say(w, "  %s, %" PRIu64 " done", pgshare_error_name(error),
              call.done);
    world_expect(w, error, legal);
    if (!error && call.done != n)
        world_fail(w, "%" PRIu64 " of %u pages are held", call.done, n);
    if (call.done && !model_hold_add(w, g, op_gfn(r), call.done, intent) &&
        pgshare_gfn_put(w->host, g->dom, op_gfn(r), call.done, intent))
        world_fail(w, "cannot put what was got");
    op_ended(w, waiting, error, &call);
}

void op_put(struct world *w, const struct record *r)
{
    struct hold *hold = &w->holds[r->b % HOLDS];
    struct guest *g = r->guest;
    int error;

    if (r->c & 1 && op_is_in(g) && !g->dead && !model_is_held(w, g, op_gfn(r), false) &&
        world_is_quiet(w)) {
        world_say(w, "put %u:%" PRIu64 ", which is not held", number(w, g),
                  op_gfn(r));
        error = pgshare_gfn_put(w->host, g->dom, op_gfn(r), 1, 1 + r->d % 3);
        if (error != PGSHARE_ERR_STATE)
            world_fail(w, "put: %s", pgshare_error_name(error));
        return;
    }
    g = hold->guest;
    if (!g || !op_is_in(g))
        return;
    world_say(w, "put %u:%" PRIu64 "+%" PRIu64 " intent %u", number(w, g),
              hold->gfn, hold->count, hold->intent);
    hold->guest = NULL;
    error = pgshare_gfn_put(w->host, g->dom, hold->gfn, hold->count,
                            hold->intent);
    if (world_expect(w, error, g->dead ? E(STATE) : 0) && !g->dead)
        world_fail(w, "put: %s", pgshare_error_name(error));
}

/* ---- hints ------------------------------------------------------------- */

void op_hint_block(struct world *w, const struct record *r)
{
    if (!op_is_in(r->guest))
        return;
    world_expect(w, pgshare_hint_block(w->host, r->guest->dom, op_gfn(r),
                                       r->count, 1 + r->b % 2, r->c % 16),
                 E(FULL));
}

void op_hint_file(struct world *w, const struct record *r)
{
    if (!op_is_in(r->guest))
        return;
    world_expect(w, pgshare_hint_file(w->host, r->guest->dom, op_gfn(r),
                                      r->count, 1 + r->b % 3, r->c % 16),
                 E(FULL));
}

void op_library(struct world *w, const struct record *r)
{
    world_expect(w, pgshare_library_add(w->host, 1 + r->b % 3, r->c % 16,
                                        1 + r->d % 8),
                 E(FULL));
}

void op_hint_same(struct world *w, const struct record *r)
{
    struct guest *other = op_other(w, r->b);
    uint32_t to = r->c % PAGES;

    if (!op_is_in(r->guest) || !op_is_in(other))
        return;
    world_say(w, "same %u:%" PRIu64 " as %u:%" PRIu64, number(w, r->guest),
              op_gfn(r), number(w, other), other->base + to);
    world_expect(w, pgshare_hint_same(w->host, r->guest->dom, op_gfn(r),
                                      other->dom, other->base + to,
                                      r->count < PAGES - to ? r->count
                                                            : PAGES - to),
                 E(FULL));
}

void op_lineage(struct world *w, const struct record *r)
{
    struct guest *other = op_other(w, r->b);

    if (!op_is_in(r->guest) || !op_is_in(other))
        return;
    world_expect(w, pgshare_hint_lineage(w->host, r->guest->dom, other->dom),
                 E(FULL) | E(INVALID));
}

/* What is kept whole in the pages' regions, or nothing. */
static void set_floor(struct world *w, const struct record *r)
{
    uint32_t order = r->c % 8 < 5 ? r->c % 8 : 0;

    world_say(w, "floor %u for %u:%" PRIu64, order, number(w, r->guest),
              op_gfn(r));
    world_expect(w,
                 pgshare_scan_floor(w->host, r->guest->dom, op_gfn(r),
                                    r->count, order),
                 E(NOMEM));
}

/* Passes that nobody asks for, or no more of them. */
static void set_scan(struct world *w, const struct record *r)
{
    struct pgshare_scan_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_SCAN_ON | (r->c & 1 ? PGSHARE_SCAN_STEADY : 0),
        .core_ppm = r->d % 4 * 250000u,
        .pages_per_s = r->c & 2 ? 1000 : 0,
    };

    world_say(w, "scan %s", r->c & 4 ? "on" : "off");
    world_expect(w, pgshare_scan_set(w->host, r->c & 4 ? &options : NULL),
                 E(BUSY));
}

void op_pass(struct world *w, const struct record *r)
{
    if (!op_is_in(r->guest))
        return;
    world_say(w, "pass");
    world_expect(w, pgshare_host_pass(w->host,
                                      r->b & 1 ? 0 : r->guest->dom), 0);
    if (r->b & 2)
        world_expect(w, pgshare_scan_step(w->host, NULL, NULL), 0);
    if (r->b & 4)
        set_floor(w, r);
    if (r->b & 8)
        set_scan(w, r);
}

/* ---- forks ------------------------------------------------------------- */

static struct guest *child_of(struct world *w, const struct guest *stub)
{
    for (unsigned i = 0; i < DOMAINS; i++)
        if (w->guests[i].mock && w->guests[i].stub == stub)
            return &w->guests[i];
    return NULL;
}

void op_freeze(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!op_is_in(g) || g->stub || g->dead || w->in_hook ||
        world_info(w).parked || world_waits(w))
        return;
    world_say(w, "freeze %u", number(w, g));
    op_mine(w, g, g->base, PAGES);
    error = pgshare_domain_freeze(w->host, g->dom, NULL);
    op_mine(w, NULL, 0, 0);
    world_say(w, "  %s", pgshare_error_name(error));
    world_expect(w, error,
                 ANY_CALL | E(STATE) | E(NOTSUP) | E(NOFRAME) |
                     (op_is_suspended(w, g) ? E(SUSPENDED) : 0));
    if (!error && (g->frozen || g->direct || op_is_suspended(w, g)))
        world_fail(w, "frozen, but could not be");
    if (error == PGSHARE_ERR_STATE && !g->frozen)
        world_fail(w, "no stub, but it says so");
    if (!error)
        g->frozen = true;
}

void op_thaw(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!op_is_in(g) || w->in_hook || child_of(w, g))
        return;
    world_say(w, "thaw %u", number(w, g));
    error = pgshare_domain_thaw(w->host, g->dom);
    if (error != (g->frozen ? 0 : PGSHARE_ERR_STATE))
        world_fail(w, "thaw: %s", pgshare_error_name(error));
    g->frozen = false;
}

/* Pages that an earlier call has given to the child: one that was free then
 * may have, by now, another content than the stub's. */
static uint64_t has_already(struct guest *child)
{
    uint64_t has = 0;

    static_assert(PAGES <= 64, "a bit for each page");
    for (uint32_t i = 0; i < PAGES; i++) {
        struct pgshare_mock_page mock = { .size = sizeof(mock) };

        if (!pgshare_mock_page(child->mock, child->base + i, &mock) &&
            mock.state != PGSHARE_MOCK_HOLE)
            has |= UINT64_C(1) << i;
    }
    return has;
}

/* The child has what the stub has, or will have. */
static void expect_copy(struct guest *stub, struct guest *child, uint64_t has,
                        bool done)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        struct page *from = &stub->pages[i], *to = &child->pages[i];
        uint32_t maybe = from->flags & (P_MAYBE | P_VOLATILE | P_RECLAIMED |
                                        P_GOING);

        if (has >> i & 1)
            continue;
        memcpy(to->bytes, from->bytes, sizeof(to->bytes));
        to->flags = 0;
        if (!(from->flags & (P_PRESENT | P_MAYBE)))
            continue;
        to->flags = P_PRESENT | (maybe || !done ? P_MAYBE : 0);
        if (from->flags & (P_UNEXACT | P_VOLATILE))
            to->flags |= P_LOOSE;
        if (from->flags & (P_UNSURE | P_UNKNOWN))
            to->flags |= P_UNKNOWN;
    }
}

void op_fork(struct world *w, const struct record *r)
{
    struct pgshare_fork_options options = {
        .size = sizeof(options),
        .flags = r->b & 1 ? PGSHARE_FORK_UNSECURED : 0,
    };
    struct pgshare_fork_info info = { .size = sizeof(info) };
    struct guest *g = r->guest, *child;
    uint64_t has;
    int error;

    if (!op_is_in(g) || !g->frozen || g->dead || w->in_hook)
        return;
    child = child_of(w, g);
    for (unsigned i = 0; !child && i < DOMAINS; i++)
        if (!w->guests[i].mock) {
            child = &w->guests[i];
            guest_make(w, child, (uint8_t)g->group, true);
        }
    if (!child || !op_is_in(child) || child->dead)
        return;
    child->stub = g;
    w->unsecured |= r->b & 1 && w->options.without >> PGSHARE_OP_RESERVE & 1;
    world_say(w, "fork %u from %u%s", number(w, child), number(w, g),
              r->b & 1 ? ", unsecured" : "");
    has = has_already(child);
    expect_copy(g, child, has, false);
    op_mine(w, g, g->base, PAGES);
    error = pgshare_fork(w->host, g->dom, child->dom, &options, NULL, &info);
    op_mine(w, NULL, 0, 0);
    world_say(w, "  %s", pgshare_error_name(error));
    world_expect(w, error,
                 ANY_CALL | E(NOFRAME) | E(NOTSUP) | (g->group ? 0 : E(GROUP)) |
                     (op_is_suspended(w, g) || op_is_suspended(w, child)
                          ? E(SUSPENDED)
                          : 0));
    if (!error && !g->group)
        world_fail(w, "forked across trust groups");
    if (!error && (op_is_suspended(w, g) || op_is_suspended(w, child)))
        world_fail(w, "forked, but suspended");
    if (error)
        return;
    expect_copy(g, child, has, true);
    child->stub = NULL;
}
