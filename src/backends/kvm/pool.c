/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools: the frames of a trust group, in a memfd of its own.
 *
 * Whoever has the file can read every frame in it, so groups do not share one.
 *
 * **Placement.** The kernel joins mappings that are neighbours in memory and
 * in the file. So the pages of a guest are published where they stand in
 * relation to each other: a guest that publishes has an *image*, as many places
 * as it has GFNs, and page g goes to place image + g, whenever its turn comes.
 * Pages that another guest has at the same distances are then one mapping
 * there, in whatever order they were found. A place that was used before is
 * never used again, since somebody may still be about to map it; the page's
 * whole chunk then begins anew elsewhere. Places are plenty (2^40).
 *
 * **Life.** A frame is live from publish to release, whatever maps it. Guests
 * that left their host still read their frames; such a frame is an orphan when
 * it is released, and goes with its last mapping.
 *
 * What the library reads of frames, it reads from the file: it maps none.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM_MAX ((uint64_t)1 << 28) /* chunks of a pool */

/* ---- life -------------------------------------------------------------- */

static void pool_free(struct pgs_kvm_pool *pool)
{
    for (uint64_t i = 0; i < pool->room; i++)
        free(pool->chunk[i]);
    free(pool->chunk);
    if (pool->fd >= 0)
        close(pool->fd);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static struct pgs_kvm_pool *pool_new(uint32_t number, uint64_t group)
{
    struct pgs_kvm_pool *pool = calloc(1, sizeof(*pool));
    char name[64];

    if (!pool)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pool->number = number;
    pool->group = group;
    snprintf(name, sizeof(name), "pgshare-%u", (unsigned)number);
    pool->fd = pgs_sys_memfd(name);
    if (pool->fd >= 0)
        return pool;
    pool_free(pool);
    return NULL;
}

/* kvm->lock held. The pool of a group, made if need be; NULL: no memory. */
struct pgs_kvm_pool *pgs_pool_get(struct pgshare_kvm *kvm, uint64_t group)
{
    uint32_t free_number = POOLS_MAX;

    for (uint32_t i = 0; i < POOLS_MAX; i++) {
        struct pgs_kvm_pool *pool = kvm->pools[i];

        if (pool && group && pool->group == group) {
            pool->users++;
            return pool;
        }
        if (!pool && free_number == POOLS_MAX)
            free_number = i;
        if (!pool && i >= kvm->pools_used)
            break;
    }
    if (free_number == POOLS_MAX)
        return NULL;
    kvm->pools[free_number] = pool_new(free_number, group);
    if (!kvm->pools[free_number])
        return NULL;
    if (free_number >= kvm->pools_used)
        kvm->pools_used = free_number + 1;
    kvm->pools[free_number]->users = 1;
    return kvm->pools[free_number];
}

/* kvm->lock held. One guest less; pools that nobody needs go. */
void pgs_pool_put(struct pgshare_kvm *kvm, struct pgs_kvm_pool *pool)
{
    if (pool)
        pool->users--;
    for (uint32_t i = 0; i < kvm->pools_used; i++) {
        struct pgs_kvm_pool *old = kvm->pools[i];

        if (!old || old->users || (kvm->sink && (old->frames || old->dead)))
            continue;
        kvm->pools[i] = NULL;
        pool_free(old);
    }
}

/* ---- names ------------------------------------------------------------- */

uint64_t pgs_pool_id(const struct pgs_kvm_pool *pool, uint64_t place)
{
    return (uint64_t)pool->number << POOL_SHIFT | (place + 1);
}

struct pgs_kvm_pool *pgs_pool_of(struct pgshare_kvm *kvm, uint64_t id,
                                 uint64_t *ret_place)
{
    uint64_t number = id >> POOL_SHIFT;

    *ret_place = (id & ((UINT64_C(1) << POOL_SHIFT) - 1)) - 1;
    return number < POOLS_MAX ? kvm->pools[number] : NULL;
}

/* Lock held. NULL: nothing was ever published there. */
static struct pgs_kvm_chunk *chunk_of(struct pgs_kvm_pool *pool, uint64_t place)
{
    uint64_t number = place / CHUNK;

    return number < pool->room ? pool->chunk[number] : NULL;
}

/* ---- places ------------------------------------------------------------ */

static bool make_room(struct pgs_kvm_pool *pool, uint64_t number)
{
    uint64_t room = pool->room ? pool->room : 64;
    struct pgs_kvm_chunk **chunk;

    if (number < pool->room)
        return true;
    if (number >= ROOM_MAX)
        return false;
    while (room <= number)
        room *= 2;
    chunk = realloc(pool->chunk, room * sizeof(*chunk));
    if (!chunk)
        return false;
    memset(chunk + pool->room, 0, (room - pool->room) * sizeof(*chunk));
    pool->chunk = chunk;
    pool->room = room;
    return true;
}

/* Lock held. The chunk with that number can be written to. */
static struct pgs_kvm_chunk *make_chunk(struct pgs_kvm_pool *pool,
                                        uint64_t number)
{
    if (!make_room(pool, number))
        return NULL;
    if (!pool->chunk[number])
        pool->chunk[number] = calloc(1, sizeof(**pool->chunk));
    if (!pool->chunk[number])
        return NULL;
    if (number >= pool->size) {
        if (pgs_sys_truncate(pool->fd, (number + 1) * CHUNK * PAGE))
            return NULL;
        pool->size = number + 1;
    }
    return pool->chunk[number];
}

static bool is_used(const struct pgs_kvm_chunk *chunk, uint64_t place)
{
    return chunk->used[place % CHUNK / 64] >> place % 64 & 1;
}

/* Lock held. The chunk where a guest's chunk goes, which has an image. */
static uint64_t home_of(const struct pgshare_kvm_guest *guest, uint64_t in)
{
    return guest->home[in] ? guest->home[in] - 1 : guest->image - 1 + in;
}

uint64_t pgs_pool_home(struct pgs_kvm_pool *pool,
                       const struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    uint64_t place = NO_PLACE;

    pthread_mutex_lock(&pool->lock);
    if (guest->image)
        place = home_of(guest, gfn / CHUNK) * CHUNK + gfn % CHUNK;
    pthread_mutex_unlock(&pool->lock);
    return place;
}

/* Lock held. The place where a guest's page goes; NO_PLACE: no memory. */
static uint64_t place_for(struct pgs_kvm_pool *pool,
                          struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    uint64_t in = gfn / CHUNK;
    struct pgs_kvm_chunk *chunk;
    uint64_t number;

    if (!guest->image) {
        guest->image = pool->chunks + 1;
        pool->chunks += (guest->gfns + CHUNK - 1) / CHUNK;
    }
    number = home_of(guest, in);
    chunk = make_chunk(pool, number);
    if (chunk && is_used(chunk, gfn)) {
        number = pool->chunks;
        chunk = make_chunk(pool, number);
        if (chunk) {
            guest->home[in] = (uint32_t)number + 1;
            pool->chunks++;
        }
    }
    if (!chunk)
        return NO_PLACE;
    chunk->used[gfn % CHUNK / 64] |= UINT64_C(1) << gfn % 64;
    return number * CHUNK + gfn % CHUNK;
}

/* A run of pages whose places lie in a row. */
struct run {
    struct pgs_kvm_pool *pool;
    uint64_t place;
};

static bool write_some(void *ctx, const unsigned char *bytes, uint32_t first,
                       uint32_t n)
{
    struct run *run = ctx;
    ssize_t want = (ssize_t)(n * PAGE);

    return pgs_sys_pwrite(run->pool->fd, bytes, n * PAGE,
                          (run->place + first) * PAGE) == want;
}

static uint32_t write_run(struct pgs_kvm_pool *pool, struct pgshare_kvm *kvm,
                          const unsigned char *at, uint64_t place, uint32_t n,
                          int *ret_error)
{
    struct run run = { .pool = pool, .place = place };
    uint32_t done = pgs_scratch_read(kvm, at, n, write_some, &run, ret_error);

    if (done < n)
        pgs_sys_punch(pool->fd, (place + done) * PAGE, (n - done) * PAGE);
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < done; i++)
        chunk_of(pool, place)->count[(place + i) % CHUNK] = COUNT_LIVE;
    pool->frames += done;
    pthread_mutex_unlock(&pool->lock);
    return done;
}

uint32_t pgs_pool_publish(struct pgs_kvm_pool *pool,
                          struct pgshare_kvm_guest *guest, uint64_t gfn,
                          const unsigned char *at, uint32_t n,
                          uint64_t *ret_places, int *ret_error)
{
    uint32_t done = 0;

    *ret_error = 0;
    while (done < n && !*ret_error) {
        uint32_t run = 0;

        pthread_mutex_lock(&pool->lock);
        while (done + run < n) {
            uint64_t place = place_for(pool, guest, gfn + done + run);

            if (place == NO_PLACE) {
                *ret_error = PGSHARE_ERR_NOMEM;
                break;
            }
            ret_places[done + run] = place;
            run++;
            if ((gfn + done + run) % CHUNK == 0 ||
                place != ret_places[done] + run - 1)
                break;
        }
        pthread_mutex_unlock(&pool->lock);
        /* the last may have begun elsewhere: it is written by itself */
        if (run > 1 &&
            ret_places[done + run - 1] != ret_places[done] + run - 1) {
            done += write_run(pool, guest->kvm, at + done * PAGE,
                              ret_places[done], run - 1, ret_error);
            run = 1;
            if (*ret_error)
                break;
        }
        if (run)
            done += write_run(pool, guest->kvm, at + done * PAGE,
                              ret_places[done], run, ret_error);
    }
    return done;
}

/* ---- frames ------------------------------------------------------------ */

bool pgs_pool_read(const struct pgs_kvm_pool *pool, uint64_t place, uint32_t n,
                   unsigned char *ret_bytes)
{
    return pgs_sys_pread(pool->fd, ret_bytes, n * PAGE, place * PAGE) ==
           (ssize_t)(n * PAGE);
}

bool pgs_pool_is_live(struct pgs_kvm_pool *pool, uint64_t place)
{
    struct pgs_kvm_chunk *chunk;
    bool is;

    pthread_mutex_lock(&pool->lock);
    chunk = chunk_of(pool, place);
    is = chunk && chunk->count[place % CHUNK];
    pthread_mutex_unlock(&pool->lock);
    return is;
}

/* One mapping more; false: it is no frame any more. */
bool pgs_pool_map(struct pgs_kvm_pool *pool, uint64_t place)
{
    struct pgs_kvm_chunk *chunk;
    bool is;

    pthread_mutex_lock(&pool->lock);
    chunk = chunk_of(pool, place);
    is = chunk && chunk->count[place % CHUNK];
    if (is)
        chunk->count[place % CHUNK]++;
    pthread_mutex_unlock(&pool->lock);
    return is;
}

void pgs_pool_unmap(struct pgs_kvm_pool *pool, uint64_t place)
{
    struct pgs_kvm_chunk *chunk;
    bool dead;

    pthread_mutex_lock(&pool->lock);
    chunk = chunk_of(pool, place);
    chunk->count[place % CHUNK]--;
    dead = chunk->count[place % CHUNK] == (COUNT_ORPHAN | COUNT_LIVE);
    if (dead) {
        chunk->count[place % CHUNK] = 0;
        pool->frames--;
    }
    pthread_mutex_unlock(&pool->lock);
    if (dead)
        pgs_sys_punch(pool->fd, place * PAGE, PAGE);
}

int pgs_pool_release(struct pgs_kvm_pool *pool, uint64_t place)
{
    struct pgs_kvm_chunk *chunk;
    uint32_t *count;
    int r = 0;

    pthread_mutex_lock(&pool->lock);
    chunk = chunk_of(pool, place);
    count = chunk ? &chunk->count[place % CHUNK] : NULL;
    if (count && *count == COUNT_LIVE) {
        *count = 0;
        pool->frames--;
        pool->dead++;
        r = 1;
    } else if (count && *count) {
        *count |= COUNT_ORPHAN;
    }
    pthread_mutex_unlock(&pool->lock);
    return r;
}

/* The places of released frames give their memory back. */
void pgs_pool_punch(struct pgs_kvm_pool *pool, uint64_t place, uint64_t n)
{
    pgs_sys_punch(pool->fd, place * PAGE, n * PAGE);
    pthread_mutex_lock(&pool->lock);
    pool->dead -= n;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- the whole --------------------------------------------------------- */

/* The host is gone: its frames go with their last mapping, those without any
 * at once. */
void pgs_pool_orphan(struct pgs_kvm_pool *pool)
{
    for (uint64_t i = 0; i < pool->room; i++) {
        struct pgs_kvm_chunk *chunk = pool->chunk[i];

        for (uint32_t k = 0; chunk && k < CHUNK; k++) {
            if (chunk->count[k] == COUNT_LIVE) {
                chunk->count[k] = 0;
                pool->frames--;
                pgs_sys_punch(pool->fd, (i * CHUNK + k) * PAGE, PAGE);
            } else if (chunk->count[k]) {
                chunk->count[k] |= COUNT_ORPHAN;
            }
        }
    }
}

void pgs_pool_count(struct pgs_kvm_pool *pool, struct pgshare_kvm_info *info)
{
    struct stat file;

    pthread_mutex_lock(&pool->lock);
    info->pools++;
    info->frames += pool->frames;
    info->dead += pool->dead;
    if (!fstat(pool->fd, &file))
        info->pool_pages += (uint64_t)file.st_blocks * 512 / PAGE;
    pthread_mutex_unlock(&pool->lock);
}
