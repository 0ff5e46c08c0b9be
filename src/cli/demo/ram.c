/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The demo on RAM images: each image is the memory of one guest, all in one
 * trust group. One pass shares what is equal; then the guests write.
 *
 * The mock computes the pages of such guests from the images, until they are
 * written; so gigabytes of mostly empty images are loaded in no time.
 */
#include "demo.h"

#include <stdio.h>
#include <string.h>

/* Pages that each guest writes, of each hundred; half a minute of a busy
 * server. */
#define WRITTEN_PERCENT 2u
/* Guests write so many pages in their turn. */
#define TURN 64u

static void page_content(void *ctx, uint32_t domid, uint64_t gfn,
                         void *ret_page)
{
    const struct demo *demo = ctx;
    const unsigned char *bytes = image_page(&demo->images[domid - 1], gfn);

    if (bytes)
        memcpy(ret_page, bytes, PGSHARE_PAGE_SIZE);
    else
        memset(ret_page, 0, PGSHARE_PAGE_SIZE);
}

static const unsigned char *base_page(void *ctx, uint64_t gfn)
{
    return image_page(ctx, gfn);
}

int ram_open(struct demo *demo)
{
    int error = 0;

    for (uint32_t i = 0; !error && i < demo->options->n_images; i++)
        error = image_open(&demo->images[i], demo->options->images[i]);
    return error;
}

/* "idle-a" for "some/where/idle-a.ram" */
static void name_of(const char *path, char ret_name[24])
{
    const char *slash = strrchr(path, '/');
    char *dot;

    snprintf(ret_name, 24, "%s", slash ? slash + 1 : path);
    dot = strrchr(ret_name, '.');
    if (dot && dot != ret_name)
        *dot = '\0';
}

static int add_guest(struct demo *demo, uint32_t i)
{
    struct pgshare_mock_domain_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_MOCK_SPARSE,
        .domid = i + 1,
        .content = page_content,
        .ctx = demo,
    };
    struct image *image = &demo->images[i];
    struct guest *guest;
    char name[24];
    int error;

    name_of(demo->options->images[i], name);
    error = demo_guest_add(demo, name, image->pages, &options, &guest);
    if (error)
        return error;
    guest->ram = image->pages;
    guest->shadow.base = base_page;
    guest->shadow.ctx = image;
    shadow_clear(&guest->shadow, 0, image->pages, SHADOW_HOLE);
    return 0;
}

/* Mostly a few bytes, sometimes a whole page. */
static int write_one(struct guest *guest)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    uint64_t gfn = guest_random(guest, guest->ram);
    uint64_t mark = guest_random(guest, UINT64_MAX);
    uint32_t offset;

    if (guest_random(guest, 4)) {
        offset = 8 * (uint32_t)guest_random(guest, PGSHARE_PAGE_SIZE / 8);
        return guest_write(guest, gfn, offset, &mark, sizeof(mark));
    }
    for (size_t i = 0; i < sizeof(page); i += sizeof(mark))
        memcpy(page + i, &mark, sizeof(mark));
    return guest_write_page(guest, gfn, page);
}

static int write_all(struct demo *demo)
{
    uint64_t most = 0;
    int error = 0;

    for (uint32_t i = 0; i < demo->n_guests; i++)
        if (demo->guests[i].ram > most)
            most = demo->guests[i].ram;
    for (uint64_t n = 0; !error && n < most * WRITTEN_PERCENT / 100; n += TURN)
        for (uint32_t i = 0; !error && i < demo->n_guests; i++) {
            struct guest *guest = &demo->guests[i];

            for (uint32_t j = 0; !error && j < TURN; j++)
                if (n + j < guest->ram * WRITTEN_PERCENT / 100)
                    error = write_one(guest);
            if (!error)
                error = demo_tick(demo);
        }
    return error;
}

int ram_run(struct demo *demo)
{
    uint64_t pages = 0;
    int error;

    for (uint32_t i = 0; i < demo->options->n_images; i++)
        pages += demo->images[i].pages;
    error = demo_machine(demo, pages + pages / 8 + 1024);
    for (uint32_t i = 0; !error && i < demo->options->n_images; i++)
        error = add_guest(demo, i);
    if (error)
        return error;
    live_act(demo, "one pass over the fingerprints of all pages");
    error = pgshare_host_pass(demo->host, 0);
    if (error)
        return complain(error, "pass");
    error = demo_settle(demo);
    live_act(demo, "guests write");
    return error ? error : write_all(demo);
}
