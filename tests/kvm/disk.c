/* SPDX-License-Identifier: BSD-2-Clause */
#include "kvm/disk.h"

#include <pgshare/common.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE PGSHARE_PAGE_SIZE
#define REQUEST_BYTES (256u << 10) /* what the kernel wants to be room for */
#define DELAY_US 1000u             /* at most */

void disk_block(uint64_t block, uint8_t *ret_bytes)
{
    for (unsigned i = 0; i < PAGE / sizeof(block); i++)
        ((uint64_t *)(void *)ret_bytes)[i] = (block + 1) << 32 | i;
}

int disk_new(void)
{
    _Alignas(PGSHARE_PAGE_SIZE) uint8_t bytes[PGSHARE_PAGE_SIZE];
    char name[] = "pgshare-disk-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);
    int direct;

    if (fd < 0)
        return -1;
    direct = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    unlink(name);
    for (uint64_t i = 0; direct >= 0 && i < DISK_BLOCKS; i++) {
        disk_block(i, bytes);
        if (pwrite(fd, bytes, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE) {
            close(direct);
            direct = -1;
        }
    }
    fsync(fd);
    close(fd);
    return direct;
}

/* ---- the slow one ------------------------------------------------------ */

static void answer(struct slow_disk *slow, uint64_t unique, int error,
                   const void *bytes, size_t n)
{
    struct fuse_out_header head = {
        .len = (uint32_t)(sizeof(head) + n),
        .error = error,
        .unique = unique,
    };
    struct iovec parts[] = { { &head, sizeof(head) }, { (void *)(uintptr_t)bytes, n } };

    /* whoever asked may be gone */
    if (writev(slow->device, parts, n ? 2 : 1) < 0 && errno != ENOENT)
        perror("slow disk");
}

static void answer_init(struct slow_disk *slow, uint64_t unique,
                        const struct fuse_init_in *in)
{
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = in->minor < FUSE_KERNEL_MINOR_VERSION
                     ? in->minor
                     : FUSE_KERNEL_MINOR_VERSION,
        .flags = in->flags & (FUSE_ASYNC_READ | FUSE_ASYNC_DIO),
        .max_background = 64,
        .max_write = 4096,
    };

    answer(slow, unique, 0, &out, sizeof(out));
}

static void answer_attributes(struct slow_disk *slow, uint64_t unique)
{
    struct fuse_attr_out out = {
        .attr_valid = 3600,
        .attr = { .ino = FUSE_ROOT_ID,
                  .size = DISK_BLOCKS * PAGE,
                  .mode = S_IFREG | 0400,
                  .nlink = 1,
                  .blksize = PAGE },
    };

    answer(slow, unique, 0, &out, sizeof(out));
}

static void answer_read(struct slow_disk *slow, uint64_t unique,
                        const struct fuse_read_in *in)
{
    static uint8_t bytes[16 * PGSHARE_PAGE_SIZE];
    uint32_t n = in->size / PAGE;

    if (in->offset % PAGE || in->size % PAGE || in->size > sizeof(bytes) ||
        in->offset + in->size > DISK_BLOCKS * PAGE) {
        answer(slow, unique, -EINVAL, NULL, 0);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        disk_block(in->offset / PAGE + i, bytes + i * PAGE);
    usleep((useconds_t)(unique * 7919 % DELAY_US));
    answer(slow, unique, 0, bytes, in->size);
}

static void serve_one(struct slow_disk *slow, const struct fuse_in_header *in)
{
    const struct fuse_open_out opened = { .open_flags = FOPEN_DIRECT_IO };
    const void *argument = in + 1;

    switch (in->opcode) {
    case FUSE_INIT:
        answer_init(slow, in->unique, argument);
        break;
    case FUSE_GETATTR:
        answer_attributes(slow, in->unique);
        break;
    case FUSE_OPEN:
        answer(slow, in->unique, 0, &opened, sizeof(opened));
        break;
    case FUSE_READ:
        answer_read(slow, in->unique, argument);
        break;
    case FUSE_RELEASE:
        answer(slow, in->unique, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break; /* nobody waits for an answer */
    default:
        answer(slow, in->unique, -ENOSYS, NULL, 0);
        break;
    }
}

/* Until the file is closed, and with it the file system. */
static _Noreturn void serve(struct slow_disk *slow)
{
    struct fuse_in_header *in = malloc(REQUEST_BYTES);

    while (in) {
        ssize_t n = read(slow->device, in, REQUEST_BYTES);

        if (n >= (ssize_t)sizeof(*in))
            serve_one(slow, in);
        else if (n >= 0 || errno != EINTR)
            break;
    }
    _exit(0);
}

/* By a process of its own: who is killed while he waits for his own answers is
 * never gone. */
static bool start_server(struct slow_disk *slow)
{
    slow->server = fork();
    if (slow->server)
        return slow->server > 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(slow);
}

/* The file is the whole file system, and in no place where others see it. Its
 * size is not known before somebody asks. */
static bool mount_over(struct slow_disk *slow, const char *name)
{
    char options[128];
    struct stat file;

    snprintf(options, sizeof(options),
             "fd=%d,rootmode=%o,user_id=0,group_id=0", slow->device,
             (unsigned)S_IFREG | 0400u);
    if (mount("pgshare", name, "fuse", MS_NOSUID | MS_NODEV, options))
        return false;
    if (!start_server(slow)) {
        umount2(name, MNT_DETACH);
        return false;
    }
    slow->disk = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    umount2(name, MNT_DETACH);
    if (slow->disk >= 0 && !fstat(slow->disk, &file))
        return true;
    if (slow->disk >= 0)
        close(slow->disk);
    waitpid(slow->server, NULL, 0);
    return false;
}

int slow_disk_open(struct slow_disk *slow)
{
    char name[] = "pgshare-slow-XXXXXX";
    int place = mkostemp(name, O_CLOEXEC);
    bool mounted;

    *slow = (struct slow_disk){ .disk = -1 };
    slow->device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    mounted = place >= 0 && slow->device >= 0 && mount_over(slow, name);
    if (slow->device >= 0)
        close(slow->device); /* the server has it */
    if (place >= 0) {
        close(place);
        unlink(name);
    }
    return mounted ? 0 : -1;
}

void slow_disk_close(struct slow_disk *slow)
{
    close(slow->disk);
    waitpid(slow->server, NULL, 0);
}
