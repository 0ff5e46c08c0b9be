/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The figures as tables that a person understands.
 */
#include "output.h"

#include "../units.h"
#include "engine/input.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR 28u
#define NAME_WIDTH 24

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? (double)part * 100 / (double)whole : 0;
}

static void memory_line(const struct outcome *outcome, const char *text,
                        uint64_t pages)
{
    char number[UNITS_MAX], size[UNITS_MAX];
    uint64_t whole = outcome->analysis->all.pages;

    printf("  %-42s %13s %11s %7.1f %%\n", text, format_number(pages, number),
           format_size(pages * outcome->options->page_size, size),
           percent(pages, whole));
}

static void memory_table(const struct outcome *outcome)
{
    const struct tally *all = &outcome->analysis->all;

    printf("%-44s %13s %11s\n", "Memory", "pages", "size");
    memory_line(outcome, "what the images have", all->pages);
    memory_line(outcome, "one copy of each content", all->distinct);
    memory_line(outcome, "reclaimable", tally_reclaimable(all));
    memory_line(outcome, "  zero pages", tally_reclaimable_zero(all));
    memory_line(outcome, "  equal pages of different images", all->inter);
    memory_line(outcome, "  equal pages within an image", all->intra);
}

/* The end of a path says more than its beginning. */
static void print_name(const char *name)
{
    size_t n = strlen(name);

    if (n > NAME_WIDTH)
        printf("  ...%s", name + n - (NAME_WIDTH - 3));
    else
        printf("  %-*s", NAME_WIDTH, name);
}

static void image_line(const struct input *input, char **groups)
{
    const struct tally *tally = &input->tally;
    const uint64_t columns[] = { tally->pages, tally->zero, tally->unique,
                                 tally->within, tally->across };
    char number[UNITS_MAX];

    print_name(input->name);
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        printf(" %11s", format_number(columns[i], number));
    if (groups)
        printf("  %s", groups[input->group]);
    putchar('\n');
}

static void image_table(const struct outcome *outcome)
{
    printf("\n%-26s %11s %11s %11s %11s %11s%s\n", "Images", "pages", "zero",
           "unique", "within", "across",
           outcome->options->groups ? "  group" : "");
    for (uint32_t i = 0; i < outcome->analysis->n_inputs; i++)
        image_line(&outcome->analysis->inputs[i], outcome->options->groups);
}

static void bar(uint64_t part, uint64_t whole)
{
    unsigned n = whole ? (unsigned)((double)part * BAR / (double)whole + 0.5)
                       : 0;

    fputs("  ", stdout);
    for (unsigned i = 0; i < n; i++)
        putchar('#');
    putchar('\n');
}

static void order_table(const struct outcome *outcome)
{
    const struct tally *all = &outcome->analysis->all;
    uint64_t best = tally_reclaimable(all);

    printf("\n%-24s %13s %13s %9s\n", "Aligned blocks", "reclaimable", "pages",
           "of best");
    for (unsigned order = 0; order < ORDERS; order++) {
        uint64_t blocks = all->blocks[order] - all->distinct_blocks[order];
        char size[UNITS_MAX], count[UNITS_MAX], pages[UNITS_MAX];

        printf("  order %u, %-12s %14s %13s %7.1f %%", order,
               format_size(outcome->options->page_size << order, size),
               format_number(blocks, count),
               format_number(blocks << order, pages),
               percent(blocks << order, best));
        bar(blocks << order, best);
    }
}

static void extent_table(const struct outcome *outcome)
{
    const struct tally *all = &outcome->analysis->all;
    uint64_t best = all->intra + all->inter;

    if (!best)
        return;
    printf("\n%-24s %13s %13s %9s\n", "Extents, any alignment", "extents",
           "pages", "of all");
    for (unsigned i = 0; i < LENGTHS; i++) {
        char range[2 * UNITS_MAX], count[UNITS_MAX], pages[UNITS_MAX];

        if (!all->extents[i])
            continue;
        snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, UINT64_C(1) << i,
                 (UINT64_C(2) << i) - 1);
        printf("  %-22s %13s %13s %7.1f %%", i ? range : "1",
               format_number(all->extents[i], count),
               format_number(all->extent_pages[i], pages),
               percent(all->extent_pages[i], best));
        bar(all->extent_pages[i], best);
    }
}

void analysis_table(const struct outcome *outcome)
{
    const struct tally *all = &outcome->analysis->all;
    char left[UNITS_MAX], whole[UNITS_MAX];
    uint64_t page_size = outcome->options->page_size;

    memory_table(outcome);
    image_table(outcome);
    order_table(outcome);
    extent_table(outcome);
    printf("\n%s of %s could go: %.1f %%\n",
           format_size(tally_reclaimable(all) * page_size, left),
           format_size(all->pages * page_size, whole),
           percent(tally_reclaimable(all), all->pages));
}
