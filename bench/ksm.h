/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux KSM as a yardstick for scanning.
 */
#ifndef PGS_BENCH_KSM_H
#define PGS_BENCH_KSM_H

#include "bench.h"

/*
 * Adds the figure again, beside KSM's rate over as many distinct pages. As root
 * on a kernel that has KSM, else there is a note. KSM's settings are restored,
 * by a process that outlives this one however it ends.
 */
void pgs_bench_ksm(struct pgs_bench *bench, const struct pgs_figure *ours,
                   uint32_t pages);

#endif
