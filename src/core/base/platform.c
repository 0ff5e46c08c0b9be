/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a program does not lend, the library makes do without or asks of the
 * system. The defaults are functions like any other, so that nobody else has
 * to know which members were given.
 */
#include "base/platform.h"

#include "base/abi.h"
#include "base/mix.h"

#include <pgshare/error.h>

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#define LINE_MAX_BYTES 256u

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t default_now(void *ctx)
{
    return read_clock(CLOCK_MONOTONIC);
}

static uint64_t default_cpu(void *ctx)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static int default_random(void *ctx, void *buf, size_t len)
{
    char *to = buf;

    while (len > 0) {
        ssize_t got = getrandom(to, len, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        assert((size_t)got <= len);
        to += got;
        len -= (size_t)got;
    }
    return 0;
}

static uint32_t default_pressure(void *ctx)
{
    return 0;
}

static void default_log(void *ctx, enum pgshare_log_level level,
                        const char *line)
{
}

static void default_wake(void *ctx)
{
}

int pgs_platform_init(struct pgshare_platform *ret,
                      const struct pgshare_platform *given)
{
    struct pgshare_platform platform;
    int error = pgs_abi_in(&platform, sizeof(platform), sizeof(size_t), given);

    if (error)
        return error;
    platform.size = sizeof(platform);
    if (!platform.now_ns)
        platform.now_ns = default_now;
    if (!platform.random)
        platform.random = default_random;
    if (!platform.pressure)
        platform.pressure = default_pressure;
    if (!platform.log)
        platform.log = default_log;
    if (!platform.wake)
        platform.wake = default_wake;
    if (!platform.cpu_ns)
        platform.cpu_ns = default_cpu;
    *ret = platform;
    return 0;
}

uint64_t pgs_secret(const struct pgshare_platform *platform)
{
    uint64_t secret = 0;

    if (platform->random(platform->ctx, &secret, sizeof(secret)))
        secret = pgs_mix(pgs_now(platform));
    return secret;
}

void pgs_log(const struct pgshare_platform *platform,
             enum pgshare_log_level level, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    va_list args;

    assert(platform->log != NULL && format != NULL);
    if (platform->log == default_log)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    platform->log(platform->ctx, level, line);
}
