/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains come and go; their rings; looking; and calls that are wrong.
 */
#include "world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static unsigned number(const struct world *w, const struct guest *g)
{
    return (unsigned)(g - w->guests);
}

/* ---- life -------------------------------------------------------------- */

void guest_make(struct world *w, struct guest *g, uint8_t how, bool empty)
{
    struct pgshare_mock_domain_options options = {
        .size = sizeof(options),
        .domid = 1 + ++w->next_domid % 4, /* reused, with a new generation */
        .generation = 1 + w->next_domid,
        .flags = PGSHARE_MOCK_ENLIGHTENED,
    };
    void *ring_memory = g->ring_memory;
    int r;

    memset(g, 0, sizeof(*g));
    g->ring_memory = ring_memory;
    g->base = w->header[1] & PGS_STREAM_BORDER ? 65536 - PAGES / 2 : 0;
    g->gfns = g->base + PAGES;
    g->group = how % 3;
    g->direct = how >= 240 && !empty;
    if (g->direct)
        options.flags |= PGSHARE_MOCK_DIRECT;
    if (pgshare_mock_domain_new(w->machine, g->gfns, &options, &g->mock))
        world_fail(w, "no guest");
    r = empty ? 0 : pgshare_mock_populate(g->mock, g->base, POPULATED);
    for (uint32_t i = 0; !empty && !r && i < POPULATED; i++)
        g->pages[i].flags = P_PRESENT;
    r = pgshare_mock_join(g->mock, w->host, w->groups[g->group]);
    g->dom = pgshare_mock_handle(g->mock);
    world_say(w, "guest %u: domain %" PRIx64 " in group %" PRIu64 ": %s",
              number(w, g), g->dom, g->group, pgshare_error_name(r));
    world_expect(w, r, E(NOMEM));
    if (!!g->dom == !!r)
        g->leaving = g->dom != 0; /* its removal, after an error, goes on */
}

void guest_end(struct world *w, struct guest *g)
{
    void *ring_memory = g->ring_memory;

    g->mock = pgshare_mock_domain_free(g->mock);
    for (unsigned i = 0; i < DOMAINS; i++)
        if (w->guests[i].stub == g)
            w->guests[i].stub = NULL;
    memset(g, 0, sizeof(*g));
    g->ring_memory = ring_memory;
}

/* What was declared ends with the domain; the content stays. */
static void forget(struct world *w, struct guest *g)
{
    w->uncounted |= w->options.without >> PGSHARE_OP_RESERVE & 1;
    for (uint32_t i = 0; i < PAGES; i++) {
        struct page *page = &g->pages[i];

        if (page->flags & (P_FREE | P_OVER))
            page->flags |= P_LOOSE;
        page->flags &= ~(uint32_t)(P_FREE | P_OVER | P_VOLATILE | P_NEVER |
                                   P_READ_ONLY | P_READ_ONLY_MAYBE);
    }
    model_holds_forget(w, g);
    g->frozen = g->suspended = g->unsure = false;
    g->claimed = 0;
    g->ring = NULL;
    g->ring_open = 0;
}

void op_leave(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!op_is_in(g) || w->in_hook || r->b % 2)
        return;
    for (unsigned i = 0; i < DOMAINS; i++)
        if (w->guests[i].mock && w->guests[i].stub == g)
            return;
    /* what has paid is known by now, or never */
    for (uint32_t i = 0; i < PAGES; i++) {
        struct page *page = &g->pages[i];

        if (!(page->flags & P_VOLATILE) || g->dead)
            continue;
        check_page(w, g, i, false);
        if (page->flags & P_VOLATILE &&
            !(check_info(w, g, i).flags & PGSHARE_GFN_VOLATILE)) {
            page->flags |= P_LOOSE;
            /* where a write waits, that it has paid will show later */
            if (page->flags & P_UNSURE)
                page->flags |= P_RECLAIMED;
        }
        if (check_info(w, g, i).flags & PGSHARE_GFN_IN_FLIGHT)
            return;
    }
    g->leaving = true; /* for hooks, the handle is void at once */
    error = pgshare_mock_leave(g->mock);
    world_say(w, "leave %u: %s", number(w, g), pgshare_error_name(error));
    world_expect(w, error, E(INPROGRESS));
    g->leaving = error == PGSHARE_ERR_INPROGRESS;
    forget(w, g);
    g->stub = NULL;
    if (pgshare_account(w->host, g->dom,
                        &(struct pgshare_account){
                            .size = sizeof(struct pgshare_account) }) !=
        PGSHARE_ERR_NODOMAIN)
        world_fail(w, "a removed domain has an account");
    if (!g->leaving)
        g->dom = 0;
}

/* Makes a guest, or takes one in again, or buries one. */
void op_join(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (w->in_hook)
        return;
    if (g->mock && !g->leaving && pgshare_mock_handle(g->mock) && !g->dead)
        return;
    if (g->mock && g->dead && op_is_in(g)) {
        op_leave(w, &(struct record){ .guest = g });
        return;
    }
    if (g->leaving || world_waits(w))
        return;
    if (g->mock && (g->dead || r->b & 1)) {
        guest_end(w, g);
        return;
    }
    if (!g->mock) {
        guest_make(w, g, r->c, false);
        return;
    }
    for (uint32_t i = 0; i < PAGES; i++)
        if (g->pages[i].flags & (P_UNSURE | P_GOING))
            return;
    error = pgshare_mock_join(g->mock, w->host, w->groups[g->group]);
    world_say(w, "join %u: %s", number(w, g), pgshare_error_name(error));
    world_expect(w, error, E(NOFRAME) | E(EXISTS));
    g->dom = pgshare_mock_handle(g->mock);
    g->leaving = error && g->dom;
}

void op_kill(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;

    if (!op_is_in(g) || g->dead || w->in_hook || r->b % 2)
        return;
    for (unsigned i = 0; i < DOMAINS; i++)
        if (w->guests[i].mock && w->guests[i].stub == g)
            return;
    world_say(w, "kill %u", number(w, g));
    w->uncounted |= w->options.without >> PGSHARE_OP_RESERVE & 1;
    g->dead = true;
    g->ring = NULL;
    g->stub = NULL;
    model_holds_forget(w, g);
    pgshare_mock_kill(g->mock);
}

void op_suspend(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    bool resume = r->b & 1;
    int error;

    if (!op_is_in(g) || w->in_hook)
        return;
    error = resume ? pgshare_domain_resume(w->host, g->dom)
                   : pgshare_domain_suspend(w->host, g->dom);
    world_say(w, "%s %u: %s", resume ? "resume" : "suspend", number(w, g),
              pgshare_error_name(error));
    world_expect(w, error, E(STATE) | E(INPROGRESS) | E(BUSY));
    if (!g->unsure &&
        (error == PGSHARE_ERR_STATE) != (resume != g->suspended) &&
        (!error || error == PGSHARE_ERR_STATE))
        world_fail(w, "suspended or not?");
    /* BACKEND: an answer was lost */
    g->unsure |= error == PGSHARE_ERR_INPROGRESS ||
                 error == PGSHARE_ERR_BACKEND;
    if (!error || error == PGSHARE_ERR_STATE) {
        g->suspended = !resume;
        g->unsure = false;
    }
}

/* ---- rings ------------------------------------------------------------- */

void op_ring_attach(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    int error;

    if (!op_is_in(g) || g->dead || w->in_hook)
        return;
    if (g->ring && !(r->b & 1)) {
        error = pgshare_ring_detach(w->host, g->dom);
        if (error)
            world_fail(w, "detach: %s", pgshare_error_name(error));
        g->ring = NULL;
        g->ring_open = 0;
        return;
    }
    if (!g->ring_memory &&
        posix_memalign(&g->ring_memory, PGSHARE_PAGE_SIZE, PGSHARE_PAGE_SIZE))
        world_fail(w, "no memory");
    if (!g->ring) {
        memset(g->ring_memory, 0, PGSHARE_PAGE_SIZE);
        pgshare_guest_ring_init(g->ring_memory);
    }
    error = pgshare_ring_attach(w->host, g->dom, g->ring_memory,
                                PGSHARE_PAGE_SIZE);
    if (error != (g->ring ? PGSHARE_ERR_EXISTS : 0))
        world_fail(w, "attach: %s", pgshare_error_name(error));
    if (!error) {
        g->ring = g->ring_memory;
        g->ring_open = 0;
    }
}

/* From now on until its answer a request may be carried out at any time. */
static void expect_request(struct world *w, const struct record *r,
                           uint32_t op)
{
    struct guest *g = r->guest;

    for (uint32_t i = 0; i < r->count; i++) {
        struct page *page = &g->pages[r->at + i];

        if (op == PGSHARE_GUEST_RING_PUSH) {
            page->flags |= P_VOLATILE;
            page->pushed = 0;
        } else if (op == PGSHARE_GUEST_RING_FREE) {
            page->flags |= P_FREE;
            page->freed = ++w->serial;
        }
    }
}

void op_ring_put(struct world *w, const struct record *r)
{
    static const uint16_t ops[] = {
        PGSHARE_GUEST_RING_PUSH, PGSHARE_GUEST_RING_WITHDRAW,
        PGSHARE_GUEST_RING_NEVER_SHARE, PGSHARE_GUEST_RING_FREE,
        PGSHARE_GUEST_RING_ALLOCATED, 99,
    };
    uint16_t op = ops[r->b % 6];
    struct guest *g = r->guest;
    uint32_t id;

    if (!op_is_in(g) || !g->ring || g->frozen || g->stub ||
        !op_may_use(w, r, r->count))
        return;
    id = g->ring_id % 256;
    if (!pgshare_guest_ring_put(g->ring, op, op_gfn(r), r->count,
                                (uint16_t)id))
        return;
    world_say(w, "ring %u:%" PRIu64 "+%u op %u", number(w, g), op_gfn(r),
              r->count, op);
    g->ring_id++;
    g->ring_open++;
    g->asked[id].serial = ++w->serial;
    g->asked[id].first = r->at;
    g->asked[id].count = r->count;
    g->asked[id].op = op;
    expect_request(w, r, op);
}

static void answered(struct world *w, struct guest *g,
                     const struct pgshare_guest_ring_answer *answer)
{
    uint32_t id = answer->id % 256;

    if (answer->op == PGSHARE_GUEST_RING_RECLAIMED)
        return;
    if (!g->ring_open || answer->op != g->asked[id].op)
        world_fail(w, "an answer to nothing");
    g->ring_open--;
    if (answer->op == 99 && answer->result != PGSHARE_ERR_INVALID)
        world_fail(w, "the ring took nonsense");
    if (answer->op != PGSHARE_GUEST_RING_ALLOCATED || answer->result)
        return;
    for (uint32_t i = 0; i < g->asked[id].count; i++) {
        struct page *page = &g->pages[g->asked[id].first + i];

        if (page->flags & P_FREE && page->freed < g->asked[id].serial) {
            page->flags &= ~(uint32_t)P_FREE;
            page->flags |= P_LOOSE;
        }
    }
}

void op_ring_serve(struct world *w, const struct record *r)
{
    struct pgshare_guest_ring_answer answer;
    struct guest *g = r->guest;
    int error;

    if (!op_is_in(g) || g->dead || w->in_hook)
        return;
    if (r->b & 1) {
        op_mine(w, g, g->base, PAGES);
        error = pgshare_ring_kick(w->host, g->dom);
        op_mine(w, NULL, 0, 0);
        world_say(w, "kick %u: %s", number(w, g), pgshare_error_name(error));
        if (error != (g->ring ? 0 : PGSHARE_ERR_STATE))
            world_fail(w, "kick: %s", pgshare_error_name(error));
    }
    while (g->ring && pgshare_guest_ring_take(g->ring, &answer))
        answered(w, g, &answer);
}

/* ---- looking ----------------------------------------------------------- */

struct walk {
    struct world *w;
    uint64_t frame, n;
};

static int visit(void *ctx, uint64_t dom, uint64_t gfn)
{
    struct walk *walk = ctx;
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    if (pgshare_gfn_info(walk->w->host, dom, gfn, &info) ||
        info.frame != walk->frame)
        world_fail(walk->w, "a reverse mapping to GFN %" PRIu64 " of %" PRIx64
                   ", which maps %" PRIu64, gfn, dom, info.frame);
    walk->n++;
    return 0;
}

static void look_at_frames(struct world *w)
{
    struct pgshare_frame_info frame = { .size = sizeof(frame) };
    uint64_t after = 0;
    int r;

    while (!(r = pgshare_cow_next(w->host, after, &frame))) {
        struct walk walk = { w, frame.frame, 0 };

        if (frame.frame <= after)
            world_fail(w, "the cow domain's list goes backwards");
        after = frame.frame;
        if (frame.frame == 1)
            continue;
        r = pgshare_frame_mappings(w->host, frame.frame, visit, &walk);
        world_expect(w, r, E(RANGE) | E(NOMEM));
        if (!r && walk.n != frame.mappings && op_is_calm(w))
            world_fail(w, "frame %" PRIu64 " has %" PRIu64 " mappings, not %"
                       PRIu64, frame.frame, walk.n, frame.mappings);
    }
    if (r != PGSHARE_ERR_RANGE)
        world_fail(w, "cow_next: %s", pgshare_error_name(r));
}

void op_look(struct world *w, const struct record *r)
{
    struct pgshare_domain_stats stats = { .size = sizeof(stats) };
    struct pgshare_host_stats host = { .size = sizeof(host) };
    struct pgshare_poll poll = { .size = sizeof(poll) };
    struct guest *g = r->guest;

    world_say(w, "look");
    if (op_is_calm(w) && !w->in_hook)
        look_at_frames(w);
    if (pgshare_host_stats(w->host, &host) || pgshare_host_poll(w->host, &poll))
        world_fail(w, "no statistics");
    if (op_is_in(g) && (pgshare_domain_stats(w->host, g->dom, &stats) ||
                        stats.shared + stats.private_ + stats.protected_ !=
                            stats.tracked))
        world_fail(w, "a domain's statistics do not add up");
}

/* ---- wrong calls ------------------------------------------------------- */

static void must(struct world *w, int r, int error, const char *what)
{
    if (r != error)
        world_fail(w, "%s: %s, should be %s", what, pgshare_error_name(r),
                   pgshare_error_name(error));
}

/* A GFN, a count, a handle that cannot be. */
static void bad_range(struct world *w, struct guest *g, uint64_t gfn,
                      uint64_t count)
{
    uint64_t tickets[2];

    must(w, pgshare_mark_ro(w->host, g->dom, gfn, count, tickets, NULL),
         PGSHARE_ERR_RANGE, "mark_ro");
    must(w, pgshare_unmark(w->host, g->dom, gfn, count, NULL, NULL),
         PGSHARE_ERR_RANGE, "unmark");
    must(w, pgshare_unshare(w->host, g->dom, gfn, count, NULL),
         PGSHARE_ERR_RANGE, "unshare");
    must(w, pgshare_gfn_get(w->host, g->dom, gfn, count, 1, NULL),
         PGSHARE_ERR_RANGE, "get");
    must(w, pgshare_gfn_put(w->host, g->dom, gfn, count, 1),
         PGSHARE_ERR_RANGE, "put");
    must(w, pgshare_declare_free(w->host, g->dom, gfn, count),
         PGSHARE_ERR_RANGE, "free");
    must(w, pgshare_declare_allocated(w->host, g->dom, gfn, count),
         PGSHARE_ERR_RANGE, "allocated");
    must(w, pgshare_declare_volatile(w->host, g->dom, gfn, count, NULL),
         PGSHARE_ERR_RANGE, "volatile");
    must(w, pgshare_declare_never_share(w->host, g->dom, gfn, count, 1, NULL),
         PGSHARE_ERR_RANGE, "never_share");
    must(w, pgshare_domain_ram_add(w->host, g->dom, gfn, count),
         PGSHARE_ERR_RANGE, "ram_add");
    must(w, pgshare_hint_block(w->host, g->dom, gfn, count, 1, 1),
         PGSHARE_ERR_RANGE, "hint_block");
    must(w, pgshare_bonus_claim(w->host, g->dom, gfn, count, NULL),
         PGSHARE_ERR_RANGE, "claim");
}

static void bad_domain(struct world *w, uint64_t dom)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    struct pgshare_host *host = w->host;

    must(w, pgshare_fault_write(host, dom, 0, 0, NULL, NULL),
         PGSHARE_ERR_NODOMAIN, "fault");
    must(w, pgshare_gfn_info(host, dom, 0, &info), PGSHARE_ERR_NODOMAIN,
         "gfn_info");
    must(w, pgshare_domain_remove(host, dom), PGSHARE_ERR_NODOMAIN, "remove");
    must(w, pgshare_declare_free(host, dom, 0, 1), PGSHARE_ERR_NODOMAIN,
         "free");
    must(w, pgshare_hint_lineage(host, dom, dom), PGSHARE_ERR_NODOMAIN,
         "lineage");
    must(w, pgshare_ring_kick(host, dom), PGSHARE_ERR_NODOMAIN, "kick");
    must(w, pgshare_domain_suspend(host, dom), PGSHARE_ERR_NODOMAIN,
         "suspend");
    must(w, pgshare_domain_freeze(host, dom, NULL), PGSHARE_ERR_NODOMAIN,
         "freeze");
    must(w, pgshare_service_set(host, dom, 0), PGSHARE_ERR_NODOMAIN,
         "service");
}

static void bad_argument(struct world *w, struct guest *g)
{
    struct pgshare_share_request request = { .size = 3 };
    struct pgshare_call call = { .size = 4 };
    struct pgshare_host *host = w->host;

    must(w, pgshare_fault_write(host, g->dom, g->base, 6, NULL, NULL),
         PGSHARE_ERR_INVALID, "fault");
    must(w, pgshare_fault_write(host, g->dom, g->base, 0, &call, NULL),
         PGSHARE_ERR_ABI, "fault");
    must(w, pgshare_gfn_get(host, g->dom, g->base, 1, 0, NULL),
         PGSHARE_ERR_INVALID, "get");
    must(w, pgshare_share(host, &request, NULL), PGSHARE_ERR_ABI, "share");
    must(w, pgshare_share(host, NULL, NULL), PGSHARE_ERR_INVALID, "share");
    must(w, pgshare_mark_ro(host, g->dom, g->base, 1, NULL, NULL),
         PGSHARE_ERR_INVALID, "mark_ro");
    must(w, pgshare_ring_attach(host, g->dom, NULL, 4096), PGSHARE_ERR_INVALID,
         "attach");
    must(w, pgshare_hint_block(host, g->dom, g->base, 1, 0, 1),
         PGSHARE_ERR_INVALID, "hint_block");
    must(w, pgshare_fork(host, g->dom, g->dom, NULL, NULL, NULL),
         PGSHARE_ERR_STATE, "fork");
}

void op_bad(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;

    if (w->in_hook)
        return;
    bad_domain(w, g->dom + ((uint64_t)(1 + r->c) << 32));
    bad_domain(w, r->c);
    if (!op_is_in(g) || g->dead)
        return;
    bad_argument(w, g);
    switch (r->b % 4) {
    case 0:
        bad_range(w, g, g->gfns, 1);
        break;
    case 1:
        bad_range(w, g, g->gfns - 1, 2);
        break;
    case 2:
        bad_range(w, g, g->base, UINT64_MAX - r->c);
        break;
    default:
        bad_range(w, g, g->base, 0);
        break;
    }
}
