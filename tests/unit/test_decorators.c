/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decorators, over a backend that answers each operation at once, and under a
 * sink that counts.
 */
#include "support/suite.h"

#include <pgshare/error.h>
#include <pgshare/sys/decorator.h>

#include <string.h>

#define PAGES 8u

/* The decorated backend, the sink, and what was seen on both sides. */
struct rig {
    struct pgshare_backend inner; /* first */
    const struct pgshare_sink *inner_sink;
    struct pgshare_sink sink;
    unsigned operations; /* that reached the inner backend */
    unsigned pages;      /* of these */
    unsigned polls;
    unsigned answers;
    unsigned answered_pages;
    unsigned failed_pages;
    uint64_t last_id;
    unsigned broken;
    unsigned lines;
    uint64_t now;
};

static int inner_attach(struct pgshare_backend *backend,
                        struct pgshare_host *host,
                        const struct pgshare_sink *sink,
                        struct pgshare_backend_info *ret_info)
{
    ((struct rig *)backend)->inner_sink = sink;
    return 0;
}

static void inner_detach(struct pgshare_backend *backend)
{
    ((struct rig *)backend)->inner_sink = NULL;
}

static int inner_submit(struct pgshare_backend *backend,
                        const struct pgshare_op *ops, size_t n)
{
    struct rig *rig = (struct rig *)backend;

    for (size_t i = 0; i < n; i++) {
        int8_t status[PAGES] = { 0 };
        uint64_t ids[PAGES] = { 0 };
        struct pgshare_completion completion = { .token = ops[i].token,
                                                 .count = ops[i].count,
                                                 .status = status,
                                                 .ids = ids };

        ids[ops[i].count - 1] = 4711;
        rig->operations++;
        rig->pages += ops[i].count;
        rig->inner_sink->complete(rig->inner_sink->ctx, &completion);
        memset(ids, 0, sizeof(ids)); /* ours again */
    }
    return 0;
}

static void inner_poll(struct pgshare_backend *backend)
{
    ((struct rig *)backend)->polls++;
}

static const struct pgshare_backend_ops inner_ops = {
    .size = sizeof(inner_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "inner",
    .attach = inner_attach,
    .detach = inner_detach,
    .submit = inner_submit,
    .poll = inner_poll,
};

static void sink_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    struct rig *rig = ctx;

    rig->answers++;
    rig->answered_pages += completion->count;
    if (completion->result)
        rig->failed_pages += completion->count;
    if (completion->ids)
        rig->last_id = completion->ids[completion->count - 1];
}

static void sink_broken(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                        uint64_t seq)
{
    ((struct rig *)ctx)->broken++;
}

static int sink_demand(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie)
{
    return PGSHARE_ERR_BUSY;
}

static int sink_discarded(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                          int hole, uint64_t seq)
{
    return PGSHARE_ERR_BUSY;
}

static void sink_gone(void *ctx, uint64_t dom)
{
}

static void count_line(void *ctx, const char *text)
{
    ((struct rig *)ctx)->lines++;
    ck_assert_ptr_null(strchr(text, '\n'));
}

static uint64_t rig_now(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

static void init(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->inner.ops = &inner_ops;
    rig->sink = (struct pgshare_sink){
        .size = sizeof(rig->sink),
        .ctx = rig,
        .complete = sink_complete,
        .broken = sink_broken,
        .demand = sink_demand,
        .discarded = sink_discarded,
        .gone = sink_gone,
    };
}

static void attach(struct rig *rig, struct pgshare_backend *backend)
{
    struct pgshare_backend_info info;

    ck_assert_int_eq(backend->ops->attach(backend, NULL, &rig->sink, &info), 0);
}

static int submit(struct pgshare_backend *backend, uint32_t kind, size_t n)
{
    struct pgshare_op ops[4];

    memset(ops, 0, sizeof(ops));
    for (size_t i = 0; i < n; i++) {
        ops[i].token = i + 1;
        ops[i].kind = kind;
        ops[i].count = PAGES;
    }
    return backend->ops->submit(backend, ops, n);
}

static void plan(struct pgshare_fault_backend *fault, uint32_t mode,
                 uint64_t first, uint64_t count)
{
    struct pgshare_fault_plan plan = {
        .size = sizeof(plan),
        .mode = mode,
        .kinds = (uint64_t)1 << PGSHARE_OP_MAP,
        .first = first,
        .count = count,
    };

    ck_assert_int_eq(pgshare_fault_backend_plan(fault, &plan), 0);
}

/* What each mode makes of the middle one of three operations. */
START_TEST(test_fault_modes)
{
    static const struct {
        uint32_t mode;
        int result;
        unsigned reached, answered, failed; /* pages */
    } expected[] = {
        { 0, 0, 24, 24, 0 },
        { PGSHARE_INJECT_REFUSE, PGSHARE_ERR_BACKEND, 0, 0, 0 },
        { PGSHARE_INJECT_FAIL, 0, 16, 24, 8 },
        { PGSHARE_INJECT_PARTIAL, 0, 20, 24, 4 },
        { PGSHARE_INJECT_LOSE, 0, 24, 16, 0 },
        { PGSHARE_INJECT_SWALLOW, 0, 16, 16, 0 },
        { PGSHARE_INJECT_TWICE, 0, 24, 32, 0 },
        { PGSHARE_INJECT_LATE, 0, 24, 16, 0 },
    };
    struct pgshare_fault_backend *fault;
    struct pgshare_backend *backend;
    struct rig rig;

    init(&rig);
    ck_assert_int_eq(pgshare_fault_backend_new(&rig.inner, &fault), 0);
    backend = pgshare_fault_backend_base(fault);
    attach(&rig, backend);
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
        uint32_t mode = expected[i].mode;

        rig.pages = rig.answered_pages = rig.failed_pages = 0;
        plan(fault, mode, 1, 1);
        ck_assert_int_eq(submit(backend, PGSHARE_OP_MAP, 3),
                         expected[i].result);
        ck_assert_msg(rig.pages == expected[i].reached &&
                          rig.answered_pages == expected[i].answered &&
                          rig.failed_pages == expected[i].failed,
                      "mode %u: reached %u, answered %u, failed %u", mode,
                      rig.pages, rig.answered_pages, rig.failed_pages);
        ck_assert_uint_eq(pgshare_fault_backend_failed(fault), !!mode);
        ck_assert_uint_eq(pgshare_fault_backend_seen(fault), mode ? 3 : 0);
    }
    ck_assert_uint_eq(pgshare_fault_backend_release(fault), 1);
    ck_assert_uint_eq(rig.answered_pages, 24);
    ck_assert_uint_eq(rig.last_id, 4711);
    backend->ops->detach(backend);
    pgshare_fault_backend_free(fault);
}
END_TEST

START_TEST(test_fault_counts)
{
    struct pgshare_fault_plan bad = { .size = sizeof(bad), .mode = 99 };
    struct pgshare_fault_backend *fault;
    struct pgshare_backend *backend;
    struct rig rig;

    init(&rig);
    ck_assert_int_eq(pgshare_fault_backend_new(&rig.inner, &fault), 0);
    backend = pgshare_fault_backend_base(fault);
    attach(&rig, backend);
    ck_assert_int_eq(pgshare_fault_backend_plan(fault, &bad),
                     PGSHARE_ERR_INVALID);
    plan(fault, PGSHARE_INJECT_FAIL, 0, UINT64_MAX);
    submit(backend, PGSHARE_OP_COMPARE, 2); /* not of the plan's kinds */
    ck_assert_uint_eq(rig.failed_pages, 0);
    submit(backend, PGSHARE_OP_MAP, 2);
    submit(backend, PGSHARE_OP_MAP, 1);
    ck_assert_uint_eq(pgshare_fault_backend_failed(fault), 3);
    pgshare_fault_backend_plan(fault, NULL);
    submit(backend, PGSHARE_OP_MAP, 1);
    ck_assert_uint_eq(rig.failed_pages, 3 * PAGES);
    /* What is kept when all ends is forgotten. */
    plan(fault, PGSHARE_INJECT_LATE, 0, 1);
    submit(backend, PGSHARE_OP_MAP, 1);
    backend->ops->detach(backend);
    ck_assert_uint_eq(pgshare_fault_backend_release(fault), 0);
    pgshare_fault_backend_free(fault);
}
END_TEST

START_TEST(test_delay)
{
    struct pgshare_delay_options options = {
        .size = sizeof(options),
        .polls = 2,
        .ns = 100,
        .now_ns = rig_now,
        .kinds = (uint64_t)1 << PGSHARE_OP_MAP,
    };
    struct pgshare_delay_backend *delay;
    struct pgshare_backend *backend;
    struct rig rig;

    init(&rig);
    options.ctx = &rig;
    ck_assert_int_eq(pgshare_delay_backend_new(&rig.inner, &options, &delay),
                     0);
    backend = pgshare_delay_backend_base(delay);
    attach(&rig, backend);
    submit(backend, PGSHARE_OP_COMPARE, 1);
    ck_assert_uint_eq(rig.answers, 1);
    submit(backend, PGSHARE_OP_MAP, 2);
    ck_assert_uint_eq(rig.answers, 1);
    ck_assert_uint_eq(pgshare_delay_backend_held(delay), 2);
    rig.now = 100;
    backend->ops->poll(backend);
    ck_assert_uint_eq(rig.answers, 1);
    backend->ops->poll(backend);
    ck_assert_uint_eq(rig.answers, 3);
    ck_assert_uint_eq(rig.last_id, 4711);
    ck_assert_uint_eq(rig.polls, 2);
    submit(backend, PGSHARE_OP_MAP, 2);
    backend->ops->detach(backend);
    ck_assert_uint_eq(pgshare_delay_backend_held(delay), 0);
    pgshare_delay_backend_free(delay);
}
END_TEST

/* Trace over fault over the backend. */
START_TEST(test_nested_trace)
{
    struct pgshare_fault_backend *fault;
    struct pgshare_trace_backend *trace;
    struct pgshare_backend *backend;
    struct rig rig;
    int fds[1];

    init(&rig);
    ck_assert_int_eq(pgshare_fault_backend_new(&rig.inner, &fault), 0);
    ck_assert_int_eq(pgshare_trace_backend_new(pgshare_fault_backend_base(
                                                   fault),
                                               count_line, &rig, &trace),
                     0);
    backend = pgshare_trace_backend_base(trace);
    attach(&rig, backend);
    submit(backend, PGSHARE_OP_MAP, 2);
    ck_assert_uint_eq(rig.lines, 4);
    plan(fault, PGSHARE_INJECT_REFUSE, 0, 1);
    submit(backend, PGSHARE_OP_MAP, 1);
    ck_assert_uint_eq(rig.lines, 6);
    rig.inner_sink->broken(rig.inner_sink->ctx, 1, 2, 3, 4);
    ck_assert_uint_eq(rig.broken, 1);
    ck_assert_int_eq(rig.inner_sink->demand(rig.inner_sink->ctx, 1, 2, 3),
                     PGSHARE_ERR_BUSY);
    ck_assert_int_eq(rig.inner_sink->discarded(rig.inner_sink->ctx, 1, 2, 3, 0,
                                               4),
                     PGSHARE_ERR_BUSY);
    rig.inner_sink->gone(rig.inner_sink->ctx, 1);
    ck_assert_uint_eq(rig.lines, 10);
    backend->ops->flush(backend);
    backend->ops->poll(backend);
    ck_assert_uint_eq(rig.polls, 1);
    ck_assert_uint_eq(backend->ops->poll_fds(backend, fds, 1), 0);
    backend->ops->detach(backend);
    pgshare_trace_backend_free(trace);
    pgshare_fault_backend_free(fault);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("decorators");
    TCase *fault = pgs_tcase(suite, "fault");
    TCase *delay = pgs_tcase(suite, "delay");
    TCase *trace = pgs_tcase(suite, "trace");

    tcase_add_test(fault, test_fault_modes);
    tcase_add_test(fault, test_fault_counts);
    tcase_add_test(delay, test_delay);
    tcase_add_test(trace, test_nested_trace);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("decorators", make, argc, argv);
}
