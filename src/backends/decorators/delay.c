/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The decorator that holds completions back for some polls, or some time.
 *
 * The order stays as it was. Events pass at once, which makes them overtake
 * completions: they may, since the core keeps what concerns a page that an
 * operation has, or asks for it again.
 */
#include "decorator.h"
#include "held.h"

#include "base/abi.h"

#include <pgshare/error.h>
#include <pgshare/sys/decorator.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

/* Tokens of operations of kinds that are not held, until answered. */
struct passing {
    struct passing *next;
    uint64_t token;
    uint32_t left;
};

struct pgshare_delay_backend {
    struct pgs_decorator decorator; /* first */
    struct pgshare_delay_options options;
    pthread_mutex_t lock; /* of all below */
    struct pgs_held_queue queue;
    struct passing *passing;
    uint64_t polls;
    uint64_t held;
};

static uint64_t monotonic_ns(void *ctx)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Is this an answer to an operation that is not held? */
static bool passes(struct pgshare_delay_backend *delay,
                   const struct pgshare_completion *completion)
{
    uint32_t pages = completion->count ? completion->count : 1;
    struct passing **link = &delay->passing;
    struct passing *found;

    while (*link && (*link)->token != completion->token)
        link = &(*link)->next;
    found = *link;
    if (found && found->left <= pages) {
        *link = found->next;
        free(found);
    } else if (found) {
        found->left -= pages;
    }
    return found;
}

static void sink_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    struct pgshare_delay_backend *delay = ctx;
    struct pgs_held *held = NULL;
    uint64_t now = delay->options.now_ns(delay->options.ctx);

    pthread_mutex_lock(&delay->lock);
    if (!passes(delay, completion))
        held = pgs_held_copy(completion);
    if (held) {
        held->due_ns = now + delay->options.ns;
        held->due_poll = delay->polls + delay->options.polls;
        pgs_held_put(&delay->queue, held);
        delay->held++;
    }
    pthread_mutex_unlock(&delay->lock);
    if (!held)
        pgs_decorator_complete(&delay->decorator, completion);
}

/* Remembers operations of kinds that pass. */
static int delay_submit(struct pgshare_backend *backend,
                        const struct pgshare_op *ops, size_t n)
{
    struct pgshare_delay_backend *delay = (struct pgshare_delay_backend *)
        backend;

    for (size_t i = 0; i < n; i++) {
        struct passing *passing;

        if (ops[i].kind < 64 && delay->options.kinds >> ops[i].kind & 1)
            continue;
        passing = malloc(sizeof(*passing));
        if (!passing)
            continue; /* held as well, then */
        passing->token = ops[i].token;
        passing->left = ops[i].count ? ops[i].count : 1;
        pthread_mutex_lock(&delay->lock);
        passing->next = delay->passing;
        delay->passing = passing;
        pthread_mutex_unlock(&delay->lock);
    }
    return pgs_decorator_submit(backend, ops, n);
}

static struct pgs_held *take_due(struct pgshare_delay_backend *delay,
                                 uint64_t now)
{
    struct pgs_held *held;

    pthread_mutex_lock(&delay->lock);
    held = delay->queue.first;
    if (held && (held->due_ns > now || held->due_poll > delay->polls))
        held = NULL;
    if (held) {
        pgs_held_take(&delay->queue);
        delay->held--;
    }
    pthread_mutex_unlock(&delay->lock);
    return held;
}

static void delay_poll(struct pgshare_backend *backend)
{
    struct pgshare_delay_backend *delay = (struct pgshare_delay_backend *)
        backend;
    uint64_t now = delay->options.now_ns(delay->options.ctx);
    struct pgs_held *held;

    pgs_decorator_poll(backend);
    pthread_mutex_lock(&delay->lock);
    delay->polls++;
    pthread_mutex_unlock(&delay->lock);
    while ((held = take_due(delay, now))) {
        pgs_decorator_complete(&delay->decorator, &held->completion);
        free(held);
    }
}

static void forget(struct pgshare_delay_backend *delay)
{
    pthread_mutex_lock(&delay->lock);
    pgs_held_clear(&delay->queue);
    delay->held = 0;
    while (delay->passing) {
        struct passing *passing = delay->passing;

        delay->passing = passing->next;
        free(passing);
    }
    pthread_mutex_unlock(&delay->lock);
}

static void delay_detach(struct pgshare_backend *backend)
{
    pgs_decorator_detach(backend);
    forget((struct pgshare_delay_backend *)backend);
}

static const struct pgshare_backend_ops delay_ops = {
    .size = sizeof(struct pgshare_backend_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "delay",
    .attach = pgs_decorator_attach,
    .detach = delay_detach,
    .domain_add = pgs_decorator_domain_add,
    .domain_remove = pgs_decorator_domain_remove,
    .submit = delay_submit,
    .flush = pgs_decorator_flush,
    .poll = delay_poll,
    .poll_fds = pgs_decorator_poll_fds,
};

int pgshare_delay_backend_new(struct pgshare_backend *inner,
                              const struct pgshare_delay_options *options,
                              struct pgshare_delay_backend **ret_delay)
{
    struct pgshare_delay_options ours = { 0 };
    struct pgshare_delay_backend *delay;
    int error;

    if (!inner || !ret_delay)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (error)
        return error;
    delay = calloc(1, sizeof(*delay));
    if (!delay)
        return PGSHARE_ERR_NOMEM;
    if (pthread_mutex_init(&delay->lock, NULL)) {
        free(delay);
        return PGSHARE_ERR_NOMEM;
    }
    if (!ours.now_ns)
        ours.now_ns = monotonic_ns;
    if (!ours.kinds)
        ours.kinds = UINT64_MAX;
    delay->options = ours;
    pgs_decorator_init(&delay->decorator, inner, &delay_ops);
    delay->decorator.sink.complete = sink_complete;
    *ret_delay = delay;
    return 0;
}

struct pgshare_delay_backend *pgshare_delay_backend_free(
    struct pgshare_delay_backend *delay)
{
    if (!delay)
        return NULL;
    forget(delay);
    pthread_mutex_destroy(&delay->lock);
    free(delay);
    return NULL;
}

struct pgshare_backend *pgshare_delay_backend_base(
    struct pgshare_delay_backend *delay)
{
    return delay ? &delay->decorator.backend : NULL;
}

uint64_t pgshare_delay_backend_held(struct pgshare_delay_backend *delay)
{
    uint64_t held = 0;

    if (delay) {
        pthread_mutex_lock(&delay->lock);
        held = delay->held;
        pthread_mutex_unlock(&delay->lock);
    }
    return held;
}
