/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The platform with every default filled in, so that the core calls it without
 * looking for NULL.
 */
#ifndef PGS_BASE_PLATFORM_H
#define PGS_BASE_PLATFORM_H

#include <pgshare/sys/platform.h>

/* `ret` gets all members set. PGSHARE_ERR_ABI as pgs_abi_in(). */
int pgs_platform_init(struct pgshare_platform *ret,
                      const struct pgshare_platform *given);

static inline uint64_t pgs_now(const struct pgshare_platform *platform)
{
    return platform->now_ns(platform->ctx);
}

/* CPU time of this thread. */
static inline uint64_t pgs_cpu(const struct pgshare_platform *platform)
{
    return platform->cpu_ns(platform->ctx);
}

/* Memory pressure in percent. */
static inline uint32_t pgs_pressure(const struct pgshare_platform *platform)
{
    return platform->pressure(platform->ctx);
}

/* A number that guests cannot know; the clock's, where there is no randomness. */
uint64_t pgs_secret(const struct pgshare_platform *platform);

/* Formats at most 255 bytes; never allocates. */
void pgs_log(const struct pgshare_platform *platform,
             enum pgshare_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
