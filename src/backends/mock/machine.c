/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine as a whole: its making and end, its clock and chance, and what
 * it has to say.
 *
 * A deterministic machine takes time from its own counter, which only polls
 * and tests advance, and all chance from one seed: splitmix64, whose state is
 * a counter, so that threads may draw without a lock.
 *
 * A violation is a rule of sys/backend.h that the library broke. It is told
 * where it is found, so that a debugger stands there; it never stops the run.
 */
#include "machine.h"

#include "base/abi.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_FRAMES 65536u
#define DEFAULT_POLL_NS 10000u
#define DEFAULT_ZEROED 256u
#define DEFAULT_DELAY_POLLS 4u
#define DEFAULT_TIMEOUT_NS UINT64_C(1000000000)
#define ALL_FLAGS                                         \
    (PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID | \
     PGSHARE_MOCK_CHANGE_LOG | PGSHARE_MOCK_HUGE | PGSHARE_MOCK_STEPS)
#define MILLION 1000000u

void pgs_mock_violate(struct pgshare_mock_machine *machine, const char *format,
                      ...)
{
    uint64_t index = atomic_fetch_add(&machine->violations, 1);
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (index < PGSHARE_MOCK_VIOLATIONS_KEPT) {
        pthread_mutex_lock(&machine->hook_lock);
        machine->texts[index] = strdup(text);
        pthread_mutex_unlock(&machine->hook_lock);
    }
    if (machine->options.violation)
        machine->options.violation(machine->options.ctx, text);
}

uint64_t pgs_mock_random(struct pgshare_mock_machine *machine)
{
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = atomic_fetch_add_explicit(&machine->random, golden,
                                           memory_order_relaxed) +
                 golden;

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

bool pgs_mock_chance(struct pgshare_mock_machine *machine, uint32_t ppm)
{
    return ppm && pgs_mock_random(machine) % MILLION < ppm;
}

static uint64_t platform_now(void *ctx)
{
    struct pgshare_mock_machine *machine = ctx;

    return atomic_load(&machine->now);
}

static int platform_random(void *ctx, void *buf, size_t len)
{
    unsigned char *bytes = buf;

    for (size_t done = 0; done < len; done += sizeof(uint64_t)) {
        uint64_t x = pgs_mock_random(ctx);
        size_t part = len - done < sizeof(x) ? len - done : sizeof(x);

        memcpy(bytes + done, &x, part);
    }
    return 0;
}

static uint32_t platform_pressure(void *ctx)
{
    struct pgshare_mock_machine *machine = ctx;

    return atomic_load(&machine->pressure);
}

static void set_defaults(struct pgshare_mock_machine *machine)
{
    struct pgshare_mock_options *options = &machine->options;

    machine->deterministic = options->flags & PGSHARE_MOCK_DETERMINISTIC;
    machine->stepping = options->flags & PGSHARE_MOCK_STEPS;
    machine->platform_cow = options->flavour != PGSHARE_MOCK_PLAIN;
    if (!options->frames)
        options->frames = DEFAULT_FRAMES;
    if (!options->seed)
        options->seed = 1;
    if (!options->poll_ns)
        options->poll_ns = DEFAULT_POLL_NS;
    if (!options->zeroed)
        options->zeroed = DEFAULT_ZEROED;
    if (!options->extent_max)
        options->extent_max = PGSHARE_EXTENT_MAX;
    if (!options->fault_timeout_ns && !machine->deterministic)
        options->fault_timeout_ns = DEFAULT_TIMEOUT_NS;
    if (!options->chaos.delay_polls)
        options->chaos.delay_polls = DEFAULT_DELAY_POLLS;
    machine->frames = options->frames;
    machine->random = options->seed * UINT64_C(0xd1342543de82ef95);
    machine->now = UINT64_C(1000000000);
}

static bool options_are_valid(const struct pgshare_mock_options *options)
{
    return options->flavour <= PGSHARE_MOCK_XEN &&
           !(options->flags & ~(uint32_t)ALL_FLAGS) &&
           options->frames <= (uint64_t)1 << 40 &&
           options->extent_max <= PGSHARE_EXTENT_MAX &&
           options->zeroed <= FRAMES_MAX;
}

static int machine_init(struct pgshare_mock_machine *machine)
{
    machine->backend.ops = &pgs_mock_ops;
    machine->platform.size = sizeof(machine->platform);
    machine->platform.ctx = machine;
    machine->platform.pressure = platform_pressure;
    if (machine->deterministic) {
        machine->platform.now_ns = platform_now;
        machine->platform.random = platform_random;
    }
    if (pthread_mutex_init(&machine->pending_lock, NULL) ||
        pthread_mutex_init(&machine->hook_lock, NULL))
        return PGSHARE_ERR_NOMEM;
    machine->slots = calloc(DOMAINS_MAX, sizeof(*machine->slots));
    machine->generations = calloc(DOMAINS_MAX, sizeof(*machine->generations));
    if (!machine->slots || !machine->generations)
        return PGSHARE_ERR_NOMEM;
    return pgs_mock_frames_init(machine);
}

int pgshare_mock_machine_new(const struct pgshare_mock_options *options,
                             struct pgshare_mock_machine **ret_machine)
{
    struct pgshare_mock_options ours = { 0 };
    struct pgshare_mock_machine *machine;
    int error;

    if (!ret_machine)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (error)
        return error;
    if (!options_are_valid(&ours))
        return PGSHARE_ERR_INVALID;
    if (posix_memalign((void **)&machine, _Alignof(struct pgshare_mock_machine),
                       sizeof(*machine)))
        return PGSHARE_ERR_NOMEM;
    memset(machine, 0, sizeof(*machine));
    machine->options = ours;
    set_defaults(machine);
    error = machine_init(machine);
    if (error) {
        pgshare_mock_machine_free(machine);
        return error;
    }
    pgshare_mock_chaos_set(machine, &machine->options.chaos);
    *ret_machine = machine;
    return 0;
}

struct pgshare_mock_machine *pgshare_mock_machine_free(
    struct pgshare_mock_machine *machine)
{
    if (!machine)
        return NULL;
    for (uint32_t i = 0; i < machine->slots_used; i++)
        pgshare_mock_domain_free(machine->slots[i]);
    pgs_mock_disks_free(machine);
    pgs_mock_pending_forget(machine, NULL);
    pgs_mock_frames_fini(machine);
    for (unsigned i = 0; i < PGSHARE_MOCK_VIOLATIONS_KEPT; i++)
        free(machine->texts[i]);
    pthread_mutex_destroy(&machine->pending_lock);
    pthread_mutex_destroy(&machine->hook_lock);
    free(machine->slots);
    free(machine->generations);
    free(machine);
    return NULL;
}

struct pgshare_backend *pgshare_mock_backend(
    struct pgshare_mock_machine *machine)
{
    return machine ? &machine->backend : NULL;
}

const struct pgshare_platform *pgshare_mock_platform(
    struct pgshare_mock_machine *machine)
{
    return machine ? &machine->platform : NULL;
}

const char *pgshare_mock_violation(struct pgshare_mock_machine *machine,
                                   uint64_t index)
{
    const char *text = NULL;

    if (!machine || index >= PGSHARE_MOCK_VIOLATIONS_KEPT)
        return NULL;
    pthread_mutex_lock(&machine->hook_lock);
    text = machine->texts[index];
    pthread_mutex_unlock(&machine->hook_lock);
    return text;
}

void pgshare_mock_pressure_set(struct pgshare_mock_machine *machine,
                               uint32_t percent)
{
    if (machine)
        atomic_store(&machine->pressure, percent);
}

void pgshare_mock_clock_advance(struct pgshare_mock_machine *machine,
                                uint64_t ns)
{
    if (machine)
        atomic_fetch_add(&machine->now, ns);
}

uint64_t pgshare_mock_random(struct pgshare_mock_machine *machine)
{
    return machine ? pgs_mock_random(machine) : 0;
}
