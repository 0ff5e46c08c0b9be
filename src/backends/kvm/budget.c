/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mapping budget.
 *
 * The kernel lets a process have vm.max_map_count mappings; beyond, every
 * mmap(), and so malloc(), fails, also the VMM's own. A page shared by itself
 * costs two: its own, and the second half of the memory around it. So sharing
 * stays below the limit by what is the VMM's to use, and the nearer it comes to
 * that, the more pages a new mapping has to bring:
 *
 *     least[]    what is left must be more than this part of the budget
 *
 * Pages for which there is no mapping stay as they are, and are looked at by
 * another pass. What brings no new mapping, since it continues one that is
 * there, is never refused, unless it was written: taken home, it stands by
 * itself for a moment, or for good.
 *
 * How many mappings there are is looked up (/proc/self/maps), since the VMM has
 * some, too. That takes time, so that in between our own are reckoned, as if all
 * that is allowed came to pass: where pages change from one memory to another
 * there is a seam, and a mapping ends at each. What the VMM maps meanwhile it
 * takes from its own part.
 */
#include "kvm/backend.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_AFTER 1024 /* mappings of ours */
#define LOOK_NS UINT64_C(1000000000)
#define TEXT_BYTES 32768u

/* An extent of so many pages may take a mapping while more than left/of of the
 * budget is left. */
static const struct {
    uint32_t pages;
    uint64_t left, of;
} least[] = {
    { 1, 1, 4 },
    { 2, 1, 8 },
    { 8, 1, 16 },
    { 64, 0, 1 },
};
#define N_LEAST (sizeof(least) / sizeof(least[0]))

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* -1: it cannot be known. */
static int64_t count_mappings(void)
{
    char text[TEXT_BYTES];
    int64_t n = 0;
    ssize_t got;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    while ((got = read(fd, text, sizeof(text))) > 0)
        for (const char *at = text;
             (at = memchr(at, '\n', (size_t)(text + got - at))); at++)
            n++;
    close(fd);
    return got < 0 ? -1 : n;
}

int64_t pgs_budget_limit(void)
{
    char text[32] = "";
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return -1;
    got = read(fd, text, sizeof(text) - 1);
    close(fd);
    return got > 0 ? strtoll(text, NULL, 10) : -1;
}

/* Lock held. */
static void look(struct pgs_kvm_budget *budget)
{
    int64_t known = pgs_budget_limit(), n = count_mappings();
    uint64_t limit = known < 0 ? PGS_MAPPINGS_USUAL : (uint64_t)known;

    budget->limit = limit > budget->spare ? limit - budget->spare : 0;
    budget->looked_ns = now_ns();
    if (n < 0)
        return;
    budget->seen = n;
    budget->since = 0;
}

void pgs_budget_init(struct pgs_kvm_budget *budget, uint64_t spare)
{
    pthread_mutex_init(&budget->lock, NULL);
    budget->spare = spare ? spare : PGS_MAPPINGS_SPARE;
    look(budget);
    budget->first = (uint64_t)budget->seen;
}

void pgs_budget_fini(struct pgs_kvm_budget *budget)
{
    pthread_mutex_destroy(&budget->lock);
}

/* Lock held. */
static int64_t left(const struct pgs_kvm_budget *budget)
{
    return (int64_t)budget->limit - budget->seen - budget->since;
}

/* Lock held. What must stay when an extent of so many pages takes a mapping. */
static int64_t to_stay(const struct pgs_kvm_budget *budget, uint32_t pages)
{
    uint64_t whole = budget->limit > budget->first
                         ? budget->limit - budget->first
                         : 0;
    unsigned i = N_LEAST - 1;

    while (i && least[i].pages > pages)
        i--;
    return (int64_t)(whole / least[i].of * least[i].left);
}

/* Lock held. Is what was reckoned worth a look? The less is left, the sooner;
 * and once a second where little is, since mappings go, too. */
static bool is_stale(const struct pgs_kvm_budget *budget)
{
    int64_t half = ((int64_t)budget->limit - budget->seen) / 2;

    if (budget->since >= (half > LOOK_AFTER ? half : LOOK_AFTER))
        return true;
    return left(budget) <= to_stay(budget, 1) &&
           now_ns() - budget->looked_ns >= LOOK_NS;
}

void pgs_budget_look(struct pgs_kvm_budget *budget)
{
    pthread_mutex_lock(&budget->lock);
    if (is_stale(budget))
        look(budget);
    pthread_mutex_unlock(&budget->lock);
}

/* Lock held. */
static bool allows(struct pgs_kvm_budget *budget, uint32_t pages, int mappings)
{
    bool yes = mappings <= 0 ||
               left(budget) - mappings >= to_stay(budget, pages);

    if (!yes)
        budget->refused += pages;
    return yes;
}

bool pgs_budget_allows(struct pgs_kvm_budget *budget, uint32_t pages,
                       int mappings)
{
    bool yes;

    pthread_mutex_lock(&budget->lock);
    yes = allows(budget, pages, mappings);
    pthread_mutex_unlock(&budget->lock);
    return yes;
}

bool pgs_budget_spend(struct pgs_kvm_budget *budget, uint32_t pages,
                      int mappings)
{
    bool yes;

    pthread_mutex_lock(&budget->lock);
    yes = allows(budget, pages, mappings);
    if (yes)
        budget->since += mappings;
    pthread_mutex_unlock(&budget->lock);
    return yes;
}

void pgs_budget_tell(struct pgs_kvm_budget *budget,
                     struct pgshare_kvm_info *info)
{
    pthread_mutex_lock(&budget->lock);
    look(budget);
    info->mappings = (uint64_t)budget->seen;
    info->mappings_max = budget->limit;
    info->mappings_refused = budget->refused;
    pthread_mutex_unlock(&budget->lock);
}

/* ---- seams ------------------------------------------------------------- */

/* Lock of the guest held. Is there a seam before page `gfn`, if the page after
 * it, or with `end` the one before it, is of a row that has page `gfn` at
 * `place` (NO_PLACE: is of the guest's own memory)? */
static int seam(const struct pgshare_kvm_guest *guest,
                const struct pgs_kvm_slot *slot, uint64_t gfn, uint64_t place,
                bool end)
{
    uint64_t other = end ? gfn : gfn - 1;
    uint64_t expected = end ? place : place - 1;

    if (gfn == slot->gfn || gfn == slot->gfn + slot->count)
        return 1;
    if (!pgs_in_pool(pgs_kind(guest, other)))
        return place != NO_PLACE;
    return place == NO_PLACE || pgs_place(guest, other) != expected;
}

static int ends(const struct pgshare_kvm_guest *guest,
                const struct pgs_kvm_slot *slot, uint64_t gfn, uint32_t n,
                uint64_t place)
{
    uint64_t end = place == NO_PLACE ? NO_PLACE : place + n;

    return seam(guest, slot, gfn, place, false) +
           seam(guest, slot, gfn + n, end, true);
}

int pgs_budget_price(const struct pgshare_kvm_guest *guest, uint64_t gfn,
                     uint32_t n, uint64_t from, uint64_t to)
{
    const struct pgs_kvm_slot *slot = pgs_slot_of(guest, gfn);

    return ends(guest, slot, gfn, n, to) - ends(guest, slot, gfn, n, from);
}
