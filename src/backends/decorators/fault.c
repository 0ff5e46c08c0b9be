/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The decorator that lets operations fail, one by one, for failure sweeps.
 *
 * Operations of the plan's kinds are counted as they are submitted; those in
 * [first, first + count) fail. What must be recognised when it is answered
 * (lost, doubled, late) is remembered by token until its last page has been.
 */
#include "decorator.h"
#include "held.h"

#include "base/abi.h"

#include <pgshare/error.h>
#include <pgshare/sys/decorator.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* An operation whose answer is to be interfered with. */
struct marked {
    struct marked *next;
    uint64_t token;
    uint32_t mode;
    uint32_t left; /* pages not answered */
};

struct pgshare_fault_backend {
    struct pgs_decorator decorator; /* first */
    pthread_mutex_t lock;           /* of all below */
    struct pgshare_fault_plan plan;
    uint64_t seen;
    uint64_t failed;
    struct marked *marked;
    struct pgs_held_queue late;
};

static bool counts(const struct pgshare_fault_backend *fault,
                   const struct pgshare_op *op)
{
    return fault->plan.mode && op->kind < 64 &&
           fault->plan.kinds >> op->kind & 1;
}

/* Counts an operation; does it fail? With the lock held. */
static bool draw(struct pgshare_fault_backend *fault,
                 const struct pgshare_op *op)
{
    uint64_t i;

    if (!counts(fault, op))
        return false;
    i = fault->seen++;
    if (i < fault->plan.first || i - fault->plan.first >= fault->plan.count)
        return false;
    fault->failed++;
    return true;
}

/* Answers all pages of an operation with the plan's error. */
static void fail_all(struct pgshare_fault_backend *fault,
                     const struct pgshare_op *op, int error)
{
    struct pgshare_completion completion = { .token = op->token,
                                             .count = op->count,
                                             .result = error };

    pgs_decorator_complete(&fault->decorator, &completion);
}

/* Remembers an operation until it is answered. False: no memory. */
static bool mark(struct pgshare_fault_backend *fault,
                 const struct pgshare_op *op, uint32_t mode)
{
    struct marked *marked = malloc(sizeof(*marked));

    if (!marked)
        return false;
    marked->token = op->token;
    marked->mode = mode;
    marked->left = op->count ? op->count : 1;
    pthread_mutex_lock(&fault->lock);
    marked->next = fault->marked;
    fault->marked = marked;
    pthread_mutex_unlock(&fault->lock);
    return true;
}

/* How a part of an answer is to be treated; 0: pass it. */
static uint32_t mode_of(struct pgshare_fault_backend *fault,
                        const struct pgshare_completion *completion)
{
    struct marked **link;
    struct marked *over = NULL;
    uint32_t mode = 0;

    pthread_mutex_lock(&fault->lock);
    link = &fault->marked;
    while (*link && (*link)->token != completion->token)
        link = &(*link)->next;
    if (*link) {
        uint32_t pages = completion->count ? completion->count : 1;

        mode = (*link)->mode;
        if ((*link)->left <= pages) {
            over = *link;
            *link = over->next;
        } else {
            (*link)->left -= pages;
        }
    }
    pthread_mutex_unlock(&fault->lock);
    free(over);
    return mode;
}

static void keep_late(struct pgshare_fault_backend *fault,
                      const struct pgshare_completion *completion)
{
    struct pgs_held *held = pgs_held_copy(completion);

    if (!held)
        return; /* lost: worse, but as legal */
    pthread_mutex_lock(&fault->lock);
    pgs_held_put(&fault->late, held);
    pthread_mutex_unlock(&fault->lock);
}

static void sink_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    struct pgshare_fault_backend *fault = ctx;

    switch (mode_of(fault, completion)) {
    case PGSHARE_INJECT_LOSE:
        return;
    case PGSHARE_INJECT_LATE:
        keep_late(fault, completion);
        return;
    case PGSHARE_INJECT_TWICE:
        pgs_decorator_complete(&fault->decorator, completion);
        break;
    default:
        break;
    }
    pgs_decorator_complete(&fault->decorator, completion);
}

static int submit_one(struct pgshare_fault_backend *fault,
                      const struct pgshare_op *op)
{
    return pgs_decorator_submit(&fault->decorator.backend, op, 1);
}

/* The first half of the pages is done, the second fails. */
static int submit_partial(struct pgshare_fault_backend *fault,
                          const struct pgshare_op *op, int error)
{
    struct pgshare_op half = *op;
    struct pgshare_completion completion = { .token = op->token,
                                             .count = op->count,
                                             .result = error };
    int refused = 0;

    half.count = op->count / 2;
    if (half.count)
        refused = submit_one(fault, &half);
    if (refused)
        return refused;
    completion.first = half.count;
    completion.count = op->count - half.count;
    pgs_decorator_complete(&fault->decorator, &completion);
    return 0;
}

static int submit_failing(struct pgshare_fault_backend *fault,
                          const struct pgshare_op *op, uint32_t mode, int error)
{
    switch (mode) {
    case PGSHARE_INJECT_FAIL:
        fail_all(fault, op, error);
        return 0;
    case PGSHARE_INJECT_PARTIAL:
        return submit_partial(fault, op, error);
    case PGSHARE_INJECT_SWALLOW:
        return 0;
    default:
        return mark(fault, op, mode) ? submit_one(fault, op)
                                     : PGSHARE_ERR_NOMEM;
    }
}

/*
 * Runs of operations that pass go down as they came. A batch in which one is
 * refused is refused as a whole, before anything of it went down.
 */
static int fault_submit(struct pgshare_backend *backend,
                        const struct pgshare_op *ops, size_t n)
{
    struct pgshare_fault_backend *fault = (struct pgshare_fault_backend *)
        backend;
    size_t from = 0;
    int error = 0;
    uint32_t mode;

    pthread_mutex_lock(&fault->lock);
    mode = fault->plan.mode;
    if (mode == PGSHARE_INJECT_REFUSE)
        for (size_t i = 0; i < n; i++)
            if (draw(fault, &ops[i]))
                error = fault->plan.error;
    pthread_mutex_unlock(&fault->lock);
    if (error)
        return error;
    for (size_t i = 0; mode && mode != PGSHARE_INJECT_REFUSE && i < n; i++) {
        bool fails;
        int plan_error;

        pthread_mutex_lock(&fault->lock);
        fails = draw(fault, &ops[i]);
        plan_error = fault->plan.error;
        pthread_mutex_unlock(&fault->lock);
        if (!fails)
            continue;
        if (from < i)
            error = pgs_decorator_submit(backend, ops + from, i - from);
        /* What is down cannot be taken back: the rest answers by itself. */
        for (size_t j = from; error && j < i; j++)
            fail_all(fault, &ops[j], error);
        error = submit_failing(fault, &ops[i], mode, plan_error);
        if (error)
            fail_all(fault, &ops[i], error);
        error = 0;
        from = i + 1;
    }
    if (from == n)
        return 0;
    error = pgs_decorator_submit(backend, ops + from, n - from);
    for (size_t j = from; from && error && j < n; j++)
        fail_all(fault, &ops[j], error);
    return from ? 0 : error;
}

static void forget(struct pgshare_fault_backend *fault)
{
    pthread_mutex_lock(&fault->lock);
    while (fault->marked) {
        struct marked *marked = fault->marked;

        fault->marked = marked->next;
        free(marked);
    }
    pgs_held_clear(&fault->late);
    pthread_mutex_unlock(&fault->lock);
}

static void fault_detach(struct pgshare_backend *backend)
{
    forget((struct pgshare_fault_backend *)backend);
    pgs_decorator_detach(backend);
}

static const struct pgshare_backend_ops fault_ops = {
    .size = sizeof(struct pgshare_backend_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "fault",
    .attach = pgs_decorator_attach,
    .detach = fault_detach,
    .domain_add = pgs_decorator_domain_add,
    .domain_remove = pgs_decorator_domain_remove,
    .submit = fault_submit,
    .flush = pgs_decorator_flush,
    .poll = pgs_decorator_poll,
    .poll_fds = pgs_decorator_poll_fds,
};

int pgshare_fault_backend_new(struct pgshare_backend *inner,
                              struct pgshare_fault_backend **ret_fault)
{
    struct pgshare_fault_backend *fault;

    if (!inner || !ret_fault)
        return PGSHARE_ERR_INVALID;
    fault = calloc(1, sizeof(*fault));
    if (!fault)
        return PGSHARE_ERR_NOMEM;
    if (pthread_mutex_init(&fault->lock, NULL)) {
        free(fault);
        return PGSHARE_ERR_NOMEM;
    }
    pgs_decorator_init(&fault->decorator, inner, &fault_ops);
    fault->decorator.sink.complete = sink_complete;
    *ret_fault = fault;
    return 0;
}

struct pgshare_fault_backend *pgshare_fault_backend_free(
    struct pgshare_fault_backend *fault)
{
    if (!fault)
        return NULL;
    forget(fault);
    pthread_mutex_destroy(&fault->lock);
    free(fault);
    return NULL;
}

struct pgshare_backend *pgshare_fault_backend_base(
    struct pgshare_fault_backend *fault)
{
    return fault ? &fault->decorator.backend : NULL;
}

int pgshare_fault_backend_plan(struct pgshare_fault_backend *fault,
                               const struct pgshare_fault_plan *plan)
{
    struct pgshare_fault_plan ours = { 0 };
    int error;

    if (!fault)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), plan);
    if (error)
        return error;
    if (ours.mode > PGSHARE_INJECT_LATE)
        return PGSHARE_ERR_INVALID;
    if (!ours.error)
        ours.error = PGSHARE_ERR_BACKEND;
    if (!ours.kinds)
        ours.kinds = UINT64_MAX;
    if (!ours.count)
        ours.count = 1;
    pthread_mutex_lock(&fault->lock);
    fault->plan = ours;
    fault->seen = 0;
    fault->failed = 0;
    pthread_mutex_unlock(&fault->lock);
    return 0;
}

uint64_t pgshare_fault_backend_seen(struct pgshare_fault_backend *fault)
{
    uint64_t seen = 0;

    if (fault) {
        pthread_mutex_lock(&fault->lock);
        seen = fault->seen;
        pthread_mutex_unlock(&fault->lock);
    }
    return seen;
}

uint64_t pgshare_fault_backend_failed(struct pgshare_fault_backend *fault)
{
    uint64_t failed = 0;

    if (fault) {
        pthread_mutex_lock(&fault->lock);
        failed = fault->failed;
        pthread_mutex_unlock(&fault->lock);
    }
    return failed;
}

uint64_t pgshare_fault_backend_release(struct pgshare_fault_backend *fault)
{
    uint64_t n = 0;

    for (;;) {
        struct pgs_held *held;

        if (!fault || !fault->decorator.outer)
            return n;
        pthread_mutex_lock(&fault->lock);
        held = pgs_held_take(&fault->late);
        pthread_mutex_unlock(&fault->lock);
        if (!held)
            return n;
        pgs_decorator_complete(&fault->decorator, &held->completion);
        free(held);
        n++;
    }
}
