/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Matching extents, found as the definition has it: from the front, each time
 * the longest match that begins earlier; it may overlap what it explains, and
 * the search goes on behind it.
 *
 * That is the parsing of Lempel and Ziv (1977), over pages instead of letters,
 * and it is done in linear time, whatever the images are made to look like: of
 * all suffixes that begin earlier, the longest match is one of the two which
 * are next to ours in the order of suffixes, before and behind it (Crochemore
 * and Ilie, 2008; Kärkkäinen, Kempa and Puglisi, 2013). Both are compared page
 * by page, which costs no more than twice the match.
 *
 * The text that is sorted has the pages that occur more than once. All that
 * ends an extent, be it zeroes, a page without an equal, a gap, or the end of
 * an image, is a separator; it is the same one everywhere, which puts no
 * suffix nearer to ours than one with a longer match before the separator.
 *
 * Which of several equally long matches is taken makes no difference to their
 * lengths, nor to what comes behind them.
 */
#include "input.h"
#include "suffix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { END, SEPARATOR, FIRST_SYMBOL };

#define NONE UINT32_MAX

struct text {
    const struct analysis *analysis;
    uint32_t *symbol_of; /* [n_values]; 0: occurs once, or not at all */
    uint32_t *symbols;   /* [room] */
    uint32_t n;
    uint32_t room;
    uint32_t n_symbols;
    struct tally *tally;
};

/* ---- the text ---------------------------------------------------------------- */

static uint32_t symbol_of(const struct text *text, uint32_t value)
{
    return value < VALUE_FIRST ? 0 : text->symbol_of[value];
}

static void add(struct text *text, uint32_t symbol)
{
    if (symbol == SEPARATOR && text->n &&
        text->symbols[text->n - 1] == SEPARATOR)
        return;
    assert(text->n < text->room);
    text->symbols[text->n++] = symbol;
}

static void add_image(struct text *text, const struct input *input)
{
    for (uint32_t i = 0; i < input->n_chunks; i++) {
        const uint32_t *values = text->analysis->values[input->first_chunk + i];

        for (uint32_t j = 0; j < (values ? CHUNK : 1); j++) {
            uint32_t symbol = symbol_of(text, values ? values[j] : VALUE_ZERO);

            add(text, symbol ? symbol : SEPARATOR);
        }
    }
    add(text, SEPARATOR);
}

/* How often a number occurs in these images, up to twice. */
static void count_values(struct text *text, const struct input *input)
{
    for (uint32_t i = 0; i < input->n_chunks; i++) {
        const uint32_t *values = text->analysis->values[input->first_chunk + i];

        for (uint32_t j = 0; values && j < CHUNK; j++)
            if (values[j] >= VALUE_FIRST && text->symbol_of[values[j]] < 2)
                text->symbol_of[values[j]]++;
    }
}

/* Numbers that occur twice get a symbol. */
static void choose_symbols(struct text *text)
{
    text->n_symbols = FIRST_SYMBOL;
    for (uint32_t i = VALUE_FIRST; i < text->analysis->n_values; i++)
        text->symbol_of[i] = text->symbol_of[i] < 2 ? 0 : text->n_symbols++;
}

/* Each page that has a symbol, and at most as many separators, one more for
 * each image, and the end. */
static uint64_t measure(const struct text *text, const struct input *input)
{
    uint64_t n = 2;
    bool separated = false;

    for (uint32_t i = 0; i < input->n_chunks; i++) {
        const uint32_t *values = text->analysis->values[input->first_chunk + i];

        for (uint32_t j = 0; j < (values ? CHUNK : 1); j++) {
            bool symbol = symbol_of(text, values ? values[j] : VALUE_ZERO) > 0;

            n += symbol || !separated;
            separated = !symbol;
        }
    }
    return n;
}

static bool write_text(struct text *text, const struct input *inputs,
                       uint32_t n)
{
    uint64_t room = 1;

    text->symbol_of = calloc(text->analysis->n_values,
                             sizeof(*text->symbol_of));
    if (!text->symbol_of)
        return false;
    for (uint32_t i = 0; i < n; i++)
        count_values(text, &inputs[i]);
    choose_symbols(text);
    for (uint32_t i = 0; i < n; i++)
        room += measure(text, &inputs[i]);
    text->symbols = room < NONE ? calloc(room, sizeof(*text->symbols)) : NULL;
    if (!text->symbols)
        return false;
    text->room = (uint32_t)room;
    for (uint32_t i = 0; i < n; i++)
        add_image(text, &inputs[i]);
    add(text, END);
    free(text->symbol_of);
    text->symbol_of = NULL;
    return true;
}

/* ---- matches ------------------------------------------------------------------ */

/*
 * For each suffix the next one before and behind it in order that begins
 * earlier in the text. Those that are still waiting for one behind them are a
 * stack, kept in the part of `order` that has been passed.
 */
static void find_neighbours(uint32_t *order, uint32_t n, uint32_t *before,
                            uint32_t *behind)
{
    uint32_t depth = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t suffix = order[i];

        while (depth && order[depth - 1] > suffix)
            behind[order[--depth]] = suffix;
        before[suffix] = depth ? order[depth - 1] : NONE;
        order[depth++] = suffix;
    }
    while (depth)
        behind[order[--depth]] = NONE;
}

static uint32_t match(const struct text *text, uint32_t earlier, uint32_t at)
{
    uint32_t n = 0;

    if (earlier == NONE)
        return 0;
    while (text->symbols[at + n] >= FIRST_SYMBOL &&
           text->symbols[at + n] == text->symbols[earlier + n])
        n++;
    return n;
}

static void parse(const struct text *text, const uint32_t *before,
                  const uint32_t *behind)
{
    for (uint32_t at = 0; at < text->n;) {
        uint32_t a = match(text, before[at], at);
        uint32_t b = match(text, behind[at], at);
        uint32_t n = a > b ? a : b;
        unsigned length = n ? 31u - (unsigned)__builtin_clz(n) : 0;

        if (n) {
            text->tally->extents[length]++;
            text->tally->extent_pages[length] += n;
        }
        at += n ? n : 1;
    }
}

static bool parse_text(struct text *text)
{
    uint32_t *order = calloc(text->n, sizeof(*order));
    uint32_t *before = NULL, *behind = NULL;
    bool good = order &&
                suffix_sort(text->symbols, text->n, text->n_symbols, order);

    if (good) {
        before = calloc(text->n, sizeof(*before));
        behind = calloc(text->n, sizeof(*behind));
        good = before && behind;
    }
    if (good) {
        find_neighbours(order, text->n, before, behind);
        parse(text, before, behind);
    }
    free(order);
    free(before);
    free(behind);
    return good;
}

bool analysis_extents(struct analysis *analysis, uint32_t image)
{
    bool all = image == analysis->n_inputs;
    struct text text = {
        .analysis = analysis,
        .tally = all ? &analysis->all : &analysis->inputs[image].tally,
    };
    bool good = write_text(&text, &analysis->inputs[all ? 0 : image],
                           all ? analysis->n_inputs : 1);

    if (good)
        good = parse_text(&text);
    free(text.symbol_of);
    free(text.symbols);
    return good || analysis_fail(analysis, "%s", strerror(ENOMEM));
}
