/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM with two guests, for tests of what is the backend's own (a rig, of what
 * all backends have): each guest has GFNS pages of this process's memory.
 */
#ifndef PGS_TESTS_KVM_VMM_H
#define PGS_TESTS_KVM_VMM_H

#include "contract/rig.h"

#include <pgshare/kvm.h>

#define VMM_GUESTS 2u

struct vmm {
    struct pgshare_kvm *kvm;
    struct pgshare_host *host;
    uint64_t group;
    struct pgshare_kvm_guest *guest[VMM_GUESTS];
    unsigned char *memory[VMM_GUESTS]; /* [GFNS] pages */
};

/* What the VMM is like; zeroes are fine. */
struct vmm_options {
    struct pgshare_host_options host;
    /* The byte of which a page is full [gfn + 1: the guests are equal]. */
    unsigned char (*fill)(unsigned g, unsigned gfn);
    /* Adds a guest's slots [one, all of it memory]. */
    void (*slots)(struct vmm *vmm, unsigned g);
};

/* Guests as those of that machine. */
void vmm_open(struct vmm *vmm, int machine, const struct vmm_options *options);
/* Looks that nothing is wrong, and left behind. */
void vmm_close(struct vmm *vmm);

uint64_t vmm_dom(const struct vmm *vmm, unsigned g);
struct pgshare_gfn_info vmm_info(const struct vmm *vmm, unsigned g,
                                 uint64_t gfn);
bool vmm_is_shared(const struct vmm *vmm, unsigned g, uint64_t gfn);
/* A pass over both guests, to its end. */
void vmm_pass(struct vmm *vmm);

#endif
