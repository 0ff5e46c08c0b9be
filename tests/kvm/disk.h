/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks that are read past the page cache, so that the kernel writes to the
 * reader's own pages: an ordinary file, and one that takes its time.
 */
#ifndef PGS_TESTS_KVM_DISK_H
#define PGS_TESTS_KVM_DISK_H

#include <stdint.h>
#include <sys/types.h>

#define DISK_BLOCKS 256u /* of a page each */

/* What stands in a block. */
void disk_block(uint64_t block, uint8_t *ret_bytes);

/* A file descriptor; -1: not here. */
int disk_new(void);

/*
 * A file (FUSE) of which each read is answered some time after it was asked: as
 * long as that, the pages read into are the device's.
 */
struct slow_disk {
    int disk;   /* to be read */
    int device; /* the server's */
    pid_t server;
};

/* 0; -1: not here (needs root, and FUSE). */
int slow_disk_open(struct slow_disk *slow);
void slow_disk_close(struct slow_disk *slow);

#endif
