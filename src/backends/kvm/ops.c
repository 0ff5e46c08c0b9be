/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The backend: this process's end of sys/backend.h.
 *
 * Everything is done where it is submitted, and answered before submit()
 * returns; a guest in this process does not die and does not hang. What an
 * operation does is in ops_share.c (protect … map) and ops_memory.c (all
 * others).
 */
#include "kvm/backend.h"

#include <pgshare/domain.h>

#include <string.h>

#define BIT(kind) ((uint64_t)1 << (kind))

#define WITHOUT_EXTENT (BIT(PGSHARE_OP_RESERVE) | BIT(PGSHARE_OP_HARVEST))
#define WITHOUT_DOMAIN (BIT(PGSHARE_OP_RESERVE) | BIT(PGSHARE_OP_RELEASE))
#define WITH_IDS                                             \
    (BIT(PGSHARE_OP_FINGERPRINT) | BIT(PGSHARE_OP_PROTECT) | \
     BIT(PGSHARE_OP_PUBLISH) | BIT(PGSHARE_OP_QUERY) |       \
     BIT(PGSHARE_OP_RESERVE))

/* Mapping an extent, and each of its pages (reference figures; they only have
 * to be right in relation to each other). */
#define EXTENT_COST_NS 8000
#define PAGE_COST_NS 500

static pgs_kvm_op *const op_table[PGSHARE_OP_MAX] = {
    [PGSHARE_OP_FINGERPRINT] = pgs_kvm_op_fingerprint,
    [PGSHARE_OP_PROTECT] = pgs_kvm_op_protect,
    [PGSHARE_OP_UNPROTECT] = pgs_kvm_op_unprotect,
    [PGSHARE_OP_PUBLISH] = pgs_kvm_op_publish,
    [PGSHARE_OP_MAP] = pgs_kvm_op_map,
    [PGSHARE_OP_MERGE] = pgs_kvm_op_merge,
    [PGSHARE_OP_UNSHARE] = pgs_kvm_op_unshare,
    [PGSHARE_OP_RELEASE] = pgs_kvm_op_release,
    [PGSHARE_OP_DISCARD] = pgs_kvm_op_discard,
    [PGSHARE_OP_RECLAIM] = pgs_kvm_op_reclaim,
    [PGSHARE_OP_GRANT] = pgs_kvm_op_grant,
    [PGSHARE_OP_CLONE] = pgs_kvm_op_clone,
    [PGSHARE_OP_HARVEST] = pgs_kvm_op_harvest,
    [PGSHARE_OP_CHANGES] = pgs_kvm_op_changes,
    [PGSHARE_OP_QUERY] = pgs_kvm_op_query,
    [PGSHARE_OP_RESERVE] = pgs_kvm_op_reserve,
    [PGSHARE_OP_SUSPEND] = pgs_kvm_op_suspend,
    [PGSHARE_OP_READ_ONLY] = pgs_kvm_op_read_only,
};

static struct pgshare_kvm *kvm_of(struct pgshare_backend *backend)
{
    return (struct pgshare_kvm *)(void *)backend;
}

static int backend_attach(struct pgshare_backend *backend,
                          struct pgshare_host *host,
                          const struct pgshare_sink *sink,
                          struct pgshare_backend_info *ret_info)
{
    struct pgshare_kvm *kvm = kvm_of(backend);
    uint64_t ops = 0;

    if (kvm->sink)
        return PGSHARE_ERR_EXISTS;
    for (unsigned kind = 1; kind < PGSHARE_OP_MAX; kind++)
        if (op_table[kind])
            ops |= BIT(kind);
    kvm->host = host;
    kvm->sink = sink;
    *ret_info = (struct pgshare_backend_info){
        .size = sizeof(*ret_info),
        .caps = PGSHARE_CAP_MERGE | PGSHARE_CAP_SNAPSHOT,
        .extent_max = PGSHARE_EXTENT_MAX,
        .ops = ops,
        .extent_cost_ns = EXTENT_COST_NS,
        .page_cost_ns = PAGE_COST_NS,
    };
    return 0;
}

/* Frames that guests still map are theirs now, and go with them; what was held
 * for the host goes back to the machine. */
static void backend_detach(struct pgshare_backend *backend)
{
    struct pgshare_kvm *kvm = kvm_of(backend);

    pthread_mutex_lock(&kvm->hearing); /* no fault is asked about any more */
    pthread_mutex_lock(&kvm->lock);
    for (struct pgshare_kvm_guest *guest = kvm->guests; guest;
         guest = guest->next)
        atomic_store(&guest->handle, 0);
    kvm->host = NULL;
    kvm->sink = NULL;
    pthread_mutex_unlock(&kvm->lock);
    pthread_mutex_unlock(&kvm->hearing);
    pgs_reserve_move(kvm, -(int64_t)pgs_reserve_level(kvm));
    pthread_mutex_lock(&kvm->lock);
    for (uint32_t i = 0; i < kvm->pools_used; i++)
        if (kvm->pools[i])
            pgs_pool_orphan(kvm->pools[i]);
    pgs_pool_put(kvm, NULL);
    pthread_mutex_unlock(&kvm->lock);
}

/* Lock held. The pointer is the embedder's word; is it one of ours? */
static bool is_guest(const struct pgshare_kvm *kvm, const void *cookie)
{
    const struct pgshare_kvm_guest *guest = kvm->guests;

    while (guest && guest != cookie)
        guest = guest->next;
    return guest;
}

static uint32_t caps_of(const struct pgshare_kvm_guest *guest)
{
    if (guest->trapped)
        return 0;
    return (uint32_t)PGSHARE_CAP_PLATFORM_COW |
           (guest->kvm->in_place ? 0 : (uint32_t)PGSHARE_CAP_CHANGE_LOG);
}

static int backend_domain_add(struct pgshare_backend *backend, uint64_t dom,
                              const struct pgshare_domain_options *options,
                              struct pgshare_domain_attach *ret_attach)
{
    struct pgshare_kvm *kvm = kvm_of(backend);
    struct pgshare_kvm_guest *guest = options->attach;
    struct pgs_kvm_pool *pool;
    int r = 0;

    pthread_mutex_lock(&kvm->lock);
    if (!guest || !is_guest(kvm, guest))
        r = PGSHARE_ERR_INVALID;
    else if (atomic_load(&guest->handle))
        r = PGSHARE_ERR_EXISTS;
    else if (options->gfns > guest->gfns)
        r = PGSHARE_ERR_RANGE;
    else
        r = pgs_suspend_end(guest);
    pool = r ? NULL : pgs_pool_get(kvm, options->group);
    if (!r && !pool)
        r = PGSHARE_ERR_NOMEM;
    if (!r) {
        if (guest->pool != pool) {
            guest->image = 0;
            memset(guest->home, 0,
                   (guest->gfns + CHUNK - 1) / CHUNK * sizeof(*guest->home));
        }
        pgs_pool_put(kvm, guest->pool);
        guest->pool = pool;
        atomic_store(&guest->handle, dom);
        *ret_attach = (struct pgshare_domain_attach){
            .size = sizeof(*ret_attach),
            .cookie = guest,
            .caps = caps_of(guest),
        };
    }
    pthread_mutex_unlock(&kvm->lock);
    return r;
}

/* The guest keeps its mappings; their frames wait for it when the core has
 * released them. */
static void backend_domain_remove(struct pgshare_backend *backend, void *cookie)
{
    struct pgshare_kvm_guest *guest = cookie;
    struct pgshare_kvm *kvm = kvm_of(backend);

    atomic_store(&guest->handle, 0);
    pgs_unguard_all(guest);
    if (pthread_equal(pthread_self(), kvm->handler))
        return;
    pthread_mutex_lock(&kvm->hearing); /* a fault that is being asked about */
    pthread_mutex_unlock(&kvm->hearing);
}

/* Why the operation cannot be done at all: an error of all its pages. */
static int refuse(struct pgs_kvm_work *work)
{
    const struct pgshare_op *op = work->op;

    if (op->kind >= PGSHARE_OP_MAX || !op_table[op->kind])
        return PGSHARE_ERR_NOTSUP;
    if (!work->guest && !(WITHOUT_DOMAIN & BIT(op->kind)))
        return PGSHARE_ERR_INVALID;
    if (op->count > PGSHARE_EXTENT_MAX ||
        (!(WITHOUT_EXTENT & BIT(op->kind)) &&
         (!op->count ||
          (work->guest && (op->gfn >= work->guest->gfns ||
                           op->count > work->guest->gfns - op->gfn)))))
        return PGSHARE_ERR_RANGE;
    if (work->guest && !atomic_load(&work->guest->handle))
        return PGSHARE_ERR_GONE;
    return 0;
}

static bool any(const int8_t *status, uint32_t n)
{
    while (n && !status[n - 1])
        n--;
    return n;
}

static void perform(struct pgshare_kvm *kvm, const struct pgshare_op *op)
{
    int8_t status[PGSHARE_EXTENT_MAX] = { 0 };
    uint64_t ids[PGSHARE_EXTENT_MAX];
    struct pgs_kvm_work work = {
        .kvm = kvm,
        .guest = op->domain,
        .peer = op->peer,
        .op = op,
        .status = status,
        .ids = ids,
    };
    struct pgshare_completion completion = { .token = op->token,
                                             .count = op->count };

    work.result = refuse(&work);
    if (!work.result) {
        /* The number of the beginning: what breaks a page after the operation
         * has reached it is later. */
        if (work.guest)
            completion.seq = pgs_seq(work.guest);
        memset(ids, 0, op->count * sizeof(ids[0]));
        op_table[op->kind](&work);
        if (WITH_IDS & BIT(op->kind))
            completion.ids = ids;
    }
    completion.result = work.result;
    completion.reserve = work.reserve;
    if (!work.result && any(status, op->count))
        completion.status = status;
    kvm->sink->complete(kvm->sink->ctx, &completion);
}

static int backend_submit(struct pgshare_backend *backend,
                          const struct pgshare_op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++)
        perform(kvm_of(backend), &ops[i]);
    return 0;
}

const struct pgshare_backend_ops pgs_kvm_ops = {
    .size = sizeof(struct pgshare_backend_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "kvm",
    .attach = backend_attach,
    .detach = backend_detach,
    .domain_add = backend_domain_add,
    .domain_remove = backend_domain_remove,
    .submit = backend_submit,
};
