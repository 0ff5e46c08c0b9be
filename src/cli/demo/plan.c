/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The plan's proportions. A guest's zone holds everything that the story puts
 * there without evicting anything: 5/16 system, 5/16 documents, 1/32 installed
 * package, 4/16 heap; the rest stays free. Machines with few files have guests
 * with little in their caches.
 */
#include "plan.h"

#define KEY_PAGES 4
/* Documents for all guests, at the most: 256 MiB. */
#define DOCUMENTS_MAX 65536u

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int plan_make(struct plan *plan, struct demo *demo)
{
    const struct demo_options *options = demo->options;
    uint64_t pages = options->memory / PGSHARE_PAGE_SIZE;
    const uint64_t limits[CONTENT_KINDS] = {
        [CONTENT_LIBRARY] = pages * 3 / 16,
        [CONTENT_PROGRAM] = pages / 8,
        [CONTENT_DOCUMENT] = least(options->guests * (pages * 5 / 16),
                                   DOCUMENTS_MAX),
    };
    struct content *content = &demo->content;
    int error = content_init(content, limits, pages / 32);

    if (error)
        return complain(error, "collecting files for the disk image");
    *plan = (struct plan){
        .pages = pages,
        .gfns = pages + pages / 2,
        .text = pages / 32,
        .zone = pages / 32 + KEY_PAGES,
        .system = content->part[CONTENT_DOCUMENT].block,
        .documents = content->part[CONTENT_DOCUMENT].blocks / options->guests,
        .heap = pages / 4,
        .service = pages * 5 / 16,
    };
    plan->documents = least(plan->documents, pages * 5 / 16);
    plan->installed = least(content->blocks - content->spare,
                            content->part[CONTENT_LIBRARY].blocks);
    plan->text = least(plan->text, content->spare);
    /* the guests, a service, two children, a clone, and as much to spare */
    plan->machine = (options->guests + 5) * pages + plan->service;
    return 0;
}
