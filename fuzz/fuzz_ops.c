/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operation stream of the model test, with a fuzzer's bytes: all of the
 * public API on the mock machine, against the naive model.
 */
#include "fuzz.h"

#include "../tests/model/ops.h"

/* Longer streams find nothing that several short ones do not. */
#define SIZE_MAX_USEFUL (PGS_STREAM_HEADER + 400u * PGS_STREAM_RECORD)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > SIZE_MAX_USEFUL)
        size = SIZE_MAX_USEFUL;
    pgs_stream_run(data, size, false);
    return 0;
}
