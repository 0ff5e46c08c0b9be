/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A world: a mock machine, a host over it, guests, and the model of them. Its
 * header decides what kind of machine it is; all chance comes from the
 * machine's seed, so that the same stream gives the same run.
 */
#include "world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OP_TIMEOUT_NS UINT64_C(300000)
#define POLL_NS UINT64_C(10000)
/* Blocks of this size come lazily backed, as the library asks. */
#define LARGE (UINT64_C(64) << 10)

/* ---- saying ------------------------------------------------------------ */

void world_say(struct world *w, const char *format, ...)
{
    char *line = w->last[w->n_last++ % 24];
    va_list args;
    int n;

    n = snprintf(line, sizeof(w->last[0]), "%6" PRIu64 "%s ", w->ops,
                 w->in_hook ? "  |" : ":");
    va_start(args, format);
    vsnprintf(line + n, sizeof(w->last[0]) - (size_t)n, format, args);
    va_end(args);
    if (w->trace)
        fprintf(stderr, "%s\n", line);
}

void world_fail(struct world *w, const char *format, ...)
{
    va_list args;

    if (!w->trace) {
        uint32_t first = w->n_last > 24 ? w->n_last - 24 : 0;

        for (uint32_t i = first; i < w->n_last; i++)
            fprintf(stderr, "%s\n", w->last[i % 24]);
    }
    fprintf(stderr, "MODEL (flavour %u, options %02x, chaos %u): ",
            w->header[0] % 4, w->header[1], w->header[2]);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    for (uint64_t i = 0; w->machine; i++) {
        const char *text = pgshare_mock_violation(w->machine, i);

        if (!text)
            break;
        fprintf(stderr, "  violation: %s\n", text);
    }
    abort();
}

int world_expect(struct world *w, int r, uint64_t legal)
{
    const struct pgshare_mock_chaos *chaos = &w->options.chaos;

    if (chaos->refuse || chaos->lose)
        legal |= E(BACKEND);
    if (w->fail_every)
        legal |= E(NOMEM);
    if (w->header[1] & PGS_STREAM_NARROW)
        legal |= E(FULL) | E(BUSY);
    if (w->options.without)
        legal |= E(NOTSUP);
    if (w->options.sharers_max)
        legal |= E(FULL);
    for (unsigned i = 0; i < DOMAINS; i++)
        if (w->guests[i].dead)
            legal |= E(GONE);
    if (r > 0 || (r < 0 && (r < -63 || !(legal >> -r & 1))))
        world_fail(w, "%s (%d) is none of its documented answers",
                   pgshare_error_name(r), r);
    return r;
}

/* ---- what the library borrows ------------------------------------------ */

static void *allocate(void *ctx, size_t bytes, size_t align, uint32_t flags)
{
    struct world *w = ctx;
    void *block = NULL;

    if (w->fail_every && !w->settling && --w->fail_in == 0) {
        w->fail_in = w->fail_every;
        return NULL;
    }
    if (bytes >= LARGE) {
        block = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        block = block == MAP_FAILED ? NULL : block;
    } else if (posix_memalign(&block, align, bytes))
        block = NULL;
    else if (flags & PGSHARE_ALLOC_ZERO)
        memset(block, 0, bytes);
    if (block)
        w->live += bytes;
    return block;
}

static void release(void *ctx, void *block, size_t bytes)
{
    struct world *w = ctx;

    w->live -= bytes;
    if (bytes >= LARGE)
        munmap(block, bytes);
    else
        free(block);
}

/* A device of the mock, which does not wait: it has what it asked for, and
 * gives it back. */
static void end_device(struct world *w, const struct pgshare_outcome *outcome)
{
    if (outcome->kind != PGSHARE_OUTCOME_GET)
        return;
    if (!outcome->result)
        pgshare_gfn_put(w->host, outcome->dom, outcome->gfn, outcome->count,
                        PGSHARE_GET_WRITE);
    if (--w->devices)
        return;
    for (unsigned k = 0; k < DOMAINS; k++)
        for (uint32_t i = 0; i < PAGES; i++)
            w->guests[k].pages[i].flags &= ~(uint32_t)P_DEVICE;
}

static void on_outcome(void *ctx, const struct pgshare_outcome *outcome)
{
    struct world *w = ctx;
    struct waiting *waiting = outcome->cookie;
    struct guest *g;

    if (!waiting) {
        end_device(w, outcome);
        return;
    }
    g = waiting->guest;
    if (!g || waiting->token != outcome->token)
        world_fail(w, "an outcome with a cookie that nobody waits for");
    world_say(w, "outcome %u of GFN %" PRIu64 "+%" PRIu64 ": %s",
              outcome->kind, outcome->gfn, outcome->count,
              pgshare_error_name(outcome->result));
    if (outcome->dom != g->dom)
        world_fail(w, "an outcome of another domain");
    if (outcome->kind == PGSHARE_OUTCOME_GET && !outcome->result &&
        !model_hold_add(w, g, outcome->gfn, outcome->count, waiting->intent))
        pgshare_gfn_put(w->host, outcome->dom, outcome->gfn, outcome->count,
                        waiting->intent);
    op_ended(w, waiting, outcome->result, NULL);
}

/* The page that paid was its guest's oldest. */
static void check_oldest(struct world *w, struct guest *g, uint64_t gfn)
{
    uint64_t pushed, i = gfn - g->base;

    /* a page that the backend could not take is passed over, too */
    if (i >= PAGES || w->options.chaos.refuse || w->options.chaos.lose)
        return;
    pushed = g->pages[i].pushed;
    for (uint32_t k = 0; pushed && k < PAGES; k++)
        if (g->pages[k].flags & P_VOLATILE && g->pages[k].pushed &&
            g->pages[k].pushed < pushed &&
            check_info(w, g, k).flags & PGSHARE_GFN_VOLATILE)
            world_fail(w, "GFN %" PRIu64 " of domain %u has paid before "
                       "GFN %" PRIu64 ", which is older", gfn,
                       (unsigned)(g - w->guests), g->base + k);
}

static void on_report(void *ctx, const struct pgshare_report *report)
{
    struct world *w = ctx;

    world_say(w, "report %u of GFN %" PRIu64 "+%" PRIu64 ": %s", report->kind,
              report->gfn, report->count, pgshare_error_name(report->error));
    for (unsigned i = 0; i < DOMAINS; i++) {
        struct guest *g = &w->guests[i];

        if (!g->mock || g->dom != report->dom)
            continue;
        if (report->kind == PGSHARE_REPORT_RECLAIMED)
            check_oldest(w, g, report->gfn);
        if (report->kind == PGSHARE_REPORT_DOMAIN_REMOVED) {
            g->leaving = false;
            g->dom = 0;
        }
        if (report->kind == PGSHARE_REPORT_RING_DETACHED)
            g->ring = NULL;
    }
}

static void on_violation(void *ctx, const char *text)
{
    struct world *w = ctx;

    if (w->trace)
        fprintf(stderr, "violation: %s\n", text);
}

/* ---- contents ---------------------------------------------------------- */

void world_pattern(uint32_t number, uint8_t *ret_page)
{
    if (number == 0) {
        memset(ret_page, 0, PGSHARE_PAGE_SIZE);
        return;
    }
    for (uint32_t i = 0; i < PGSHARE_PAGE_SIZE; i++)
        ret_page[i] = (uint8_t)(number * 41 + i / 64 * 3);
}

static void block_content(void *ctx, uint64_t block, void *ret_page)
{
    (void)ctx;
    world_pattern((uint32_t)(block % 10), ret_page);
}

/* ---- making ------------------------------------------------------------ */

/* What chance may do, by the header's third byte. In a million. */
static void set_chaos(struct pgshare_mock_chaos *chaos, uint8_t level)
{
    uint32_t little = 30000, much = 400000;

    *chaos = (struct pgshare_mock_chaos){ .delay_polls = 1 + level % 5 };
    switch (level % 8) {
    case 0:
    case 1:
        return; /* all at once */
    case 2:
        chaos->delay_answer = much;
        break;
    case 3:
        chaos->delay_op = much;
        chaos->reorder = much;
        break;
    case 4:
        chaos->delay_op = chaos->delay_answer = much / 2;
        chaos->split = chaos->reorder = much;
        chaos->twice = little;
        break;
    case 5:
        chaos->refuse = little;
        chaos->delay_op = little;
        break;
    case 6:
        chaos->lose = little;
        chaos->delay_answer = little;
        break;
    default:
        chaos->lose = chaos->refuse = chaos->twice = little;
        chaos->delay_op = chaos->delay_answer = chaos->split = much / 4;
        chaos->reorder = much;
        break;
    }
}

#define BIT(kind) (UINT64_C(1) << PGSHARE_OP_##kind)

/* What the backend pretends not to have. */
static uint64_t left_out(uint8_t choice)
{
    static const uint64_t some[] = {
        BIT(FINGERPRINT), BIT(CLONE),   BIT(READ_ONLY), BIT(RESERVE),
        BIT(GRANT),       BIT(SUSPEND), BIT(FORK),      BIT(RECLAIM),
        BIT(QUERY),
    };

    return choice < 200 ? 0 : some[choice % (sizeof(some) / sizeof(some[0]))];
}

static void make_machine(struct world *w)
{
    static const uint32_t extents[] = { 512, 1, 3, 16, 512, 512, 64, 7 };
    const uint8_t *h = w->header;
    struct pgshare_mock_options *o = &w->options;

    *o = (struct pgshare_mock_options){
        .size = sizeof(*o),
        .flavour = h[0] % 4,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID,
        .frames = h[1] & PGS_STREAM_LITTLE ? 176 : 640,
        .seed = (uint64_t)h[4] << 8 | h[5] | UINT64_C(0x10000),
        .poll_ns = POLL_NS,
        .zeroed = 4,
        .extent_max = extents[h[6] % 8],
        .sharers_max = h[6] >> 6 == 3 ? 3 : 0,
        .extent_cost_ns = h[6] >> 5 & 1 ? 8000 : 0,
        .without = left_out(h[3]),
        .violation = on_violation,
        .ctx = w,
    };
    if (h[1] & PGS_STREAM_STEPS)
        o->flags |= PGSHARE_MOCK_STEPS;
    if (h[1] & PGS_STREAM_CHANGE_LOG)
        o->flags |= PGSHARE_MOCK_CHANGE_LOG;
    if (pgshare_mock_machine_new(o, &w->machine))
        world_fail(w, "no machine");
}

static void make_host(struct world *w)
{
    const uint8_t *h = w->header;
    struct pgshare_host_options o = {
        .size = sizeof(o),
        .allocator = &w->allocator,
        .platform = pgshare_mock_platform(w->machine),
        .outcome = on_outcome,
        .report = on_report,
        .ctx = w,
        .timeout_ns = 3 * POLL_NS,
        .op_timeout_ns = OP_TIMEOUT_NS,
        .reserve_min =
            w->options.without & BIT(RESERVE) ? 0 : h[7] % 16,
    };

    if (h[1] & PGS_STREAM_NARROW) {
        o.max_calls = 8;
        o.max_protected = 6;
        o.max_hints = 4;
        o.max_map_entries = 16;
    }
    if (h[1] & PGS_STREAM_GIVE_BACK)
        o.reserve_keep = 1;
    if (pgshare_host_new(pgshare_mock_backend(w->machine), &o, &w->host))
        world_fail(w, "no host");
}

void world_make(struct world *w, const uint8_t *header)
{
    struct pgshare_mock_disk_options disk = {
        .size = sizeof(disk),
        .blocks = BLOCKS,
        .content = block_content,
    };

    memcpy(w->header, header, sizeof(w->header));
    w->allocator = (struct pgshare_allocator){
        .size = sizeof(w->allocator),
        .ctx = w,
        .alloc = allocate,
        .free = release,
    };
    make_machine(w);
    make_host(w);
    if (pgshare_mock_disk_new(w->machine, &disk, &w->disk) ||
        pgshare_group_open(w->host, "red", &w->groups[1]) ||
        pgshare_group_open(w->host, "blue", &w->groups[2]))
        world_fail(w, "no disk, or no groups");
    for (unsigned i = 0; i < 3; i++)
        guest_make(w, &w->guests[i], i == 2 ? 2 : 1, false);
    if (header[1] & PGS_STREAM_NO_MEMORY)
        w->fail_every = w->fail_in = 7 + header[7] % 32;
    set_chaos(&w->chaos, header[2]);
    if (w->options.without & (BIT(QUERY) | BIT(RESERVE)))
        w->chaos.lose = 0; /* nobody could ever know */
    w->options.chaos = w->chaos;
    pgshare_mock_chaos_set(w->machine, &w->chaos);
    if (header[1] & PGS_STREAM_GUESTS)
        pgshare_mock_schedule(w->machine, op_hook, w, 150000);
}

struct pgshare_mock_info world_info(struct world *w)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    if (pgshare_mock_info(w->machine, &info))
        world_fail(w, "no information about the machine");
    return info;
}

uint64_t world_waits(struct world *w)
{
    uint64_t n = w->devices;

    for (unsigned i = 0; i < WAITING; i++)
        n += w->waiting[i].guest != NULL;
    return n;
}

bool world_is_quiet(struct world *w)
{
    struct pgshare_mock_info info = world_info(w);

    return !info.pending && !info.parked && !world_waits(w);
}

bool world_is_racy(const struct world *w)
{
    return w->header[1] & PGS_STREAM_GUESTS && !w->settling;
}

static bool anybody_leaves(const struct world *w)
{
    for (unsigned i = 0; i < DOMAINS; i++)
        if (w->guests[i].mock && w->guests[i].leaving)
            return true;
    return false;
}

void world_settle(struct world *w)
{
    struct pgshare_budget budget = {
        .size = sizeof(budget), .time_ns = 1000000000, .pages = 100000
    };
    struct pgshare_progress progress = { .size = sizeof(progress) };
    struct pgshare_mock_info info;
    unsigned idle = 0; /* rounds in a row: what was lost is asked about, too */

    w->settling = true;
    pgshare_mock_chaos_set(w->machine, NULL);
    pgshare_mock_deliver(w->machine);
    pgshare_host_settle(w->host, 20 * POLL_NS);
    for (unsigned i = 0; idle < 8 && i < 300; i++) {
        int r;

        pgshare_mock_deliver(w->machine);
        r = pgshare_host_run(w->host, &budget, &progress);
        if (r)
            world_fail(w, "run: %s", pgshare_error_name(r));
        depopulate_again(w);
        idle = progress.more || !world_is_quiet(w) || anybody_leaves(w)
                   ? 0
                   : idle + 1;
        pgshare_mock_clock_advance(w->machine, OP_TIMEOUT_NS);
    }
    info = world_info(w);
    if (world_waits(w) || info.pending || anybody_leaves(w))
        world_fail(w, "%" PRIu64 " calls and %" PRIu64 " operations do not end",
                   world_waits(w), info.pending);
    if (info.parked && info.free > 8 && !w->unsecured)
        world_fail(w, "%" PRIu64 " writes wait for ever", info.parked);
    pgshare_mock_chaos_set(w->machine, &w->chaos);
    w->settling = false;
}

/* ---- the end ----------------------------------------------------------- */

static void check_machine(struct world *w, const char *when)
{
    struct pgshare_mock_info info;

    pgshare_mock_check(w->machine);
    info = world_info(w);
    if (info.violations)
        world_fail(w, "%" PRIu64 " violations %s", info.violations, when);
}

/* The guests' content outlives the host. */
void world_unmake(struct world *w)
{
    struct pgshare_mock_info info;

    pgshare_mock_schedule(w->machine, op_hook, w, 0);
    world_settle(w);
    check_all(w);
    w->settling = true;
    pgshare_mock_chaos_set(w->machine, NULL);
    w->host = pgshare_host_free(w->host);
    if (w->live)
        world_fail(w, "%" PRIu64 " bytes are lost", w->live);
    for (unsigned i = 0; i < DOMAINS; i++)
        w->guests[i].dom = 0;
    for (unsigned i = 0; i < 4 && world_info(w).parked; i++)
        pgshare_mock_poll(w->machine);
    check_pages(w, world_is_quiet(w));
    check_machine(w, "after the host's end");
    for (unsigned i = 0; i < DOMAINS; i++) {
        free(w->guests[i].ring_memory);
        pgshare_mock_domain_free(w->guests[i].mock);
    }
    info = world_info(w);
    if (info.free != info.frames && !w->chaos.lose)
        world_fail(w, "%" PRIu64 " of %" PRIu64 " frames are free at the end",
                   info.free, info.frames);
    check_machine(w, "at the end");
    pgshare_mock_machine_free(w->machine);
}
