/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sharing: protect, compare, publish, map, and all of it at once.
 *
 * Loops over extents hold the locks of a few pages at a time, for some dozens
 * of instructions; memory that mapping frees is collected and goes to the
 * reserve in one piece.
 * Comparing takes no lock where the library resolves CoW: a protected page
 * cannot change then, and only an operation on the same GFN could free it. On
 * other platforms a write can void the protection at any time, so that each
 * page is locked while it is compared.
 */
#include "machine.h"

#include <pgshare/domain.h>
#include <pgshare/gfn.h>

#include <string.h>

/* What is protected is compared next. The bytes of a few pages are sent for;
 * more would leave the cache again, and long extents are read as fast as the
 * memory goes anyway. */
#define PAGES_FETCHED 4u

static bool is_xen(const struct pgshare_mock_machine *machine)
{
    return machine->options.flavour == PGSHARE_MOCK_XEN;
}

static bool is_mapping(uint32_t entry)
{
    return pgs_mock_kind(entry) == KIND_SHARED ||
           pgs_mock_kind(entry) == KIND_ZERO;
}

/* A step on a page that should be protected and is not. Platforms that void
 * protections by themselves expect that; elsewhere the library is wrong. */
static void not_protected(struct pgs_mock_work *work, uint32_t i,
                          const char *step, int error)
{
    pgs_mock_fail(work, i, error);
    if (!work->machine->platform_cow)
        pgs_mock_violate(work->machine,
                         "%s of GFN %llu of domain %u, which is not protected",
                         step, (unsigned long long)(work->op->gfn + i),
                         work->domain->domid);
}

/* Is its removal under way? Then the library waits no more for what is delayed
 * on its pages, and lets the pages of its peers go. */
static bool is_leaving(const struct pgshare_mock_domain *domain)
{
    uint64_t dom;

    return pgshare_domain_find(domain->machine->host, domain->domid,
                               domain->generation,
                               &dom) == PGSHARE_ERR_NODOMAIN;
}

/* Is the handle that PROTECT gave still the frame's name? Locked page. */
static bool own_id_is_stale(const struct pgs_mock_work *work, uint32_t i,
                            uint32_t entry)
{
    uint32_t frame = entry & ENTRY_FRAME;

    return is_xen(work->machine) && work->op->own_ids &&
           work->op->own_ids[i] !=
               pgs_mock_id(pgs_mock_record(work->machine, frame), frame);
}

/* What PROTECT answers for a page with this frame. With MERGE, what is protected
 * must differ from what is private. */
uint64_t pgs_mock_protected_id(const struct pgshare_mock_machine *machine,
                               uint32_t frame)
{
    if (is_xen(machine))
        return pgs_mock_id(pgs_mock_record(machine, frame), frame);
    return machine->options.flavour == PGSHARE_MOCK_LINUX;
}

/* Protects one locked page. Returns the new entry. */
static uint32_t protect(struct pgs_mock_work *work, uint32_t i, uint32_t entry)
{
    struct pgshare_mock_machine *machine = work->machine;
    struct pgshare_mock_domain *domain = work->domain;
    uint32_t frame = entry & ENTRY_FRAME;

    if (pgs_mock_is_private(domain, entry) &&
        pgs_mock_is_untold(domain, work->op->gfn + i)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        return entry;
    }
    if (pgs_mock_kind(entry) == KIND_DEFAULT && domain->sparse) {
        pgs_mock_touch(domain, work->op->gfn + i);
        if (!is_xen(machine))
            return pgs_mock_entry(entry, KIND_SPARSE_PROTECTED, 0);
        frame = pgs_mock_materialise(domain, work->op->gfn + i, entry);
        if (frame == FRAME_NONE) {
            pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
            return entry;
        }
    } else if (pgs_mock_kind(entry) != KIND_PRIVATE) {
        bool again = is_xen(machine) && pgs_mock_kind(entry) == KIND_PROTECTED;

        if (again)
            work->ids[i] = pgs_mock_protected_id(machine, frame);
        else
            pgs_mock_fail(work, i,
                          pgs_mock_is_hole(domain, entry) ? PGSHARE_ERR_HOLE
                                                          : PGSHARE_ERR_STATE);
        return entry;
    }
    if (pgs_mock_record(machine, frame) & RECORD_PINS) {
        pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        return pgs_mock_entry(entry, KIND_PRIVATE, frame);
    }
    if (is_xen(machine)) {
        pgs_mock_frame_publish(machine, frame, TYPE_NOMINATED, 0);
        work->ids[i] = pgs_mock_protected_id(machine, frame);
    }
    return pgs_mock_entry(entry, KIND_PROTECTED, frame);
}

/* The lines of the page table that an operation is about to lock: it would
 * wait for each in turn. */
FETCH void fetch_entries(const struct pgs_mock_work *work, uint32_t first,
                         uint32_t n)
{
    const uint32_t line = 64 / sizeof(*work->domain->p2m);

    for (uint32_t i = first; i < first + n; i += line)
        __builtin_prefetch(&work->domain->p2m[work->op->gfn + i], 1);
}

void pgs_mock_op_protect(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    uint64_t id = is_xen(work->machine)
                      ? 0
                      : pgs_mock_protected_id(work->machine, 0);
    uint32_t end = first + n, i = first;

    fetch_entries(work, first, n);
    for (uint32_t k = first; n <= PAGES_FETCHED && k < end; k++)
        pgs_mock_frame_fetch(work->machine,
                             pgs_mock_entry_at(domain, work->op->gfn + k));
    while (i < end) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t stop = i + pgs_mock_lock_run(domain, gfn, end - i);

        for (; i < stop; i++) {
            uint64_t at = work->op->gfn + i;

            work->ids[i] = id;
            if (domain->direct)
                pgs_mock_fail(work, i, PGSHARE_ERR_NOTSUP);
            else
                pgs_mock_entry_set(
                    domain, at,
                    protect(work, i, pgs_mock_entry_at(domain, at)));
        }
        pgs_mock_unlock_run(domain, gfn);
    }
}

void pgs_mock_op_unprotect(struct pgs_mock_work *work, uint32_t first,
                           uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry = pgs_mock_lock(domain, gfn);

        if (pgs_mock_kind(entry) == KIND_PROTECTED) {
            if (is_xen(work->machine))
                pgs_mock_frame_plain(work->machine, entry & ENTRY_FRAME);
            entry = pgs_mock_entry(entry, KIND_PRIVATE, entry);
        } else if (pgs_mock_kind(entry) == KIND_SPARSE_PROTECTED) {
            entry = pgs_mock_entry(entry, KIND_DEFAULT, 0);
        } else if (!work->machine->platform_cow) {
            not_protected(work, i, "unprotect", PGSHARE_ERR_STATE);
        }
        pgs_mock_unlock(domain, gfn, entry);
    }
}

static bool is_zero(const unsigned char *bytes)
{
    /* Each byte equals the one before it, and the first is zero. */
    return !bytes[0] && !memcmp(bytes, bytes + 1, PGSHARE_PAGE_SIZE - 1);
}

static bool equals_frame(const struct pgs_mock_work *work, uint64_t id,
                         const unsigned char *bytes)
{
    if (id == PGSHARE_ID_ZERO)
        return is_zero(bytes);
    return !memcmp(bytes, pgs_mock_bytes(work->machine, (uint32_t)id),
                   PGSHARE_PAGE_SIZE);
}

/* A page of the peer, if it cannot change. */
static const unsigned char *peer_bytes(struct pgs_mock_work *work, uint32_t i,
                                       uint32_t entry, unsigned char *buffer)
{
    if (!pgs_mock_is_protected(entry) && !is_mapping(entry))
        return NULL;
    return pgs_mock_view(work->peer, work->op->peer_gfn + i, entry, buffer);
}

/* The other side of a comparison, in whatever way it is named; NULL: void. */
static const unsigned char *source_bytes(struct pgs_mock_work *work, uint32_t i,
                                         unsigned char *buffer)
{
    const struct pgshare_op *op = work->op;
    uint32_t entry;

    if (op->ids)
        return pgs_mock_id_is_cow(work->machine, op->ids[i])
                   ? pgs_mock_bytes(work->machine, (uint32_t)op->ids[i])
                   : NULL;
    entry = atomic_load_explicit(&work->peer->p2m[op->peer_gfn + i],
                                 memory_order_acquire);
    return peer_bytes(work, i, entry, buffer);
}

/*
 * The same where the platform resolves CoW: a guest may write to the source at
 * any moment. A page is copied under its lock; a frame gets a mapping more
 * while it is copied, so that its last mapping does not take it.
 */
static const unsigned char *source_copy(struct pgs_mock_work *work, uint32_t i,
                                        unsigned char *buffer)
{
    const struct pgshare_op *op = work->op;
    const unsigned char *bytes = NULL;
    uint64_t gfn = op->peer_gfn + i;
    uint32_t entry;

    if (op->ids) {
        if (!pgs_mock_frame_map(work->machine, op->ids[i]))
            return NULL;
        memcpy(buffer, pgs_mock_bytes(work->machine, (uint32_t)op->ids[i]),
               PGSHARE_PAGE_SIZE);
        pgs_mock_frame_unmap(work->machine, (uint32_t)op->ids[i], false);
        return buffer;
    }
    entry = pgs_mock_lock(work->peer, gfn);
    bytes = peer_bytes(work, i, entry, buffer);
    if (bytes && bytes != buffer)
        memcpy(buffer, bytes, PGSHARE_PAGE_SIZE);
    pgs_mock_unlock(work->peer, gfn, entry);
    return bytes ? buffer : NULL;
}

/* Compares one page, whose entry the caller has locked or knows to stay, with
 * the source (NULL: void). */
static void compare_one(struct pgs_mock_work *work, uint32_t i, uint32_t entry,
                        bool zero, const unsigned char *source)
{
    unsigned char buffer[PGSHARE_PAGE_SIZE];
    const unsigned char *client;

    if (!pgs_mock_is_protected(entry) && !is_mapping(entry)) {
        not_protected(work, i, "compare", PGSHARE_ERR_CLIENT_TICKET);
        return;
    }
    if (!zero && !source && work->peer && work->peer->dead) {
        pgs_mock_fail(work, i, PGSHARE_ERR_SOURCE_TICKET);
        return;
    }
    if (!zero && !source && is_leaving(work->domain)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_SOURCE_TICKET);
        return;
    }
    if (!zero && !source) {
        not_protected(work, i, "compare (source)", PGSHARE_ERR_SOURCE_TICKET);
        return;
    }
    client = pgs_mock_view(work->domain, work->op->gfn + i, entry, buffer);
    if (zero ? !is_zero(client) : memcmp(client, source, PGSHARE_PAGE_SIZE))
        pgs_mock_fail(work, i, PGSHARE_ERR_DIFFERENT);
}

/* Sends for the beginning of what page i is compared with, and of itself. */
FETCH void fetch_pair(const struct pgs_mock_work *work, uint32_t i)
{
    const struct pgshare_op *op = work->op;
    uint32_t client = pgs_mock_entry_at(work->domain, op->gfn + i);
    uint32_t source = 0;

    if (op->ids)
        source = (uint32_t)op->ids[i];
    else if (work->peer)
        source = pgs_mock_entry_at(work->peer, op->peer_gfn + i);
    pgs_mock_frame_fetch_begin(work->machine, client);
    pgs_mock_frame_fetch_begin(work->machine, source);
}

void pgs_mock_op_compare(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    bool quiet = !work->machine->platform_cow;
    unsigned char buffer[PGSHARE_PAGE_SIZE];

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        bool zero = work->op->ids && work->op->ids[i] == PGSHARE_ID_ZERO;
        const unsigned char *source = NULL;
        uint32_t entry;

        if (i + 1 < first + n)
            fetch_pair(work, i + 1);
        if (!work->op->ids && !work->peer) {
            pgs_mock_fail(work, i, PGSHARE_ERR_INVALID);
        } else if (quiet) {
            entry = atomic_load_explicit(&domain->p2m[gfn],
                                         memory_order_acquire);
            if (!zero)
                source = source_bytes(work, i, buffer);
            compare_one(work, i, entry, zero, source);
        } else {
            if (!zero)
                source = source_copy(work, i, buffer);
            entry = pgs_mock_lock(domain, gfn);
            compare_one(work, i, entry, zero, source);
            pgs_mock_unlock(domain, gfn, entry);
        }
    }
}

/* A copy of a page becomes a frame without mappings. */
static uint32_t publish_snapshot(struct pgs_mock_work *work, uint32_t i,
                                 uint32_t entry)
{
    struct pgshare_mock_machine *machine = work->machine;
    unsigned char buffer[PGSHARE_PAGE_SIZE];
    const unsigned char *bytes = pgs_mock_view(work->domain, work->op->gfn + i,
                                               entry, buffer);
    uint32_t frame;

    if (!bytes) {
        pgs_mock_fail(work, i, PGSHARE_ERR_HOLE);
        return entry;
    }
    frame = pgs_mock_reserve_take_one(machine);
    if (frame == FRAME_NONE) {
        pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
        return entry;
    }
    frame &= FRAME_NUMBER;
    work->reserve--;
    memcpy(pgs_mock_bytes(machine, frame), bytes, PGSHARE_PAGE_SIZE);
    pgs_mock_frame_publish(machine, frame, TYPE_COW, 0);
    work->ids[i] = pgs_mock_id(pgs_mock_record(machine, frame), frame);
    return entry;
}

/* A protected page becomes a frame, itself its first mapping. */
static uint32_t publish_page(struct pgs_mock_work *work, uint32_t i,
                             uint32_t entry)
{
    struct pgshare_mock_machine *machine = work->machine;
    uint32_t frame;

    if (!pgs_mock_is_protected(entry)) {
        not_protected(work, i, "publish", PGSHARE_ERR_CLIENT_TICKET);
        return entry;
    }
    if (own_id_is_stale(work, i, entry)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_CLIENT_TICKET);
        return entry;
    }
    frame = pgs_mock_materialise(work->domain, work->op->gfn + i, entry);
    if (frame == FRAME_NONE) {
        pgs_mock_fail(work, i, PGSHARE_ERR_NOFRAME);
        return entry;
    }
    if (is_xen(machine)) {
        /* The handle stays what nomination said. */
        uint64_t record = pgs_mock_record(machine, frame);

        record = record >> RECORD_VERSION_SHIFT << RECORD_VERSION_SHIFT |
                 (uint64_t)TYPE_COW << RECORD_TYPE_SHIFT | 1;
        atomic_store_explicit(&machine->records[frame], record,
                              memory_order_release);
    } else {
        pgs_mock_frame_publish(machine, frame, TYPE_COW, 1);
    }
    work->ids[i] = pgs_mock_id(pgs_mock_record(machine, frame), frame);
    return pgs_mock_entry(entry, KIND_SHARED, frame);
}

void pgs_mock_op_publish(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    bool snapshot = work->machine->options.flavour == PGSHARE_MOCK_LINUX;
    uint32_t end = first + n, i = first;

    while (i < end) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t stop = i + pgs_mock_lock_run(domain, gfn, end - i);

        for (; i < stop; i++) {
            uint64_t at = work->op->gfn + i;
            uint32_t entry = pgs_mock_entry_at(domain, at);

            work->ids[i] = 0;
            pgs_mock_entry_set(domain, at,
                               snapshot ? publish_snapshot(work, i, entry)
                                        : publish_page(work, i, entry));
        }
        pgs_mock_unlock_run(domain, gfn);
    }
}

/* Memory that mappings replaced. */
struct replaced {
    uint32_t frames[PGSHARE_EXTENT_MAX];
    uint32_t n;
    uint32_t tokens;
};

static void replaced_flush(struct pgs_mock_work *work,
                           struct replaced *replaced)
{
    if (replaced->tokens)
        pgs_mock_reserve_put(work->machine, replaced->n, replaced->frames,
                             replaced->tokens);
    work->reserve += replaced->tokens;
}

/* Puts the frame `id` in place of what a locked entry has. */
static uint32_t replace(struct pgs_mock_work *work, uint32_t i, uint32_t entry,
                        struct replaced *replaced)
{
    struct pgshare_mock_machine *machine = work->machine;
    struct pgshare_mock_domain *domain = work->domain;
    uint64_t id = work->op->ids[i];
    bool zero = id == PGSHARE_ID_ZERO;

    if (!zero && !pgs_mock_frame_map(machine, id)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_SOURCE_TICKET);
        if (!machine->platform_cow)
            pgs_mock_violate(machine, "GFN %llu is mapped to no frame (%llx)",
                             (unsigned long long)(work->op->gfn + i),
                             (unsigned long long)id);
        return entry;
    }
    if (pgs_mock_is_sparse(domain, entry)) {
        atomic_fetch_sub_explicit(&machine->sparse, 1, memory_order_relaxed);
        replaced->tokens++;
    } else if (pgs_mock_kind(entry) == KIND_SHARED) {
        pgs_mock_frame_unmap(machine, entry & ENTRY_FRAME, false);
    } else if (pgs_mock_kind(entry) == KIND_PRIVATE ||
               pgs_mock_kind(entry) == KIND_PROTECTED) {
        if (is_xen(machine))
            pgs_mock_frame_plain(machine, entry & ENTRY_FRAME);
        replaced->frames[replaced->n++] = entry & ENTRY_FRAME;
        replaced->tokens++;
    }
    return zero ? pgs_mock_entry(entry, KIND_ZERO, 0)
                : pgs_mock_entry(entry, KIND_SHARED, (uint32_t)id);
}

/* Is the difference that a paranoid machine found one that the guest wants:
 * the zero frame for a page that it declared free? */
static bool is_declared_free(const struct pgs_mock_work *work, uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    int error = PGSHARE_ERR_NODOMAIN;

    if (work->machine->host)
        error = pgshare_gfn_info(work->machine->host, work->domain->handle,
                                 gfn, &info);
    /* nobody knows any more what a domain that leaves had declared */
    return error == PGSHARE_ERR_NODOMAIN || info.flags & PGSHARE_GFN_FREE;
}

/* The content of a page that is to be replaced must be the frame's. */
static void check_content(struct pgs_mock_work *work, uint32_t i)
{
    unsigned char buffer[PGSHARE_PAGE_SIZE];
    uint64_t gfn = work->op->gfn + i;
    uint64_t id = work->op->ids[i];
    uint32_t entry = pgs_mock_lock(work->domain, gfn);
    const unsigned char *bytes = pgs_mock_view(work->domain, gfn, entry,
                                               buffer);
    bool zero = id == PGSHARE_ID_ZERO;
    bool kept = zero || pgs_mock_frame_map(work->machine, id);
    bool differs = (pgs_mock_is_protected(entry) || is_mapping(entry)) &&
                   kept && !equals_frame(work, id, bytes);

    if (kept && !zero)
        pgs_mock_frame_unmap(work->machine, (uint32_t)id, false);
    pgs_mock_unlock(work->domain, gfn, entry);
    if (differs && !(zero && is_declared_free(work, gfn)))
        pgs_mock_violate(work->machine,
                         "GFN %llu of domain %u is mapped to a frame of other "
                         "content",
                         (unsigned long long)gfn, work->domain->domid);
}

/* Moves all other mappings of a client's frame, as Xen does. The last of them
 * may take the frame meanwhile, and make another one of it: by its number alone
 * it could not be told from this one. */
static void move_mappings(struct pgs_mock_work *work, uint64_t from,
                          uint64_t to)
{
    struct pgshare_mock_machine *machine = work->machine;
    bool zero = to == PGSHARE_ID_ZERO;

    for (uint32_t slot = 0; slot < machine->slots_used; slot++) {
        struct pgshare_mock_domain *domain = machine->slots[slot];

        if (!domain || !domain->handle || domain->removed)
            continue;
        for (uint64_t gfn = pgs_mock_next_touched(domain, 0);
             gfn < domain->gfns; gfn = pgs_mock_next_touched(domain, gfn + 1)) {
            uint32_t entry = pgs_mock_lock(domain, gfn);

            if (pgs_mock_kind(entry) == KIND_SHARED &&
                (entry & ENTRY_FRAME) == (uint32_t)from &&
                pgs_mock_id_is_cow(machine, from) &&
                (zero || pgs_mock_frame_map(machine, to))) {
                pgs_mock_frame_unmap(machine, (uint32_t)from, false);
                entry = zero ? pgs_mock_entry(entry, KIND_ZERO, 0)
                             : pgs_mock_entry(entry, KIND_SHARED, (uint32_t)to);
            }
            pgs_mock_unlock(domain, gfn, entry);
        }
    }
}

/* May a locked entry be replaced? Says why not. */
static bool is_replaceable(struct pgs_mock_work *work, uint32_t i,
                           uint32_t entry)
{
    if (work->op->flags & PGSHARE_OP_HOLES) {
        if (!pgs_mock_is_hole(work->domain, entry))
            pgs_mock_fail(work, i, PGSHARE_ERR_EXISTS);
        else if (pgs_mock_is_untold(work->domain, work->op->gfn + i))
            pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
        else
            return true;
        return false;
    }
    if (is_mapping(entry))
        return true;
    if (!pgs_mock_is_protected(entry)) {
        not_protected(work, i, "map", PGSHARE_ERR_CLIENT_TICKET);
        return false;
    }
    if (own_id_is_stale(work, i, entry)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_CLIENT_TICKET);
        return false;
    }
    return true;
}

/* A frame whose other mappings follow the one that was replaced (Xen). Guests
 * may not take `to` over meanwhile: it has a mapping more. */
struct following {
    uint64_t from[LOCK_ENTRIES];
    uint64_t to[LOCK_ENTRIES];
    uint32_t n;
};

/* `from`: the name of the frame that page i mapped, 0: of none. */
static void note_following(struct pgs_mock_work *work, uint32_t i,
                           uint64_t from, struct following *following)
{
    uint64_t to = work->op->ids[i];

    if (!from || from == to ||
        (to != PGSHARE_ID_ZERO && !pgs_mock_frame_map(work->machine, to)))
        return;
    following->from[following->n] = from;
    following->to[following->n++] = to;
}

static void follow(struct pgs_mock_work *work,
                   const struct following *following)
{
    for (uint32_t k = 0; k < following->n; k++) {
        uint64_t to = following->to[k];

        move_mappings(work, following->from[k], to);
        if (to != PGSHARE_ID_ZERO)
            pgs_mock_frame_unmap(work->machine, (uint32_t)to, false);
    }
}

/* Maps one locked page. */
static void map_page(struct pgs_mock_work *work, uint32_t i,
                     struct replaced *replaced, struct following *following)
{
    struct pgshare_mock_domain *domain = work->domain;
    uint64_t gfn = work->op->gfn + i;
    uint32_t entry = pgs_mock_entry_at(domain, gfn);
    uint32_t frame = entry & ENTRY_FRAME;
    uint64_t from = 0;

    if (!is_replaceable(work, i, entry))
        return;
    if (pgs_mock_kind(entry) == KIND_DEFAULT)
        pgs_mock_touch(domain, gfn);
    if (is_xen(work->machine) && pgs_mock_kind(entry) == KIND_SHARED)
        from = pgs_mock_id(pgs_mock_record(work->machine, frame), frame);
    pgs_mock_entry_set(domain, gfn, replace(work, i, entry, replaced));
    if (!work->status[i])
        note_following(work, i, from, following);
}

static void map_pages(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    struct replaced replaced;
    uint32_t end = first + n, i = first;

    replaced.n = 0;
    replaced.tokens = 0;
    while (i < end) {
        struct following following;
        uint64_t gfn = work->op->gfn + i;
        uint32_t stop = i + pgs_mock_lock_run(domain, gfn, end - i);

        following.n = 0;
        for (; i < stop; i++)
            map_page(work, i, &replaced, &following);
        pgs_mock_unlock_run(domain, gfn);
        follow(work, &following);
    }
    replaced_flush(work, &replaced);
}

void pgs_mock_op_map(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    int error = work->op->ids ? PGSHARE_ERR_NOTSUP : PGSHARE_ERR_INVALID;
    bool possible = work->op->ids && !work->domain->direct;
    bool paranoid = work->machine->options.flags & PGSHARE_MOCK_PARANOID &&
                    !(work->op->flags & PGSHARE_OP_HOLES);

    for (uint32_t i = first; !possible && i < first + n; i++)
        pgs_mock_fail(work, i, error);
    for (uint32_t i = first; possible && paranoid && i < first + n; i++)
        check_content(work, i);
    if (possible)
        map_pages(work, first, n);
}

/* Is a page still what the core takes it for? It may have been broken, which
 * the core is yet to be told. */
static bool is_as_thought(const struct pgs_mock_work *work, uint32_t i,
                          uint32_t entry)
{
    uint64_t own = work->op->own_ids ? work->op->own_ids[i] : PGSHARE_ID_NONE;

    if (own == PGSHARE_ID_NONE)
        return true;
    if (own == PGSHARE_ID_ZERO)
        return pgs_mock_kind(entry) == KIND_ZERO;
    if (pgs_mock_kind(entry) == KIND_SHARED)
        return (entry & ENTRY_FRAME) == (uint32_t)own;
    return pgs_mock_is_protected(entry);
}

static uint32_t merge(struct pgs_mock_work *work, uint32_t i, uint32_t entry,
                      struct replaced *replaced)
{
    struct pgshare_mock_machine *machine = work->machine;
    struct pgshare_mock_domain *domain = work->domain;
    unsigned char buffer[PGSHARE_PAGE_SIZE];
    uint64_t id = work->op->ids[i];

    if (pgs_mock_is_hole(domain, entry)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_HOLE);
    } else if (!is_as_thought(work, i, entry)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_CLIENT_TICKET);
    } else if (pgs_mock_kind(entry) == KIND_PRIVATE &&
               pgs_mock_record(machine, entry & ENTRY_FRAME) & RECORD_PINS) {
        pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
    } else if (pgs_mock_is_private(domain, entry) &&
               pgs_mock_is_untold(domain, work->op->gfn + i)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_BUSY);
    } else if (id != PGSHARE_ID_ZERO && !pgs_mock_id_is_cow(machine, id)) {
        pgs_mock_fail(work, i, PGSHARE_ERR_SOURCE_TICKET);
        pgs_mock_violate(machine, "GFN %llu is merged with no frame (%llx)",
                         (unsigned long long)(work->op->gfn + i),
                         (unsigned long long)id);
    } else if (!equals_frame(work, id,
                             pgs_mock_view(domain, work->op->gfn + i, entry,
                                           buffer))) {
        pgs_mock_fail(work, i, PGSHARE_ERR_DIFFERENT);
    } else {
        pgs_mock_touch(domain, work->op->gfn + i);
        return replace(work, i, entry, replaced);
    }
    return entry;
}

void pgs_mock_op_merge(struct pgs_mock_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_mock_domain *domain = work->domain;
    struct replaced replaced;

    replaced.n = 0;
    replaced.tokens = 0;
    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        uint32_t entry;

        if (!work->op->ids || domain->direct) {
            pgs_mock_fail(work, i,
                          work->op->ids ? PGSHARE_ERR_NOTSUP
                                        : PGSHARE_ERR_INVALID);
            continue;
        }
        entry = pgs_mock_lock(domain, gfn);
        pgs_mock_unlock(domain, gfn, merge(work, i, entry, &replaced));
    }
    replaced_flush(work, &replaced);
}
