/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CoW disk: one base image that nobody changes, and per domain an overlay
 * of the blocks that it wrote, in a hash table of the domain's own.
 *
 * A read does what a block backend on a real machine does: holds the pages for
 * overwriting, moves the bytes by way of the pages' own frames, lets go, and
 * hints. The hint names the base image for blocks that come from there: the
 * same block read by two guests has the same name, which is the whole idea. A
 * block of the overlay has the overlay's name, which no other guest uses, but
 * the same guest may well read it twice.
 */
#include "machine.h"

#include "base/abi.h"

#include <pgshare/gfn.h>
#include <pgshare/hint.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUCKETS_MIN 256u
/* Images that get no name from the embedder. */
#define IMAGE_FIRST UINT64_C(0x6d6f636b00000000)

struct overlay_block {
    struct overlay_block *next;
    uint64_t block;
    unsigned char bytes[PGSHARE_PAGE_SIZE];
};

struct pgs_mock_overlay {
    struct pgs_mock_overlay *next; /* of the same domain */
    struct pgshare_mock_disk *disk;
    uint64_t image;
    size_t buckets; /* a power of two */
    size_t blocks;
    struct overlay_block **table;
};

struct pgshare_mock_disk {
    struct pgshare_mock_disk *next; /* of the same machine */
    struct pgshare_mock_machine *machine;
    struct pgshare_mock_disk_options options;
    uint64_t image;
};

static uint64_t new_image(struct pgshare_mock_machine *machine)
{
    return IMAGE_FIRST + atomic_fetch_add(&machine->next_image, 1);
}

int pgshare_mock_disk_new(struct pgshare_mock_machine *machine,
                          const struct pgshare_mock_disk_options *options,
                          struct pgshare_mock_disk **ret_disk)
{
    struct pgshare_mock_disk_options ours = { 0 };
    struct pgshare_mock_disk *disk;
    int error;

    if (!machine || !options || !ret_disk)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_in(&ours, sizeof(ours), sizeof(ours.size), options);
    if (error)
        return error;
    if (!ours.blocks || !!ours.bytes + !!ours.use_fd + !!ours.content != 1)
        return PGSHARE_ERR_INVALID;
    disk = calloc(1, sizeof(*disk));
    if (!disk)
        return PGSHARE_ERR_NOMEM;
    disk->machine = machine;
    disk->options = ours;
    disk->image = ours.image ? ours.image : new_image(machine);
    disk->next = machine->disks;
    machine->disks = disk;
    *ret_disk = disk;
    return 0;
}

static void overlay_free(struct pgs_mock_overlay *overlay)
{
    for (size_t i = 0; i < overlay->buckets; i++)
        while (overlay->table[i]) {
            struct overlay_block *block = overlay->table[i];

            overlay->table[i] = block->next;
            free(block);
        }
    free(overlay->table);
    free(overlay);
}

void pgs_mock_overlays_free(struct pgshare_mock_domain *domain)
{
    while (domain->overlays) {
        struct pgs_mock_overlay *overlay = domain->overlays;

        domain->overlays = overlay->next;
        overlay_free(overlay);
    }
}

static void forget_overlays(struct pgshare_mock_disk *disk,
                            struct pgshare_mock_domain *domain)
{
    struct pgs_mock_overlay **link = &domain->overlays;

    while (*link) {
        struct pgs_mock_overlay *overlay = *link;

        if (overlay->disk == disk) {
            *link = overlay->next;
            overlay_free(overlay);
        } else {
            link = &overlay->next;
        }
    }
}

struct pgshare_mock_disk *pgshare_mock_disk_free(struct pgshare_mock_disk *disk)
{
    struct pgshare_mock_disk **link;

    if (!disk)
        return NULL;
    for (uint32_t i = 0; i < disk->machine->slots_used; i++)
        if (disk->machine->slots[i])
            forget_overlays(disk, disk->machine->slots[i]);
    link = &disk->machine->disks;
    while (*link != disk)
        link = &(*link)->next;
    *link = disk->next;
    free(disk);
    return NULL;
}

void pgs_mock_disks_free(struct pgshare_mock_machine *machine)
{
    while (machine->disks)
        pgshare_mock_disk_free(machine->disks);
}

uint64_t pgshare_mock_disk_image(const struct pgshare_mock_disk *disk)
{
    return disk ? disk->image : 0;
}

static struct overlay_block **bucket_of(const struct pgs_mock_overlay *overlay,
                                        uint64_t block)
{
    uint64_t hash = block * UINT64_C(0x9e3779b97f4a7c15);

    return &overlay->table[(hash >> 32) & (overlay->buckets - 1)];
}

static struct overlay_block *overlay_find(
    const struct pgs_mock_overlay *overlay, uint64_t block)
{
    struct overlay_block *found;

    if (!overlay)
        return NULL;
    found = *bucket_of(overlay, block);
    while (found && found->block != block)
        found = found->next;
    return found;
}

static struct pgs_mock_overlay *overlay_of(
    const struct pgshare_mock_domain *domain,
    const struct pgshare_mock_disk *disk)
{
    struct pgs_mock_overlay *overlay = domain->overlays;

    while (overlay && overlay->disk != disk)
        overlay = overlay->next;
    return overlay;
}

static struct pgs_mock_overlay *overlay_make(struct pgshare_mock_domain *domain,
                                             struct pgshare_mock_disk *disk)
{
    struct pgs_mock_overlay *overlay = overlay_of(domain, disk);

    if (overlay)
        return overlay;
    overlay = calloc(1, sizeof(*overlay));
    if (!overlay)
        return NULL;
    overlay->disk = disk;
    overlay->buckets = BUCKETS_MIN;
    overlay->table = calloc(overlay->buckets, sizeof(struct overlay_block *));
    if (!overlay->table) {
        free(overlay);
        return NULL;
    }
    overlay->image = new_image(domain->machine);
    overlay->next = domain->overlays;
    domain->overlays = overlay;
    return overlay;
}

/* Doubles the table; where memory is short, chains are just longer. */
static void overlay_grow(struct pgs_mock_overlay *overlay)
{
    struct overlay_block **old = overlay->table;
    size_t buckets = overlay->buckets;
    struct overlay_block **table = calloc(2 * buckets,
                                          sizeof(struct overlay_block *));

    if (!table)
        return;
    overlay->table = table;
    overlay->buckets = 2 * buckets;
    for (size_t i = 0; i < buckets; i++)
        while (old[i]) {
            struct overlay_block *block = old[i];
            struct overlay_block **bucket = bucket_of(overlay, block->block);

            old[i] = block->next;
            block->next = *bucket;
            *bucket = block;
        }
    free(old);
}

static struct overlay_block *overlay_put(struct pgs_mock_overlay *overlay,
                                         uint64_t number)
{
    struct overlay_block *block = overlay_find(overlay, number);
    struct overlay_block **bucket;

    if (block)
        return block;
    if (overlay->blocks >= 2 * overlay->buckets)
        overlay_grow(overlay);
    block = malloc(sizeof(*block));
    if (!block)
        return NULL;
    bucket = bucket_of(overlay, number);
    block->block = number;
    block->next = *bucket;
    *bucket = block;
    overlay->blocks++;
    return block;
}

static int read_fd(int fd, uint64_t block, unsigned char *ret_page)
{
    size_t done = 0;

    while (done < PGSHARE_PAGE_SIZE) {
        ssize_t n = pread(fd, ret_page + done, PGSHARE_PAGE_SIZE - done,
                          (off_t)(block * PGSHARE_PAGE_SIZE + done));

        if (n < 0)
            return PGSHARE_ERR_BACKEND;
        if (!n)
            break;
        done += (size_t)n;
    }
    memset(ret_page + done, 0, PGSHARE_PAGE_SIZE - done);
    return 0;
}

static int read_base(const struct pgshare_mock_disk *disk, uint64_t block,
                     unsigned char *ret_page)
{
    const struct pgshare_mock_disk_options *options = &disk->options;
    uint64_t start = block * PGSHARE_PAGE_SIZE;
    size_t n = 0;

    if (options->content) {
        options->content(options->ctx, block, ret_page);
        return 0;
    }
    if (options->use_fd)
        return read_fd(options->fd, block, ret_page);
    if (start < options->len)
        n = options->len - start < PGSHARE_PAGE_SIZE
                ? (size_t)(options->len - start)
                : PGSHARE_PAGE_SIZE;
    memcpy(ret_page, (const unsigned char *)options->bytes + start, n);
    memset(ret_page + n, 0, PGSHARE_PAGE_SIZE - n);
    return 0;
}

static bool blocks_ok(const struct pgshare_mock_disk *disk, uint64_t block,
                      uint64_t count)
{
    return count && block < disk->options.blocks &&
           count <= disk->options.blocks - block;
}

int pgshare_mock_block_peek(struct pgshare_mock_domain *domain,
                            struct pgshare_mock_disk *disk, uint64_t block,
                            void *ret_page)
{
    const struct overlay_block *written;

    if (!domain || !disk || !ret_page)
        return PGSHARE_ERR_INVALID;
    if (!blocks_ok(disk, block, 1))
        return PGSHARE_ERR_RANGE;
    written = overlay_find(overlay_of(domain, disk), block);
    if (!written)
        return read_base(disk, block, ret_page);
    memcpy(ret_page, written->bytes, PGSHARE_PAGE_SIZE);
    return 0;
}

/* Holds the pages for overwriting, all or none. */
static int hold(struct pgshare_mock_domain *domain, uint64_t gfn,
                uint64_t count)
{
    struct pgshare_mock_machine *machine = domain->machine;
    struct pgshare_call call = { .size = sizeof(call) };
    int error;

    if (!domain->handle)
        return 0;
    call.timeout_ns = machine->options.fault_timeout_ns;
    error = pgshare_gfn_get(machine->host, domain->handle, gfn, count,
                            PGSHARE_GET_OVERWRITE, &call);
    if (error && call.done)
        pgshare_gfn_put(machine->host, domain->handle, gfn, call.done,
                        PGSHARE_GET_OVERWRITE);
    return error;
}

static void let_go(struct pgshare_mock_domain *domain, uint64_t gfn,
                   uint64_t count)
{
    if (domain->handle)
        pgshare_gfn_put(domain->machine->host, domain->handle, gfn, count,
                        PGSHARE_GET_OVERWRITE);
}

/* Hints runs of blocks that come from the same image. */
static void hint(struct pgshare_mock_domain *domain,
                 struct pgshare_mock_disk *disk, uint64_t block, uint64_t gfn,
                 uint64_t count)
{
    const struct pgs_mock_overlay *overlay = overlay_of(domain, disk);
    struct pgshare_host *host = domain->machine->host;
    uint64_t i = 0;

    while (domain->handle && i < count) {
        bool written = overlay_find(overlay, block + i);
        uint64_t end = i + 1;

        while (end < count && !overlay_find(overlay, block + end) == !written)
            end++;
        pgshare_hint_block(host, domain->handle, gfn + i, end - i,
                           written ? overlay->image : disk->image, block + i);
        i = end;
    }
}

int pgshare_mock_block_read(struct pgshare_mock_domain *domain,
                            struct pgshare_mock_disk *disk, uint64_t block,
                            uint64_t gfn, uint64_t count)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    int error;

    if (!domain || !disk)
        return PGSHARE_ERR_INVALID;
    if (!blocks_ok(disk, block, count) ||
        !pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    error = hold(domain, gfn, count);
    if (error)
        return error;
    for (uint64_t i = 0; !error && i < count; i++) {
        error = pgshare_mock_block_peek(domain, disk, block + i, page);
        if (!error)
            error = pgs_mock_write_held(domain, gfn + i, page);
    }
    let_go(domain, gfn, count);
    if (!error)
        hint(domain, disk, block, gfn, count);
    return error;
}

int pgshare_mock_block_write(struct pgshare_mock_domain *domain,
                             struct pgshare_mock_disk *disk, uint64_t block,
                             uint64_t gfn, uint64_t count)
{
    struct pgs_mock_overlay *overlay;
    unsigned char page[PGSHARE_PAGE_SIZE];

    if (!domain || !disk)
        return PGSHARE_ERR_INVALID;
    if (!blocks_ok(disk, block, count) ||
        !pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    overlay = overlay_make(domain, disk);
    if (!overlay)
        return PGSHARE_ERR_NOMEM;
    for (uint64_t i = 0; i < count; i++) {
        struct overlay_block *written;
        int error = pgshare_mock_read(domain, gfn + i, 0, page,
                                      PGSHARE_PAGE_SIZE);

        if (error)
            return error;
        written = overlay_put(overlay, block + i);
        if (!written)
            return PGSHARE_ERR_NOMEM;
        memcpy(written->bytes, page, PGSHARE_PAGE_SIZE);
    }
    return 0;
}
