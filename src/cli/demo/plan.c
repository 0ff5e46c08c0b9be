/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The plan's proportions. A guest's zone holds everything that the story puts
 * there without evicting anything, in 32nds: 8 system, 15 documents, 1 of an
 * installed package, 6 heap; the rest stays free. On machines with few files
 * the guests have little in their caches.
 */
#include "plan.h"

#include <stdio.h>

#define KEY_PAGES 4
/* Documents for all guests, at the most: 1 GiB. */
#define DOCUMENTS_MAX ((uint64_t)1 << 18)

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int plan_make(struct plan *plan, struct demo *demo)
{
    const struct demo_options *options = demo->options;
    uint64_t pages = options->memory / PGSHARE_PAGE_SIZE;
    const uint64_t limits[CONTENT_KINDS] = {
        [CONTENT_LIBRARY] = pages * 5 / 32,
        [CONTENT_PROGRAM] = pages * 3 / 32,
        [CONTENT_DOCUMENT] = least(options->guests * (pages * 15 / 32),
                                   DOCUMENTS_MAX),
    };
    struct content *content = &demo->content;
    int error = content_init(content, limits, pages / 32);

    if (error == PGSHARE_ERR_RANGE)
        fputs("pgshare: there are hardly any files to make a disk image of\n",
              stderr);
    else if (error)
        complain(error, "collecting files for the disk image");
    if (error)
        return error;
    *plan = (struct plan){
        .pages = pages,
        .gfns = pages + pages / 2,
        .text = pages / 32,
        .zone = pages / 32 + KEY_PAGES,
        .system = content->part[CONTENT_DOCUMENT].block,
        .documents = content->part[CONTENT_DOCUMENT].blocks / options->guests,
        .heap = pages * 6 / 32,
        .service = pages * 15 / 32,
    };
    plan->documents = least(plan->documents, pages * 15 / 32);
    plan->installed = least(content->blocks - content->spare,
                            content->part[CONTENT_LIBRARY].blocks);
    plan->text = least(plan->text, content->spare);
    /* The guests and their bonus pages, as far as these become their own; a
     * service domain, two children, a clone, and some to spare. */
    plan->machine = options->guests * plan->gfns + 5 * pages + plan->service;
    return 0;
}
