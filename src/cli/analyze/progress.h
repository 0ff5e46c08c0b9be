/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PGSHARE_CLI_PROGRESS_H
#define PGSHARE_CLI_PROGRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A line on a terminal that tells how far we are. */
struct progress {
    FILE *terminal; /* NULL: there is none, nothing is shown */
    uint64_t begin_ns;
    _Atomic uint64_t due_ns;
    atomic_bool shown;
};

/* On stderr, or stdout if only that is a terminal and `stdout_too`. */
void progress_begin(struct progress *progress, bool stdout_too);

/* So many bytes of so many (0: unknown) are done. From any thread. */
void progress_tick(struct progress *progress, uint64_t done, uint64_t total);

/* What is done now, when it is not reading. */
void progress_say(struct progress *progress, const char *what);

/* The line goes. */
void progress_clear(struct progress *progress);

#endif
