/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guests come to life: memory, a kernel, what all of them read from the
 * disk image, and what each reads alone. Hints by block and by file find what
 * is equal, with no scan.
 */
#include "story.h"

#include <stdio.h>
#include <stdlib.h>

static int create_one(struct demo *demo, const struct plan *plan, uint32_t i)
{
    struct pgshare_mock_domain_options options = {
        .size = sizeof(options),
        .flags = i + 1 < demo->options->guests ? PGSHARE_MOCK_ENLIGHTENED : 0,
    };
    struct pgshare_mock_disk_options disk = {
        .size = sizeof(disk),
        .blocks = demo->content.blocks,
        .bytes = demo->content.bytes,
        .len = demo->content.blocks * PGSHARE_PAGE_SIZE,
    };
    struct guest *guest;
    char name[24];
    int error = 0;

    if (!demo->disk)
        error = pgshare_mock_disk_new(demo->machine, &disk, &demo->disk);
    snprintf(name, sizeof(name), "guest-%u", i + 1);
    if (!error)
        error = demo_guest_add(demo, name, plan->gfns, &options, &guest);
    if (error)
        return error;
    guest->ram = plan->pages;
    error = pgshare_mock_populate(guest->domain, 0, plan->pages);
    if (error)
        return complain(error, "%s: memory", name);
    shadow_clear(&guest->shadow, 0, plan->pages, SHADOW_HOLE);
    return guest_boot(guest, plan->zone, !is_unmodified(guest));
}

/* An enlightened guest says at once which memory it does not use. */
static int declare_zone(struct guest *guest)
{
    uint64_t count = guest->ram - guest->zone;
    int error = pgshare_mock_guest_free(guest->domain, guest->zone, count);

    if (error)
        return complain(error, "%s: declaring free memory", guest->name);
    shadow_set(&guest->shadow, guest->zone, count, SHADOW_FREE);
    return 0;
}

int act_create(struct demo *demo, const struct plan *plan)
{
    int error = 0;

    for (uint32_t i = 0; !error && i < demo->options->guests; i++) {
        error = create_one(demo, plan, i);
        if (!error)
            error = declare_zone(&demo->guests[i]);
        if (!error)
            error = demo_tick(demo);
    }
    return error ? error : demo_settle(demo);
}

/* ---- the kernel, which the toolstack knows to be the same --------------- */

static int load_text(struct guest *guest, const struct plan *plan)
{
    int error = 0;

    for (uint64_t gfn = 0; !error && gfn < plan->text; gfn++)
        error = guest_write_page(guest, gfn,
                                 content_block(&guest->demo->content, gfn));
    return error;
}

static int share_text(struct guest *source, struct guest *client,
                      const struct plan *plan)
{
    uint64_t *tickets = calloc(2 * plan->text, sizeof(*tickets));
    struct pgshare_host *host = source->demo->host;
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .source_dom = source->dom,
        .client_dom = client->dom,
        .count = plan->text,
        .source_tickets = tickets,
        .client_tickets = tickets + plan->text,
    };
    int error = PGSHARE_ERR_NOMEM;

    if (tickets)
        error = pgshare_mark_ro(host, source->dom, 0, plan->text, tickets,
                                NULL);
    if (!error)
        error = pgshare_mark_ro(host, client->dom, 0, plan->text,
                                tickets + plan->text, NULL);
    if (!error)
        error = pgshare_share(host, &request, NULL);
    free(tickets);
    return error ? complain(error, "sharing the kernel with %s", client->name)
                 : 0;
}

/* The owner is told of a write to its kernel; nothing is written. */
static int protect_text(struct guest *guest, const struct plan *plan)
{
    int error = pgshare_declare_read_only(guest->demo->host, guest->dom, 0,
                                          plan->text, 1);

    if (error)
        return complain(error, "%s: read-only kernel", guest->name);
    error = pgshare_mock_write(guest->domain, guest_random(guest, plan->text),
                               0, "an exploit", 10);
    if (error != PGSHARE_ERR_READONLY)
        return complain(error,
                        "%s: a write to read-only memory was not refused",
                        guest->name);
    return 0;
}

int act_kernels(struct demo *demo, const struct plan *plan)
{
    int error = 0;

    for (uint32_t i = 0; !error && i < demo->options->guests; i++) {
        struct guest *guest = &demo->guests[i];

        error = load_text(guest, plan);
        if (!error && i)
            error = share_text(&demo->guests[0], guest, plan);
        if (!error)
            error = protect_text(guest, plan);
        if (!error)
            error = demo_tick(demo);
    }
    return error;
}

/* ---- disks ---------------------------------------------------------------- */

/* Each guest begins elsewhere, and goes round. */
static int read_system(struct guest *guest, const struct plan *plan,
                       uint64_t at)
{
    uint64_t begin = number_of(guest) * plan->system /
                     guest->demo->options->guests;

    return guest_read(guest, guest->kernel, (begin + at) % plan->system, NULL);
}

int act_boot(struct demo *demo, const struct plan *plan)
{
    return in_turns(demo, plan, plan->system, read_system);
}

static int read_document(struct guest *guest, const struct plan *plan,
                         uint64_t at)
{
    return guest_read(guest, guest->kernel,
                      plan->system + number_of(guest) * plan->documents + at,
                      NULL);
}

/* What is used all the time is not what a guest can do without: programs and
 * libraries are the young ones in its cache afterwards. */
int act_documents(struct demo *demo, const struct plan *plan)
{
    int error = in_turns(demo, plan, plan->documents, read_document);

    return error ? error : in_turns(demo, plan, plan->system, read_system);
}

/* ---- files ---------------------------------------------------------------- */

/* Says of a file's cached pages which they are; `block` is where the guest has
 * it on its disk. */
static int hint_file(struct guest *guest, const struct content_file *file,
                     uint64_t block)
{
    struct pgshare_host *host = guest->demo->host;
    int error = 0;

    for (uint64_t i = 0; i < file->blocks; i++) {
        error = pgshare_hint_file(host, guest->dom, guest->gfn_of[block + i], 1,
                                  file->id, i);
        if (error == PGSHARE_ERR_FULL) /* dropped, as hints may be */
            error = demo_tick(guest->demo);
        if (error)
            return error;
    }
    return 0;
}

static int hint_files(struct demo *demo, enum content_kind kind)
{
    const struct content_part *part = &demo->content.part[kind];
    int error = 0;

    for (size_t f = part->file; !error && f < part->file + part->files; f++) {
        const struct content_file *file = &demo->content.files[f];

        if (kind == CONTENT_LIBRARY)
            error = pgshare_library_add(demo->host, file->id, 0, file->blocks);
        if (error == PGSHARE_ERR_FULL)
            error = 0; /* then it is a file like others */
        for (uint32_t i = 0; !error && i < demo->options->guests; i++)
            error = hint_file(&demo->guests[i], file, file->block);
        if (!error)
            error = demo_tick(demo);
    }
    return error ? complain(error, "hints of files") : demo_settle(demo);
}

/* One guest updates a package: the same files, but in blocks of its overlay,
 * which no other guest's blocks can match. */
static int install(struct guest *guest, const struct content_file *file,
                   uint64_t block)
{
    int error = 0;

    for (uint64_t i = 0; !error && i < file->blocks; i++)
        error = guest_edit(guest, block + i, 0,
                           content_block(&guest->demo->content,
                                         file->block + i),
                           PGSHARE_PAGE_SIZE);
    if (!error)
        error = demo_settle(guest->demo);
    if (!error)
        error = hint_file(guest, file, block);
    return error ? error : demo_settle(guest->demo);
}

int act_packages(struct demo *demo, const struct plan *plan)
{
    uint64_t block = demo->content.spare, end = block + plan->installed;
    int error = hint_files(demo, CONTENT_LIBRARY);

    if (!error)
        error = hint_files(demo, CONTENT_PROGRAM);
    for (size_t f = 0; !error && f < demo->content.n_files; f += 3) {
        const struct content_file *file = &demo->content.files[f];

        if (file->block >= plan->system || file->blocks > end - block)
            continue;
        error = install(&demo->guests[0], file, block);
        block += file->blocks;
    }
    if (!error)
        error = pgshare_mock_kernel_sync(demo->guests[0].kernel);
    return error ? complain(error, "installing a package") : 0;
}
