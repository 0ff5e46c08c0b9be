/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All operations but sharing: what gives memory, takes memory, and tells.
 *
 * UNSHARE is the fault path: one p2m entry, one frame record and the bytes are
 * all that it touches, and a frame comes from the thread's own shard.
 */
#include "machine.h"

#include <pgshare/gfn.h>

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define TAKE_TRIES 1000u

/* Where the platform resolves CoW, a comparison keeps a frame by a mapping of
 * its own (ops_share.c); a taker outwaits it. */
static bool take(struct pgs_mock_work *work, uint32_t frame)
{
    unsigned tries = work->machine->platform_cow ? TAKE_TRIES : 1;

    while (!pgs_mock_frame_retake(work->machine, frame)) {
        if (!--tries)
            return false;
        sched_yield();
    }
    return true;
}

/*
 * The host's last mapping of a frame that guests without a host still read:
 * the frame stays with them, and the page gets another from the machine's free
 * memory, whose concern they are. FRAME_NONE: there is none.
 */
static uint32_t take_beside_orphans(struct pgs_mock_work *work, uint32_t old)
{
    struct pgshare_mock_machine *machine = work->machine;
    uint32_t frame;

    if (!pgs_mock_free_take(machine, 1, &frame))
        return FRAME_NONE;
    frame &= FRAME_NUMBER;
    pgs_mock_frame_copy(machine, frame, old);
    pgs_mock_frame_unmap(machine, old, false);
    pgs_mock_frame_publish(
        machine, old, TYPE_ORPHAN,
        pgs_mock_record_mappings(pgs_mock_record(machine, old)));
    return frame;
}

/* UNSHARE of one locked page. Returns the new entry. */
static uint32_t unshare_page(struct pgs_mock_work *work, uint32_t i,
                             uint32_t entry)
{
    struct pgshare_mock_machine *machine = work->machine;
    uint32_t flags = work->op->flags;
    uint32_t old = entry & ENTRY_FRAME;
    bool zero = pgs_mock_kind(entry) == KIND_ZERO;
    uint32_t frame;

    if (flags & PGSHARE_OP_TAKE && !zero &&
        atomic_load(&machine->orphans[old])) {
        frame = take_beside_orphans(work, old);
        if (frame == FRAME_NONE) {
            pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
            return entry;
        }
        return pgs_mock_entry(entry, KIND_PRIVATE, frame);
    }
    if (flags & PGSHARE_OP_TAKE) {
        if (zero || !take(work, old)) {
            pgs_mock_violate(machine,
                             "frame %u is taken for GFN %llu, but has other "
                             "mappings",
                             old, (unsigned long long)(work->op->gfn + i));
            pgs_mock_fail(work, i, PGSHARE_ERR_STATE);
            return entry;
        }
        return pgs_mock_entry(entry, KIND_PRIVATE, old);
    }
    if (zero || flags & PGSHARE_OP_ZERO)
        frame = pgs_mock_zeroed_take(machine);
    else
        frame = pgs_mock_reserve_take_one(machine);
    if (frame == FRAME_NONE) {
        pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
        return entry;
    }
    frame &= FRAME_NUMBER;
    work->reserve--;
    if (!zero && flags & PGSHARE_OP_COPY)
        pgs_mock_frame_copy(machine, frame, old);
    if (!zero)
        pgs_mock_frame_unmap(machine, old, false);
    return pgs_mock_entry(entry, KIND_PRIVATE, frame);
}

/* Does a locked entry map the frame that the library thinks it maps? */
static bool maps(const struct pgs_mock_work *work, uint32_t i, uint32_t entry)
{
    uint64_t id = work->op->ids ? work->op->ids[i] : PGSHARE_ID_NONE;

    if (pgs_mock_kind(entry) == KIND_ZERO)
        return id == PGSHARE_ID_NONE || id == PGSHARE_ID_ZERO;
    return pgs_mock_kind(entry) == KIND_SHARED &&
           (id == PGSHARE_ID_NONE || (uint32_t)id == (entry & ENTRY_FRAME));
}

/* Sends for the frame's record, which is wanted after the copy. */
FETCH void fetch_record(const struct pgs_mock_work *work, uint64_t gfn)
{
    uint32_t entry = atomic_load_explicit(&work->domain->p2m[gfn],
                                          memory_order_relaxed);

    __builtin_prefetch(&work->machine->records[entry & ENTRY_FRAME], 1);
}

void pgs_mock_op_unshare(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry;

        fetch_record(work, gfn);
        entry = pgs_mock_lock(domain, gfn);
        if (maps(work, i, entry)) {
            entry = unshare_page(work, i, entry);
        } else {
            pgs_mock_fail(work, i, PGSHARE_ERR_CLIENT_TICKET);
            if (!work->machine->platform_cow)
                pgs_mock_violate(work->machine,
                                 "unshare of GFN %llu of domain %u, which does "
                                 "not map that frame",
                                 (unsigned long long)gfn, domain->domid);
        }
        pgs_mock_unlock(domain, gfn, entry);
    }
}

/* Has this ever been the name of a frame? */
static bool was_frame(const struct pgshare_mock_machine *machine, uint64_t id)
{
    uint32_t frame = (uint32_t)id;

    return frame < machine->pool.numbers && id >> 32 &&
           id >> 32 <= pgs_mock_record(machine, frame) >> RECORD_VERSION_SHIFT;
}

/* Gives one frame up. Returns whether its memory is free now. */
static bool release(struct pgs_mock_work *work, uint32_t i)
{
    struct pgshare_mock_machine *machine = work->machine;
    uint64_t id = work->op->ids[i];
    uint32_t frame = (uint32_t)id;
    uint32_t mappings;
    uint32_t orphans;

    if (id == PGSHARE_ID_ZERO || !was_frame(machine, id)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_SOURCE_TICKET);
        pgs_mock_violate(machine, "release of %s (%llx)",
                         id == PGSHARE_ID_ZERO ? "the zero frame" : "no frame",
                         (unsigned long long)id);
        return false;
    }
    /* Released before, and the answer was lost; or a platform has given it to
     * its last mapping. */
    if (!pgs_mock_id_is_cow(machine, id))
        return false;
    mappings = pgs_mock_record_mappings(pgs_mock_record(machine, frame));
    orphans = atomic_load(&machine->orphans[frame]);
    if (mappings > orphans) {
        pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        pgs_mock_violate(machine, "frame %u is released with %u mappings",
                         frame, mappings - orphans);
        return false;
    }
    if (orphans) {
        /* Guests without a host read it; the machine keeps it for them. */
        pgs_mock_frame_publish(machine, frame, TYPE_ORPHAN, mappings);
        return false;
    }
    pgs_mock_frame_plain(machine, frame);
    return true;
}

void pgs_mock_op_release(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    uint32_t frames[PGSHARE_EXTENT_MAX];
    uint32_t freed = 0;

    for (uint32_t i = first; i < first + n; i++) {
        if (!work->op->ids)
            pgs_mock_fail(work, i, PGSHARE_ERR_INVALID);
        else if (release(work, i))
            frames[freed++] = (uint32_t)work->op->ids[i];
    }
    if (freed)
        pgs_mock_reserve_put(work->machine, freed, frames, freed);
    work->reserve += freed;
}

static uint32_t hole_of(const struct pgshare_mock_domain *domain)
{
    return pgs_mock_entry(0, domain->sparse ? KIND_HOLE : KIND_DEFAULT, 0);
}

/* Takes the memory out of a locked private or protected page and puts it into
 * the reserve. */
static void free_page(struct pgs_mock_work *work, uint64_t gfn, uint32_t entry)
{
    struct pgshare_mock_machine *machine = work->machine;
    uint32_t frame = entry & ENTRY_FRAME;

    if (pgs_mock_is_sparse(work->domain, entry)) {
        atomic_fetch_sub_explicit(&machine->sparse, 1, memory_order_relaxed);
        pgs_mock_touch(work->domain, gfn);
        pgs_mock_reserve_put(machine, 0, NULL, 1);
    } else {
        pgs_mock_frame_plain(machine, frame);
        pgs_mock_reserve_put(machine, 1, &frame, 1);
    }
    work->reserve++;
}

static bool is_pinned(const struct pgs_mock_work *work, uint32_t entry)
{
    return pgs_mock_kind(entry) == KIND_PRIVATE &&
           pgs_mock_record(work->machine, entry & ENTRY_FRAME) & RECORD_PINS;
}

void pgs_mock_op_discard(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry = pgs_mock_lock(domain, gfn);

        if (is_pinned(work, entry)) {
            pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        } else {
            if (pgs_mock_is_private(domain, entry) ||
                pgs_mock_is_protected(entry))
                free_page(work, gfn, entry);
            else if (pgs_mock_kind(entry) == KIND_SHARED)
                pgs_mock_frame_unmap(work->machine, entry & ENTRY_FRAME, false);
            entry = hole_of(domain);
        }
        pgs_mock_unlock(domain, gfn, entry);
    }
}

void pgs_mock_op_reclaim(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry = pgs_mock_lock(domain, gfn);

        if (is_pinned(work, entry)) {
            pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        } else if (pgs_mock_is_private(domain, entry)) {
            free_page(work, gfn, entry);
            pgs_mock_touch(domain, gfn);
            entry = pgs_mock_entry(entry, KIND_RECLAIMED, 0);
        } else {
            pgs_mock_fail(work, i, PGSHARE_ERR_STATE);
            pgs_mock_violate(work->machine,
                             "GFN %llu of domain %u is reclaimed, but is not "
                             "private",
                             (unsigned long long)gfn, domain->domid);
        }
        pgs_mock_unlock(domain, gfn, entry);
    }
}

/* The domain may take so many frames more, or less, from the free pool. */
static void charge(struct pgs_mock_work *work, uint32_t n)
{
    bool off = work->op->flags & PGSHARE_OP_OFF;
    int64_t want = off ? (int64_t)n : -(int64_t)n;
    int64_t moved = pgs_mock_reserve_move(work->machine, want);

    if (moved == want) {
        work->reserve += moved;
    } else {
        pgs_mock_reserve_move(work->machine, -moved);
        for (uint32_t i = 0; i < work->op->count; i++)
            pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
    }
}

void pgs_mock_op_grant(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;

    if (work->op->flags & PGSHARE_OP_CHARGE) {
        if (!first)
            charge(work, work->op->count);
        return;
    }
    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry = pgs_mock_lock(domain, gfn);
        uint32_t frame = FRAME_NONE;

        if (!pgs_mock_is_hole(domain, entry)) {
            pgs_mock_fail(work, i, PGSHARE_ERR_EXISTS);
        } else if (pgs_mock_is_untold(domain, gfn)) {
            pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        } else {
            frame = pgs_mock_zeroed_take(work->machine);
            if (frame == FRAME_NONE)
                pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
        }
        if (frame != FRAME_NONE) {
            work->reserve--;
            pgs_mock_touch(domain, gfn);
            entry = pgs_mock_entry(entry, KIND_PRIVATE, frame);
        }
        pgs_mock_unlock(domain, gfn, entry);
    }
}

/* Copies a page of the peer, as it is now, into a frame. */
static int clone_bytes(struct pgs_mock_work *work, uint32_t i, void *ret_page)
{
    uint64_t gfn = work->op->peer_gfn + i;
    uint32_t entry = pgs_mock_lock(work->peer, gfn);
    const unsigned char *bytes = pgs_mock_view(work->peer, gfn, entry,
                                               ret_page);

    if (bytes && bytes != ret_page)
        memcpy(ret_page, bytes, PGSHARE_PAGE_SIZE);
    pgs_mock_unlock(work->peer, gfn, entry);
    return bytes ? 0 : PGSHARE_ERR_HOLE;
}

void pgs_mock_op_clone(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_machine *machine = work->machine;
    struct pgshare_mock_domain *domain = work->domain;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t frame = FRAME_NONE;
        uint32_t entry;
        int error = PGSHARE_ERR_INVALID;

        if (work->peer) {
            frame = pgs_mock_reserve_take_one(machine);
            error = PGSHARE_ERR_NOFRAME;
        }
        if (frame != FRAME_NONE) {
            frame &= FRAME_NUMBER;
            error = clone_bytes(work, i, pgs_mock_bytes(machine, frame));
        }
        entry = pgs_mock_lock(domain, gfn);
        if (!error && !pgs_mock_is_hole(domain, entry))
            error = PGSHARE_ERR_EXISTS;
        if (!error && pgs_mock_is_untold(domain, gfn))
            error = PGSHARE_ERR_BUSY;
        if (!error) {
            work->reserve--;
            pgs_mock_touch(domain, gfn);
            entry = pgs_mock_entry(entry, KIND_PRIVATE, frame);
        }
        pgs_mock_unlock(domain, gfn, entry);
        if (error) {
            pgs_mock_fail(work, i, error);
            if (frame != FRAME_NONE)
                pgs_mock_reserve_put(machine, 1, &frame, 1);
        }
    }
}

void pgs_mock_op_reserve(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    int64_t want = (int64_t)work->op->arg;

    if (first)
        return;
    if (want)
        work->reserve += pgs_mock_reserve_move(work->machine, want);
    work->ids[0] = pgs_mock_reserve_level(work->machine);
    if (work->reserve != want)
        work->result = PGSHARE_ERR_NOFRAME;
    for (uint32_t i = 1; i < work->op->count; i++)
        work->ids[i] = 0;
}

/* Is page i to be fingerprinted? */
static bool is_asked_for(const struct pgshare_op *op, uint32_t i)
{
    return !op->own_ids || op->own_ids[i] != PGSHARE_ID_NONE;
}

/* Sends for the beginning of the next page that is asked for, from `i` on. */
FETCH void fetch_next(const struct pgs_mock_work *work, uint32_t i,
                      uint32_t end)
{
    uint32_t entry;

    while (i < end && !is_asked_for(work->op, i))
        i++;
    if (i == end)
        return;
    entry = atomic_load_explicit(&work->domain->p2m[work->op->gfn + i],
                                 memory_order_relaxed);
    if (pgs_mock_kind(entry) != KIND_PRIVATE)
        return;
    pgs_mock_frame_fetch_begin(work->machine, entry);
}

/* A seed's secret is the same for all pages of an operation. */
void pgs_mock_op_fingerprint(struct pgs_mock_work *work, uint32_t first,
                             uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    unsigned char buffer[PGSHARE_PAGE_SIZE];
    unsigned char secret[XXH3_SECRET_DEFAULT_SIZE];

    fetch_next(work, first, first + n);
    XXH3_generateSecret_fromSeed(secret, work->op->arg);
    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        const unsigned char *bytes;
        uint32_t entry;

        work->ids[i] = 0;
        if (!is_asked_for(work->op, i))
            continue;
        fetch_next(work, i + 1, first + n);
        entry = pgs_mock_lock(domain, gfn);
        bytes = pgs_mock_view(domain, gfn, entry, buffer);
        if (bytes)
            work->ids[i] = XXH3_64bits_withSecretandSeed(bytes,
                                                         PGSHARE_PAGE_SIZE,
                                                         secret, sizeof(secret),
                                                         work->op->arg);
        else
            pgs_mock_fail(work, i, PGSHARE_ERR_HOLE);
        pgs_mock_unlock(domain, gfn, entry);
    }
}

void pgs_mock_op_read_only(struct pgs_mock_work *work, uint32_t first,
                           uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    bool off = work->op->flags & PGSHARE_OP_OFF;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry = pgs_mock_lock(domain, gfn);

        if (!off && is_pinned(work, entry)) {
            pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        } else {
            pgs_mock_touch(domain, gfn);
            entry = off ? entry & ~ENTRY_READ_ONLY : entry | ENTRY_READ_ONLY;
        }
        pgs_mock_unlock(domain, gfn, entry);
    }
}

void pgs_mock_op_harvest(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    if (!first)
        pgs_mock_harvest(work->domain);
}

/* Tells which of `n` pages under one lock were written, and forgets it. */
static void tell_changes(struct pgs_mock_work *work, uint32_t i, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    uint64_t gfn = work->op->gfn + i;

    pgs_mock_lock_run(domain, gfn, n);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t entry = pgs_mock_entry_at(domain, gfn + k);

        if (!(entry & ENTRY_WRITTEN))
            continue;
        pgs_mock_entry_set(domain, gfn + k, entry & ~ENTRY_WRITTEN);
        work->status[i + k] = 1;
        work->failed = true; /* not all are 0 */
    }
    pgs_mock_unlock_run(domain, gfn);
}

/* Few pages have been written; those under one lock are passed over together. */
void pgs_mock_op_changes(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    const _Atomic uint32_t *p2m = work->domain->p2m + work->op->gfn;
    uint32_t i = first;

    if (!first)
        work->failed = false;
    while (i < first + n) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t room = LOCK_ENTRIES - (uint32_t)(gfn % LOCK_ENTRIES);
        uint32_t end = i + room < first + n ? i + room : first + n;
        uint32_t seen = atomic_load_explicit(pgs_mock_lock_of(work->domain, gfn),
                                             memory_order_relaxed) &
                        ENTRY_LOCK;

        for (uint32_t k = i; k < end; k++)
            seen |= atomic_load_explicit(&p2m[k], memory_order_relaxed);
        if (seen & (ENTRY_WRITTEN | ENTRY_LOCK))
            tell_changes(work, i, end - i);
        i = end;
    }
}

void pgs_mock_op_query(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry = pgs_mock_lock(domain, gfn);
        uint32_t frame = entry & ENTRY_FRAME;
        int state = PGSHARE_GFN_HOLE;

        work->ids[i] = pgs_mock_is_protected(entry)
                           ? pgs_mock_protected_id(work->machine, frame)
                           : 0;
        if (pgs_mock_is_private(domain, entry))
            state = PGSHARE_GFN_PRIVATE;
        else if (pgs_mock_is_protected(entry))
            state = PGSHARE_GFN_PROTECTED;
        else if (!pgs_mock_is_hole(domain, entry))
            state = PGSHARE_GFN_SHARED;
        if (pgs_mock_kind(entry) == KIND_SHARED)
            work->ids[i] = pgs_mock_id(pgs_mock_record(work->machine, frame),
                                       frame);
        else if (pgs_mock_kind(entry) == KIND_ZERO)
            work->ids[i] = PGSHARE_ID_ZERO;
        work->status[i] = (int8_t)state;
        pgs_mock_unlock(domain, gfn, entry);
    }
}

void pgs_mock_op_answer(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_machine *machine = work->machine;
    uint64_t slot = work->op->arg >> 32;

    if (first)
        return;
    if (slot < machine->slots_used && machine->slots[slot])
        pgs_mock_parked_answer(machine->slots[slot], work->op->arg,
                               !(work->op->flags & PGSHARE_OP_OFF));
}

void pgs_mock_op_suspend(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    atomic_store(&work->domain->suspended, !(work->op->flags & PGSHARE_OP_OFF));
}
