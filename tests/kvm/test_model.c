/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations, library and backend against a naive model: what each page
 * holds (the rig's shadow), and what was said of it. After every few operations
 * all bytes are compared, and the books audited, with the kernel's view of them.
 *
 * A failure names the seed; with PGS_TEST_SEED set to it the same operations
 * follow each other again, and with PGS_TEST_TRACE set each is told.
 */
#include "contract/rig.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MODEL_GUESTS 3u
#define STREAMS 6u
#define STEPS 400u
#define CHECK_EVERY 50u
#define RUN_MAX 8u
#define TAGS 3u

#define E(error) (UINT64_C(1) << -PGSHARE_ERR_##error)

/* What the guest, or its owner, has said of a page. */
enum said {
    SAID_FREE = 1 << 0,
    SAID_VOLATILE = 1 << 1,
    SAID_HELD = 1 << 2, /* for reading */
    SAID_HELD_WRITE = 1 << 3,
    SAID_READ_ONLY = 1 << 4,
    SAID_BONUS = 1 << 5 /* it was lent: it is not to be given away */
};

struct model {
    struct rig rig;
    uint64_t word; /* randomness */
    bool trace;
    bool suspended[MODEL_GUESTS];
    uint8_t said[MODEL_GUESTS][GFNS];
};

/* A run of pages of a guest. */
struct place {
    unsigned g;
    uint64_t gfn;
    uint64_t n;
};

static uint64_t below(struct model *m, uint64_t limit)
{
    m->word = m->word * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (m->word >> 33) % limit;
}

static struct place choose(struct model *m)
{
    struct place place = { .g = (unsigned)below(m, MODEL_GUESTS) };

    place.n = 1 + below(m, RUN_MAX);
    place.gfn = below(m, GFNS - place.n + 1);
    return place;
}

static uint64_t dom(struct model *m, unsigned g)
{
    return rig_dom(&m->rig, g);
}

static void say(struct model *m, const char *what, const struct place *place,
                int r)
{
    if (m->trace)
        fprintf(stderr, "%s %u:%" PRIu64 "+%" PRIu64 ": %s\n", what, place->g,
                place->gfn, place->n, pgshare_error_name(r));
}

static void expect(struct model *m, const char *what, const struct place *place,
                   int r, uint64_t legal)
{
    say(m, what, place, r);
    if (r && !(legal >> -r & 1))
        ck_abort_msg("%s of %u:%" PRIu64 "+%" PRIu64 " answers %s", what,
                     place->g, place->gfn, place->n, pgshare_error_name(r));
}

static bool is_memory(const struct model *m, unsigned g, uint64_t gfn)
{
    return m->rig.guests[g].known[gfn] != HOLE;
}

/* Is all of it memory of which nothing like that was said? */
static bool is_plain(const struct model *m, const struct place *place,
                     unsigned said)
{
    for (uint64_t i = place->gfn; i < place->gfn + place->n; i++)
        if (!is_memory(m, place->g, i) || m->said[place->g][i] & said)
            return false;
    return true;
}

/* ---- what guests do ---------------------------------------------------- */

#define NOT_TO_BE_WRITTEN (SAID_FREE | SAID_VOLATILE | SAID_READ_ONLY)
#define NOT_TO_BE_TAKEN \
    (SAID_HELD | SAID_HELD_WRITE | SAID_READ_ONLY | SAID_BONUS)

static void op_fill(struct model *m)
{
    struct place place = choose(m);

    if (!is_plain(m, &place, NOT_TO_BE_WRITTEN))
        return;
    say(m, "fill", &place, 0);
    for (uint64_t i = place.gfn; i < place.gfn + place.n; i++)
        rig_fill(&m->rig, place.g, i, 1, below(m, TAGS));
}

static void op_write(struct model *m)
{
    struct place place = choose(m);

    place.n = 1;
    if (is_plain(m, &place, NOT_TO_BE_WRITTEN) &&
        m->rig.guests[place.g].known[place.gfn] == EXACT)
        expect(m, "write", &place, rig_write(&m->rig, place.g, place.gfn), 0);
}

static void op_balloon(struct model *m)
{
    struct place place = choose(m);
    void *impl = m->rig.guests[place.g].impl;
    bool memory = is_memory(m, place.g, place.gfn);
    int r;

    place.n = 1;
    if (memory && !is_plain(m, &place, NOT_TO_BE_TAKEN))
        return;
    r = memory ? m->rig.ops->depopulate(impl, place.gfn, 1)
               : m->rig.ops->populate(impl, place.gfn, 1);
    expect(m, memory ? "inflate" : "deflate", &place, r,
           E(BUSY) | E(OWED) | E(NOFRAME));
    if (r)
        return;
    m->said[place.g][place.gfn] = 0;
    if (memory)
        rig_expect(&m->rig, place.g, place.gfn, 1, HOLE);
    else
        rig_expect_zero(&m->rig, place.g, place.gfn, 1);
}

/* ---- what is shared ---------------------------------------------------- */

static void op_share(struct model *m)
{
    struct place client = choose(m), source = choose(m);
    uint64_t legal = E(DIFFERENT) | E(BUSY) | E(HOLE) | E(NEVER_SHARE) |
                     E(SUSPENDED) | E(INVALID) | E(CLIENT_TICKET) |
                     E(SOURCE_TICKET) | E(NOFRAME);
    uint64_t n = client.n < source.n ? client.n : source.n;

    client.n = n;
    expect(m, "share", &client,
           rig_share(&m->rig, source.g, source.gfn, client.g, client.gfn, n),
           legal);
}

static void op_mark(struct model *m)
{
    struct place place = choose(m);
    uint64_t tickets[RUN_MAX];

    expect(m, "mark", &place,
           pgshare_mark_ro(m->rig.host, dom(m, place.g), place.gfn, place.n,
                           tickets, NULL),
           E(BUSY) | E(HOLE) | E(NEVER_SHARE) | E(SUSPENDED) | E(STATE) |
               E(FULL));
}

static void op_unmark(struct model *m)
{
    struct place place = choose(m);

    expect(m, "unmark", &place,
           pgshare_unmark(m->rig.host, dom(m, place.g), place.gfn, place.n,
                          NULL, NULL),
           E(BUSY) | E(HOLE) | E(STATE) | E(TICKET));
}

static void op_unshare(struct model *m)
{
    struct place place = choose(m);

    expect(m, "unshare", &place,
           pgshare_unshare(m->rig.host, dom(m, place.g), place.gfn, place.n,
                           NULL),
           E(NOFRAME) | E(HOLE));
}

static void op_pass(struct model *m)
{
    struct place none = { .g = 0 };

    say(m, "pass", &none, 0);
    pgshare_host_pass(m->rig.host, 0);
    for (uint64_t i = below(m, 8); i; i--)
        pgshare_host_run(m->rig.host, NULL, NULL);
}

static void op_settle(struct model *m)
{
    struct place none = { .g = 0 };

    say(m, "settle", &none, 0);
    rig_settle(&m->rig);
}

/* ---- what is said of pages --------------------------------------------- */

static void op_free(struct model *m)
{
    struct place place = choose(m);
    int r;

    if (!is_plain(m, &place, ~0u))
        return;
    r = pgshare_declare_free(m->rig.host, dom(m, place.g), place.gfn, place.n);
    expect(m, "free", &place, r, 0);
    for (uint64_t i = place.gfn; i < place.gfn + place.n; i++)
        m->said[place.g][i] |= SAID_FREE;
    rig_expect(&m->rig, place.g, place.gfn, place.n, OR_ZERO);
}

static void op_allocated(struct model *m)
{
    struct place place = choose(m);

    for (uint64_t i = place.gfn; i < place.gfn + place.n; i++) {
        struct place one = { place.g, i, 1 };

        if (!(m->said[place.g][i] & SAID_FREE))
            continue;
        expect(m, "allocated", &one,
               pgshare_declare_allocated(m->rig.host, dom(m, place.g), i, 1),
               0);
        m->said[place.g][i] = 0;
    }
}

static void op_volatile(struct model *m)
{
    struct place place = choose(m);
    int r;

    place.n = 1;
    if (!is_plain(m, &place, ~0u) ||
        m->rig.guests[place.g].known[place.gfn] != EXACT)
        return;
    r = pgshare_declare_volatile(m->rig.host, dom(m, place.g), place.gfn, 1,
                                 NULL);
    expect(m, "volatile", &place, r, E(STATE) | E(BUSY));
    if (r)
        return;
    m->said[place.g][place.gfn] = SAID_VOLATILE;
    rig_expect(&m->rig, place.g, place.gfn, 1, OR_ZERO);
}

static void withdraw(struct model *m, const struct place *one)
{
    int r = pgshare_declare_withdraw(m->rig.host, dom(m, one->g), one->gfn, 1,
                                     NULL);

    expect(m, "withdraw", one, r, E(RECLAIMED) | E(BUSY) | E(OWED));
    if (r == PGSHARE_ERR_BUSY || r == PGSHARE_ERR_OWED)
        return;
    m->said[one->g][one->gfn] = 0;
    if (r)
        rig_expect_zero(&m->rig, one->g, one->gfn, 1);
    else
        rig_expect(&m->rig, one->g, one->gfn, 1, EXACT);
}

static void op_withdraw(struct model *m)
{
    struct place place = choose(m);

    for (uint64_t i = 0; i < GFNS; i++) {
        struct place one = { place.g, i, 1 };

        if (m->said[place.g][i] & SAID_VOLATILE && below(m, 2))
            withdraw(m, &one);
    }
}

/* Offered pages are worth memory. */
static void op_claim(struct model *m)
{
    struct place place = choose(m);
    int r;

    place.n = 1;
    if (is_memory(m, place.g, place.gfn))
        return;
    r = pgshare_bonus_claim(m->rig.host, dom(m, place.g), place.gfn, 1, NULL);
    expect(m, "claim", &place, r,
           E(ENTITLEMENT) | E(OWED) | E(NOFRAME) | E(BUSY));
    if (r)
        return;
    rig_expect_zero(&m->rig, place.g, place.gfn, 1);
    m->said[place.g][place.gfn] = SAID_BONUS;
}

static void op_hold(struct model *m)
{
    struct place place = choose(m);
    bool write = below(m, 2);
    int r;

    place.n = 1;
    if (!is_plain(m, &place, ~0u))
        return;
    r = pgshare_gfn_get(m->rig.host, dom(m, place.g), place.gfn, 1,
                        write ? PGSHARE_GET_WRITE : PGSHARE_GET_READ, NULL);
    expect(m, "get", &place, r, E(NOFRAME) | E(BUSY));
    if (!r)
        m->said[place.g][place.gfn] = write ? SAID_HELD_WRITE : SAID_HELD;
}

static void op_put(struct model *m)
{
    struct place place = choose(m);

    for (uint64_t i = 0; i < GFNS; i++) {
        struct place one = { place.g, i, 1 };
        bool write = m->said[place.g][i] & SAID_HELD_WRITE;
        int r;

        if (!(m->said[place.g][i] & (SAID_HELD | SAID_HELD_WRITE)))
            continue;
        r = pgshare_gfn_put(m->rig.host, dom(m, place.g), i, 1,
                            write ? PGSHARE_GET_WRITE : PGSHARE_GET_READ);
        expect(m, "put", &one, r, 0);
        m->said[place.g][i] = 0;
    }
}

static void op_never_share(struct model *m)
{
    struct place place = choose(m);

    expect(m, "never-share", &place,
           pgshare_declare_never_share(m->rig.host, dom(m, place.g), place.gfn,
                                       place.n, (int)below(m, 2), NULL),
           0);
}

static void op_read_only(struct model *m)
{
    struct place place = choose(m);
    bool on = !(m->said[place.g][place.gfn] & SAID_READ_ONLY);
    int r;

    place.n = 1;
    if (!(m->rig.machine->can & CAN_READ_ONLY) ||
        !is_plain(m, &place, ~(unsigned)SAID_READ_ONLY))
        return;
    r = pgshare_declare_read_only(m->rig.host, dom(m, place.g), place.gfn, 1,
                                  on);
    expect(m, on ? "read-only" : "writable", &place, r, E(BUSY));
    if (!r)
        m->said[place.g][place.gfn] = on ? SAID_READ_ONLY : 0;
}

/* ---- what becomes of guests -------------------------------------------- */

static void op_suspend(struct model *m)
{
    struct place place = choose(m);
    bool on = !m->suspended[place.g];
    int r = on ? pgshare_domain_suspend(m->rig.host, dom(m, place.g))
               : pgshare_domain_resume(m->rig.host, dom(m, place.g));

    expect(m, on ? "suspend" : "resume", &place, r, 0);
    m->suspended[place.g] = on;
}

/* What was said of its pages is forgotten; what they hold is not. */
static void op_leave(struct model *m)
{
    struct place place = choose(m);

    expect(m, "leave", &place, rig_leave(&m->rig, place.g), E(INPROGRESS));
    if (m->rig.guests[place.g].joined)
        return;
    rig_check_content(&m->rig);
    memset(m->said[place.g], 0, sizeof(m->said[place.g]));
    m->suspended[place.g] = false;
    rig_join(&m->rig, place.g, m->rig.group);
}

static const struct {
    void (*run)(struct model *m);
    unsigned weight;
} ops[] = {
    { op_fill, 16 },     { op_write, 12 },  { op_balloon, 4 },
    { op_share, 16 },    { op_mark, 3 },    { op_unmark, 2 },
    { op_unshare, 2 },   { op_pass, 6 },    { op_settle, 3 },
    { op_free, 4 },      { op_allocated, 4 }, { op_volatile, 6 },
    { op_withdraw, 3 },  { op_claim, 3 },   { op_hold, 3 },
    { op_put, 2 },       { op_never_share, 2 }, { op_read_only, 3 },
    { op_suspend, 2 },   { op_leave, 1 },
};
#define N_OPS (sizeof(ops) / sizeof(ops[0]))

static void step(struct model *m)
{
    uint64_t all = 0, at;
    unsigned i = 0;

    for (unsigned k = 0; k < N_OPS; k++)
        all += ops[k].weight;
    for (at = below(m, all); at >= ops[i].weight; i++)
        at -= ops[i].weight;
    ops[i].run(m);
}

static void stream(int machine, uint64_t seed)
{
    struct model *m = calloc(1, sizeof(*m));

    ck_assert_ptr_nonnull(m);
    m->word = seed;
    m->trace = getenv("PGS_TEST_TRACE");
    rig_open(&m->rig, machine);
    for (unsigned g = 0; g < MODEL_GUESTS; g++) {
        rig_guest(&m->rig);
        for (uint64_t gfn = 0; gfn < GFNS; gfn++)
            rig_fill(&m->rig, g, gfn, 1, below(m, TAGS));
    }
    for (unsigned i = 0; i < STEPS; i++) {
        step(m);
        if (i % CHECK_EVERY == 0)
            rig_check(&m->rig);
    }
    for (unsigned g = 0; g < MODEL_GUESTS; g++)
        if (m->suspended[g])
            ck_assert_int_eq(pgshare_domain_resume(m->rig.host, dom(m, g)), 0);
    rig_close(&m->rig);
    free(m);
}

START_TEST(whatever_is_done_pages_hold_what_was_written)
{
    uint64_t seed = pgs_test_seed();

    for (unsigned i = 0; i < STREAMS * pgs_test_scale(); i++)
        stream(_i, seed + i);
}
END_TEST

static const struct contract_test tests[] = {
    { &whatever_is_done_pages_hold_what_was_written, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("kvm-model", tests, sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-model", make, argc, argv);
}
