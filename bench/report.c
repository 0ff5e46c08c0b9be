/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A report is a list of figures. The verdict on a figure is computed when it
 * is asked for, from the figure alone.
 */
#include "report.h"

#include "measure.h"

#include <json-c/json.h>

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct pgs_report {
    struct pgs_figure *figures; /* [n] */
    size_t n;
    char *notes;
};

struct pgs_report *pgs_report_new(void)
{
    struct pgs_report *report = calloc(1, sizeof(*report));

    if (!report)
        pgs_bench_die("out of memory");
    return report;
}

struct pgs_report *pgs_report_free(struct pgs_report *report)
{
    if (!report)
        return NULL;
    free(report->figures);
    free(report->notes);
    free(report);
    return NULL;
}

void pgs_report_add(struct pgs_report *report, const struct pgs_figure *figure)
{
    report->figures = realloc(report->figures,
                              (report->n + 1) * sizeof(*report->figures));
    if (!report->figures)
        pgs_bench_die("out of memory");
    report->figures[report->n++] = *figure;
}

void pgs_report_note(struct pgs_report *report, const char *format, ...)
{
    char *line;
    char *all;
    va_list args;
    int n;

    va_start(args, format);
    n = vasprintf(&line, format, args);
    va_end(args);
    if (n < 0 ||
        asprintf(&all, "%s%s\n", report->notes ? report->notes : "", line) < 0)
        pgs_bench_die("out of memory");
    free(line);
    free(report->notes);
    report->notes = all;
}

static double ratio_of(const struct pgs_figure *figure)
{
    return figure->yardstick_value > 0 ? figure->value / figure->yardstick_value
                                       : 0;
}

static bool is_ok(const struct pgs_figure *figure)
{
    switch (figure->bound) {
    case PGS_BOUND_RATIO:
        return figure->value <= figure->limit * figure->yardstick_value;
    case PGS_BOUND_RATIO_MIN:
        return figure->value >= figure->limit * figure->yardstick_value;
    case PGS_BOUND_VALUE:
        return figure->value <= figure->limit;
    case PGS_BOUND_NONE:
    default:
        return true;
    }
}

static void describe_target(const struct pgs_figure *figure, char *ret_text,
                            size_t size)
{
    switch (figure->bound) {
    case PGS_BOUND_RATIO:
        snprintf(ret_text, size, "ratio <= %g", figure->limit);
        break;
    case PGS_BOUND_RATIO_MIN:
        snprintf(ret_text, size, "ratio >= %g", figure->limit);
        break;
    case PGS_BOUND_VALUE:
        snprintf(ret_text, size, "<= %g %s", figure->limit, figure->unit);
        break;
    case PGS_BOUND_NONE:
    default:
        snprintf(ret_text, size, "none");
        break;
    }
}

bool pgs_report_ok(const struct pgs_report *report)
{
    bool ok = true;

    for (size_t i = 0; i < report->n; i++)
        ok &= is_ok(&report->figures[i]);
    return ok;
}

static const char *verdict(const struct pgs_figure *figure)
{
    if (figure->bound == PGS_BOUND_NONE)
        return "-";
    return is_ok(figure) ? "ok" : "MISSED";
}

void pgs_report_print(const struct pgs_report *report, FILE *file)
{
    char target[40];

    if (report->notes)
        fprintf(file, "%s\n", report->notes);
    for (size_t i = 0; i < report->n; i++) {
        const struct pgs_figure *figure = &report->figures[i];

        describe_target(figure, target, sizeof(target));
        fprintf(file, "%-9s %s\n", figure->name, figure->metric);
        fprintf(file, "          %-6s %11.2f %s", verdict(figure),
                figure->value, figure->unit);
        fprintf(file, ", ratio %.3f (target: %s)\n", ratio_of(figure), target);
        fprintf(file, "                 %11.2f %s: %s\n",
                figure->yardstick_value, figure->unit, figure->yardstick);
    }
    fprintf(file, "\n%zu figures: %s\n", report->n,
            pgs_report_ok(report) ? "all targets are met"
                                  : "some target is MISSED");
}

static struct json_object *to_json(const struct pgs_figure *figure)
{
    struct json_object *object = json_object_new_object();
    char target[40];

    describe_target(figure, target, sizeof(target));
    json_object_object_add(object, "name",
                           json_object_new_string(figure->name));
    json_object_object_add(object, "metric",
                           json_object_new_string(figure->metric));
    json_object_object_add(object, "value",
                           json_object_new_double(figure->value));
    json_object_object_add(object, "unit",
                           json_object_new_string(figure->unit));
    json_object_object_add(object, "yardstick",
                           json_object_new_string(figure->yardstick));
    json_object_object_add(object, "yardstick_value",
                           json_object_new_double(figure->yardstick_value));
    json_object_object_add(object, "ratio",
                           json_object_new_double(ratio_of(figure)));
    json_object_object_add(object, "target", json_object_new_string(target));
    json_object_object_add(object, "ok",
                           json_object_new_boolean(is_ok(figure)));
    return object;
}

void pgs_report_print_json(const struct pgs_report *report, FILE *file)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < report->n; i++)
        json_object_array_add(array, to_json(&report->figures[i]));
    fprintf(file, "%s\n",
            json_object_to_json_string_ext(array,
                                           JSON_C_TO_STRING_PRETTY |
                                               JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(array);
}
