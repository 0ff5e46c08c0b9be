/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reserve: memory that is really there, in one of two forms.
 *
 * Pages that sharing took out of guests stay where they were moved (hold.c).
 * Frames that were released stay in the pool's file until somebody needs the
 * memory; then their places are punched, in runs where they lie in a row. So
 * neither freeing nor taking costs anything but a note as long as the two keep
 * each other in balance.
 *
 * What takes from the reserve (a copy, a frame) is a page that the kernel
 * allocates: a page of the reserve goes back to the machine immediately before.
 */
#include "kvm/backend.h"

uint64_t pgs_reserve_level(struct pgshare_kvm *kvm)
{
    uint64_t level;

    pthread_mutex_lock(&kvm->hold.lock);
    level = kvm->hold.n + kvm->hold.n_dead;
    pthread_mutex_unlock(&kvm->hold.lock);
    return level;
}

/* The last of the dead that lie in a row, as many as `n`. */
static uint64_t pop_dead(struct pgs_kvm_hold *hold, uint64_t n,
                         uint64_t *ret_id)
{
    uint64_t count = 0, id = 0;
    bool up = false;

    pthread_mutex_lock(&hold->lock);
    while (count < n && hold->n_dead) {
        uint64_t last = hold->dead[hold->n_dead - 1];

        if (!count)
            id = last;
        else if (last == id - 1 && !up)
            id = last;
        else if (last == id + count && (up || count == 1))
            up = true;
        else
            break;
        hold->n_dead--;
        count++;
    }
    pthread_mutex_unlock(&hold->lock);
    *ret_id = id;
    return count;
}

static uint64_t punch(struct pgshare_kvm *kvm, uint64_t n)
{
    uint64_t done = 0, count, id, place;

    while (done < n && (count = pop_dead(&kvm->hold, n - done, &id))) {
        struct pgs_kvm_pool *pool = pgs_pool_of(kvm, id, &place);

        if (pool)
            pgs_pool_punch(pool, place, count);
        done += count;
    }
    return done;
}

/* Exchanges frames with the machine; answers by how much the reserve grew. */
int64_t pgs_reserve_move(struct pgshare_kvm *kvm, int64_t frames)
{
    uint64_t done;

    if (frames >= 0)
        return (int64_t)pgs_stage_fill(&kvm->hold, (uint64_t)frames);
    done = punch(kvm, (uint64_t)-frames);
    done += pgs_stage_give(&kvm->hold, (uint64_t)-frames - done);
    return -(int64_t)done;
}

/* Frames go to the machine, for the kernel to take; false: there are not so
 * many, and none went. */
bool pgs_reserve_spend(struct pgshare_kvm *kvm, uint64_t frames)
{
    int64_t moved;

    if (pgs_reserve_level(kvm) < frames)
        return false;
    moved = pgs_reserve_move(kvm, -(int64_t)frames);
    if ((uint64_t)-moved == frames)
        return true;
    pgs_reserve_move(kvm, -moved);
    return false;
}

/* A frame that was released. */
void pgs_reserve_bury(struct pgshare_kvm *kvm, uint64_t id)
{
    struct pgs_kvm_hold *hold = &kvm->hold;
    bool full;

    pthread_mutex_lock(&hold->lock);
    full = hold->n_dead == DEAD_MAX;
    if (!full)
        hold->dead[hold->n_dead++] = id;
    pthread_mutex_unlock(&hold->lock);
    if (full) {
        punch(kvm, DEAD_MAX / 2);
        pgs_stage_fill(hold, DEAD_MAX / 2);
        pgs_reserve_bury(kvm, id);
    }
}
