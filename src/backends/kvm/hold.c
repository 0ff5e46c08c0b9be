/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Staging, and memory that is held.
 *
 * UFFDIO_MOVE takes pages out of a guest without copying them; here is where
 * they go. Those that turn out to be duplicates simply stay: they are the
 * memory that sharing has freed, held for the host until it has a use for it,
 * and cost nothing but a note on a stack.
 *
 * A window takes addresses in a row, so the region is handed out from the
 * front of a slab to its end; the gaps that pages leave when they go back to
 * their guest are not used before the whole slab is empty. Address space is
 * plenty.
 */
#include "kvm/backend.h"

#include <sys/mman.h>

#define SLABS ((uint32_t)1 << 15)

static void *table(size_t bytes)
{
    void *at;

    return pgs_sys_map_anon(NULL, bytes, &at) ? NULL : at;
}

int pgs_stage_init(struct pgs_kvm_hold *hold)
{
    hold->slabs = SLABS;
    hold->base = table((size_t)SLABS * CHUNK * PAGE);
    hold->used = table(SLABS * sizeof(*hold->used));
    hold->empty = table(SLABS * sizeof(*hold->empty));
    hold->stack = table((size_t)SLABS * CHUNK * sizeof(*hold->stack));
    hold->dead = table(DEAD_MAX * sizeof(*hold->dead));
    if (!hold->base || !hold->used || !hold->empty || !hold->stack ||
        !hold->dead)
        return PGSHARE_ERR_NOMEM;
    pgs_sys_advise(hold->base, (size_t)SLABS * CHUNK * PAGE, MADV_NOHUGEPAGE);
    pgs_keep_private(hold->base, (size_t)SLABS * CHUNK * PAGE);
    hold->slab = hold->fresh++;
    return 0;
}

static void untable(void *at, size_t bytes)
{
    if (at)
        pgs_sys_unmap(at, bytes);
}

void pgs_stage_fini(struct pgs_kvm_hold *hold)
{
    untable(hold->base, (size_t)SLABS * CHUNK * PAGE);
    untable(hold->used, SLABS * sizeof(*hold->used));
    untable(hold->empty, SLABS * sizeof(*hold->empty));
    untable(hold->stack, (size_t)SLABS * CHUNK * sizeof(*hold->stack));
    untable(hold->dead, DEAD_MAX * sizeof(*hold->dead));
}

/* Lock held. A slab that was being filled, and one that is emptied, may be
 * used from the front again. */
static void slab_left(struct pgs_kvm_hold *hold, uint32_t slab)
{
    if (hold->used[slab])
        return;
    if (slab == hold->slab)
        hold->next = 0;
    else
        hold->empty[hold->n_empty++] = slab;
}

static bool next_slab(struct pgs_kvm_hold *hold)
{
    uint32_t old = hold->slab;

    if (hold->n_empty)
        hold->slab = hold->empty[--hold->n_empty];
    else if (hold->fresh < hold->slabs)
        hold->slab = hold->fresh++;
    else
        return false;
    hold->next = 0;
    slab_left(hold, old);
    return true;
}

/* Addresses of `n` empty pages in a row, HOLD_NONE: there are none left. */
uint32_t pgs_stage_take(struct pgs_kvm_hold *hold, uint32_t n)
{
    uint32_t page = HOLD_NONE;

    pthread_mutex_lock(&hold->lock);
    if (hold->next + n <= CHUNK || next_slab(hold)) {
        page = hold->slab * CHUNK + hold->next;
        hold->next += n;
        hold->used[hold->slab] = (uint16_t)(hold->used[hold->slab] + n);
    }
    pthread_mutex_unlock(&hold->lock);
    return page;
}

/* Pages of a window stay, as held memory. */
void pgs_stage_keep(struct pgs_kvm_hold *hold, uint32_t page, uint32_t n)
{
    pthread_mutex_lock(&hold->lock);
    for (uint32_t i = 0; i < n; i++)
        hold->stack[hold->n++] = page + i;
    pthread_mutex_unlock(&hold->lock);
}

/* Pages of a window are empty again. */
void pgs_stage_drop(struct pgs_kvm_hold *hold, uint32_t page, uint32_t n)
{
    uint32_t slab = page / CHUNK;

    pthread_mutex_lock(&hold->lock);
    hold->used[slab] = (uint16_t)(hold->used[slab] - n);
    slab_left(hold, slab);
    pthread_mutex_unlock(&hold->lock);
}

uint64_t pgs_stage_fill(struct pgs_kvm_hold *hold, uint64_t n)
{
    uint64_t done = 0;

    while (done < n) {
        uint32_t some = n - done < CHUNK ? (uint32_t)(n - done) : CHUNK;
        uint32_t page = pgs_stage_take(hold, some);

        if (page == HOLD_NONE)
            break;
        if (pgs_sys_advise(pgs_stage_at(hold, page), some * PAGE,
                           MADV_POPULATE_WRITE)) {
            pgs_sys_advise(pgs_stage_at(hold, page), some * PAGE,
                           MADV_DONTNEED);
            pgs_stage_drop(hold, page, some);
            break;
        }
        pgs_stage_keep(hold, page, some);
        done += some;
    }
    return done;
}

/* The last of the stack that lie in a row, as many as `n`. */
static uint32_t pop(struct pgs_kvm_hold *hold, uint64_t n, uint32_t *ret_page)
{
    uint32_t count = 1, page;

    page = hold->stack[--hold->n];
    while (count < n && hold->n && hold->stack[hold->n - 1] == page - 1 &&
           page % CHUNK) {
        page--;
        hold->n--;
        count++;
    }
    *ret_page = page;
    return count;
}

/* Held memory goes back to the machine. Answers how much. */
uint64_t pgs_stage_give(struct pgs_kvm_hold *hold, uint64_t n)
{
    uint64_t done = 0;

    while (done < n) {
        uint32_t page, count = 0;

        pthread_mutex_lock(&hold->lock);
        if (hold->n)
            count = pop(hold, n - done, &page);
        pthread_mutex_unlock(&hold->lock);
        if (!count)
            break;
        if (pgs_sys_advise(pgs_stage_at(hold, page), count * PAGE,
                           MADV_DONTNEED)) {
            pgs_stage_keep(hold, page, count);
            break;
        }
        pgs_stage_drop(hold, page, count);
        done += count;
    }
    return done;
}

/* What is moved here is moved by that userfaultfd. */
int pgs_stage_register(struct pgs_kvm_hold *hold, int uffd)
{
    return pgs_sys_uffd_register(uffd, hold->base, (size_t)SLABS * CHUNK * PAGE,
                                 UFFDIO_REGISTER_MODE_WP)
               ? PGSHARE_ERR_NOTSUP
               : 0;
}
