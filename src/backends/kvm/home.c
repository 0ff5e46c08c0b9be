/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages in mappings of the pool.
 *
 * UFFDIO_MOVE works between anonymous memory only, so a page of the guest's own
 * in a pool mapping (the guest has written there) is first taken home: the
 * mapping is replaced by anonymous memory with that page's content. As with
 * the window, nobody may write meanwhile, and nobody may have the page pinned:
 *
 *     write-protect ─ look for pins ─ copy aside ─ put the copy in its place
 *
 * The protection stops new writers and new pins. For pins that are there
 * already a *shadow* is made, a copy of this process that does nothing: the
 * kernel lets a copy share a page, but gives it one of its own where the page
 * is pinned, so what only we map afterwards is pinned. Registered memory is not
 * for copies otherwise, so that a shadow costs little.
 *
 * A page that is equal again to the frame whose mapping it lies in is dropped in
 * place of that, the same precautions taken: the frame shows again, and no
 * mapping more is needed.
 *
 * Mappings of frames without a page of their own have nothing that could be
 * lost but a write that comes just then; protecting them is enough.
 */
#include "kvm/backend.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Who stops the writers: a trapped guest's own userfaultfd, or ours. */
static int stopper(const struct pgshare_kvm_guest *guest)
{
    return guest->trapped ? guest->uffd : guest->kvm->staging;
}

static int stop(struct pgshare_kvm_guest *guest, const void *at, size_t bytes)
{
    int error = 0;

    if (!guest->trapped)
        error = pgs_sys_uffd_register(guest->kvm->staging, at, bytes,
                                      UFFDIO_REGISTER_MODE_WP);
    if (error)
        return error;
    error = pgs_sys_uffd_protect(stopper(guest), at, bytes, true);
    if (error && !guest->trapped)
        pgs_sys_uffd_unregister(guest->kvm->staging, at, bytes);
    return error;
}

static bool is_to_go_on(const struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    if (!guest->trapped)
        return pgs_in_pool(pgs_kind(guest, gfn));
    return pgs_kind(guest, gfn) == KIND_LEFT && !pgs_is_readonly(guest, gfn);
}

/* Pages that are still in the pool can be written to again (in a trapped guest
 * those that are LEFT); what became anonymous memory belongs to the log by
 * now. */
static void go_on(struct pgshare_kvm_guest *guest, uint64_t gfn,
                  unsigned char *at, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        uint32_t end = i;

        while (end < n && is_to_go_on(guest, gfn + end))
            end++;
        if (end > i && guest->trapped)
            pgs_sys_uffd_protect(guest->uffd, at + i * PAGE, (end - i) * PAGE,
                                 false);
        else if (end > i)
            pgs_sys_uffd_unregister(guest->kvm->staging, at + i * PAGE,
                                    (end - i) * PAGE);
        i = end + 1;
    }
    pgs_sys_uffd_wake(stopper(guest), at, n * PAGE);
}

/* ---- pins -------------------------------------------------------------- */

/* With a shadow alive: whose pages does nobody else map? */
static void read_pins(struct pgshare_kvm_guest *guest, const void *at,
                      uint32_t n, int8_t *status)
{
    uint64_t words[CHUNK];
    ssize_t want = (ssize_t)(n * sizeof(words[0]));
    off_t from = (off_t)((uintptr_t)at / PAGE * sizeof(words[0]));
    bool read_all = pread(guest->kvm->pagemap, words, (size_t)want, from) ==
                    want;

    for (uint32_t i = 0; i < n; i++) {
        if (read_all && !(words[i] & PGS_PAGEMAP_EXCLUSIVE))
            continue;
        status[i] = PGSHARE_ERR_BUSY;
        atomic_fetch_add(&guest->kvm->pinned, 1);
    }
}

/* The next run of LEFT pages whose status is 0, from *at on; 0: none. */
static uint32_t next_run(const struct pgshare_kvm_guest *guest, uint64_t gfn,
                         uint32_t n, const int8_t *status, uint32_t *at)
{
    uint32_t len = 0;

    while (*at < n && (status[*at] || pgs_kind(guest, gfn + *at) != KIND_LEFT))
        ++*at;
    while (*at + len < n && !status[*at + len] &&
           pgs_kind(guest, gfn + *at + len) == KIND_LEFT)
        len++;
    return len;
}

/* Only these are for the shadow: a page that it shares cannot be moved before
 * it is written again. */
static void lend(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                 int8_t *status, int advice)
{
    for (uint32_t i = 0, len; (len = next_run(guest, gfn, n, status, &i));
         i += len)
        if (pgs_sys_advise(pgs_at(guest, gfn + i), len * PAGE, advice) &&
            advice == MADV_DOFORK)
            memset(status + i, PGSHARE_ERR_NOMEM, len);
}

static void find_pins(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                      int8_t *status)
{
    pid_t shadow;
    int error;

    lend(guest, gfn, n, status, MADV_DOFORK);
    error = pgs_sys_shadow(&shadow);
    for (uint32_t i = 0, len; (len = next_run(guest, gfn, n, status, &i));
         i += len) {
        if (error)
            memset(status + i, PGSHARE_ERR_NOMEM, len);
        else
            read_pins(guest, pgs_at(guest, gfn + i), len, status + i);
    }
    if (!error)
        pgs_sys_shadow_end(shadow);
}

/* ---- home -------------------------------------------------------------- */

/* Anonymous memory with the content of these pages, somewhere. */
static int copy_aside(const void *at, size_t bytes, void **ret_aside)
{
    void *aside;
    int error = pgs_sys_map_anon(NULL, bytes, &aside);

    if (error)
        return error;
    pgs_sys_advise(aside, bytes, MADV_NOHUGEPAGE);
    if (pgs_sys_peek(aside, at, bytes) != (ssize_t)bytes)
        error = -EFAULT;
    if (error)
        pgs_sys_unmap(aside, bytes);
    else
        *ret_aside = aside;
    return error;
}

/* What is done with a run of pages while nobody can write there. An error of
 * all, or statuses. */
typedef int take(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                 int8_t *status);

static int take_home(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                     int8_t *status)
{
    unsigned char *at = pgs_at(guest, gfn);
    size_t bytes = n * PAGE;
    void *aside;
    int error = copy_aside(at, bytes, &aside);

    (void)status;
    if (error)
        return error;
    error = pgs_sys_replace(aside, at, bytes);
    if (error) {
        pgs_sys_unmap(aside, bytes);
        return error;
    }
    pgs_vma_restore(pgs_slot_of(guest, gfn), at, bytes);
    for (uint32_t i = 0; i < n; i++) {
        pgs_set_kind(guest, gfn + i, KIND_ANON, NO_PLACE);
        pgs_set_changed(guest, gfn + i);
    }
    /* unregistered, they are never moved, and that is told */
    pgs_vma_arm(guest, at, bytes);
    pgs_guard(guest, gfn, n);
    atomic_fetch_add(&guest->kvm->healed, n);
    return 0;
}

static void stop_all(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                     int8_t *status)
{
    for (uint32_t i = 0, len; (len = next_run(guest, gfn, n, status, &i));
         i += len)
        if (stop(guest, pgs_at(guest, gfn + i), len * PAGE))
            memset(status + i, PGSHARE_ERR_NOMEM, len);
}

static void with_writers_stopped(struct pgshare_kvm_guest *guest, uint64_t gfn,
                                 uint32_t n, int8_t *status, take *work)
{
    int8_t stopped[CHUNK], pinned[CHUNK];
    uint32_t at = 0;

    if (!next_run(guest, gfn, n, status, &at))
        return;
    memcpy(stopped, status, n);
    stop_all(guest, gfn, n, stopped);
    memcpy(pinned, stopped, n);
    find_pins(guest, gfn, n, pinned);
    for (uint32_t i = 0, len; (len = next_run(guest, gfn, n, pinned, &i));
         i += len)
        if (work(guest, gfn + i, len, pinned + i))
            memset(pinned + i, PGSHARE_ERR_NOMEM, len);
    /* what is still LEFT goes back to what it was */
    lend(guest, gfn, n, stopped, MADV_DONTFORK);
    for (uint32_t i = 0; i < n; i++)
        if (!stopped[i] && !status[i])
            status[i] = pinned[i];
        else if (stopped[i] && !status[i])
            status[i] = stopped[i];
    go_on(guest, gfn, pgs_at(guest, gfn), n);
}

void pgs_home(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
              int8_t *status)
{
    with_writers_stopped(guest, gfn, n, status, take_home);
}

/* ---- back to the frame ------------------------------------------------- */

/* Equal pages are dropped; the frame is there to be read before it is protected
 * (a protected place without a page looks like one that is swapped out). */
static int drop_page(struct pgshare_kvm_guest *guest, uint64_t gfn)
{
    unsigned char *at = pgs_at(guest, gfn);
    uint64_t place = pgs_place(guest, gfn);

    if (!pgs_pool_map(guest->pool, place))
        return PGSHARE_ERR_SOURCE_TICKET;
    if (pgs_sys_advise(at, PAGE, MADV_DONTNEED)) {
        pgs_pool_unmap(guest->pool, place);
        return PGSHARE_ERR_BACKEND;
    }
    pgs_set_kind(guest, gfn, KIND_FRAME, place);
    if (!guest->trapped) {
        pgs_sys_uffd_protect(stopper(guest), at, PAGE, false);
        return 0;
    }
    if (!pgs_trap(guest, at, PAGE) && !pgs_scan_is_own(guest, gfn))
        return 0;
    return pgs_own(guest, gfn, at) ? 0 : PGSHARE_ERR_CLIENT_TICKET;
}

static int drop_equal(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                      int8_t *status)
{
    for (uint32_t i = 0; i < n; i++) {
        status[i] = pgs_page_equals(guest, pgs_at(guest, gfn + i),
                                    pgs_place(guest, gfn + i));
        if (!status[i])
            status[i] = (int8_t)drop_page(guest, gfn + i);
    }
    pgs_sys_advise(pgs_at(guest, gfn), n * PAGE, MADV_DONTFORK);
    return 0;
}

void pgs_return(struct pgshare_kvm_guest *guest, uint64_t gfn, uint32_t n,
                int8_t *status)
{
    with_writers_stopped(guest, gfn, n, status, drop_equal);
}

/* ---- from frame to frame ----------------------------------------------- */

/* Nothing in place of a frame: what the guest does there at once is its own. */
static int to_nothing(struct pgshare_kvm_guest *guest, uint64_t gfn,
                      unsigned char *at)
{
    if (pgs_vma_blank(guest, pgs_slot_of(guest, gfn), at, PAGE))
        return PGSHARE_ERR_NOMEM;
    pgs_set_kind(guest, gfn, KIND_ZERO, NO_PLACE);
    if (!guest->trapped || !pgs_scan_is_own(guest, gfn))
        return 0;
    pgs_set_kind(guest, gfn, KIND_ANON, NO_PLACE);
    pgs_guard(guest, gfn, 1);
    return PGSHARE_ERR_CLIENT_TICKET;
}

static int to_frame(struct pgshare_kvm_guest *guest, uint64_t gfn,
                    unsigned char *at, uint64_t place)
{
    if (!pgs_pool_map(guest->pool, place))
        return PGSHARE_ERR_SOURCE_TICKET;
    if (pgs_sys_map_file(at, PAGE, guest->pool->fd, place * PAGE, true, NULL)) {
        pgs_pool_unmap(guest->pool, place);
        return PGSHARE_ERR_NOMEM;
    }
    pgs_vma_restore(pgs_slot_of(guest, gfn), at, PAGE);
    pgs_set_kind(guest, gfn, KIND_FRAME, place);
    if (!guest->trapped)
        return 0;
    pgs_trap(guest, at, PAGE);
    if (!pgs_scan_is_own(guest, gfn))
        return 0;
    return pgs_own(guest, gfn, at) ? 0 : PGSHARE_ERR_CLIENT_TICKET;
}

int pgs_remap(struct pgshare_kvm_guest *guest, uint64_t gfn, uint64_t place)
{
    unsigned char *at = pgs_at(guest, gfn);
    int r;

    if (stop(guest, at, PAGE))
        return PGSHARE_ERR_NOMEM;
    /* a protected place without a page looks like a page that is swapped out */
    pgs_sys_advise(at, PAGE, MADV_POPULATE_READ);
    r = pgs_scan_is_own(guest, gfn);
    if (r)
        r = r > 0 ? PGSHARE_ERR_CLIENT_TICKET : r; /* the harvest tells */
    else if (place == NO_PLACE)
        r = to_nothing(guest, gfn, at);
    else
        r = to_frame(guest, gfn, at, place);
    if (!guest->trapped && r)
        pgs_sys_uffd_unregister(guest->kvm->staging, at, PAGE);
    pgs_sys_uffd_wake(stopper(guest), at, PAGE);
    return r;
}
