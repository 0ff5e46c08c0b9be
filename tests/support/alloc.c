/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each block is preceded by a head that remembers its size, and followed by a
 * tail byte, so that free() can compare what it is told and what is there with
 * what was allocated:
 *
 *     base ... padding ... | struct head | bytes | tail
 *                                        ^ aligned as asked
 *
 * Fresh memory is filled with one pattern and freed memory with another, so
 * that a read of either shows; a zeroed block comes from calloc() and its pages
 * stay untouched, since tests make tables of many gigabytes of them. Hence of a
 * large block only the beginning is filled when it is freed.
 */
#include "support/alloc.h"

#include <check.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_LIVE UINT64_C(0x6c6976652d706773)
#define HEAD_DEAD UINT64_C(0x646561642d706773)
#define TAIL 0x5a
#define FRESH 0xa5
#define FREED 0xdd
#define FILLED_MAX 65536u

struct head {
    uint64_t state; /* HEAD_LIVE or HEAD_DEAD */
    size_t bytes;
    void *base; /* what the C library gave */
};

static struct head *head_of(void *ptr)
{
    return (struct head *)ptr - 1;
}

static bool fails(struct pgs_tracker *tracker)
{
    uint64_t call = atomic_fetch_add(&tracker->calls, 1);

    if (call < tracker->fail_first || call >= tracker->fail_last)
        return false;
    atomic_fetch_add(&tracker->failed, 1);
    return true;
}

static void misused(struct pgs_tracker *tracker, const char *how, size_t is,
                    size_t should)
{
    fprintf(stderr, "allocator: %s: %zu, not %zu\n", how, is, should);
    atomic_fetch_add(&tracker->misuses, 1);
}

static void *tracker_alloc(void *ctx, size_t bytes, size_t align,
                           uint32_t flags)
{
    struct pgs_tracker *tracker = ctx;
    bool zero = flags & PGSHARE_ALLOC_ZERO;

    if (bytes == 0)
        misused(tracker, "asked for a size of", 0, 1);
    if (align < 8 || (align & (align - 1)) != 0)
        misused(tracker, "asked for an alignment of", align, 8);
    if (flags & PGSHARE_ALLOC_DENSE)
        atomic_fetch_add(&tracker->dense, 1);
    if (fails(tracker))
        return NULL;

    size_t extra = sizeof(struct head) + align + 1;
    if (bytes > SIZE_MAX - extra)
        return NULL;
    char *base = zero ? calloc(1, bytes + extra) : malloc(bytes + extra);
    if (!base)
        return NULL;

    uintptr_t first = (uintptr_t)base + sizeof(struct head);
    char *ptr = base + sizeof(struct head) + (-first & (align - 1));
    if (!zero)
        memset(ptr, FRESH, bytes);
    ptr[bytes] = TAIL;
    *head_of(ptr) = (struct head){ HEAD_LIVE, bytes, base };

    atomic_fetch_add(&tracker->live_blocks, 1);
    atomic_fetch_add(&tracker->live_bytes, bytes);
    return ptr;
}

static void tracker_free(void *ctx, void *ptr, size_t bytes)
{
    struct pgs_tracker *tracker = ctx;
    struct head *head;

    if (!ptr) {
        misused(tracker, "freed NULL with a size of", bytes, 0);
        return;
    }
    head = head_of(ptr);
    if (head->state != HEAD_LIVE) {
        misused(tracker, "freed twice, or never allocated; size", bytes, 0);
        return;
    }
    if (bytes != head->bytes)
        misused(tracker, "freed with the wrong size", bytes, head->bytes);
    if (((unsigned char *)ptr)[head->bytes] != TAIL)
        misused(tracker, "written past the end of a block of", bytes, bytes);

    atomic_fetch_sub(&tracker->live_blocks, 1);
    atomic_fetch_sub(&tracker->live_bytes, head->bytes);
    head->state = HEAD_DEAD;
    memset(ptr, FREED, head->bytes < FILLED_MAX ? head->bytes : FILLED_MAX);
    free(head->base);
}

void pgs_tracker_init(struct pgs_tracker *tracker)
{
    *tracker = (struct pgs_tracker){
        .allocator = {
            .size = sizeof(tracker->allocator),
            .ctx = tracker,
            .alloc = tracker_alloc,
            .free = tracker_free,
        },
    };
}

static void fail_between(struct pgs_tracker *tracker, uint64_t first,
                         uint64_t last)
{
    atomic_store(&tracker->calls, 0);
    atomic_store(&tracker->failed, 0);
    tracker->fail_first = first;
    tracker->fail_last = last;
}

void pgs_tracker_fail_never(struct pgs_tracker *tracker)
{
    fail_between(tracker, 0, 0);
}

void pgs_tracker_fail_once(struct pgs_tracker *tracker, uint64_t i)
{
    fail_between(tracker, i, i + 1);
}

void pgs_tracker_fail_from(struct pgs_tracker *tracker, uint64_t i)
{
    fail_between(tracker, i, UINT64_MAX);
}

bool pgs_tracker_has_failed(struct pgs_tracker *tracker)
{
    return atomic_load(&tracker->failed) > 0;
}

void pgs_tracker_assert_empty(struct pgs_tracker *tracker)
{
    uint64_t blocks = atomic_load(&tracker->live_blocks);
    uint64_t bytes = atomic_load(&tracker->live_bytes);
    uint64_t misuses = atomic_load(&tracker->misuses);

    ck_assert_msg(blocks == 0,
                  "%" PRIu64 " blocks of %" PRIu64 " bytes were not freed",
                  blocks, bytes);
    ck_assert_msg(misuses == 0, "%" PRIu64 " misuses of the allocator",
                  misuses);
}
