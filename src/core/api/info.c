/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking: one GFN, what the cow domain owns, who maps a frame.
 *
 * Users know frames by names (mechanism/lookup.h). A name may come to mean
 * another frame once the frame has been released; the ticket tells them apart.
 */
#include "api/visit.h"

#include "mechanism/lookup.h"
#include "mechanism/page.h"

#include <pgshare/gfn.h>
#include <pgshare/share.h>

static uint64_t zero_mappings(struct pgshare_host *host)
{
    return pgs_shards_sum(&host->shards, PGS_LEVEL_ZERO_MAPPINGS);
}

/* ---- one GFN ----------------------------------------------------------- */

static uint32_t flags_of(uint64_t word)
{
    static const struct {
        uint64_t attribute;
        uint32_t flag;
    } flags[] = {
        { PGS_ATTR_FREE, PGSHARE_GFN_FREE },
        { PGS_ATTR_SCRUB, PGSHARE_GFN_SCRUB },
        { PGS_ATTR_VOLATILE, PGSHARE_GFN_VOLATILE },
        { PGS_ATTR_NEVER, PGSHARE_GFN_NEVER_SHARE },
        { PGS_ATTR_READONLY, PGSHARE_GFN_READ_ONLY },
        { PGS_ATTR_HELD, PGSHARE_GFN_HELD },
        { PGS_ATTR_OVERWRITE, PGSHARE_GFN_OVERWRITE },
        { PGS_ATTR_RECLAIMED, PGSHARE_GFN_RECLAIMED },
        { PGS_BUSY, PGSHARE_GFN_IN_FLIGHT },
        { PGS_ATTR_BONUS, PGSHARE_GFN_BONUS },
    };
    uint32_t ret = 0;

    for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (word & flags[i].attribute)
            ret |= flags[i].flag;
    return ret;
}

/* A mark is its page's BUSY holder's to read. False: somebody else is. */
static bool read_mark(struct pgshare_host *host, uint32_t page,
                      struct pgshare_gfn_info *info)
{
    uint64_t word;

    if (!pgs_word_trylock(pgs_word_at(&host->chunks, page), false, &word))
        return false;
    if (pgs_word_state(word) == PGS_PROTECTED)
        info->ticket = pgs_mark_at(&host->marks, pgs_word_index(word))->ticket;
    pgs_page_unlock(host, page);
    return true;
}

/* False: the page is no mapping any more. */
static bool read_mapping(struct pgshare_host *host, uint32_t page,
                         uint32_t node, struct pgshare_gfn_info *info)
{
    struct pgs_lookup lookup;
    uint32_t index;

    if (node == PGS_NODE_ZERO) {
        info->frame = PGS_NAME_ZERO;
        info->ticket = PGS_TICKET_ZERO;
        info->sharers = zero_mappings(host);
        return true;
    }
    pgs_lookup_begin(&lookup, host);
    index = pgs_lookup_frame(&lookup, node, page);
    if (index != PGS_NONE) {
        struct pgs_frame *frame = pgs_frame_at(&host->frames, index);

        info->frame = PGS_NAME_FIRST + index;
        info->ticket = frame->ticket;
        info->sharers = frame->mappings;
    }
    pgs_lookup_end(&lookup);
    return index != PGS_NONE;
}

static void read_page(struct pgshare_host *host, uint32_t page, uint64_t word,
                      struct pgshare_gfn_info *info)
{
    info->state = pgs_word_state(word);
    info->flags = flags_of(word);
    if (info->state == PGS_PROTECTED && !read_mark(host, page, info))
        info->flags |= PGSHARE_GFN_IN_FLIGHT;
    if (info->state == PGS_SHARED &&
        !read_mapping(host, page, pgs_word_index(word), info))
        info->flags |= PGSHARE_GFN_IN_FLIGHT;
}

int pgshare_gfn_info(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                     struct pgshare_gfn_info *ret_info)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    struct pgs_visit visit;
    uint32_t page;
    int r;

    static_assert((int)PGSHARE_GFN_SHARED == (int)PGS_SHARED &&
                      (int)PGSHARE_GFN_PROTECTED == (int)PGS_PROTECTED &&
                      (int)PGSHARE_GFN_PRIVATE == (int)PGS_PRIVATE &&
                      (int)PGSHARE_GFN_HOLE == (int)PGS_HOLE,
                  "a word's state is the public one");
    if (!ret_info)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_range(&visit, host, dom, gfn, 1);
    if (r)
        return r;
    r = pgs_abi_check_out(ret_info, sizeof(info));
    if (r)
        return pgs_visit_end(&visit, r);
    page = pgs_page_of(visit.domain, gfn);
    if (page != PGS_PAGE_NONE)
        read_page(host, page, pgs_word_peek(visit.domain, gfn), &info);
    pgs_abi_out(ret_info, &info, sizeof(info));
    return pgs_visit_end(&visit, 0);
}

/* ---- the cow domain ---------------------------------------------------- */

/* A record that is a frame: published, and not on its way out. */
static bool is_owned(const struct pgs_frame *frame)
{
    return frame->flags & PGS_FRAME_LIVE &&
           !(frame->flags & PGS_FRAME_DOOMED) && frame->id != PGSHARE_ID_NONE;
}

static bool read_frame(struct pgshare_host *host, uint32_t index,
                       struct pgshare_frame_info *info)
{
    const struct pgs_frame *frame = pgs_frame_at(&host->frames, index);
    bool owned;

    pgs_frame_lock(&host->frames, index);
    owned = is_owned(frame);
    if (owned) {
        info->frame = PGS_NAME_FIRST + index;
        info->id = frame->id;
        info->ticket = frame->ticket;
        info->mappings = frame->mappings;
        info->group = frame->group;
    }
    pgs_frame_unlock(&host->frames, index);
    return owned;
}

static bool next_frame(struct pgshare_host *host, uint64_t after,
                       struct pgshare_frame_info *info)
{
    uint32_t end = pgs_frames_end(&host->frames);

    if (!after) {
        info->frame = PGS_NAME_ZERO;
        info->id = PGSHARE_ID_ZERO;
        info->ticket = PGS_TICKET_ZERO;
        info->mappings = zero_mappings(host);
        return true;
    }
    for (uint64_t i = after - PGS_NAME_FIRST + 1; i < end; i++)
        if (read_frame(host, (uint32_t)i, info))
            return true;
    return false;
}

int pgshare_cow_next(struct pgshare_host *host, uint64_t after,
                     struct pgshare_frame_info *ret_info)
{
    struct pgshare_frame_info info = { .size = sizeof(info) };
    struct pgs_visit visit;
    int r;

    if (!ret_info)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_host(&visit, host);
    if (r)
        return r;
    r = pgs_abi_check_out(ret_info, sizeof(info));
    if (!r && !next_frame(host, after, &info))
        r = PGSHARE_ERR_RANGE;
    if (!r)
        pgs_abi_out(ret_info, &info, sizeof(info));
    return pgs_visit_end(&visit, r);
}
