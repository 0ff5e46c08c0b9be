/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What all decorators are: a backend that hands everything down to another,
 * and a sink that hands everything up. A decorator replaces the functions that
 * it changes, in both.
 */
#ifndef PGS_DECORATOR_H
#define PGS_DECORATOR_H

#include <pgshare/sys/backend.h>

/*
 * First member of every decorator. `outer` is the sink of whoever attached
 * us, NULL before; `sink` is ours, whose ctx is the decorator.
 */
struct pgs_decorator {
    struct pgshare_backend backend; /* first */
    struct pgshare_backend *inner;
    const struct pgshare_sink *outer;
    struct pgshare_sink sink;
};

/* Sets all up to pass. `ops`: the decorator's own table. */
void pgs_decorator_init(struct pgs_decorator *decorator,
                        struct pgshare_backend *inner,
                        const struct pgshare_backend_ops *ops);

int pgs_decorator_attach(struct pgshare_backend *backend,
                         struct pgshare_host *host,
                         const struct pgshare_sink *sink,
                         struct pgshare_backend_info *ret_info);
void pgs_decorator_detach(struct pgshare_backend *backend);
int pgs_decorator_domain_add(struct pgshare_backend *backend, uint64_t dom,
                             const struct pgshare_domain_options *options,
                             struct pgshare_domain_attach *ret_attach);
void pgs_decorator_domain_remove(struct pgshare_backend *backend, void *cookie);
int pgs_decorator_submit(struct pgshare_backend *backend,
                         const struct pgshare_op *ops, size_t n);
void pgs_decorator_flush(struct pgshare_backend *backend);
void pgs_decorator_poll(struct pgshare_backend *backend);
size_t pgs_decorator_poll_fds(struct pgshare_backend *backend, int *ret_fds,
                              size_t max);

/* Hands a completion up. */
static inline void pgs_decorator_complete(
    const struct pgs_decorator *decorator,
    const struct pgshare_completion *completion)
{
    decorator->outer->complete(decorator->outer->ctx, completion);
}

#endif
