/* SPDX-License-Identifier: BSD-2-Clause */
/* What each fuzz_NAME.c defines: libFuzzer's entry point. */
#ifndef PGS_FUZZ_FUZZ_H
#define PGS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Run one input; returns 0. Breaks off (abort) when a property is violated. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
