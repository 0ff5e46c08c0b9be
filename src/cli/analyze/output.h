/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What came of it, told in three ways.
 */
#ifndef PGSHARE_CLI_ANALYZE_OUTPUT_H
#define PGSHARE_CLI_ANALYZE_OUTPUT_H

#include "options.h"

struct json_object;

struct outcome {
    const struct analyze_options *options;
    const struct analysis *analysis;
    double seconds;
};

void analysis_table(const struct outcome *outcome);

/* The figures, to be put by the caller; NULL: no memory. */
struct json_object *analysis_json(const struct outcome *outcome);
/* Prints them. False: no memory. */
bool analysis_print_json(const struct outcome *outcome);

/* False: what is wrong has been said. The first tells in advance what can be
 * told, since counting may take long. */
bool report_is_possible(const char *path);
bool analysis_report(const struct outcome *outcome);

/* A name that is UTF-8 whatever it was, to be freed; NULL: no memory. */
char *readable_name(const char *name);

#endif
