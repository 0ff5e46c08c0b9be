/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `pgshare analyze`: how much could be shared in these RAM images?
 *
 *     command.c    from beginning to end
 *     options.c    the command line
 *     engine/      the counting (engine/analysis.h says how)
 *     progress.c   a line on the terminal while it goes on
 *     table.c, json.c, report.c
 *                  what came of it;  page/ is what the report looks like
 */
#include "../command.h"

#include "engine/analysis.h"
#include "options.h"
#include "output.h"
#include "progress.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void on_progress(void *ctx, uint64_t done, uint64_t total)
{
    progress_tick(ctx, done, total);
}

static void on_complaint(void *ctx, const char *text)
{
    progress_clear(ctx);
    fprintf(stderr, "pgshare: %s\n", text);
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) +
           (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static bool print(const struct outcome *outcome)
{
    if (!outcome->options->json)
        analysis_table(outcome);
    else if (!analysis_print_json(outcome))
        return !fprintf(stderr, "pgshare: %s\n", strerror(ENOMEM));
    return !outcome->options->report || analysis_report(outcome);
}

static bool analyze(struct analysis *analysis,
                    const struct analyze_options *options,
                    struct progress *progress)
{
    const struct analysis_options how = {
        .page_size = options->page_size,
        .threads = options->threads,
        .progress = on_progress,
        .complain = on_complaint,
        .ctx = progress,
    };
    struct outcome outcome = { .options = options, .analysis = analysis };
    struct timespec start;
    bool good;

    clock_gettime(CLOCK_MONOTONIC, &start);
    good = analysis_open(analysis, &how, options->images, options->n_images) &&
           analysis_read(analysis);
    if (good) {
        progress_say(progress, "counting");
        good = analysis_count(analysis);
    }
    progress_clear(progress);
    outcome.seconds = seconds_since(&start);
    return good && print(&outcome);
}

static int run(int argc, char **argv)
{
    struct analyze_options options;
    struct analysis analysis;
    struct progress progress = { 0 };
    bool good;

    analyze_options_parse(argc, argv, &options);
    if (options.progress)
        progress_begin(&progress, !options.json);
    good = !options.report || report_is_possible(options.report);
    if (good) {
        good = analyze(&analysis, &options, &progress);
        analysis_close(&analysis);
    }
    analyze_options_fini(&options);
    return good ? STATUS_OK : STATUS_WRONG;
}

const struct command analyze_command = {
    .name = "analyze",
    .summary = "tell how much could be shared in RAM images",
    .run = run,
};
