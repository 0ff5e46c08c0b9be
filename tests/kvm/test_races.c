/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everybody who can write to a guest's memory writes while it is being shared:
 * vCPUs, the kernel on behalf of the VMM, and disks, by O_DIRECT. No write may
 * be lost, whoever was first.
 *
 * Disk reads are submitted into pages that are equal to others, which a thread
 * shares all the while: before, during and after.
 */
#include "contract/rig.h"

#include "kvm/disk.h"
#include "kvm/engine.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define READS 10000u      /* by Linux AIO */
#define OTHER_READS 400u /* by each other way */

/* Shares the two guests' pages, now from the one and now from the other. */
struct sharer {
    pthread_t thread;
    struct rig *rig;
    _Atomic bool stop;
    _Atomic uint64_t shared;
    uint64_t raced; /* a read was under way to them */
};

static void *share_on(void *ctx)
{
    struct sharer *sharer = ctx;
    struct rig *rig = sharer->rig;
    int8_t results[2 * READINGS];
    struct pgshare_call call = { .size = sizeof(call),
                                 .timeout_ns = SECOND,
                                 .results = results };

    for (unsigned turn = 0; !atomic_load(&sharer->stop); turn++) {
        struct pgshare_share_request request = {
            .size = sizeof(request),
            .flags = PGSHARE_SHARE_MARK,
            .source_dom = rig_dom(rig, turn % 2),
            .client_dom = rig_dom(rig, 1 - turn % 2),
            .count = 2 * READINGS,
        };

        pgshare_share(rig->host, &request, &call);
        atomic_fetch_add(&sharer->shared, call.done);
        for (unsigned i = 0; i < 2 * READINGS; i++)
            sharer->raced += results[i] == PGSHARE_ERR_BUSY;
        usleep(200); /* faults have their turn */
    }
    return NULL;
}

/* Reads of random blocks into one of each two pages. */
static void choose(struct rig *rig, uint64_t *word, struct reading *reads)
{
    for (unsigned i = 0; i < READINGS; i++) {
        *word = *word * UINT64_C(6364136223846793005) + 1442695040888963407u;
        reads[i].gfn = 2 * i + (*word >> 63);
        reads[i].block = (*word >> 32) % DISK_BLOCKS;
        reads[i].at = rig->ops->address(rig->guests[0].impl, reads[i].gfn);
    }
}

/* So many reads with sharing going on beside them, or more, until some has come
 * about. */
static void race(struct rig *rig, struct reader *reader, uint64_t reads)
{
    struct sharer sharer = { .rig = rig };
    uint64_t word = pgs_test_seed();

    ck_assert_int_eq(pthread_create(&sharer.thread, NULL, share_on, &sharer),
                     0);
    for (uint64_t n = 0; n < reads || (!atomic_load(&sharer.shared) &&
                                       n < 100 * reads);
         n += READINGS) {
        struct reading readings[READINGS];

        rig_fill(rig, 0, 0, 2 * READINGS, n + 1);
        rig_fill(rig, 1, 0, 2 * READINGS, n + 1);
        choose(rig, &word, readings);
        reader_submit(reader, readings);
        reader_await(reader);
        for (unsigned i = 0; i < READINGS; i++)
            disk_block(readings[i].block,
                       rig->guests[0].shadow[readings[i].gfn]);
        rig_check_content(rig);
    }
    atomic_store(&sharer.stop, true);
    pthread_join(sharer.thread, NULL);
    printf("%s, %s: %" PRIu64 " pages shared, %" PRIu64 " found pinned by a "
           "read\n",
           rig->machine->name, reader->engine->name,
           atomic_load(&sharer.shared), sharer.raced);
    ck_assert_uint_gt(atomic_load(&sharer.shared), 0);
}

static void race_on(int machine, const struct engine *engine, int disk,
                    uint64_t reads)
{
    struct reader reader;
    struct rig rig;

    if (disk < 0 || reader_open(&reader, engine, disk))
        pgs_skip("files cannot be read in this way here, past the page cache");
    rig_open(&rig, machine);
    rig_guest(&rig);
    rig_guest(&rig);
    race(&rig, &reader, reads);
    reader_close(&reader);
    rig_close(&rig);
}

START_TEST(disk_reads_into_pages_that_are_being_shared_are_never_lost)
{
    int disk = disk_new();

    race_on(_i, &engine_aio, disk, READS);
    close(disk);
}
END_TEST

START_TEST(nor_are_those_by_io_uring)
{
    int disk = disk_new();

    race_on(_i, &engine_uring, disk, OTHER_READS * pgs_test_scale());
    close(disk);
}
END_TEST

START_TEST(nor_are_those_by_pread)
{
    int disk = disk_new();

    race_on(_i, &engine_pread, disk, OTHER_READS * pgs_test_scale());
    close(disk);
}
END_TEST

START_TEST(nor_are_those_of_a_disk_that_takes_its_time)
{
    struct slow_disk slow;

    if (slow_disk_open(&slow))
        pgs_skip("no disk can be slowed down here (needs root, and FUSE)");
    race_on(_i, &engine_aio, slow.disk, OTHER_READS * pgs_test_scale());
    slow_disk_close(&slow);
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
    { &disk_reads_into_pages_that_are_being_shared_are_never_lost,
      CAN_SHARE | CAN_PIN },
    { &nor_are_those_by_io_uring, CAN_SHARE | CAN_PIN },
    { &nor_are_those_by_pread, CAN_SHARE | CAN_PIN },
    { &nor_are_those_of_a_disk_that_takes_its_time, CAN_SHARE | CAN_PIN },
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
