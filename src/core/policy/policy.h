/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Policy: where candidates come from, and in which order work is done. All of
 * it is the runner's, but for the hint queue and the histogram. Mechanisms
 * know nothing of it.
 */
#ifndef PGS_POLICY_POLICY_H
#define PGS_POLICY_POLICY_H

#include "mechanism/extent.h"
#include "policy/scan.h"
#include "tables/index.h"
#include "tables/keymap.h"
#include "tables/queue.h"

#include <pgshare/stats.h>

#define PGS_LIBRARIES_MAX 4096u
#define PGS_LINEAGES_MAX 64u

enum pgs_map { PGS_MAP_NONE, PGS_MAP_BLOCK, PGS_MAP_FILE };

/* Pages of a file that any process may map. */
struct pgs_library {
    uint64_t file;
    uint64_t page;
    uint64_t count;
};

/* A hint of lineage that is being followed. */
struct pgs_lineage {
    uint64_t child;
    uint64_t parent;
    uint64_t gfn;
    uint64_t born_ns;
};

/* What may still be done in this run. */
struct pgs_budget {
    uint64_t deadline; /* on the clock */
    uint64_t pages;
    bool step; /* one step is due, whatever the clock says */
};

struct pgs_policy {
    struct pgs_queue hints;
    struct pgs_hint carry; /* what is left of a hint; count 0: none */
    struct pgs_keymap blocks;
    struct pgs_keymap files;
    struct pgs_index index;
    struct pgs_mutex libraries_lock; /* leaf */
    struct pgs_library *libraries;   /* [PGS_LIBRARIES_MAX], lazily */
    uint32_t n_libraries;
    struct pgs_lineage lineages[PGS_LINEAGES_MAX];
    uint32_t n_lineages;
    struct pgs_scan scan;
    uint32_t turn;                   /* slot to be looked after next, 0: none */
    bool turn_harvests;              /* this round of turns does */
    bool turn_left;                  /* it found work that it had to leave */
    bool turn_again;                 /* work arrived since it began */
    uint64_t next_harvest;           /* on the clock */
    _Atomic uint32_t harvest_wanted; /* 1: at once */
    uint32_t jobs;                   /* candidates under way */
    bool late;                       /* the backend has not answered inline */
    uint32_t rest;                   /* batches before runs are turned again */
    uint64_t errors_told;            /* of the backend's, by reports */
    struct pgshare_progress progress;
    _Atomic uint64_t hint_to_share[PGSHARE_HISTOGRAM_BUCKETS];
};

int pgs_policy_init(struct pgshare_host *host);
void pgs_policy_fini(struct pgshare_host *host);
void pgs_policy_histogram(struct pgshare_host *host, uint64_t *ret);

/* run.c: the runner's work; host->run is held. */
void pgs_run(struct pgshare_host *host, struct pgs_budget *budget,
             struct pgshare_progress *ret);

/* The embedder's budget, with defaults, from now on. _ABI as pgs_abi_in(). */
int pgs_run_budget(struct pgshare_host *host,
                   const struct pgshare_budget *given,
                   struct pgs_budget *ret_budget);

/* When the next run is due, on the clock: 0 now, PGSHARE_FOREVER never. */
uint64_t pgs_run_deadline(struct pgshare_host *host);

/* candidate.c: pages that may be equal. */
struct pgs_candidate {
    struct pgs_domain *source; /* NULL: the zero frame */
    uint64_t source_gfn;
    struct pgs_domain *client;
    uint64_t client_gfn;
    uint32_t count; /* any; cut into extents here */
    uint32_t cause;
    uint32_t flags; /* enum pgs_extent_flag */
    uint64_t born_ns;
    uint32_t map; /* which map is to be told how it ended */
    uint64_t object;
    uint64_t position;
};
/* Tries to share, charged to the budget; what waits for the backend goes on by
 * itself. Answers how many pages it took on: fewer than `count` only when too
 * many candidates are under way. */
uint32_t pgs_candidate_try(struct pgshare_host *host,
                           const struct pgs_candidate *candidate,
                           struct pgs_budget *budget);
/* Makes frames of pages of one chunk, for others to be shared with. What waits
 * for the backend is known to be late from then on. */
void pgs_candidate_publish(struct pgshare_host *host, struct pgs_domain *domain,
                           uint32_t page, uint32_t count,
                           struct pgs_budget *budget);
/* Is there room for more candidates under way? */
bool pgs_candidate_room(struct pgshare_host *host);
/* May the domain take part in sharing now? */
bool pgs_may_share(const struct pgs_domain *domain);

/* hints.c: takes hints while the budget lasts. True: some are left. */
bool pgs_hints_run(struct pgshare_host *host, struct pgs_budget *budget);
/* Puts a hint into the queue; any thread. */
int pgs_hint_put(struct pgshare_host *host, const struct pgs_hint *hint);
/* The same for pages that were declared free: pgshare_host::freed. */
void pgs_hint_freed(struct pgs_domain *domain, uint64_t gfn, uint64_t count);
int pgs_library_enter(struct pgshare_host *host,
                      const struct pgs_library *library);
/* candidate.c tells how an extent from a map ended. */
void pgs_hints_learn(struct pgshare_host *host,
                     const struct pgs_extent *extent);

/* demand.c: the sink's demand(). */
int pgs_demand(void *host, uint64_t dom, uint64_t gfn, uint64_t cookie);

static inline bool pgs_budget_left(struct pgshare_host *host,
                                   struct pgs_budget *budget)
{
    bool step = budget->step;

    budget->step = false;
    return budget->pages &&
           (step || pgs_now(&host->platform) < budget->deadline);
}

#endif
