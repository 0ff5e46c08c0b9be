/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this machine can do, one function a feature: what is missing, what is
 * lost by that, and what an administrator can do about it.
 *
 * Each feature is tried, not looked up by the kernel's version: distributions
 * bring some to older kernels, and sandboxes take some from newer ones.
 */
#include "kvm/backend.h"

#include "base/abi.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PR_GET_MEMORY_MERGE_ 68

static void say(struct pgshare_kvm_probe *probe, uint32_t verdict,
                int64_t value, const char *text)
{
    probe->verdict = verdict;
    probe->value = value;
    probe->text = text;
}

static void uffd(struct pgshare_kvm_probe *probe)
{
    int fd = pgs_sys_uffd_open(0);

    if (fd >= 0) {
        close(fd);
        say(probe, PGSHARE_KVM_GOOD, 0, "userfaultfd can be used");
    } else if (fd == -ENOSYS) {
        say(probe, PGSHARE_KVM_REFUSED, -fd,
            "the kernel has no userfaultfd; it needs CONFIG_USERFAULTFD");
    } else {
        say(probe, PGSHARE_KVM_REFUSED, -fd,
            "userfaultfd is not permitted; run as root, give access to "
            "/dev/userfaultfd, or set vm.unprivileged_userfaultfd = 1");
    }
}

static bool has(uint64_t features)
{
    int fd = pgs_sys_uffd_open(features);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void detach(struct pgshare_kvm_probe *probe)
{
    if (has(PGS_UFFD_MOVE))
        say(probe, PGSHARE_KVM_GOOD, 0, "pages can be detached from a guest");
    else
        say(probe, PGSHARE_KVM_LESS, 0,
            "the kernel cannot move pages (UFFDIO_MOVE, Linux 6.8): disk reads "
            "under way would be lost, unless the VMM declares them "
            "(PGSHARE_KVM_DMA_DECLARED); install a newer kernel");
}

static void protect(struct pgshare_kvm_probe *probe)
{
    if (has(UFFD_FEATURE_PAGEFAULT_FLAG_WP | PGS_UFFD_WP_SHMEM))
        say(probe, PGSHARE_KVM_GOOD, 0, "memory can be write-protected");
    else
        say(probe, PGSHARE_KVM_REFUSED, 0,
            "userfaultfd cannot write-protect memory (Linux 5.19); install a "
            "newer kernel");
}

static void logging(struct pgshare_kvm_probe *probe)
{
    if (has(UFFD_FEATURE_PAGEFAULT_FLAG_WP | PGS_UFFD_WP_ASYNC |
            PGS_UFFD_WP_UNPOPULATED))
        say(probe, PGSHARE_KVM_GOOD, 0, "the kernel logs writes");
    else
        say(probe, PGSHARE_KVM_LESS, 0,
            "the kernel cannot log writes (UFFD_FEATURE_WP_ASYNC, Linux 6.7), "
            "so that each pass looks at all pages; install a newer kernel");
}

static void pagemap(struct pgshare_kvm_probe *probe)
{
    struct pgs_page_region region;
    struct pgs_pm_scan scan = {
        .size = sizeof(scan),
        .start = (uintptr_t)&region / PAGE * PAGE,
        .end = (uintptr_t)&region / PAGE * PAGE + PAGE,
        .vec = (uintptr_t)&region,
        .vec_len = 1,
        .category_anyof_mask = PGS_PAGE_PRESENT,
        .return_mask = PGS_PAGE_PRESENT,
    };
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? -errno : pgs_sys_pagemap_scan(fd, &scan);

    if (fd >= 0)
        close(fd);
    if (error >= 0)
        say(probe, PGSHARE_KVM_GOOD, 0, "page tables can be scanned");
    else if (fd >= 0)
        say(probe, PGSHARE_KVM_LESS, -error,
            "page tables cannot be scanned (PAGEMAP_SCAN, Linux 6.7), but read "
            "word by word; install a newer kernel");
    else
        say(probe, PGSHARE_KVM_REFUSED, -error,
            "page tables cannot be read (/proc/self/pagemap), so that broken "
            "sharing would not be noticed; mount /proc");
}

static void reading(struct pgshare_kvm_probe *probe)
{
    char from[2] = "x", to[2] = "";
    ssize_t n = pgs_sys_peek(to, from, sizeof(from));

    if (n == (ssize_t)sizeof(from) && to[0] == from[0])
        say(probe, PGSHARE_KVM_GOOD, 0, "memory can be read safely");
    else
        say(probe, PGSHARE_KVM_REFUSED, n < 0 ? -n : 0,
            "process_vm_readv() of the process's own memory fails; allow it in "
            "the sandbox, and use a kernel with CONFIG_CROSS_MEMORY_ATTACH");
}

static void memfd(struct pgshare_kvm_probe *probe)
{
    int fd = pgs_sys_memfd("pgshare-probe");

    if (fd >= 0) {
        close(fd);
        say(probe, PGSHARE_KVM_GOOD, 0, "frames can be kept in memory files");
    } else {
        say(probe, PGSHARE_KVM_REFUSED, -fd,
            "memfd_create() fails; look at the sandbox and the file limit");
    }
}

static void mappings(struct pgshare_kvm_probe *probe)
{
    int64_t limit = pgs_budget_limit();

    if (limit < 0)
        say(probe, PGSHARE_KVM_LESS, 0, "vm.max_map_count cannot be read");
    else if (limit <= PGS_MAPPINGS_USUAL)
        say(probe, PGSHARE_KVM_LESS, limit,
            "a process may have few mappings, and single shared pages cost one "
            "or two each; raise vm.max_map_count to share more");
    else
        say(probe, PGSHARE_KVM_GOOD, limit, "mappings are plenty");
}

static void ksm(struct pgshare_kvm_probe *probe)
{
    if (prctl(PR_GET_MEMORY_MERGE_, 0, 0, 0, 0) == 1)
        say(probe, PGSHARE_KVM_REFUSED, 1,
            "the kernel's own same-page merging is on for this process "
            "(PR_SET_MEMORY_MERGE), and would undo the library's protections; "
            "switch it off");
    else
        say(probe, PGSHARE_KVM_GOOD, 0, "no other merging is at work");
}

/* What is mapped now tells whether memory is locked from the start. */
static void locked(struct pgshare_kvm_probe *probe)
{
    uint32_t attributes, why = PGSHARE_KVM_WHY_NONE;
    void *at;

    if (pgs_sys_map_anon(NULL, PAGE, &at)) {
        say(probe, PGSHARE_KVM_REFUSED, ENOMEM, "there is no memory");
        return;
    }
    pgs_vma_check(at, PAGE, &attributes, &why);
    pgs_sys_unmap(at, PAGE);
    if (why == PGSHARE_KVM_WHY_LOCKED)
        say(probe, PGSHARE_KVM_REFUSED, 0,
            "all memory of the process is locked (MCL_FUTURE), which sharing "
            "would undo; do not lock it");
    else
        say(probe, PGSHARE_KVM_GOOD, 0, "memory is not locked");
}

static void device(struct pgshare_kvm_probe *probe)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
        say(probe, PGSHARE_KVM_GOOD, 0, "virtual machines can be made");
    } else {
        say(probe, PGSHARE_KVM_LESS, errno,
            "/dev/kvm cannot be opened; the memory of processes can be shared "
            "all the same");
    }
}

static const struct {
    const char *name;
    void (*look)(struct pgshare_kvm_probe *probe);
} table[PGSHARE_KVM_FEATURES] = {
    [PGSHARE_KVM_USERFAULTFD] = { "userfaultfd", uffd },
    [PGSHARE_KVM_MOVE] = { "move", detach },
    [PGSHARE_KVM_PROTECT] = { "write protection", protect },
    [PGSHARE_KVM_LOG] = { "write log", logging },
    [PGSHARE_KVM_PAGEMAP] = { "pagemap", pagemap },
    [PGSHARE_KVM_READ] = { "reading", reading },
    [PGSHARE_KVM_MEMFD] = { "memfd", memfd },
    [PGSHARE_KVM_MAPPINGS] = { "mappings", mappings },
    [PGSHARE_KVM_KSM] = { "KSM", ksm },
    [PGSHARE_KVM_LOCKED] = { "memory lock", locked },
    [PGSHARE_KVM_DEVICE] = { "kvm", device },
};

int pgshare_kvm_probe(uint32_t feature, struct pgshare_kvm_probe *ret_probe)
{
    struct pgshare_kvm_probe ours = { .size = sizeof(ours),
                                      .feature = feature };
    int r;

    if (!ret_probe)
        return PGSHARE_ERR_INVALID;
    r = pgs_abi_check_out(ret_probe, sizeof(ret_probe->size));
    if (r)
        return r;
    if (feature >= PGSHARE_KVM_FEATURES)
        return PGSHARE_ERR_RANGE;
    ours.name = table[feature].name;
    table[feature].look(&ours);
    pgs_abi_out(ret_probe, &ours, sizeof(ours));
    return 0;
}
