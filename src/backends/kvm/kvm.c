/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The backend object: what it opens, in which order, and gives back.
 *
 * One to a process is the rule, though several do no harm. After fork() the
 * child has no thread and no business here: freeing is all that it may do.
 */
#include "kvm/backend.h"

#include "base/abi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where pages cannot be moved, they are shared in their places, if the VMM says
 * that this is safe. */
static void open_staging(struct pgshare_kvm *kvm, uint32_t flags)
{
    const uint64_t features = PGS_UFFD_WP_SHMEM |
                              UFFD_FEATURE_PAGEFAULT_FLAG_WP;

    kvm->staging = pgs_sys_uffd_open(features | PGS_UFFD_MOVE);
    kvm->in_place = kvm->staging == -EINVAL &&
                    flags & PGSHARE_KVM_DMA_DECLARED && !pgs_still_is_unsafe();
    if (kvm->in_place)
        kvm->staging = pgs_sys_uffd_open(features);
}

static bool open_all(struct pgshare_kvm *kvm, uint32_t flags, int *ret_error)
{
    const size_t pools = POOLS_MAX * sizeof(*kvm->pools);
    void *at;

    open_staging(kvm, flags);
    kvm->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (kvm->staging < 0 || kvm->pagemap < 0) {
        *ret_error = PGSHARE_ERR_NOTSUP;
        return false;
    }
    *ret_error = PGSHARE_ERR_NOMEM;
    if (pgs_sys_map_anon(NULL, pools, &at))
        return false;
    kvm->pools = at;
    *ret_error = pgs_stage_init(&kvm->hold);
    if (!*ret_error)
        *ret_error = pgs_stage_register(&kvm->hold, kvm->staging);
    if (!*ret_error)
        *ret_error = pgs_scratch_init(kvm);
    if (!*ret_error)
        *ret_error = pgs_handler_start(kvm);
    return !*ret_error;
}

static void destroy(struct pgshare_kvm *kvm)
{
    pgs_handler_stop(kvm);
    pgs_scratch_fini(kvm);
    pgs_stage_fini(&kvm->hold);
    pgs_budget_fini(&kvm->budget);
    if (kvm->pools)
        pgs_sys_unmap(kvm->pools, POOLS_MAX * sizeof(*kvm->pools));
    if (kvm->pagemap >= 0)
        close(kvm->pagemap);
    if (kvm->staging >= 0)
        close(kvm->staging);
    pthread_mutex_destroy(&kvm->lock);
    pthread_mutex_destroy(&kvm->hearing);
    free(kvm);
}

int pgshare_kvm_new(const struct pgshare_kvm_options *options,
                    struct pgshare_kvm **ret_kvm)
{
    struct pgshare_kvm_options ours = { 0 };
    struct pgshare_kvm *kvm;
    int r;

    if (!ret_kvm)
        return PGSHARE_ERR_INVALID;
    r = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (r)
        return r;
    if (ours.flags & ~(uint32_t)PGSHARE_KVM_DMA_DECLARED || ours.reserved)
        return PGSHARE_ERR_INVALID;
    kvm = calloc(1, sizeof(*kvm));
    if (!kvm)
        return PGSHARE_ERR_NOMEM;
    kvm->backend.ops = &pgs_kvm_ops;
    kvm->staging = kvm->pagemap = kvm->kick = -1;
    for (unsigned i = 0; i < SCRATCHES; i++)
        pthread_mutex_init(&kvm->scratch[i].lock, NULL);
    kvm->owner = getpid();
    pgs_budget_init(&kvm->budget, ours.mappings_spare);
    pthread_mutex_init(&kvm->lock, NULL);
    pthread_mutex_init(&kvm->hearing, NULL);
    if (!open_all(kvm, ours.flags, &r)) {
        destroy(kvm);
        return r;
    }
    *ret_kvm = kvm;
    return 0;
}

/* In a child: nothing but the descriptors is its own. */
static void forget(struct pgshare_kvm *kvm)
{
    while (kvm->guests)
        pgshare_kvm_guest_free(kvm->guests);
    for (uint32_t i = 0; i < kvm->pools_used; i++)
        if (kvm->pools[i])
            close(kvm->pools[i]->fd);
    close(kvm->kick);
    close(kvm->pagemap);
    close(kvm->staging);
    free(kvm);
}

struct pgshare_kvm *pgshare_kvm_free(struct pgshare_kvm *kvm)
{
    if (!kvm)
        return NULL;
    if (pgs_is_child(kvm)) {
        forget(kvm);
        return NULL;
    }
    while (kvm->guests)
        pgshare_kvm_guest_free(kvm->guests);
    pgs_pool_put(kvm, NULL);
    destroy(kvm);
    return NULL;
}

struct pgshare_backend *pgshare_kvm_backend(struct pgshare_kvm *kvm)
{
    return kvm ? &kvm->backend : NULL;
}

int pgshare_kvm_info(struct pgshare_kvm *kvm, struct pgshare_kvm_info *ret_info)
{
    struct pgshare_kvm_info ours = { .size = sizeof(ours) };
    int r;

    if (!kvm || !ret_info)
        return PGSHARE_ERR_INVALID;
    if (pgs_is_child(kvm))
        return PGSHARE_ERR_FORKED;
    r = pgs_abi_check_out(ret_info, sizeof(ret_info->size));
    if (r)
        return r;
    pthread_mutex_lock(&kvm->lock);
    for (uint32_t i = 0; i < kvm->pools_used; i++)
        if (kvm->pools[i])
            pgs_pool_count(kvm->pools[i], &ours);
    pthread_mutex_unlock(&kvm->lock);
    pgs_budget_tell(&kvm->budget, &ours);
    ours.held = pgs_reserve_level(kvm);
    ours.merges = atomic_load(&kvm->merges);
    ours.moved_back = atomic_load(&kvm->moved_back);
    ours.pinned = atomic_load(&kvm->pinned);
    ours.slipped = atomic_load(&kvm->slipped);
    ours.taken_home = atomic_load(&kvm->healed);
    ours.faults = atomic_load(&kvm->faults);
    pgs_abi_out(ret_info, &ours, sizeof(ours));
    return 0;
}
