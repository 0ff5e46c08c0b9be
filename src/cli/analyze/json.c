/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The figures as one JSON object, those of all images at the top, and of each
 * image alone in "images". What is measured in real time is in "wall"; the
 * rest is the same on every run with the same images.
 */
#include "output.h"

#include "engine/input.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory that runs out is noticed once, at the end. */
struct writer {
    bool bad;
};

static void put(struct writer *w, struct json_object *parent, const char *name,
                struct json_object *value)
{
    if (parent && value && !json_object_object_add(parent, name, value))
        return;
    w->bad = true;
    json_object_put(value);
}

static struct json_object *append(struct writer *w, struct json_object *array)
{
    struct json_object *child = json_object_new_object();

    if (array && child && !json_object_array_add(array, child))
        return child;
    w->bad = true;
    json_object_put(child);
    return NULL;
}

static struct json_object *array(struct writer *w, struct json_object *parent,
                                 const char *name)
{
    struct json_object *child = json_object_new_array();

    put(w, parent, name, child);
    return w->bad ? NULL : child;
}

static void number(struct writer *w, struct json_object *parent,
                   const char *name, uint64_t value)
{
    put(w, parent, name, json_object_new_uint64(value));
}

/* ---- names -------------------------------------------------------------------- */

/* Length of the UTF-8 character that begins here; 0: it is none. */
static size_t character(const unsigned char *text)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = text[0] < 0x80         ? 1
               : text[0] >> 5 == 0x06 ? 2
               : text[0] >> 4 == 0x0e ? 3
               : text[0] >> 3 == 0x1e ? 4
                                      : 0;
    uint32_t code = n > 1 ? text[0] & (0x7fu >> n) : text[0];

    for (size_t i = 1; i < n; i++) {
        if (text[i] >> 6 != 2)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    if (n && (code < least[n] || code > 0x10ffff ||
              (code >= 0xd800 && code < 0xe000)))
        return 0;
    return n;
}

char *readable_name(const char *name)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *text = calloc(strlen(name) + 1, sizeof(replacement) - 1);
    char *end = text;

    while (text && *name) {
        size_t n = character((const unsigned char *)name);

        memcpy(end, n ? name : replacement, n ? n : sizeof(replacement) - 1);
        end += n ? n : sizeof(replacement) - 1;
        name += n ? n : 1;
    }
    return text;
}

static void string(struct writer *w, struct json_object *parent,
                   const char *name, const char *value)
{
    char *text = readable_name(value);

    put(w, parent, name, text ? json_object_new_string(text) : NULL);
    free(text);
}

/* ---- tallies ------------------------------------------------------------------- */

static void orders(struct writer *w, struct json_object *parent,
                   const struct tally *tally)
{
    struct json_object *list = array(w, parent, "orders");

    for (unsigned order = 0; order < ORDERS; order++) {
        uint64_t blocks = tally->blocks[order];
        uint64_t distinct = tally->distinct_blocks[order];
        struct json_object *child = append(w, list);

        number(w, child, "order", order);
        number(w, child, "blocks", blocks);
        number(w, child, "distinct_blocks", distinct);
        number(w, child, "reclaimable_pages", (blocks - distinct) << order);
    }
}

/* Up to the longest there is. */
static void extents(struct writer *w, struct json_object *parent,
                    const struct tally *tally)
{
    struct json_object *list = array(w, parent, "extents");
    unsigned n = LENGTHS;

    while (n && !tally->extents[n - 1])
        n--;
    for (unsigned i = 0; i < n; i++) {
        struct json_object *child = append(w, list);

        number(w, child, "length", UINT64_C(1) << i);
        number(w, child, "length_max", (UINT64_C(2) << i) - 1);
        number(w, child, "count", tally->extents[i]);
        number(w, child, "pages", tally->extent_pages[i]);
    }
}

static void figures(struct writer *w, struct json_object *parent,
                    const struct tally *tally)
{
    number(w, parent, "pages", tally->pages);
    number(w, parent, "zero_pages", tally->zero);
    number(w, parent, "distinct_pages", tally->distinct);
    number(w, parent, "reclaimable_pages", tally_reclaimable(tally));
    number(w, parent, "reclaimable_zero", tally_reclaimable_zero(tally));
    number(w, parent, "reclaimable_intra", tally->intra);
    number(w, parent, "reclaimable_inter", tally->inter);
    orders(w, parent, tally);
    extents(w, parent, tally);
}

static void images(struct writer *w, struct json_object *parent,
                   const struct outcome *outcome)
{
    const struct analysis *analysis = outcome->analysis;
    struct json_object *list = array(w, parent, "images");

    for (uint32_t i = 0; i < analysis->n_inputs; i++) {
        const struct input *input = &analysis->inputs[i];
        struct json_object *child = append(w, list);

        string(w, child, "name", input->name);
        if (outcome->options->groups)
            string(w, child, "group", outcome->options->groups[input->group]);
        put(w, child, "format",
            json_object_new_string(input->format == FORMAT_ELF ? "elf"
                                                               : "raw"));
        figures(w, child, &input->tally);
    }
}

struct json_object *analysis_json(const struct outcome *outcome)
{
    struct json_object *root = json_object_new_object();
    struct json_object *wall = json_object_new_object();
    struct writer writer = { .bad = !root || !wall };

    number(&writer, root, "page_size", outcome->options->page_size);
    figures(&writer, root, &outcome->analysis->all);
    images(&writer, root, outcome);
    put(&writer, root, "wall", wall);
    if (!writer.bad)
        put(&writer, wall, "seconds", json_object_new_double(outcome->seconds));
    if (writer.bad) {
        json_object_put(root);
        return NULL;
    }
    return root;
}

bool analysis_print_json(const struct outcome *outcome)
{
    struct json_object *root = analysis_json(outcome);
    const char *text = NULL;

    if (root)
        text = json_object_to_json_string_ext(root,
                                              JSON_C_TO_STRING_PRETTY |
                                                  JSON_C_TO_STRING_SPACED);
    if (text)
        puts(text);
    json_object_put(root);
    return text != NULL;
}
