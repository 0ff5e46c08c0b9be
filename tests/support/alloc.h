/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An allocator object that keeps books, finds fault and fails on demand.
 *
 *     struct pgs_tracker tracker;
 *     pgs_tracker_init(&tracker);
 *     options.allocator = &tracker.allocator;
 *     ...
 *     pgs_tracker_assert_empty(&tracker);
 *
 * A failure sweep runs one scenario with each of its allocations failing:
 *
 *     uint64_t i = 0;
 *     do {
 *         pgs_tracker_fail_once(&tracker, i++);
 *         scenario(&tracker.allocator);
 *         pgs_tracker_assert_empty(&tracker);
 *     } while (pgs_tracker_has_failed(&tracker));
 */
#ifndef PGS_TESTS_SUPPORT_ALLOC_H
#define PGS_TESTS_SUPPORT_ALLOC_H

#include <pgshare/sys/allocator.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Counters are atomic, so that any thread may allocate; init, the fail_*
 * functions and assert_empty are for a moment when no other thread does.
 */
struct pgs_tracker {
    struct pgshare_allocator allocator; /* hand this to the library */

    _Atomic uint64_t calls;       /* allocations asked for since fail_*() */
    _Atomic uint64_t failed;      /* of these, made to fail */
    _Atomic uint64_t live_blocks; /* allocated and not yet freed */
    _Atomic uint64_t live_bytes;
    _Atomic uint64_t misuses; /* wrong size, double free, overrun */
    _Atomic uint64_t dense;   /* calls with PGSHARE_ALLOC_DENSE, ever */

    uint64_t fail_first; /* calls in [first, last) fail */
    uint64_t fail_last;
};

void pgs_tracker_init(struct pgs_tracker *tracker);

/* Restart the count of calls; from now on nothing fails. */
void pgs_tracker_fail_never(struct pgs_tracker *tracker);

/* Restart the count of calls; call number `i`, counted from 0, fails. */
void pgs_tracker_fail_once(struct pgs_tracker *tracker, uint64_t i);

/* Restart the count of calls; number `i` and all that follow fail. */
void pgs_tracker_fail_from(struct pgs_tracker *tracker, uint64_t i);

/* Did a call fail since the last fail_*()? */
bool pgs_tracker_has_failed(struct pgs_tracker *tracker);

/* Fail the running test if a block is live or was misused. */
void pgs_tracker_assert_empty(struct pgs_tracker *tracker);

#endif
