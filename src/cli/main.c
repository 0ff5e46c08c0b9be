/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The program pgshare: finds the subcommand and hands over.
 */
#include "command.h"

#include <pgshare/common.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command *const commands[] = {
    &analyze_command,
    &demo_command,
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
    fputs("Usage: pgshare COMMAND [OPTION...]\n"
          "Content-based page sharing between virtual machines.\n\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n  --help     this; `pgshare COMMAND --help` says more\n"
          "  --version  the library's version\n",
          out);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

/* What was printed must have arrived: a full disk is a failure. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    perror("pgshare: standard output");
    return status == STATUS_OK ? STATUS_WRONG : status;
}

int main(int argc, char **argv)
{
    const struct command *command;
    char name[64];

    if (argc < 2) {
        usage(stderr);
        return STATUS_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return finish(STATUS_OK);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("pgshare %s\n", pgshare_version());
        return finish(STATUS_OK);
    }
    command = find(argv[1]);
    if (!command) {
        fprintf(stderr, "pgshare: there is no command '%s'\n", argv[1]);
        usage(stderr);
        return STATUS_USAGE;
    }
    snprintf(name, sizeof(name), "pgshare %s", command->name);
    argv[1] = name;
    return finish(command->run(argc - 1, argv + 1));
}
