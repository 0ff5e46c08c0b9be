/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small guest kernel: a page allocator, the page cache of a CoW disk, and the
 * guest's end of the repayment FIFO.
 *
 * Cache pages stand in a list from the oldest to the youngest. Clean old ones
 * are what the guest offers as volatile: losing them costs a read from disk. A
 * cached block that is used again is withdrawn first; the answer says whether
 * it was reclaimed, and then it is read again.
 *
 * Declarations go by the library's calls or, where the guest has a ring, by
 * requests in it and its doorbell (pgshare_ring_kick()).
 */
#include "machine.h"

#include "base/abi.h"

#include <pgshare/declare.h>
#include <pgshare/guest_ring.h>
#include <pgshare/ring.h>

#include <stdlib.h>
#include <string.h>

#define NO_PAGE UINT32_MAX
#define NO_BLOCK UINT64_MAX

/* Flags of a page. A page with none is free. */
#define PAGE_USED 1u     /* handed out by _alloc() */
#define PAGE_CACHED 2u   /* in the page cache, and in the list */
#define PAGE_DIRTY 4u    /* changed since it was read */
#define PAGE_VOLATILE 8u /* in the FIFO */
#define PAGE_LOST 16u    /* reclaimed */

struct page {
    uint64_t block; /* NO_BLOCK: none */
    uint32_t chain; /* next of the same hash */
    uint32_t older, younger;
    uint32_t flags;
};

struct pgshare_mock_kernel {
    struct pgshare_mock_kernel *next; /* of the same domain */
    struct pgshare_mock_domain *domain;
    struct pgshare_mock_disk *disk;
    struct pgshare_guest_ring *ring;
    uint64_t first;
    uint32_t count;
    uint32_t hand; /* where the allocator looks next */
    uint32_t oldest, youngest;
    uint32_t mask; /* hash heads - 1 */
    uint16_t id;   /* of the last request */
    struct page *pages;
    uint32_t *heads;
    struct pgshare_mock_kernel_info info; /* counters */
};

static uint64_t gfn_of(const struct pgshare_mock_kernel *kernel, uint32_t i)
{
    return kernel->first + i;
}

/* The list and the hash table of cached pages */

static uint32_t *head_of(const struct pgshare_mock_kernel *kernel,
                         uint64_t block)
{
    uint64_t hash = block * UINT64_C(0x9e3779b97f4a7c15);

    return &kernel->heads[(hash >> 32) & kernel->mask];
}

static uint32_t cache_find(const struct pgshare_mock_kernel *kernel,
                           uint64_t block)
{
    uint32_t i = *head_of(kernel, block);

    while (i != NO_PAGE && kernel->pages[i].block != block)
        i = kernel->pages[i].chain;
    return i;
}

static void list_out(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    struct page *page = &kernel->pages[i];

    if (page->older == NO_PAGE)
        kernel->oldest = page->younger;
    else
        kernel->pages[page->older].younger = page->younger;
    if (page->younger == NO_PAGE)
        kernel->youngest = page->older;
    else
        kernel->pages[page->younger].older = page->older;
}

static void list_in(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    struct page *page = &kernel->pages[i];

    page->older = kernel->youngest;
    page->younger = NO_PAGE;
    if (kernel->youngest == NO_PAGE)
        kernel->oldest = i;
    else
        kernel->pages[kernel->youngest].younger = i;
    kernel->youngest = i;
}

static void hash_out(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    uint32_t *link = head_of(kernel, kernel->pages[i].block);

    while (*link != i)
        link = &kernel->pages[*link].chain;
    *link = kernel->pages[i].chain;
    kernel->pages[i].block = NO_BLOCK;
}

static void cache_in(struct pgshare_mock_kernel *kernel, uint32_t i,
                     uint64_t block)
{
    struct page *page = &kernel->pages[i];
    uint32_t *head = head_of(kernel, block);

    page->block = block;
    page->flags = PAGE_CACHED;
    page->chain = *head;
    *head = i;
    list_in(kernel, i);
    kernel->info.cached++;
}

/* Declarations */

/* A reclaimed page is told of. */
static void note_answer(struct pgshare_mock_kernel *kernel,
                        const struct pgshare_guest_ring_answer *answer)
{
    uint64_t i = answer->gfn - kernel->first;

    if (answer->op == PGSHARE_GUEST_RING_RECLAIMED && i < kernel->count &&
        kernel->pages[i].flags & PAGE_VOLATILE)
        kernel->pages[i].flags |= PAGE_LOST;
}

/* Asks by the ring, rings the doorbell, and looks for the answer. */
static int ask_ring(struct pgshare_mock_kernel *kernel, uint16_t op,
                    uint64_t gfn, uint32_t count)
{
    struct pgshare_mock_domain *domain = kernel->domain;
    struct pgshare_host *host = domain->machine->host;
    struct pgshare_guest_ring_answer answer;
    int result = PGSHARE_ERR_INPROGRESS;

    pgshare_mock_kernel_answers(kernel);
    kernel->id++;
    if (!pgshare_guest_ring_put(kernel->ring, op, gfn, count, kernel->id))
        return PGSHARE_ERR_INPROGRESS;
    if (domain->handle)
        pgshare_ring_kick(host, domain->handle);
    while (pgshare_guest_ring_take(kernel->ring, &answer)) {
        note_answer(kernel, &answer);
        if (answer.id == kernel->id && answer.op == op)
            result = answer.result;
    }
    return result;
}

static int declare(struct pgshare_mock_kernel *kernel, uint16_t op,
                   uint64_t gfn, uint32_t count)
{
    struct pgshare_mock_domain *domain = kernel->domain;
    struct pgshare_host *host = domain->machine->host;

    if (!domain->handle)
        return 0;
    if (kernel->ring)
        return ask_ring(kernel, op, gfn, count);
    switch (op) {
    case PGSHARE_GUEST_RING_PUSH:
        return pgshare_declare_volatile(host, domain->handle, gfn, count, NULL);
    case PGSHARE_GUEST_RING_WITHDRAW:
        return pgshare_declare_withdraw(host, domain->handle, gfn, count, NULL);
    case PGSHARE_GUEST_RING_FREE:
        return pgshare_mock_guest_free(domain, gfn, count);
    case PGSHARE_GUEST_RING_ALLOCATED:
        return pgshare_mock_guest_alloc(domain, gfn, count);
    default:
        return PGSHARE_ERR_INVALID;
    }
}

uint32_t pgshare_mock_kernel_answers(struct pgshare_mock_kernel *kernel)
{
    struct pgshare_guest_ring_answer answer;
    uint32_t n = 0;

    if (!kernel || !kernel->ring)
        return 0;
    while (pgshare_guest_ring_take(kernel->ring, &answer)) {
        note_answer(kernel, &answer);
        n++;
    }
    return n;
}

/* Life */

static bool kernel_init(struct pgshare_mock_kernel *kernel)
{
    uint32_t heads = 64;

    while (heads < kernel->count)
        heads *= 2;
    kernel->mask = heads - 1;
    kernel->oldest = NO_PAGE;
    kernel->youngest = NO_PAGE;
    kernel->pages = calloc(kernel->count, sizeof(*kernel->pages));
    kernel->heads = malloc(heads * sizeof(*kernel->heads));
    if (!kernel->pages || !kernel->heads)
        return false;
    memset(kernel->heads, 0xff, heads * sizeof(*kernel->heads));
    for (uint32_t i = 0; i < kernel->count; i++)
        kernel->pages[i].block = NO_BLOCK;
    return true;
}

int pgshare_mock_kernel_new(struct pgshare_mock_domain *domain,
                            const struct pgshare_mock_kernel_options *options,
                            struct pgshare_mock_kernel **ret_kernel)
{
    struct pgshare_mock_kernel_options ours = { 0 };
    struct pgshare_mock_kernel *kernel;
    int error;

    if (!domain || !options || !ret_kernel)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (error)
        return error;
    if (!pgs_mock_range_ok(domain, ours.first, ours.count) ||
        ours.count > UINT32_MAX / 2)
        return PGSHARE_ERR_RANGE;
    kernel = calloc(1, sizeof(*kernel));
    if (!kernel)
        return PGSHARE_ERR_NOMEM;
    kernel->domain = domain;
    kernel->disk = ours.disk;
    kernel->ring = ours.ring;
    kernel->first = ours.first;
    kernel->count = (uint32_t)ours.count;
    if (!kernel_init(kernel)) {
        free(kernel->pages);
        free(kernel->heads);
        free(kernel);
        return PGSHARE_ERR_NOMEM;
    }
    kernel->info.free = kernel->count;
    kernel->next = domain->kernels;
    domain->kernels = kernel;
    *ret_kernel = kernel;
    return 0;
}

struct pgshare_mock_kernel *pgshare_mock_kernel_free(
    struct pgshare_mock_kernel *kernel)
{
    struct pgshare_mock_kernel **link;

    if (!kernel)
        return NULL;
    link = &kernel->domain->kernels;
    while (*link != kernel)
        link = &(*link)->next;
    *link = kernel->next;
    free(kernel->pages);
    free(kernel->heads);
    free(kernel);
    return NULL;
}

int pgshare_mock_kernel_info(struct pgshare_mock_kernel *kernel,
                             struct pgshare_mock_kernel_info *ret_info)
{
    int error;

    if (!kernel || !ret_info)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_check_out(ret_info, sizeof(ret_info->size));
    if (!error)
        pgs_abi_out(ret_info, &kernel->info, sizeof(kernel->info));
    return error;
}

/* The allocator */

/* Writes a dirty page back. */
static int clean(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    struct page *page = &kernel->pages[i];
    int error;

    if (!(page->flags & PAGE_DIRTY))
        return 0;
    error = pgshare_mock_block_write(kernel->domain, kernel->disk, page->block,
                                     gfn_of(kernel, i), 1);
    if (!error) {
        page->flags &= ~PAGE_DIRTY;
        kernel->info.dirty--;
    }
    return error;
}

/* Takes a page out of the cache. */
static void evict(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    list_out(kernel, i);
    if (kernel->pages[i].block != NO_BLOCK)
        hash_out(kernel, i);
    kernel->pages[i].flags = 0;
    kernel->info.cached--;
    kernel->info.evicted++;
    kernel->info.free++;
}

/* Evicts the oldest page that can be. */
static int evict_one(struct pgshare_mock_kernel *kernel)
{
    uint32_t i = kernel->oldest;
    int error;

    while (i != NO_PAGE && kernel->pages[i].flags & PAGE_VOLATILE)
        i = kernel->pages[i].younger;
    if (i == NO_PAGE)
        return PGSHARE_ERR_NOFRAME;
    error = clean(kernel, i);
    if (error)
        return error;
    evict(kernel, i);
    return declare(kernel, PGSHARE_GUEST_RING_FREE, gfn_of(kernel, i), 1);
}

/* The first of `count` free pages in a row, from the hand on. */
static uint32_t find_run(struct pgshare_mock_kernel *kernel, uint64_t count)
{
    uint64_t run = 0;

    for (uint64_t n = 0; n < (uint64_t)kernel->count + count; n++) {
        uint32_t i = (uint32_t)((kernel->hand + n) % kernel->count);

        if (!i)
            run = 0; /* rows do not go round */
        run = kernel->pages[i].flags ? 0 : run + 1;
        if (run == count) {
            kernel->hand = (i + 1) % kernel->count;
            return i + 1 - (uint32_t)count;
        }
    }
    return NO_PAGE;
}

static int take_pages(struct pgshare_mock_kernel *kernel, uint64_t count,
                      uint32_t *ret_page)
{
    uint32_t i = find_run(kernel, count);
    int error;

    while (i == NO_PAGE) {
        error = evict_one(kernel);
        if (error)
            return error;
        i = kernel->info.free >= count ? find_run(kernel, count) : NO_PAGE;
    }
    error = declare(kernel, PGSHARE_GUEST_RING_ALLOCATED, gfn_of(kernel, i),
                    (uint32_t)count);
    if (error)
        return error;
    for (uint64_t j = 0; j < count; j++)
        kernel->pages[i + j].flags = PAGE_USED;
    kernel->info.free -= count;
    *ret_page = i;
    return 0;
}

int pgshare_mock_kernel_alloc(struct pgshare_mock_kernel *kernel,
                              uint64_t count, uint64_t *ret_gfn)
{
    uint32_t i;
    int error;

    if (!kernel || !ret_gfn || !count)
        return PGSHARE_ERR_INVALID;
    if (count > kernel->count)
        return PGSHARE_ERR_NOFRAME;
    error = take_pages(kernel, count, &i);
    if (!error)
        *ret_gfn = gfn_of(kernel, i);
    return error;
}

int pgshare_mock_kernel_release(struct pgshare_mock_kernel *kernel,
                                uint64_t gfn, uint64_t count)
{
    if (!kernel || gfn < kernel->first || count > kernel->count ||
        gfn - kernel->first > kernel->count - count)
        return PGSHARE_ERR_INVALID;
    for (uint64_t i = 0; i < count; i++)
        if (kernel->pages[gfn - kernel->first + i].flags != PAGE_USED)
            return PGSHARE_ERR_STATE;
    for (uint64_t i = 0; i < count; i++)
        kernel->pages[gfn - kernel->first + i].flags = 0;
    kernel->info.free += count;
    return declare(kernel, PGSHARE_GUEST_RING_FREE, gfn, (uint32_t)count);
}

/* The page cache */

/* Reads a block into a page that was taken. */
static int fill_new(struct pgshare_mock_kernel *kernel, uint64_t block,
                    uint32_t *ret_page)
{
    uint32_t i;
    int error = take_pages(kernel, 1, &i);

    if (error)
        return error;
    error = pgshare_mock_block_read(kernel->domain, kernel->disk, block,
                                    gfn_of(kernel, i), 1);
    if (error) {
        kernel->pages[i].flags = 0;
        kernel->info.free++;
        declare(kernel, PGSHARE_GUEST_RING_FREE, gfn_of(kernel, i), 1);
        return error;
    }
    cache_in(kernel, i, block);
    kernel->info.misses++;
    *ret_page = i;
    return 0;
}

/* A reclaimed page gets memory, by being touched, and its block again. */
static int refill(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    uint64_t gfn = gfn_of(kernel, i);
    int error = pgshare_mock_write(kernel->domain, gfn, 0, "", 1);

    if (!error)
        error = pgshare_mock_block_read(kernel->domain, kernel->disk,
                                        kernel->pages[i].block, gfn, 1);
    if (error)
        return error;
    kernel->pages[i].flags &= ~PAGE_LOST;
    kernel->info.reclaimed++;
    return 0;
}

/* Takes a cached page out of the FIFO, so that it may be used. */
static int withdraw(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    struct page *page = &kernel->pages[i];
    int error;

    if (page->flags & PAGE_VOLATILE) {
        error = declare(kernel, PGSHARE_GUEST_RING_WITHDRAW, gfn_of(kernel, i),
                        1);
        if (error == PGSHARE_ERR_OWED) {
            /* It stays there; the block needs another page. */
            hash_out(kernel, i);
            return error;
        }
        if (error && error != PGSHARE_ERR_RECLAIMED &&
            !(error == PGSHARE_ERR_STATE && page->flags & PAGE_LOST))
            return error;
        page->flags &= ~PAGE_VOLATILE;
        kernel->info.volatile_--;
        kernel->info.withdrawn++;
        if (error)
            page->flags |= PAGE_LOST;
        else
            page->flags &= ~PAGE_LOST;
    }
    return page->flags & PAGE_LOST ? refill(kernel, i) : 0;
}

int pgshare_mock_kernel_read(struct pgshare_mock_kernel *kernel, uint64_t block,
                             uint64_t *ret_gfn)
{
    uint32_t i;
    int error = 0;

    if (!kernel || !kernel->disk || block == NO_BLOCK)
        return PGSHARE_ERR_INVALID;
    i = cache_find(kernel, block);
    if (i != NO_PAGE) {
        error = withdraw(kernel, i);
        if (error == PGSHARE_ERR_OWED)
            i = NO_PAGE;
        else if (error)
            return error;
    }
    if (i == NO_PAGE) {
        error = fill_new(kernel, block, &i);
        if (error)
            return error;
    } else {
        kernel->info.hits++;
        list_out(kernel, i);
        list_in(kernel, i);
    }
    if (ret_gfn)
        *ret_gfn = gfn_of(kernel, i);
    return 0;
}

int pgshare_mock_kernel_write(struct pgshare_mock_kernel *kernel,
                              uint64_t block, uint32_t offset,
                              const void *bytes, uint32_t len)
{
    struct page *page;
    uint64_t gfn;
    int error;

    if (offset > PGSHARE_PAGE_SIZE || len > PGSHARE_PAGE_SIZE - offset)
        return PGSHARE_ERR_RANGE;
    error = pgshare_mock_kernel_read(kernel, block, &gfn);
    if (error)
        return error;
    error = pgshare_mock_write(kernel->domain, gfn, offset, bytes, len);
    page = &kernel->pages[gfn - kernel->first];
    if ((!error || error == PGSHARE_ERR_INPROGRESS) &&
        !(page->flags & PAGE_DIRTY)) {
        page->flags |= PAGE_DIRTY;
        kernel->info.dirty++;
    }
    return error;
}

int pgshare_mock_kernel_sync(struct pgshare_mock_kernel *kernel)
{
    int error = 0;

    if (!kernel)
        return PGSHARE_ERR_INVALID;
    for (uint32_t i = kernel->oldest; !error && i != NO_PAGE;
         i = kernel->pages[i].younger)
        error = clean(kernel, i);
    return error;
}

/* A volatile page must be private: the guest touches it. */
static int offer_one(struct pgshare_mock_kernel *kernel, uint32_t i)
{
    uint64_t gfn = gfn_of(kernel, i);
    unsigned char byte;
    int error = pgshare_mock_read(kernel->domain, gfn, 0, &byte, 1);

    if (!error)
        error = pgshare_mock_write(kernel->domain, gfn, 0, &byte, 1);
    if (!error)
        error = declare(kernel, PGSHARE_GUEST_RING_PUSH, gfn, 1);
    if (!error) {
        kernel->pages[i].flags |= PAGE_VOLATILE;
        kernel->info.volatile_++;
        kernel->info.pushed++;
    }
    return error;
}

int pgshare_mock_kernel_offer(struct pgshare_mock_kernel *kernel,
                              uint64_t count, uint64_t *ret_pushed)
{
    uint64_t pushed = 0;
    int error = 0;

    if (!kernel)
        return PGSHARE_ERR_INVALID;
    for (uint32_t i = kernel->oldest; i != NO_PAGE && pushed < count;
         i = kernel->pages[i].younger) {
        if (kernel->pages[i].flags & (PAGE_DIRTY | PAGE_VOLATILE))
            continue;
        error = offer_one(kernel, i);
        if (!error)
            pushed++;
        else if (error != PGSHARE_ERR_BUSY && error != PGSHARE_ERR_STATE &&
                 error != PGSHARE_ERR_INPROGRESS)
            break;
        else
            error = 0; /* this one cannot be now */
    }
    if (ret_pushed)
        *ret_pushed = pushed;
    return error;
}
