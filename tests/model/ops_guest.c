/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What guests and their devices do with memory.
 */
#include "world.h"

#include <inttypes.h>
#include <string.h>

static bool is_platform(const struct world *w)
{
    return w->header[0] % 4 != PGSHARE_MOCK_PLAIN;
}

/* May the guest's vCPUs run? */
static bool may_run(struct world *w, const struct record *r)
{
    const struct guest *g = r->guest;

    return g->mock && !g->dead && !g->stub && !g->leaving &&
           !(g->pages[r->at].flags & P_GOING) &&
           op_may_use(w, r, r->count);
}

/* A stub must not run; what it may try is to write where that traps, and where
 * no unshare is about to make it writable. */
static bool may_write(struct world *w, const struct record *r)
{
    struct pgshare_mock_page mock = { .size = sizeof(mock) };
    const struct guest *g = r->guest;

    if (!may_run(w, r))
        return false;
    if (!g->frozen)
        return true;
    return !is_platform(w) &&
           !(check_info(w, g, r->at).flags & PGSHARE_GFN_IN_FLIGHT) &&
           !pgshare_mock_page(g->mock, op_gfn(r), &mock) &&
           (mock.state == PGSHARE_MOCK_SHARED ||
            mock.state == PGSHARE_MOCK_ZERO);
}

static uint64_t write_errors(const struct guest *g, const struct page *page)
{
    uint64_t legal = E(INPROGRESS);

    if (page->flags & (P_READ_ONLY | P_READ_ONLY_MAYBE) || g->frozen)
        legal |= E(READONLY);
    if (!(page->flags & P_PRESENT) || page->flags & (P_MAYBE | P_RECLAIMED))
        legal |= E(HOLE); /* a domain that has left forgets what paid */
    return legal;
}

static void guest_write(struct world *w, const struct record *r,
                        uint32_t offset, const void *bytes, uint32_t len)
{
    struct guest *g = r->guest;
    struct page *page = &g->pages[r->at];
    uint32_t flags = page->flags;
    int error;

    world_say(w, "write %u:%" PRIu64 " +%u %u bytes", r->a % DOMAINS,
              op_gfn(r), offset, len);
    op_mine(w, g, op_gfn(r), 1);
    error = pgshare_mock_write(g->mock, op_gfn(r), offset, bytes, len);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, write_errors(g, page));
    if (error && error != PGSHARE_ERR_INPROGRESS)
        return;
    if (!error && (flags & P_READ_ONLY || g->frozen) && op_is_in(g))
        world_fail(w, "a write to read-only memory was done");
    if (!error && !(flags & (P_PRESENT | P_MAYBE)))
        world_fail(w, "a write to a hole was done");
    if (error)
        page->flags |= P_UNSURE;
    if (error && g->frozen)
        return; /* will be dropped */
    model_write(page, offset, bytes, len);
    if (!error)
        page->flags &= ~(uint32_t)P_RECLAIMED;
}

void op_write(struct world *w, const struct record *r)
{
    uint8_t bytes[64];

    if (!may_write(w, r))
        return;
    memset(bytes, r->b, sizeof(bytes));
    guest_write(w, r, r->c * 15u, bytes, 1 + r->d % 64);
}

void op_write_page(struct world *w, const struct record *r)
{
    uint8_t page[PGSHARE_PAGE_SIZE];

    if (!may_write(w, r))
        return;
    world_pattern(r->b % PATTERNS, page);
    guest_write(w, r, 0, page, PGSHARE_PAGE_SIZE);
}

/* The same content, or consecutive ones, in a row. */
void op_write_many(struct world *w, const struct record *r)
{
    struct record one = *r;

    for (uint32_t i = 0; i < r->count; i++) {
        one.at = r->at + i;
        one.count = 1;
        one.b = (uint8_t)(r->b + (r->c & 1 ? i : 0));
        op_write_page(w, &one);
    }
}

void op_read(struct world *w, const struct record *r)
{
    /* what an operation is about to change, the guest does not look at */
    if (!r->guest->mock || !op_may_use(w, r, r->count))
        return;
    for (uint32_t i = 0; i < r->count; i++)
        check_page(w, r->guest, r->at + i, false);
}

/* May a device use all these pages? */
static bool may_transfer(struct world *w, const struct record *r,
                         uint32_t count, uint32_t not)
{
    if (!may_run(w, r) || r->guest->frozen)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (r->guest->pages[r->at + i].flags & (P_UNSURE | P_GOING | not))
            return false;
    return true;
}

static uint64_t device_errors(const struct record *r, uint32_t count)
{
    uint64_t legal = E(NOFRAME) | E(INPROGRESS) | E(BUSY);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t flags = r->guest->pages[r->at + i].flags;

        if (!(flags & P_PRESENT) ||
            flags & (P_MAYBE | P_VOLATILE | P_RECLAIMED))
            legal |= E(HOLE);
        if (flags & (P_READ_ONLY | P_READ_ONLY_MAYBE))
            legal |= E(READONLY);
    }
    return legal;
}

void op_block_read(struct world *w, const struct record *r)
{
    uint32_t n = r->count > 6 ? 6 : r->count, block = r->b % (BLOCKS - 6);
    struct guest *g = r->guest;
    int error;

    if (w->in_hook || !may_transfer(w, r, n, 0))
        return;
    world_say(w, "block read %u:%" PRIu64 "+%u of block %u",
              (unsigned)(g - w->guests), op_gfn(r), n, block);
    model_holds(g, op_gfn(r), n);
    op_mine(w, g, op_gfn(r), n);
    error = pgshare_mock_block_read(g->mock, w->disk, block, op_gfn(r), n);
    op_mine(w, NULL, 0, 0);
    world_say(w, "  %s", pgshare_error_name(error));
    w->devices += error == PGSHARE_ERR_INPROGRESS;
    world_expect(w, error, device_errors(r, n));
    for (uint32_t i = 0; i < n; i++) {
        struct page *page = &g->pages[r->at + i];
        uint8_t bytes[PGSHARE_PAGE_SIZE];

        pgshare_mock_block_peek(g->mock, w->disk, block + i, bytes);
        if (!error || !pgshare_mock_compare(g->mock, g->base + r->at + i, 0,
                                            bytes, sizeof(bytes)))
            model_write(page, 0, bytes, sizeof(bytes));
        if (error) /* some may have been read, others emptied for that */
            page->flags |= P_LOOSE;
        if (error == PGSHARE_ERR_INPROGRESS)
            page->flags |= P_DEVICE;
    }
}

void op_block_write(struct world *w, const struct record *r)
{
    uint32_t n = r->count > 3 ? 3 : r->count;
    struct guest *g = r->guest;
    uint32_t block = r->b % (BLOCKS - 3);

    if (w->in_hook || !may_transfer(w, r, n, 0))
        return;
    world_say(w, "block write %u:%" PRIu64 "+%u to block %u",
              (unsigned)(g - w->guests), op_gfn(r), n, block);
    model_holds(g, op_gfn(r), n);
    world_expect(w, pgshare_mock_block_write(g->mock, w->disk, block,
                                             op_gfn(r), n),
                 device_errors(r, n));
}

/* A transfer that lasts while the library runs. */
void op_dma(struct world *w, const struct record *r)
{
    const uint32_t not = P_FREE | P_VOLATILE | P_OVER | P_MAYBE;
    uint32_t n = r->count > 4 ? 4 : r->count;
    struct guest *g = r->guest;
    struct pgshare_mock_dma dma;
    uint8_t bytes[64];
    int error;

    if (w->in_hook || !may_transfer(w, r, n, not))
        return;
    world_say(w, "DMA %u:%" PRIu64 "+%u%s", (unsigned)(g - w->guests),
              op_gfn(r), n, r->b & 1 ? " declared" : "");
    op_mine(w, g, op_gfn(r), n);
    error = pgshare_mock_dma_begin(g->mock, op_gfn(r), n,
                                   r->b & 1 ? PGSHARE_MOCK_DMA_DECLARED : 0,
                                   &dma);
    w->devices += error == PGSHARE_ERR_INPROGRESS;
    world_expect(w, error, device_errors(r, n));
    if (!error) {
        if (r->b & 2)
            pgshare_host_run(w->host, NULL, NULL);
        memset(bytes, r->c, sizeof(bytes));
        for (uint32_t i = 0; i < n; i++) {
            error = pgshare_mock_dma_write(
                &dma, i * PGSHARE_PAGE_SIZE + r->d * 15u, bytes,
                sizeof(bytes));
            if (error)
                world_fail(w, "DMA into GFN %" PRIu64 ": %s", op_gfn(r) + i,
                           pgshare_error_name(error));
            model_write(&g->pages[r->at + i], r->d * 15u, bytes,
                        sizeof(bytes));
        }
        pgshare_mock_dma_end(&dma);
    }
    op_mine(w, NULL, 0, 0);
}

/* ---- memory comes and goes --------------------------------------------- */

static bool may_change(struct world *w, const struct record *r)
{
    /* what a request in the ring will find there must not change */
    return !w->in_hook && r->guest->mock && !r->guest->dead &&
           !r->guest->ring_open && !r->guest->frozen && !r->guest->stub && !r->guest->leaving;
}

/* The guest drops pages by itself: what it hit shows afterwards. */
void op_drop(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;

    /* a guest that promised its pages keeps them; and what an operation works
     * on this instant, it leaves alone */
    if (!may_change(w, r) ||
        !may_transfer(w, r, r->count, P_MAYBE | P_VOLATILE))
        return;
    for (uint32_t i = r->at; i < r->at + r->count; i++)
        if (check_info(w, g, i).flags & PGSHARE_GFN_IN_FLIGHT)
            return;
    world_say(w, "drop %u:%" PRIu64 "+%u%s", (unsigned)(g - w->guests),
              op_gfn(r), r->count, r->b & 1 ? ", holes" : "");
    op_mine(w, g, op_gfn(r), r->count);
    if (pgshare_mock_drop(g->mock, op_gfn(r), r->count, r->b & 1))
        world_fail(w, "cannot drop");
    op_mine(w, NULL, 0, 0);
    for (uint32_t i = r->at; i < r->at + r->count; i++) {
        struct pgshare_mock_page mock = { .size = sizeof(mock) };
        struct page *page = &g->pages[i];
        uint8_t found[PGSHARE_PAGE_SIZE] = { 1 };

        pgshare_mock_page(g->mock, g->base + i, &mock);
        if (mock.state == PGSHARE_MOCK_HOLE) {
            if (page->flags & P_PRESENT && !(r->b & 1))
                world_fail(w, "dropped more than was asked");
            model_hole(page);
            continue;
        }
        pgshare_mock_read(g->mock, g->base + i, 0, found, sizeof(found));
        if (!found[0] && !memcmp(found, found + 1, sizeof(found) - 1))
            model_zero(page);
    }
}

void op_populate(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;
    uint64_t legal = E(NOFRAME);
    int error;

    if (!may_change(w, r) || world_info(w).parked)
        return; /* a write that waits might find memory after all */
    world_say(w, "populate %u:%" PRIu64 "+%u", (unsigned)(g - w->guests),
              op_gfn(r), r->count);
    legal |= E(EXISTS); /* a hole that the library has not heard of yet */
    legal |= E(BUSY);   /* an operation whose answer does not come has one */
    op_mine(w, g, op_gfn(r), r->count);
    error = pgshare_mock_populate(g->mock, op_gfn(r), r->count);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, legal);
    for (uint32_t i = r->at; !error && i < r->at + r->count; i++) {
        struct page *page = &g->pages[i];

        if (page->flags & P_PRESENT &&
            !(page->flags &
              (P_RECLAIMED | P_VOLATILE | P_MAYBE | P_GOING)))
            world_fail(w, "memory was put where some is");
        model_hole(page);
        page->flags |= P_PRESENT;
        model_zero(page);
    }
}

static void depopulate_page(struct world *w, struct guest *g, uint32_t i)
{
    struct page *page = &g->pages[i];
    bool held = op_is_in(g) && model_is_held(w, g, g->base + i, false);
    int error;

    world_say(w, "depopulate %u:%" PRIu64, (unsigned)(g - w->guests),
              g->base + i);
    op_mine(w, g, g->base + i, 1);
    error = pgshare_mock_depopulate(g->mock, g->base + i, 1);
    op_mine(w, NULL, 0, 0);
    world_say(w, "  %s", pgshare_error_name(error));
    world_expect(w, error, E(BUSY) | E(OWED) | E(INPROGRESS));
    if (!error && held)
        world_fail(w, "a page that is held was taken away");
    if (error == PGSHARE_ERR_OWED && !(page->flags & P_VOLATILE))
        world_fail(w, "a page that is not volatile secures something");
    if (!error) {
        model_hole(page);
    } else if (error != PGSHARE_ERR_BUSY && error != PGSHARE_ERR_OWED) {
        page->flags |= P_GOING;
    } else if (page->flags & P_GOING &&
               !(op_is_in(g) && check_info(w, g, i).flags &
                                    PGSHARE_GFN_IN_FLIGHT)) {
        /* it was refused, and not because its removal goes on */
        page->flags &= ~(uint32_t)P_GOING;
        page->flags |= P_MAYBE;
        pgshare_mock_read(g->mock, g->base + i, 0, page->bytes,
                          sizeof(page->bytes));
    }
}

void op_depopulate(struct world *w, const struct record *r)
{
    struct guest *g = r->guest;

    if (!may_change(w, r) || !may_transfer(w, r, r->count, P_MAYBE))
        return;
    for (uint32_t i = r->at; i < r->at + r->count; i++)
        depopulate_page(w, g, i);
}

void depopulate_again(struct world *w)
{
    for (unsigned k = 0; k < DOMAINS; k++) {
        struct guest *g = &w->guests[k];

        for (uint32_t i = 0; g->mock && !g->leaving && i < PAGES; i++)
            if (g->pages[i].flags & P_GOING && !g->dead)
                depopulate_page(w, g, i);
    }
}

/* The guest zeroes free pages, as its kernel may. */
void op_scrub_write(struct world *w, const struct record *r)
{
    static const uint8_t zeroes[PGSHARE_PAGE_SIZE];
    struct guest *g = r->guest;
    int error;

    if (w->in_hook || !may_write(w, r) || g->frozen ||
        !(g->pages[r->at].flags & P_FREE))
        return;
    world_say(w, "scrub %u:%" PRIu64, (unsigned)(g - w->guests), op_gfn(r));
    op_mine(w, g, op_gfn(r), 1);
    error = pgshare_mock_guest_scrub(g->mock, op_gfn(r), 1);
    op_mine(w, NULL, 0, 0);
    world_expect(w, error, write_errors(g, &g->pages[r->at]) | E(STATE));
    if (!error) {
        model_write(&g->pages[r->at], 0, zeroes, sizeof(zeroes));
        g->pages[r->at].flags &= ~(uint32_t)P_RECLAIMED;
        if (world_info(w).parked)
            g->pages[r->at].flags |= P_UNSURE;
    }
}
