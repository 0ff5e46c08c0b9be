/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How the guests of the story use their memory, and what their disk image is
 * made of. All counts are pages, and blocks of the image.
 *
 *     GFN  0 … text      a kernel, loaded by the toolstack, read-only
 *          … zone        keys: never to be shared
 *          … pages       what the guest's kernel manages: page cache, programs
 *          … gfns        room for bonus pages
 */
#ifndef PGSHARE_CLI_PLAN_H
#define PGSHARE_CLI_PLAN_H

#include "demo.h"

struct plan {
    uint64_t pages;
    uint64_t gfns;
    uint64_t text;
    uint64_t zone;
    uint64_t system;    /* blocks of libraries and programs that all read */
    uint64_t documents; /* blocks that one guest alone reads */
    uint64_t installed; /* blocks of a library installed by one guest */
    uint64_t heap;      /* pages of its programs' own */
    uint64_t service;   /* pages of the service domain */
    uint64_t machine;   /* of the whole machine */
};

/* Makes the plan, and collects the content that it asks for. */
int plan_make(struct plan *plan, struct demo *demo);

#endif
