/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of `pgshare demo`.
 */
#include "options.h"

#include "../command.h"
#include "../units.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_MIN ((uint64_t)4 << 20)

enum key { KEY_JSON = 256, KEY_NO_LIVE, KEY_RAM };

static const struct argp_option entries[] = {
    { "guests", 'g', "N", 0, "Guests that boot [4]", 0 },
    { "memory", 'm', "SIZE", 0, "Memory of each, e.g. 64M [64M]", 0 },
    { "seed", 's', "N", 0, "The same seed gives the same run [1]", 0 },
    { "ram", KEY_RAM, NULL, 0,
      "The guests' memory is these RAM images of real guests", 0 },
    { "json", KEY_JSON, NULL, 0, "Print the figures as JSON", 0 },
    { "no-live", KEY_NO_LIVE, NULL, 0, "No live view on a terminal", 0 },
    { 0 },
};

struct parser {
    struct demo_options *options;
    bool ram;
    bool sized; /* --guests or --memory was given */
};

static void parse_guests(const char *text, struct argp_state *state,
                         struct demo_options *options)
{
    uint64_t guests;

    if (!parse_number(text, GUESTS_MAX, &guests) || guests < 2)
        argp_error(state, "--guests: 2 to %u, not '%s'", GUESTS_MAX, text);
    else
        options->guests = (uint32_t)guests;
}

static void parse_memory(const char *text, struct argp_state *state,
                         struct demo_options *options)
{
    if (!parse_size(text, &options->memory))
        argp_error(state, "--memory: a size like 64M, not '%s'", text);
    else if (options->memory < MEMORY_MIN)
        argp_error(state, "--memory: at least %s", "4M");
    options->memory &= ~(uint64_t)(PGSHARE_PAGE_SIZE - 1);
}

static void add_image(struct argp_state *state, struct parser *parser,
                      char *path)
{
    struct demo_options *options = parser->options;

    if (options->n_images == GUESTS_MAX) {
        argp_error(state, "--ram: at most %u images", GUESTS_MAX);
        return;
    }
    if (!options->images)
        options->images = state->argv + state->next - 1;
    /* argp moves operands to the end, one behind the other */
    options->n_images++;
    (void)path;
}

/* What is asked for has to fit: every page may come to be touched. */
static void check_room(struct argp_state *state,
                       const struct demo_options *options)
{
    uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES);
    uint64_t bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    char has[UNITS_MAX];

    if (options->memory > bytes / options->guests)
        argp_error(state,
                   "%u guests of that size are more than this machine "
                   "has (%s)",
                   options->guests, format_size(bytes, has));
}

static void finish(struct argp_state *state, struct parser *parser)
{
    struct demo_options *options = parser->options;

    if (parser->ram && !options->n_images)
        argp_error(state, "--ram needs at least one image");
    if (!parser->ram && options->n_images)
        argp_error(state, "'%s' is not expected (RAM images need --ram)",
                   options->images[0]);
    if (parser->ram && parser->sized)
        argp_error(state, "--guests and --memory do not go with --ram: the "
                          "images say both");
    if (!parser->ram)
        check_room(state, options);
    if (options->json || !isatty(STDOUT_FILENO))
        options->live = false;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct parser *parser = state->input;
    struct demo_options *options = parser->options;

    switch (key) {
    case 'g':
        parse_guests(arg, state, options);
        parser->sized = true;
        return 0;
    case 'm':
        parse_memory(arg, state, options);
        parser->sized = true;
        return 0;
    case 's':
        if (!parse_number(arg, UINT64_MAX, &options->seed))
            argp_error(state, "--seed: a number, not '%s'", arg);
        return 0;
    case KEY_RAM:
        parser->ram = true;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_NO_LIVE:
        options->live = false;
        return 0;
    case ARGP_KEY_ARG:
        add_image(state, parser, arg);
        return 0;
    case ARGP_KEY_END:
        finish(state, parser);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = entries,
    .parser = parse,
    .args_doc = "\n--ram IMAGE...",
    .doc = "Shares pages between the guests of a mock machine.\v"
           "Several guests boot from copy-on-write disks over one image, which "
           "is made from files of this machine; or their memory comes from RAM "
           "images of real guests (in the source tree, ./run guests makes "
           "some). In the end every byte of every guest is compared with a "
           "shadow copy.\n\n"
           "Exit status: 0 all is well, 1 something is wrong, 2 usage.",
};

void demo_options_parse(int argc, char **argv, struct demo_options *ret_options)
{
    struct parser parser = { .options = ret_options };

    *ret_options = (struct demo_options){
        .guests = 4,
        .memory = (uint64_t)64 << 20,
        .seed = 1,
        .live = getenv("TERM") && strcmp(getenv("TERM"), "dumb"),
    };
    argp_err_exit_status = STATUS_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &parser);
}
