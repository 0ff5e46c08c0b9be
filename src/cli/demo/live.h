/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The view of a running demo, for a terminal: one bar for each guest, drawn
 * over the last one.
 */
#ifndef PGSHARE_CLI_LIVE_H
#define PGSHARE_CLI_LIVE_H

#include <stdbool.h>
#include <stdint.h>

struct demo;

struct live {
    bool on;
    uint32_t lines;  /* that the last view took */
    uint64_t due_ns; /* when the next one is to be drawn */
    char act[72];    /* what is going on */
};

/* Names what happens next; seen in the view only. */
void live_act(struct demo *demo, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Draws the view if it is time to. While there is a view the demo is slowed
 * down to what a person can follow. */
void live_tick(struct demo *demo);

/* Takes the view away. */
void live_end(struct demo *demo);

#endif
