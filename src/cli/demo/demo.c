/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `pgshare demo`: the library at work on a mock machine, with real content.
 *
 * The same seed gives the same run: the machine has a virtual clock and seeded
 * randomness, and everything happens in one thread. What is measured in real
 * time is told apart in the output.
 */
#include "demo.h"

#include "../command.h"
#include "allocator.h"
#include "figures.h"
#include "options.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int complain(int error, const char *format, ...)
{
    va_list args;

    fputs("pgshare: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, ": %s\n", pgshare_error_text(error));
    return error;
}

static void on_report(void *ctx, const struct pgshare_report *report)
{
    struct demo *demo = ctx;

    if (report->kind < REPORTS_MAX)
        demo->reports[report->kind]++;
}

static void on_violation(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "pgshare: a rule was broken: %s\n", text);
}

int demo_machine(struct demo *demo, uint64_t pages)
{
    struct pgshare_mock_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID,
        .frames = pages,
        .seed = demo->options->seed,
        .violation = on_violation,
    };
    struct pgshare_host_options host = {
        .size = sizeof(host),
        .report = on_report,
        .ctx = demo,
    };
    int error = pgshare_mock_machine_new(&options, &demo->machine);

    if (!error)
        error = demo_allocator_new(&demo->arena);
    if (!error) {
        host.allocator = demo_allocator(demo->arena);
        host.platform = pgshare_mock_platform(demo->machine);
        error = pgshare_host_new(pgshare_mock_backend(demo->machine), &host,
                                 &demo->host);
    }
    if (!error)
        error = pgshare_group_open(demo->host, "demo", &demo->group);
    return error ? complain(error, "making the machine") : 0;
}

int demo_guest_add(struct demo *demo, const char *name, uint64_t gfns,
                   const struct pgshare_mock_domain_options *options,
                   struct guest **ret_guest)
{
    struct guest *guest = &demo->guests[demo->n_guests];
    int error;

    memset(guest, 0, sizeof(*guest));
    guest->demo = demo;
    snprintf(guest->name, sizeof(guest->name), "%s", name);
    guest->rng = demo->options->seed * 1000003 + demo->n_guests;
    error = shadow_init(&guest->shadow, gfns);
    if (error)
        return complain(error, "%s", name);
    shadow_set(&guest->shadow, 0, gfns, SHADOW_HOLE);
    error = pgshare_mock_domain_new(demo->machine, gfns, options,
                                    &guest->domain);
    if (!error)
        error = pgshare_mock_join(guest->domain, demo->host, demo->group);
    if (error) {
        pgshare_mock_domain_free(guest->domain);
        shadow_fini(&guest->shadow);
        return complain(error, "adding %s", name);
    }
    guest->dom = pgshare_mock_handle(guest->domain);
    demo->n_guests++;
    *ret_guest = guest;
    return 0;
}

int demo_guest_remove(struct demo *demo, struct guest *guest)
{
    int error;

    shadow_check(&guest->shadow, guest->domain, &demo->content_verdict);
    guest_fini(guest);
    error = pgshare_mock_leave(guest->domain);
    if (error == PGSHARE_ERR_INPROGRESS) /* the runner ends it */
        error = demo_settle(demo);
    if (error)
        return complain(error, "removing %s", guest->name);
    guest->domain = pgshare_mock_domain_free(guest->domain);
    shadow_fini(&guest->shadow);
    return 0;
}

static int note_savings(struct demo *demo)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    int error = pgshare_host_stats(demo->host, &stats);

    if (!error && stats.saved > demo->most_saved)
        demo->most_saved = stats.saved;
    if (!error && stats.claimed > demo->most_claimed)
        demo->most_claimed = stats.claimed;
    return error;
}

int demo_tick(struct demo *demo)
{
    int error = pgshare_host_run(demo->host, NULL, NULL);

    if (!error)
        error = note_savings(demo);
    if (error)
        return complain(error, "running the host");
    live_tick(demo);
    return 0;
}

int demo_settle(struct demo *demo)
{
    struct pgshare_progress progress = { .size = sizeof(progress) };
    int error;

    do {
        error = pgshare_host_run(demo->host, NULL, &progress);
        if (!error)
            error = note_savings(demo);
        live_tick(demo);
    } while (!error && progress.more);
    return error ? complain(error, "running the host") : 0;
}

/* Whatever was made so far, in the opposite order. */
static void demo_fini(struct demo *demo)
{
    for (uint32_t i = 0; i < demo->n_guests; i++) {
        struct guest *guest = &demo->guests[i];

        if (guest->domain)
            guest_fini(guest);
        shadow_fini(&guest->shadow);
    }
    pgshare_host_free(demo->host);
    pgshare_mock_machine_free(demo->machine);
    demo_allocator_free(demo->arena);
    content_fini(&demo->content);
    for (uint32_t i = 0; i < demo->options->n_images; i++)
        image_close(&demo->images[i]);
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) +
           (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static int demo_run(struct demo *demo)
{
    struct figures figures = { .demo = demo };
    struct timespec start;
    int error;

    clock_gettime(CLOCK_MONOTONIC, &start);
    if (ram_open(demo))
        return STATUS_USAGE;
    error = demo->options->images ? ram_run(demo) : story_run(demo);
    live_act(demo, "every byte of every guest is compared");
    if (!error)
        error = figures_collect(&figures);
    live_end(demo);
    if (error)
        return STATUS_WRONG;
    figures.seconds = seconds_since(&start);
    if (demo->options->json)
        error = figures_json(&figures);
    else
        figures_table(&figures);
    return error || !figures_good(&figures) ? STATUS_WRONG : STATUS_OK;
}

/* The live view leaves the cursor below itself and no mode behind, so there is
 * nothing to restore; but a demo that ends early should say so. */
static void interrupted(int signal)
{
    static const char text[] = "\npgshare: interrupted\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

    (void)ignored;
    raise(signal); /* whoever started us sees it, too: SA_RESETHAND */
}

static void announce_interrupts(void)
{
    const struct sigaction action = { .sa_handler = interrupted,
                                      .sa_flags = (int)SA_RESETHAND };
    static const int signals[] = { SIGINT, SIGTERM };
    struct sigaction before;

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (!sigaction(signals[i], NULL, &before) &&
            before.sa_handler == SIG_DFL)
            sigaction(signals[i], &action, NULL);
}

static int run(int argc, char **argv)
{
    struct demo_options options;
    struct demo *demo;
    int status;

    demo_options_parse(argc, argv, &options);
    demo = calloc(1, sizeof(*demo));
    if (!demo) {
        complain(PGSHARE_ERR_NOMEM, "demo");
        return STATUS_WRONG;
    }
    demo->options = &options;
    demo->live.on = options.live;
    announce_interrupts();
    status = demo_run(demo);
    demo_fini(demo);
    free(demo);
    return status;
}

const struct command demo_command = {
    .name = "demo",
    .summary = "share pages between the guests of a mock machine",
    .run = run,
};
