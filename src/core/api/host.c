/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host object: its making and unmaking.
 *
 * A host is built layer by layer, and unmade in the opposite order; the
 * destructor takes a half-built one. In a forked child nothing that the
 * parent shares is touched: no lock is taken (threads that are not there may
 * hold them), no backend is called; the host object itself is freed, and its
 * tables, which are a copy, go with the child.
 */
#include "api/visit.h"
#include "mechanism/domain.h"
#include "mechanism/extent.h"
#include "mechanism/page.h"
#include "mechanism/reserve.h"
#include "policy/policy.h"

#define BIT(op) (UINT64_C(1) << PGSHARE_OP_##op)

/* What every backend must have, whatever else it can. */
#define OPS_MANDATORY                                                         \
    (BIT(PROTECT) | BIT(UNPROTECT) | BIT(PUBLISH) | BIT(UNSHARE) |            \
     BIT(RELEASE) | BIT(DISCARD))

static const struct pgshare_host_options defaults = {
    .size = sizeof(struct pgshare_host_options),
    .max_calls = 256,
    .reserve_keep = PGSHARE_RESERVE_KEEP_ALL,
    .max_protected = 65536,
    .max_hints = 8192,
    .max_map_entries = 262144,
    .timeout_ns = UINT64_C(1000000000),
    .op_timeout_ns = UINT64_C(1000000000),
    .max_mismatches = 4,
};

#define DEFAULT(field)                                                        \
    do {                                                                      \
        if (!options->field)                                                  \
            options->field = defaults.field;                                  \
    } while (0)

static int read_options(struct pgshare_host_options *options,
                        const struct pgshare_host_options *given)
{
    int r = pgs_abi_in(options, sizeof(*options), sizeof(*options), given);

    if (r)
        return r;
    if (options->flags || options->reserved || options->max_calls > 32768 ||
        options->max_hints > 1u << 24)
        return PGSHARE_ERR_INVALID;
    DEFAULT(max_calls);
    DEFAULT(reserve_keep);
    DEFAULT(max_protected);
    DEFAULT(max_hints);
    DEFAULT(max_map_entries);
    DEFAULT(timeout_ns);
    DEFAULT(op_timeout_ns);
    DEFAULT(max_mismatches);
    return 0;
}

/* Has it what the library will call? */
static int check_allocator(const struct pgshare_allocator *given)
{
    struct pgshare_allocator ours;
    int r = given ? pgs_abi_in(&ours, sizeof(ours), sizeof(ours), given) : 0;

    if (!r && given && (!ours.alloc || !ours.free))
        r = PGSHARE_ERR_INVALID;
    return r;
}

/* Does the backend keep the contract, as far as can be seen? */
static bool has_operations(const struct pgshare_backend_ops *ops)
{
    return ops && ops->size >= sizeof(*ops) &&
           ops->version == PGSHARE_BACKEND_VERSION && ops->attach &&
           ops->detach && ops->domain_add && ops->domain_remove && ops->submit;
}

static bool is_complete(const struct pgshare_backend_info *info)
{
    uint64_t need = OPS_MANDATORY;

    need |= info->caps & PGSHARE_CAP_MERGE ? BIT(MERGE)
                                           : BIT(COMPARE) | BIT(MAP);
    if (info->caps & PGSHARE_CAP_PLATFORM_COW)
        need |= BIT(HARVEST);
    if (info->caps & PGSHARE_CAP_CHANGE_LOG)
        need |= BIT(CHANGES);
    return (info->ops & need) == need && info->extent_max > 0 &&
           info->extent_max <= PGSHARE_EXTENT_MAX;
}

/* The tables and locks, from the bottom up. */
static int init_tables(struct pgshare_host *host)
{
    int r = pgs_shards_init(&host->shards);

    if (!r)
        r = pgs_channel_init(&host->channel);
    if (!r)
        r = pgs_mutex_init(&host->run, PGS_RANK_RUN);
    if (!r)
        r = pgs_mutex_init(&host->domains_lock, PGS_RANK_DOMAINS);
    if (!r)
        r = pgs_mutex_init(&host->doomed_lock, PGS_RANK_LEAF);
    if (!r)
        r = pgs_chunks_init(&host->chunks, &host->heap);
    if (!r)
        r = pgs_frames_init(&host->frames, &host->heap);
    if (!r)
        r = pgs_marks_init(&host->marks, &host->heap,
                           host->options.max_protected);
    if (!r)
        r = pgs_holds_init(&host->holds, &host->heap,
                           pgs_secret(&host->platform));
    if (!r)
        r = pgs_calls_init(host, host->options.max_calls);
    if (!r)
        r = pgs_policy_init(host);
    if (r)
        return r;
    host->slots = PGS_NEW_N(&host->heap, struct pgs_domain *_Atomic,
                            PGS_SLOTS);
    host->taken = PGS_NEW_N(&host->heap, uint8_t, PGS_SLOTS);
    host->names = PGS_NEW_N(&host->heap, struct pgs_domain *, PGS_NAMES);
    return host->slots && host->taken && host->names ? 0 : PGSHARE_ERR_NOMEM;
}

static void fini_tables(struct pgshare_host *host)
{
    PGS_FREE_N(&host->heap, host->names, PGS_NAMES);
    PGS_FREE_N(&host->heap, host->taken, PGS_SLOTS);
    PGS_FREE_N(&host->heap, host->slots, PGS_SLOTS);
    pgs_policy_fini(host);
    pgs_extents_fini(host);
    pgs_calls_fini(host);
    pgs_holds_fini(&host->holds);
    pgs_marks_fini(&host->marks);
    pgs_frames_fini(&host->frames);
    pgs_chunks_fini(&host->chunks);
    PGS_FREE_N(&host->heap, host->groups, host->max_groups);
    pgs_mutex_fini(&host->doomed_lock);
    pgs_mutex_fini(&host->domains_lock);
    pgs_mutex_fini(&host->run);
    pgs_channel_fini(&host->channel);
    pgs_shards_fini(&host->shards);
}

static int attach(struct pgshare_host *host, struct pgshare_backend *backend)
{
    int r;

    host->sink = (struct pgshare_sink){
        .size = sizeof(host->sink),
        .ctx = host,
        .complete = pgs_call_complete,
        .broken = pgs_page_broken,
        .demand = pgs_demand,
        .discarded = pgs_page_discarded,
        .gone = pgs_domain_gone,
    };
    host->info.size = sizeof(host->info);
    r = backend->ops->attach(backend, host, &host->sink, &host->info);
    if (r)
        return r == PGSHARE_ERR_EXISTS || r == PGSHARE_ERR_NOMEM
                   ? r
                   : PGSHARE_ERR_BACKEND;
    host->backend = backend;
    return is_complete(&host->info) ? 0 : PGSHARE_ERR_BACKEND;
}

static int fill_reserve(struct pgshare_host *host)
{
    int64_t got;

    atomic_store_explicit(&host->reserve_wish, host->options.reserve_min,
                          memory_order_relaxed);
    if (!host->options.reserve_min)
        return 0;
    if (host->options.reserve_min > INT64_MAX)
        return PGSHARE_ERR_NOFRAME;
    return pgs_reserve_exchange(host, (int64_t)host->options.reserve_min,
                                host->options.timeout_ns, &got);
}

/* Frees the host with its own allocator, which it holds the only copy of. */
static void free_host(struct pgshare_host *host)
{
    struct pgs_heap heap;

    pgs_origin_fini(&host->origin);
    pgs_heap_move(&heap, &host->heap);
    PGS_FREE(&heap, host);
}

static struct pgshare_host *alloc_host(const struct pgshare_allocator *given)
{
    struct pgs_heap heap;
    struct pgshare_host *host;

    pgs_heap_init(&heap, given);
    host = PGS_NEW(&heap, struct pgshare_host);
    if (!host)
        return NULL;
    pgs_heap_move(&host->heap, &heap);
    pgs_origin_init(&host->origin);
    host->doomed = PGS_NONE;
    host->kept = PGS_NONE;
    host->ticket = PGS_TICKET_ZERO;
    return host;
}

int pgshare_host_new(struct pgshare_backend *backend,
                     const struct pgshare_host_options *given,
                     struct pgshare_host **ret_host)
{
    struct pgshare_host_options options;
    struct pgshare_host *host;
    int r;

    if (!backend || !ret_host)
        return PGSHARE_ERR_INVALID;
    r = read_options(&options, given);
    if (!r)
        r = check_allocator(options.allocator);
    if (r)
        return r;
    if (!has_operations(backend->ops))
        return PGSHARE_ERR_BACKEND;
    host = alloc_host(options.allocator);
    if (!host)
        return PGSHARE_ERR_NOMEM;
    host->options = options;
    r = pgs_platform_init(&host->platform, options.platform);
    if (!r)
        r = init_tables(host);
    if (!r)
        r = attach(host, backend);
    if (!r)
        r = fill_reserve(host);
    if (r) {
        pgshare_host_free(host);
        return r;
    }
    *ret_host = host;
    return 0;
}

static void remove_domains(struct pgshare_host *host)
{
    for (uint32_t slot = 1; host->slots && slot < host->slots_used; slot++) {
        struct pgs_domain *domain = atomic_load_explicit(
            &host->slots[slot], memory_order_seq_cst);

        if (domain)
            pgs_domain_unlist(domain);
    }
    while (host->dying) {
        if (!pgs_domain_bury(host->dying, host->options.timeout_ns, NULL))
            pgs_domain_abandon(host->dying);
    }
}

/* Frames that were doomed last, and calls that speak of no domain. */
static void settle_calls(struct pgshare_host *host)
{
    uint64_t start = pgs_now(&host->platform);

    while (pgs_now(&host->platform) - start < host->options.timeout_ns) {
        pgs_host_poll_backend(host);
        if (!pgs_calls_run(host, NULL) && !pgs_release_launch(host) &&
            !atomic_load_explicit(&host->calls.n_running,
                                  memory_order_relaxed))
            return;
    }
    pgs_calls_abandon(host);
}

static void return_reserve(struct pgshare_host *host)
{
    int64_t held =
        (int64_t)pgs_shards_sum(&host->shards, PGS_LEVEL_RESERVE), got;

    if (held > 0)
        pgs_reserve_exchange(host, -held, host->options.timeout_ns, &got);
}

struct pgshare_host *pgshare_host_free(struct pgshare_host *host)
{
    if (!host)
        return NULL;
    if (!pgs_origin_is_here(&host->origin)) {
        free_host(host); /* the rest is a copy that goes with the child */
        return NULL;
    }
    if (host->backend) {
        remove_domains(host);
        settle_calls(host);
        return_reserve(host);
        host->backend->ops->detach(host->backend);
    }
    fini_tables(host);
    free_host(host);
    return NULL;
}
