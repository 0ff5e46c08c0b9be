/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Figures and their verdicts, as a table or as JSON.
 */
#ifndef PGS_BENCH_REPORT_H
#define PGS_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* What a figure has to keep to. */
enum pgs_bound {
    PGS_BOUND_NONE,      /* told for information: always ok */
    PGS_BOUND_RATIO,     /* value ≤ limit × yardstick */
    PGS_BOUND_RATIO_MIN, /* value ≥ limit × yardstick */
    PGS_BOUND_VALUE      /* value ≤ limit */
};

/* Strings of at most PGS_FIGURE_TEXT - 1 bytes, so that a figure can travel
 * through a pipe as it is. */
#define PGS_FIGURE_TEXT 112

struct pgs_figure {
    char name[16];                /* of the bench */
    char metric[PGS_FIGURE_TEXT]; /* with the order of accesses */
    char unit[16];                /* of both values */
    char yardstick[PGS_FIGURE_TEXT];
    double value;
    double yardstick_value;
    double limit;
    enum pgs_bound bound;
};

struct pgs_report;

struct pgs_report *pgs_report_new(void);
struct pgs_report *pgs_report_free(struct pgs_report *report);

/* Copies the figure. */
void pgs_report_add(struct pgs_report *report, const struct pgs_figure *figure);

/* A line of text on how things were measured; not part of the JSON. */
__attribute__((format(printf, 2, 3))) void pgs_report_note(
    struct pgs_report *report, const char *format, ...);

void pgs_report_print(const struct pgs_report *report, FILE *file);
void pgs_report_print_json(const struct pgs_report *report, FILE *file);

/* Does every figure keep to its target? */
bool pgs_report_ok(const struct pgs_report *report);

#endif
