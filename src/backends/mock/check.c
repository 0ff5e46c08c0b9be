/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's books, and a walk that checks them.
 *
 * The walk counts for each frame who uses it, by a word per frame of memory of
 * its own, and compares that with the records, the pools and the totals.
 */
#include "machine.h"

#include "base/abi.h"

#include <stdlib.h>
#include <string.h>

/* What the walk has seen of a frame. */
#define SEEN_PRIVATE UINT64_C(0x100000000)
#define SEEN_FREE UINT64_C(0x200000000)
#define SEEN_MAPPINGS UINT64_C(0xffffffff)

struct walk {
    struct pgshare_mock_machine *machine;
    uint64_t *seen;
    uint64_t private_, sparse, cow, orphans, free_numbers;
};

static void walk_domain(struct walk *walk, struct pgshare_mock_domain *domain)
{
    uint64_t touched = 0;

    for (uint64_t gfn = pgs_mock_next_touched(domain, 0); gfn < domain->gfns;
         gfn = pgs_mock_next_touched(domain, gfn + 1)) {
        uint32_t entry = atomic_load(&domain->p2m[gfn]);
        uint32_t frame = entry & ENTRY_FRAME;
        unsigned kind = pgs_mock_kind(entry);

        touched++;
        if (entry & ENTRY_LOCK)
            pgs_mock_violate(walk->machine, "GFN %llu of domain %u is locked",
                             (unsigned long long)gfn, domain->domid);
        if (pgs_mock_is_sparse(domain, entry)) {
            walk->sparse++;
        } else if (kind == KIND_PRIVATE || kind == KIND_PROTECTED) {
            if (walk->seen[frame])
                pgs_mock_violate(
                    walk->machine,
                    "frame %u of GFN %llu of domain %u has another "
                    "user",
                    frame, (unsigned long long)gfn, domain->domid);
            walk->seen[frame] |= SEEN_PRIVATE;
            walk->private_++;
        } else if (kind == KIND_SHARED) {
            walk->seen[frame]++;
        }
    }
    if (domain->sparse)
        walk->sparse += domain->gfns - touched;
}

static void walk_free(struct walk *walk, const uint32_t *frames, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = frames[i] & FRAME_NUMBER;

        if (walk->seen[frame])
            pgs_mock_violate(walk->machine, "frame %u is free, and %s", frame,
                             walk->seen[frame] & SEEN_FREE ? "twice so"
                                                           : "mapped");
        walk->seen[frame] |= SEEN_FREE;
    }
    walk->free_numbers += n;
}

static void walk_pool(struct walk *walk)
{
    struct pgs_mock_pool *pool = &walk->machine->pool;

    walk_free(walk, pool->stack, pool->n);
    walk_free(walk, pool->zeroed, pool->zeroed_n);
    for (unsigned i = 0; i < SHARDS; i++)
        for (uint32_t j = 0; j < pool->shards[i].n; j++) {
            uint32_t frame = pool->shards[i].frames[j];

            walk_free(walk, &frame, 1);
        }
}

static void check_frame(struct walk *walk, uint32_t frame)
{
    struct pgshare_mock_machine *machine = walk->machine;
    uint64_t record = pgs_mock_record(machine, frame);
    uint32_t mappings = pgs_mock_record_mappings(record);
    enum pgs_mock_type type = pgs_mock_record_type(record);
    bool shared = type == TYPE_COW || type == TYPE_ORPHAN;

    walk->cow += type == TYPE_COW;
    walk->orphans += type == TYPE_ORPHAN;
    if (mappings != (walk->seen[frame] & SEEN_MAPPINGS))
        pgs_mock_violate(machine, "frame %u counts %u mappings, but has %llu",
                         frame, mappings,
                         (unsigned long long)(walk->seen[frame] &
                                              SEEN_MAPPINGS));
    if (!shared && walk->seen[frame] & SEEN_MAPPINGS)
        pgs_mock_violate(machine, "frame %u is mapped, but is none", frame);
    if (shared && walk->seen[frame] & (SEEN_FREE | SEEN_PRIVATE))
        pgs_mock_violate(machine, "frame %u is shared and free or private",
                         frame);
    if (type == TYPE_NONE && !walk->seen[frame])
        pgs_mock_violate(machine, "frame %u is lost", frame);
}

static void check_totals(const struct walk *walk)
{
    struct pgshare_mock_machine *machine = walk->machine;
    uint64_t level = pgs_mock_reserve_level(machine);
    uint64_t sum = machine->pool.free + level + walk->private_ + walk->sparse +
                   walk->cow + walk->orphans;

    if (walk->sparse != atomic_load(&machine->sparse))
        pgs_mock_violate(machine, "%llu sparse pages, counted %llu",
                         (unsigned long long)walk->sparse,
                         (unsigned long long)atomic_load(&machine->sparse));
    if (sum != machine->frames)
        pgs_mock_violate(machine,
                         "free %llu + reserve %llu + private %llu + cow %llu + "
                         "orphans %llu are not %llu",
                         (unsigned long long)machine->pool.free,
                         (unsigned long long)level,
                         (unsigned long long)(walk->private_ + walk->sparse),
                         (unsigned long long)walk->cow,
                         (unsigned long long)walk->orphans,
                         (unsigned long long)machine->frames);
}

static bool walk_all(struct walk *walk)
{
    struct pgshare_mock_machine *machine = walk->machine;
    uint32_t fresh = machine->pool.fresh;

    walk->seen = calloc((size_t)fresh + 1, sizeof(*walk->seen));
    if (!walk->seen)
        return false;
    for (uint32_t i = 0; i < machine->slots_used; i++)
        if (machine->slots[i])
            walk_domain(walk, machine->slots[i]);
    walk_pool(walk);
    for (uint32_t frame = 0; frame < fresh; frame++)
        check_frame(walk, frame);
    check_totals(walk);
    free(walk->seen);
    return true;
}

uint64_t pgshare_mock_check(struct pgshare_mock_machine *machine)
{
    struct walk walk = { .machine = machine };
    uint64_t before;

    if (!machine)
        return 0;
    before = atomic_load(&machine->violations);
    walk_all(&walk);
    return atomic_load(&machine->violations) - before;
}

/* Private pages and frames are counted from the records: what has a frame and
 * is neither free nor shared is private. */
static void count_frames(struct pgshare_mock_machine *machine,
                         struct pgshare_mock_info *info)
{
    uint32_t fresh;

    pgs_mock_spin_lock(&machine->pool.lock);
    fresh = machine->pool.fresh;
    info->free = machine->pool.free;
    pgs_mock_spin_unlock(&machine->pool.lock);
    for (uint32_t frame = 0; frame < fresh; frame++) {
        enum pgs_mock_type type = pgs_mock_record_type(
            pgs_mock_record(machine, frame));

        info->cow += type == TYPE_COW;
        info->orphans += type == TYPE_ORPHAN;
    }
    info->reserve = pgs_mock_reserve_level(machine);
    info->private_ = info->frames - info->free - info->reserve - info->cow -
                     info->orphans;
}

int pgshare_mock_info(struct pgshare_mock_machine *machine,
                      struct pgshare_mock_info *ret_info)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };
    int error;

    if (!machine || !ret_info)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_check_out(ret_info, sizeof(info.size));
    if (error)
        return error;
    info.frames = machine->frames;
    count_frames(machine, &info);
    info.pending = atomic_load(&machine->pending_n);
    info.parked = atomic_load(&machine->parked);
    info.unharvested = atomic_load(&machine->unharvested);
    info.now_ns = atomic_load(&machine->now);
    info.polls = atomic_load(&machine->polls);
    for (unsigned i = 0; i < SHARDS; i++)
        info.ops += atomic_load(&machine->pool.shards[i].ops);
    info.faults = atomic_load(&machine->faults);
    info.breaks = atomic_load(&machine->breaks);
    info.copies = atomic_load(&machine->copies);
    info.retries = atomic_load(&machine->retries);
    info.dropped = atomic_load(&machine->dropped);
    info.killed = atomic_load(&machine->killed);
    info.demands = atomic_load(&machine->demands);
    info.hooks = atomic_load(&machine->hooked);
    info.lost = atomic_load(&machine->lost);
    info.doubled = atomic_load(&machine->doubled);
    info.violations = atomic_load(&machine->violations);
    pgs_abi_out(ret_info, &info, sizeof(info));
    return 0;
}
