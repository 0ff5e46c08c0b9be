/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit's parts; audit.c says how they fit together. For api/audit.c.
 */
#ifndef PGS_MECHANISM_AUDIT_H
#define PGS_MECHANISM_AUDIT_H

#include "mechanism/lookup.h"

#include <pgshare/audit.h>

/* What one walk has added up, to be compared with what was counted. */
struct pgs_audit_sums {
    uint64_t tracked;
    uint64_t protected_;
    uint64_t mappings;      /* words that map a frame */
    uint64_t zero;          /* words that map the zero frame */
    uint64_t volatile_;     /* words in a FIFO */
    uint64_t held;          /* words that are held */
    uint64_t entitlement;   /* of all words */
    uint64_t frames;
    uint64_t frame_mappings;
    uint64_t freed;         /* Σ n - 1 */
    uint64_t remainder;     /* what rounding took from entitlements */
    uint64_t frame_pins;
    uint64_t holds;
    uint64_t hold_pins;
    uint64_t fifo;
    uint64_t claimed;
};

struct pgs_audit {
    struct pgshare_host *host;
    struct pgshare_audit verdict;
    struct pgshare_finding *list; /* [room] */
    uint64_t n;                   /* used */
    uint64_t room;
    bool keep;                    /* somebody wants to hear of findings */
    int error;                    /* no memory for them */
    bool moved;                   /* something was in flight: no sums */
    uint64_t zero_sharers;        /* the host's mapping included */
    struct pgs_domain *domain;    /* being walked */
    struct pgs_domain *uncovered; /* whose FIFO is too short, or NULL */
    struct pgs_lookup lookup;
    struct pgs_audit_sums sums;
};

/* Zero but for `host` and `keep`, which the caller sets. fini: the list. */
void pgs_audit_fini(struct pgs_audit *audit);

/* One violated invariant. `dom` may be NULL, `frame` PGS_NONE. */
struct pgs_place {
    struct pgs_domain *domain;
    uint64_t gfn;
    uint32_t frame;
};
#define PGS_NOWHERE \
    ((struct pgs_place){ NULL, PGSHARE_GFN_NONE, PGS_NONE })
void pgs_audit_report(struct pgs_audit *audit, uint32_t invariant,
                      struct pgs_place place, uint64_t expected,
                      uint64_t found);

/* audit_sums.c: walks everything, and adds up; the caller is the runner. */
void pgs_audit_walk(struct pgs_audit *audit);

/* Domains: words, FIFOs, claims. */
void pgs_audit_domains(struct pgs_audit *audit);

/* audit_frames.c: frames with their reverse maps; holds. */
void pgs_audit_frames(struct pgs_audit *audit);
void pgs_audit_holds(struct pgs_audit *audit);

/* audit_backend.c: asks the backend. No lock held. */
void pgs_audit_backend(struct pgs_audit *audit);

#endif
