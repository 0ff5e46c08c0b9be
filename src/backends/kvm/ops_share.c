/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sharing: protect, publish, merge, map.
 *
 * MERGE is the one that matters. Pages of a run are judged by what they are:
 *
 *     anonymous ────────── window: out, compare, map the frames or go back
 *     left in the pool ─── taken home first (home.c), then the same; or just
 *                          dropped, where the same frame is to be there again
 *     mappings of frames ─ frames are compared, and mapped over (home.c)
 *
 * MAP does the same without looking at the content, for pages that the core
 * knows to be free, or to be holes. A mark is what PROTECT left behind: a page
 * that is write-protected by our userfaultfd, where a write is either trapped
 * or takes the protection away, and is found out.
 *
 * PUBLISH reads the guest's memory without holding anything; should the guest
 * write meanwhile, the merge that follows finds out.
 */
#include "kvm/backend.h"

#include <string.h>

void pgs_each_span(struct pgs_kvm_work *work, pgs_kvm_span *span)
{
    struct pgshare_kvm_guest *guest = work->guest;
    const struct pgshare_op *op = work->op;

    pthread_mutex_lock(&guest->lock);
    for (uint32_t i = 0; i < op->count;) {
        uint32_t n = pgs_span(guest, op->gfn + i, op->count - i);

        if (n)
            span(work, i, n);
        else
            work->status[i] = PGSHARE_ERR_HOLE;
        i += n ? n : 1;
    }
    pthread_mutex_unlock(&guest->lock);
}

/* Runs of pages from `first` on that are to go through a window: status 0 and
 * anonymous. Answers the length of the next one, and where it begins. */
static uint32_t next_run(const struct pgs_kvm_work *work, uint32_t *at,
                         uint32_t end)
{
    uint64_t gfn = work->op->gfn;
    uint32_t n = 0;

    while (*at < end &&
           (work->status[*at] || pgs_in_pool(pgs_kind(work->guest, gfn + *at))))
        ++*at;
    while (*at + n < end && !work->status[*at + n] &&
           !pgs_in_pool(pgs_kind(work->guest, gfn + *at + n)))
        n++;
    return n;
}

/* ---- marks ------------------------------------------------------------- */

static void protect_run(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgs_kvm_window window;
    int r = pgs_window_open(&window, work->guest, work->op->gfn + first, n,
                            work->status + first);

    if (r) {
        memset(work->status + first, r, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (!work->status[first + i])
            pgs_window_mark(&window, i);
    work->reserve += pgs_window_close(&window);
}

static void protect(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    uint64_t gfn = work->op->gfn;

    for (uint32_t i = first; i < first + n; i++) {
        enum pgs_kvm_kind kind = pgs_kind(work->guest, gfn + i);

        work->ids[i] = PGS_ID_MARKED;
        if (kind == KIND_HOLE || kind == KIND_OWED)
            work->status[i] = PGSHARE_ERR_HOLE;
        else if (kind == KIND_UNTOLD)
            work->status[i] = PGSHARE_ERR_BUSY;
        else if (kind != KIND_ANON && kind != KIND_LEFT)
            work->status[i] = PGSHARE_ERR_STATE;
    }
    pgs_home(work->guest, gfn + first, n, work->status + first);
    for (uint32_t i = first, run; (run = next_run(work, &i, first + n));
         i += run)
        protect_run(work, i, run);
}

void pgs_kvm_op_protect(struct pgs_kvm_work *work)
{
    pgs_each_span(work, protect);
}

static void unprotect(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgshare_kvm_guest *guest = work->guest;

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t gfn = work->op->gfn + i;

        if (pgs_kind(guest, gfn) != KIND_MARKED)
            continue;
        if (guest->trapped && !pgs_is_readonly(guest, gfn) &&
            pgs_sys_uffd_protect(guest->uffd, pgs_at(guest, gfn), PAGE,
                                 false)) {
            work->status[i] = PGSHARE_ERR_BACKEND;
            continue;
        }
        if (guest->trapped)
            pgs_sys_uffd_wake(guest->uffd, pgs_at(guest, gfn), PAGE);
        pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
        pgs_set_changed(guest, gfn);
    }
}

void pgs_kvm_op_unprotect(struct pgs_kvm_work *work)
{
    pgs_each_span(work, unprotect);
}

/* Does the mark still hold? */
static bool holds(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    return pgs_kind(guest, gfn) == KIND_MARKED &&
           (guest->trapped || !pgs_scan_is_written(guest, gfn));
}

/* ---- publish ----------------------------------------------------------- */

static uint32_t publishable(const struct pgs_kvm_work *work, uint32_t first,
                            uint32_t end)
{
    uint64_t gfn = work->op->gfn;
    uint32_t span = pgs_span(work->guest, gfn + first, end - first);
    uint32_t n = 0;

    while (n < span && pgs_kind(work->guest, gfn + first + n) != KIND_HOLE &&
           pgs_kind(work->guest, gfn + first + n) != KIND_OWED)
        n++;
    return n;
}

/* A frame that nobody can map is not worth a copy. The first to map it will be
 * the guest itself. */
static bool is_worth(const struct pgs_kvm_work *work, uint64_t gfn, uint32_t n)
{
    struct pgshare_kvm_guest *guest = work->guest;
    uint64_t place = pgs_pool_home(guest->pool, guest, gfn);
    int price = 2;

    if (place != NO_PLACE) {
        pthread_mutex_lock(&guest->lock);
        price = pgs_budget_price(guest, gfn, n, NO_PLACE, place);
        pthread_mutex_unlock(&guest->lock);
    }
    return pgs_budget_allows(&work->kvm->budget, n, price);
}

void pgs_kvm_op_publish(struct pgs_kvm_work *work)
{
    struct pgshare_kvm_guest *guest = work->guest;
    const struct pgshare_op *op = work->op;
    struct pgs_kvm_pool *pool = guest->pool;

    pgs_budget_look(&work->kvm->budget);
    for (uint32_t i = 0; i < op->count;) {
        uint32_t n = publishable(work, i, op->count);
        uint64_t places[CHUNK];
        uint32_t done = 0;
        int error = n ? PGSHARE_ERR_NOFRAME : PGSHARE_ERR_HOLE;

        if (n && !is_worth(work, op->gfn + i, n)) {
            memset(work->status + i, PGSHARE_ERR_BUSY, n);
            memset(work->ids + i, 0, n * sizeof(work->ids[0]));
            i += n;
            continue;
        }
        if (n && pgs_reserve_spend(work->kvm, n)) {
            done = pgs_pool_publish(pool, guest, op->gfn + i,
                                    pgs_at(guest, op->gfn + i), n, places,
                                    &error);
            work->reserve -= n;
            if (done < n) /* what was not used comes back */
                work->reserve += pgs_reserve_move(work->kvm, n - done);
        }
        for (uint32_t k = 0; k < done; k++)
            work->ids[i + k] = pgs_pool_id(pool, places[k]);
        i += done;
        if (done < n || !n) {
            work->ids[i] = PGSHARE_ID_NONE;
            work->status[i++] = (int8_t)error;
        }
    }
}

/* ---- merge and map ----------------------------------------------------- */

/* Is a page what the core takes it for? */
static bool is_as_thought(const struct pgs_kvm_work *work, uint32_t i)
{
    struct pgshare_kvm_guest *guest = work->guest;
    uint64_t own = work->op->own_ids ? work->op->own_ids[i] : PGSHARE_ID_NONE;
    uint64_t gfn = work->op->gfn + i;

    if (work->op->flags & PGSHARE_OP_HOLES || own == PGSHARE_ID_NONE)
        return pgs_kind(guest, gfn) != KIND_UNTOLD;
    if (own == PGSHARE_ID_ZERO)
        return pgs_kind(guest, gfn) == KIND_ZERO;
    if (own == PGS_ID_MARKED)
        return holds(guest, gfn);
    return pgs_kind(guest, gfn) == KIND_FRAME &&
           pgs_pool_id(guest->pool, pgs_place(guest, gfn)) == own;
}

static bool is_target_ok(const struct pgs_kvm_work *work, uint32_t i)
{
    struct pgs_kvm_pool *pool;
    uint64_t place;

    if (work->op->ids[i] == PGSHARE_ID_ZERO)
        return true;
    pool = pgs_pool_of(work->kvm, work->op->ids[i], &place);
    return pool && pool == work->guest->pool && pgs_pool_is_live(pool, place);
}

/* Why a page cannot be merged or mapped; 0: it can. */
static int8_t judge(const struct pgs_kvm_work *work, uint32_t i)
{
    enum pgs_kvm_kind kind = pgs_kind(work->guest, work->op->gfn + i);
    bool hole = kind == KIND_HOLE || kind == KIND_OWED;
    bool merge = work->op->kind == PGSHARE_OP_MERGE;

    if (work->op->flags & PGSHARE_OP_HOLES)
        return !hole                   ? PGSHARE_ERR_EXISTS
               : is_target_ok(work, i) ? 0
                                       : PGSHARE_ERR_SOURCE_TICKET;
    if (hole)
        return PGSHARE_ERR_HOLE;
    if (!is_as_thought(work, i))
        return PGSHARE_ERR_CLIENT_TICKET;
    if (!merge && kind != KIND_MARKED && kind != KIND_FRAME &&
        kind != KIND_ZERO)
        return PGSHARE_ERR_CLIENT_TICKET;
    return is_target_ok(work, i) ? 0 : PGSHARE_ERR_SOURCE_TICKET;
}

static void remap(struct pgs_kvm_work *work, uint32_t i)
{
    struct pgshare_kvm_guest *guest = work->guest;
    uint64_t gfn = work->op->gfn + i;
    uint64_t place = pgs_place(guest, gfn);

    if (pgs_target(work, i) == place)
        return;
    if (work->op->kind == PGSHARE_OP_MERGE && !pgs_frame_equals(work, i))
        work->status[i] = PGSHARE_ERR_DIFFERENT;
    else
        work->status[i] = (int8_t)pgs_remap(guest, gfn, pgs_target(work, i));
}

/* Pages from i on that are to map places in a row. */
static uint32_t row(const struct pgs_kvm_work *work,
                    const struct pgs_kvm_window *window, uint32_t first,
                    uint32_t i)
{
    uint64_t place = pgs_target(work, first + i);
    uint32_t n = 1;

    while (i + n < window->n && !window->status[i + n] &&
           pgs_target(work, first + i + n) == place + n)
        n++;
    return n;
}

static void run(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    struct pgs_kvm_window window;
    int r = pgs_window_open(&window, work->guest, work->op->gfn + first, n,
                            work->status + first);

    if (r) {
        memset(work->status + first, r, n);
        return;
    }
    pgs_compare(work, &window, first);
    for (uint32_t i = 0; i < n;) {
        uint32_t len = 1;

        if (window.status[i]) {
            while (i + len < n && window.status[i + len])
                len++;
            pgs_window_back(&window, i, len);
        } else if (pgs_target(work, first + i) == NO_PLACE) {
            pgs_window_keep(&window, i, KIND_ZERO);
        } else {
            len = row(work, &window, first, i);
            pgs_window_map(&window, i, len, pgs_target(work, first + i));
        }
        i += len;
    }
    work->reserve += pgs_window_close(&window);
}

/* ---- the same again ---------------------------------------------------- */

/* Is page i to map what it mapped before it was broken? */
static bool is_return(const struct pgs_kvm_work *work, uint32_t i)
{
    uint64_t gfn = work->op->gfn + i;

    return !work->status[i] && pgs_kind(work->guest, gfn) == KIND_LEFT &&
           pgs_target(work, i) == pgs_place(work->guest, gfn);
}

/* The kernel gets the memory of what is dropped. As much is held in place of it,
 * beforehand, since there may be none to be had afterwards. */
static void take_back(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    bool wanted[CHUNK];
    int8_t status[CHUNK];
    int64_t some = 0, held, left;
    uint64_t gfn = work->op->gfn + first;

    for (uint32_t i = 0; i < n; i++)
        some += wanted[i] = is_return(work, first + i);
    if (!some)
        return;
    left = held = pgs_reserve_move(work->kvm, some);
    for (uint32_t i = 0; i < n; i++) {
        status[i] = wanted[i] && left ? 0 : PGSHARE_ERR_BUSY;
        left -= !status[i];
    }
    pgs_return(work->guest, gfn, n, status);
    left = held;
    for (uint32_t i = 0; i < n; i++) {
        if (!wanted[i])
            continue;
        work->status[first + i] = status[i];
        left -= !status[i];
    }
    work->reserve += held + pgs_reserve_move(work->kvm, -left);
}

/* ---- what it costs ----------------------------------------------------- */

static bool is_left(const struct pgs_kvm_work *work, uint32_t i)
{
    return pgs_kind(work->guest, work->op->gfn + i) == KIND_LEFT;
}

/* Where page i stands now. */
static uint64_t from(const struct pgs_kvm_work *work, uint32_t i)
{
    uint64_t gfn = work->op->gfn + i;

    return pgs_in_pool(pgs_kind(work->guest, gfn)) ? pgs_place(work->guest, gfn)
                                                   : NO_PLACE;
}

/* Will there be other mappings for page i? */
static bool is_to_move(const struct pgs_kvm_work *work, uint32_t i)
{
    if (work->status[i] || is_return(work, i))
        return false;
    return is_left(work, i) || pgs_target(work, i) != from(work, i);
}

/* Pages from i on that are one mapping now, and are to be one afterwards. */
static uint32_t one_mapping(const struct pgs_kvm_work *work, uint32_t i,
                            uint32_t end)
{
    uint64_t place = pgs_target(work, i), now = from(work, i);
    bool left = is_left(work, i);
    uint32_t n = 1;

    while (place != NO_PLACE && i + n < end && is_to_move(work, i + n) &&
           is_left(work, i + n) == left && pgs_target(work, i + n) == place + n &&
           from(work, i + n) == (now == NO_PLACE ? now : now + n))
        n++;
    return n;
}

/* What is left in the pool stands by itself when it has been taken home. */
static int price(const struct pgs_kvm_work *work, uint32_t i, uint32_t n)
{
    int home = is_left(work, i) ? 2 : 0;

    return home + pgs_budget_price(work->guest, work->op->gfn + i, n,
                                   from(work, i), pgs_target(work, i));
}

/* Pages for which there is no mapping stay as they are. What was to be merged is
 * looked at by another pass. */
static void afford(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    int8_t error = work->op->kind == PGSHARE_OP_MERGE ? PGSHARE_ERR_BUSY
                                                      : PGSHARE_ERR_NOMEM;

    for (uint32_t i = first; i < first + n;) {
        uint32_t len = 1;

        if (is_to_move(work, i)) {
            len = one_mapping(work, i, first + n);
            if (!pgs_budget_spend(&work->kvm->budget, len, price(work, i, len)))
                memset(work->status + i, error, len);
        }
        i += len;
    }
}

/* ---- the whole --------------------------------------------------------- */

static void merge(struct pgs_kvm_work *work, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++)
        work->status[i] = judge(work, i);
    afford(work, first, n);
    for (uint32_t i = first; i < first + n; i++)
        if (!work->status[i] &&
            pgs_kind(work->guest, work->op->gfn + i) == KIND_FRAME)
            remap(work, i);
    take_back(work, first, n);
    pgs_home(work->guest, work->op->gfn + first, n, work->status + first);
    for (uint32_t i = first, len; (len = next_run(work, &i, first + n));
         i += len)
        run(work, i, len);
    atomic_fetch_add(&work->kvm->merges, n);
}

void pgs_kvm_op_merge(struct pgs_kvm_work *work)
{
    pgs_budget_look(&work->kvm->budget);
    if (work->op->ids)
        pgs_each_span(work, merge);
    else
        work->result = PGSHARE_ERR_INVALID;
}

void pgs_kvm_op_map(struct pgs_kvm_work *work)
{
    pgs_kvm_op_merge(work);
}
