/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scenario is written for failures: a step that was refused leaves the
 * guests' memory as the library promises, which the shadow follows, and the
 * next step goes on from there. Errors that no injected failure can explain
 * fail the test at once.
 */
#include "fault/scenario.h"

#include <pgshare/guest_ring.h>

#define A 0u
#define B 1u
#define C 2u
#define CHILD 3u

#define E(name) (1u << -PGSHARE_ERR_##name)
/* What a failure may lead to, in the call itself or in one that builds on it;
 * never that a handle, range, struct or trust group was wrong. */
#define POSSIBLE                                                              \
    (E(NOMEM) | E(NOFRAME) | E(BUSY) | E(INPROGRESS) | E(TICKET) |            \
     E(SOURCE_TICKET) | E(CLIENT_TICKET) | E(DIFFERENT) | E(HOLE) |           \
     E(RECLAIMED) | E(OWED) | E(ENTITLEMENT) | E(FULL) | E(BACKEND) |         \
     E(READONLY) | E(STATE) | E(EXISTS) | E(NEVER_SHARE))

static int may_fail(const char *what, int r)
{
    if (r && (r <= -32 || r > 0 || !(POSSIBLE >> -r & 1)))
        ck_abort_msg("%s: %s", what, pgshare_error_name(r));
    return r;
}

#define TRY(call) may_fail(#call, call)

/* Content is as before, or zeroes. */
static void doubt(struct rig *rig, unsigned g, uint64_t gfn, uint64_t n)
{
    rig_expect(rig, g, gfn, n, OR_ZERO);
}

static void write_some(struct rig *rig, unsigned g, uint64_t gfn, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        TRY(rig_write(rig, g, gfn + i));
}

static void run(struct rig *rig)
{
    TRY(pgshare_host_settle(rig->host, 5000000));
}

/* ---- steps, each with GFNs of its own ---------------------------------- */

static void marks(struct rig *rig)
{
    uint64_t dom = rig_dom(rig, A), tickets[4];

    TRY(pgshare_mark_ro(rig->host, dom, 0, 4, tickets, NULL));
    TRY(pgshare_unmark(rig->host, dom, 0, 2, NULL, NULL));
    write_some(rig, A, 0, 4);
}

static void shares(struct rig *rig)
{
    rig_fill(rig, A, 4, 8, 7);
    rig_fill(rig, B, 4, 8, 7);
    rig_fill(rig, C, 4, 8, 7);
    rig_fill(rig, C, 12, 8, 7);
    TRY(rig_share(rig, A, 4, B, 4, 8));
    TRY(rig_share(rig, C, 4, C, 12, 8));
    TRY(rig_share(rig, B, 4, C, 4, 8)); /* joins two frames */
    write_some(rig, A, 4, 3);
    write_some(rig, B, 4, 2);
    write_some(rig, C, 4, 2);
    write_some(rig, C, 12, 2);
    TRY(pgshare_unshare(rig->host, rig_dom(rig, C), 6, 2, NULL));
    run(rig);
}

static void cycle(struct rig *rig)
{
    uint64_t dom = rig_dom(rig, A);

    rig_fill(rig, A, 12, 4, 8);
    doubt(rig, A, 12, 4);
    TRY(pgshare_declare_free(rig->host, dom, 12, 4));
    run(rig);
    TRY(pgshare_declare_scrub(rig->host, dom, 12, 2));
    TRY(pgshare_declare_allocated(rig->host, dom, 12, 4));
    write_some(rig, A, 13, 1);
    rig_expect(rig, A, 13, 1, NOTHING);
    TRY(pgshare_declare_overwrite(rig->host, dom, 6, 1));
    TRY(rig_write_page(rig, A, 6, 9));
}

static void declarations(struct rig *rig)
{
    uint64_t dom = rig_dom(rig, B);

    TRY(pgshare_declare_never_share(rig->host, dom, 8, 2, 1, NULL));
    run(rig);
    TRY(pgshare_declare_read_only(rig->host, dom, 10, 2, 1));
    write_some(rig, B, 10, 1);
    TRY(pgshare_declare_read_only(rig->host, dom, 10, 2, 0));
    write_some(rig, B, 10, 2);
}

static void holds(struct rig *rig)
{
    uint64_t dom = rig_dom(rig, C);

    for (uint32_t intent = PGSHARE_GET_READ; intent <= PGSHARE_GET_OVERWRITE;
         intent++) {
        struct pgshare_call call = { .size = sizeof(call),
                                     .timeout_ns = 5000000 };
        unsigned before = rig->outcomes;
        int r;

        if (intent == PGSHARE_GET_OVERWRITE)
            doubt(rig, C, 8, 3);
        r = TRY(pgshare_gfn_get(rig->host, dom, 8, 3, intent, &call));
        if (call.done)
            TRY(pgshare_gfn_put(rig->host, dom, 8, call.done, intent));
        if (r != PGSHARE_ERR_INPROGRESS)
            continue;
        for (unsigned i = 0; i < 50 && rig->outcomes == before; i++)
            run(rig);
        if (rig->outcomes != before && !rig->outcome.result)
            TRY(pgshare_gfn_put(rig->host, dom, rig->outcome.gfn, 1, intent));
    }
}

/* Equal pages, which the passes before may have shared. */
static void write_equal(struct rig *rig)
{
    for (unsigned i = 0; i < 4; i++) {
        TRY(rig_write_page(rig, A, 32 + i, 50 + i));
        TRY(rig_write_page(rig, B, 40 + i, 50 + i));
    }
}

static void hints(struct rig *rig)
{
    struct pgshare_scan_options on = { .size = sizeof(on),
                                       .flags = PGSHARE_SCAN_ON };
    uint64_t a = rig_dom(rig, A), b = rig_dom(rig, B), c = rig_dom(rig, C);

    rig_fill(rig, A, 16, 6, 3);
    rig_fill(rig, B, 16, 6, 3);
    rig_fill(rig, C, 22, 6, 3);
    TRY(pgshare_library_add(rig->host, 9, 0, 10));
    TRY(pgshare_hint_block(rig->host, a, 16, 2, 1, 1));
    TRY(pgshare_hint_block(rig->host, b, 16, 2, 1, 1));
    TRY(pgshare_hint_file(rig->host, a, 18, 2, 9, 0));
    TRY(pgshare_hint_file(rig->host, b, 18, 2, 9, 0));
    TRY(pgshare_hint_same(rig->host, a, 20, b, 20, 2));
    TRY(pgshare_hint_lineage(rig->host, a, b));
    run(rig);
    TRY(pgshare_host_pass(rig->host, c));
    TRY(pgshare_host_pass(rig->host, 0));
    run(rig);
    TRY(pgshare_scan_floor(rig->host, b, 0, 16, 1));
    write_equal(rig);
    TRY(pgshare_scan_set(rig->host, &on));
    run(rig);
    TRY(pgshare_scan_step(rig->host, NULL, NULL));
    TRY(pgshare_scan_set(rig->host, NULL));
    run(rig);
    write_some(rig, B, 16, 3);
}

static void ledger(struct rig *rig)
{
    uint64_t dom = rig_dom(rig, A), none = PGSHARE_GFN_NONE;
    int r;

    doubt(rig, A, 24, 4);
    TRY(pgshare_unshare(rig->host, dom, 24, 4, NULL));
    TRY(pgshare_declare_volatile(rig->host, dom, 24, 4, NULL));
    rig_expect(rig, A, 60, 4, NOTHING);
    TRY(pgshare_domain_ram_remove(rig->host, dom, 60, 4, NULL));
    r = TRY(pgshare_bonus_claim(rig->host, dom, none, 2, NULL));
    if (!r)
        TRY(pgshare_bonus_return(rig->host, dom, none, 2, NULL));
    TRY(pgshare_service_set(rig->host, dom, rig_dom(rig, B)));
    TRY(pgshare_service_set(rig->host, dom, 0));
    TRY(pgshare_declare_withdraw(rig->host, dom, 24, 4, NULL));
    TRY(pgshare_reserve_set(rig->host, 20, NULL));
    TRY(pgshare_reserve_set(rig->host, 0, NULL));
}

static void rings(struct rig *rig)
{
    static _Alignas(4096) unsigned char memory[4096];
    struct pgshare_guest_ring *ring = (void *)memory;
    struct pgshare_guest_ring_answer answer;
    uint64_t dom = rig_dom(rig, C);

    memset(memory, 0, sizeof(memory));
    pgshare_guest_ring_init(ring);
    doubt(rig, C, 30, 4);
    if (TRY(pgshare_ring_attach(rig->host, dom, ring, sizeof(memory))))
        return;
    pgshare_guest_ring_put(ring, PGSHARE_GUEST_RING_FREE, 30, 2, 1);
    pgshare_guest_ring_put(ring, PGSHARE_GUEST_RING_ALLOCATED, 30, 2, 2);
    pgshare_guest_ring_put(ring, PGSHARE_GUEST_RING_PUSH, 32, 2, 3);
    pgshare_guest_ring_put(ring, PGSHARE_GUEST_RING_WITHDRAW, 32, 1, 4);
    TRY(pgshare_ring_kick(rig->host, dom));
    while (pgshare_guest_ring_take(ring, &answer))
        may_fail("an answer of the ring", answer.result);
    TRY(pgshare_ring_detach(rig->host, dom));
}

static void forks(struct rig *rig)
{
    struct pgshare_fork_info info = { .size = sizeof(info) };
    int r;

    if (!rig->guests[CHILD].joined)
        return;
    rig_expect(rig, CHILD, 0, GFNS, NOTHING);
    if (!TRY(pgshare_domain_freeze(rig->host, rig_dom(rig, B), NULL))) {
        r = TRY(pgshare_fork(rig->host, rig_dom(rig, B), rig_dom(rig, CHILD),
                             NULL, NULL, &info));
        if (!r)
            rig_expect_copy(rig, CHILD, 0, GFNS, B, 0);
        TRY(pgshare_domain_thaw(rig->host, rig_dom(rig, B)));
        write_some(rig, CHILD, 0, 4);
        write_some(rig, B, 2, 4);
    }
}

static void memory(struct rig *rig)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    uint64_t dom = rig_dom(rig, A);

    TRY(pgshare_domain_suspend(rig->host, dom));
    TRY(pgshare_domain_resume(rig->host, dom));
    TRY(pgshare_domain_unshare(rig->host, dom, 0, GFNS, 0, &progress));
    doubt(rig, C, 20, 2);
    TRY(rig->ops->drop(rig->guests[C].impl, 20, 2, 0));
    run(rig);
}

static int ignore(void *ctx, uint64_t dom, uint64_t gfn)
{
    return 0;
}

static void questions(struct rig *rig)
{
    struct pgshare_frame_info info = { .size = sizeof(info) };
    struct pgshare_account account = { .size = sizeof(account) };
    uint64_t other;

    while (!pgshare_cow_next(rig->host, info.frame, &info))
        pgshare_frame_mappings(rig->host, info.frame, ignore, NULL);
    TRY(pgshare_account(rig->host, rig_dom(rig, A), &account));
    TRY(pgshare_group_open(rig->host, "another", &other));
}

/* ------------------------------------------------------------------------ */

void scenario_run(int machine, const struct failure *failure)
{
    static void (*const steps[])(struct rig *rig) = {
        marks, shares, cycle, declarations, holds, hints,
        ledger, rings, forks, memory, questions,
    };
    struct rig_options options = {
        .frames = 512,
        .decorated = true,
        .host = { .timeout_ns = 2000000,
                  .op_timeout_ns = 500000,
                  .max_calls = 32,
                  .max_hints = 64,
                  .max_protected = 256,
                  .max_map_entries = 64 },
    };
    bool begun = true;
    struct rig rig;

    pgs_tracker_fail_never(pgs_test_tracker());
    rig_open_with(&rig, machine, &options);
    failure->begin(&rig, failure->ctx);
    for (unsigned g = 0; g < 4; g++) {
        rig_new_guest(&rig, 0, 0, g != CHILD);
        if (TRY(rig_try_join(&rig, g, rig.group)) && g != CHILD)
            begun = false;
    }
    for (unsigned i = 0; begun && i < sizeof(steps) / sizeof(steps[0]); i++)
        steps[i](&rig);
    if (begun)
        TRY(rig_leave(&rig, C));
    failure->calm(&rig, failure->ctx);
    rig_close(&rig);
}
