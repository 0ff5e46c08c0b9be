/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that all do the same until there is no more of it. The caller is one
 * of them, so that work gets done even where none can be started.
 */
#include "analysis.h"

#include <pthread.h>
#include <stdlib.h>

struct worker {
    pthread_t id;
    unsigned number;
    void (*work)(void *ctx, unsigned thread);
    void *ctx;
};

static void *start(void *data)
{
    struct worker *worker = data;

    worker->work(worker->ctx, worker->number);
    return NULL;
}

void threads_run(unsigned n, void (*work)(void *ctx, unsigned thread),
                 void *ctx)
{
    struct worker *workers = n > 1 ? calloc(n, sizeof(*workers)) : NULL;
    unsigned started = 1;

    for (; workers && started < n; started++) {
        struct worker *worker = &workers[started];

        *worker = (struct worker){ .number = started,
                                   .work = work,
                                   .ctx = ctx };
        if (pthread_create(&worker->id, NULL, start, worker))
            break;
    }
    work(ctx, 0);
    for (unsigned i = 1; workers && i < started; i++)
        pthread_join(workers[i].id, NULL);
    free(workers);
}
