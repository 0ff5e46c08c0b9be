/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief Decorators: backends over a backend, for tests and diagnosis.
 *
 * For authors of backends and tests. Stable within a minor version.
 *
 * Each takes the place of the backend that it decorates in pgshare_host_new(),
 * hands the operations down and the completions and events up, and changes
 * something on the way. They nest. The decorated backend is borrowed and must
 * outlive the decorator, which must outlive the host.
 */
#ifndef PGSHARE_SYS_DECORATOR_H
#define PGSHARE_SYS_DECORATOR_H

#include <pgshare/sys/backend.h>

PGSHARE_BEGIN_DECLS

struct pgshare_fault_backend;
struct pgshare_trace_backend;
struct pgshare_delay_backend;

/** How an operation is made to fail. @since 0.1 */
enum pgshare_fault_mode {
    /** submit() refuses the whole batch with `error`. */
    PGSHARE_INJECT_REFUSE = 1,
    /** Never reaches the backend; all its pages answer `error`. */
    PGSHARE_INJECT_FAIL,
    /** The first half of the pages is done, the rest answers `error`; where
     * there is one page only, it fails. */
    PGSHARE_INJECT_PARTIAL,
    /** Is done, its completion is lost. */
    PGSHARE_INJECT_LOSE,
    /** Is neither done nor answered. */
    PGSHARE_INJECT_SWALLOW,
    /** Is done and answered twice. */
    PGSHARE_INJECT_TWICE,
    /** Is done; the answer is kept until pgshare_fault_backend_release(). */
    PGSHARE_INJECT_LATE
};

/**
 * @struct pgshare_fault_plan
 * Which operations fail, and how.
 */
struct pgshare_fault_plan {
    size_t size;
    uint32_t mode;  /**< enum pgshare_fault_mode; 0: nothing fails */
    int32_t error;  /**< [PGSHARE_ERR_BACKEND] */
    uint64_t kinds; /**< bit 1 << ::pgshare_op_kind for each kind that is
                     *   counted and may fail [all] */
    uint64_t first; /**< the first to fail, counted from 0 since the plan */
    uint64_t count; /**< how many fail from there on [1]; UINT64_MAX: all */
};

/**
 * Makes a decorator that lets operations fail.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_NOMEM. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_fault_backend_new(struct pgshare_backend *inner,
                          struct pgshare_fault_backend **ret_fault);

/** @param[in] fault NULL is fine @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_fault_backend *
pgshare_fault_backend_free(struct pgshare_fault_backend *fault);

/** @return what to give to pgshare_host_new(). @since 0.1 */
PGSHARE_EXPORT struct pgshare_backend *
pgshare_fault_backend_base(struct pgshare_fault_backend *fault);

/** Sets a plan and restarts the counts. @param[in] plan NULL: nothing fails
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI. @since 0.1 */
PGSHARE_EXPORT int
pgshare_fault_backend_plan(struct pgshare_fault_backend *fault,
                           const struct pgshare_fault_plan *plan);

/** @return operations of the plan's kinds seen since the plan was set.
 * @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_fault_backend_seen(struct pgshare_fault_backend *fault);

/** @return operations that were made to fail since the plan was set.
 * @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_fault_backend_failed(struct pgshare_fault_backend *fault);

/** Sends the answers that ::PGSHARE_INJECT_LATE keeps.
 * @return how many. @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_fault_backend_release(struct pgshare_fault_backend *fault);

/**
 * Makes a decorator that writes a line per operation, completion and event.
 * @param[in] line called from any thread, without the newline; must not call
 * the library
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_NOMEM. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_trace_backend_new(struct pgshare_backend *inner,
                          void (*line)(void *ctx, const char *text), void *ctx,
                          struct pgshare_trace_backend **ret_trace);

/** @param[in] trace NULL is fine @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_trace_backend *
pgshare_trace_backend_free(struct pgshare_trace_backend *trace);

/** @return what to give to pgshare_host_new(). @since 0.1 */
PGSHARE_EXPORT struct pgshare_backend *
pgshare_trace_backend_base(struct pgshare_trace_backend *trace);

/**
 * @struct pgshare_delay_options
 * What is held back, and for how long.
 */
struct pgshare_delay_options {
    size_t size;
    uint32_t polls; /**< each completion is held for so many polls … */
    uint32_t reserved;
    uint64_t ns;    /**< … and for so long … */
    uint64_t (*now_ns)(void *ctx); /**< … on this clock [CLOCK_MONOTONIC] */
    void *ctx;      /**< for `now_ns` */
    uint64_t kinds; /**< bit 1 << ::pgshare_op_kind; others pass [all] */
};

/**
 * Makes a decorator that holds completions back.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM.
 * @since 0.1
 */
PGSHARE_EXPORT int
pgshare_delay_backend_new(struct pgshare_backend *inner,
                          const struct pgshare_delay_options *options,
                          struct pgshare_delay_backend **ret_delay);

/** @param[in] delay NULL is fine @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_delay_backend *
pgshare_delay_backend_free(struct pgshare_delay_backend *delay);

/** @return what to give to pgshare_host_new(). @since 0.1 */
PGSHARE_EXPORT struct pgshare_backend *
pgshare_delay_backend_base(struct pgshare_delay_backend *delay);

/** @return how many completions are held now. @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_delay_backend_held(struct pgshare_delay_backend *delay);

PGSHARE_END_DECLS

#endif
