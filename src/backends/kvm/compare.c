/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Are pages equal to frames? Here, and nowhere else, bytes are compared before
 * something is shared: pages that nobody can write to (window.c, home.c) with
 * frames, which never change.
 *
 * Both are copied, a few at a time, and the copies compared: the kernel copies
 * without anything being mapped, while the first touch of a page that was just
 * moved, or of a frame in a mapping, costs more than both copies.
 */
#include "kvm/backend.h"

#include <string.h>

const unsigned char pgs_zeroes[PGSHARE_PAGE_SIZE];

static bool is_zero(const unsigned char *bytes)
{
    /* Each byte equals the one before it, and the first is zero. */
    return !bytes[0] && !memcmp(bytes, bytes + 1, PAGE - 1);
}

uint64_t pgs_target(const struct pgs_kvm_work *work, uint32_t i)
{
    uint64_t place;

    if (work->op->ids[i] == PGSHARE_ID_ZERO)
        return NO_PLACE;
    pgs_pool_of(work->kvm, work->op->ids[i], &place);
    return place;
}

bool pgs_frame_equals(const struct pgs_kvm_work *work, uint32_t i)
{
    const struct pgshare_kvm_guest *guest = work->guest;
    uint64_t place = pgs_place(guest, work->op->gfn + i);
    uint64_t to = pgs_target(work, i);

    if (!pgs_pool_read(guest->pool, place, 1, guest->mine))
        return false;
    if (to == NO_PLACE)
        return is_zero(guest->mine);
    return pgs_pool_read(guest->pool, to, 1, guest->theirs) &&
           !memcmp(guest->mine, guest->theirs, PAGE);
}

int8_t pgs_page_equals(const struct pgshare_kvm_guest *guest, const void *at,
                       uint64_t place)
{
    if (pgs_sys_peek(guest->mine, at, PAGE) != (ssize_t)PAGE ||
        !pgs_pool_read(guest->pool, place, 1, guest->theirs))
        return PGSHARE_ERR_BACKEND;
    return memcmp(guest->mine, guest->theirs, PAGE) ? PGSHARE_ERR_DIFFERENT : 0;
}

/* A few pages of a window that are to be compared: pages `at` … at+n-1 of it,
 * of the operation from `first` + at on. */
struct batch {
    struct pgs_kvm_work *work;
    struct pgs_kvm_window *window;
    uint32_t first;
    uint32_t at;
    uint32_t n;
};

static bool is_zero_mapping(const struct batch *batch, uint32_t i)
{
    return pgs_kind(batch->work->guest, batch->window->gfn + i) == KIND_ZERO;
}

/* What is mapped without being compared is not looked at, but where a mapping of
 * the zero frame may be broken. */
static bool is_to_be_read(const struct batch *batch, uint32_t i)
{
    return batch->window->state[i] == WINDOW_OUT && !batch->window->status[i] &&
           (batch->work->op->kind == PGSHARE_OP_MERGE ||
            is_zero_mapping(batch, i));
}

/* The pages' own bytes; there is nothing in a page that is not OUT. */
static void read_mine(const struct batch *batch)
{
    struct pgs_kvm_window *window = batch->window;
    unsigned char *mine = batch->work->guest->mine;
    uint32_t end = batch->at + batch->n;

    for (uint32_t i = batch->at, n; i < end; i += n ? n : 1) {
        unsigned char *bytes = mine + (size_t)(i - batch->at) * PAGE;

        for (n = 0; i + n < end && is_to_be_read(batch, i + n);)
            n++;
        if (!n && window->state[i] == WINDOW_EMPTY)
            memset(bytes, 0, PAGE);
        if (n && !pgs_window_read(window, i, n, bytes))
            memset(window->status + i, PGSHARE_ERR_BACKEND, n);
    }
}

/* Those of the frames, in rows. */
static void read_theirs(const struct batch *batch)
{
    struct pgs_kvm_window *window = batch->window;
    const struct pgshare_kvm_guest *guest = batch->work->guest;
    uint32_t end = batch->at + batch->n;

    for (uint32_t i = batch->at, n; i < end; i += n) {
        uint64_t place = pgs_target(batch->work, batch->first + i);

        n = 1;
        if (window->status[i] || place == NO_PLACE)
            continue;
        while (i + n < end && !window->status[i + n] &&
               pgs_target(batch->work, batch->first + i + n) == place + n)
            n++;
        if (!pgs_pool_read(guest->pool, place, n,
                           guest->theirs + (size_t)(i - batch->at) * PAGE))
            memset(window->status + i, PGSHARE_ERR_BACKEND, n);
    }
}

static void compare_batch(const struct batch *batch)
{
    struct pgs_kvm_window *window = batch->window;
    const struct pgshare_kvm_guest *guest = batch->work->guest;
    bool merge = batch->work->op->kind == PGSHARE_OP_MERGE;

    read_mine(batch);
    if (merge)
        read_theirs(batch);
    for (uint32_t i = batch->at; i < batch->at + batch->n; i++) {
        size_t offset = (size_t)(i - batch->at) * PAGE;
        const unsigned char *mine = guest->mine + offset;

        if (window->status[i])
            continue;
        if (is_zero_mapping(batch, i) && window->state[i] == WINDOW_OUT &&
            !is_zero(mine))
            window->status[i] = PGSHARE_ERR_CLIENT_TICKET; /* broken */
        else if (merge && (pgs_target(batch->work, batch->first + i) == NO_PLACE
                               ? !is_zero(mine)
                               : memcmp(mine, guest->theirs + offset, PAGE)))
            window->status[i] = PGSHARE_ERR_DIFFERENT;
    }
}

void pgs_compare(struct pgs_kvm_work *work, struct pgs_kvm_window *window,
                 uint32_t first)
{
    struct batch batch = { .work = work, .window = window, .first = first };

    for (; batch.at < window->n; batch.at += batch.n) {
        uint32_t left = window->n - batch.at;

        batch.n = left < COMPARE_PAGES ? left : COMPARE_PAGES;
        compare_batch(&batch);
    }
}
