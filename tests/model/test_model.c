/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test: streams of random operations drive the library over the mock
 * machine, and after them every byte of every guest, and all books, must be
 * what a naive model says.
 *
 * Each stream runs in a process of its own, so that whatever ends it (a
 * difference, an assertion, a sanitizer) is seen here. Then records are left
 * out as long as it still fails, and what remains is run once more, aloud.
 *
 * `./run model SEED` runs the streams of a seed again.
 */
#include "ops.h"

#include "support/suite.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STREAMS 60u
#define RECORDS_MIN 64u
#define RECORDS_MAX 700u
#define SHRINK_RUNS 300u
/* A stream takes much less than a second; this one hangs. */
#define STREAM_SECONDS 20u

struct stream {
    uint8_t *bytes;
    size_t size;
};

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static struct stream make_stream(uint64_t seed, unsigned flavour)
{
    uint64_t state = seed;
    size_t records = RECORDS_MIN + next(&state) % (RECORDS_MAX - RECORDS_MIN);
    struct stream stream = {
        .size = PGS_STREAM_HEADER + records * PGS_STREAM_RECORD
    };

    stream.bytes = malloc(stream.size);
    ck_assert_ptr_nonnull(stream.bytes);
    for (size_t i = 0; i < stream.size; i++)
        stream.bytes[i] = (uint8_t)(next(&state) >> 24);
    stream.bytes[0] = (uint8_t)flavour;
    /* half of them without failing allocations and narrow tables */
    if (stream.bytes[4] & 1)
        stream.bytes[1] &= (uint8_t) ~(PGS_STREAM_NO_MEMORY |
                                       PGS_STREAM_NARROW);
    return stream;
}

/* Answers whether library and model agree, and nothing breaks. */
static bool run(const struct stream *stream, bool aloud)
{
    int status = 0;
    pid_t child;

    fflush(stdout);
    fflush(stderr);
    child = fork();
    if (child == 0) {
        signal(SIGALRM, SIG_DFL); /* libcheck has its own idea */
        alarm(STREAM_SECONDS);
        if (!aloud) {
            int null = open("/dev/null", O_WRONLY);

            dup2(null, STDOUT_FILENO);
            dup2(null, STDERR_FILENO);
        }
        pgs_stream_run(stream->bytes, stream->size, aloud);
        exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0)
        continue;
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void leave_out(struct stream *stream, size_t first, size_t n)
{
    size_t at = PGS_STREAM_HEADER + first * PGS_STREAM_RECORD;
    size_t bytes = n * PGS_STREAM_RECORD;

    memmove(stream->bytes + at, stream->bytes + at + bytes,
            stream->size - at - bytes);
    stream->size -= bytes;
}

/* Leaves runs of records out, ever shorter ones, as long as it still fails. */
static void shrink(struct stream *stream)
{
    size_t records = (stream->size - PGS_STREAM_HEADER) / PGS_STREAM_RECORD;
    unsigned runs = 0;

    for (size_t n = records / 2; n && runs < SHRINK_RUNS; n /= 2) {
        for (size_t i = 0; i + n <= records && runs < SHRINK_RUNS; runs++) {
            struct stream less = { malloc(stream->size), stream->size };

            memcpy(less.bytes, stream->bytes, stream->size);
            leave_out(&less, i, n);
            if (run(&less, false)) {
                i += n;
            } else {
                leave_out(stream, i, n);
                records -= n;
            }
            free(less.bytes);
        }
    }
}

/* What was left, for fuzz/corpus. */
static void keep(const struct stream *stream, uint64_t seed)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/tmp/model-%" PRIu64 ".bin", seed);
    file = fopen(path, "wb");
    if (!file)
        return;
    fwrite(stream->bytes, 1, stream->size, file);
    fclose(file);
    printf("stream kept as %s\n", path);
}

static void run_streams(unsigned flavour)
{
    for (uint64_t i = 0; i < STREAMS * pgs_test_scale(); i++) {
        uint64_t seed = pgs_test_seed() * 1000 + flavour * 250 + i;
        struct stream stream = make_stream(seed, flavour);
        bool good = run(&stream, false);

        if (!good) {
            if (!getenv("PGS_TEST_NO_SHRINK"))
                shrink(&stream);
            printf("flavour %u, stream %" PRIu64 " fails; the shortest that "
                   "does:\n", flavour, i);
            keep(&stream, seed);
            run(&stream, true);
        }
        free(stream.bytes);
        ck_assert_msg(good, "flavour %u, stream %" PRIu64
                      "; again with: ./run model %" PRIu64, flavour, i,
                      pgs_test_seed());
    }
}

START_TEST(test_plain)
{
    run_streams(0);
}
END_TEST

START_TEST(test_platform)
{
    run_streams(1);
}
END_TEST

START_TEST(test_linux)
{
    run_streams(2);
}
END_TEST

START_TEST(test_xen)
{
    run_streams(3);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("model");

    tcase_add_test(pgs_tcase(suite, "plain"), test_plain);
    tcase_add_test(pgs_tcase(suite, "platform"), test_platform);
    tcase_add_test(pgs_tcase(suite, "linux"), test_linux);
    tcase_add_test(pgs_tcase(suite, "xen"), test_xen);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("model", make, argc, argv);
}
