/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux AIO, io_uring, and pread() in threads; by the bare system calls, so that
 * no library is needed.
 */
#include "kvm/engine.h"

#include "support/suite.h"

#include <pgshare/common.h>

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE PGSHARE_PAGE_SIZE

static int64_t offset_of(const struct reading *reading)
{
    return (int64_t)(reading->block * PAGE);
}

/* ---- Linux AIO --------------------------------------------------------- */

static int aio_open(struct reader *reader)
{
    return (int)syscall(SYS_io_setup, (long)READINGS, &reader->aio);
}

static void aio_submit(struct reader *reader)
{
    struct iocb blocks[READINGS] = { 0 };
    struct iocb *list[READINGS];
    long done = 0;

    for (unsigned i = 0; i < READINGS; i++) {
        blocks[i].aio_fildes = (uint32_t)reader->disk;
        blocks[i].aio_lio_opcode = IOCB_CMD_PREAD;
        blocks[i].aio_buf = (uintptr_t)reader->readings[i].at;
        blocks[i].aio_nbytes = PAGE;
        blocks[i].aio_offset = offset_of(&reader->readings[i]);
        list[i] = &blocks[i];
    }
    while (done < READINGS) {
        long n = syscall(SYS_io_submit, reader->aio, (long)READINGS - done,
                         list + done);

        ck_assert_int_gt(n, 0);
        done += n;
    }
}

static void aio_await(struct reader *reader)
{
    struct io_event events[READINGS];
    long left = READINGS;

    while (left > 0) {
        long n = syscall(SYS_io_getevents, reader->aio, 1L, left, events, NULL);

        ck_assert_int_gt(n, 0);
        for (long i = 0; i < n; i++)
            ck_assert_int_eq(events[i].res, PAGE);
        left -= n;
    }
}

static void aio_close(struct reader *reader)
{
    syscall(SYS_io_destroy, reader->aio);
}

const struct engine engine_aio = { "Linux AIO", aio_open, aio_submit,
                                   aio_await, aio_close };

/* ---- io_uring ---------------------------------------------------------- */

struct uring {
    int fd;
    struct io_uring_params params;
    size_t bytes;
    unsigned char *rings; /* both, in one mapping */
    struct io_uring_sqe *entries;
};

static uint32_t *word(const struct uring *uring, uint32_t offset)
{
    return (uint32_t *)(void *)(uring->rings + offset);
}

static void uring_close(struct reader *reader)
{
    struct uring *uring = reader->uring;

    if (uring->rings && uring->rings != MAP_FAILED)
        munmap(uring->rings, uring->bytes);
    if (uring->entries && uring->entries != MAP_FAILED)
        munmap(uring->entries, READINGS * sizeof(*uring->entries));
    if (uring->fd >= 0)
        close(uring->fd);
    free(uring);
}

static int uring_open(struct reader *reader)
{
    struct uring *uring = calloc(1, sizeof(*uring));
    struct io_uring_params *params = &uring->params;

    reader->uring = uring;
    uring->fd = (int)syscall(SYS_io_uring_setup, READINGS, params);
    if (uring->fd >= 0 && params->features & IORING_FEAT_SINGLE_MMAP) {
        uring->bytes = params->cq_off.cqes +
                       params->cq_entries * sizeof(struct io_uring_cqe);
        if (uring->bytes < params->sq_off.array +
                               params->sq_entries * sizeof(uint32_t))
            uring->bytes = params->sq_off.array +
                           params->sq_entries * sizeof(uint32_t);
        uring->rings = mmap(NULL, uring->bytes, PROT_READ | PROT_WRITE,
                            MAP_SHARED, uring->fd, IORING_OFF_SQ_RING);
        uring->entries = mmap(NULL, READINGS * sizeof(*uring->entries),
                              PROT_READ | PROT_WRITE, MAP_SHARED, uring->fd,
                              IORING_OFF_SQES);
    }
    if (uring->rings && uring->rings != MAP_FAILED &&
        uring->entries != MAP_FAILED)
        return 0;
    uring_close(reader);
    return -1;
}

static void uring_submit(struct reader *reader)
{
    struct uring *uring = reader->uring;
    const struct io_sqring_offsets *at = &uring->params.sq_off;
    uint32_t tail = *word(uring, at->tail);
    uint32_t mask = *word(uring, at->ring_mask);

    for (uint32_t i = 0; i < READINGS; i++) {
        struct io_uring_sqe *entry = &uring->entries[i];

        memset(entry, 0, sizeof(*entry));
        entry->opcode = IORING_OP_READ;
        entry->fd = reader->disk;
        entry->addr = (uintptr_t)reader->readings[i].at;
        entry->len = PAGE;
        entry->off = (uint64_t)offset_of(&reader->readings[i]);
        word(uring, at->array)[(tail + i) & mask] = i;
    }
    __atomic_store_n(word(uring, at->tail), tail + READINGS, __ATOMIC_RELEASE);
    ck_assert_int_eq(syscall(SYS_io_uring_enter, uring->fd, READINGS, 0, 0,
                             NULL, 0),
                     READINGS);
}

static void uring_await(struct reader *reader)
{
    struct uring *uring = reader->uring;
    const struct io_cqring_offsets *at = &uring->params.cq_off;
    const struct io_uring_cqe *answers =
        (const struct io_uring_cqe *)(const void *)(uring->rings + at->cqes);
    uint32_t mask = *word(uring, at->ring_mask), left = READINGS;

    while (left) {
        uint32_t head = *word(uring, at->head);
        uint32_t tail = __atomic_load_n(word(uring, at->tail),
                                        __ATOMIC_ACQUIRE);

        for (; head != tail; head++, left--)
            ck_assert_int_eq(answers[head & mask].res, PAGE);
        __atomic_store_n(word(uring, at->head), head, __ATOMIC_RELEASE);
        if (left)
            syscall(SYS_io_uring_enter, uring->fd, 0, 1, IORING_ENTER_GETEVENTS,
                    NULL, 0);
    }
}

const struct engine engine_uring = { "io_uring", uring_open, uring_submit,
                                     uring_await, uring_close };

/* ---- pread() ----------------------------------------------------------- */

/* What one thread reads: every READERS-th. */
struct share {
    const struct reader *reader;
    unsigned first;
};

static void *read_some(void *ctx)
{
    struct share share = *(struct share *)ctx;
    const struct reader *reader = share.reader;

    free(ctx);
    for (unsigned i = share.first; i < READINGS; i += READERS)
        if (pread(reader->disk, reader->readings[i].at, PAGE,
                  offset_of(&reader->readings[i])) != (ssize_t)PAGE)
            return NULL;
    return reader->readings;
}

static int pread_open(struct reader *reader)
{
    (void)reader;
    return 0;
}

static void pread_submit(struct reader *reader)
{
    for (unsigned i = 0; i < READERS; i++) {
        struct share *share = malloc(sizeof(*share));

        *share = (struct share){ reader, i };
        ck_assert_int_eq(pthread_create(&reader->threads[i], NULL, read_some,
                                        share),
                         0);
    }
}

static void pread_await(struct reader *reader)
{
    for (unsigned i = 0; i < READERS; i++) {
        void *all;

        pthread_join(reader->threads[i], &all);
        ck_assert_ptr_nonnull(all);
    }
}

static void pread_close(struct reader *reader)
{
    (void)reader;
}

const struct engine engine_pread = { "pread", pread_open, pread_submit,
                                     pread_await, pread_close };

/* ---- all of them ------------------------------------------------------- */

int reader_open(struct reader *reader, const struct engine *engine, int disk)
{
    *reader = (struct reader){ .engine = engine, .disk = disk };
    return engine->open(reader);
}

void reader_submit(struct reader *reader, struct reading *readings)
{
    reader->readings = readings;
    reader->engine->submit(reader);
}

void reader_await(struct reader *reader)
{
    reader->engine->await(reader);
}

void reader_close(struct reader *reader)
{
    reader->engine->close(reader);
}
