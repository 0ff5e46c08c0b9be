/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The figures as one JSON object. All that is measured in real time is in
 * "wall"; the rest is the same on every run with the same seed, images and
 * files.
 */
#include "figures.h"

#include <json-c/json.h>
#include <stdio.h>

/* Memory that runs out is noticed once, at the end. */
struct writer {
    bool bad;
};

static void put(struct writer *writer, struct json_object *parent,
                const char *name, struct json_object *value)
{
    if (parent && value && !json_object_object_add(parent, name, value))
        return;
    writer->bad = true;
    json_object_put(value);
}

static struct json_object *object(struct writer *writer,
                                  struct json_object *parent, const char *name)
{
    struct json_object *child = json_object_new_object();

    put(writer, parent, name, child);
    return writer->bad ? NULL : child;
}

static void number(struct writer *writer, struct json_object *parent,
                   const char *name, uint64_t value)
{
    put(writer, parent, name, json_object_new_uint64(value));
}

static void memory_json(struct writer *w, struct json_object *root,
                        const struct figures *figures)
{
    struct json_object *memory = object(w, root, "memory");
    struct json_object *saved = object(w, memory, "saved_by_place");

    number(w, memory, "before", figures->stats.tracked);
    number(w, memory, "after", figures->in_use);
    number(w, memory, "saved", figures->stats.saved);
    number(w, memory, "most_saved", figures->demo->most_saved);
    number(w, memory, "reserve", figures->stats.reserve);
    number(w, memory, "claimed", figures->stats.claimed);
    number(w, memory, "most_claimed", figures->demo->most_claimed);
    number(w, memory, "volatile", figures->stats.fifo);
    number(w, memory, "metadata_bytes", figures->stats.metadata);
    number(w, saved, "zero", figures->saved_zero);
    number(w, saved, "across", figures->saved_across);
    number(w, saved, "within", figures->saved_within);
}

static void guests_json(struct writer *w, struct json_object *root,
                        const struct figures *figures)
{
    struct json_object *guests = json_object_new_array();

    put(w, root, "guests", guests);
    for (uint32_t i = 0; i < figures->n_guests; i++) {
        const struct guest_figures *guest = &figures->guests[i];
        struct json_object *child = json_object_new_object();

        if (w->bad || !child || json_object_array_add(guests, child)) {
            w->bad = true;
            json_object_put(child);
            return;
        }
        put(w, child, "name", json_object_new_string(guest->name));
        number(w, child, "memory", guest->stats.tracked);
        number(w, child, "private",
               guest->stats.private_ + guest->stats.protected_);
        number(w, child, "shared", guest->stats.shared);
        number(w, child, "zero", guest->stats.zero);
        number(w, child, "broken", guest->stats.broken);
    }
}

static void shares_json(struct writer *w, struct json_object *root,
                        const struct pgshare_host_stats *stats)
{
    struct json_object *shared = object(w, root, "shared_by_cause");
    struct json_object *faults = object(w, root, "faults");
    struct json_object *paid = object(w, root, "paid_by");
    static const char *const payers[] = { "nothing", "reserve", "own_fifo",
                                          "other_fifo", "service" };

    for (uint32_t i = 0; i < PGSHARE_STATS_ROOM; i++)
        if (pgshare_cause_name(i))
            number(w, shared, pgshare_cause_name(i), stats->shared[i]);
    for (uint32_t i = 0; i < PGSHARE_STATS_ROOM; i++)
        if (pgshare_fault_name(i))
            number(w, faults, pgshare_fault_name(i), stats->faults[i]);
    for (uint32_t i = 0; i < sizeof(payers) / sizeof(payers[0]); i++)
        number(w, paid, payers[i], stats->payers[i]);
}

static void work_json(struct writer *w, struct json_object *root,
                      const struct figures *figures)
{
    const struct pgshare_host_stats *stats = &figures->stats;
    struct json_object *hints = object(w, root, "hints");
    struct json_object *work = object(w, root, "work");

    number(w, hints, "taken", stats->hints);
    number(w, hints, "dropped", stats->hints_dropped);
    number(w, hints, "useless", stats->hints_useless);
    number(w, hints, "pages_shared", figures->hinted);
    number(w, hints, "p50_us", figures->p50_us);
    number(w, hints, "p99_us", figures->p99_us);
    number(w, work, "compared", stats->compared);
    number(w, work, "different", stats->different);
    number(w, work, "scanned", stats->scanned);
    number(w, work, "rolled_back", stats->rolled_back);
    number(w, work, "broken", stats->broken);
    number(w, work, "reclaimed", stats->reclaimed);
    number(w, work, "backend_operations", stats->backend_ops);
    number(w, work, "backend_errors", stats->backend_errors);
    number(w, work, "machine_ns", figures->machine.now_ns);
}

static void verdict_json(struct writer *w, struct json_object *root,
                         const struct figures *figures)
{
    struct json_object *content = object(w, root, "content");
    struct json_object *audit = object(w, root, "audit");
    struct json_object *wall = object(w, root, "wall");

    number(w, content, "checked", figures->content.checked);
    number(w, content, "wrong", figures->content.wrong);
    number(w, audit, "pages", figures->audit.gfns);
    number(w, audit, "mappings", figures->audit.mappings);
    number(w, audit, "frames", figures->audit.frames);
    number(w, audit, "violations", figures->audit.violations);
    number(w, audit, "machine_violations", figures->machine.violations);
    put(w, wall, "seconds", json_object_new_double(figures->seconds));
    put(w, root, "ok", json_object_new_boolean(figures_good(figures)));
}

int figures_json(const struct figures *figures)
{
    struct json_object *root = json_object_new_object();
    struct writer writer = { .bad = !root };
    const char *text = NULL;

    if (root) {
        put(&writer, root, "kind",
            json_object_new_string(figures->demo->options->images ? "ram"
                                                                  : "disk"));
        number(&writer, root, "seed", figures->demo->options->seed);
        number(&writer, root, "page_size", PGSHARE_PAGE_SIZE);
        memory_json(&writer, root, figures);
        guests_json(&writer, root, figures);
        shares_json(&writer, root, &figures->stats);
        work_json(&writer, root, figures);
        verdict_json(&writer, root, figures);
    }
    if (!writer.bad)
        text = json_object_to_json_string_ext(root,
                                              JSON_C_TO_STRING_PRETTY |
                                                  JSON_C_TO_STRING_SPACED);
    if (text)
        puts(text);
    json_object_put(root);
    return text ? 0 : complain(PGSHARE_ERR_NOMEM, "JSON");
}
