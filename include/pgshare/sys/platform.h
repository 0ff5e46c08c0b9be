/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief What the embedding program lends to a host: clocks, randomness,
 * pressure, log, wake-up.
 *
 * For authors of platforms. Stable within a minor version. The library does no
 * I/O itself and owns no thread. Every member may be NULL and then has the
 * default named with it. All may be called from any thread.
 */
#ifndef PGSHARE_SYS_PLATFORM_H
#define PGSHARE_SYS_PLATFORM_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

/** Severity of a log line. */
enum pgshare_log_level {
    PGSHARE_LOG_ERROR = 0,
    PGSHARE_LOG_WARNING,
    PGSHARE_LOG_INFO,
    PGSHARE_LOG_DEBUG
};

/**
 * @struct pgshare_platform
 * What a program lends. Any member but `size` may be NULL.
 */
struct pgshare_platform {
    size_t size;
    void *ctx; /**< first argument of each */
    /** Monotonic nanoseconds [CLOCK_MONOTONIC]. */
    uint64_t (*now_ns)(void *ctx);
    /** Fills `buf` with secret random bytes; 0 or -1 [getrandom]. */
    int (*random)(void *ctx, void *buf, size_t len);
    /** Memory pressure of the machine in percent [0]. */
    uint32_t (*pressure)(void *ctx);
    /** One line, without a newline [dropped]. */
    void (*log)(void *ctx, enum pgshare_log_level level, const char *line);
    /** There is work for pgshare_host_run() [nothing]. Must not block. */
    void (*wake)(void *ctx);
    /** CPU time of the calling thread in ns [CLOCK_THREAD_CPUTIME_ID]. */
    uint64_t (*cpu_ns)(void *ctx);
};

PGSHARE_END_DECLS

#endif
