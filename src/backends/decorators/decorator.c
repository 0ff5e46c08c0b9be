/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part that all decorators share: passing everything through.
 *
 * The inner backend's optional operations are looked up at each call, so that
 * one decorator fits any backend: what the inner one does not have does
 * nothing here either.
 */
#include "decorator.h"

static void pass_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    pgs_decorator_complete(ctx, completion);
}

static void pass_broken(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                        uint64_t seq)
{
    const struct pgshare_sink *outer = ((struct pgs_decorator *)ctx)->outer;

    outer->broken(outer->ctx, dom, gfn, count, seq);
}

static int pass_demand(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie)
{
    const struct pgshare_sink *outer = ((struct pgs_decorator *)ctx)->outer;

    return outer->demand(outer->ctx, dom, gfn, cookie);
}

static int pass_discarded(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                          int hole, uint64_t seq)
{
    const struct pgshare_sink *outer = ((struct pgs_decorator *)ctx)->outer;

    return outer->discarded(outer->ctx, dom, gfn, count, hole, seq);
}

static void pass_gone(void *ctx, uint64_t dom)
{
    const struct pgshare_sink *outer = ((struct pgs_decorator *)ctx)->outer;

    outer->gone(outer->ctx, dom);
}

void pgs_decorator_init(struct pgs_decorator *decorator,
                        struct pgshare_backend *inner,
                        const struct pgshare_backend_ops *ops)
{
    decorator->backend.ops = ops;
    decorator->inner = inner;
    decorator->outer = NULL;
    decorator->sink = (struct pgshare_sink){
        .size = sizeof(decorator->sink),
        .ctx = decorator,
        .complete = pass_complete,
        .broken = pass_broken,
        .demand = pass_demand,
        .discarded = pass_discarded,
        .gone = pass_gone,
    };
}

int pgs_decorator_attach(struct pgshare_backend *backend,
                         struct pgshare_host *host,
                         const struct pgshare_sink *sink,
                         struct pgshare_backend_info *ret_info)
{
    struct pgs_decorator *decorator = (struct pgs_decorator *)backend;
    int error;

    decorator->outer = sink;
    error = decorator->inner->ops->attach(decorator->inner, host,
                                          &decorator->sink, ret_info);
    if (error)
        decorator->outer = NULL;
    return error;
}

void pgs_decorator_detach(struct pgshare_backend *backend)
{
    struct pgs_decorator *decorator = (struct pgs_decorator *)backend;

    decorator->inner->ops->detach(decorator->inner);
    decorator->outer = NULL;
}

int pgs_decorator_domain_add(struct pgshare_backend *backend, uint64_t dom,
                             const struct pgshare_domain_options *options,
                             struct pgshare_domain_attach *ret_attach)
{
    struct pgshare_backend *inner = ((struct pgs_decorator *)backend)->inner;

    return inner->ops->domain_add(inner, dom, options, ret_attach);
}

void pgs_decorator_domain_remove(struct pgshare_backend *backend, void *cookie)
{
    struct pgshare_backend *inner = ((struct pgs_decorator *)backend)->inner;

    inner->ops->domain_remove(inner, cookie);
}

int pgs_decorator_submit(struct pgshare_backend *backend,
                         const struct pgshare_op *ops, size_t n)
{
    struct pgshare_backend *inner = ((struct pgs_decorator *)backend)->inner;

    return inner->ops->submit(inner, ops, n);
}

void pgs_decorator_flush(struct pgshare_backend *backend)
{
    struct pgshare_backend *inner = ((struct pgs_decorator *)backend)->inner;

    if (inner->ops->flush)
        inner->ops->flush(inner);
}

void pgs_decorator_poll(struct pgshare_backend *backend)
{
    struct pgshare_backend *inner = ((struct pgs_decorator *)backend)->inner;

    if (inner->ops->poll)
        inner->ops->poll(inner);
}

size_t pgs_decorator_poll_fds(struct pgshare_backend *backend, int *ret_fds,
                              size_t max)
{
    struct pgshare_backend *inner = ((struct pgs_decorator *)backend)->inner;

    return inner->ops->poll_fds ? inner->ops->poll_fds(inner, ret_fds, max) : 0;
}
