/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls that work on a guest, each answering 0 (or a result) or a
 * negative errno. All go through here, so that a test can make the i-th fail.
 */
#ifndef PGS_KVM_SYS_H
#define PGS_KVM_SYS_H

#include "kvm/abi_linux.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int pgs_sys_uffd_open(uint64_t features);
int pgs_sys_uffd_register(int fd, const void *at, size_t bytes, uint64_t mode);
int pgs_sys_uffd_unregister(int fd, const void *at, size_t bytes);
/* Answers the bytes moved in *ret_moved, also with an error. */
int pgs_sys_uffd_move(int fd, void *dst, const void *src, size_t bytes,
                      size_t *ret_moved);
int pgs_sys_uffd_copy(int fd, void *dst, const void *src, size_t bytes,
                      uint64_t mode);
int pgs_sys_uffd_zero(int fd, void *dst, size_t bytes);
int pgs_sys_uffd_protect(int fd, const void *at, size_t bytes, bool on);
int pgs_sys_uffd_wake(int fd, const void *at, size_t bytes);

/* Anonymous memory that is charged as it is touched; `at` NULL: anywhere. */
int pgs_sys_map_anon(void *at, size_t bytes, void **ret_at);
int pgs_sys_map_file(void *at, size_t bytes, int fd, uint64_t offset,
                     bool private_, void **ret_at);
int pgs_sys_unmap(void *at, size_t bytes);
/* Puts the memory at `from` in place of what is at `to`, at once. */
int pgs_sys_replace(void *from, void *to, size_t bytes);
int pgs_sys_advise(const void *at, size_t bytes, int advice);

int pgs_sys_memfd(const char *name);
int pgs_sys_truncate(int fd, uint64_t bytes);
int pgs_sys_punch(int fd, uint64_t offset, uint64_t bytes);
/* These answer how much it was, which is less where the file ends. */
ssize_t pgs_sys_pwrite(int fd, const void *from, size_t bytes, uint64_t offset);
ssize_t pgs_sys_pread(int fd, void *to, size_t bytes, uint64_t offset);
/* Reads memory of our own that may not be there: answers how much is. */
ssize_t pgs_sys_peek(void *to, const void *from, size_t bytes);
int pgs_sys_pagemap_scan(int fd, struct pgs_pm_scan *scan);
/* A process with a copy of our address space, which does nothing. */
int pgs_sys_shadow(pid_t *ret_pid);
void pgs_sys_shadow_end(pid_t pid);

#ifdef PGS_TEST_INTERNAL
/* From now on call number `first` (the next is 0), and `count - 1` that follow,
 * fail with `error`. Answers the number of calls since the last time. */
uint64_t pgs_sys_fail(uint64_t first, uint64_t count, int error);
/* The kernel has no more than Linux 6.1. */
void pgs_sys_be_old(bool on);
#endif

#endif
