/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What KVM and the library have to do with each other, which is little: KVM
 * follows the process's mappings (KVM_CAP_SYNC_MMU), and a vCPU that touches
 * what is on its way sleeps in the kernel like any thread. What is left are the
 * exits by which KVM refuses an access. It says where; what that page is, the
 * library knows.
 */
#include "kvm/backend.h"

#include "base/abi.h"

#include <pgshare/fault.h>
#include <pgshare/gfn.h>

#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* Newer than the headers of Debian 12: the kernel says what it could not
 * reach, with the error (Linux 6.8). */
#define EXIT_MEMORY_FAULT 39u
#define MEMORY_FAULT_PRIVATE 8u /* of memory that the VMM itself cannot reach */
struct memory_fault {
    uint64_t flags;
    uint64_t gpa;
    uint64_t size;
};

int pgshare_kvm_vm_check(int vm)
{
    int follows;

    if (ioctl(vm, KVM_GET_API_VERSION, 0) >= 0) /* that is /dev/kvm */
        return PGSHARE_ERR_INVALID;
    follows = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_MMU);
    if (follows < 0)
        return PGSHARE_ERR_INVALID;
    return follows ? 0 : PGSHARE_ERR_NOTSUP;
}

/* A write to a page that is read-only by the library's books is reported. */
static uint32_t refuse(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    uint64_t handle = pgshare_kvm_handle(guest);

    if (!handle || pgshare_gfn_info(guest->kvm->host, handle, gfn, &info) ||
        !(info.flags & PGSHARE_GFN_READ_ONLY))
        return PGSHARE_KVM_EXIT_OTHER;
    pgshare_fault_write(guest->kvm->host, handle, gfn, 0, NULL, NULL);
    return PGSHARE_KVM_EXIT_REFUSED;
}

/* Is there memory by now? The kernel looks, so that nothing is mended that is
 * no memory any more. */
static bool is_there(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    unsigned char *at;

    pthread_mutex_lock(&guest->lock);
    at = pgs_at(guest, gfn);
    pthread_mutex_unlock(&guest->lock);
    return at && !pgs_sys_advise(at, PAGE, MADV_POPULATE_READ);
}

/* KVM does not say whether it was a write; what can be read was one, where
 * nobody may write. */
static uint32_t judge_fault(struct pgshare_kvm_guest *guest,
                            const struct memory_fault *fault)
{
    uint64_t gfn = fault->gpa / PAGE;
    uint32_t verdict;

    if (fault->flags & MEMORY_FAULT_PRIVATE || !is_there(guest, gfn))
        return PGSHARE_KVM_EXIT_OTHER;
    verdict = refuse(guest, gfn);
    return verdict ? verdict : (uint32_t)PGSHARE_KVM_EXIT_AGAIN;
}

static uint32_t say(struct pgshare_kvm_guest *guest, const struct kvm_run *run,
                    uint64_t *ret_gfn)
{
    const struct memory_fault *fault = (const void *)&run->mmio;

    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        *ret_gfn = run->mmio.phys_addr / PAGE;
        return run->mmio.is_write ? refuse(guest, *ret_gfn)
                                  : (uint32_t)PGSHARE_KVM_EXIT_OTHER;
    case EXIT_MEMORY_FAULT:
        *ret_gfn = fault->gpa / PAGE;
        return judge_fault(guest, fault);
    default:
        *ret_gfn = 0;
        return PGSHARE_KVM_EXIT_OTHER;
    }
}

int pgshare_kvm_exit(struct pgshare_kvm_guest *guest, const struct kvm_run *run,
                     struct pgshare_kvm_exit *ret_exit)
{
    struct pgshare_kvm_exit ours = { .size = sizeof(ours) };
    int r;

    if (!guest || !run || !ret_exit)
        return PGSHARE_ERR_INVALID;
    r = pgs_abi_check_out(ret_exit, sizeof(ret_exit->size));
    if (r)
        return r;
    ours.verdict = say(guest, run, &ours.gfn);
    pgs_abi_out(ret_exit, &ours, sizeof(ours));
    return 0;
}
