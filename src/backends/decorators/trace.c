/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The decorator that tells what passes: one line per operation, completion and
 * event. Operations are told before they go down, answers before they go up,
 * so that a line is there when what follows from it goes wrong.
 */
#include "decorator.h"

#include <pgshare/error.h>
#include <pgshare/sys/decorator.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define LINE_MAX_BYTES 256

struct pgshare_trace_backend {
    struct pgs_decorator decorator; /* first */
    void (*line)(void *ctx, const char *text);
    void *ctx;
};

static const char *kind_name(uint32_t kind)
{
    static const char *const names[PGSHARE_OP_MAX] = {
        [PGSHARE_OP_FINGERPRINT] = "fingerprint",
        [PGSHARE_OP_PROTECT] = "protect",
        [PGSHARE_OP_UNPROTECT] = "unprotect",
        [PGSHARE_OP_COMPARE] = "compare",
        [PGSHARE_OP_PUBLISH] = "publish",
        [PGSHARE_OP_MAP] = "map",
        [PGSHARE_OP_MERGE] = "merge",
        [PGSHARE_OP_UNSHARE] = "unshare",
        [PGSHARE_OP_RELEASE] = "release",
        [PGSHARE_OP_DISCARD] = "discard",
        [PGSHARE_OP_RECLAIM] = "reclaim",
        [PGSHARE_OP_GRANT] = "grant",
        [PGSHARE_OP_CLONE] = "clone",
        [PGSHARE_OP_READ_ONLY] = "read-only",
        [PGSHARE_OP_HARVEST] = "harvest",
        [PGSHARE_OP_CHANGES] = "changes",
        [PGSHARE_OP_QUERY] = "query",
        [PGSHARE_OP_RESERVE] = "reserve",
        [PGSHARE_OP_ANSWER] = "answer",
        [PGSHARE_OP_SUSPEND] = "suspend",
        [PGSHARE_OP_FORK] = "fork",
    };

    return kind < PGSHARE_OP_MAX && names[kind] ? names[kind] : "unknown";
}

__attribute__((format(printf, 2, 3))) static void tell(
    const struct pgshare_trace_backend *trace, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    trace->line(trace->ctx, text);
}

static int trace_submit(struct pgshare_backend *backend,
                        const struct pgshare_op *ops, size_t n)
{
    struct pgshare_trace_backend *trace = (struct pgshare_trace_backend *)
        backend;
    int error;

    for (size_t i = 0; i < n; i++)
        tell(trace,
             "op %llx %s domain %llx gfn %llu+%u flags %x arg %llx peer %llx "
             "gfn %llu",
             (unsigned long long)ops[i].token, kind_name(ops[i].kind),
             (unsigned long long)(uintptr_t)ops[i].domain,
             (unsigned long long)ops[i].gfn, ops[i].count, ops[i].flags,
             (unsigned long long)ops[i].arg,
             (unsigned long long)(uintptr_t)ops[i].peer,
             (unsigned long long)ops[i].peer_gfn);
    error = pgs_decorator_submit(backend, ops, n);
    if (error)
        tell(trace, "refused %zu operations: %d", n, error);
    return error;
}

static void sink_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    struct pgshare_trace_backend *trace = ctx;
    uint32_t failed = completion->result ? completion->count : 0;

    for (uint32_t i = 0; completion->status && i < completion->count; i++)
        failed += completion->status[i] < 0;
    tell(trace,
         "done %llx pages %u+%u failed %u result %d seq %llu reserve "
         "%+lld",
         (unsigned long long)completion->token, completion->first,
         completion->count, failed, completion->result,
         (unsigned long long)completion->seq, (long long)completion->reserve);
    pgs_decorator_complete(&trace->decorator, completion);
}

static void sink_broken(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                        uint64_t seq)
{
    struct pgshare_trace_backend *trace = ctx;
    const struct pgshare_sink *outer = trace->decorator.outer;

    tell(trace, "broken domain %llu gfn %llu+%llu seq %llu",
         (unsigned long long)dom, (unsigned long long)gfn,
         (unsigned long long)count, (unsigned long long)seq);
    outer->broken(outer->ctx, dom, gfn, count, seq);
}

static int sink_demand(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie)
{
    struct pgshare_trace_backend *trace = ctx;
    const struct pgshare_sink *outer = trace->decorator.outer;

    tell(trace, "demand domain %llu gfn %llu cookie %llx",
         (unsigned long long)dom, (unsigned long long)gfn,
         (unsigned long long)cookie);
    return outer->demand(outer->ctx, dom, gfn, cookie);
}

static int sink_discarded(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                          int hole, uint64_t seq)
{
    struct pgshare_trace_backend *trace = ctx;
    const struct pgshare_sink *outer = trace->decorator.outer;

    tell(trace, "discarded domain %llu gfn %llu+%llu hole %d seq %llu",
         (unsigned long long)dom, (unsigned long long)gfn,
         (unsigned long long)count, hole, (unsigned long long)seq);
    return outer->discarded(outer->ctx, dom, gfn, count, hole, seq);
}

static void sink_gone(void *ctx, uint64_t dom)
{
    struct pgshare_trace_backend *trace = ctx;
    const struct pgshare_sink *outer = trace->decorator.outer;

    tell(trace, "gone domain %llu", (unsigned long long)dom);
    outer->gone(outer->ctx, dom);
}

static const struct pgshare_backend_ops trace_ops = {
    .size = sizeof(struct pgshare_backend_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "trace",
    .attach = pgs_decorator_attach,
    .detach = pgs_decorator_detach,
    .domain_add = pgs_decorator_domain_add,
    .domain_remove = pgs_decorator_domain_remove,
    .submit = trace_submit,
    .flush = pgs_decorator_flush,
    .poll = pgs_decorator_poll,
    .poll_fds = pgs_decorator_poll_fds,
};

int pgshare_trace_backend_new(struct pgshare_backend *inner,
                              void (*line)(void *ctx, const char *text),
                              void *ctx,
                              struct pgshare_trace_backend **ret_trace)
{
    struct pgshare_trace_backend *trace;

    if (!inner || !line || !ret_trace)
        return PGSHARE_ERR_INVALID;
    trace = calloc(1, sizeof(*trace));
    if (!trace)
        return PGSHARE_ERR_NOMEM;
    trace->line = line;
    trace->ctx = ctx;
    pgs_decorator_init(&trace->decorator, inner, &trace_ops);
    trace->decorator.sink.complete = sink_complete;
    trace->decorator.sink.broken = sink_broken;
    trace->decorator.sink.demand = sink_demand;
    trace->decorator.sink.discarded = sink_discarded;
    trace->decorator.sink.gone = sink_gone;
    *ret_trace = trace;
    return 0;
}

struct pgshare_trace_backend *pgshare_trace_backend_free(
    struct pgshare_trace_backend *trace)
{
    free(trace);
    return NULL;
}

struct pgshare_backend *pgshare_trace_backend_base(
    struct pgshare_trace_backend *trace)
{
    return trace ? &trace->decorator.backend : NULL;
}
