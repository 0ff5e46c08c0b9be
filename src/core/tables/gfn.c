/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's list of chunks, which turns (domain, GFN) into 32-bit ordinals
 * and back. The list has its full length from the start and is backed as far
 * as it was used. The lowest free chunk is taken first, so that ordinals stay
 * small and tables that are indexed by them dense.
 *
 * A chunk is marked free by its missing words, and these are written last when
 * it is taken and first when it is given back: a walk over the list, under the
 * same lock, skips it or finds it whole.
 */
#include "tables/gfn.h"

#include <assert.h>

static_assert(sizeof(uint64_t) == sizeof(_Atomic uint64_t),
              "words cost eight bytes");

/* Words start on a cache line. */
#define WORDS_ALIGN 64u

bool pgs_chunks_is_valid(const struct pgs_chunks *chunks)
{
    uint32_t used = chunks->used;

    return chunks->list != NULL && used <= PGS_CHUNKS_MAX &&
           chunks->first_free <= used &&
           (used == 0 || chunks->list[used - 1].words != NULL) &&
           (used == PGS_CHUNKS_MAX || chunks->list[used].words == NULL);
}

int pgs_chunks_init(struct pgs_chunks *chunks, struct pgs_heap *heap)
{
    assert(heap != NULL);
    chunks->heap = heap;
    chunks->used = 0;
    chunks->first_free = 0;
    chunks->list = PGS_NEW_N(heap, struct pgs_chunk, PGS_CHUNKS_MAX);
    return chunks->list ? 0 : PGSHARE_ERR_NOMEM;
}

static void free_words(struct pgs_chunks *chunks, struct pgs_chunk *chunk)
{
    pgs_heap_free(chunks->heap, chunk->words, PGS_CHUNK_GFNS,
                  sizeof(*chunk->words));
    *chunk = (struct pgs_chunk){ .words = NULL };
}

void pgs_chunks_fini(struct pgs_chunks *chunks)
{
    if (!chunks->list)
        return;
    assert(pgs_chunks_is_valid(chunks));
    for (uint32_t i = 0; i < chunks->used; i++)
        free_words(chunks, &chunks->list[i]);
    PGS_FREE_N(chunks->heap, chunks->list, PGS_CHUNKS_MAX);
    chunks->list = NULL;
}

static uint32_t find_free(const struct pgs_chunks *chunks)
{
    uint32_t i = chunks->first_free;

    while (i < chunks->used && chunks->list[i].words)
        i++;
    assert(i <= chunks->used);
    return i;
}

int pgs_chunks_add(struct pgs_chunks *chunks, struct pgs_domain *domain,
                   uint64_t base, uint32_t *ret)
{
    uint32_t found = find_free(chunks);
    struct pgs_chunk *chunk = &chunks->list[found];
    _Atomic uint64_t *words;

    assert(pgs_chunks_is_valid(chunks));
    assert((base & (PGS_CHUNK_GFNS - 1)) == 0);
    chunks->first_free = found;
    if (found == PGS_CHUNKS_MAX)
        return PGSHARE_ERR_FULL;
    words = pgs_heap_zalloc(chunks->heap, PGS_CHUNK_GFNS, sizeof(*words),
                            WORDS_ALIGN);
    if (!words)
        return PGSHARE_ERR_NOMEM;
    chunk->domain = domain;
    chunk->base = base;
    chunk->words = words;
    if (found == chunks->used)
        chunks->used++;
    chunks->first_free = found + 1;
    assert(pgs_chunks_is_valid(chunks));
    *ret = found;
    return 0;
}

void pgs_chunks_remove(struct pgs_chunks *chunks, uint32_t chunk)
{
    assert(pgs_chunks_is_valid(chunks));
    assert(chunk < chunks->used && chunks->list[chunk].words != NULL);
    free_words(chunks, &chunks->list[chunk]);
    if (chunk < chunks->first_free)
        chunks->first_free = chunk;
    while (chunks->used > 0 && !chunks->list[chunks->used - 1].words)
        chunks->used--;
    if (chunks->first_free > chunks->used)
        chunks->first_free = chunks->used;
    assert(pgs_chunks_is_valid(chunks));
}
