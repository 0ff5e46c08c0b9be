/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everybody who can write to a guest's memory writes while it is being shared:
 * vCPUs, the kernel on behalf of the VMM, and disks, by O_DIRECT. No write may
 * be lost, whoever was first.
 *
 * Disk reads are submitted (Linux AIO) into pages that are equal to others, which
 * a thread shares all the while: before, during and after.
 */
#include "contract/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define RUN 16u /* pages read at a time */
#define READS 10000u
#define BLOCKS 256u

/* ---- disks ------------------------------------------------------------- */

static void fill_block(uint64_t block, uint8_t *ret_bytes)
{
    for (unsigned i = 0; i < PAGE / sizeof(block); i++)
        ((uint64_t *)(void *)ret_bytes)[i] = (block + 1) << 32 | i;
}

/* A file that can be read past the page cache; -1: not here. */
static int make_disk(void)
{
    _Alignas(4096) static uint8_t bytes[PGSHARE_PAGE_SIZE];
    char name[] = "pgshare-disk-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);
    int direct;

    if (fd < 0)
        return -1;
    direct = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    unlink(name);
    for (uint64_t i = 0; direct >= 0 && i < BLOCKS; i++) {
        fill_block(i, bytes);
        ck_assert_int_eq(pwrite(fd, bytes, PAGE, (off_t)(i * PAGE)), PAGE);
    }
    fsync(fd);
    close(fd);
    return direct;
}

struct reading {
    uint64_t gfn;
    uint64_t block;
    void *at;
};

static void submit(aio_context_t aio, int disk, struct reading *reads)
{
    struct iocb blocks[RUN] = { 0 };
    struct iocb *list[RUN];
    long done = 0;

    for (unsigned i = 0; i < RUN; i++) {
        blocks[i].aio_fildes = (uint32_t)disk;
        blocks[i].aio_lio_opcode = IOCB_CMD_PREAD;
        blocks[i].aio_buf = (uintptr_t)reads[i].at;
        blocks[i].aio_nbytes = PAGE;
        blocks[i].aio_offset = (int64_t)(reads[i].block * PAGE);
        list[i] = &blocks[i];
    }
    while (done < RUN) {
        long n = syscall(SYS_io_submit, aio, (long)RUN - done, list + done);

        ck_assert_int_gt(n, 0);
        done += n;
    }
}

static void await(aio_context_t aio)
{
    struct io_event events[RUN];
    long left = RUN;

    while (left > 0) {
        long n = syscall(SYS_io_getevents, aio, 1L, left, events, NULL);

        ck_assert_int_gt(n, 0);
        for (long i = 0; i < n; i++)
            ck_assert_int_eq(events[i].res, PAGE);
        left -= n;
    }
}

/* Shares the two guests' pages, now from the one and now from the other. */
struct sharer {
    pthread_t thread;
    struct rig *rig;
    _Atomic bool stop;
    uint64_t shared;
    uint64_t raced; /* a read was under way to them */
};

static void *share_on(void *ctx)
{
    struct sharer *sharer = ctx;
    struct rig *rig = sharer->rig;
    int8_t results[2 * RUN];
    struct pgshare_call call = { .size = sizeof(call),
                                 .timeout_ns = SECOND,
                                 .results = results };

    for (unsigned turn = 0; !atomic_load(&sharer->stop); turn++) {
        struct pgshare_share_request request = {
            .size = sizeof(request),
            .flags = PGSHARE_SHARE_MARK,
            .source_dom = rig_dom(rig, turn % 2),
            .client_dom = rig_dom(rig, 1 - turn % 2),
            .count = 2 * RUN,
        };

        pgshare_share(rig->host, &request, &call);
        sharer->shared += call.done;
        for (unsigned i = 0; i < 2 * RUN; i++)
            sharer->raced += results[i] == PGSHARE_ERR_BUSY;
        usleep(200); /* faults have their turn */
    }
    return NULL;
}

/* Reads of random blocks into one of each two pages. */
static void choose(struct rig *rig, uint64_t *word, struct reading *reads)
{
    for (unsigned i = 0; i < RUN; i++) {
        *word = *word * UINT64_C(6364136223846793005) + 1442695040888963407u;
        reads[i].gfn = 2 * i + (*word >> 63);
        reads[i].block = (*word >> 32) % BLOCKS;
        reads[i].at = rig->ops->address(rig->guests[0].impl, reads[i].gfn);
    }
}

START_TEST(disk_reads_into_pages_that_are_being_shared_are_never_lost)
{
    uint64_t word = pgs_test_seed();
    struct sharer sharer = { .shared = 0 };
    aio_context_t aio = 0;
    struct rig rig;
    int disk = make_disk();

    if (disk < 0 || syscall(SYS_io_setup, (long)RUN, &aio))
        pgs_skip("files cannot be read with O_DIRECT and Linux AIO here");
    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    sharer.rig = &rig;
    ck_assert_int_eq(pthread_create(&sharer.thread, NULL, share_on, &sharer),
                     0);
    for (uint64_t n = 0; n < READS; n += RUN) {
        struct reading reads[RUN];

        rig_fill(&rig, 0, 0, 2 * RUN, n + 1);
        rig_fill(&rig, 1, 0, 2 * RUN, n + 1);
        choose(&rig, &word, reads);
        submit(aio, disk, reads);
        await(aio);
        for (unsigned i = 0; i < RUN; i++)
            fill_block(reads[i].block, rig.guests[0].shadow[reads[i].gfn]);
        rig_check_content(&rig);
    }
    atomic_store(&sharer.stop, true);
    pthread_join(sharer.thread, NULL);
    printf("%s: %" PRIu64 " pages shared, %" PRIu64 " found pinned by a read\n",
           rig.machine->name, sharer.shared, sharer.raced);
    ck_assert_uint_gt(sharer.shared, 0);
    syscall(SYS_io_destroy, aio);
    close(disk);
    rig_close(&rig);
}
END_TEST

/* ---- processors -------------------------------------------------------- */

struct writer {
    pthread_t thread;
    _Atomic bool *stop;
    uint8_t *memory; /* a page that only this one writes to */
    int pipe[2];     /* for writes by the kernel */
    bool kernel;
    uint64_t writes;
};

/* Counts in the page's words, one after the other: whoever loses one write
 * leaves a word that is behind. */
static void *count_up(void *ctx)
{
    struct writer *writer = ctx;
    uint64_t n = 0;

    while (!atomic_load(writer->stop)) {
        uint64_t *word = (uint64_t *)(void *)writer->memory + n % 8;
        uint64_t next = n / 8 + 1;

        if (!writer->kernel) {
            *(volatile uint64_t *)word = next;
        } else if (write(writer->pipe[1], &next, sizeof(next)) !=
                       sizeof(next) ||
                   read(writer->pipe[0], word, sizeof(*word)) !=
                       sizeof(*word)) {
            break;
        }
        n++;
        if (n % 64 == 0)
            usleep(20);
    }
    writer->writes = n;
    return NULL;
}

static bool is_complete(const struct writer *writer)
{
    const uint64_t *words = (const uint64_t *)(const void *)writer->memory;

    for (uint64_t i = 0; i < 8; i++) {
        uint64_t last = writer->writes > i ? (writer->writes - i + 7) / 8 : 0;

        if (writer->writes && words[i] != last)
            return false;
    }
    return true;
}

/* What they wrote is what the rig believes from now on. */
static void learn(struct rig *rig, unsigned g, uint64_t gfn)
{
    memcpy(rig->guests[g].shadow[gfn],
           rig->ops->address(rig->guests[g].impl, gfn), PAGE);
}

START_TEST(writes_while_pages_are_shared_are_never_lost)
{
    struct writer writers[4];
    _Atomic bool stop = false;
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    for (unsigned i = 0; i < 4; i++) {
        writers[i] = (struct writer){ .stop = &stop, .kernel = i / 2 };
        writers[i].memory = rig.ops->address(rig.guests[i % 2].impl, i);
        ck_assert_int_eq(pipe(writers[i].pipe), 0);
        ck_assert_int_eq(pthread_create(&writers[i].thread, NULL, count_up,
                                        &writers[i]),
                         0);
    }
    for (unsigned round = 0; round < 400 * pgs_test_scale(); round++) {
        rig_fill(&rig, 0, 8, 8, round + 1);
        rig_fill(&rig, 1, 8, 8, round + 1);
        rig_share(&rig, round % 2, 0, 1 - round % 2, 0, 16);
        pgshare_mark_ro(rig.host, rig_dom(&rig, round % 2), 0, 4,
                        (uint64_t[4]){ 0 }, NULL);
        pgshare_host_run(rig.host, NULL, NULL);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(writers[i].thread, NULL);
        ck_assert_uint_gt(writers[i].writes, 100);
        ck_assert_msg(is_complete(&writers[i]), "writer %u lost a write", i);
        learn(&rig, i % 2, i);
        close(writers[i].pipe[0]);
        close(writers[i].pipe[1]);
    }
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &disk_reads_into_pages_that_are_being_shared_are_never_lost, CAN_SHARE },
    { &writes_while_pages_are_shared_are_never_lost, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("kvm-races", tests, sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-races", make, argc, argv);
}
