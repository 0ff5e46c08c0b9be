/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whatever a guest does is done twice: by the mock guest, whose memory the
 * library works on, and by the shadow copy, which knows nothing of it.
 *
 * The mock's kernel decides which page caches a block, and which volatile page
 * it takes up again; the shadow follows by what the kernel answers. A block
 * that had to move, since its page secures a claim, reads as it did before.
 */
#include "guest.h"

#include "demo.h"

#include <pgshare/guest_ring.h>

#include <stdlib.h>
#include <string.h>

#define TRIES 64
#define NO_GFN UINT64_MAX
/* What a disk takes for a block, on the machine's clock. */
#define BLOCK_NS UINT64_C(20000)

uint64_t guest_random(struct guest *guest, uint64_t n)
{
    uint64_t x = guest->rng += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % n;
}

int guest_boot(struct guest *guest, uint64_t zone, bool with_ring)
{
    struct demo *demo = guest->demo;
    struct pgshare_mock_kernel_options options = {
        .size = sizeof(options),
        .first = zone,
        .count = guest->ram - zone,
        .disk = demo->disk,
    };
    int error = 0;

    guest->zone = zone;
    guest->gfn_of = malloc(demo->content.blocks * sizeof(*guest->gfn_of));
    if (!guest->gfn_of)
        return complain(PGSHARE_ERR_NOMEM, "%s", guest->name);
    memset(guest->gfn_of, 0xff, demo->content.blocks * sizeof(*guest->gfn_of));
    if (with_ring) {
        guest->ring = aligned_alloc(PGSHARE_PAGE_SIZE, PGSHARE_PAGE_SIZE);
        if (!guest->ring)
            return complain(PGSHARE_ERR_NOMEM, "%s: ring", guest->name);
        memset(guest->ring, 0, PGSHARE_PAGE_SIZE);
        pgshare_guest_ring_init(guest->ring);
        error = pgshare_ring_attach(demo->host, guest->dom, guest->ring,
                                    PGSHARE_PAGE_SIZE);
        options.ring = guest->ring;
    }
    if (!error)
        error = pgshare_mock_kernel_new(guest->domain, &options,
                                        &guest->kernel);
    return error ? complain(error, "%s: boot", guest->name) : 0;
}

void guest_fini(struct guest *guest)
{
    guest->bonus = pgshare_mock_kernel_free(guest->bonus);
    guest->kernel = pgshare_mock_kernel_free(guest->kernel);
    if (guest->ring)
        pgshare_ring_detach(guest->demo->host, guest->dom);
    free(guest->ring);
    guest->ring = NULL;
    free(guest->gfn_of);
    guest->gfn_of = NULL;
}

/* An operation that has to wait for the library is tried again. */
static bool again(struct guest *guest, int error, int *tries)
{
    if (error != PGSHARE_ERR_INPROGRESS && error != PGSHARE_ERR_BUSY)
        return false;
    return ++*tries < TRIES && !demo_tick(guest->demo);
}

int guest_read(struct guest *guest, struct pgshare_mock_kernel *kernel,
               uint64_t block, uint64_t *ret_gfn)
{
    uint64_t gfn, before = guest->gfn_of[block];
    int error, tries = 0;

    do
        error = pgshare_mock_kernel_read(kernel, block, &gfn);
    while (again(guest, error, &tries));
    if (error)
        return complain(error, "%s: reading block %llu", guest->name,
                        (unsigned long long)block);
    if (before == NO_GFN)
        shadow_borrow(&guest->shadow, gfn,
                      content_block(&guest->demo->content, block));
    else if (before != gfn)
        error = shadow_copy(&guest->shadow, gfn, &guest->shadow, before);
    shadow_clear(&guest->shadow, gfn, 1, SHADOW_FREE | SHADOW_OFFERED);
    guest->gfn_of[block] = gfn;
    pgshare_mock_clock_advance(guest->demo->machine, BLOCK_NS);
    if (ret_gfn)
        *ret_gfn = gfn;
    return error ? complain(error, "%s: shadow", guest->name) : 0;
}

int guest_edit(struct guest *guest, uint64_t block, uint32_t offset,
               const void *bytes, uint32_t len)
{
    uint64_t gfn;
    int tries = 0, error = guest_read(guest, guest->kernel, block, &gfn);

    if (error)
        return error;
    do
        error = pgshare_mock_kernel_write(guest->kernel, block, offset, bytes,
                                          len);
    while (error == PGSHARE_ERR_BUSY && again(guest, error, &tries));
    if (!error || error == PGSHARE_ERR_INPROGRESS)
        error = shadow_write(&guest->shadow, gfn, offset, bytes, len);
    return error ? complain(error, "%s: editing block %llu", guest->name,
                            (unsigned long long)block)
                 : 0;
}

int guest_alloc(struct guest *guest, uint64_t count, uint64_t *ret_gfn)
{
    struct shadow_verdict *verdict = &guest->demo->content_verdict;
    uint64_t gfn;
    int error, tries = 0;

    do
        error = pgshare_mock_kernel_alloc(guest->kernel, count, &gfn);
    while (again(guest, error, &tries));
    if (error)
        return complain(error, "%s: allocating %llu pages", guest->name,
                        (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++)
        if (!shadow_adopt(&guest->shadow, guest->domain, gfn + i))
            verdict->wrong++;
    *ret_gfn = gfn;
    return 0;
}

int guest_release(struct guest *guest, uint64_t gfn, uint64_t count)
{
    int error = pgshare_mock_kernel_release(guest->kernel, gfn, count);

    if (error)
        return complain(error, "%s: freeing", guest->name);
    shadow_set(&guest->shadow, gfn, count, SHADOW_FREE);
    return 0;
}

int guest_write(struct guest *guest, uint64_t gfn, uint32_t offset,
                const void *bytes, uint32_t len)
{
    int error, tries = 0;

    do
        error = pgshare_mock_write(guest->domain, gfn, offset, bytes, len);
    while (error == PGSHARE_ERR_BUSY && again(guest, error, &tries));
    if (!error || error == PGSHARE_ERR_INPROGRESS) /* parked, will be done */
        error = shadow_write(&guest->shadow, gfn, offset, bytes, len);
    return error ? complain(error, "%s: writing page %llu", guest->name,
                            (unsigned long long)gfn)
                 : 0;
}

int guest_write_page(struct guest *guest, uint64_t gfn, const void *page)
{
    int error, tries = 0;

    do
        error = pgshare_mock_write_page(guest->domain, gfn, page);
    while (error == PGSHARE_ERR_BUSY && again(guest, error, &tries));
    if (!error || error == PGSHARE_ERR_INPROGRESS)
        error = shadow_write(&guest->shadow, gfn, 0, page, PGSHARE_PAGE_SIZE);
    return error ? complain(error, "%s: writing page %llu", guest->name,
                            (unsigned long long)gfn)
                 : 0;
}

int guest_offer(struct guest *guest, uint64_t count, uint64_t *ret_offered)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    struct demo *demo = guest->demo;
    int error = pgshare_mock_kernel_offer(guest->kernel, count, ret_offered);

    for (uint64_t gfn = guest->zone; !error && gfn < guest->ram; gfn++) {
        error = pgshare_gfn_info(demo->host, guest->dom, gfn, &info);
        if (info.flags & PGSHARE_GFN_VOLATILE)
            shadow_set(&guest->shadow, gfn, 1, SHADOW_OFFERED);
    }
    return error ? complain(error, "%s: offering pages", guest->name) : 0;
}
