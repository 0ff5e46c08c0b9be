/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The report: a page for a web browser that needs nothing but itself. What it
 * looks like is in page/; here its figures are put into it, as JSON: those
 * that --json prints, and a map of each image.
 *
 * A map has a cell for each page, or for 2, 4, 8 ... pages of a large image,
 * which is what most of them are. It is a text of letters (of enum kind) and
 * how many cells in a row are the same, in base 36: "z12,u3a,a1".
 *
 * The file appears under its name when it is complete.
 */
#include "output.h"

#include "engine/input.h"
#include "page/page.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <json-c/printbuf.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Cells of one image, and of all together. */
#define CELLS_MAX (UINT64_C(1) << 18)
#define CELLS_ALL (UINT64_C(1) << 22)
#define CELLS_MIN (UINT64_C(1) << 12)
/* Runs of GFNs that are told, so that the pointer can name them. */
#define RUNS_MAX 4096u

static const char kind_letters[KINDS] = { 'z', 'u', 'w', 'a', 'g' };

/* ---- maps ---------------------------------------------------------------------- */

static enum kind cell_kind(const struct analysis *analysis, uint32_t image,
                           uint64_t slot, uint64_t n)
{
    uint64_t counts[KINDS] = { 0 };
    enum kind most = KIND_ZERO;

    for (uint64_t i = 0; i < n; i++)
        counts[analysis_kind(analysis, image, slot + i)]++;
    for (unsigned kind = 0; kind < KINDS; kind++)
        if (counts[kind] > counts[most])
            most = (enum kind)kind;
    return most;
}

static bool put_cells(struct printbuf *text, enum kind kind, uint64_t n)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    char run[16];
    int at = sizeof(run);

    for (; n; n /= 36)
        run[--at] = digits[n % 36];
    run[--at] = kind_letters[kind];
    if (printbuf_length(text))
        run[--at] = ',';
    return printbuf_memappend(text, run + at, (int)sizeof(run) - at) >= 0;
}

static bool put_map(struct printbuf *text, const struct analysis *analysis,
                    uint32_t image, uint64_t scale)
{
    const struct input *input = &analysis->inputs[image];
    const struct run *last = &input->runs[input->n_runs - 1];
    uint64_t slots = last->slot + last->pages;
    enum kind kind = KINDS;
    uint64_t n = 0;

    for (uint64_t slot = 0; slot < slots; slot += scale) {
        uint64_t left = slots - slot < scale ? slots - slot : scale;
        enum kind next = cell_kind(analysis, image, slot, left);

        if (n && next != kind && !put_cells(text, kind, n))
            return false;
        n = next == kind ? n + 1 : 1;
        kind = next;
    }
    return put_cells(text, kind, n);
}

static uint64_t scale_of(const struct analysis *analysis,
                         const struct input *input)
{
    uint64_t cells = CELLS_ALL / analysis->n_inputs;
    uint64_t scale = 1;

    if (cells < CELLS_MIN)
        cells = CELLS_MIN;
    if (cells > CELLS_MAX)
        cells = CELLS_MAX;
    while ((uint64_t)input->n_chunks * CHUNK / scale > cells)
        scale *= 2;
    return scale;
}

/* ---- data ---------------------------------------------------------------------- */

static bool put(struct json_object *parent, const char *name,
                struct json_object *value)
{
    if (value && !json_object_object_add(parent, name, value))
        return true;
    json_object_put(value);
    return false;
}

static bool put_number(struct json_object *parent, const char *name,
                       uint64_t value)
{
    return put(parent, name, json_object_new_uint64(value));
}

static struct json_object *runs_json(const struct input *input)
{
    struct json_object *runs = json_object_new_array();

    for (uint32_t i = 0; runs && i < input->n_runs && i < RUNS_MAX; i++) {
        const struct run *run = &input->runs[i];
        struct json_object *child = json_object_new_object();

        if (!child || !put_number(child, "slot", run->slot) ||
            !put_number(child, "gfn", run->gfn) ||
            !put_number(child, "pages", run->pages) ||
            json_object_array_add(runs, child)) {
            json_object_put(child);
            json_object_put(runs);
            return NULL;
        }
    }
    return runs;
}

static bool put_image(struct json_object *parent,
                      const struct analysis *analysis, uint32_t image)
{
    const struct input *input = &analysis->inputs[image];
    const struct tally *tally = &input->tally;
    struct printbuf *map = printbuf_new();
    uint64_t scale = scale_of(analysis, input);
    bool good = map && put_map(map, analysis, image, scale) &&
                put(parent, "map",
                    json_object_new_string_len(map->buf,
                                               printbuf_length(map))) &&
                put(parent, "runs", runs_json(input)) &&
                put_number(parent, "scale", scale) &&
                put_number(parent, "unique", tally->unique) &&
                put_number(parent, "within", tally->within) &&
                put_number(parent, "across", tally->across);

    if (map)
        printbuf_free(map);
    return good;
}

static struct json_object *report_json(const struct outcome *outcome)
{
    struct json_object *root = analysis_json(outcome);
    struct json_object *images;
    bool good = root && json_object_object_get_ex(root, "images", &images);

    for (uint32_t i = 0; good && i < outcome->analysis->n_inputs; i++)
        good = put_image(json_object_array_get_idx(images, i),
                         outcome->analysis, i);
    if (good)
        return root;
    json_object_put(root);
    return NULL;
}

/* ---- the file ------------------------------------------------------------------ */

/* No "<" in the data, which are in a <script>. */
static void write_data(FILE *file, const char *text)
{
    for (; *text; text++)
        if (*text == '<')
            fputs("\\u003c", file);
        else
            fputc(*text, file);
}

static bool complain(const char *path, int error)
{
    fprintf(stderr, "pgshare: %s: %s\n", path, strerror(error));
    return false;
}

static bool write_page(FILE *file, const char *path, const char *data)
{
    int error = 0;

    fputs(page_before, file);
    write_data(file, data);
    fputs(page_behind, file);
    if (ferror(file) || fflush(file))
        error = errno ? errno : EIO;
    if (fclose(file) && !error)
        error = errno;
    return error ? complain(path, error) : true;
}

/* A new file beside the old one, which takes its name when it is complete. */
static bool write_new(const char *path, const char *data)
{
    mode_t mask = umask(0);
    char *name = NULL;
    FILE *file;
    bool good;
    int fd;

    umask(mask);
    if (asprintf(&name, "%s.XXXXXX", path) < 0)
        return complain(path, ENOMEM);
    fd = mkstemp(name);
    file = fd < 0 || fchmod(fd, 0666 & ~mask) ? NULL : fdopen(fd, "w");
    if (!file) {
        good = complain(path, errno);
        if (fd >= 0)
            close(fd);
    } else {
        good = write_page(file, path, data);
    }
    if (good && rename(name, path))
        good = complain(path, errno);
    if (!good && fd >= 0)
        unlink(name);
    free(name);
    return good;
}

/* Into a pipe, or a device. */
static bool write_through(const char *path, const char *data)
{
    FILE *file = fopen(path, "w");

    return file ? write_page(file, path, data) : complain(path, errno);
}

static bool is_file(const char *path)
{
    struct stat info;

    return lstat(path, &info) ? errno == ENOENT : S_ISREG(info.st_mode);
}

bool report_is_possible(const char *path)
{
    char *copy = strdup(path);
    bool good = copy && !access(is_file(path) ? dirname(copy) : path, W_OK);
    struct stat info;
    int error = errno;

    free(copy);
    if (good && !stat(path, &info) && S_ISDIR(info.st_mode)) {
        good = false;
        error = EISDIR;
    }
    return good || complain(path, error);
}

bool analysis_report(const struct outcome *outcome)
{
    const char *path = outcome->options->report;
    struct json_object *root = report_json(outcome);
    const char *data = NULL;
    bool good;

    errno = 0;
    if (root)
        data = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN);
    if (!data)
        good = complain(path, ENOMEM);
    else
        good = is_file(path) ? write_new(path, data)
                             : write_through(path, data);
    json_object_put(root);
    return good;
}
