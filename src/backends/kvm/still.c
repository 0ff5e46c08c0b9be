/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Windows where the kernel cannot move pages (UFFDIO_MOVE, Linux 6.8).
 *
 * A page is write-protected then, and looked at where it lies. That stops the
 * guest's processors, and the kernel when it writes for the VMM. It does not stop
 * a device that has been told to write there before. So this is for VMMs that
 * declare all of that (PGSHARE_KVM_DMA_DECLARED): what is held for writing is not
 * shared, and the library does not ask for it.
 *
 * There is no log of writes either, and page tables are read word by word
 * (scan.c). What is given up goes to the kernel, and as much is taken from it
 * afterwards, to be held.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* A huge page of a file in memory, mapped as a whole, looks in old kernels'
 * /proc/self/pagemap like a page of the guest's own: like a break. */
bool pgs_still_is_unsafe(void)
{
    static const char *const bad[] = { "[always]", "[within_size]", "[force]" };
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
                       "re");
    char line[128] = "";
    bool is = false;

    if (!file)
        return false; /* there are no huge pages */
    if (!fgets(line, sizeof(line), file))
        is = true;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        is |= strstr(line, bad[i]) != NULL;
    fclose(file);
    return is;
}

/* A page that is not there is not to be read: we would wait for ourselves. */
void pgs_still_out(struct pgs_kvm_window *window, uint32_t first, uint32_t end)
{
    struct pgshare_kvm_guest *guest = window->guest;
    uint32_t n = end - first;
    int error = pgs_sys_uffd_protect(guest->uffd, pgs_window_at(window, first),
                                     n * PAGE, true);

    if (!error)
        error = pgs_scan_window(guest->kvm, pgs_window_at(window, first), n,
                                window->nothing + first, window->own + first);
    if (error)
        memset(window->status + first,
               error == -ENOMEM ? PGSHARE_ERR_NOMEM : PGSHARE_ERR_BACKEND, n);
    for (uint32_t i = first; !error && i < end; i++)
        window->state[i] = window->nothing[i] ? WINDOW_EMPTY : WINDOW_OUT;
}

bool pgs_still_drop(struct pgs_kvm_window *window, uint32_t i)
{
    if (window->state[i] != WINDOW_OUT)
        return true;
    if (pgs_sys_advise(pgs_window_at(window, i), PAGE, MADV_DONTNEED)) {
        window->status[i] = PGSHARE_ERR_BUSY;
        window->state[i] = WINDOW_STAYS;
        return false;
    }
    window->state[i] = WINDOW_KEPT;
    return true;
}

static bool is_free_to_write(const struct pgs_kvm_window *window, uint32_t i)
{
    enum pgs_kvm_kind kind = pgs_kind(window->guest, window->gfn + i);

    return (kind == KIND_ANON || kind == KIND_HOLE) &&
           !pgs_is_readonly(window->guest, window->gfn + i);
}

/* In kernel mode, to be registered anew takes the protection away. */
void pgs_still_end(struct pgs_kvm_window *window)
{
    for (uint32_t i = 0; window->guest->trapped && i < window->n;) {
        uint32_t end = i;

        while (end < window->n && is_free_to_write(window, end))
            end++;
        if (end > i)
            pgs_sys_uffd_protect(window->guest->uffd, pgs_window_at(window, i),
                                 (end - i) * PAGE, false);
        i = end + 1;
    }
}

uint32_t pgs_still_settle(struct pgs_kvm_window *window)
{
    uint32_t given = 0;

    for (uint32_t i = 0; i < window->n; i++)
        given += window->state[i] == WINDOW_KEPT && window->own[i];
    return (uint32_t)pgs_stage_fill(&window->guest->kvm->hold, given);
}
