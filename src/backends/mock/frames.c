/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's frames: their bytes, their records, and who may have them.
 *
 * Bytes lie in one arena that is reserved at once and backed by the process's
 * memory as it is touched. A frame that nobody uses is a number in the pool; a
 * count says how many of these are the machine's free memory and how many are
 * the host's reserve, so that moving a million frames between the two costs
 * nothing. A sparse page counts as a frame in use but has no number until it
 * is written, so that counts may exceed by far what has bytes.
 *
 * A CoW fault takes one frame of the reserve. For that each thread has a shard
 * with some frames at hand, and touches the pool once in SHARD_BATCH faults.
 * When the reserve is about to end, shards take frames singly, and what they
 * hold is drained, so that no frame is refused while there is one.
 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Below this, shards do not hoard. */
#define RESERVE_LOW ((uint64_t)SHARDS * SHARD_BATCH)
/* Frames zeroed in one poll. */
#define ZEROED_BATCH 64u

static void *reserve_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static void return_memory(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

int pgs_mock_frames_init(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;
    size_t numbers = machine->frames < FRAMES_MAX ? (size_t)machine->frames
                                                  : FRAMES_MAX;

    pool->numbers = (uint32_t)numbers;
    pool->free = machine->frames;
    pool->zeroed_max = (uint32_t)machine->options.zeroed;
    if (pthread_mutex_init(&pool->drain, NULL))
        return PGSHARE_ERR_NOMEM;
    machine->arena = reserve_memory(numbers * PGSHARE_PAGE_SIZE);
    machine->records = reserve_memory(numbers * sizeof(*machine->records));
    machine->orphans = reserve_memory(numbers * sizeof(*machine->orphans));
    pool->stack = reserve_memory(numbers * sizeof(*pool->stack));
    pool->zeroed = calloc(pool->zeroed_max + 1, sizeof(*pool->zeroed));
    if (!machine->arena || !machine->records || !machine->orphans ||
        !pool->stack || !pool->zeroed)
        return PGSHARE_ERR_NOMEM;
    if (machine->options.flags & PGSHARE_MOCK_HUGE)
        madvise(machine->arena, numbers * PGSHARE_PAGE_SIZE, MADV_HUGEPAGE);
    return 0;
}

void pgs_mock_frames_fini(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;
    size_t numbers = pool->numbers;

    return_memory(machine->arena, numbers * PGSHARE_PAGE_SIZE);
    return_memory(machine->records, numbers * sizeof(*machine->records));
    return_memory(machine->orphans, numbers * sizeof(*machine->orphans));
    return_memory(pool->stack, numbers * sizeof(*pool->stack));
    free(pool->zeroed);
    if (numbers)
        pthread_mutex_destroy(&pool->drain);
}

/* Up to `n` unused numbers; with the pool's lock held. */
static uint32_t take_numbers(struct pgs_mock_pool *pool, uint32_t n,
                             uint32_t *ret_frames)
{
    uint32_t used = n < pool->n ? n : pool->n;
    uint32_t fresh = n - used;

    /* From the top: what was freed last is still in the cache. */
    for (uint32_t i = 0; i < used; i++)
        ret_frames[i] = pool->stack[--pool->n];
    if (fresh > pool->numbers - pool->fresh)
        fresh = pool->numbers - pool->fresh;
    for (uint32_t i = 0; i < fresh; i++)
        ret_frames[used + i] = pool->fresh++ | FRAME_FRESH;
    return used + fresh;
}

/* In reverse, so that a row of frames is taken in its order again: ascending
 * pages are what the memory is fastest at. */
static void put_numbers(struct pgs_mock_pool *pool, uint32_t n,
                        const uint32_t *frames)
{
    for (uint32_t i = n; i > 0; i--)
        pool->stack[pool->n++] = frames[i - 1] & FRAME_NUMBER;
}

/* All `n` frames of the machine's free memory, or none. */
bool pgs_mock_free_take(struct pgshare_mock_machine *machine, uint32_t n,
                        uint32_t *ret_frames)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint32_t got = 0;
    bool enough;

    pgs_mock_spin_lock(&pool->lock);
    enough = pool->free >= n;
    if (enough)
        got = take_numbers(pool, n, ret_frames);
    if (enough && got == n)
        pool->free -= n;
    else
        put_numbers(pool, got, ret_frames);
    pgs_mock_spin_unlock(&pool->lock);
    return enough && got == n;
}

/* `n` numbers that count as `tokens` frames (sparse pages have none). */
void pgs_mock_free_put(struct pgshare_mock_machine *machine, uint32_t n,
                       const uint32_t *frames, uint32_t tokens)
{
    struct pgs_mock_pool *pool = &machine->pool;

    pgs_mock_spin_lock(&pool->lock);
    put_numbers(pool, n, frames);
    pool->free += tokens;
    pgs_mock_spin_unlock(&pool->lock);
}

/* Counts `n` free frames as used, for sparse pages. */
bool pgs_mock_free_charge(struct pgshare_mock_machine *machine, uint64_t n)
{
    struct pgs_mock_pool *pool = &machine->pool;
    bool enough;

    pgs_mock_spin_lock(&pool->lock);
    enough = pool->free >= n;
    if (enough)
        pool->free -= n;
    pgs_mock_spin_unlock(&pool->lock);
    return enough;
}

/* The reverse. */
void pgs_mock_free_uncharge(struct pgshare_mock_machine *machine, uint64_t n)
{
    pgs_mock_spin_lock(&machine->pool.lock);
    machine->pool.free += n;
    pgs_mock_spin_unlock(&machine->pool.lock);
}

/* A number for a sparse page that gets bytes; it was counted all along. */
uint32_t pgs_mock_number_take(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint32_t frame;
    uint32_t got;

    pgs_mock_spin_lock(&pool->lock);
    got = take_numbers(pool, 1, &frame);
    pgs_mock_spin_unlock(&pool->lock);
    return got ? frame & FRAME_NUMBER : FRAME_NONE;
}

/* This thread's shard. One alone when runs are to repeat. */
static struct pgs_mock_shard *my_shard(struct pgshare_mock_machine *machine)
{
    uint64_t thread;

    if (machine->deterministic)
        return &machine->pool.shards[0];
    /* A thread's descriptor lies at the end of its stack. */
    thread = (uint64_t)(uintptr_t)pthread_self() >> 12;
    return &machine->pool.shards[thread * UINT64_C(0x9e3779b97f4a7c15) >> 58];
}

/* Counts an operation, without a locked instruction; two threads in one shard
 * may lose one. */
void pgs_mock_count_op(struct pgshare_mock_machine *machine)
{
    _Atomic uint64_t *ops = &my_shard(machine)->ops;

    atomic_store_explicit(ops,
                          atomic_load_explicit(ops, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Puts everything that shards and the zeroed list hold into the pool. */
static void drain_shards(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;

    for (unsigned i = 0; i < SHARDS; i++) {
        struct pgs_mock_shard *shard = &pool->shards[i];

        pgs_mock_spin_lock(&shard->lock);
        pgs_mock_spin_lock(&pool->lock);
        put_numbers(pool, shard->n, shard->frames);
        pool->reserve += shard->n;
        shard->n = 0;
        pgs_mock_spin_unlock(&pool->lock);
        pgs_mock_spin_unlock(&shard->lock);
    }
    pgs_mock_spin_lock(&pool->zeroed_lock);
    pgs_mock_spin_lock(&pool->lock);
    put_numbers(pool, pool->zeroed_n, pool->zeroed);
    pool->reserve += pool->zeroed_n;
    pool->zeroed_n = 0;
    pgs_mock_spin_unlock(&pool->lock);
    pgs_mock_spin_unlock(&pool->zeroed_lock);
}

static uint32_t reserve_take_global(struct pgs_mock_pool *pool, uint32_t n,
                                    uint32_t *ret_frames)
{
    uint32_t got;

    pgs_mock_spin_lock(&pool->lock);
    got = take_numbers(pool, pool->reserve < n ? (uint32_t)pool->reserve : n,
                       ret_frames);
    pool->reserve -= got;
    pgs_mock_spin_unlock(&pool->lock);
    return got;
}

/* Up to `n` frames of the reserve. Returns how many. */
uint32_t pgs_mock_reserve_take(struct pgshare_mock_machine *machine, uint32_t n,
                               uint32_t *ret_frames)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint32_t got = reserve_take_global(pool, n, ret_frames);

    if (got < n) {
        pthread_mutex_lock(&pool->drain);
        drain_shards(machine);
        got += reserve_take_global(pool, n - got, ret_frames + got);
        pthread_mutex_unlock(&pool->drain);
    }
    return got;
}

static void shard_refill(struct pgs_mock_pool *pool,
                         struct pgs_mock_shard *shard)
{
    pgs_mock_spin_lock(&pool->lock);
    if (pool->reserve >= RESERVE_LOW) {
        uint32_t *frames = shard->frames;
        uint32_t got = take_numbers(pool, SHARD_BATCH, frames);

        /* The last one is taken first; keep the pool's order. */
        for (uint32_t i = 0; i < got / 2; i++) {
            uint32_t other = frames[i];
            frames[i] = frames[got - 1 - i];
            frames[got - 1 - i] = other;
        }
        pool->reserve -= got;
        shard->n = got;
    }
    pgs_mock_spin_unlock(&pool->lock);
}

/* One frame of the reserve, or FRAME_NONE. May be FRAME_FRESH. */
uint32_t pgs_mock_reserve_take_one(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_shard *shard = my_shard(machine);
    uint32_t frame = FRAME_NONE;

    pgs_mock_spin_lock(&shard->lock);
    if (!shard->n)
        shard_refill(&machine->pool, shard);
    if (shard->n)
        frame = shard->frames[--shard->n];
    pgs_mock_spin_unlock(&shard->lock);
    if (frame == FRAME_NONE)
        pgs_mock_reserve_take(machine, 1, &frame);
    return frame;
}

/* `n` numbers that count as `tokens` frames of the reserve. */
void pgs_mock_reserve_put(struct pgshare_mock_machine *machine, uint32_t n,
                          const uint32_t *frames, uint32_t tokens)
{
    struct pgs_mock_pool *pool = &machine->pool;

    if (n == 1 && tokens == 1) {
        struct pgs_mock_shard *shard = my_shard(machine);
        bool room;

        pgs_mock_spin_lock(&shard->lock);
        room = shard->n < SHARD_FRAMES;
        if (room)
            shard->frames[shard->n++] = frames[0] & FRAME_NUMBER;
        pgs_mock_spin_unlock(&shard->lock);
        if (room)
            return;
    }
    pgs_mock_spin_lock(&pool->lock);
    put_numbers(pool, n, frames);
    pool->reserve += tokens;
    pgs_mock_spin_unlock(&pool->lock);
}

/* A frame of the reserve that reads as zeroes, or FRAME_NONE. */
uint32_t pgs_mock_zeroed_take(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint32_t frame = FRAME_NONE;

    pgs_mock_spin_lock(&pool->zeroed_lock);
    if (pool->zeroed_n)
        frame = pool->zeroed[--pool->zeroed_n];
    pgs_mock_spin_unlock(&pool->zeroed_lock);
    if (frame != FRAME_NONE)
        return frame;
    frame = pgs_mock_reserve_take_one(machine);
    if (frame == FRAME_NONE)
        return frame;
    if (!(frame & FRAME_FRESH))
        pgs_mock_frame_zero(machine, frame);
    return frame & FRAME_NUMBER;
}

/* Zeroes some frames in advance; from the poll. While they are in hand here
 * they are in no list: who needs the last frames, or counts, waits. */
void pgs_mock_zeroed_refill(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint32_t frames[ZEROED_BATCH];
    uint32_t got;
    uint32_t put = 0;

    pgs_mock_spin_lock(&pool->zeroed_lock);
    got = pool->zeroed_max - pool->zeroed_n;
    pgs_mock_spin_unlock(&pool->zeroed_lock);
    if (!got)
        return;
    pthread_mutex_lock(&pool->drain);
    got = reserve_take_global(pool, got < ZEROED_BATCH ? got : ZEROED_BATCH,
                              frames);
    for (uint32_t i = 0; i < got; i++)
        if (!(frames[i] & FRAME_FRESH))
            pgs_mock_frame_zero(machine, frames[i]);
    pgs_mock_spin_lock(&pool->zeroed_lock);
    while (put < got && pool->zeroed_n < pool->zeroed_max)
        pool->zeroed[pool->zeroed_n++] = frames[put++] & FRAME_NUMBER;
    pgs_mock_spin_unlock(&pool->zeroed_lock);
    if (put < got)
        pgs_mock_reserve_put(machine, got - put, frames + put, got - put);
    pthread_mutex_unlock(&pool->drain);
}

/* Moves frames from free memory into the reserve, or, where negative, back;
 * as many as there are. Returns how many the reserve gained. */
int64_t pgs_mock_reserve_move(struct pgshare_mock_machine *machine,
                              int64_t frames)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint64_t want = frames < 0 ? 0 - (uint64_t)frames : (uint64_t)frames;
    uint64_t *from = frames < 0 ? &pool->reserve : &pool->free;
    uint64_t *to = frames < 0 ? &pool->free : &pool->reserve;

    pthread_mutex_lock(&pool->drain);
    if (frames < 0)
        drain_shards(machine);
    pgs_mock_spin_lock(&pool->lock);
    if (want > *from)
        want = *from;
    *from -= want;
    *to += want;
    pgs_mock_spin_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->drain);
    return frames < 0 ? -(int64_t)want : (int64_t)want;
}

uint64_t pgs_mock_reserve_level(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_pool *pool = &machine->pool;
    uint64_t level = 0;

    pthread_mutex_lock(&pool->drain);
    for (unsigned i = 0; i < SHARDS; i++) {
        pgs_mock_spin_lock(&pool->shards[i].lock);
        level += pool->shards[i].n;
        pgs_mock_spin_unlock(&pool->shards[i].lock);
    }
    pgs_mock_spin_lock(&pool->zeroed_lock);
    level += pool->zeroed_n;
    pgs_mock_spin_unlock(&pool->zeroed_lock);
    pgs_mock_spin_lock(&pool->lock);
    level += pool->reserve;
    pgs_mock_spin_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->drain);
    return level;
}

void pgs_mock_reserve_drain(struct pgshare_mock_machine *machine)
{
    pthread_mutex_lock(&machine->pool.drain);
    drain_shards(machine);
    pthread_mutex_unlock(&machine->pool.drain);
}

/* Gives a frame that its only user has locked a type and a new name. */
void pgs_mock_frame_publish(struct pgshare_mock_machine *machine,
                            uint32_t frame, enum pgs_mock_type type,
                            uint32_t mappings)
{
    uint64_t record = pgs_mock_record(machine, frame);
    uint64_t version = record >> RECORD_VERSION_SHIFT;

    version = version + 1 < (uint64_t)1 << 24 ? version + 1 : 1;
    atomic_store_explicit(&machine->records[frame],
                          version << RECORD_VERSION_SHIFT |
                              (record & RECORD_PINS) |
                              (uint64_t)type << RECORD_TYPE_SHIFT | mappings,
                          memory_order_release);
}

/* One more mapping of the frame named `id`; false: there is no such frame. */
bool pgs_mock_frame_map(struct pgshare_mock_machine *machine, uint64_t id)
{
    uint32_t frame = (uint32_t)id;
    uint64_t record;

    if (frame >= machine->pool.numbers)
        return false;
    record = pgs_mock_record(machine, frame);
    do {
        if (pgs_mock_record_type(record) != TYPE_COW ||
            pgs_mock_id(record, frame) != id ||
            pgs_mock_record_mappings(record) == UINT32_MAX)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&machine->records[frame],
                                                    &record, record + 1,
                                                    memory_order_acq_rel,
                                                    memory_order_acquire));
    return true;
}

/* One mapping less. A frame that only guests without a host mapped goes with
 * the last of them. */
void pgs_mock_frame_unmap(struct pgshare_mock_machine *machine, uint32_t frame,
                          bool orphan)
{
    uint64_t record;

    if (orphan)
        atomic_fetch_sub_explicit(&machine->orphans[frame], 1,
                                  memory_order_relaxed);
    record = atomic_fetch_sub_explicit(&machine->records[frame], 1,
                                       memory_order_acq_rel);
    if (pgs_mock_record_type(record) == TYPE_ORPHAN &&
        pgs_mock_record_mappings(record) == 1) {
        pgs_mock_frame_plain(machine, frame);
        pgs_mock_free_put(machine, 1, &frame, 1);
    }
}

/* The frame becomes the private page of its only mapping, which the caller has
 * locked; false: there are others. */
bool pgs_mock_frame_retake(struct pgshare_mock_machine *machine, uint32_t frame)
{
    uint64_t record = pgs_mock_record(machine, frame);

    do {
        if (pgs_mock_record_mappings(record) != 1)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &machine->records[frame], &record,
        record >> RECORD_VERSION_SHIFT << RECORD_VERSION_SHIFT,
        memory_order_acq_rel, memory_order_acquire));
    return true;
}

/* The frame is nobody's, or an ordinary page's, from now on. */
void pgs_mock_frame_plain(struct pgshare_mock_machine *machine, uint32_t frame)
{
    uint64_t record = pgs_mock_record(machine, frame);

    atomic_store_explicit(&machine->records[frame],
                          record >> RECORD_VERSION_SHIFT
                                        << RECORD_VERSION_SHIFT,
                          memory_order_release);
}
