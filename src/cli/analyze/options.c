/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of `pgshare analyze`.
 */
#include "options.h"

#include "../command.h"
#include "../units.h"

#include <argp.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS_MAX 256u

enum key { KEY_JSON = 256, KEY_NO_PROGRESS };

static const struct argp_option entries[] = {
    { "groups", 'g', "NAME,...", 0,
      "The images' trust groups, one name for each, in the same order; pages "
      "are shared within a group only [all in one]",
      0 },
    { "page-size", 'p', "SIZE", 0, "e.g. 4K, 64K, 2M [4K]", 0 },
    { "report", 'r', "FILE", 0, "Write a page for a web browser, too", 0 },
    { "threads", 't', "N", 0, "Threads [one for each CPU]", 0 },
    { "json", KEY_JSON, NULL, 0, "Print the figures as JSON", 0 },
    { "no-progress", KEY_NO_PROGRESS, NULL, 0, "No progress on a terminal", 0 },
    { 0 },
};

struct parser {
    struct analyze_options *options;
    char *groups; /* the argument of --groups */
};

static void *checked(void *memory)
{
    if (!memory)
        err(STATUS_WRONG, "pgshare");
    return memory;
}

static void parse_page_size(const char *text, struct argp_state *state,
                            struct analyze_options *options)
{
    uint64_t size;

    if (!parse_size(text, &size) || size < ANALYSIS_PAGE_MIN ||
        size > ANALYSIS_PAGE_MAX || (size & (size - 1)))
        argp_error(state, "--page-size: a power of two, 512 to 64M, not '%s'",
                   text);
    else
        options->page_size = size;
}

static void parse_threads(const char *text, struct argp_state *state,
                          struct analyze_options *options)
{
    uint64_t threads;

    if (!parse_number(text, THREADS_MAX, &threads) || !threads)
        argp_error(state, "--threads: 1 to %u, not '%s'", THREADS_MAX, text);
    else
        options->threads = (unsigned)threads;
}

static void add_image(struct argp_state *state, struct analyze_options *options,
                      const char *name)
{
    if (!*name)
        argp_error(state, "an image needs a name");
    for (uint32_t i = 0; i < options->n_images; i++)
        if (!strcmp(name, "-") && !strcmp(options->images[i].name, "-"))
            argp_error(state, "standard input ('-') can be read only once");
    options->images = checked(reallocarray(options->images,
                                           (size_t)options->n_images + 1,
                                           sizeof(*options->images)));
    options->images[options->n_images++] = (struct analysis_image){ name, 0 };
}

/* The group of this name, a new one if there is none. */
static uint32_t find_group(struct analyze_options *options, char *name)
{
    uint32_t i = 0;

    while (i < options->n_groups && strcmp(options->groups[i], name) != 0)
        i++;
    if (i == options->n_groups)
        options->groups[options->n_groups++] = name;
    return i;
}

static void parse_groups(struct argp_state *state, struct parser *parser)
{
    struct analyze_options *options = parser->options;
    char *rest = parser->groups;
    char *name;
    uint32_t n = 0;

    options->groups = checked(
        calloc(options->n_images, sizeof(*options->groups)));
    while ((name = strsep(&rest, ","))) {
        if (!*name)
            argp_error(state, "--groups: a group needs a name");
        if (n < options->n_images)
            options->images[n].group = find_group(options, name);
        n++;
    }
    if (n != options->n_images)
        argp_error(state, "--groups: %u names for %u images", n,
                   options->n_images);
}

/* A slip of the keyboard must not cost anybody an image. */
static void check_report(struct argp_state *state,
                         const struct analyze_options *options)
{
    struct stat report, image;

    if (!*options->report)
        argp_error(state, "--report: a file needs a name");
    if (stat(options->report, &report))
        return;
    for (uint32_t i = 0; i < options->n_images; i++)
        if (!stat(options->images[i].name, &image) &&
            image.st_dev == report.st_dev && image.st_ino == report.st_ino)
            argp_error(state, "--report: '%s' is one of the images",
                       options->report);
}

static void finish(struct argp_state *state, struct parser *parser)
{
    if (!parser->options->n_images)
        argp_error(state, "which images?");
    if (parser->groups)
        parse_groups(state, parser);
    if (parser->options->report)
        check_report(state, parser->options);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct parser *parser = state->input;
    struct analyze_options *options = parser->options;

    switch (key) {
    case 'g':
        parser->groups = arg;
        return 0;
    case 'p':
        parse_page_size(arg, state, options);
        return 0;
    case 'r':
        options->report = arg;
        return 0;
    case 't':
        parse_threads(arg, state, options);
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_NO_PROGRESS:
        options->progress = false;
        return 0;
    case ARGP_KEY_ARG:
        add_image(state, options, arg);
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
    .args_doc = "IMAGE...",
    .doc =
        "Tells how much of these RAM images could be shared.\v"
        "An IMAGE is raw (the page at offset 0 is GFN 0; holes of sparse files "
        "are not read), or an ELF core as QEMU's dump-guest-memory and 'virsh "
        "dump --memory-only' write it; or standard input, if it is '-'. It may "
        "be a pipe, and it may be compressed with zstd.\n\n"
        "Reclaimable is what goes when one copy of each content is kept: zero "
        "pages but one; copies within an image; copies across images, which "
        "are the images that hold a content, but one. Zero is one content, "
        "whatever the groups.\n\n"
        "Blocks are aligned, of 2^order pages. An extent is a run of pages "
        "that equals an earlier one, in an earlier image or further down in "
        "this one, whatever the alignment of both; from the lowest GFN on the "
        "longest one is taken, and the search goes on behind it.\n\n"
        "Needs up to 64 bytes of memory for each page that is not zero.\n\n"
        "Exit status: 0 all is well, 1 an image is wrong, 2 usage.",
};

void analyze_options_parse(int argc, char **argv,
                           struct analyze_options *ret_options)
{
    struct parser parser = { .options = ret_options };
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    *ret_options = (struct analyze_options){
        .page_size = 4096,
        .threads = cpus < 1 ? 1 : (unsigned)cpus,
        .progress = getenv("TERM") && strcmp(getenv("TERM"), "dumb"),
    };
    if (ret_options->threads > THREADS_MAX)
        ret_options->threads = THREADS_MAX;
    argp_err_exit_status = STATUS_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &parser);
}

void analyze_options_fini(struct analyze_options *options)
{
    free(options->images);
    free(options->groups);
}
