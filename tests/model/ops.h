/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes as operations: the language of the model test and of fuzz_ops.
 *
 * A stream is a header, which says what the machine is like, and records of
 * eight bytes, each one operation: any bytes mean something, so that a fuzzer
 * may change them and a shrinking test may leave records out.
 *
 *     header  flavour, options, chaos, operations left out, seed (2), extents,
 *             reserve
 *     record  operation, domain, GFN, count, four arguments
 */
#ifndef PGS_TESTS_MODEL_OPS_H
#define PGS_TESTS_MODEL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PGS_STREAM_HEADER 8u
#define PGS_STREAM_RECORD 8u

/* Bits of the header's second byte. */
enum pgs_stream_option {
    PGS_STREAM_STEPS = 1 << 0,       /* guests act between pages, too */
    PGS_STREAM_CHANGE_LOG = 1 << 1,
    PGS_STREAM_BORDER = 1 << 2,      /* memory lies across two chunks */
    PGS_STREAM_LITTLE = 1 << 3,      /* of memory: hardly enough for all */
    PGS_STREAM_GUESTS = 1 << 4,      /* guests act between the steps */
    PGS_STREAM_NO_MEMORY = 1 << 5,   /* some allocations fail */
    PGS_STREAM_NARROW = 1 << 6,      /* small tables */
    PGS_STREAM_GIVE_BACK = 1 << 7    /* keep nothing in the reserve */
};

/*
 * Runs a stream against library and model. Returns if they agreed to the end;
 * else says on stderr how they differ, and what came last, and aborts.
 * `trace`: tell each operation before it is done.
 */
void pgs_stream_run(const uint8_t *bytes, size_t size, bool trace);

#endif
