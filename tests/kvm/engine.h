/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ways to have a disk's blocks read into pages while one does other things.
 */
#ifndef PGS_TESTS_KVM_ENGINE_H
#define PGS_TESTS_KVM_ENGINE_H

#include <pthread.h>
#include <stdint.h>

#define READINGS 16u /* at a time */
#define READERS 4u

/* A block, and the page that it is read into. */
struct reading {
    uint64_t gfn;
    uint64_t block;
    void *at;
};

struct engine;

/* The state of one, whichever it is. */
struct reader {
    const struct engine *engine;
    int disk;
    struct reading *readings; /* [READINGS], under way */
    unsigned long aio;        /* Linux AIO's context */
    struct uring *uring;
    pthread_t threads[READERS];
};

struct engine {
    const char *name;
    int (*open)(struct reader *reader); /* -1: not here */
    void (*submit)(struct reader *reader);
    void (*await)(struct reader *reader);
    void (*close)(struct reader *reader);
};

extern const struct engine engine_aio, engine_uring, engine_pread;

/* -1: not here. */
int reader_open(struct reader *reader, const struct engine *engine, int disk);
void reader_submit(struct reader *reader, struct reading *readings);
/* All of it has been read. */
void reader_await(struct reader *reader);
void reader_close(struct reader *reader);

#endif
