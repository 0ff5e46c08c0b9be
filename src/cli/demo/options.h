/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PGSHARE_CLI_OPTIONS_H
#define PGSHARE_CLI_OPTIONS_H

#include "demo.h"

/* The command line of `pgshare demo`. What is wrong with it is said, and ends
 * the program with STATUS_USAGE, as --help does with 0. */
void demo_options_parse(int argc, char **argv,
                        struct demo_options *ret_options);

#endif
