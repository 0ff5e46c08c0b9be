/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest does to its memory.
 *
 * An access holds the page's lock while it moves bytes, so that protection
 * takes effect before or after it. A write that may not go through traps: the
 * fault handler is called without a lock, and the write is tried again when it
 * says so. A handler that has to wait parks the vCPU: the write is kept, and
 * what the same guest writes afterwards is kept behind it, so that the guest's
 * order is kept too. Polls try again.
 */
#include "machine.h"

#include <pgshare/declare.h>
#include <pgshare/fault.h>

#include <stdlib.h>
#include <string.h>

/* A handler that says "again" this often without effect is no handler. */
#define TRIES_MAX 256u
/* What a vCPU thread does before it is parked: wait this often, so long. */
#define WAITS_MAX 50u

static int default_fault(struct pgshare_mock_domain *domain, uint64_t gfn,
                         uint32_t flags, uint64_t timeout_ns)
{
    struct pgshare_call call = { .size = sizeof(call),
                                 .timeout_ns = timeout_ns };
    struct pgshare_fault fault = { .size = sizeof(fault) };
    uint64_t handle = atomic_load(&domain->handle);
    int error;

    if (!handle)
        return 0; /* it has just left: the machine resolves */
    error = pgshare_fault_write(domain->machine->host, handle, gfn, flags,
                                &call, &fault);
    if (!error && fault.outcome == PGSHARE_FAULT_READ_ONLY)
        return PGSHARE_ERR_READONLY;
    /* It may have left while the fault was looked at. */
    return error == PGSHARE_ERR_NODOMAIN &&
                   atomic_load(&domain->handle) != handle
               ? 0
               : error;
}

static int raise_fault(struct pgshare_mock_domain *domain, uint64_t gfn,
                       uint32_t flags, uint64_t timeout_ns)
{
    struct pgshare_mock_machine *machine = domain->machine;

    atomic_fetch_add_explicit(&machine->faults, 1, memory_order_relaxed);
    if (machine->options.fault)
        return machine->options.fault(machine->options.ctx, domain, gfn, flags);
    return default_fault(domain, gfn, flags, timeout_ns);
}

/* One try to write within one page. */
static enum pgs_mock_access write_once(struct pgshare_mock_domain *domain,
                                       uint64_t gfn, uint32_t offset,
                                       const void *bytes, uint32_t len)
{
    struct pgshare_mock_machine *machine = domain->machine;
    uint32_t entry = pgs_mock_lock(domain, gfn);
    enum pgs_mock_access access = pgs_mock_make_writable(domain, gfn, &entry);

    if (access == ACCESS_DONE) {
        uint32_t frame = entry & ENTRY_FRAME;

        if (pgs_mock_record_type(pgs_mock_record(machine, frame)) >
            TYPE_NOMINATED)
            pgs_mock_violate(machine,
                             "domain %u writes GFN %llu into frame %u, which "
                             "is shared",
                             domain->domid, (unsigned long long)gfn, frame);
        memcpy(pgs_mock_bytes(machine, frame) + offset, bytes, len);
        entry |= ENTRY_WRITTEN;
    }
    pgs_mock_unlock(domain, gfn, entry);
    return access;
}

/*
 * Writes within one page, and lets faults be resolved. Answers INPROGRESS when
 * the vCPU must be parked, and NOFRAME when it must because the machine found
 * no memory for a break of its own: that is what a demand is for.
 */
int pgs_mock_write_part(struct pgshare_mock_domain *domain, uint64_t gfn,
                        uint32_t offset, const void *bytes, uint32_t len,
                        uint64_t timeout_ns)
{
    uint32_t flags = len == PGSHARE_PAGE_SIZE ? PGSHARE_FAULT_WHOLE_PAGE : 0;

    for (unsigned i = 0; i < TRIES_MAX; i++) {
        enum pgs_mock_access access = write_once(domain, gfn, offset, bytes,
                                                 len);
        int error;

        if (access == ACCESS_DONE)
            return 0;
        if (access == ACCESS_HOLE)
            return PGSHARE_ERR_HOLE;
        if (access == ACCESS_NOMEM)
            return PGSHARE_ERR_NOFRAME;
        error = raise_fault(domain, gfn, flags, timeout_ns);
        if (error == PGSHARE_ERR_BUSY || error == PGSHARE_ERR_NOFRAME)
            return PGSHARE_ERR_INPROGRESS;
        if (error)
            return error;
    }
    return PGSHARE_ERR_INPROGRESS;
}

/* A vCPU thread waits a while before it is parked. */
static int write_waiting(struct pgshare_mock_domain *domain, uint64_t gfn,
                         uint32_t offset, const void *bytes, uint32_t len)
{
    struct pgshare_mock_machine *machine = domain->machine;
    unsigned waits = machine->deterministic ? 0 : WAITS_MAX;
    int error;

    for (;;) {
        error = pgs_mock_write_part(domain, gfn, offset, bytes, len,
                                    machine->options.fault_timeout_ns);
        if (error == PGSHARE_ERR_NOFRAME)
            error = PGSHARE_ERR_INPROGRESS;
        if (error != PGSHARE_ERR_INPROGRESS || !waits--)
            return error;
        atomic_fetch_add(&machine->retries, 1);
        sched_yield();
    }
}

int pgs_mock_count_dropped(struct pgshare_mock_machine *machine, int error)
{
    if (error == PGSHARE_ERR_READONLY)
        atomic_fetch_add(&machine->dropped, 1);
    return error;
}

static bool span_ok(const struct pgshare_mock_domain *domain, uint64_t gfn,
                    uint64_t offset, size_t len)
{
    uint64_t bytes = domain->gfns << PGSHARE_PAGE_SHIFT;
    uint64_t start = gfn << PGSHARE_PAGE_SHIFT;

    return gfn < domain->gfns && offset <= bytes - start &&
           len <= bytes - start - offset;
}

/* How much of [at, at + left) lies in the first page. */
static uint32_t part_of(uint64_t at, size_t left)
{
    size_t room = PGSHARE_PAGE_SIZE - (at & (PGSHARE_PAGE_SIZE - 1));

    return (uint32_t)(left < room ? left : room);
}

int pgshare_mock_write(struct pgshare_mock_domain *domain, uint64_t gfn,
                       uint64_t offset, const void *bytes, size_t len)
{
    const unsigned char *from = bytes;
    bool parked = false;
    uint64_t at;

    if (!domain || (!bytes && len))
        return PGSHARE_ERR_INVALID;
    if (!span_ok(domain, gfn, offset, len))
        return PGSHARE_ERR_RANGE;
    at = (gfn << PGSHARE_PAGE_SHIFT) + offset;
    while (len) {
        uint32_t part = part_of(at, len);
        uint32_t start = (uint32_t)(at & (PGSHARE_PAGE_SIZE - 1));
        int error = PGSHARE_ERR_INPROGRESS;

        if (!parked && !pgs_mock_is_parked(domain))
            error = write_waiting(domain, at >> PGSHARE_PAGE_SHIFT, start, from,
                                  part);
        if (error == PGSHARE_ERR_INPROGRESS) {
            error = pgs_mock_park(domain, at >> PGSHARE_PAGE_SHIFT, start, from,
                                  part);
            parked = true;
        }
        if (error && error != PGSHARE_ERR_INPROGRESS)
            return pgs_mock_count_dropped(domain->machine, error);
        at += part;
        from += part;
        len -= part;
    }
    if (parked && domain->machine->platform_cow)
        pgs_mock_parked_run(domain); /* raises the demand */
    return parked ? PGSHARE_ERR_INPROGRESS : 0;
}

/* What a device model writes to a page that it holds: no vCPU is involved, and
 * nothing may trap. */
int pgs_mock_write_held(struct pgshare_mock_domain *domain, uint64_t gfn,
                        const void *page)
{
    switch (write_once(domain, gfn, 0, page, PGSHARE_PAGE_SIZE)) {
    case ACCESS_DONE:
        return 0;
    case ACCESS_HOLE:
        return PGSHARE_ERR_HOLE;
    case ACCESS_NOMEM:
        return PGSHARE_ERR_NOFRAME;
    default:
        pgs_mock_violate(domain->machine,
                         "GFN %llu of domain %u is held, but not writable",
                         (unsigned long long)gfn, domain->domid);
        return PGSHARE_ERR_BUSY;
    }
}

int pgshare_mock_write_page(struct pgshare_mock_domain *domain, uint64_t gfn,
                            const void *page)
{
    return pgshare_mock_write(domain, gfn, 0, page, PGSHARE_PAGE_SIZE);
}

int pgshare_mock_fill(struct pgshare_mock_domain *domain, uint64_t gfn,
                      uint64_t count,
                      void (*fill)(void *ctx, uint64_t gfn, void *ret_page),
                      void *ctx)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    int result = 0;

    if (!domain || !fill)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    for (uint64_t i = gfn; i < gfn + count; i++) {
        int error;

        fill(ctx, i, page);
        error = pgshare_mock_write_page(domain, i, page);
        if (error && error != PGSHARE_ERR_INPROGRESS)
            return error;
        if (error)
            result = error;
    }
    return result;
}

/* Calls `use` for each part of a span, with the page's lock held. */
static int visit(struct pgshare_mock_domain *domain, uint64_t gfn,
                 uint64_t offset, size_t len,
                 int (*use)(void *ctx, const void *bytes, size_t n), void *ctx)
{
    unsigned char buffer[PGSHARE_PAGE_SIZE];
    uint64_t at = (gfn << PGSHARE_PAGE_SHIFT) + offset;

    while (len) {
        uint32_t part = part_of(at, len);
        uint64_t page = at >> PGSHARE_PAGE_SHIFT;
        uint32_t entry = pgs_mock_lock(domain, page);
        const unsigned char *bytes = pgs_mock_view(domain, page, entry, buffer);
        int error = bytes
                        ? use(ctx, bytes + (at & (PGSHARE_PAGE_SIZE - 1)), part)
                        : PGSHARE_ERR_HOLE;

        pgs_mock_unlock(domain, page, entry);
        if (error)
            return error;
        at += part;
        len -= part;
    }
    return 0;
}

static int copy_part(void *ctx, const void *bytes, size_t n)
{
    unsigned char **to = ctx;

    memcpy(*to, bytes, n);
    *to += n;
    return 0;
}

static int compare_part(void *ctx, const void *bytes, size_t n)
{
    const unsigned char **expected = ctx;
    int differs = memcmp(*expected, bytes, n);

    *expected += n;
    return differs ? PGSHARE_ERR_DIFFERENT : 0;
}

int pgshare_mock_read(struct pgshare_mock_domain *domain, uint64_t gfn,
                      uint64_t offset, void *ret_bytes, size_t len)
{
    unsigned char *to = ret_bytes;

    if (!domain || (!ret_bytes && len))
        return PGSHARE_ERR_INVALID;
    if (!span_ok(domain, gfn, offset, len))
        return PGSHARE_ERR_RANGE;
    return visit(domain, gfn, offset, len, copy_part, &to);
}

int pgshare_mock_compare(struct pgshare_mock_domain *domain, uint64_t gfn,
                         uint64_t offset, const void *expected, size_t len)
{
    const unsigned char *bytes = expected;

    if (!domain || (!expected && len))
        return PGSHARE_ERR_INVALID;
    if (!span_ok(domain, gfn, offset, len))
        return PGSHARE_ERR_RANGE;
    return visit(domain, gfn, offset, len, compare_part, &bytes);
}

/* The allocation cycle */

int pgshare_mock_guest_free(struct pgshare_mock_domain *domain, uint64_t gfn,
                            uint64_t count)
{
    if (!domain)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    if (!domain->enlightened || !domain->handle)
        return 0;
    return pgshare_declare_free(domain->machine->host, domain->handle, gfn,
                                count);
}

int pgshare_mock_guest_scrub(struct pgshare_mock_domain *domain, uint64_t gfn,
                             uint64_t count)
{
    static const unsigned char zeroes[PGSHARE_PAGE_SIZE];
    int result = 0;

    if (!domain)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    if (domain->enlightened && domain->handle)
        result = pgshare_declare_scrub(domain->machine->host, domain->handle,
                                       gfn, count);
    for (uint64_t i = gfn; !result && i < gfn + count; i++) {
        result = pgshare_mock_write_page(domain, i, zeroes);
        if (result == PGSHARE_ERR_INPROGRESS)
            result = 0; /* done later, in order */
    }
    return result;
}

int pgshare_mock_guest_alloc(struct pgshare_mock_domain *domain, uint64_t gfn,
                             uint64_t count)
{
    if (!domain)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    if (!domain->enlightened || !domain->handle)
        return 0;
    return pgshare_declare_allocated(domain->machine->host, domain->handle, gfn,
                                     count);
}
