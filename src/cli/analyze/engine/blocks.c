/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Equal blocks, order by order: a block is the pair of its halves' numbers, and
 * equal pairs get equal numbers. Where a half is in no other block, the whole
 * is not, either, so that most of this is over after the first orders.
 *
 * Orders have to be finished one after the other, since it is not known before
 * the end which of their blocks have no equal.
 */
#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Two numbers that never are the halves of a block in the table. */
#define EMPTY UINT64_C(0)

struct pair {
    uint64_t halves; /* EMPTY: none */
    uint32_t value;
    uint32_t last_image;
};

struct blocks {
    struct analysis *analysis;
    uint32_t order;
    uint32_t **values; /* [n_chunks][CHUNK / 2], NULL: all zero; of these the
                        * first CHUNK >> order are in use */
    bool *repeated;    /* [n_values] */
    uint32_t n_values;
    struct pair *pairs; /* [n_pairs], a power of two */
    uint64_t n_pairs;
    bool zero; /* has there been a block of zeroes, anywhere? */
};

static uint64_t hash(uint64_t halves)
{
    halves ^= halves >> 32;
    halves *= UINT64_C(0x9e3779b97f4a7c15);
    return halves ^ halves >> 32;
}

static struct pair *find(const struct blocks *blocks, uint64_t halves)
{
    uint64_t i = hash(halves) & (blocks->n_pairs - 1);

    while (blocks->pairs[i].halves != EMPTY &&
           blocks->pairs[i].halves != halves)
        i = (i + 1) & (blocks->n_pairs - 1);
    return &blocks->pairs[i];
}

/* A block of which both halves have copies. */
static uint32_t take_pair(struct blocks *blocks, uint32_t image,
                          struct tally *tally, uint64_t halves)
{
    struct pair *pair = find(blocks, halves);

    if (pair->halves == EMPTY) {
        *pair = (struct pair){ halves, blocks->n_values++, image };
        blocks->analysis->all.distinct_blocks[blocks->order]++;
        tally->distinct_blocks[blocks->order]++;
        return pair->value;
    }
    blocks->repeated[pair->value] = true;
    if (pair->last_image != image) {
        pair->last_image = image;
        tally->distinct_blocks[blocks->order]++;
    }
    return pair->value;
}

/* Do these halves need to be looked up? */
static bool is_pair(const uint32_t halves[2])
{
    return (halves[0] == VALUE_ZERO || halves[0] >= VALUE_FIRST) &&
           (halves[1] == VALUE_ZERO || halves[1] >= VALUE_FIRST) &&
           (halves[0] | halves[1]) != VALUE_ZERO;
}

static uint32_t take_block(struct blocks *blocks, uint32_t image,
                           struct tally *tally, const uint32_t halves[2])
{
    if (halves[0] == VALUE_GAP || halves[1] == VALUE_GAP)
        return VALUE_GAP;
    tally->blocks[blocks->order]++;
    if (halves[0] == VALUE_ZERO && halves[1] == VALUE_ZERO)
        return VALUE_ZERO;
    if (is_pair(halves))
        return take_pair(blocks, image, tally,
                         (uint64_t)halves[0] << 32 | halves[1]);
    blocks->analysis->all.distinct_blocks[blocks->order]++;
    tally->distinct_blocks[blocks->order]++;
    return VALUE_UNIQUE;
}

/* What the blocks of this order are made of. */
static const uint32_t *halves_of(const struct blocks *blocks, uint32_t chunk)
{
    return blocks->order == 1 ? blocks->analysis->values[chunk]
                              : blocks->values[chunk];
}

/* A zero block of the image, if there is one, is one content more. */
static void take_image(struct blocks *blocks, uint32_t image)
{
    const struct input *input = &blocks->analysis->inputs[image];
    struct tally *tally = &blocks->analysis->inputs[image].tally;
    uint32_t n = CHUNK >> blocks->order;
    bool zero = false;

    for (uint32_t i = 0; i < input->n_chunks; i++) {
        const uint32_t *halves = halves_of(blocks, input->first_chunk + i);
        uint32_t *values = blocks->values[input->first_chunk + i];

        if (!values) {
            tally->blocks[blocks->order] += n;
            zero = true;
        }
        for (uint32_t j = 0; values && j < n; j++) {
            values[j] = take_block(blocks, image, tally, &halves[2 * j]);
            zero = zero || values[j] == VALUE_ZERO;
        }
    }
    tally->distinct_blocks[blocks->order] += zero;
    blocks->zero = blocks->zero || zero;
}

/* What has turned out to have no equal gives its number back. */
static void settle(struct blocks *blocks)
{
    uint32_t n = CHUNK >> blocks->order;

    for (uint32_t chunk = 0; chunk < blocks->analysis->n_chunks; chunk++)
        for (uint32_t i = 0; blocks->values[chunk] && i < n; i++) {
            uint32_t *value = &blocks->values[chunk][i];

            if (*value >= VALUE_FIRST && !blocks->repeated[*value])
                *value = VALUE_UNIQUE;
        }
}

static uint64_t count_pairs(const struct blocks *blocks)
{
    uint64_t pairs = 0;

    for (uint32_t chunk = 0; chunk < blocks->analysis->n_chunks; chunk++) {
        const uint32_t *halves = halves_of(blocks, chunk);

        for (uint32_t i = 0; halves && i < CHUNK >> (blocks->order - 1); i += 2)
            pairs += is_pair(&halves[i]);
    }
    return pairs;
}

/* Tables for as many pairs as this order may enter into them. */
static bool make_room(struct blocks *blocks)
{
    uint64_t n = count_pairs(blocks);

    free(blocks->pairs);
    free(blocks->repeated);
    for (blocks->n_pairs = 16; blocks->n_pairs < n + n / 3;)
        blocks->n_pairs *= 2;
    blocks->pairs = calloc(blocks->n_pairs, sizeof(*blocks->pairs));
    blocks->repeated = calloc(VALUE_FIRST + n, sizeof(*blocks->repeated));
    blocks->n_values = VALUE_FIRST;
    return (blocks->pairs && blocks->repeated) ||
           analysis_fail(blocks->analysis, "%s", strerror(ENOMEM));
}

static bool make_values(struct blocks *blocks)
{
    const struct analysis *analysis = blocks->analysis;

    blocks->values = calloc(analysis->n_chunks, sizeof(*blocks->values));
    if (!blocks->values)
        return false;
    for (uint32_t i = 0; i < analysis->n_chunks; i++) {
        if (!analysis->values[i])
            continue;
        blocks->values[i] = malloc(CHUNK / 2 * sizeof(**blocks->values));
        if (!blocks->values[i])
            return false;
    }
    return true;
}

/* Order 0 is known: pages. */
static void begin(struct blocks *blocks)
{
    struct analysis *analysis = blocks->analysis;

    analysis->all.distinct_blocks[0] = analysis->all.distinct;
    for (uint32_t i = 0; i < analysis->n_inputs; i++) {
        struct tally *tally = &analysis->inputs[i].tally;

        tally->blocks[0] = tally->pages;
        tally->distinct_blocks[0] = tally->distinct;
    }
}

static bool take_orders(struct blocks *blocks)
{
    struct analysis *analysis = blocks->analysis;

    for (blocks->order = 1; blocks->order < ORDERS; blocks->order++) {
        if (!make_room(blocks))
            return false;
        blocks->zero = false;
        for (uint32_t i = 0; i < analysis->n_inputs; i++)
            take_image(blocks, i);
        analysis->all.distinct_blocks[blocks->order] += blocks->zero;
        settle(blocks);
    }
    return true;
}

static void end(struct blocks *blocks)
{
    struct analysis *analysis = blocks->analysis;

    for (uint32_t i = 0; i < analysis->n_inputs; i++)
        for (uint32_t order = 0; order < ORDERS; order++)
            analysis->all.blocks[order] += analysis->inputs[i]
                                               .tally.blocks[order];
    for (uint32_t i = 0; blocks->values && i < analysis->n_chunks; i++)
        free(blocks->values[i]);
    free(blocks->values);
    free(blocks->pairs);
    free(blocks->repeated);
}

bool analysis_blocks(struct analysis *analysis)
{
    struct blocks blocks = { .analysis = analysis };
    bool good = make_values(&blocks) ||
                analysis_fail(analysis, "%s", strerror(ENOMEM));

    begin(&blocks);
    good = good && take_orders(&blocks);
    end(&blocks);
    return good;
}
