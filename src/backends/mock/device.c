/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whoever reaches guest memory by another way than the guest's page table:
 * devices that write to it, and readers that look at it where it lies.
 *
 * A device knows frames, not GFNs: it writes to what it was given when the
 * transfer began, whatever the p2m says by then. A pin in the frame's record
 * makes protecting answer BUSY meanwhile. A transfer that is neither declared
 * nor pinned writes into whatever the frame has become; the machine then saves
 * the innocent and says what would have happened.
 */
#include "machine.h"

#include <pgshare/gfn.h>

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Pins one page. Returns 0 and the frame. */
static int pin(struct pgshare_mock_domain *domain, uint64_t gfn, bool counts,
               uint32_t *ret_frame)
{
    struct pgshare_mock_machine *machine = domain->machine;
    uint32_t entry = pgs_mock_lock(domain, gfn);
    uint32_t frame = FRAME_NONE;
    int error = 0;

    if (pgs_mock_is_hole(domain, entry)) {
        error = PGSHARE_ERR_HOLE;
    } else if (!pgs_mock_is_private(domain, entry) || entry & ENTRY_READ_ONLY) {
        error = PGSHARE_ERR_BUSY;
    } else {
        frame = pgs_mock_materialise(domain, gfn, entry);
        if (frame == FRAME_NONE)
            error = PGSHARE_ERR_BUSY;
        else
            entry = pgs_mock_entry(entry, KIND_PRIVATE, frame);
    }
    if (!error && counts) {
        uint64_t record = pgs_mock_record(machine, frame);

        if ((record & RECORD_PINS) == RECORD_PINS)
            error = PGSHARE_ERR_BUSY;
        else
            atomic_fetch_add(&machine->records[frame], RECORD_PIN_ONE);
    }
    pgs_mock_unlock(domain, gfn, entry);
    *ret_frame = frame;
    return error;
}

static void unpin(const struct pgshare_mock_dma *dma, uint32_t count)
{
    if (dma->flags & PGSHARE_MOCK_DMA_UNPINNED)
        return;
    for (uint32_t i = 0; i < count; i++)
        atomic_fetch_sub(&dma->domain->machine->records[dma->frames[i]],
                         RECORD_PIN_ONE);
}

static void put(const struct pgshare_mock_dma *dma)
{
    uint64_t handle = pgshare_mock_handle(dma->domain);

    if (dma->flags & PGSHARE_MOCK_DMA_DECLARED && handle)
        pgshare_gfn_put(dma->domain->machine->host, handle, dma->gfn,
                        dma->count, PGSHARE_GET_WRITE);
}

/* Holds the pages, all or none. */
static int get(const struct pgshare_mock_dma *dma)
{
    struct pgshare_mock_machine *machine = dma->domain->machine;
    struct pgshare_call call = { .size = sizeof(call) };
    uint64_t handle = pgshare_mock_handle(dma->domain);
    int error;

    if (!(dma->flags & PGSHARE_MOCK_DMA_DECLARED) || !handle)
        return 0;
    call.timeout_ns = machine->options.fault_timeout_ns;
    error = pgshare_gfn_get(machine->host, handle, dma->gfn, dma->count,
                            PGSHARE_GET_WRITE, &call);
    if (error && call.done)
        pgshare_gfn_put(machine->host, handle, dma->gfn, call.done,
                        PGSHARE_GET_WRITE);
    return error;
}

int pgshare_mock_dma_begin(struct pgshare_mock_domain *domain, uint64_t gfn,
                           uint32_t count, uint32_t flags,
                           struct pgshare_mock_dma *ret_dma)
{
    const uint32_t all = PGSHARE_MOCK_DMA_DECLARED | PGSHARE_MOCK_DMA_UNPINNED;
    struct pgshare_mock_dma dma = {
        .domain = domain, .gfn = gfn, .count = count, .flags = flags
    };
    int error;

    if (!domain || !ret_dma || !count || count > PGSHARE_MOCK_DMA_MAX ||
        flags & ~all)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    error = get(&dma);
    if (error)
        return error;
    for (uint32_t i = 0; i < count; i++) {
        error = pin(domain, gfn + i, !(flags & PGSHARE_MOCK_DMA_UNPINNED),
                    &dma.frames[i]);
        if (error) {
            unpin(&dma, i);
            put(&dma);
            return error;
        }
    }
    *ret_dma = dma;
    return 0;
}

/* Writes to one page, if the frame is still that page's. */
static int dma_write_page(struct pgshare_mock_dma *dma, uint32_t i,
                          uint32_t offset, const void *bytes, uint32_t len)
{
    struct pgshare_mock_domain *domain = dma->domain;
    struct pgshare_mock_machine *machine = domain->machine;
    uint32_t frame = dma->frames[i];
    uint32_t entry = pgs_mock_lock(domain, dma->gfn + i);
    bool ours = pgs_mock_kind(entry) == KIND_PRIVATE &&
                (entry & ENTRY_FRAME) == frame;

    if (ours) {
        memcpy(pgs_mock_bytes(machine, frame) + offset, bytes, len);
        entry |= ENTRY_WRITTEN;
    }
    pgs_mock_unlock(domain, dma->gfn + i, entry);
    if (ours)
        return 0;
    if (!(dma->flags & PGSHARE_MOCK_DMA_UNPINNED) ||
        dma->flags & PGSHARE_MOCK_DMA_DECLARED)
        pgs_mock_violate(machine,
                         "a device's write to GFN %llu of domain %u is lost",
                         (unsigned long long)(dma->gfn + i), domain->domid);
    return PGSHARE_ERR_STATE;
}

int pgshare_mock_dma_write(struct pgshare_mock_dma *dma, uint64_t offset,
                           const void *bytes, size_t len)
{
    const unsigned char *from = bytes;
    int result = 0;

    if (!dma || !dma->domain || (!bytes && len))
        return PGSHARE_ERR_INVALID;
    if (offset > dma->count * PGSHARE_PAGE_SIZE ||
        len > dma->count * PGSHARE_PAGE_SIZE - offset)
        return PGSHARE_ERR_RANGE;
    while (len) {
        uint32_t start = (uint32_t)(offset & (PGSHARE_PAGE_SIZE - 1));
        size_t room = PGSHARE_PAGE_SIZE - start;
        uint32_t part = (uint32_t)(len < room ? len : room);
        int error = dma_write_page(dma,
                                   (uint32_t)(offset >> PGSHARE_PAGE_SHIFT),
                                   start, from, part);

        if (error)
            result = error;
        offset += part;
        from += part;
        len -= part;
    }
    return result;
}

void pgshare_mock_dma_end(struct pgshare_mock_dma *dma)
{
    if (!dma || !dma->domain)
        return;
    unpin(dma, dma->count);
    put(dma);
    dma->domain = NULL;
}

static uint32_t record_version(uint64_t record)
{
    return (uint32_t)(record >> RECORD_VERSION_SHIFT);
}

int pgshare_mock_hold_begin(struct pgshare_mock_domain *domain, uint64_t gfn,
                            struct pgshare_mock_hold *ret_hold)
{
    struct pgshare_mock_machine *machine;
    uint32_t entry;
    uint32_t frame;
    bool shared;

    if (!domain || !ret_hold)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, 1))
        return PGSHARE_ERR_RANGE;
    machine = domain->machine;
    entry = pgs_mock_lock(domain, gfn);
    frame = entry & ENTRY_FRAME;
    shared = pgs_mock_kind(entry) == KIND_SHARED;
    if (shared) {
        ret_hold->bytes = pgs_mock_bytes(machine, frame);
        ret_hold->domain = domain;
        ret_hold->gfn = gfn;
        ret_hold->sum = XXH3_64bits(ret_hold->bytes, PGSHARE_PAGE_SIZE);
        ret_hold->frame = frame;
        ret_hold->version = record_version(pgs_mock_record(machine, frame));
    }
    pgs_mock_unlock(domain, gfn, entry);
    return shared ? 0 : PGSHARE_ERR_STATE;
}

int pgshare_mock_hold_end(struct pgshare_mock_hold *hold)
{
    struct pgshare_mock_machine *machine;
    uint64_t record;
    bool released;
    bool changed;

    if (!hold || !hold->domain)
        return PGSHARE_ERR_INVALID;
    machine = hold->domain->machine;
    record = pgs_mock_record(machine, hold->frame);
    released = (pgs_mock_record_type(record) != TYPE_COW &&
                pgs_mock_record_type(record) != TYPE_ORPHAN) ||
               record_version(record) != hold->version;
    changed = XXH3_64bits(hold->bytes, PGSHARE_PAGE_SIZE) != hold->sum;
    if (released || changed)
        pgs_mock_violate(machine, "frame %u %s under a reader of GFN %llu",
                         hold->frame, released ? "was released" : "changed",
                         (unsigned long long)hold->gfn);
    hold->domain = NULL;
    return released || changed ? PGSHARE_ERR_DIFFERENT : 0;
}
