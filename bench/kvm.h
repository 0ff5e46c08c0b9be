/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the benches of the Linux backend run on: two guests, whose memory is this
 * process's own, and a host in which they share.
 */
#ifndef PGS_BENCH_KVM_H
#define PGS_BENCH_KVM_H

#include "bench.h"

#include <pgshare/kvm.h>

#define PGS_VMS 2u

/* Where equal pages lie in the second guest, seen from the first. */
enum pgs_order {
    PGS_ORDER_SAME,   /* at the same GFN */
    PGS_ORDER_EIGHTS, /* in extents of 8, these in random order */
    PGS_ORDER_SINGLE, /* each anywhere */
    PGS_ORDER_REAL    /* in extents as long as in real guests, each followed by
                       * a page that has no equal, in random order */
};

/*
 * What the pages hold: two pages are equal if their numbers are, and none is in
 * one guest twice.
 */
struct pgs_layout {
    uint32_t pages; /* of each guest */
    uint32_t equal; /* of each: have an equal in the other one */
    uint32_t *content[PGS_VMS];
};

void pgs_layout_init(struct pgs_layout *layout, enum pgs_order order,
                     uint32_t pages, uint64_t seed);
void pgs_layout_fini(struct pgs_layout *layout);

struct pgs_vm {
    struct pgshare_kvm_guest *guest;
    unsigned char *memory; /* every page was written */
};

struct pgs_vms {
    const struct pgs_layout *layout;
    struct pgshare_kvm *kvm;
    struct pgshare_host *host;
    uint64_t group;
    struct pgs_vm vm[PGS_VMS];
};

/* What this machine lacks, NULL: nothing. */
const char *pgs_vms_missing(void);

/* Memory and a host; `give`: what sharing frees goes back to the machine. */
void pgs_vms_open(struct pgs_vms *vms, const struct pgs_layout *layout,
                  bool give);
/* The guests are known from now on. `flags`: of the guests. */
void pgs_vms_register(struct pgs_vms *vms, uint32_t flags);
/* One pass, until so many pages are saved, or the pass ends. Answers how many
 * are. */
uint64_t pgs_vms_merge(struct pgs_vms *vms, uint64_t enough);
/* Ends the program if a guest holds anything but its content. */
void pgs_vms_check(const struct pgs_vms *vms);
void pgs_vms_close(struct pgs_vms *vms);

/* CPU time of all threads, in nanoseconds. */
uint64_t pgs_vms_cpu(void);

#endif
