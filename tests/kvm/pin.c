/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * By the bare system calls, so that no library is needed.
 */
#include "kvm/pin.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int pin_memory(void *at, size_t bytes)
{
    struct iovec buffer = { .iov_base = at, .iov_len = bytes };
    struct io_uring_params params = { 0 };
    int ring = (int)syscall(SYS_io_uring_setup, 1, &params);
    int error;

    if (ring < 0)
        return -errno;
    if (!syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer,
                 1))
        return ring;
    error = errno;
    close(ring);
    return -error;
}

void unpin_memory(int pin)
{
    /* closing alone would let go of it some time later */
    syscall(SYS_io_uring_register, pin, IORING_UNREGISTER_BUFFERS, NULL, 0);
    close(pin);
}
