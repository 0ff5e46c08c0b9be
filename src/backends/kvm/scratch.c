/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading guest memory that may not be there.
 *
 * A VMM that unmaps memory it has registered breaks its word, but must not be
 * killed for it. So the library does not read through the guest's addresses:
 * the kernel copies (write() to a file in memory answers EFAULT where a load
 * would raise a signal), a few pages at a time, which then are hashed while
 * they are in the cache.
 */
#include "kvm/backend.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <unistd.h>

#define BYTES ((size_t)SCRATCHES * SCRATCH_PAGES * PAGE)

int pgs_scratch_init(struct pgshare_kvm *kvm)
{
    void *at;

    for (unsigned i = 0; i < SCRATCHES; i++)
        pthread_mutex_init(&kvm->scratch_lock[i], NULL);
    kvm->scratch_fd = pgs_sys_memfd("pgshare-scratch");
    if (kvm->scratch_fd < 0 || pgs_sys_truncate(kvm->scratch_fd, BYTES) ||
        pgs_sys_map_file(NULL, BYTES, kvm->scratch_fd, 0, false, &at))
        return PGSHARE_ERR_BACKEND;
    kvm->scratch = at;
    return 0;
}

void pgs_scratch_fini(struct pgshare_kvm *kvm)
{
    if (kvm->scratch)
        pgs_sys_unmap((void *)(uintptr_t)kvm->scratch, BYTES);
    if (kvm->scratch_fd >= 0)
        close(kvm->scratch_fd);
    for (unsigned i = 0; i < SCRATCHES; i++)
        pthread_mutex_destroy(&kvm->scratch_lock[i]);
}

/* One that is free, or the last, waited for. */
static unsigned take(struct pgshare_kvm *kvm)
{
    for (unsigned i = 0; i < SCRATCHES - 1; i++)
        if (!pthread_mutex_trylock(&kvm->scratch_lock[i]))
            return i;
    pthread_mutex_lock(&kvm->scratch_lock[SCRATCHES - 1]);
    return SCRATCHES - 1;
}

/* Answers how many of the pages could be read. */
uint32_t pgs_scratch_hash(struct pgshare_kvm *kvm, const unsigned char *at,
                          uint32_t n, uint64_t seed, uint64_t *ret_hashes)
{
    unsigned which = take(kvm);
    size_t offset = (size_t)which * SCRATCH_PAGES * PAGE;
    uint32_t done = 0;

    while (done < n) {
        uint32_t some = n - done < SCRATCH_PAGES ? n - done : SCRATCH_PAGES;
        ssize_t got = pgs_sys_pwrite(kvm->scratch_fd, at + done * PAGE,
                                     some * PAGE, offset);
        uint32_t pages = got > 0 ? (uint32_t)((size_t)got / PAGE) : 0;

        for (uint32_t i = 0; i < pages; i++)
            ret_hashes[done + i] = XXH3_64bits_withSeed(kvm->scratch + offset +
                                                            i * PAGE,
                                                        PAGE, seed);
        done += pages;
        if (pages < some)
            break;
    }
    pthread_mutex_unlock(&kvm->scratch_lock[which]);
    return done;
}
