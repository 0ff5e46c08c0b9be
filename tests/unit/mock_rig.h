/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mock machine alone: a sink of our own stands for the host, and the
 * contract's operations are submitted by hand.
 */
#ifndef PGS_TESTS_UNIT_MOCK_RIG_H
#define PGS_TESTS_UNIT_MOCK_RIG_H

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

static inline void sink_complete(void *ctx,
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

static inline void sink_broken(void *ctx, uint64_t dom, uint64_t gfn,
                               uint64_t count, uint64_t seq)
{
    struct answers *answers = ctx;

    answers->broken += count;
    answers->broken_seq = seq;
}

static inline int sink_demand(void *ctx, uint64_t dom, uint64_t gfn,
                              uint64_t cookie)
{
    struct answers *answers = ctx;

    answers->cookie = cookie;
    return 0;
}

static inline int sink_discarded(void *ctx, uint64_t dom, uint64_t gfn,
                                 uint64_t count, int hole, uint64_t seq)
{
    struct answers *answers = ctx;

    if (!answers->discard_answer)
        answers->discarded += count;
    return answers->discard_answer;
}

static inline void sink_gone(void *ctx, uint64_t dom)
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

static inline int count_fault(void *ctx, struct pgshare_mock_domain *domain,
                              uint64_t gfn, uint32_t flags)
{
    struct rig *rig = ctx;

    rig->faults++;
    return rig->fault_answer;
}

#define GFNS 512u

static inline void add_domain(struct rig *rig, unsigned i, uint32_t flags)
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

static inline void set_up_options(struct rig *rig,
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

static inline void set_up(struct rig *rig, uint32_t flavour)
{
    struct pgshare_mock_options options = {
        .flavour = flavour,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID |
                 PGSHARE_MOCK_CHANGE_LOG,
        .frames = 1024,
    };

    set_up_options(rig, &options, 0);
}

static inline uint64_t violations(struct rig *rig)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_mock_info(rig->machine, &info), 0);
    return info.violations;
}

static inline void assert_sound(struct rig *rig)
{
    pgshare_mock_check(rig->machine);
    ck_assert_msg(!violations(rig), "%s",
                  pgshare_mock_violation(rig->machine, 0));
}

static inline void tear_down_any(struct rig *rig)
{
    for (unsigned i = 0; i < 2; i++)
        rig->backend->ops->domain_remove(rig->backend, rig->cookies[i]);
    rig->backend->ops->detach(rig->backend);
    pgshare_mock_machine_free(rig->machine);
}

static inline void tear_down(struct rig *rig)
{
    assert_sound(rig);
    for (unsigned i = 0; i < 2; i++)
        rig->backend->ops->domain_remove(rig->backend, rig->cookies[i]);
    rig->backend->ops->detach(rig->backend);
    assert_sound(rig);
    pgshare_mock_machine_free(rig->machine);
}

/* Submits one operation; the answers of this one are in rig->answers. */
static inline int op(struct rig *rig, uint32_t kind, int domain, uint64_t gfn,
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

static inline void op_ok(struct rig *rig, uint32_t kind, int domain,
                         uint64_t gfn, uint32_t count, uint32_t flags,
                         const uint64_t *ids)
{
    ck_assert_int_eq(op(rig, kind, domain, gfn, count, flags, ids), 0);
    ck_assert_uint_eq(rig->answers.completions, 1);
    ck_assert_int_eq(rig->answers.result, 0);
    for (uint32_t i = 0; i < count; i++)
        ck_assert_msg(!rig->answers.status[i], "operation %u, page %u: %d",
                      kind, i, rig->answers.status[i]);
}

static inline void reserve(struct rig *rig, int64_t frames)
{
    struct pgshare_op operation = { .token = ++rig->next_token,
                                    .kind = PGSHARE_OP_RESERVE,
                                    .count = 1,
                                    .arg = (uint64_t)frames };

    rig->answers.reserve = 0;
    rig->backend->ops->submit(rig->backend, &operation, 1);
}

static inline void write_text(struct rig *rig, unsigned domain, uint64_t gfn,
                              const char *text, int expected)
{
    ck_assert_int_eq(pgshare_mock_write(rig->domains[domain], gfn, 0, text,
                                        strlen(text) + 1),
                     expected);
}

static inline void assert_text(struct rig *rig, unsigned domain, uint64_t gfn,
                               const char *text)
{
    ck_assert_int_eq(pgshare_mock_compare(rig->domains[domain], gfn, 0, text,
                                          strlen(text) + 1),
                     0);
}

static inline uint32_t state(struct rig *rig, unsigned domain, uint64_t gfn)
{
    struct pgshare_mock_page page = { .size = sizeof(page) };

    ck_assert_int_eq(pgshare_mock_page(rig->domains[domain], gfn, &page), 0);
    return page.state;
}

/* Shares page 1 of domain 0 with page 2 of domain 1. Returns the frame. */
static inline uint64_t share(struct rig *rig)
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

#endif
