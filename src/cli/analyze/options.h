/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PGSHARE_CLI_ANALYZE_OPTIONS_H
#define PGSHARE_CLI_ANALYZE_OPTIONS_H

#include "engine/analysis.h"

struct analyze_options {
    struct analysis_image *images; /* [n_images] */
    uint32_t n_images;
    char **groups; /* [n_groups] names, or NULL */
    uint32_t n_groups;
    uint64_t page_size;
    unsigned threads;
    const char *report; /* a path, or NULL */
    bool json;
    bool progress;
};

/* The command line of `pgshare analyze`. What is wrong with it is said, and
 * ends the program with STATUS_USAGE, as --help does with 0. */
void analyze_options_parse(int argc, char **argv,
                           struct analyze_options *ret_options);
void analyze_options_fini(struct analyze_options *options);

#endif
