/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guests work: heaps, copies, freed and allocated memory, edited files;
 * and what must never be shared.
 */
#include "story.h"

#include <string.h>

/* ---- heaps ---------------------------------------------------------------- */

/* Of sixteen pages: so many are equal in all guests and copied within one. */
#define EQUAL_OF_16 9u
#define COPIED_OF_16 3u
/* A loader's work: addresses in a library's page, the same in all guests. */
#define RELOCATION UINT64_C(0x00007f0000001000)

static void relocate(unsigned char *page)
{
    for (size_t i = 0; i < PGSHARE_PAGE_SIZE; i += 256) {
        uint64_t word;

        memcpy(&word, page + i, sizeof(word));
        word += RELOCATION;
        memcpy(page + i, &word, sizeof(word));
    }
}

static void randomize(struct guest *guest, unsigned char *page)
{
    for (size_t i = 0; i < PGSHARE_PAGE_SIZE; i += sizeof(uint64_t)) {
        uint64_t word = guest_random(guest, UINT64_MAX);

        memcpy(page + i, &word, sizeof(word));
    }
}

/* One page of a heap; `at` counts them. */
static int fill_heap(struct guest *guest, const struct plan *plan, uint64_t at,
                     uint64_t gfn)
{
    struct demo *demo = guest->demo;
    unsigned char page[PGSHARE_PAGE_SIZE];
    uint64_t from = gfn - 1;
    int error;

    if (at % 16 >= 16 - COPIED_OF_16 && at) {
        memcpy(page, shadow_bytes(&guest->shadow, from), sizeof(page));
        error = guest_write_page(guest, gfn, page);
        if (!error)
            error = pgshare_hint_same(demo->host, guest->dom, from, guest->dom,
                                      gfn, 1);
        return error == PGSHARE_ERR_FULL ? 0 : error;
    }
    if (at % 16 < EQUAL_OF_16) {
        memcpy(page, content_block(&demo->content, at % plan->system),
               sizeof(page));
        relocate(page);
    } else {
        randomize(guest, page);
    }
    return guest_write_page(guest, gfn, page);
}

/* Programs ask for sixteen pages at a time. */
static int grow_heap(struct guest *guest, const struct plan *plan, uint64_t at)
{
    uint64_t gfn;
    int error = 0;

    if (at % 16)
        return 0;
    error = guest_alloc(guest, 16, &gfn);
    for (uint64_t i = 0; !error && i < 16; i++)
        error = fill_heap(guest, plan, at + i, gfn + i);
    return error;
}

int act_programs(struct demo *demo, const struct plan *plan)
{
    return in_turns(demo, plan, plan->heap / 2 / 16 * 16, grow_heap);
}

/* ---- churn ---------------------------------------------------------------- */

/* A short program: allocates, uses some of it, exits. Its freed memory goes to
 * the zero frame, and comes back without a copy. */
static int short_program(struct guest *guest, const struct plan *plan,
                         uint64_t at)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    uint64_t gfn;
    int error;

    if (at % 16)
        return 0;
    error = guest_alloc(guest, 16, &gfn);
    for (uint64_t i = 0; !error && i < 8; i++)
        error = guest_write(guest, gfn + i, 64 * (uint32_t)i, "malloc", 6);
    randomize(guest, page);
    if (!error)
        error = guest_write_page(guest, gfn + 8, page);
    if (!error && guest_random(guest, 4))
        error = guest_release(guest, gfn, 16);
    return error;
}

/* Edits of configuration files: pages of the system, which are shared. */
static int edit_files(struct guest *guest, const struct plan *plan, uint64_t at)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    uint64_t block = guest_random(guest, plan->system);

    if (at % 4)
        return guest_edit(guest, block, 512, "edited", 6);
    randomize(guest, page); /* or written anew */
    return guest_edit(guest, block, 0, page, sizeof(page));
}

int act_churn(struct demo *demo, const struct plan *plan)
{
    int error = in_turns(demo, plan, plan->heap / 2 / 16 * 16, short_program);

    if (!error)
        error = in_turns(demo, plan, plan->system / 32, edit_files);
    for (uint32_t i = 0; !error && i < demo->options->guests; i++)
        error = pgshare_mock_kernel_sync(demo->guests[i].kernel);
    return error ? complain(error, "work") : 0;
}

/* ---- what no hint has found ------------------------------------------------ */

int act_pass(struct demo *demo, const struct plan *plan)
{
    int error = pgshare_host_pass(demo->host, 0);

    (void)plan;
    return error ? complain(error, "pass") : demo_settle(demo);
}

/* ---- secrets -------------------------------------------------------------- */

static int check_secrets(struct guest *guest, const struct plan *plan)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    for (uint64_t gfn = plan->text; gfn < plan->zone; gfn++) {
        int error = pgshare_gfn_info(guest->demo->host, guest->dom, gfn, &info);

        if (error)
            return complain(error, "%s: keys", guest->name);
        if (info.state == PGSHARE_GFN_SHARED)
            return complain(PGSHARE_ERR_STATE, "%s: a key is shared",
                            guest->name);
    }
    return 0;
}

/* All guests have the same host key, from one template, and it was found to be
 * equal. What is declared to be secret becomes private, and stays so. */
int act_secrets(struct demo *demo, const struct plan *plan)
{
    uint64_t count = plan->zone - plan->text;
    unsigned char key[PGSHARE_PAGE_SIZE];
    int error = 0;

    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (unsigned char)(i * i >> 3);
    for (uint32_t i = 0; !error && i < demo->options->guests; i++)
        for (uint64_t gfn = plan->text; !error && gfn < plan->zone; gfn++)
            error = guest_write_page(&demo->guests[i], gfn, key);
    if (!error)
        error = act_pass(demo, plan);
    for (uint32_t i = 0; !error && i < demo->options->guests; i++)
        error = pgshare_declare_never_share(demo->host, demo->guests[i].dom,
                                            plan->text, count, 1, NULL);
    if (!error)
        error = demo_settle(demo);
    if (!error)
        error = act_pass(demo, plan);
    for (uint32_t i = 0; !error && i < demo->options->guests; i++)
        error = check_secrets(&demo->guests[i], plan);
    return error;
}
