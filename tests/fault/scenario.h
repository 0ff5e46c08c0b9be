/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A little of everything that the library does, with any of it failing.
 */
#ifndef PGS_TESTS_FAULT_SCENARIO_H
#define PGS_TESTS_FAULT_SCENARIO_H

#include "contract/rig.h"

/*
 * Runs on a fresh rig of the machine. `arm` is called when the rig is there
 * and before the host is made, `begin` when host and domains are (or NULL);
 * `calm` ends the failures. Then everything must be legal: every byte as it
 * was written, no rule broken, a clean audit, nothing leaked.
 */
struct failure {
    void (*begin)(struct rig *rig, void *ctx);
    void (*calm)(struct rig *rig, void *ctx);
    void *ctx;
};

void scenario_run(int machine, const struct failure *failure);

#endif
