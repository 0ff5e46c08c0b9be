/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The story: guests boot from CoW disks over one image, work, lend and repay
 * memory, are forked and cloned. One act after the other; within an act the
 * guests take turns.
 */
#include "story.h"

static const struct {
    const char *title;
    int (*play)(struct demo *demo, const struct plan *plan);
} acts[] = {
    { "guests are created; their free memory is declared", act_create },
    { "the toolstack loads one kernel into all, and shares it", act_kernels },
    { "guests boot from their disks", act_boot },
    { "guests read documents of their own", act_documents },
    { "guests map libraries; one has installed its own copy", act_packages },
    { "programs fill their heaps", act_programs },
    { "memory is freed and allocated again", act_churn },
    { "one pass over the fingerprints of what is left", act_pass },
    { "keys are declared never to be shared", act_secrets },
    { "guests offer volatile pages, and claim bonus pages", act_claim },
    { "guests write, and sharing breaks; volatile pages pay", act_break },
    { "bonus pages are handed back", act_repay },
    { "a guest is forked", act_fork },
    { "a guest is cloned from a snapshot", act_clone },
};

uint32_t number_of(const struct guest *guest)
{
    return (uint32_t)(guest - guest->demo->guests);
}

bool is_unmodified(const struct guest *guest)
{
    return number_of(guest) == guest->demo->options->guests - 1;
}

int in_turns(struct demo *demo, const struct plan *plan, uint64_t steps,
             int (*step)(struct guest *guest, const struct plan *plan,
                         uint64_t at))
{
    uint32_t guests = demo->options->guests;
    int error = 0;

    for (uint64_t at = 0; !error && at < steps; at += TURN)
        for (uint32_t i = 0; !error && i < guests; i++) {
            for (uint64_t j = at; !error && j < steps && j < at + TURN; j++)
                error = step(&demo->guests[i], plan, j);
            if (!error)
                error = demo_tick(demo);
        }
    return error ? error : demo_settle(demo);
}

int story_run(struct demo *demo)
{
    struct plan plan;
    int error;

    error = plan_make(&plan, demo);
    if (!error)
        error = demo_machine(demo, plan.machine);
    for (size_t i = 0; !error && i < sizeof(acts) / sizeof(acts[0]); i++) {
        live_act(demo, "%s", acts[i].title);
        error = acts[i].play(demo, &plan);
    }
    return error;
}
