/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading guest memory that may not be there.
 *
 * A VMM that unmaps memory it has registered breaks its word, but must not be
 * killed for it. So the library does not read through the guest's addresses:
 * the kernel copies (write() to a file in memory answers EFAULT where a load
 * would raise a signal), a few pages at a time, which are used while they are in
 * the cache.
 *
 * Whoever copies may be stopped by our own userfaultfd, in the middle of the
 * write, until a window closes or a fault is resolved. The kernel holds the
 * file's lock meanwhile. So this is done with files that nobody needs to close a
 * window or to resolve a fault: with none of a pool.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <unistd.h>

#define BYTES ((size_t)SCRATCH_PAGES * PAGE)

int pgs_scratch_init(struct pgshare_kvm *kvm)
{
    for (unsigned i = 0; i < SCRATCHES; i++) {
        struct pgs_kvm_scratch *scratch = &kvm->scratch[i];
        void *at;

        scratch->fd = pgs_sys_memfd("pgshare-scratch");
        if (scratch->fd < 0 || pgs_sys_truncate(scratch->fd, BYTES) ||
            pgs_sys_map_file(NULL, BYTES, scratch->fd, 0, false, &at))
            return PGSHARE_ERR_BACKEND;
        scratch->bytes = at;
    }
    return 0;
}

void pgs_scratch_fini(struct pgshare_kvm *kvm)
{
    for (unsigned i = 0; i < SCRATCHES; i++) {
        struct pgs_kvm_scratch *scratch = &kvm->scratch[i];

        if (scratch->bytes)
            pgs_sys_unmap((void *)(uintptr_t)scratch->bytes, BYTES);
        if (scratch->fd >= 0)
            close(scratch->fd);
        pthread_mutex_destroy(&scratch->lock);
    }
}

/* One that is free, or the last, waited for. */
static struct pgs_kvm_scratch *take(struct pgshare_kvm *kvm)
{
    for (unsigned i = 0; i < SCRATCHES - 1; i++)
        if (!pthread_mutex_trylock(&kvm->scratch[i].lock))
            return &kvm->scratch[i];
    pthread_mutex_lock(&kvm->scratch[SCRATCHES - 1].lock);
    return &kvm->scratch[SCRATCHES - 1];
}

uint32_t pgs_scratch_read(struct pgshare_kvm *kvm, const unsigned char *at,
                          uint32_t n, pgs_scratch_use *use, void *ctx,
                          int *ret_error)
{
    struct pgs_kvm_scratch *scratch = take(kvm);
    uint32_t done = 0, some, pages;

    *ret_error = 0;
    do {
        ssize_t got;

        some = n - done < SCRATCH_PAGES ? n - done : SCRATCH_PAGES;
        got = pgs_sys_pwrite(scratch->fd, at + (size_t)done * PAGE,
                             some * PAGE, 0);
        pages = got > 0 ? (uint32_t)((size_t)got / PAGE) : 0;
        if (pages < some)
            *ret_error = got >= 0 || got == -EFAULT ? PGSHARE_ERR_HOLE
                                                    : PGSHARE_ERR_NOFRAME;
        if (pages && !use(ctx, scratch->bytes, done, pages)) {
            *ret_error = PGSHARE_ERR_NOFRAME;
            break;
        }
        done += pages;
    } while (pages == some && done < n);
    pthread_mutex_unlock(&scratch->lock);
    return done;
}
