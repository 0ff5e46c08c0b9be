/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From fingerprints to numbers.
 *
 * First, a hash table finds for each page the first one that is equal. The
 * fingerprints are dealt out into parts by their upper bits, each part with a
 * table of its own, so that threads need no locks: what is written for a page
 * belongs to its content's part alone. Within a part pages come in the order
 * of their positions, so the table's entry need not remember more than the
 * last image that had this content.
 *
 * Meanwhile, a page's value says what it is:
 *
 *      ZERO, GAP, UNIQUE   as later, UNIQUE being a first page without others
 *      REPEATED            a first page that others equal, all of its image
 *      ACROSS              ... of several images
 *      COPY + position     a later one; the position is that of the first
 *
 * In a second run, in order of positions, REPEATED and ACROSS become a new
 * number, and copies look up that of their first page, which has been passed.
 */
#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATED = VALUE_FIRST, ACROSS, COPY };

static_assert(CHUNKS_MAX <= (UINT32_MAX - COPY) / CHUNK, "copies have values");

/* More parts than threads, so that all are done at the same time; their tables
 * are smaller, too. */
#define PARTS 8u
#define PREFETCH 16u

struct entry {
    uint32_t first; /* position + 1; 0: empty */
    uint32_t last_image;
};

struct part {
    struct analysis *analysis;
    uint32_t number;
    struct entry *entries; /* [n_entries] */
    uint64_t n_entries;
    struct tally *tallies; /* [n_inputs], of this part */
    uint64_t distinct;
    uint64_t inter;
};

struct parts {
    struct analysis *analysis;
    _Atomic uint32_t next;
    struct part part[PARTS];
};

static bool is_page(const struct fingerprint *fingerprint)
{
    return fingerprint->low != 0;
}

static bool is_mine(const struct part *part,
                    const struct fingerprint *fingerprint)
{
    return is_page(fingerprint) && fingerprint->high >> 61 == part->number;
}

static uint32_t *value_at(struct analysis *analysis, uint32_t position)
{
    return &analysis->values[position / CHUNK][position % CHUNK];
}

/* ---- first pages ------------------------------------------------------------ */

/* Multiplying instead of dividing: any number of entries will do. */
static struct entry *home(const struct part *part,
                          const struct fingerprint *fingerprint)
{
    return &part->entries[(fingerprint->low >> 32) * part->n_entries >> 32];
}

static bool is_equal(const struct analysis *analysis, uint32_t position,
                     const struct fingerprint *fingerprint)
{
    const struct fingerprint
        *other = &analysis->fingerprints[position / CHUNK][position % CHUNK];

    return other->low == fingerprint->low && other->high == fingerprint->high;
}

/* The entry of this content, or the empty one where it belongs. */
static struct entry *find(const struct part *part,
                          const struct fingerprint *fingerprint)
{
    struct entry *entry = home(part, fingerprint);

    while (entry->first &&
           !is_equal(part->analysis, entry->first - 1, fingerprint))
        if (++entry == part->entries + part->n_entries)
            entry = part->entries;
    return entry;
}

static void take(struct part *part, uint32_t image, uint32_t position,
                 const struct fingerprint *fingerprint)
{
    struct entry *entry = find(part, fingerprint);
    uint32_t *value = value_at(part->analysis, position);
    uint32_t *first;

    if (!entry->first) {
        *entry = (struct entry){ position + 1, image };
        *value = VALUE_UNIQUE;
        part->distinct++;
        part->tallies[image].distinct++;
        return;
    }
    first = value_at(part->analysis, entry->first - 1);
    *value = COPY + entry->first - 1;
    if (*first == VALUE_UNIQUE)
        *first = REPEATED;
    if (entry->last_image == image) {
        part->tallies[image].intra++;
    } else {
        *first = ACROSS;
        entry->last_image = image;
        part->inter++;
        part->tallies[image].distinct++;
    }
}

static void take_chunk(struct part *part, uint32_t image, uint32_t chunk)
{
    const struct fingerprint *fingerprints = part->analysis
                                                 ->fingerprints[chunk];

    for (uint32_t i = 0; i < CHUNK; i++) {
        const struct fingerprint *ahead = &fingerprints[i + PREFETCH];

        if (i + PREFETCH < CHUNK && is_mine(part, ahead))
            __builtin_prefetch(home(part, ahead));
        if (is_mine(part, &fingerprints[i]))
            take(part, image, chunk * CHUNK + i, &fingerprints[i]);
    }
}

static uint64_t count_mine(const struct part *part)
{
    const struct analysis *analysis = part->analysis;
    uint64_t n = 0;

    for (uint32_t chunk = 0; chunk < analysis->n_chunks; chunk++)
        for (uint32_t i = 0; analysis->fingerprints[chunk] && i < CHUNK; i++)
            n += is_mine(part, &analysis->fingerprints[chunk][i]);
    return n;
}

static bool take_part(struct part *part)
{
    struct analysis *analysis = part->analysis;

    part->n_entries = count_mine(part) * 3 / 2 + 1;
    part->entries = calloc(part->n_entries, sizeof(*part->entries));
    part->tallies = calloc(analysis->n_inputs, sizeof(*part->tallies));
    if (!part->entries || !part->tallies)
        return analysis_fail(analysis, "%s", strerror(ENOMEM));
    for (uint32_t image = 0; image < analysis->n_inputs; image++) {
        const struct input *input = &analysis->inputs[image];

        for (uint32_t i = 0; i < input->n_chunks; i++)
            if (analysis->fingerprints[input->first_chunk + i])
                take_chunk(part, image, input->first_chunk + i);
    }
    free(part->entries);
    part->entries = NULL;
    return true;
}

static void take_parts(void *ctx, unsigned thread)
{
    struct parts *parts = ctx;
    uint32_t i;

    while (!parts->analysis->failed &&
           (i = atomic_fetch_add(&parts->next, 1)) < PARTS)
        take_part(&parts->part[i]);
}

/* ---- numbers ---------------------------------------------------------------- */

static void renumber(struct analysis *analysis, struct tally *tally,
                     uint32_t *value)
{
    switch (*value) {
    case VALUE_ZERO:
    case VALUE_GAP:
        return;
    case VALUE_UNIQUE:
        tally->unique++;
        return;
    case REPEATED:
    case ACROSS:
        analysis->across[analysis->n_values] = *value == ACROSS;
        *value = analysis->n_values++;
        break;
    default:
        *value = *value_at(analysis, *value - COPY);
        break;
    }
    if (analysis->across[*value])
        tally->across++;
    else
        tally->within++;
}

static void renumber_image(struct analysis *analysis, struct input *input)
{
    struct tally *tally = &input->tally;

    for (uint32_t i = 0; i < input->n_chunks; i++) {
        uint32_t chunk = input->first_chunk + i;

        for (uint32_t j = 0; analysis->values[chunk] && j < CHUNK; j++)
            renumber(analysis, tally, &analysis->values[chunk][j]);
        free(analysis->fingerprints[chunk]);
        analysis->fingerprints[chunk] = NULL;
    }
    tally->zero = tally->pages - tally->unique - tally->within - tally->across;
    tally->distinct += tally->zero > 0;
    analysis->all.pages += tally->pages;
    analysis->all.zero += tally->zero;
}

/* Numbers that will be given: one for each content with copies, of which there
 * are no more than half the pages. */
static uint64_t count_repeated(const struct analysis *analysis)
{
    uint64_t n = 0;

    for (uint32_t chunk = 0; chunk < analysis->n_chunks; chunk++)
        for (uint32_t i = 0; analysis->values[chunk] && i < CHUNK; i++)
            n += analysis->values[chunk][i] == REPEATED ||
                 analysis->values[chunk][i] == ACROSS;
    return n;
}

static bool renumber_all(struct analysis *analysis)
{
    analysis->across = calloc(VALUE_FIRST + count_repeated(analysis),
                              sizeof(*analysis->across));
    if (!analysis->across)
        return analysis_fail(analysis, "%s", strerror(ENOMEM));
    analysis->n_values = VALUE_FIRST;
    for (uint32_t i = 0; i < analysis->n_inputs; i++)
        renumber_image(analysis, &analysis->inputs[i]);
    return true;
}

/* ---- both ------------------------------------------------------------------- */

/* Values as they begin: whatever is no page has its own already. */
static bool make_values(struct analysis *analysis)
{
    for (uint32_t chunk = 0; chunk < analysis->n_chunks; chunk++) {
        const struct fingerprint *fingerprints = analysis->fingerprints[chunk];
        uint32_t *values;

        if (!fingerprints)
            continue;
        values = calloc(CHUNK, sizeof(*values));
        if (!values)
            return analysis_fail(analysis, "%s", strerror(ENOMEM));
        for (uint32_t i = 0; i < CHUNK; i++)
            if (!is_page(&fingerprints[i]) && fingerprints[i].high)
                values[i] = VALUE_GAP;
        analysis->values[chunk] = values;
    }
    return true;
}

static void add_part(struct analysis *analysis, struct part *part)
{
    for (uint32_t i = 0; part->tallies && i < analysis->n_inputs; i++) {
        analysis->inputs[i].tally.distinct += part->tallies[i].distinct;
        analysis->inputs[i].tally.intra += part->tallies[i].intra;
        analysis->all.intra += part->tallies[i].intra;
    }
    analysis->all.distinct += part->distinct;
    analysis->all.inter += part->inter;
    free(part->tallies);
    free(part->entries);
}

bool analysis_contents(struct analysis *analysis)
{
    struct parts parts = { .analysis = analysis };

    static_assert(PARTS == 1u << (64 - 61), "is_mine() looks at three bits");
    if (!make_values(analysis))
        return false;
    for (uint32_t i = 0; i < PARTS; i++)
        parts.part[i] = (struct part){ .analysis = analysis, .number = i };
    threads_run(analysis->options->threads, take_parts, &parts);
    for (uint32_t i = 0; i < PARTS; i++)
        add_part(analysis, &parts.part[i]);
    if (analysis->failed || !renumber_all(analysis))
        return false;
    analysis->all.distinct += analysis->all.zero > 0;
    return true;
}
