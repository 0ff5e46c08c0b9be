/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The audit: every invariant, checked on the living host.
 */
#ifndef PGSHARE_AUDIT_H
#define PGSHARE_AUDIT_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** The invariants. @since 0.1 */
enum pgshare_invariant {
    PGSHARE_INVARIANT_ENTRY = 1,   /**< a GFN's state and flags agree */
    PGSHARE_INVARIANT_RMAP,        /**< GFN entries and rmap are a bijection */
    PGSHARE_INVARIANT_COUNT,       /**< a frame's count is its mappings' */
    PGSHARE_INVARIANT_FRAME,       /**< a frame is owned, listed and mapped */
    PGSHARE_INVARIANT_TICKET,      /**< marks and protected GFNs agree */
    PGSHARE_INVARIANT_HOLD,        /**< holds and held GFNs agree */
    PGSHARE_INVARIANT_FIFO,        /**< FIFOs and volatile GFNs agree */
    PGSHARE_INVARIANT_COVER,       /**< reserve + FIFOs cover the demand */
    PGSHARE_INVARIANT_ENTITLEMENT, /**< Σ entitlement = frames freed */
    PGSHARE_INVARIANT_TOTALS,      /**< Σ mappings = freed + frames; counters */
    PGSHARE_INVARIANT_INDEX,       /**< content index, block and file map */
    PGSHARE_INVARIANT_BACKEND      /**< the backend's view against core's */
};

/**
 * @struct pgshare_finding
 * One violated invariant.
 */
struct pgshare_finding {
    size_t size;
    uint32_t invariant; /**< enum pgshare_invariant */
    uint32_t reserved;
    uint64_t dom;       /**< or 0 */
    uint64_t gfn;       /**< or PGSHARE_GFN_NONE */
    uint64_t frame;     /**< or 0 */
    uint64_t expected;  /**< what should be, in the invariant's own terms */
    uint64_t found;     /**< what is */
};

/** Ask the backend too (slower; pages in flight are left out). */
#define PGSHARE_AUDIT_BACKEND (1u << 0)

/**
 * @struct pgshare_audit_options
 * What to audit, and whom to tell.
 */
struct pgshare_audit_options {
    size_t size;
    uint32_t flags; /**< PGSHARE_AUDIT_BACKEND */
    uint32_t reserved;
    /** Called for each finding, without a lock held; may be NULL. */
    void (*finding)(void *ctx, const struct pgshare_finding *finding);
    void *ctx; /**< for `finding` */
};

/**
 * @struct pgshare_audit
 * The verdict.
 */
struct pgshare_audit {
    size_t size;
    uint64_t violations; /**< findings */
    uint64_t gfns;     /**< entries looked at */
    uint64_t mappings; /**< rmap entries looked at */
    uint64_t frames;   /**< frames looked at */
};

/**
 * Walks everything. Runs beside faults and declarations; sums that move while
 * they are added up are checked only when nothing moved, in up to three
 * attempts, else left out.
 * @param[in] options NULL for the defaults
 * @param[out] ret_audit the verdict; `violations` should be 0
 * @return 0 (also with violations), ::PGSHARE_ERR_NOMEM, ::PGSHARE_ERR_ABI,
 * ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_NOTSUP (the backend cannot be asked),
 * ::PGSHARE_ERR_BUSY (the runner is at work for too long),
 * ::PGSHARE_ERR_FORKED. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_host_audit(struct pgshare_host *host,
                   const struct pgshare_audit_options *options,
                   struct pgshare_audit *ret_audit);

/** @return "rmap", "cover", … : a static string, NULL for what is none.
 * @since 0.1 */
PGSHARE_EXPORT const char *pgshare_invariant_name(uint32_t invariant);

PGSHARE_END_DECLS

#endif
