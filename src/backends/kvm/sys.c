/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls, one function each.
 *
 * Each asks fails() first, which in a test answers the errno that the call is
 * to fail with, before it has done anything. A call that is interrupted, or
 * that the kernel asks us to repeat because of its own locks, is repeated.
 */
#include "kvm/sys.h"

#include <pgshare/common.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGAIN_MAX 1000
#define WAKE_TRIES 8

#ifdef PGS_TEST_INTERNAL
static _Atomic uint64_t calls, fail_first = UINT64_MAX, fail_count;
static _Atomic int fail_error;

uint64_t pgs_sys_fail(uint64_t first, uint64_t count, int error)
{
    atomic_store(&fail_first, UINT64_MAX);
    atomic_store(&fail_count, count);
    atomic_store(&fail_error, error);
    atomic_store(&fail_first, first);
    return atomic_exchange(&calls, 0);
}

static _Atomic bool is_old;

void pgs_sys_be_old(bool on)
{
    atomic_store(&is_old, on);
}

static int fails(void)
{
    uint64_t i = atomic_fetch_add(&calls, 1);
    uint64_t first = atomic_load(&fail_first);

    return i >= first && i - first < atomic_load(&fail_count)
               ? atomic_load(&fail_error)
               : 0;
}
#else
static int fails(void)
{
    return 0;
}

#define is_old false
#endif

/* What Linux 6.1 does not have. */
#define YOUNG (PGS_UFFD_WP_UNPOPULATED | PGS_UFFD_WP_ASYNC | PGS_UFFD_MOVE)

static int control(int fd, unsigned long request, void *arg)
{
    int error = fails();

    if (error)
        return -error;
    while (ioctl(fd, request, arg) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* ---- userfaultfd ------------------------------------------------------- */

/* The plain call is for the privileged; the device's owner decides for all
 * others. */
static int open_any(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    int device;

    if (fd >= 0 || errno == ENOSYS)
        return fd;
    device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    fd = ioctl(device, _IO(0xAA, 0x00), O_CLOEXEC | O_NONBLOCK);
    close(device);
    return fd;
}

int pgs_sys_uffd_open(uint64_t features)
{
    struct uffdio_api api = { .api = UFFD_API, .features = features };
    int error = fails(), fd;

    if (error)
        return -error;
    if (is_old && features & YOUNG)
        return -EINVAL;
    fd = open_any();
    if (fd < 0)
        return -errno;
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int pgs_sys_uffd_register(int fd, const void *at, size_t bytes, uint64_t mode)
{
    struct uffdio_register request = {
        .range = { .start = (uintptr_t)at, .len = bytes },
        .mode = mode,
    };

    return control(fd, UFFDIO_REGISTER, &request);
}

int pgs_sys_uffd_unregister(int fd, const void *at, size_t bytes)
{
    struct uffdio_range range = { .start = (uintptr_t)at, .len = bytes };

    return control(fd, UFFDIO_UNREGISTER, &range);
}

/* One call is about one mapping on either side, and where they end is not
 * known here: what is refused as a whole is tried in halves. */
int pgs_sys_uffd_move(int fd, void *dst, const void *src, size_t bytes,
                      size_t *ret_moved)
{
    size_t moved = 0, part = bytes;
    unsigned again = 0;
    int error = 0;

    while (moved < bytes && again < AGAIN_MAX) {
        struct pgs_uffd_move move = {
            .dst = (uintptr_t)dst + moved,
            .src = (uintptr_t)src + moved,
            .len = part < bytes - moved ? part : bytes - moved,
        };

        error = control(fd, PGS_UFFDIO_MOVE, &move);
        if (move.move > 0)
            moved += (size_t)move.move;
        if (!error) {
            part = bytes;
        } else if (error == -EINVAL && move.len > PGSHARE_PAGE_SIZE) {
            part = move.len / 2 / PGSHARE_PAGE_SIZE * PGSHARE_PAGE_SIZE;
        } else if (error == -EAGAIN) {
            again++;
            if (move.move <= 0)
                sched_yield();
        } else {
            break;
        }
    }
    *ret_moved = moved;
    return moved == bytes ? 0 : error;
}

int pgs_sys_uffd_copy(int fd, void *dst, const void *src, size_t bytes,
                      uint64_t mode)
{
    size_t done = 0;
    int error = 0;

    for (unsigned tries = 0; done < bytes && tries < AGAIN_MAX; tries++) {
        struct uffdio_copy copy = {
            .dst = (uintptr_t)dst + done,
            .src = (uintptr_t)src + done,
            .len = bytes - done,
            .mode = mode,
        };

        error = control(fd, UFFDIO_COPY, &copy);
        if (copy.copy > 0)
            done += (size_t)copy.copy;
        if (error && error != -EAGAIN)
            break;
    }
    return done == bytes ? 0 : error;
}

int pgs_sys_uffd_zero(int fd, void *dst, size_t bytes)
{
    struct uffdio_zeropage zero = {
        .range = { .start = (uintptr_t)dst, .len = bytes },
        .mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
    };

    return control(fd, UFFDIO_ZEROPAGE, &zero);
}

int pgs_sys_uffd_protect(int fd, const void *at, size_t bytes, bool on)
{
    struct uffdio_writeprotect protect = {
        .range = { .start = (uintptr_t)at, .len = bytes },
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP
                   : UFFDIO_WRITEPROTECT_MODE_DONTWAKE,
    };
    int error;

    for (unsigned tries = 0; tries < AGAIN_MAX; tries++) {
        error = control(fd, UFFDIO_WRITEPROTECT, &protect);
        if (error != -EAGAIN)
            break;
    }
    return error;
}

int pgs_sys_uffd_wake(int fd, const void *at, size_t bytes)
{
    struct uffdio_range range = { .start = (uintptr_t)at, .len = bytes };
    int error = control(fd, UFFDIO_WAKE, &range);

    /* a guest that is never woken would hang */
    for (unsigned tries = 1; error && tries < WAKE_TRIES; tries++)
        error = control(fd, UFFDIO_WAKE, &range);
    return error;
}

/* ---- mappings ---------------------------------------------------------- */

static int map(void *at, size_t bytes, int protection, int flags, int fd,
               uint64_t offset, void **ret_at)
{
    int error = fails();
    void *got;

    if (error)
        return -error;
    got = mmap(at, bytes, protection, flags | MAP_NORESERVE, fd, (off_t)offset);
    if (got == MAP_FAILED)
        return -errno;
    if (ret_at)
        *ret_at = got;
    return 0;
}

int pgs_sys_map_anon(void *at, size_t bytes, void **ret_at)
{
    return map(at, bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0,
               ret_at);
}

int pgs_sys_map_file(void *at, size_t bytes, int fd, uint64_t offset,
                     bool private_, void **ret_at)
{
    return map(at, bytes, private_ ? PROT_READ | PROT_WRITE : PROT_READ,
               (private_ ? MAP_PRIVATE : MAP_SHARED) | (at ? MAP_FIXED : 0), fd,
               offset, ret_at);
}

int pgs_sys_unmap(void *at, size_t bytes)
{
    return munmap(at, bytes) < 0 ? -errno : 0;
}

int pgs_sys_replace(void *from, void *to, size_t bytes)
{
    int error = fails();

    if (error)
        return -error;
    return mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
                   MAP_FAILED
               ? -errno
               : 0;
}

int pgs_sys_advise(const void *at, size_t bytes, int advice)
{
    int error = fails();

    if (error)
        return -error;
    while (madvise((void *)(uintptr_t)at, bytes, advice) < 0)
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    return 0;
}

/* ---- files ------------------------------------------------------------- */

int pgs_sys_memfd(const char *name)
{
    int error = fails(), fd;

    if (error)
        return -error;
    fd = (int)syscall(SYS_memfd_create, name, 1u /* MFD_CLOEXEC */);
    return fd < 0 ? -errno : fd;
}

int pgs_sys_truncate(int fd, uint64_t bytes)
{
    int error = fails();

    if (error)
        return -error;
    return ftruncate(fd, (off_t)bytes) < 0 ? -errno : 0;
}

int pgs_sys_punch(int fd, uint64_t offset, uint64_t bytes)
{
    const long mode = 3; /* FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE */
    int error = fails();

    if (error)
        return -error;
    while (syscall(SYS_fallocate, fd, mode, (off_t)offset, (off_t)bytes) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

ssize_t pgs_sys_pwrite(int fd, const void *from, size_t bytes, uint64_t offset)
{
    size_t done = 0;
    int error = fails();

    if (error)
        return -error;
    while (done < bytes) {
        ssize_t n = pwrite(fd, (const char *)from + done, bytes - done,
                           (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return done ? (ssize_t)done : -errno;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t pgs_sys_pread(int fd, void *to, size_t bytes, uint64_t offset)
{
    size_t done = 0;
    int error = fails();

    if (error)
        return -error;
    while (done < bytes) {
        ssize_t n = pread(fd, (char *)to + done, bytes - done,
                          (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return done || !n ? (ssize_t)done : -errno;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t pgs_sys_peek(void *to, const void *from, size_t bytes)
{
    struct iovec local = { .iov_base = to, .iov_len = bytes };
    struct iovec remote = { .iov_base = (void *)(uintptr_t)from,
                            .iov_len = bytes };
    int error = fails();
    long n;

    if (error)
        return -error;
    n = syscall(SYS_process_vm_readv, gettid(), &local, 1L, &remote, 1L, 0L);
    return n < 0 ? -errno : (ssize_t)n;
}

int pgs_sys_pagemap_scan(int fd, struct pgs_pm_scan *scan)
{
    int error = fails();
    int n;

    if (error)
        return -error;
    if (is_old)
        return -ENOTTY;
    do
        n = ioctl(fd, PGS_PAGEMAP_SCAN, scan);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* ---- a shadow ---------------------------------------------------------- */

/* The child of a process with threads may do nothing but system calls. */
int pgs_sys_shadow(pid_t *ret_pid)
{
    int error = fails();
    long pid;

    if (error)
        return -error;
    pid = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
    if (pid < 0)
        return -errno;
    if (!pid) {
        syscall(SYS_prctl, (long)PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L);
        for (;;)
            syscall(SYS_ppoll, NULL, 0L, NULL, NULL, 0L);
    }
    *ret_pid = (pid_t)pid;
    return 0;
}

void pgs_sys_shadow_end(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
}
