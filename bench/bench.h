/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The benches, and the machine that they all run on.
 *
 * Each bench is a function that adds its figures to the report. It makes its
 * machine and its yardsticks' memory, touches all of it, goes through a few
 * rounds that are not counted, and measures.
 */
#ifndef PGS_BENCH_BENCH_H
#define PGS_BENCH_BENCH_H

#include "report.h"

#include <pgshare/mock.h>
#include <pgshare/pgshare.h>
#include <pgshare/sys/platform.h>

#include <stdbool.h>
#include <stdint.h>

struct pgs_bench {
    struct pgs_report *report;
    bool quick;       /* small sets: is everything there? */
    unsigned runs;    /* 0: as many as the bench thinks right */
    const char *only; /* NULL, or a part of the metrics that are wanted */
    uint64_t llc;     /* bytes */
    uint64_t seed;
};

void pgs_bench_fault(struct pgs_bench *bench);
void pgs_bench_share(struct pgs_bench *bench);
void pgs_bench_rmap(struct pgs_bench *bench);
void pgs_bench_teardown(struct pgs_bench *bench);
void pgs_bench_footprint(struct pgs_bench *bench);
void pgs_bench_audit(struct pgs_bench *bench);
void pgs_bench_scale(struct pgs_bench *bench);
void pgs_bench_scan_cold(struct pgs_bench *bench);
void pgs_bench_scan_steady(struct pgs_bench *bench);
void pgs_bench_scan_steer(struct pgs_bench *bench);
void pgs_bench_merge(struct pgs_bench *bench);
void pgs_bench_hint_latency(struct pgs_bench *bench);
void pgs_bench_analyze(struct pgs_bench *bench);
void pgs_bench_kvm_merge(struct pgs_bench *bench);
void pgs_bench_kvm_stall(struct pgs_bench *bench);
void pgs_bench_kvm_fault(struct pgs_bench *bench);
void pgs_bench_kvm_fork(struct pgs_bench *bench);
void pgs_bench_kvm_steady(struct pgs_bench *bench);
void pgs_bench_kvm_net(struct pgs_bench *bench);

/* Pages that fill the last-level cache four times, a multiple of 4096. */
uint32_t pgs_bench_pages(const struct pgs_bench *bench);

/* Is this metric to be measured? */
bool pgs_bench_wants(const struct pgs_bench *bench, const char *metric);

/* Rounds: what the user said, or `usual`, or few. */
unsigned pgs_bench_rounds(const struct pgs_bench *bench, unsigned usual);

/* ---- the rig: a mock machine, a host over it, guests in one group -------- */

struct pgs_rig {
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    uint64_t group;
};

/* `zeroed`: frames that the machine keeps zeroed in advance. */
void pgs_rig_open(struct pgs_rig *rig, uint64_t frames, uint64_t zeroed);
/* The machine keeps a change log. */
void pgs_rig_open_logged(struct pgs_rig *rig, uint64_t frames);
void pgs_rig_close(struct pgs_rig *rig);

/* The host alone, over a machine that stays. */
void pgs_rig_host_open(struct pgs_rig *rig);
void pgs_rig_host_open_on(struct pgs_rig *rig,
                          const struct pgshare_platform *platform);
void pgs_rig_host_close(struct pgs_rig *rig);

/* What the pages of a guest hold. */
enum pgs_content {
    PGS_CONTENT_BY_GFN, /* equal at equal GFNs of all guests, else distinct */
    PGS_CONTENT_SAME,   /* all pages equal */
    PGS_CONTENT_UNIQUE  /* no two pages equal; sparse guests only */
};

struct pgs_guest {
    struct pgshare_mock_domain *mock;
    uint64_t dom; /* the host's handle */
    uint64_t gfns;
};

/* A guest whose pages have bytes, or exist (sparse) only as their content. */
void pgs_rig_guest(struct pgs_rig *rig, struct pgs_guest *guest, uint64_t gfns,
                   enum pgs_content content, bool sparse);
/* Into the rig's host, and out of it. */
void pgs_rig_join(struct pgs_rig *rig, struct pgs_guest *guest);
void pgs_rig_leave(struct pgs_guest *guest);

/* Shares extents, marking both sides as part of it. */
void pgs_rig_share(struct pgs_rig *rig, const struct pgs_guest *source,
                   uint64_t source_gfn, const struct pgs_guest *client,
                   uint64_t client_gfn, uint64_t count);

/* Makes pages private again. */
void pgs_rig_unshare(struct pgs_rig *rig, const struct pgs_guest *guest,
                     uint64_t gfn, uint64_t count);

/* The bytes of such a page. */
void pgs_content_fill(void *content, uint32_t domid, uint64_t gfn,
                      void *ret_page);

/* ---- a frame with many mappings, and many frames with two ---------------- */

/* `clients.gfns` mappings of the frame of the source's GFN 0 (`one`), or of
 * the frame at the same GFN of the source. */
struct pgs_population {
    struct pgs_rig rig;
    struct pgs_guest source;
    struct pgs_guest client;
    bool one;
};

void pgs_population_open(struct pgs_population *population, uint32_t mappings,
                         bool one);
void pgs_population_close(struct pgs_population *population);
/* Shares the client's pages [gfn, gfn + count) (again). */
void pgs_population_share(struct pgs_population *population, uint64_t gfn,
                          uint64_t count);

#endif
