/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which frame does a word speak of? The node's frame is read without a lock,
 * which says what stripe to lock; under that lock it is read again. A node that
 * names this frame and this page is linked, and stays so: linking and
 * unlinking need the lock. One that does not has been unlinked meanwhile, or is
 * another mapping's.
 */
#include "mechanism/lookup.h"

void pgs_lookup_end(struct pgs_lookup *lookup)
{
    if (lookup->stripe)
        pgs_mutex_unlock(&lookup->stripe->lock);
    lookup->stripe = NULL;
    lookup->run = 0;
}

uint32_t pgs_lookup_frame(struct pgs_lookup *lookup, uint32_t node,
                          uint32_t page)
{
    struct pgs_frames *frames = lookup->frames;
    struct pgs_stripe *stripe;
    uint32_t frame;

    if (node >= atomic_load_explicit(&frames->nodes.size, memory_order_acquire))
        return PGS_NONE;
    frame = pgs_node_frame(frames, node);
    if (frame >=
        atomic_load_explicit(&frames->frames.size, memory_order_acquire))
        return PGS_NONE;
    stripe = pgs_stripe_of(frames, frame);
    if (stripe != lookup->stripe || ++lookup->run >= PGS_LOOKUP_RUN) {
        pgs_lookup_end(lookup);
        pgs_mutex_lock(&stripe->lock);
        lookup->stripe = stripe;
    }
    if (pgs_node_frame(frames, node) != frame ||
        pgs_node_at(frames, node)->page != page)
        return PGS_NONE;
    return frame;
}

int pgs_words_walk(struct pgs_domain *domain,
                   int (*visit)(void *ctx, uint64_t gfn, uint32_t page,
                                uint64_t word),
                   void *ctx)
{
    for (uint64_t gfn = 0; gfn < domain->gfns; gfn += PGS_CHUNK_GFNS) {
        uint32_t first = pgs_page_of(domain, gfn);
        uint64_t n = domain->gfns - gfn;
        int r;

        if (first == PGS_PAGE_NONE)
            continue;
        if (n > PGS_CHUNK_GFNS)
            n = PGS_CHUNK_GFNS;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t word = atomic_load_explicit(
                pgs_word_at(&domain->host->chunks, first + i),
                memory_order_acquire);

            if (!word)
                continue;
            r = visit(ctx, gfn + i, first + i, word);
            if (r)
                return r;
        }
    }
    return 0;
}
