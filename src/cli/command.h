/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Subcommands of the program pgshare.
 */
#ifndef PGSHARE_CLI_COMMAND_H
#define PGSHARE_CLI_COMMAND_H

/* Exit statuses, the same for all subcommands. */
enum status {
    STATUS_OK = 0,
    STATUS_WRONG = 1, /* it did not work, or what was checked is wrong */
    STATUS_USAGE = 2  /* it cannot be done as asked */
};

struct command {
    const char *name;
    const char *summary; /* one line of `pgshare --help` */
    /* argv[0] is "pgshare NAME". Answers an enum status. */
    int (*run)(int argc, char **argv);
};

extern const struct command analyze_command;
extern const struct command demo_command;

#endif
