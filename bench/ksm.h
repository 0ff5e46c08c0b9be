/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux KSM as a yardstick: at full speed, from a first scan on. Needs root, and
 * a kernel that has it.
 */
#ifndef PGS_BENCH_KSM_H
#define PGS_BENCH_KSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False: there is none here. Else its settings, noted by this, are restored by
 * pgs_ksm_close(), or when the process ends. One at a time. */
bool pgs_ksm_open(void);
void pgs_ksm_close(void);

/* What was merged is taken apart, and it stands still; the next scan is a first
 * one. False: it did not. */
bool pgs_ksm_stop(void);
/* It scans as fast as it can. */
bool pgs_ksm_start(void);

/* It stands still, and what it merged stays so. */
bool pgs_ksm_rest(void);

/* A counter in its directory. */
uint64_t pgs_ksm_count(const char *name);

/* Waits until the counter has reached `least`; answers the nanoseconds that
 * went by, 0: it took more than a minute. */
uint64_t pgs_ksm_await(const char *name, uint64_t least);

/* CPU time that its thread has used so far, in nanoseconds. */
uint64_t pgs_ksm_cpu(void);

/* Memory that it may merge: pages with the content of content[i]
 * (pgs_content_fill()), or of i. */
unsigned char *pgs_ksm_memory_new(const uint32_t *content, uint32_t pages);
void pgs_ksm_memory_free(unsigned char *memory, uint32_t pages);

#endif
