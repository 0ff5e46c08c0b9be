/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The acts of the story, in their order. Each answers 0, or an error that it
 * has complained of.
 */
#ifndef PGSHARE_CLI_STORY_H
#define PGSHARE_CLI_STORY_H

#include "plan.h"

/* acts_boot.c */
int act_create(struct demo *demo, const struct plan *plan);
int act_kernels(struct demo *demo, const struct plan *plan);
int act_boot(struct demo *demo, const struct plan *plan);
int act_documents(struct demo *demo, const struct plan *plan);
int act_packages(struct demo *demo, const struct plan *plan);

/* acts_work.c */
int act_programs(struct demo *demo, const struct plan *plan);
int act_churn(struct demo *demo, const struct plan *plan);
int act_pass(struct demo *demo, const struct plan *plan);
int act_secrets(struct demo *demo, const struct plan *plan);

/* acts_bonus.c */
int act_claim(struct demo *demo, const struct plan *plan);
int act_break(struct demo *demo, const struct plan *plan);
int act_repay(struct demo *demo, const struct plan *plan);

/* acts_fork.c */
int act_fork(struct demo *demo, const struct plan *plan);
int act_clone(struct demo *demo, const struct plan *plan);

/* Guests work in turns of so many pages or blocks. */
#define TURN 32u

/*
 * Lets each of the first `options->guests` guests do `steps` steps of its own,
 * in turns; the host runs in between.
 */
int in_turns(struct demo *demo, const struct plan *plan, uint64_t steps,
             int (*step)(struct guest *guest, const struct plan *plan,
                         uint64_t at));

/* The guest's number. */
uint32_t number_of(const struct guest *guest);

/* The last guest is one that knows nothing of the library. */
bool is_unmodified(const struct guest *guest);

#endif
