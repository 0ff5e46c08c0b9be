/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading guest memory that may not be there.
 *
 * A VMM that unmaps memory it has registered breaks its word, but must not be
 * killed for it. So the library does not read through the guest's addresses: the
 * kernel copies (process_vm_readv() of our own process answers EFAULT where a
 * load would raise a signal), a few pages at a time, which are used while they
 * are in the cache. It looks the pages up in its tables, so that nothing is
 * mapped for our sake: where the machine is itself a virtual one, a first touch
 * of each page may cost far more than the copy.
 *
 * Whoever copies may be stopped by our own userfaultfd, in the middle of it,
 * until a window closes or a fault is resolved. So it holds nothing that is
 * needed for that: no lock, no file's lock, nothing but the scratch itself.
 */
#include "kvm/backend.h"

#include <errno.h>

#define BYTES ((size_t)SCRATCH_PAGES * PAGE)

int pgs_scratch_init(struct pgshare_kvm *kvm)
{
    for (unsigned i = 0; i < SCRATCHES; i++) {
        void *at;

        if (pgs_sys_map_anon(NULL, BYTES, &at))
            return PGSHARE_ERR_NOMEM;
        kvm->scratch[i].bytes = at;
        pgs_keep_private(at, BYTES);
    }
    return 0;
}

void pgs_scratch_fini(struct pgshare_kvm *kvm)
{
    for (unsigned i = 0; i < SCRATCHES; i++) {
        if (kvm->scratch[i].bytes)
            pgs_sys_unmap(kvm->scratch[i].bytes, BYTES);
        pthread_mutex_destroy(&kvm->scratch[i].lock);
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
        got = pgs_sys_peek(scratch->bytes, at + (size_t)done * PAGE,
                           some * PAGE);
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
