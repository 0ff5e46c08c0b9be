/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest of the demo: a mock domain with a small kernel in it, and the shadow
 * copy of its memory. Functions answer 0 or an error of the library, and have
 * complained of it.
 */
#ifndef PGSHARE_CLI_GUEST_H
#define PGSHARE_CLI_GUEST_H

#include "shadow.h"

#include <pgshare/common.h>

#include <stdbool.h>

struct demo;
struct pgshare_guest_ring;
struct pgshare_mock_domain;
struct pgshare_mock_kernel;

struct guest {
    struct demo *demo;
    char name[24];
    struct pgshare_mock_domain *domain; /* NULL: there is no such guest */
    uint64_t dom;                       /* the host's handle */
    uint64_t ram; /* GFNs below are memory; bonus pages go above */
    uint64_t rng;
    struct shadow shadow;
    struct pgshare_mock_kernel *kernel; /* of [zone, ram) */
    uint64_t zone;
    struct pgshare_mock_kernel *bonus; /* of [ram, ram + n_bonus) */
    uint64_t n_bonus;
    uint64_t keep_free; /* pages that programs leave free */
    struct pgshare_guest_ring *ring;
    uint64_t *gfn_of; /* [blocks of the disk]: where it was cached last */
};

/* A number below `n`, from the guest's own seed. */
uint64_t guest_random(struct guest *guest, uint64_t n);

/* Gives the guest a kernel over [zone, ram), speaking through a guest ring or,
 * without one, by the library's calls. */
int guest_boot(struct guest *guest, uint64_t zone, bool with_ring);

/* Brings a block of the disk into the page cache. `ret_gfn` may be NULL. */
int guest_read(struct guest *guest, struct pgshare_mock_kernel *kernel,
               uint64_t block, uint64_t *ret_gfn);

/* Changes part of a cached block. */
int guest_edit(struct guest *guest, uint64_t block, uint32_t offset,
               const void *bytes, uint32_t len);

int guest_alloc(struct guest *guest, uint64_t count, uint64_t *ret_gfn);
int guest_release(struct guest *guest, uint64_t gfn, uint64_t count);

/* Writes memory; pages may have any state. */
int guest_write(struct guest *guest, uint64_t gfn, uint32_t offset,
                const void *bytes, uint32_t len);
int guest_write_page(struct guest *guest, uint64_t gfn, const void *page);

/* Offers clean cache pages for repayment. */
int guest_offer(struct guest *guest, uint64_t count, uint64_t *ret_offered);

/* Gives back what guest_boot() made; the memory stays as it is. */
void guest_fini(struct guest *guest);

#endif
