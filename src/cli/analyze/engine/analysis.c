/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From images to tallies: open all, read all, count.
 *
 * Counting begins with the contents' numbers (contents.c). All that follows,
 * blocks and the extents of all images and of each alone, depends on nothing
 * else and is done by the threads side by side.
 */
#include "analysis.h"

#include "input.h"
#include "read.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

bool analysis_fail(struct analysis *analysis, const char *format, ...)
{
    const struct analysis_options *options = analysis->options;
    char text[1024];
    va_list args;

    if (atomic_exchange(&analysis->failed, true) && !analysis->opening)
        return false;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (options->complain)
        options->complain(options->ctx, text);
    return false;
}

void analysis_advance(struct analysis *analysis, uint64_t bytes)
{
    const struct analysis_options *options = analysis->options;
    uint64_t done = atomic_fetch_add(&analysis->done, bytes) + bytes;

    if (options->progress)
        options->progress(options->ctx, done, analysis->total);
}

/* ---- opening ---------------------------------------------------------------- */

static bool make_secrets(struct analysis *analysis, uint32_t groups)
{
    unsigned char *bytes;

    analysis->secrets = calloc(groups, sizeof(*analysis->secrets));
    if (!analysis->secrets)
        return analysis_fail(analysis, "%s", strerror(ENOMEM));
    for (uint32_t i = 0; i < groups; i++) {
        bytes = analysis->secrets[i].bytes;
        if (getrandom(bytes, sizeof(analysis->secrets[i].bytes), 0) < 0)
            return analysis_fail(analysis, "no randomness: %s",
                                 strerror(errno));
    }
    return true;
}

/* All images that are wrong are told, not only the first. */
static bool open_all(struct analysis *analysis)
{
    bool good = true;
    bool measured = true;

    analysis->opening = true;
    for (uint32_t i = 0; i < analysis->n_inputs; i++) {
        struct input *input = &analysis->inputs[i];

        good = input_open(input) && good;
        measured = measured && input->size;
        analysis->total += input->size;
    }
    analysis->opening = false;
    if (!measured)
        analysis->total = 0;
    return good;
}

bool analysis_open(struct analysis *analysis,
                   const struct analysis_options *options,
                   const struct analysis_image *images, uint32_t n_images)
{
    uint32_t groups = 0;

    memset(analysis, 0, sizeof(*analysis));
    analysis->options = options;
    analysis->inputs = calloc(n_images, sizeof(*analysis->inputs));
    if (!analysis->inputs)
        return analysis_fail(analysis, "%s", strerror(ENOMEM));
    for (uint32_t i = 0; i < n_images; i++) {
        struct input *input = &analysis->inputs[i];

        input->analysis = analysis;
        input->name = images[i].name;
        input->group = images[i].group;
        input->fd = -1;
        groups = images[i].group < groups ? groups : images[i].group + 1;
    }
    analysis->n_inputs = n_images;
    return make_secrets(analysis, groups) && open_all(analysis);
}

/* ---- reading ---------------------------------------------------------------- */

/* From here on chunks have one number, whatever their image. */
static bool join_chunks(struct analysis *analysis)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < analysis->n_inputs; i++)
        n += analysis->inputs[i].n_chunks;
    if (n > CHUNKS_MAX)
        return analysis_fail(analysis,
                             "the images have more than %llu pages "
                             "in all",
                             (unsigned long long)CHUNKS_MAX * CHUNK);
    analysis->fingerprints = calloc(n, sizeof(*analysis->fingerprints));
    analysis->values = calloc(n, sizeof(*analysis->values));
    if (!analysis->fingerprints || !analysis->values)
        return analysis_fail(analysis, "%s", strerror(ENOMEM));
    for (uint32_t i = 0; i < analysis->n_inputs; i++) {
        struct input *input = &analysis->inputs[i];

        input->first_chunk = analysis->n_chunks;
        for (uint32_t j = 0; j < input->n_chunks; j++)
            analysis->fingerprints[analysis->n_chunks++] = input->chunks[j];
        free(input->chunks);
        input->chunks = NULL;
    }
    return true;
}

bool analysis_read(struct analysis *analysis)
{
    return read_all(analysis) && join_chunks(analysis);
}

/* ---- counting --------------------------------------------------------------- */

struct jobs {
    struct analysis *analysis;
    _Atomic uint32_t next;
};

/* The longest first: extents of all images, blocks, extents of each (an only
 * image is all). */
static void do_job(struct analysis *analysis, uint32_t job)
{
    if (job == 0)
        analysis_extents(analysis, analysis->n_inputs);
    else if (job == 1)
        analysis_blocks(analysis);
    else
        analysis_extents(analysis, job - 2);
}

static void do_jobs(void *ctx, unsigned thread)
{
    struct jobs *jobs = ctx;
    uint32_t images = jobs->analysis->n_inputs;
    uint32_t n = 2 + (images > 1 ? images : 0);
    uint32_t job;

    while ((job = atomic_fetch_add(&jobs->next, 1)) < n &&
           !jobs->analysis->failed)
        do_job(jobs->analysis, job);
}

static void add_up(struct analysis *analysis)
{
    struct tally *all = &analysis->all;
    struct tally *first = &analysis->inputs[0].tally;

    if (analysis->n_inputs == 1) {
        memcpy(first->extents, all->extents, sizeof(all->extents));
        memcpy(first->extent_pages, all->extent_pages,
               sizeof(all->extent_pages));
    }
    for (uint32_t i = 0; i < analysis->n_inputs; i++) {
        const struct tally *tally = &analysis->inputs[i].tally;

        all->unique += tally->unique;
        all->within += tally->within;
        all->across += tally->across;
    }
    assert(all->zero + all->unique + all->within + all->across == all->pages);
    assert(tally_reclaimable(all) ==
           tally_reclaimable_zero(all) + all->intra + all->inter);
}

bool analysis_count(struct analysis *analysis)
{
    struct jobs jobs = { .analysis = analysis };

    if (!analysis_contents(analysis))
        return false;
    threads_run(analysis->options->threads, do_jobs, &jobs);
    if (analysis->failed)
        return false;
    add_up(analysis);
    return true;
}

const struct tally *analysis_tally(const struct analysis *analysis,
                                   uint32_t image)
{
    assert(image < analysis->n_inputs);
    return &analysis->inputs[image].tally;
}

enum kind analysis_kind(const struct analysis *analysis, uint32_t image,
                        uint64_t slot)
{
    const struct input *input = &analysis->inputs[image];
    const uint32_t *chunk = analysis->values[input->first_chunk + slot / CHUNK];
    uint32_t value = chunk ? chunk[slot % CHUNK] : VALUE_ZERO;

    switch (value) {
    case VALUE_ZERO:
        return KIND_ZERO;
    case VALUE_GAP:
        return KIND_GAP;
    case VALUE_UNIQUE:
        return KIND_UNIQUE;
    default:
        return analysis->across[value] ? KIND_ACROSS : KIND_WITHIN;
    }
}

void analysis_close(struct analysis *analysis)
{
    for (uint32_t i = 0; i < analysis->n_inputs; i++)
        input_close(&analysis->inputs[i]);
    for (uint32_t i = 0; i < analysis->n_chunks; i++) {
        if (analysis->fingerprints)
            free(analysis->fingerprints[i]);
        if (analysis->values)
            free(analysis->values[i]);
    }
    free(analysis->fingerprints);
    free(analysis->values);
    free(analysis->across);
    free(analysis->secrets);
    free(analysis->inputs);
    memset(analysis, 0, sizeof(*analysis));
}
