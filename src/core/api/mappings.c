/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who maps a frame? The reverse map is copied out first, with the names of
 * domains and GFNs, since only under the stripe's lock is it certain that the
 * domains are still there. The visitor is called when everything of the
 * library has been left, so that it may do what it likes, even remove domains.
 *
 * Nothing needs a reverse map of the zero frame, so there is none; its pages
 * are found by walking the words of all domains.
 */
#include "api/visit.h"

#include "mechanism/lookup.h"

#include <pgshare/share.h>

#include <string.h>

#define FIRST_ROOM 64u

struct place {
    uint64_t dom;
    uint64_t gfn;
};

struct places {
    struct pgs_heap *heap;
    struct place *list;
    uint64_t n;
    uint64_t room;
    uint64_t dom; /* being walked */
};

/* Makes room for `room` places in all. */
static int grow(struct places *places, uint64_t room)
{
    struct place *list;

    if (room <= places->room)
        return 0;
    list = PGS_NEW_N(places->heap, struct place, room);
    if (!list)
        return PGSHARE_ERR_NOMEM;
    if (places->n)
        memcpy(list, places->list, places->n * sizeof(*list));
    PGS_FREE_N(places->heap, places->list, places->room);
    places->list = list;
    places->room = room;
    return 0;
}

/* ---- frames with a reverse map ----------------------------------------- */

/* Copies the map if there is room. Answers how many mappings there are; 0: no
 * such frame. */
static uint64_t copy_map(struct pgshare_host *host, uint32_t index,
                         struct places *places)
{
    struct pgs_frames *frames = &host->frames;
    struct pgs_frame *frame = pgs_frame_at(frames, index);
    uint64_t n = 0;

    places->n = 0;
    pgs_frame_lock(frames, index);
    if (frame->flags & PGS_FRAME_LIVE)
        n = frame->mappings;
    for (uint32_t node = frame->head; n <= places->room && places->n < n;
         node = pgs_node_at(frames, node)->next) {
        uint32_t page = pgs_node_at(frames, node)->page;
        struct place *place = &places->list[places->n++];

        place->dom = pgs_page_domain(host, page)->handle;
        place->gfn = pgs_page_gfn(host, page);
    }
    pgs_frame_unlock(frames, index);
    return n;
}

static int collect_frame(struct pgshare_host *host, uint64_t name,
                         struct places *places)
{
    uint64_t n;

    if (name < PGS_NAME_FIRST ||
        name - PGS_NAME_FIRST >= pgs_frames_end(&host->frames))
        return PGSHARE_ERR_RANGE;
    while ((n = copy_map(host, (uint32_t)(name - PGS_NAME_FIRST), places)) >
           places->room) {
        int r = grow(places, n + n / 8);

        if (r)
            return r;
    }
    return n ? 0 : PGSHARE_ERR_RANGE;
}

/* ---- the zero frame ---------------------------------------------------- */

static int collect_word(void *ctx, uint64_t gfn, uint32_t page, uint64_t word)
{
    struct places *places = ctx;
    int r = 0;

    (void)page;
    if (pgs_word_state(word) != PGS_SHARED ||
        pgs_word_index(word) != PGS_NODE_ZERO)
        return 0;
    if (places->n == places->room)
        r = grow(places, places->room ? 2 * places->room : FIRST_ROOM);
    if (!r)
        places->list[places->n++] = (struct place){ places->dom, gfn };
    return r;
}

static int collect_zero(struct pgshare_host *host, struct places *places)
{
    int r = 0;

    for (uint32_t slot = 1; !r && slot < host->slots_used; slot++) {
        struct pgs_domain *domain = atomic_load_explicit(&host->slots[slot],
                                                         memory_order_seq_cst);

        if (!domain)
            continue;
        places->dom = domain->handle;
        r = pgs_words_walk(domain, collect_word, places);
    }
    return r;
}

/* ---- the call ---------------------------------------------------------- */

int pgshare_frame_mappings(struct pgshare_host *host, uint64_t frame,
                           int (*visit)(void *ctx, uint64_t dom, uint64_t gfn),
                           void *ctx)
{
    struct places places = { 0 };
    struct pgs_visit inside;
    int r;

    if (!visit)
        return PGSHARE_ERR_INVALID;
    r = pgs_visit_host(&inside, host);
    if (r)
        return r;
    places.heap = &host->heap;
    r = frame == PGS_NAME_ZERO ? collect_zero(host, &places)
                               : collect_frame(host, frame, &places);
    r = pgs_visit_end(&inside, r);
    pgs_lock_assert_none();
    for (uint64_t i = 0; !r && i < places.n; i++)
        r = visit(ctx, places.list[i].dom, places.list[i].gfn);
    PGS_FREE_N(&host->heap, places.list, places.room);
    return r;
}
