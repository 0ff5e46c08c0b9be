/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hostile guest ring. The input is a list of what the guest does to the page
 * that it shares with its host: bytes written anywhere, words set, well-formed
 * requests, doorbells. Whatever it does, the host serves it or drops it,
 * touches only its own half, and keeps every other guest's memory and its own
 * books in order.
 */
#include "fuzz.h"

#include <pgshare/guest_ring.h>
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 32u

#define MUST(what)   \
    do {             \
        if (!(what)) \
            abort(); \
    } while (0)

struct place {
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    struct pgshare_mock_domain *guest, *other;
    uint64_t dom;
    union {
        struct pgshare_guest_ring ring;
        uint8_t bytes[PGSHARE_PAGE_SIZE];
    } *page;
    uint32_t answer_head; /* as the host left them */
    uint32_t request_tail;
    bool attached;
};

static void fill(void *ctx, uint64_t gfn, void *ret_page)
{
    (void)ctx;
    memset(ret_page, 1 + (int)(gfn % 4), PGSHARE_PAGE_SIZE);
}

static struct pgshare_mock_domain *guest_new(struct place *place,
                                             uint64_t group)
{
    struct pgshare_mock_domain *guest;

    MUST(!pgshare_mock_domain_new(place->machine, PAGES, NULL, &guest));
    MUST(!pgshare_mock_populate(guest, 0, PAGES));
    MUST(!pgshare_mock_join(guest, place->host, group));
    MUST(!pgshare_mock_fill(guest, 0, PAGES, fill, NULL));
    return guest;
}

static void on_report(void *ctx, const struct pgshare_report *report)
{
    struct place *place = ctx;

    if (report->kind == PGSHARE_REPORT_RING_DETACHED)
        place->attached = false;
}

static void place_make(struct place *place)
{
    struct pgshare_mock_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID,
        .frames = 4 * PAGES,
    };
    struct pgshare_host_options host = {
        .size = sizeof(host),
        .report = on_report,
        .ctx = place,
    };
    uint64_t group;
    void *page;

    MUST(!pgshare_mock_machine_new(&options, &place->machine));
    host.platform = pgshare_mock_platform(place->machine);
    MUST(!pgshare_host_new(pgshare_mock_backend(place->machine), &host,
                           &place->host));
    MUST(!pgshare_group_open(place->host, "all", &group));
    place->guest = guest_new(place, group);
    place->other = guest_new(place, group);
    place->dom = pgshare_mock_handle(place->guest);
    MUST(!posix_memalign(&page, PGSHARE_PAGE_SIZE, PGSHARE_PAGE_SIZE));
    memset(page, 0, PGSHARE_PAGE_SIZE);
    place->page = page;
    pgshare_guest_ring_init(&place->page->ring);
}

static void attach(struct place *place)
{
    int r = pgshare_ring_attach(place->host, place->dom, &place->page->ring,
                                PGSHARE_PAGE_SIZE);

    MUST(r == 0 || r == PGSHARE_ERR_PROTOCOL ||
         (r == PGSHARE_ERR_EXISTS && place->attached));
    if (!r)
        place->attached = true;
}

static void kick(struct place *place)
{
    int r = pgshare_ring_kick(place->host, place->dom);

    MUST(r == 0 || r == PGSHARE_ERR_STATE || r == PGSHARE_ERR_PROTOCOL);
    if (r)
        place->attached = false;
}

/* One thing that the guest does; answers the bytes it took. */
static size_t act(struct place *place, const uint8_t *data, size_t size)
{
    uint32_t word = (uint32_t)data[1] << 8 | data[2];
    uint8_t before[PGSHARE_PAGE_SIZE];

    switch (data[0] % 8) {
    case 0: /* a byte, anywhere */
        place->page->bytes[word % PGSHARE_PAGE_SIZE] = data[3];
        break;
    case 1: /* an index, near where it was */
        place->page->ring.request_head += (uint32_t)(int8_t)data[3];
        break;
    case 2:
        place->page->ring.answer_tail += (uint32_t)(int8_t)data[3];
        break;
    case 3:
    case 4: /* a request */
        pgshare_guest_ring_put(&place->page->ring, data[1] % 8, data[2],
                               data[3] == 255 ? UINT32_MAX : data[3] % 40,
                               data[1]);
        break;
    case 5:
        kick(place);
        break;
    case 6:
        MUST(!pgshare_host_run(place->host, NULL, NULL));
        if (data[3] & 1)
            attach(place);
        break;
    default: /* much at once */
        if (size < 68)
            break;
        memcpy(place->page->bytes + word % (PGSHARE_PAGE_SIZE - 64), data + 4,
               64);
        return 68;
    }
    if (!place->attached) { /* then nobody but the guest writes to it */
        memcpy(before, place->page->bytes, sizeof(before));
        MUST(!pgshare_host_run(place->host, NULL, NULL));
        MUST(!memcmp(before, place->page->bytes, sizeof(before)));
    }
    return 4;
}

static void place_check(struct place *place)
{
    struct pgshare_audit audit = { .size = sizeof(audit) };
    struct pgshare_mock_info info = { .size = sizeof(info) };
    uint8_t page[PGSHARE_PAGE_SIZE];

    MUST(!pgshare_host_audit(place->host, NULL, &audit) && !audit.violations);
    MUST(!pgshare_mock_check(place->machine));
    MUST(!pgshare_mock_info(place->machine, &info) && !info.violations);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        fill(NULL, gfn, page);
        MUST(!pgshare_mock_compare(place->other, gfn, 0, page, sizeof(page)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct place place = { .attached = false };

    place_make(&place);
    attach(&place);
    MUST(!pgshare_host_pass(place.host, 0));
    while (size >= 4) {
        size_t n = act(&place, data, size);

        data += n;
        size -= n;
    }
    MUST(!pgshare_host_run(place.host, NULL, NULL));
    place_check(&place);
    pgshare_host_free(place.host);
    MUST(!pgshare_mock_check(place.machine));
    pgshare_mock_machine_free(place.machine);
    free(place.page);
    return 0;
}
