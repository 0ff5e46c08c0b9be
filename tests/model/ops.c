/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The interpreter: records become operations; and what operations share.
 */
#include "world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define POLL_NS UINT64_C(10000)

/* Each operation, and how many of 256 codes mean it. */
static const struct {
    operation op;
    uint32_t weight;
} table[] = {
    { op_write, 24 },       { op_write_page, 12 }, { op_write_many, 16 },
    { op_read, 6 },         { op_block_read, 10 }, { op_block_write, 2 },
    { op_dma, 5 },          { op_drop, 3 },        { op_populate, 5 },
    { op_depopulate, 3 },   { op_scrub_write, 3 }, { op_mark, 8 },
    { op_unmark, 3 },       { op_share, 8 },       { op_share_marked, 20 },
    { op_unshare, 5 },      { op_unshare_all, 2 }, { op_fault, 7 },
    { op_get, 8 },          { op_put, 8 },         { op_hint_block, 2 },
    { op_hint_file, 3 },    { op_library, 1 },     { op_hint_same, 5 },
    { op_lineage, 1 },      { op_pass, 4 },        { op_freeze, 2 },
    { op_fork, 3 },         { op_thaw, 1 },        { op_free, 7 },
    { op_scrub, 2 },        { op_allocated, 5 },   { op_overwrite, 3 },
    { op_volatile, 7 },     { op_withdraw, 3 },    { op_never, 4 },
    { op_read_only, 3 },    { op_claim, 6 },       { op_return, 3 },
    { op_service, 2 },      { op_reserve, 2 },     { op_ring_put, 4 },
    { op_ring_serve, 2 },   { op_ring_attach, 2 }, { op_join, 3 },
    { op_leave, 1 },        { op_kill, 1 },        { op_suspend, 2 },
    { op_run, 16 },         { op_settle, 1 },      { op_chaos, 1 },
    { op_clock, 2 },        { op_audit, 1 },       { op_look, 2 },
    { op_bad, 4 },
};

#define N_OPERATIONS (sizeof(table) / sizeof(table[0]))

static operation find(uint8_t code)
{
    uint32_t sum = 0, at;

    for (unsigned i = 0; i < N_OPERATIONS; i++)
        sum += table[i].weight;
    at = code * sum / 256;
    for (unsigned i = 0; i < N_OPERATIONS; i++) {
        if (at < table[i].weight)
            return table[i].op;
        at -= table[i].weight;
    }
    return op_run;
}

static struct record decode(struct world *w, const uint8_t *bytes)
{
    struct record r = {
        .code = bytes[0],
        .guest = &w->guests[bytes[1] % DOMAINS],
        .at = bytes[2] % PAGES,
        .count = 1 + bytes[3] % 16,
        .a = bytes[1],
        .b = bytes[4],
        .c = bytes[5],
        .d = bytes[6],
    };

    /* runs are mostly short */
    if (bytes[3] < 160)
        r.count = 1 + bytes[3] % 3;
    if (r.count > PAGES - r.at)
        r.count = PAGES - r.at;
    return r;
}

void pgs_stream_run(const uint8_t *bytes, size_t size, bool trace)
{
    struct world *w;

    if (size < PGS_STREAM_HEADER)
        return;
    w = calloc(1, sizeof(*w));
    if (!w)
        return;
    w->trace = trace;
    world_make(w, bytes);
    bytes += PGS_STREAM_HEADER;
    size -= PGS_STREAM_HEADER;
    for (; size >= PGS_STREAM_RECORD; size -= PGS_STREAM_RECORD) {
        struct record r = decode(w, bytes);

        w->ops++;
        find(r.code)(w, &r);
        bytes += PGS_STREAM_RECORD;
        if (world_info(w).violations)
            world_fail(w, "a violation");
        if (w->ops % 16 == 0)
            check_pages(w, false);
    }
    world_unmake(w);
    free(w);
}

/* ---- what operations share --------------------------------------------- */

bool op_is_in(const struct guest *g)
{
    return g->mock && g->dom && !g->leaving;
}

/* Where a call has not answered, it is what the library says. */
bool op_is_suspended(struct world *w, struct guest *g)
{
    struct pgshare_domain_info info = { .size = sizeof(info) };

    if (g->unsure && !pgshare_domain_info(w->host, g->dom, &info))
        g->suspended = info.suspended;
    return g->suspended;
}

struct guest *op_other(struct world *w, uint8_t byte)
{
    return &w->guests[byte % DOMAINS];
}

void op_mine(struct world *w, struct guest *g, uint64_t gfn, uint64_t count)
{
    if (w->in_hook)
        return;
    w->mine = g;
    w->mine_gfn = gfn;
    w->mine_count = count;
}

bool op_may_use(struct world *w, const struct record *r, uint32_t count)
{
    uint64_t gfn = op_gfn(r);

    return !w->in_hook || w->mine != r->guest ||
           gfn + count <= w->mine_gfn || w->mine_gfn + w->mine_count <= gfn;
}

bool op_is_calm(struct world *w)
{
    return w->header[2] % 8 < 2 && !w->fail_every && !world_is_racy(w) &&
           world_is_quiet(w);
}

struct waiting *op_begin(struct world *w, const struct record *r,
                         uint32_t count, struct pgshare_call *ret_call)
{
    struct waiting *waiting = model_call(w, r->guest, op_gfn(r), count, 0);

    if (!waiting)
        return NULL;
    *ret_call = (struct pgshare_call){
        .size = sizeof(*ret_call),
        .timeout_ns = w->in_hook || r->d % 4 ? 0 : r->d % 16 * POLL_NS,
        .cookie = waiting,
    };
    /* until it is known that it goes on, nobody waits */
    return waiting;
}

void op_ended(struct world *w, struct waiting *waiting, int r,
              const struct pgshare_call *call)
{
    struct guest *g = waiting->guest;

    if (r == PGSHARE_ERR_INPROGRESS && call) {
        waiting->token = call->token;
        if (!call->token)
            world_fail(w, "it goes on, but has no token");
        return;
    }
    for (uint64_t i = 0; waiting->changes && i < waiting->count; i++)
        g->pages[waiting->gfn - g->base + i].calls--;
    waiting->guest = NULL;
}

/* ---- guests between the steps ------------------------------------------ */

/* The scheduler has found a place for a guest's action. */
void op_hook(void *ctx)
{
    static const operation actions[] = {
        op_write,    op_write,     op_write,      op_write_page,
        op_read,     op_free,      op_scrub,      op_allocated,
        op_volatile, op_withdraw,  op_never,      op_hint_same,
        op_fault,    op_hint_file, op_hint_block, op_ring_put,
        op_write,    op_get,       op_overwrite,  op_write_many,
    };
    struct world *w = ctx;
    uint64_t random;
    uint8_t bytes[PGS_STREAM_RECORD];
    struct record r;

    if (w->settling || w->in_hook)
        return;
    random = pgshare_mock_random(w->machine);
    memcpy(bytes, &random, sizeof(bytes));
    r = decode(w, bytes);
    if (r.count > 3)
        r.count = 3;
    w->in_hook = true;
    actions[bytes[0] % (sizeof(actions) / sizeof(actions[0]))](w, &r);
    w->in_hook = false;
}

/* ---- the runner, and time ---------------------------------------------- */

void op_run(struct world *w, const struct record *r)
{
    struct pgshare_budget budget = {
        .size = sizeof(budget),
        .time_ns = 1 + r->b * UINT64_C(4000),
        .pages = 1 + r->c * 4,
    };
    struct pgshare_progress progress = { .size = sizeof(progress) };
    int error;

    world_say(w, "run, %u pages", 1 + r->c * 4);
    error = pgshare_host_run(w->host, &budget, &progress);
    if (error)
        world_fail(w, "run: %s", pgshare_error_name(error));
}

void op_settle(struct world *w, const struct record *r)
{
    (void)r;
    world_say(w, "settle");
    world_settle(w);
    check_all(w);
}

void op_chaos(struct world *w, const struct record *r)
{
    world_say(w, "chaos %s", r->b & 1 ? "on" : "off");
    pgshare_mock_chaos_set(w->machine, r->b & 1 ? &w->chaos : NULL);
}

void op_clock(struct world *w, const struct record *r)
{
    /* Answers may be late, but an operation that the library has given up, and
     * asked about, may not be done after that. */
    if (w->chaos.delay_op)
        pgshare_mock_deliver(w->machine);
    pgshare_mock_clock_advance(w->machine, (uint64_t)r->b * POLL_NS);
    pgshare_mock_pressure_set(w->machine, r->c % 101);
    pgshare_mock_poll(w->machine);
}

/* Beside whatever is under way. */
void op_audit(struct world *w, const struct record *r)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = r->b & 1 && !w->options.without ? PGSHARE_AUDIT_BACKEND : 0,
    };
    struct pgshare_audit audit = { .size = sizeof(audit) };
    int error = pgshare_host_audit(w->host, &options, &audit);

    world_say(w, "audit: %" PRIu64, audit.violations);
    world_expect(w, error, E(BUSY) | E(NOMEM));
    if (error || !audit.violations || w->chaos.lose || w->chaos.refuse)
        return;
    check_all(w);
    world_fail(w, "%" PRIu64 " invariants are violated", audit.violations);
}
