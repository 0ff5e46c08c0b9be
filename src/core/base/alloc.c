/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The heap is the one gate through which metadata memory comes and goes. It
 * multiplies with a check, asks for zeroes, and adds up; everything else is
 * the allocator's business.
 *
 * The libc allocator has to give zeroed, cache-line aligned tables that cost
 * nothing until they are touched: a table for 16 TiB is reserved on a laptop.
 * calloc() is lazy but aligns to 16 bytes only; posix_memalign() aligns but
 * does not zero, and memset() would touch all. So blocks from LARGE on are
 * mapped from the kernel directly. free() is told the size it allocated, and
 * the size alone decides which of the two kinds a block is: no header, no
 * guess. Such blocks also go back to the system at once when they are freed.
 *
 * What will be dense asks for huge pages: a table that is read at random misses
 * the TLB less, and one fault brings what 512 would. How far a kernel goes to
 * find some (it may move other memory first) is the administrator's setting; one
 * that has none gives small pages, and no word of it.
 */
#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LARGE ((size_t)128 << 10)
/* A huge page, where the kernel has such. */
#define HUGE ((size_t)2 << 20)
/* What every mapping is aligned to, on any machine. */
#define MAPPED_ALIGN ((size_t)4096)
/* What malloc() aligns to. */
#define MALLOC_ALIGN _Alignof(max_align_t)

/* A mapping has no alignment beyond a page's: map more, cut both ends off. */
static void *map_aligned(size_t bytes, size_t align)
{
    size_t extra = align > MAPPED_ALIGN ? align : 0;
    size_t before;
    char *base;

    if (bytes > SIZE_MAX - extra - MAPPED_ALIGN)
        return NULL;
    bytes = (bytes + MAPPED_ALIGN - 1) & ~(MAPPED_ALIGN - 1);
    base = mmap(NULL, bytes + extra, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (extra == 0)
        return base;
    before = -(uintptr_t)base & (align - 1);
    if (before > 0)
        munmap(base, before);
    if (extra > before)
        munmap(base + before + bytes, extra - before);
    return base + before;
}

static void *map_dense(size_t bytes, size_t align)
{
    void *ptr = map_aligned(bytes, align < HUGE ? HUGE : align);

    if (ptr)
        madvise(ptr, bytes, MADV_HUGEPAGE);
    return ptr;
}

static void *libc_alloc(void *ctx, size_t bytes, size_t align, uint32_t flags)
{
    bool zero = flags & PGSHARE_ALLOC_ZERO;
    void *ptr;

    assert(bytes > 0);
    assert(align >= 8 && pgs_is_power_of_two(align));
    if (bytes >= HUGE && flags & PGSHARE_ALLOC_DENSE)
        return map_dense(bytes, align);
    if (bytes >= LARGE)
        return map_aligned(bytes, align);
    if (align <= MALLOC_ALIGN)
        return zero ? calloc(1, bytes) : malloc(bytes);
    if (posix_memalign(&ptr, align, bytes) != 0)
        return NULL;
    return zero ? memset(ptr, 0, bytes) : ptr;
}

static void libc_free(void *ctx, void *ptr, size_t bytes)
{
    assert(ptr != NULL);
    assert(bytes > 0);
    if (bytes >= LARGE)
        munmap(ptr, (bytes + MAPPED_ALIGN - 1) & ~(MAPPED_ALIGN - 1));
    else
        free(ptr);
}

struct pgshare_allocator pgs_allocator_libc(void)
{
    return (struct pgshare_allocator){
        .size = sizeof(struct pgshare_allocator),
        .alloc = libc_alloc,
        .free = libc_free,
    };
}

void pgs_heap_init(struct pgs_heap *heap,
                   const struct pgshare_allocator *allocator)
{
    assert(heap != NULL);
    assert(!allocator || (allocator->alloc && allocator->free));
    heap->allocator = allocator ? *allocator : pgs_allocator_libc();
    atomic_init(&heap->bytes, 0);
    atomic_init(&heap->large, false);
}

static void *take(struct pgs_heap *heap, size_t n, size_t size, size_t align,
                  uint32_t flags)
{
    size_t bytes;
    void *ptr;

    assert(n > 0 && size > 0);
    assert(pgs_is_power_of_two(align));
    if (n > SIZE_MAX / size)
        return NULL;
    bytes = n * size;
    ptr = heap->allocator.alloc(heap->allocator.ctx, bytes,
                                align < 8 ? 8 : align,
                                PGSHARE_ALLOC_ZERO | flags);
    if (!ptr)
        return NULL;
    assert(((uintptr_t)ptr & (align - 1)) == 0);
    atomic_fetch_add_explicit(&heap->bytes, bytes, memory_order_relaxed);
    return ptr;
}

void *pgs_heap_zalloc(struct pgs_heap *heap, size_t n, size_t size,
                      size_t align)
{
    return take(heap, n, size, align, 0);
}

void *pgs_heap_zalloc_dense(struct pgs_heap *heap, size_t n, size_t size,
                            size_t align)
{
    return take(heap, n, size, align, PGSHARE_ALLOC_DENSE);
}

void pgs_heap_free(struct pgs_heap *heap, void *ptr, size_t n, size_t size)
{
    size_t bytes = n * size;
    uint64_t before;

    if (!ptr)
        return;
    assert(n > 0 && size > 0 && n <= SIZE_MAX / size);
    heap->allocator.free(heap->allocator.ctx, ptr, bytes);
    before = atomic_fetch_sub_explicit(&heap->bytes, bytes,
                                       memory_order_relaxed);
    assert(before >= bytes);
    (void)before;
}

void pgs_heap_move(struct pgs_heap *to, const struct pgs_heap *from)
{
    to->allocator = from->allocator;
    atomic_init(&to->bytes,
                atomic_load_explicit(&from->bytes, memory_order_relaxed));
    atomic_init(&to->large,
                atomic_load_explicit(&from->large, memory_order_relaxed));
}
