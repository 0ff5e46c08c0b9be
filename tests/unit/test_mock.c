/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mock machine alone: a sink of our own stands for the host, and the
 * contract's operations are submitted by hand.
 */
#include "support/suite.h"

#include <pgshare/domain.h>
#include <pgshare/error.h>
#include <pgshare/gfn.h>
#include <pgshare/mock.h>
#include <pgshare/sys/backend.h>
#include <pgshare/sys/platform.h>

#include <string.h>

#define PAGE PGSHARE_PAGE_SIZE

/* What the host would have been told. */
struct answers {
    struct pgshare_sink sink;
    unsigned completions;
    uint64_t token;
    int result;
    int8_t status[PGSHARE_EXTENT_MAX];
    uint64_t ids[PGSHARE_EXTENT_MAX];
    uint64_t pages; /* answered */
    int64_t reserve;
    uint64_t seq;
    uint64_t broken;
    uint64_t broken_seq;
    uint64_t discarded;
    int discard_answer;
    uint64_t cookie; /* of the last demand */
    unsigned gone;
};

static void sink_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    struct answers *answers = ctx;

    answers->completions++;
    answers->token = completion->token;
    answers->result = completion->result;
    answers->reserve += completion->reserve;
    answers->seq = completion->seq;
    answers->pages += completion->count;
    for (uint32_t i = 0; i < completion->count; i++) {
        uint32_t page = completion->first + i;

        answers->status[page] = completion->status ? completion->status[i]
                                                   : (int8_t)completion->result;
        answers->ids[page] = completion->ids ? completion->ids[i] : 0;
    }
}

static void sink_broken(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                        uint64_t seq)
{
    struct answers *answers = ctx;

    answers->broken += count;
    answers->broken_seq = seq;
}

static int sink_demand(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie)
{
    struct answers *answers = ctx;

    answers->cookie = cookie;
    return 0;
}

static int sink_discarded(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                          int hole, uint64_t seq)
{
    struct answers *answers = ctx;

    if (!answers->discard_answer)
        answers->discarded += count;
    return answers->discard_answer;
}

static void sink_gone(void *ctx, uint64_t dom)
{
    struct answers *answers = ctx;

    answers->gone++;
}

/* A machine with two domains in its "host". */
struct rig {
    struct pgshare_mock_machine *machine;
    struct pgshare_backend *backend;
    struct pgshare_backend_info info;
    struct pgshare_mock_domain *domains[2];
    void *cookies[2];
    struct answers answers;
    uint64_t next_token;
    int fault_answer;
    unsigned faults;
};

static int count_fault(void *ctx, struct pgshare_mock_domain *domain,
                       uint64_t gfn, uint32_t flags)
{
    struct rig *rig = ctx;

    rig->faults++;
    return rig->fault_answer;
}

#define GFNS 512u

static void add_domain(struct rig *rig, unsigned i, uint32_t flags)
{
    struct pgshare_mock_domain_options options = { .size = sizeof(options),
                                                   .flags = flags };
    struct pgshare_domain_options add = { .size = sizeof(add), .gfns = GFNS };
    struct pgshare_domain_attach attach;

    ck_assert_int_eq(pgshare_mock_domain_new(rig->machine, GFNS, &options,
                                             &rig->domains[i]),
                     0);
    if (!(flags & PGSHARE_MOCK_SPARSE))
        ck_assert_int_eq(pgshare_mock_populate(rig->domains[i], 0, 64), 0);
    add.attach = pgshare_mock_attach(rig->domains[i]);
    ck_assert_int_eq(rig->backend->ops->domain_add(rig->backend, 100 + i, &add,
                                                   &attach),
                     0);
    rig->cookies[i] = attach.cookie;
}

static void set_up_options(struct rig *rig,
                           struct pgshare_mock_options *options,
                           uint32_t domain_flags)
{
    memset(rig, 0, sizeof(*rig));
    rig->answers.sink = (struct pgshare_sink){
        .size = sizeof(rig->answers.sink),
        .ctx = &rig->answers,
        .complete = sink_complete,
        .broken = sink_broken,
        .demand = sink_demand,
        .discarded = sink_discarded,
        .gone = sink_gone,
    };
    options->size = sizeof(*options);
    options->fault = count_fault;
    options->ctx = rig;
    rig->fault_answer = PGSHARE_ERR_INPROGRESS;
    ck_assert_int_eq(pgshare_mock_machine_new(options, &rig->machine), 0);
    rig->backend = pgshare_mock_backend(rig->machine);
    ck_assert_int_eq(rig->backend->ops->attach(rig->backend, NULL,
                                               &rig->answers.sink, &rig->info),
                     0);
    add_domain(rig, 0, domain_flags);
    add_domain(rig, 1, domain_flags);
}

static void set_up(struct rig *rig, uint32_t flavour)
{
    struct pgshare_mock_options options = {
        .flavour = flavour,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID |
                 PGSHARE_MOCK_CHANGE_LOG,
        .frames = 1024,
    };

    set_up_options(rig, &options, 0);
}

static uint64_t violations(struct rig *rig)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_mock_info(rig->machine, &info), 0);
    return info.violations;
}

static void assert_sound(struct rig *rig)
{
    pgshare_mock_check(rig->machine);
    ck_assert_msg(!violations(rig), "%s",
                  pgshare_mock_violation(rig->machine, 0));
}

static void tear_down_any(struct rig *rig)
{
    for (unsigned i = 0; i < 2; i++)
        rig->backend->ops->domain_remove(rig->backend, rig->cookies[i]);
    rig->backend->ops->detach(rig->backend);
    pgshare_mock_machine_free(rig->machine);
}

static void tear_down(struct rig *rig)
{
    assert_sound(rig);
    for (unsigned i = 0; i < 2; i++)
        rig->backend->ops->domain_remove(rig->backend, rig->cookies[i]);
    rig->backend->ops->detach(rig->backend);
    assert_sound(rig);
    pgshare_mock_machine_free(rig->machine);
}

/* Submits one operation; the answers of this one are in rig->answers. */
static int op(struct rig *rig, uint32_t kind, int domain, uint64_t gfn,
              uint32_t count, uint32_t flags, const uint64_t *ids)
{
    struct pgshare_op operation = {
        .token = ++rig->next_token,
        .kind = kind,
        .flags = flags,
        .domain = domain < 0 ? NULL : rig->cookies[domain],
        .gfn = gfn,
        .count = count,
        .ids = ids,
    };

    rig->answers.completions = 0;
    rig->answers.pages = 0;
    rig->answers.reserve = 0;
    return rig->backend->ops->submit(rig->backend, &operation, 1);
}

static void op_ok(struct rig *rig, uint32_t kind, int domain, uint64_t gfn,
                  uint32_t count, uint32_t flags, const uint64_t *ids)
{
    ck_assert_int_eq(op(rig, kind, domain, gfn, count, flags, ids), 0);
    ck_assert_uint_eq(rig->answers.completions, 1);
    ck_assert_int_eq(rig->answers.result, 0);
    for (uint32_t i = 0; i < count; i++)
        ck_assert_msg(!rig->answers.status[i], "operation %u, page %u: %d",
                      kind, i, rig->answers.status[i]);
}

static void reserve(struct rig *rig, int64_t frames)
{
    struct pgshare_op operation = { .token = ++rig->next_token,
                                    .kind = PGSHARE_OP_RESERVE,
                                    .count = 1,
                                    .arg = (uint64_t)frames };

    rig->answers.reserve = 0;
    rig->backend->ops->submit(rig->backend, &operation, 1);
}

static void write_text(struct rig *rig, unsigned domain, uint64_t gfn,
                       const char *text, int expected)
{
    ck_assert_int_eq(pgshare_mock_write(rig->domains[domain], gfn, 0, text,
                                        strlen(text) + 1),
                     expected);
}

static void assert_text(struct rig *rig, unsigned domain, uint64_t gfn,
                        const char *text)
{
    ck_assert_int_eq(pgshare_mock_compare(rig->domains[domain], gfn, 0, text,
                                          strlen(text) + 1),
                     0);
}

static uint32_t state(struct rig *rig, unsigned domain, uint64_t gfn)
{
    struct pgshare_mock_page page = { .size = sizeof(page) };

    ck_assert_int_eq(pgshare_mock_page(rig->domains[domain], gfn, &page), 0);
    return page.state;
}

/* Shares page 1 of domain 0 with page 2 of domain 1. Returns the frame. */
static uint64_t share(struct rig *rig)
{
    uint64_t id;

    write_text(rig, 0, 1, "same", 0);
    write_text(rig, 1, 2, "same", 0);
    if (rig->info.caps & PGSHARE_CAP_MERGE) {
        reserve(rig, 1);
        op_ok(rig, PGSHARE_OP_PUBLISH, 0, 1, 1, 0, NULL);
        id = rig->answers.ids[0];
        op_ok(rig, PGSHARE_OP_MERGE, 0, 1, 1, 0, &id);
        op_ok(rig, PGSHARE_OP_MERGE, 1, 2, 1, 0, &id);
        return id;
    }
    op_ok(rig, PGSHARE_OP_PROTECT, 0, 1, 1, 0, NULL);
    op_ok(rig, PGSHARE_OP_PROTECT, 1, 2, 1, 0, NULL);
    op_ok(rig, PGSHARE_OP_PUBLISH, 0, 1, 1, 0, NULL);
    id = rig->answers.ids[0];
    op_ok(rig, PGSHARE_OP_COMPARE, 1, 2, 1, 0, &id);
    op_ok(rig, PGSHARE_OP_MAP, 1, 2, 1, 0, &id);
    ck_assert_int_eq(rig->answers.reserve, 1);
    return id;
}

START_TEST(test_steps)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    ck_assert_uint_eq(state(&rig, 0, 1), PGSHARE_MOCK_SHARED);
    ck_assert_uint_eq(state(&rig, 1, 2), PGSHARE_MOCK_SHARED);
    assert_sound(&rig);

    op_ok(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY, &id);
    ck_assert_int_eq(rig.answers.reserve, -1);
    write_text(&rig, 1, 2, "else", 0);
    assert_text(&rig, 0, 1, "same");
    op_ok(&rig, PGSHARE_OP_UNSHARE, 0, 1, 1, PGSHARE_OP_TAKE, &id);
    ck_assert_int_eq(rig.answers.reserve, 0);
    write_text(&rig, 0, 1, "mine", 0);
    assert_text(&rig, 1, 2, "else");
    tear_down(&rig);
}
END_TEST

START_TEST(test_extent)
{
    uint64_t ids[16];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < 16; i++) {
        unsigned char page[PAGE];

        memset(page, (int)i, PAGE);
        pgshare_mock_write_page(rig.domains[0], i, page);
        pgshare_mock_write_page(rig.domains[1], 20 + i, page);
    }
    write_text(&rig, 1, 25, "another", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 0, 16, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PROTECT, 1, 20, 16, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PUBLISH, 0, 0, 16, 0, NULL);
    memcpy(ids, rig.answers.ids, sizeof(ids));
    ck_assert_int_eq(op(&rig, PGSHARE_OP_COMPARE, 1, 20, 16, 0, ids), 0);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_int_eq(rig.answers.status[i],
                         i == 5 ? PGSHARE_ERR_DIFFERENT : 0);
    op_ok(&rig, PGSHARE_OP_MAP, 1, 20, 5, 0, ids);
    op_ok(&rig, PGSHARE_OP_MAP, 1, 26, 10, 0, ids + 6);
    ck_assert_int_eq(rig.answers.reserve, 10);
    op_ok(&rig, PGSHARE_OP_UNPROTECT, 1, 25, 1, 0, NULL);
    write_text(&rig, 1, 25, "again", 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_zero_frame)
{
    const uint64_t zero = PGSHARE_ID_ZERO;
    static const unsigned char zeroes[PAGE];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 3, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_COMPARE, 0, 3, 1, 0, &zero);
    op_ok(&rig, PGSHARE_OP_MAP, 0, 3, 1, 0, &zero);
    ck_assert_int_eq(rig.answers.reserve, 1);
    tear_down_any(&rig);

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    write_text(&rig, 0, 3, "text", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 3, 1, 0, NULL);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_COMPARE, 0, 3, 1, 0, &zero), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_DIFFERENT);
    op_ok(&rig, PGSHARE_OP_UNPROTECT, 0, 3, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 4, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_MAP, 0, 4, 1, 0, &zero);
    op_ok(&rig, PGSHARE_OP_UNSHARE, 0, 4, 1, PGSHARE_OP_ZERO, &zero);
    ck_assert_int_eq(pgshare_mock_compare(rig.domains[0], 4, 0, zeroes, PAGE),
                     0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_library_resolves)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    /* The handler has to wait: the write is parked, and what follows too. */
    write_text(&rig, 1, 2, "parked", PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_eq(rig.faults, 1);
    write_text(&rig, 1, 9, "behind", PGSHARE_ERR_INPROGRESS);
    assert_text(&rig, 1, 2, "same");
    op_ok(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY, &id);
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 0);
    assert_text(&rig, 1, 2, "parked");
    assert_text(&rig, 1, 9, "behind");
    assert_text(&rig, 0, 1, "same");
    tear_down(&rig);
}
END_TEST

START_TEST(test_read_only)
{
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    op_ok(&rig, PGSHARE_OP_READ_ONLY, 0, 5, 2, 0, NULL);
    rig.fault_answer = PGSHARE_ERR_READONLY;
    write_text(&rig, 0, 5, "no", PGSHARE_ERR_READONLY);
    op_ok(&rig, PGSHARE_OP_READ_ONLY, 0, 5, 2, PGSHARE_OP_OFF, NULL);
    write_text(&rig, 0, 5, "yes", 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_platform_resolves)
{
    const uint32_t flavour = (uint32_t)_i;
    struct rig rig;
    uint64_t id;

    set_up(&rig, flavour);
    id = share(&rig);
    write_text(&rig, 1, 2, "else", 0);
    write_text(&rig, 0, 1, "mine", 0);
    ck_assert_uint_eq(rig.faults, 0);
    assert_text(&rig, 1, 2, "else");
    assert_text(&rig, 0, 1, "mine");
    op_ok(&rig, PGSHARE_OP_HARVEST, 0, 0, 1, 0, NULL);
    ck_assert_uint_eq(rig.answers.broken, 1);
    ck_assert_uint_lt(rig.answers.broken_seq, rig.answers.seq);
    op_ok(&rig, PGSHARE_OP_HARVEST, 1, 0, 1, 0, NULL);
    ck_assert_uint_eq(rig.answers.broken, 2);
    /* Linux has copied for the last mapping too; the frame is still there. */
    op_ok(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_int_eq(rig.answers.reserve, flavour == PGSHARE_MOCK_LINUX);
    tear_down(&rig);
}
END_TEST

START_TEST(test_broken_pages_refuse)
{
    const uint32_t flavour = (uint32_t)_i;
    struct rig rig;
    uint64_t id;

    set_up(&rig, flavour);
    id = share(&rig);
    write_text(&rig, 1, 2, "else", 0);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY,
                        &id),
                     0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(rig.answers.reserve, 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_void_protection)
{
    const uint32_t flavour = (uint32_t)_i;
    struct rig rig;
    uint64_t id;

    set_up(&rig, flavour);
    id = share(&rig);
    write_text(&rig, 0, 7, "same", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    write_text(&rig, 0, 7, "changed", 0);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_COMPARE, 0, 7, 1, 0, &id), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_MAP, 0, 7, 1, 0, &id), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    op_ok(&rig, PGSHARE_OP_HARVEST, 0, 0, 1, 0, NULL);
    /* Xen lets the handle get stale and says nothing. */
    ck_assert_uint_eq(rig.answers.broken, flavour != PGSHARE_MOCK_XEN);
    tear_down(&rig);
}
END_TEST

START_TEST(test_xen_handles)
{
    struct pgshare_op operation;
    struct rig rig;
    uint64_t first;
    uint64_t second;

    set_up(&rig, PGSHARE_MOCK_XEN);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    first = rig.answers.ids[0];
    ck_assert_uint_ne(first, 0);
    write_text(&rig, 0, 7, "changed", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    second = rig.answers.ids[0];
    ck_assert_uint_ne(first, second);
    operation = (struct pgshare_op){ .token = 99,
                                     .kind = PGSHARE_OP_PUBLISH,
                                     .domain = rig.cookies[0],
                                     .gfn = 7,
                                     .count = 1,
                                     .own_ids = &first };
    rig.backend->ops->submit(rig.backend, &operation, 1);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    operation.own_ids = &second;
    rig.backend->ops->submit(rig.backend, &operation, 1);
    ck_assert_int_eq(rig.answers.status[0], 0);
    ck_assert_uint_eq(rig.answers.ids[0], second);
    tear_down(&rig);
}
END_TEST

START_TEST(test_xen_moves_frame)
{
    struct rig rig;
    uint64_t from;
    uint64_t to;

    set_up(&rig, PGSHARE_MOCK_XEN);
    from = share(&rig);
    write_text(&rig, 0, 7, "same", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PUBLISH, 0, 7, 1, 0, NULL);
    to = rig.answers.ids[0];
    op_ok(&rig, PGSHARE_OP_MAP, 1, 2, 1, 0, &to);
    op_ok(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &from);
    ck_assert_int_eq(rig.answers.reserve, 1);
    tear_down_any(&rig);
}
END_TEST

START_TEST(test_demand)
{
    struct pgshare_mock_options options = {
        .flavour = PGSHARE_MOCK_LINUX,
        .flags = PGSHARE_MOCK_DETERMINISTIC,
        .frames = 128,
    };
    struct pgshare_op answer = { .token = 7, .kind = PGSHARE_OP_ANSWER };
    struct rig rig;

    set_up_options(&rig, &options, 0); /* both domains take all there is */
    {
        const uint64_t zero = PGSHARE_ID_ZERO;

        op_ok(&rig, PGSHARE_OP_MERGE, 0, 0, 1, 0, &zero);
        ck_assert_int_eq(rig.answers.reserve, 1);
    }
    write_text(&rig, 0, 0, "more", PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_ne(rig.answers.cookie, 0);
    reserve(&rig, -1);
    ck_assert_int_eq(rig.answers.reserve, -1);
    answer.arg = rig.answers.cookie;
    rig.backend->ops->submit(rig.backend, &answer, 1);
    pgshare_mock_poll(rig.machine);
    assert_text(&rig, 0, 0, "more");
    tear_down(&rig);
}
END_TEST

START_TEST(test_memory)
{
    static const unsigned char zeroes[PAGE];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    write_text(&rig, 0, 1, "text", 0);
    op_ok(&rig, PGSHARE_OP_RECLAIM, 0, 1, 1, 0, NULL);
    ck_assert_int_eq(rig.answers.reserve, 1);
    ck_assert_uint_eq(state(&rig, 0, 1), PGSHARE_MOCK_RECLAIMED);
    ck_assert_int_eq(pgshare_mock_compare(rig.domains[0], 1, 0, zeroes, PAGE),
                     0);
    op_ok(&rig, PGSHARE_OP_GRANT, 0, 1, 1, 0, NULL);
    ck_assert_int_eq(rig.answers.reserve, -1);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_GRANT, 0, 100, 1, 0, NULL), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_NOFRAME);
    op_ok(&rig, PGSHARE_OP_DISCARD, 0, 2, 4, 0, NULL);
    ck_assert_int_eq(rig.answers.reserve, 4);
    ck_assert_uint_eq(state(&rig, 0, 3), PGSHARE_MOCK_HOLE);
    reserve(&rig, 0);
    ck_assert_uint_eq(rig.answers.ids[0], 4);
    reserve(&rig, 100000);
    ck_assert_int_eq(rig.answers.result, PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(rig.answers.ids[0], 4 + (uint64_t)rig.answers.reserve);
    op_ok(&rig, PGSHARE_OP_CHANGES, 1, 0, 4, 0, NULL);
    write_text(&rig, 1, 2, "text", 0);
    op(&rig, PGSHARE_OP_CHANGES, 1, 0, 4, 0, NULL);
    ck_assert_int_eq(rig.answers.status[1], 0);
    ck_assert_int_eq(rig.answers.status[2], 1);
    tear_down(&rig);
}
END_TEST

START_TEST(test_orphans)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    rig.backend->ops->domain_remove(rig.backend, rig.cookies[0]);
    rig.backend->ops->domain_remove(rig.backend, rig.cookies[1]);
    op_ok(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_int_eq(rig.answers.reserve, 0);
    assert_sound(&rig);
    assert_text(&rig, 0, 1, "same");
    rig.backend->ops->detach(rig.backend);
    write_text(&rig, 0, 1, "mine", 0);
    assert_text(&rig, 1, 2, "same");
    write_text(&rig, 1, 2, "too", 0);
    assert_sound(&rig);
    pgshare_mock_machine_free(rig.machine);
}
END_TEST

START_TEST(test_sparse)
{
    struct pgshare_mock_options options = { .flags = PGSHARE_MOCK_DETERMINISTIC,
                                            .frames = (uint64_t)1 << 30 };
    struct pgshare_mock_domain_options large = { .size = sizeof(large),
                                                 .flags = PGSHARE_MOCK_SPARSE };
    struct pgshare_mock_domain *domain;
    const uint64_t terabyte = (uint64_t)1 << 28;
    unsigned char a[PAGE], b[PAGE];
    struct rig rig;
    uint64_t id;

    set_up_options(&rig, &options, PGSHARE_MOCK_SPARSE);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 5, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PUBLISH, 0, 5, 1, 0, NULL);
    id = rig.answers.ids[0];
    op_ok(&rig, PGSHARE_OP_PROTECT, 1, 5, 1, 0, NULL);
    op(&rig, PGSHARE_OP_COMPARE, 1, 5, 1, 0, &id);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_DIFFERENT);
    op_ok(&rig, PGSHARE_OP_MAP, 1, 5, 1, 0, &id);
    ck_assert_int_eq(rig.answers.reserve, 1);
    write_text(&rig, 0, 6, "bytes", 0);
    assert_text(&rig, 0, 6, "bytes");
    ck_assert_int_eq(pgshare_mock_domain_new(rig.machine, terabyte, &large,
                                             &domain),
                     0);
    ck_assert_int_eq(pgshare_mock_read(domain, terabyte - 1, 0, a, PAGE), 0);
    ck_assert_int_eq(pgshare_mock_read(domain, terabyte - 2, 0, b, PAGE), 0);
    ck_assert_int_ne(memcmp(a, b, PAGE), 0);
    ck_assert_int_eq(pgshare_mock_write(domain, terabyte - 1, 0, "x", 1), 0);
    pgshare_mock_domain_free(domain);
    tear_down(&rig);
}
END_TEST

START_TEST(test_violations)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    op(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_TAKE, &id);
    ck_assert_uint_eq(violations(&rig), 1);
    op(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 2);
    op(&rig, PGSHARE_OP_MAP, 0, 9, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 3);
    write_text(&rig, 0, 9, "other", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 9, 1, 0, NULL);
    op(&rig, PGSHARE_OP_MAP, 0, 9, 1, 0, &id); /* was never compared */
    ck_assert_uint_eq(violations(&rig), 4);
    op(&rig, PGSHARE_OP_RECLAIM, 0, 9, 1, 0, NULL);
    ck_assert_uint_eq(violations(&rig), 5);
    op(&rig, PGSHARE_OP_COMPARE, 0, 10, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 6);
    id = PGSHARE_ID_ZERO;
    op(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 7);
    op(&rig, PGSHARE_OP_DISCARD, 0, GFNS, 1, 0, NULL);
    ck_assert_uint_eq(violations(&rig), 8);
    ck_assert_ptr_nonnull(pgshare_mock_violation(rig.machine, 7));
    ck_assert_ptr_null(pgshare_mock_violation(rig.machine, 8));
    tear_down_any(&rig);
}
END_TEST

START_TEST(test_dma)
{
    struct pgshare_mock_dma dma;
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    ck_assert_int_eq(pgshare_mock_dma_begin(rig.domains[0], 4, 2, 0, &dma), 0);
    op(&rig, PGSHARE_OP_PROTECT, 0, 3, 3, 0, NULL);
    ck_assert_int_eq(rig.answers.status[0], 0);
    ck_assert_int_eq(rig.answers.status[1], PGSHARE_ERR_BUSY);
    ck_assert_int_eq(rig.answers.status[2], PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_mock_dma_write(&dma, PAGE - 2, "abcd", 5), 0);
    pgshare_mock_dma_end(&dma);
    ck_assert_int_eq(pgshare_mock_compare(rig.domains[0], 4, PAGE - 2, "abcd",
                                          5),
                     0);
    /* What nobody can know of is found when it has been lost. */
    ck_assert_int_eq(pgshare_mock_dma_begin(rig.domains[0], 4, 1,
                                            PGSHARE_MOCK_DMA_UNPINNED, &dma),
                     0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 4, 1, 0, NULL);
    ck_assert_int_eq(pgshare_mock_dma_write(&dma, 0, "lost", 5),
                     PGSHARE_ERR_STATE);
    pgshare_mock_dma_end(&dma);
    tear_down(&rig);
}
END_TEST

START_TEST(test_reader)
{
    struct pgshare_mock_hold hold;
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    ck_assert_int_eq(pgshare_mock_hold_begin(rig.domains[1], 2, &hold), 0);
    op_ok(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY, &id);
    write_text(&rig, 1, 2, "new", 0);
    ck_assert_str_eq(hold.bytes, "same");
    ck_assert_int_eq(pgshare_mock_hold_end(&hold), 0);
    ck_assert_int_eq(pgshare_mock_hold_begin(rig.domains[0], 1, &hold), 0);
    op_ok(&rig, PGSHARE_OP_UNSHARE, 0, 1, 1, PGSHARE_OP_TAKE, &id);
    ck_assert_int_eq(pgshare_mock_hold_end(&hold), PGSHARE_ERR_DIFFERENT);
    ck_assert_uint_eq(violations(&rig), 1);
    tear_down_any(&rig);
}
END_TEST

START_TEST(test_drop)
{
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    rig.answers.discard_answer = PGSHARE_ERR_BUSY;
    ck_assert_int_eq(pgshare_mock_drop(rig.domains[0], 3, 2, 1), 0);
    ck_assert_uint_eq(state(&rig, 0, 3), PGSHARE_MOCK_HOLE);
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 2);
    rig.answers.discard_answer = 0;
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 0);
    ck_assert_uint_eq(rig.answers.discarded, 2);
    tear_down(&rig);
}
END_TEST

START_TEST(test_gone)
{
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    pgshare_mock_kill(rig.domains[1]);
    ck_assert_uint_eq(rig.answers.gone, 1);
    op(&rig, PGSHARE_OP_PROTECT, 1, 0, 3, 0, NULL);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(rig.answers.status[i], PGSHARE_ERR_GONE);
    tear_down(&rig);
}
END_TEST

START_TEST(test_chaos)
{
    struct pgshare_mock_chaos chaos = { .delay_op = 1000000, .delay_polls = 1 };
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_PROTECT, 0, 0, 8, 0, NULL);
    ck_assert_uint_eq(rig.answers.completions, 0);
    ck_assert_uint_eq(state(&rig, 0, 0), PGSHARE_MOCK_PRIVATE);
    pgshare_mock_poll(rig.machine);
    ck_assert_uint_eq(rig.answers.pages, 8);
    ck_assert_uint_eq(state(&rig, 0, 0), PGSHARE_MOCK_PROTECTED);

    chaos = (struct pgshare_mock_chaos){ .split = 1000000, .twice = 1000000 };
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_UNPROTECT, 0, 0, 8, 0, NULL);
    ck_assert_uint_gt(rig.answers.completions, 2);
    ck_assert_uint_eq(rig.answers.pages, 16);

    chaos = (struct pgshare_mock_chaos){ .lose = 1000000 };
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_FINGERPRINT, 0, 0, 8, 0, NULL);
    ck_assert_uint_eq(rig.answers.completions, 0);
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 0);

    chaos = (struct pgshare_mock_chaos){ .delay_answer = 1000000,
                                         .delay_polls = 1 };
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_PROTECT, 0, 0, 8, 0, NULL);
    ck_assert_uint_eq(state(&rig, 0, 7), PGSHARE_MOCK_PROTECTED);
    ck_assert_uint_eq(rig.answers.completions, 0);
    ck_assert_uint_eq(violations(&rig), 0);
    op(&rig, PGSHARE_OP_UNPROTECT, 0, 7, 1, 0, NULL); /* overlaps */
    ck_assert_uint_eq(violations(&rig), 1);
    pgshare_mock_deliver(rig.machine);
    tear_down_any(&rig);
}
END_TEST

static void guest_action(void *ctx)
{
    struct rig *rig = ctx;

    pgshare_mock_write(rig->domains[0], 3, 0, "action", 7);
}

START_TEST(test_hooks)
{
    struct pgshare_mock_options options = {
        .flavour = PGSHARE_MOCK_PLAIN_PLATFORM,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_STEPS
    };
    struct pgshare_mock_info info = { .size = sizeof(info) };
    struct rig rig;

    set_up_options(&rig, &options, 0);
    ck_assert_int_eq(pgshare_mock_schedule(rig.machine, guest_action, &rig,
                                           1000000),
                     0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 2, 4, 0, NULL);
    pgshare_mock_info(rig.machine, &info);
    ck_assert_uint_eq(info.hooks, 5); /* before, after, and three between */
    ck_assert_uint_eq(state(&rig, 0, 2), PGSHARE_MOCK_PROTECTED);
    ck_assert_uint_eq(state(&rig, 0, 3), PGSHARE_MOCK_PRIVATE);
    pgshare_mock_schedule(rig.machine, guest_action, &rig, 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_disk)
{
    struct pgshare_mock_disk_options options = {
        .size = sizeof(options), .blocks = 8, .bytes = "base image", .len = 11
    };
    struct pgshare_mock_disk *disk;
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < 2; i++)
        rig.backend->ops->domain_remove(rig.backend, rig.cookies[i]);
    ck_assert_int_eq(pgshare_mock_disk_new(rig.machine, &options, &disk), 0);
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[0], disk, 0, 5, 2), 0);
    assert_text(&rig, 0, 5, "base image");
    write_text(&rig, 0, 5, "overlay", 0);
    ck_assert_int_eq(pgshare_mock_block_write(rig.domains[0], disk, 0, 5, 1),
                     0);
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[0], disk, 0, 7, 1), 0);
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[1], disk, 0, 7, 1), 0);
    assert_text(&rig, 0, 7, "overlay");
    assert_text(&rig, 1, 7, "base image");
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[1], disk, 7, 7, 2),
                     PGSHARE_ERR_RANGE);
    rig.backend->ops->detach(rig.backend);
    assert_sound(&rig);
    pgshare_mock_machine_free(rig.machine);
}
END_TEST

START_TEST(test_kernel)
{
    struct pgshare_mock_disk_options disk_options = { .size = sizeof(
                                                          disk_options),
                                                      .blocks = 64,
                                                      .bytes = "first block",
                                                      .len = 12 };
    struct pgshare_mock_kernel_options options = { .size = sizeof(options),
                                                   .count = 8 };
    struct pgshare_mock_kernel_info info = { .size = sizeof(info) };
    struct pgshare_mock_kernel *kernel;
    struct rig rig;
    uint64_t gfn;
    uint64_t run;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < 2; i++)
        rig.backend->ops->domain_remove(rig.backend, rig.cookies[i]);
    pgshare_mock_disk_new(rig.machine, &disk_options, &options.disk);
    ck_assert_int_eq(pgshare_mock_kernel_new(rig.domains[0], &options, &kernel),
                     0);
    ck_assert_int_eq(pgshare_mock_kernel_alloc(kernel, 4, &run), 0);
    ck_assert_int_eq(pgshare_mock_kernel_write(kernel, 0, 0, "F", 1), 0);
    for (unsigned block = 0; block < 20; block++)
        ck_assert_int_eq(pgshare_mock_kernel_read(kernel, block, &gfn), 0);
    ck_assert_int_eq(pgshare_mock_kernel_read(kernel, 0, &gfn), 0);
    assert_text(&rig, 0, gfn, "First block");
    ck_assert_int_eq(pgshare_mock_kernel_alloc(kernel, 5, &gfn),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_int_eq(pgshare_mock_kernel_release(kernel, run, 4), 0);
    ck_assert_int_eq(pgshare_mock_kernel_alloc(kernel, 8, &run), 0);
    pgshare_mock_kernel_info(kernel, &info);
    ck_assert_uint_eq(info.free, 0);
    ck_assert_uint_eq(info.cached, 0);
    ck_assert_uint_eq(info.misses, 21);
    rig.backend->ops->detach(rig.backend);
    pgshare_mock_machine_free(rig.machine);
}
END_TEST

static uint64_t run_of(uint64_t seed)
{
    struct pgshare_mock_options options = {
        .seed = seed,
        .flags = PGSHARE_MOCK_DETERMINISTIC,
        .chaos = { .delay_op = 300000, .reorder = 500000, .split = 300000 }
    };
    uint64_t sum = 0;
    struct rig rig;

    set_up_options(&rig, &options, 0);
    for (unsigned i = 0; i < 40; i++) {
        op(&rig, PGSHARE_OP_FINGERPRINT, (int)(i % 2), i, 8, 0, NULL);
        pgshare_mock_poll(rig.machine);
        sum = sum * 31 + rig.answers.token;
        sum = sum * 31 + rig.answers.completions;
    }
    pgshare_mock_deliver(rig.machine);
    sum += pgshare_mock_random(rig.machine);
    tear_down(&rig);
    return sum;
}

START_TEST(test_same_seed_same_run)
{
    ck_assert_uint_eq(run_of(11), run_of(11));
    ck_assert_uint_ne(run_of(11), run_of(12));
}
END_TEST

START_TEST(test_bad_arguments)
{
    struct pgshare_mock_options options = { .size = sizeof(options),
                                            .flavour = 17 };
    struct pgshare_mock_machine *machine = NULL;
    struct rig rig;
    char byte = 0;

    ck_assert_int_eq(pgshare_mock_machine_new(&options, &machine),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_mock_machine_new(NULL, NULL), PGSHARE_ERR_INVALID);
    ck_assert_ptr_null(pgshare_mock_machine_free(NULL));
    set_up(&rig, PGSHARE_MOCK_PLAIN);
    ck_assert_int_eq(pgshare_mock_read(rig.domains[0], GFNS, 0, &byte, 1),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_mock_read(rig.domains[0], 0, UINT64_MAX, &byte, 1),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_mock_read(rig.domains[0], 100, 0, &byte, 1),
                     PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_mock_write(rig.domains[0], 100, 0, &byte, 1),
                     PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_mock_populate(rig.domains[0], 63, 2),
                     PGSHARE_ERR_EXISTS);
    ck_assert_int_eq(pgshare_mock_populate(rig.domains[0], 64, GFNS),
                     PGSHARE_ERR_RANGE);
    tear_down(&rig);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("mock");
    TCase *share_case = pgs_tcase(suite, "share");
    TCase *platform = pgs_tcase(suite, "platform");
    TCase *memory = pgs_tcase(suite, "memory");
    TCase *rules = pgs_tcase(suite, "rules");
    TCase *guest = pgs_tcase(suite, "guest");

    tcase_add_test(share_case, test_steps);
    tcase_add_test(share_case, test_extent);
    tcase_add_test(share_case, test_zero_frame);
    tcase_add_test(share_case, test_library_resolves);
    tcase_add_test(share_case, test_read_only);
    tcase_add_loop_test(platform, test_platform_resolves,
                        PGSHARE_MOCK_PLAIN_PLATFORM, PGSHARE_MOCK_XEN + 1);
    tcase_add_loop_test(platform, test_broken_pages_refuse,
                        PGSHARE_MOCK_PLAIN_PLATFORM, PGSHARE_MOCK_XEN + 1);
    tcase_add_loop_test(platform, test_void_protection,
                        PGSHARE_MOCK_PLAIN_PLATFORM, PGSHARE_MOCK_XEN + 1);
    tcase_add_test(platform, test_xen_handles);
    tcase_add_test(platform, test_xen_moves_frame);
    tcase_add_test(platform, test_demand);
    tcase_add_test(memory, test_memory);
    tcase_add_test(memory, test_orphans);
    tcase_add_test(memory, test_sparse);
    tcase_add_test(memory, test_drop);
    tcase_add_test(memory, test_gone);
    tcase_add_test(rules, test_violations);
    tcase_add_test(rules, test_dma);
    tcase_add_test(rules, test_reader);
    tcase_add_test(rules, test_chaos);
    tcase_add_test(rules, test_hooks);
    tcase_add_test(rules, test_same_seed_same_run);
    tcase_add_test(guest, test_disk);
    tcase_add_test(guest, test_kernel);
    tcase_add_test(guest, test_bad_arguments);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("mock", make, argc, argv);
}
