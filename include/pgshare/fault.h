/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The CoW fault.
 */
#ifndef PGSHARE_FAULT_H
#define PGSHARE_FAULT_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** How a write fault was resolved. @since 0.1 */
enum pgshare_fault_outcome {
    PGSHARE_FAULT_SPURIOUS = 1, /**< the page was private and writable */
    PGSHARE_FAULT_UNMARKED,     /**< it was only marked; writable again */
    PGSHARE_FAULT_LAST_MAPPING, /**< the frame was given back, no copy */
    PGSHARE_FAULT_FREE,         /**< logically zero (declared free, or a mapping
                                 *   of the zero frame): a zeroed frame, no copy */
    PGSHARE_FAULT_OVERWRITE,    /**< overwritten whole: no copy either */
    PGSHARE_FAULT_COPIED,       /**< a frame of its own, content copied */
    PGSHARE_FAULT_READ_ONLY,    /**< in a read-only range: reported, not done */
    PGSHARE_FAULT_POPULATED     /**< a reclaimed GFN got memory again, zeroed */
};

/** What paid for the frame that a fault needed. @since 0.1 */
enum pgshare_payer {
    PGSHARE_PAID_NOTHING = 0, /**< none was needed */
    PGSHARE_PAID_RESERVE,     /**< the host's reserve */
    PGSHARE_PAID_OWN_FIFO,    /**< a volatile page of the breaker */
    PGSHARE_PAID_OTHER_FIFO,  /**< of a domain whose claim was too high */
    PGSHARE_PAID_SERVICE      /**< of its service account */
};

/**
 * @struct pgshare_fault
 * The answer.
 */
struct pgshare_fault {
    size_t size;
    uint32_t outcome; /**< enum pgshare_fault_outcome */
    uint32_t payer;   /**< enum pgshare_payer */
};

/** The write that faulted covers the whole page; its content is not copied. */
#define PGSHARE_FAULT_WHOLE_PAGE (1u << 0)

/**
 * Resolves a write fault: afterwards the guest may retry the write. Callable
 * from any number of vCPU threads at once; faults on different pages do not
 * wait for each other. Needs no metadata memory.
 * @param[in] flags PGSHARE_FAULT_WHOLE_PAGE or 0
 * @param[out] ret_fault NULL, or the answer
 * @return 0, ::PGSHARE_ERR_NODOMAIN, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_NOFRAME, ::PGSHARE_ERR_INPROGRESS (the page stays protected
 * meanwhile), ::PGSHARE_ERR_BUSY (`max_calls` calls are waiting),
 * ::PGSHARE_ERR_GONE, ::PGSHARE_ERR_BACKEND, ::PGSHARE_ERR_FORKED, or the
 * backend's error. @since 0.1
 */
PGSHARE_EXPORT int pgshare_fault_write(struct pgshare_host *host, uint64_t dom,
                                       uint64_t gfn, uint32_t flags,
                                       struct pgshare_call *call,
                                       struct pgshare_fault *ret_fault);

PGSHARE_END_DECLS

#endif
