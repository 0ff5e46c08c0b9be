/* SPDX-License-Identifier: BSD-2-Clause */
/* libpgshare-jemalloc: an allocator with an arena of its own. */
#include "support/suite.h"

#include <pgshare/error.h>
#include <pgshare/jemalloc.h>
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>
#include <pgshare/sys/allocator.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LARGE ((size_t)64 << 20)

static uint64_t allocated(const struct pgshare_jemalloc *arena)
{
    struct pgshare_jemalloc_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_jemalloc_info(arena, &info), 0);
    return info.allocated;
}

START_TEST(test_blocks_are_as_asked_for)
{
    const struct pgshare_allocator *allocator;
    struct pgshare_jemalloc *arena;

    ck_assert_int_eq(pgshare_jemalloc_new(NULL, &arena), 0);
    allocator = pgshare_jemalloc_allocator(arena);
    ck_assert_uint_eq(allocator->size, sizeof(*allocator));
    for (size_t align = 8; align <= 1 << 16; align *= 2)
        for (size_t bytes = 1; bytes <= 1 << 20; bytes = bytes * 3 + 1) {
            unsigned char *block = allocator->alloc(allocator->ctx, bytes,
                                                    align, PGSHARE_ALLOC_ZERO);

            ck_assert_ptr_nonnull(block);
            ck_assert_uint_eq((uintptr_t)block % align, 0);
            for (size_t i = 0; i < bytes; i += 61)
                ck_assert_uint_eq(block[i], 0);
            ck_assert_uint_eq(block[bytes - 1], 0);
            memset(block, 0xa5, bytes);
            allocator->free(allocator->ctx, block, bytes);
        }
    ck_assert_uint_eq(allocated(arena), 0);
    ck_assert_ptr_null(pgshare_jemalloc_free(arena));
    ck_assert_ptr_null(pgshare_jemalloc_free(NULL));
}
END_TEST

START_TEST(test_too_much_is_no_memory)
{
    const struct pgshare_allocator *allocator;
    struct pgshare_jemalloc *arena;

    ck_assert_int_eq(pgshare_jemalloc_new(NULL, &arena), 0);
    allocator = pgshare_jemalloc_allocator(arena);
    ck_assert_ptr_null(
        allocator->alloc(allocator->ctx, SIZE_MAX / 2, 8, PGSHARE_ALLOC_ZERO));
    pgshare_jemalloc_free(arena);
}
END_TEST

/* Resident pages of this process. */
static uint64_t resident(void)
{
    unsigned long long size, pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file) {
        if (fscanf(file, "%llu %llu", &size, &pages) != 2)
            pages = 0;
        fclose(file);
    }
    return pages;
}

START_TEST(test_what_is_not_touched_costs_nothing)
{
    const struct pgshare_allocator *allocator;
    struct pgshare_jemalloc *arena;
    uint64_t before;
    unsigned char *block;

    if (!resident())
        pgs_skip("no /proc/self/statm");
    ck_assert_int_eq(pgshare_jemalloc_new(NULL, &arena), 0);
    allocator = pgshare_jemalloc_allocator(arena);
    before = resident();
    block = allocator->alloc(allocator->ctx, LARGE, 64, PGSHARE_ALLOC_ZERO);
    ck_assert_ptr_nonnull(block);
    block[LARGE / 2] = 1;
    ck_assert_uint_lt(resident() - before, LARGE / PGSHARE_PAGE_SIZE / 8);
    allocator->free(allocator->ctx, block, LARGE);
    pgshare_jemalloc_free(arena);
}
END_TEST

/* Arenas are used again. */
static void make_and_end(unsigned times)
{
    const struct pgshare_allocator *allocator;
    struct pgshare_jemalloc *arena;

    for (unsigned i = 0; i < times; i++) {
        void *block;

        ck_assert_int_eq(pgshare_jemalloc_new(NULL, &arena), 0);
        allocator = pgshare_jemalloc_allocator(arena);
        block = allocator->alloc(allocator->ctx, 1 << 16, 8, 0);
        ck_assert_ptr_nonnull(block);
        memset(block, 1, 1 << 16);
        pgshare_jemalloc_free(arena);
    }
}

START_TEST(test_end_takes_every_block_along)
{
    uint64_t before = resident();

    if (!before)
        pgs_skip("no /proc/self/statm");
    if (pgs_test_is_sanitized()) /* jemalloc itself: 16 KiB an arena, not 4 */
        pgs_skip("memory under a sanitizer tells nothing");
    make_and_end(5000);
    ck_assert_uint_lt(resident(), before + (64 << 20) / PGSHARE_PAGE_SIZE);
}
END_TEST

static void *churn(void *ctx)
{
    const struct pgshare_allocator *allocator = ctx;
    unsigned char *blocks[64] = { 0 };

    for (unsigned i = 0; i < 20000; i++) {
        unsigned char **block = &blocks[i * 7 % 64];
        size_t bytes = (size_t)16 << i * 7 % 8; /* the place says the size */

        if (*block) {
            ck_assert_uint_eq((*block)[bytes - 1], (unsigned char)bytes);
            allocator->free(allocator->ctx, *block, bytes);
        }
        *block = allocator->alloc(allocator->ctx, bytes, 8, 0);
        ck_assert_ptr_nonnull(*block);
        (*block)[bytes - 1] = (unsigned char)bytes;
    }
    for (unsigned i = 0; i < 64; i++)
        if (blocks[i])
            allocator->free(allocator->ctx, blocks[i], (size_t)16 << i % 8);
    return NULL;
}

START_TEST(test_threads)
{
    struct pgshare_jemalloc *arena;
    pthread_t threads[4];
    union {
        const struct pgshare_allocator *allocator;
        void *ctx;
    } arg;

    ck_assert_int_eq(pgshare_jemalloc_new(NULL, &arena), 0);
    arg.allocator = pgshare_jemalloc_allocator(arena);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, arg.ctx), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(allocated(arena), 0);
    pgshare_jemalloc_free(arena);
}
END_TEST

START_TEST(test_bad_arguments)
{
    struct pgshare_jemalloc_options options = { .size = sizeof(options) };
    struct {
        struct pgshare_jemalloc_options options;
        uint64_t newer;
    } newer = { .options = { .size = sizeof(newer) } };
    struct pgshare_jemalloc_info info = { .size = 0 };
    struct pgshare_jemalloc *arena = NULL;

    ck_assert_int_eq(pgshare_jemalloc_new(NULL, NULL), PGSHARE_ERR_INVALID);
    options.flags = 1;
    ck_assert_int_eq(pgshare_jemalloc_new(&options, &arena),
                     PGSHARE_ERR_INVALID);
    options.flags = 0;
    options.decay_ms = UINT64_MAX / 3;
    ck_assert_int_eq(pgshare_jemalloc_new(&options, &arena),
                     PGSHARE_ERR_INVALID);
    options.size = 1;
    ck_assert_int_eq(pgshare_jemalloc_new(&options, &arena), PGSHARE_ERR_ABI);
    newer.newer = 1;
    ck_assert_int_eq(pgshare_jemalloc_new(&newer.options, &arena),
                     PGSHARE_ERR_ABI);
    ck_assert_ptr_null(arena);
    newer.newer = 0;
    newer.options.decay_ms = PGSHARE_JEMALLOC_DECAY_NONE;
    ck_assert_int_eq(pgshare_jemalloc_new(&newer.options, &arena), 0);
    ck_assert_int_eq(pgshare_jemalloc_info(arena, &info), PGSHARE_ERR_ABI);
    ck_assert_int_eq(pgshare_jemalloc_info(arena, NULL), PGSHARE_ERR_INVALID);
    pgshare_jemalloc_free(arena);
}
END_TEST

START_TEST(test_host_lives_in_it)
{
    struct pgshare_host_options options = { .size = sizeof(options) };
    struct pgshare_jemalloc_info info = { .size = sizeof(info) };
    struct pgshare_mock_machine *machine;
    struct pgshare_mock_domain *domain;
    struct pgshare_jemalloc *arena;
    struct pgshare_host *host;

    ck_assert_int_eq(pgshare_jemalloc_new(NULL, &arena), 0);
    options.allocator = pgshare_jemalloc_allocator(arena);
    ck_assert_int_eq(pgshare_mock_machine_new(NULL, &machine), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_mock_backend(machine), &options,
                                      &host),
                     0);
    ck_assert_int_eq(pgshare_mock_domain_new(machine, 256, NULL, &domain), 0);
    ck_assert_int_eq(pgshare_mock_populate(domain, 0, 256), 0);
    ck_assert_int_eq(pgshare_mock_join(domain, host, 0), 0);
    ck_assert_int_eq(pgshare_host_pass(host, 0), 0);
    ck_assert_int_eq(pgshare_host_settle(host, PGSHARE_FOREVER), 0);
    ck_assert_int_eq(pgshare_jemalloc_info(arena, &info), 0);
    ck_assert_uint_gt(info.allocated, 0);
    ck_assert_uint_ge(info.resident, info.allocated);
    pgshare_host_free(host);
    ck_assert_uint_eq(allocated(arena), 0);
    pgshare_mock_machine_free(machine);
    pgshare_jemalloc_free(arena);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("jemalloc");
    TCase *tcase = pgs_tcase(suite, "arena");

    tcase_add_test(tcase, test_blocks_are_as_asked_for);
    tcase_add_test(tcase, test_too_much_is_no_memory);
    tcase_add_test(tcase, test_what_is_not_touched_costs_nothing);
    tcase_add_test(tcase, test_end_takes_every_block_along);
    tcase_add_test(tcase, test_threads);
    tcase_add_test(tcase, test_bad_arguments);
    tcase_add_test(tcase, test_host_lives_in_it);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("jemalloc", make, argc, argv);
}
