/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The backend: the machine's end of sys/backend.h.
 *
 * Without chaos and hooks an operation is done where it is submitted, on
 * arrays on the stack, and answered before submit() returns. With them,
 * schedule.c takes it from here. What an operation does to a page is in
 * ops_share.c (protect … map) and ops_memory.c (all others); each of these
 * functions works on pages first … first+n-1, so that a guest action can be
 * put between any two pages.
 */
#include "machine.h"

#include <pgshare/domain.h>

#include <string.h>

#define BIT(kind) ((uint64_t)1 << (kind))

/* Neither an extent nor a domain is needed by these. */
#define WITHOUT_EXTENT                                  \
    (BIT(PGSHARE_OP_RESERVE) | BIT(PGSHARE_OP_ANSWER) | \
     BIT(PGSHARE_OP_HARVEST) | BIT(PGSHARE_OP_SUSPEND))
#define WITHOUT_DOMAIN \
    (BIT(PGSHARE_OP_RESERVE) | BIT(PGSHARE_OP_ANSWER) | BIT(PGSHARE_OP_RELEASE))
#define WITH_IDS                                             \
    (BIT(PGSHARE_OP_FINGERPRINT) | BIT(PGSHARE_OP_PROTECT) | \
     BIT(PGSHARE_OP_PUBLISH) | BIT(PGSHARE_OP_QUERY) |       \
     BIT(PGSHARE_OP_RESERVE))
#define WITH_STATUS (BIT(PGSHARE_OP_CHANGES) | BIT(PGSHARE_OP_QUERY))

static pgs_mock_op *const op_table[PGSHARE_OP_MAX] = {
    [PGSHARE_OP_FINGERPRINT] = pgs_mock_op_fingerprint,
    [PGSHARE_OP_PROTECT] = pgs_mock_op_protect,
    [PGSHARE_OP_UNPROTECT] = pgs_mock_op_unprotect,
    [PGSHARE_OP_COMPARE] = pgs_mock_op_compare,
    [PGSHARE_OP_PUBLISH] = pgs_mock_op_publish,
    [PGSHARE_OP_MAP] = pgs_mock_op_map,
    [PGSHARE_OP_MERGE] = pgs_mock_op_merge,
    [PGSHARE_OP_UNSHARE] = pgs_mock_op_unshare,
    [PGSHARE_OP_RELEASE] = pgs_mock_op_release,
    [PGSHARE_OP_DISCARD] = pgs_mock_op_discard,
    [PGSHARE_OP_RECLAIM] = pgs_mock_op_reclaim,
    [PGSHARE_OP_GRANT] = pgs_mock_op_grant,
    [PGSHARE_OP_CLONE] = pgs_mock_op_clone,
    [PGSHARE_OP_READ_ONLY] = pgs_mock_op_read_only,
    [PGSHARE_OP_HARVEST] = pgs_mock_op_harvest,
    [PGSHARE_OP_CHANGES] = pgs_mock_op_changes,
    [PGSHARE_OP_QUERY] = pgs_mock_op_query,
    [PGSHARE_OP_RESERVE] = pgs_mock_op_reserve,
    [PGSHARE_OP_ANSWER] = pgs_mock_op_answer,
    [PGSHARE_OP_SUSPEND] = pgs_mock_op_suspend,
};

static struct pgshare_mock_machine *machine_of(struct pgshare_backend *backend)
{
    return (struct pgshare_mock_machine *)(void *)backend;
}

static uint32_t machine_caps(const struct pgshare_mock_machine *machine)
{
    static const uint32_t caps[] = {
        [PGSHARE_MOCK_PLAIN] = 0,
        [PGSHARE_MOCK_PLAIN_PLATFORM] = PGSHARE_CAP_PLATFORM_COW,
        [PGSHARE_MOCK_LINUX] = PGSHARE_CAP_PLATFORM_COW | PGSHARE_CAP_MERGE |
                               PGSHARE_CAP_SNAPSHOT,
        [PGSHARE_MOCK_XEN] = PGSHARE_CAP_PLATFORM_COW |
                             PGSHARE_CAP_MAP_MOVES_FRAME,
    };

    return caps[machine->options.flavour] |
           (machine->options.flags & PGSHARE_MOCK_CHANGE_LOG
                ? (uint32_t)PGSHARE_CAP_CHANGE_LOG
                : 0);
}

static uint64_t machine_ops(const struct pgshare_mock_machine *machine)
{
    uint32_t caps = machine_caps(machine);
    uint64_t ops = 0;

    for (unsigned kind = 1; kind < PGSHARE_OP_MAX; kind++)
        if (op_table[kind])
            ops |= BIT(kind);
    if (!(caps & PGSHARE_CAP_MERGE))
        ops &= ~BIT(PGSHARE_OP_MERGE);
    if (!(caps & PGSHARE_CAP_PLATFORM_COW))
        ops &= ~(BIT(PGSHARE_OP_HARVEST) | BIT(PGSHARE_OP_ANSWER));
    if (!(caps & PGSHARE_CAP_CHANGE_LOG))
        ops &= ~BIT(PGSHARE_OP_CHANGES);
    return ops & ~machine->options.without;
}

static int backend_attach(struct pgshare_backend *backend,
                          struct pgshare_host *host,
                          const struct pgshare_sink *sink,
                          struct pgshare_backend_info *ret_info)
{
    struct pgshare_mock_machine *machine = machine_of(backend);
    const struct pgshare_mock_options *options = &machine->options;

    if (machine->sink)
        return PGSHARE_ERR_EXISTS;
    machine->host = host;
    machine->sink = sink;
    machine->ops = machine_ops(machine);
    *ret_info = (struct pgshare_backend_info){
        .size = sizeof(*ret_info),
        .caps = machine_caps(machine),
        .extent_max = (uint32_t)options->extent_max,
        .ops = machine->ops,
        .extent_cost_ns = options->extent_cost_ns,
        .page_cost_ns = options->page_cost_ns,
        .mappings_max = options->mappings_max,
        .sharers_max = options->sharers_max,
    };
    return 0;
}

/* Frames that the host never released are kept for the guests that map them,
 * or freed. */
static void release_leftovers(struct pgshare_mock_machine *machine)
{
    for (uint32_t frame = 0; frame < machine->pool.fresh; frame++) {
        uint64_t record = pgs_mock_record(machine, frame);
        uint32_t orphans = atomic_load(&machine->orphans[frame]);

        if (pgs_mock_record_type(record) != TYPE_COW)
            continue;
        if (!orphans) {
            pgs_mock_frame_plain(machine, frame);
            pgs_mock_free_put(machine, 1, &frame, 1);
        } else {
            pgs_mock_frame_publish(machine, frame, TYPE_ORPHAN,
                                   pgs_mock_record_mappings(record));
        }
    }
}

static void backend_detach(struct pgshare_backend *backend)
{
    struct pgshare_mock_machine *machine = machine_of(backend);

    pgs_mock_pending_forget(machine, NULL);
    for (uint32_t i = 0; i < machine->slots_used; i++)
        if (machine->slots[i] && machine->slots[i]->handle) {
            pgs_mock_violate(machine, "detached with domain %u inside",
                             machine->slots[i]->domid);
            pgs_mock_domain_orphan(machine->slots[i]);
        }
    release_leftovers(machine);
    pgs_mock_reserve_move(machine, INT64_MIN + 1);
    machine->host = NULL;
    machine->sink = NULL;
}

static int backend_domain_add(struct pgshare_backend *backend, uint64_t dom,
                              const struct pgshare_domain_options *options,
                              struct pgshare_domain_attach *ret_attach)
{
    struct pgshare_mock_machine *machine = machine_of(backend);
    struct pgshare_mock_domain *domain = options->attach;
    uint32_t slot = 0;

    /* The pointer is the embedder's word; look whether it is one of ours. */
    while (slot < machine->slots_used && machine->slots[slot] != domain)
        slot++;
    if (!domain || slot == machine->slots_used)
        return PGSHARE_ERR_INVALID;
    if (domain->handle)
        return PGSHARE_ERR_EXISTS;
    if (options->gfns > domain->gfns)
        return PGSHARE_ERR_RANGE;
    if (domain->dead)
        return PGSHARE_ERR_GONE;
    domain->removed = false;
    domain->suspended = false;
    /* a vCPU that was about to tell of a break when the host left may have */
    pgs_mock_breaks_forget(domain);
    atomic_store(&domain->handle, dom);
    *ret_attach = (struct pgshare_domain_attach){
        .size = sizeof(*ret_attach),
        .cookie = pgs_mock_domain_cookie(domain),
        .caps = domain->direct ? (uint32_t)PGSHARE_CAP_NO_REMAP : 0,
    };
    return 0;
}

static void backend_domain_remove(struct pgshare_backend *backend, void *cookie)
{
    struct pgshare_mock_machine *machine = machine_of(backend);
    struct pgshare_mock_domain *domain = pgs_mock_domain_find(machine, cookie);

    if (!domain || !domain->handle) {
        pgs_mock_violate(machine, "removal of a domain that is not there");
        return;
    }
    pgs_mock_pending_forget(machine, cookie);
    pgs_mock_domain_orphan(domain);
    atomic_store(&domain->handle, 0);
    pgs_mock_dropped_forget(domain);
    pgs_mock_breaks_forget(domain);
}

bool pgs_mock_gives_ids(uint32_t kind)
{
    return WITH_IDS & BIT(kind);
}

/* Why the operation cannot be done at all: an error of all its pages. */
static int refuse(struct pgs_mock_work *work)
{
    struct pgshare_mock_machine *machine = work->machine;
    const struct pgshare_op *op = work->op;

    if (op->kind >= PGSHARE_OP_MAX || !(machine->ops & BIT(op->kind)))
        return PGSHARE_ERR_NOTSUP;
    if (op->domain) {
        work->domain = pgs_mock_domain_find(machine, op->domain);
        if (!work->domain || !work->domain->handle) {
            pgs_mock_violate(machine, "operation %u on an unknown domain",
                             op->kind);
            return PGSHARE_ERR_GONE;
        }
        if (work->domain->dead)
            return PGSHARE_ERR_GONE;
    } else if (!(WITHOUT_DOMAIN & BIT(op->kind))) {
        pgs_mock_violate(machine, "operation %u without a domain", op->kind);
        return PGSHARE_ERR_INVALID;
    }
    if (op->count > PGSHARE_EXTENT_MAX ||
        (!(WITHOUT_EXTENT & BIT(op->kind)) &&
         (!op->count || op->count > machine->options.extent_max ||
          (work->domain &&
           !pgs_mock_range_ok(work->domain, op->gfn, op->count))))) {
        pgs_mock_violate(machine, "operation %u on GFN %llu + %u", op->kind,
                         (unsigned long long)op->gfn, op->count);
        return PGSHARE_ERR_RANGE;
    }
    if (op->peer) {
        work->peer = pgs_mock_domain_find(machine, op->peer);
        if (!work->peer ||
            !pgs_mock_range_ok(work->peer, op->peer_gfn, op->count))
            return PGSHARE_ERR_SOURCE_TICKET;
    }
    return 0;
}

/*
 * Does an operation. The caller has set `status` and `ids` of the work; what
 * is answered is in the work afterwards.
 */
void pgs_mock_perform(struct pgshare_mock_machine *machine,
                      const struct pgshare_op *op, struct pgs_mock_work *work,
                      uint64_t *ret_seq)
{
    uint32_t count = op->count ? op->count : 1;

    work->machine = machine;
    work->domain = NULL;
    work->peer = NULL;
    work->op = op;
    work->reserve = 0;
    work->failed = op->kind < PGSHARE_OP_MAX && (WITH_STATUS & BIT(op->kind));
    *ret_seq = 0;
    work->result = refuse(work);
    if (work->result)
        return;
    if (count == 1)
        work->status[0] = 0;
    else
        memset(work->status, 0, count);
    /* The number of the beginning: what breaks a page after the operation has
     * reached it is later, and what came before made the page fail. */
    if (work->domain)
        *ret_seq = pgs_mock_op_seq(work->domain);
    if (!machine->stepping || !machine->unquiet) {
        op_table[op->kind](work, 0, count);
    } else {
        for (uint32_t i = 0; i < count; i++) {
            if (i)
                pgs_mock_step(machine);
            if (work->domain && work->domain->dead)
                pgs_mock_fail(work, i, PGSHARE_ERR_GONE); /* died meanwhile */
            else
                op_table[op->kind](work, i, 1);
        }
    }
    pgs_mock_count_op(machine);
}

/* Sends the answer to an operation. */
void pgs_mock_answer(struct pgshare_mock_machine *machine,
                     const struct pgs_mock_work *work, uint64_t token,
                     uint64_t seq)
{
    const struct pgshare_op *op = work->op;
    bool whole = work->result && !pgs_mock_gives_ids(op->kind);
    struct pgshare_completion completion = {
        .token = token,
        .count = op->count,
        .result = work->result,
        .status = !whole && work->failed ? work->status : NULL,
        .seq = seq,
        .reserve = work->reserve,
    };

    if (work->result)
        completion.status = NULL;
    if (op->kind < PGSHARE_OP_MAX && pgs_mock_gives_ids(op->kind) &&
        (!work->result || op->kind == PGSHARE_OP_RESERVE))
        completion.ids = work->ids;
    machine->sink->complete(machine->sink->ctx, &completion);
}

static int backend_submit(struct pgshare_backend *backend,
                          const struct pgshare_op *ops, size_t n)
{
    struct pgshare_mock_machine *machine = machine_of(backend);
    int8_t status[PGSHARE_EXTENT_MAX];
    uint64_t ids[PGSHARE_EXTENT_MAX];

    if (atomic_load_explicit(&machine->unquiet, memory_order_acquire))
        return pgs_mock_submit_unquiet(machine, ops, n);
    for (size_t i = 0; i < n; i++) {
        struct pgs_mock_work work = { .status = status, .ids = ids };
        uint64_t seq;

        pgs_mock_perform(machine, &ops[i], &work, &seq);
        pgs_mock_answer(machine, &work, ops[i].token, seq);
    }
    return 0;
}

static void backend_poll(struct pgshare_backend *backend)
{
    pgshare_mock_poll(machine_of(backend));
}

const struct pgshare_backend_ops pgs_mock_ops = {
    .size = sizeof(struct pgshare_backend_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "mock",
    .attach = backend_attach,
    .detach = backend_detach,
    .domain_add = backend_domain_add,
    .domain_remove = backend_domain_remove,
    .submit = backend_submit,
    .poll = backend_poll,
};

void pgshare_mock_kill(struct pgshare_mock_domain *domain)
{
    struct pgshare_mock_machine *machine;
    uint64_t handle;

    if (!domain || atomic_exchange(&domain->dead, true))
        return;
    machine = domain->machine;
    handle = atomic_load(&domain->handle);
    if (handle)
        pgs_mock_domain_orphan(domain);
    if (handle && machine->sink)
        machine->sink->gone(machine->sink->ctx, handle);
}
