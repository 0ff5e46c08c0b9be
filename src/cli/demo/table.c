/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The figures as a table that a person understands.
 */
#include "figures.h"

#include "../units.h"

#include <stdio.h>

struct row {
    uint32_t index;
    const char *text;
};

static const struct row causes[] = {
    { PGSHARE_CAUSE_BLOCK, "same block of the disk image (hint)" },
    { PGSHARE_CAUSE_LIBRARY, "same page of a shared library (hint)" },
    { PGSHARE_CAUSE_FILE, "same page of another file (hint)" },
    { PGSHARE_CAUSE_SAME, "copied within a guest (hint)" },
    { PGSHARE_CAUSE_LINEAGE, "cloned from another guest (hint)" },
    { PGSHARE_CAUSE_FORK, "forked from another guest" },
    { PGSHARE_CAUSE_CALL, "named by the toolstack" },
    { PGSHARE_CAUSE_FREE, "declared free by the guest" },
    { PGSHARE_CAUSE_SCAN, "equal fingerprints (one pass)" },
};

static const struct row outcomes[] = {
    { PGSHARE_FAULT_COPIED, "copied" },
    { PGSHARE_FAULT_LAST_MAPPING, "not copied: last mapping" },
    { PGSHARE_FAULT_FREE, "not copied: page was free or zero" },
    { PGSHARE_FAULT_OVERWRITE, "not copied: overwritten whole" },
    { PGSHARE_FAULT_UNMARKED, "was only read-only, not yet shared" },
    { PGSHARE_FAULT_POPULATED, "reclaimed page got memory again" },
    { PGSHARE_FAULT_READ_ONLY, "refused: read-only memory" },
};

static const struct row payers[] = {
    { PGSHARE_PAID_RESERVE, "paid by the reserve" },
    { PGSHARE_PAID_OWN_FIFO, "repaid: a volatile page of the writer" },
    { PGSHARE_PAID_OTHER_FIFO, "repaid: of a guest that claims too much" },
    { PGSHARE_PAID_SERVICE, "repaid: of the writer's service domain" },
};

#define N(array) (sizeof(array) / sizeof((array)[0]))

static void line(const char *text, uint64_t pages)
{
    char number[UNITS_MAX];

    printf("  %-42s %12s\n", text, format_number(pages, number));
}

static void memory_line(const char *text, uint64_t pages)
{
    char number[UNITS_MAX], size[UNITS_MAX];

    printf("  %-42s %12s   %10s\n", text, format_number(pages, number),
           format_size(pages * PGSHARE_PAGE_SIZE, size));
}

/* Only what has happened. */
static void lines(const struct row *rows, size_t n, const uint64_t *values)
{
    for (size_t i = 0; i < n; i++)
        if (values[rows[i].index])
            line(rows[i].text, values[rows[i].index]);
}

static unsigned percent(uint64_t part, uint64_t whole)
{
    return whole ? (unsigned)((part * 100 + whole / 2) / whole) : 0;
}

static void memory_table(const struct figures *figures)
{
    const struct pgshare_host_stats *stats = &figures->stats;

    printf("%-44s %12s   %10s\n", "Memory", "pages", "size");
    memory_line("before: what the guests have", stats->tracked);
    memory_line("after: private pages and shared frames", figures->in_use);
    memory_line("saved", stats->saved);
    memory_line("  zero pages", figures->saved_zero);
    memory_line("  equal pages of different guests", figures->saved_across);
    memory_line("  equal pages within a guest", figures->saved_within);
    memory_line("most saved at any time", figures->demo->most_saved);
    memory_line("held in reserve, to pay for writes", stats->reserve);
    if (figures->demo->most_claimed)
        memory_line("most lent to guests, as bonus pages",
                    figures->demo->most_claimed);
    printf("  %u %% of the guests' memory is saved\n\n",
           percent(stats->saved, stats->tracked));
}

static void guest_table(const struct figures *figures)
{
    printf("%-18s %12s %12s %12s %12s\n", "Guests, in pages", "memory",
           "private", "shared", "of it zero");
    for (uint32_t i = 0; i < figures->n_guests; i++) {
        const struct pgshare_domain_stats *stats = &figures->guests[i].stats;
        char text[4][UNITS_MAX];

        printf("  %-16s %12s %12s %12s %12s\n", figures->guests[i].name,
               format_number(stats->tracked, text[0]),
               format_number(stats->private_ + stats->protected_, text[1]),
               format_number(stats->shared, text[2]),
               format_number(stats->zero, text[3]));
    }
    putchar('\n');
}

static void time_table(const struct figures *figures)
{
    char p50[UNITS_MAX], p99[UNITS_MAX], pages[UNITS_MAX];

    if (!figures->hinted)
        return;
    printf("From hint to share (%s pages): half within %s, 99 %% within %s of "
           "the machine's clock\n\n",
           format_number(figures->hinted, pages),
           format_time(figures->p50_us, p50),
           format_time(figures->p99_us, p99));
}

static void verdict(const struct figures *figures)
{
    char text[4][UNITS_MAX];

    printf("Content: %s pages compared with their shadow copies, %s differ\n",
           format_number(figures->content.checked, text[0]),
           format_number(figures->content.wrong, text[1]));
    printf("Audit: %s mappings of %s frames, %s violations; the machine saw "
           "%s\n",
           format_number(figures->audit.mappings, text[0]),
           format_number(figures->audit.frames, text[1]),
           format_number(figures->audit.violations, text[2]),
           format_number(figures->machine.violations, text[3]));
    printf("%s, after %.1f s\n",
           figures_good(figures) ? "All is well" : "SOMETHING IS WRONG",
           figures->seconds);
}

static void heading(const struct figures *figures)
{
    const struct demo *demo = figures->demo;
    const struct demo_options *options = demo->options;
    char size[UNITS_MAX], files[UNITS_MAX];

    if (options->images)
        printf("%u guests from RAM images; seed %llu\n\n", options->n_images,
               (unsigned long long)options->seed);
    else
        printf("%u guests of %s on a disk image of %s (%s files of this "
               "machine); seed %llu\n\n",
               options->guests, format_size(options->memory, size),
               format_size(demo->content.spare * PGSHARE_PAGE_SIZE,
                           (char[UNITS_MAX]){ 0 }),
               format_number(demo->content.n_files, files),
               (unsigned long long)options->seed);
}

void figures_table(const struct figures *figures)
{
    const struct pgshare_host_stats *stats = &figures->stats;

    heading(figures);
    memory_table(figures);
    guest_table(figures);
    printf("%-44s %12s\n", "Pages shared, by what found them", "pages");
    lines(causes, N(causes), stats->shared);
    printf("\n%-44s %12s\n", "Write faults, by outcome", "faults");
    lines(outcomes, N(outcomes), stats->faults);
    printf("\n%-44s %12s\n", "Frames for these writes", "frames");
    lines(payers, N(payers), stats->payers);
    putchar('\n');
    time_table(figures);
    verdict(figures);
}
