/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All operations but sharing: what gives memory, takes memory, and tells.
 *
 * A copy is the kernel's to make, whoever wants it: it is asked to make the
 * page writable, which is atomic against the guest's own write and needs no
 * change of mappings. (A zeroed page in place of the copy would need one, and
 * that costs twenty times as much as copying the 4 KiB.)
 */
#include "kvm/backend.h"

#include <pgshare/gfn.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* ---- a page becomes private -------------------------------------------- */

/* A page with these bytes where there is nothing, or nothing but the kernel's
 * zero page. The kernel may not be stopped by our own userfaultfd for it; where
 * that is not registered (the guest is suspended) only zeroes can be had. */
static int populate(struct pgshare_kvm_guest *guest, unsigned char *at,
                    const void *bytes)
{
    int error = 0;

    if (guest->trapped)
        error = pgs_sys_uffd_protect(guest->uffd, at, PAGE, false);
    if (!error)
        error = pgs_sys_uffd_copy(guest->uffd, at, bytes, PAGE,
                                  UFFDIO_COPY_MODE_DONTWAKE);
    if (error == -EEXIST || (error == -ENOENT && bytes == pgs_zeroes))
        error = pgs_sys_advise(at, PAGE, MADV_POPULATE_WRITE);
    return error;
}

/* Does the page still map what the library thinks it maps? */
static bool maps(const struct pgs_kvm_work *work, uint32_t i)
{
    struct pgshare_kvm_guest *guest = work->guest;
    uint64_t gfn = work->op->gfn + i;
    uint64_t id = work->op->ids ? work->op->ids[i] : PGSHARE_ID_NONE;

    if (pgs_kind(guest, gfn) == KIND_ZERO)
        return id == PGSHARE_ID_NONE || id == PGSHARE_ID_ZERO;
    return pgs_kind(guest, gfn) == KIND_FRAME &&
           (id == PGSHARE_ID_NONE ||
            id == pgs_pool_id(guest->pool, pgs_place(guest, gfn)));
}

/* The guest was faster: that is told by the next harvest. */
static bool is_broken(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    if (guest->trapped || pgs_scan_is_own(guest, gfn) <= 0)
        return false;
    if (pgs_kind(guest, gfn) == KIND_FRAME)
        pgs_set_kind(guest, gfn, KIND_UNTOLD, NO_PLACE);
    return true;
}

/* The frame goes with its last mapping. */
static void take_frame(struct pgs_kvm_work *work, uint64_t place)
{
    struct pgs_kvm_pool *pool = work->guest->pool;

    if (pgs_pool_release(pool, place) == 1)
        pgs_pool_punch(pool, place, 1);
}

static int8_t unshare_page(struct pgs_kvm_work *work, uint64_t gfn)
{
    struct pgshare_kvm_guest *guest = work->guest;
    bool take = work->op->flags & PGSHARE_OP_TAKE;
    bool zero = pgs_kind(guest, gfn) == KIND_ZERO;
    uint64_t place = pgs_place(guest, gfn);
    unsigned char *at = pgs_at(guest, gfn);
    int error;

    if (take && zero)
        return PGSHARE_ERR_STATE;
    if (!take && !pgs_reserve_spend(work->kvm, 1))
        return PGSHARE_ERR_NOFRAME;
    work->reserve -= !take;
    error = zero ? populate(guest, at, pgs_zeroes) : pgs_own(guest, gfn, at);
    if (error) {
        if (!take)
            work->reserve += pgs_reserve_move(work->kvm, 1);
        return error == -ENOMEM || error == -EFAULT ? PGSHARE_ERR_NOFRAME
                                                    : PGSHARE_ERR_BACKEND;
    }
    if (zero)
        pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
    pgs_guard(guest, gfn, 1);
    pgs_set_changed(guest, gfn);
    if (take)
        take_frame(work, place);
    if (guest->trapped)
        pgs_sys_uffd_wake(guest->uffd, at, PAGE);
    return 0;
}

static void unshare_span(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;

        if (maps(work, i) && !is_broken(work->guest, gfn))
            work->status[i] = unshare_page(work, gfn);
        else
            work->status[i] = PGSHARE_ERR_CLIENT_TICKET;
    }
}

void pgs_kvm_op_unshare(struct pgs_kvm_work *work)
{
    pgs_each_span(work, unshare_span);
}

/* ---- frames ------------------------------------------------------------ */

void pgs_kvm_op_release(struct pgs_kvm_work *work)
{
    const struct pgshare_op *op = work->op;

    for (uint32_t i = 0; i < op->count; i++) {
        struct pgs_kvm_pool *pool = NULL;
        uint64_t place;

        if (op->ids && op->ids[i] != PGSHARE_ID_ZERO)
            pool = pgs_pool_of(work->kvm, op->ids[i], &place);
        if (!pool) {
            work->status[i] = PGSHARE_ERR_SOURCE_TICKET;
            continue;
        }
        if (pgs_pool_release(pool, place) == 1) {
            pgs_reserve_bury(work->kvm, op->ids[i]);
            work->reserve++;
        }
    }
}

void pgs_kvm_op_reserve(struct pgs_kvm_work *work)
{
    int64_t want = (int64_t)work->op->arg;

    if (want)
        work->reserve = pgs_reserve_move(work->kvm, want);
    work->ids[0] = pgs_reserve_level(work->kvm);
    if (work->reserve != want)
        work->result = PGSHARE_ERR_NOFRAME;
    for (uint32_t i = 1; i < work->op->count; i++)
        work->ids[i] = 0;
}

/* ---- memory goes ------------------------------------------------------- */

/* Takes the memory out of a run of anonymous pages; they become `kind`. */
static void take_out(struct pgs_kvm_work *work, uint32_t first, uint32_t n,
                     enum pgs_kvm_kind kind)
{
    struct pgs_kvm_window window;
    uint32_t done = 0;
    int64_t kept;
    int r = pgs_window_open(&window, work->guest, work->op->gfn + first, n,
                            work->status + first);

    if (r) {
        memset(work->status + first, r, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (work->status[first + i])
            continue;
        pgs_window_keep(&window, i, kind);
        done += !work->status[first + i];
    }
    kept = pgs_window_close(&window);
    if (kind == KIND_OWED && kept < done) /* never written: one frame all the
                                             same */
        kept += pgs_reserve_move(work->kvm, done - kept);
    work->reserve += kept;
}

static bool is_mapping(enum pgs_kvm_kind kind)
{
    return kind == KIND_FRAME;
}

/* Lock held. While the guest is suspended others may watch its memory, from where
 * it cannot be taken. */
static bool is_out_of_reach(struct pgs_kvm_work *work, uint32_t first,
                            uint32_t n)
{
    if (work->guest->suspended)
        memset(work->status + first, PGSHARE_ERR_BUSY, n);
    return work->guest->suspended;
}

static void discard(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_kvm_guest *guest = work->guest;
    uint64_t gfn = work->op->gfn;

    if (is_out_of_reach(work, first, n))
        return;
    for (uint32_t i = first; i < first + n; i++)
        if (pgs_kind(guest, gfn + i) == KIND_UNTOLD)
            pgs_set_kind(guest, gfn + i, KIND_LEFT, NO_PLACE);
    pgs_home(guest, gfn + first, n, work->status + first);
    for (uint32_t i = first; i < first + n;) {
        bool mapping = is_mapping(pgs_kind(guest, gfn + i));
        uint32_t end = i;

        if (work->status[i]) {
            i++;
            continue;
        }
        while (end < first + n && !work->status[end] &&
               is_mapping(pgs_kind(guest, gfn + end)) == mapping)
            end++;
        if (!mapping)
            take_out(work, i, end - i, KIND_HOLE);
        else if (pgs_vma_blank(guest, pgs_slot_of(guest, gfn + i),
                               pgs_at(guest, gfn + i), (end - i) * PAGE))
            memset(work->status + i, PGSHARE_ERR_NOMEM, end - i);
        for (uint32_t k = i; mapping && k < end; k++)
            if (!work->status[k])
                pgs_set_kind(guest, gfn + k, KIND_HOLE, NO_PLACE);
        i = end;
    }
}

void pgs_kvm_op_discard(struct pgs_kvm_work *work)
{
    pgs_each_span(work, discard);
}

static void reclaim(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_kvm_guest *guest = work->guest;
    uint64_t gfn = work->op->gfn;

    if (is_out_of_reach(work, first, n))
        return;
    pgs_home(guest, gfn + first, n, work->status + first);
    for (uint32_t i = first; i < first + n; i++) {
        if (!work->status[i] && pgs_kind(guest, gfn + i) != KIND_ANON)
            work->status[i] = PGSHARE_ERR_STATE;
        if (!work->status[i])
            take_out(work, i, 1, KIND_OWED);
    }
}

void pgs_kvm_op_reclaim(struct pgs_kvm_work *work)
{
    pgs_each_span(work, reclaim);
}

/* ---- memory comes ------------------------------------------------------ */

/* A hole gets a page with these bytes, out of the reserve. */
static int8_t fill(struct pgs_kvm_work *work, uint64_t gfn, const void *bytes)
{
    struct pgshare_kvm_guest *guest = work->guest;
    bool owed = pgs_kind(guest, gfn) == KIND_OWED;
    unsigned char *at = pgs_at(guest, gfn);

    if (pgs_kind(guest, gfn) != KIND_HOLE && !owed)
        return PGSHARE_ERR_EXISTS;
    if (!pgs_reserve_spend(work->kvm, 1))
        return PGSHARE_ERR_NOFRAME;
    work->reserve--;
    if (populate(guest, at, bytes)) {
        work->reserve += pgs_reserve_move(work->kvm, 1);
        return PGSHARE_ERR_NOFRAME;
    }
    pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
    if (owed && !guest->trapped) {
        pgs_sys_uffd_unregister(guest->uffd, at, PAGE);
        pgs_vma_arm(guest, at, PAGE);
    }
    pgs_guard(guest, gfn, 1);
    pgs_set_changed(guest, gfn);
    pgs_sys_uffd_wake(guest->uffd, at, PAGE);
    return 0;
}

static void grant(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        work->status[i] = fill(work, work->op->gfn + i, pgs_zeroes);
}

void pgs_kvm_op_grant(struct pgs_kvm_work *work)
{
    const struct pgshare_op *op = work->op;
    int64_t want = op->flags & PGSHARE_OP_OFF ? (int64_t)op->count
                                              : -(int64_t)op->count;
    int64_t moved;

    if (!(op->flags & PGSHARE_OP_CHARGE)) {
        pgs_each_span(work, grant);
        return;
    }
    moved = pgs_reserve_move(work->kvm, want);
    if (moved != want) {
        work->result = PGSHARE_ERR_NOFRAME;
        moved += pgs_reserve_move(work->kvm, -moved);
    }
    work->reserve = moved;
}

void pgs_kvm_op_clone(struct pgs_kvm_work *work)
{
    const struct pgshare_op *op = work->op;
    unsigned char bytes[PGSHARE_PAGE_SIZE];

    for (uint32_t i = 0; i < op->count; i++) {
        const unsigned char *from = work->peer
                                        ? pgs_at(work->peer, op->peer_gfn + i)
                                        : NULL;

        /* a trapped peer may stop the reader, who holds nothing */
        if (!from || pgs_kind(work->peer, op->peer_gfn + i) == KIND_HOLE ||
            pgs_sys_peek(bytes, from, PAGE) != (ssize_t)PAGE) {
            work->status[i] = PGSHARE_ERR_HOLE;
            continue;
        }
        pthread_mutex_lock(&work->guest->lock);
        work->status[i] = pgs_slot_of(work->guest, op->gfn + i)
                              ? fill(work, op->gfn + i, bytes)
                              : PGSHARE_ERR_HOLE;
        pthread_mutex_unlock(&work->guest->lock);
    }
}

/* ---- what is there ----------------------------------------------------- */

static bool is_hole(const struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    return pgs_kind(guest, gfn) == KIND_HOLE ||
           pgs_kind(guest, gfn) == KIND_OWED;
}

struct hashing {
    uint64_t seed;
    uint64_t *hashes;
};

static bool hash(void *ctx, const unsigned char *bytes, uint32_t first,
                 uint32_t n)
{
    const struct hashing *hashing = ctx;

    for (uint32_t i = 0; i < n; i++)
        hashing->hashes[first + i] = XXH3_64bits_withSeed(bytes + i * PAGE, PAGE,
                                                          hashing->seed);
    return true;
}

void pgs_kvm_op_fingerprint(struct pgs_kvm_work *work)
{
    struct pgshare_kvm_guest *guest = work->guest;
    const struct pgshare_op *op = work->op;
    struct hashing hashing = { .seed = op->arg };

    for (uint32_t i = 0; i < op->count;) {
        uint32_t span = pgs_span(guest, op->gfn + i, op->count - i);
        uint32_t n = 0, done = 0;
        int error;

        while (n < span && !is_hole(guest, op->gfn + i + n))
            n++;
        hashing.hashes = work->ids + i;
        if (n)
            done = pgs_scratch_read(work->kvm, pgs_at(guest, op->gfn + i), n,
                                    hash, &hashing, &error);
        i += done;
        if (done == n && n)
            continue;
        work->ids[i] = 0;
        work->status[i++] = PGSHARE_ERR_HOLE;
    }
}

void pgs_kvm_op_harvest(struct pgs_kvm_work *work)
{
    if (!work->guest->trapped)
        work->result = pgs_scan_harvest(work->guest);
}

static void changes(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    pgs_scan_changes(work->guest, work->op->gfn + first, n,
                     work->status + first);
}

void pgs_kvm_op_changes(struct pgs_kvm_work *work)
{
    pgs_each_span(work, changes);
}

static void query(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_kvm_guest *guest = work->guest;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;
        bool kernel = !guest->trapped;
        int own;

        work->ids[i] = PGSHARE_ID_NONE;
        work->status[i] = PGSHARE_GFN_PRIVATE;
        switch (pgs_kind(guest, gfn)) {
        case KIND_HOLE:
        case KIND_OWED:
            work->status[i] = PGSHARE_GFN_HOLE;
            break;
        case KIND_MARKED:
            if (kernel && pgs_scan_is_written(guest, gfn))
                break;
            work->status[i] = PGSHARE_GFN_PROTECTED;
            work->ids[i] = PGS_ID_MARKED;
            break;
        case KIND_ZERO:
        case KIND_FRAME:
            own = kernel ? pgs_scan_is_own(guest, gfn) : 0;
            if (own > 0)
                break;
            work->status[i] = own ? (int8_t)own : PGSHARE_GFN_SHARED;
            work->ids[i] = pgs_kind(guest, gfn) == KIND_ZERO
                               ? PGSHARE_ID_ZERO
                               : pgs_pool_id(guest->pool,
                                             pgs_place(guest, gfn));
            break;
        default:
            break;
        }
    }
}

void pgs_kvm_op_query(struct pgs_kvm_work *work)
{
    pgs_each_span(work, query);
}
