/* SPDX-License-Identifier: BSD-2-Clause */
/* The mock machine itself: its memory, its rules, its guests. */
#include "unit/mock_rig.h"

START_TEST(test_memory)
{
    static const unsigned char zeroes[PAGE];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    write_text(&rig, 0, 1, "text", 0);
    op_ok(&rig, PGSHARE_OP_RECLAIM, 0, 1, 1, 0, NULL);
    ck_assert_int_eq(rig.answers.reserve, 1);
    ck_assert_uint_eq(state(&rig, 0, 1), PGSHARE_MOCK_RECLAIMED);
    ck_assert_int_eq(pgshare_mock_compare(rig.domains[0], 1, 0, zeroes, PAGE),
                     0);
    op_ok(&rig, PGSHARE_OP_GRANT, 0, 1, 1, 0, NULL);
    ck_assert_int_eq(rig.answers.reserve, -1);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_GRANT, 0, 100, 1, 0, NULL), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_NOFRAME);
    op_ok(&rig, PGSHARE_OP_DISCARD, 0, 2, 4, 0, NULL);
    ck_assert_int_eq(rig.answers.reserve, 4);
    ck_assert_uint_eq(state(&rig, 0, 3), PGSHARE_MOCK_HOLE);
    reserve(&rig, 0);
    ck_assert_uint_eq(rig.answers.ids[0], 4);
    reserve(&rig, 100000);
    ck_assert_int_eq(rig.answers.result, PGSHARE_ERR_NOFRAME);
    ck_assert_uint_eq(rig.answers.ids[0], 4 + (uint64_t)rig.answers.reserve);
    op_ok(&rig, PGSHARE_OP_CHANGES, 1, 0, 4, 0, NULL);
    write_text(&rig, 1, 2, "text", 0);
    op(&rig, PGSHARE_OP_CHANGES, 1, 0, 4, 0, NULL);
    ck_assert_int_eq(rig.answers.status[1], 0);
    ck_assert_int_eq(rig.answers.status[2], 1);
    tear_down(&rig);
}
END_TEST

START_TEST(test_orphans)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    rig.backend->ops->domain_remove(rig.backend, rig.cookies[0]);
    rig.backend->ops->domain_remove(rig.backend, rig.cookies[1]);
    op_ok(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_int_eq(rig.answers.reserve, 0);
    assert_sound(&rig);
    assert_text(&rig, 0, 1, "same");
    rig.backend->ops->detach(rig.backend);
    write_text(&rig, 0, 1, "mine", 0);
    assert_text(&rig, 1, 2, "same");
    write_text(&rig, 1, 2, "too", 0);
    assert_sound(&rig);
    pgshare_mock_machine_free(rig.machine);
}
END_TEST

START_TEST(test_sparse)
{
    struct pgshare_mock_options options = { .flags = PGSHARE_MOCK_DETERMINISTIC,
                                            .frames = (uint64_t)1 << 30 };
    struct pgshare_mock_domain_options large = { .size = sizeof(large),
                                                 .flags = PGSHARE_MOCK_SPARSE };
    struct pgshare_mock_domain *domain;
    const uint64_t terabyte = (uint64_t)1 << 28;
    unsigned char a[PAGE], b[PAGE];
    struct rig rig;
    uint64_t id;

    set_up_options(&rig, &options, PGSHARE_MOCK_SPARSE);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 5, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PUBLISH, 0, 5, 1, 0, NULL);
    id = rig.answers.ids[0];
    op_ok(&rig, PGSHARE_OP_PROTECT, 1, 5, 1, 0, NULL);
    op(&rig, PGSHARE_OP_COMPARE, 1, 5, 1, 0, &id);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_DIFFERENT);
    op_ok(&rig, PGSHARE_OP_MAP, 1, 5, 1, 0, &id);
    ck_assert_int_eq(rig.answers.reserve, 1);
    write_text(&rig, 0, 6, "bytes", 0);
    assert_text(&rig, 0, 6, "bytes");
    ck_assert_int_eq(pgshare_mock_domain_new(rig.machine, terabyte, &large,
                                             &domain),
                     0);
    ck_assert_int_eq(pgshare_mock_read(domain, terabyte - 1, 0, a, PAGE), 0);
    ck_assert_int_eq(pgshare_mock_read(domain, terabyte - 2, 0, b, PAGE), 0);
    ck_assert_int_ne(memcmp(a, b, PAGE), 0);
    ck_assert_int_eq(pgshare_mock_write(domain, terabyte - 1, 0, "x", 1), 0);
    pgshare_mock_domain_free(domain);
    tear_down(&rig);
}
END_TEST

START_TEST(test_violations)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    op(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_TAKE, &id);
    ck_assert_uint_eq(violations(&rig), 1);
    op(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 2);
    op(&rig, PGSHARE_OP_MAP, 0, 9, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 3);
    write_text(&rig, 0, 9, "other", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 9, 1, 0, NULL);
    op(&rig, PGSHARE_OP_MAP, 0, 9, 1, 0, &id); /* was never compared */
    ck_assert_uint_eq(violations(&rig), 4);
    op(&rig, PGSHARE_OP_RECLAIM, 0, 9, 1, 0, NULL);
    ck_assert_uint_eq(violations(&rig), 5);
    op(&rig, PGSHARE_OP_COMPARE, 0, 10, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 6);
    id = PGSHARE_ID_ZERO;
    op(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_uint_eq(violations(&rig), 7);
    op(&rig, PGSHARE_OP_DISCARD, 0, GFNS, 1, 0, NULL);
    ck_assert_uint_eq(violations(&rig), 8);
    ck_assert_ptr_nonnull(pgshare_mock_violation(rig.machine, 7));
    ck_assert_ptr_null(pgshare_mock_violation(rig.machine, 8));
    tear_down_any(&rig);
}
END_TEST

START_TEST(test_dma)
{
    struct pgshare_mock_dma dma;
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    ck_assert_int_eq(pgshare_mock_dma_begin(rig.domains[0], 4, 2, 0, &dma), 0);
    op(&rig, PGSHARE_OP_PROTECT, 0, 3, 3, 0, NULL);
    ck_assert_int_eq(rig.answers.status[0], 0);
    ck_assert_int_eq(rig.answers.status[1], PGSHARE_ERR_BUSY);
    ck_assert_int_eq(rig.answers.status[2], PGSHARE_ERR_BUSY);
    ck_assert_int_eq(pgshare_mock_dma_write(&dma, PAGE - 2, "abcd", 5), 0);
    pgshare_mock_dma_end(&dma);
    ck_assert_int_eq(pgshare_mock_compare(rig.domains[0], 4, PAGE - 2, "abcd",
                                          5),
                     0);
    /* What nobody can know of is found when it has been lost. */
    ck_assert_int_eq(pgshare_mock_dma_begin(rig.domains[0], 4, 1,
                                            PGSHARE_MOCK_DMA_UNPINNED, &dma),
                     0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 4, 1, 0, NULL);
    ck_assert_int_eq(pgshare_mock_dma_write(&dma, 0, "lost", 5),
                     PGSHARE_ERR_STATE);
    pgshare_mock_dma_end(&dma);
    tear_down(&rig);
}
END_TEST

START_TEST(test_reader)
{
    struct pgshare_mock_hold hold;
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    ck_assert_int_eq(pgshare_mock_hold_begin(rig.domains[1], 2, &hold), 0);
    op_ok(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY, &id);
    write_text(&rig, 1, 2, "new", 0);
    ck_assert_str_eq(hold.bytes, "same");
    ck_assert_int_eq(pgshare_mock_hold_end(&hold), 0);
    ck_assert_int_eq(pgshare_mock_hold_begin(rig.domains[0], 1, &hold), 0);
    op_ok(&rig, PGSHARE_OP_UNSHARE, 0, 1, 1, PGSHARE_OP_TAKE, &id);
    ck_assert_int_eq(pgshare_mock_hold_end(&hold), PGSHARE_ERR_DIFFERENT);
    ck_assert_uint_eq(violations(&rig), 1);
    tear_down_any(&rig);
}
END_TEST

START_TEST(test_drop)
{
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    rig.answers.discard_answer = PGSHARE_ERR_BUSY;
    ck_assert_int_eq(pgshare_mock_drop(rig.domains[0], 3, 2, 1), 0);
    ck_assert_uint_eq(state(&rig, 0, 3), PGSHARE_MOCK_HOLE);
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 2);
    rig.answers.discard_answer = 0;
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 0);
    ck_assert_uint_eq(rig.answers.discarded, 2);
    tear_down(&rig);
}
END_TEST

START_TEST(test_gone)
{
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    pgshare_mock_kill(rig.domains[1]);
    ck_assert_uint_eq(rig.answers.gone, 1);
    op(&rig, PGSHARE_OP_PROTECT, 1, 0, 3, 0, NULL);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(rig.answers.status[i], PGSHARE_ERR_GONE);
    tear_down(&rig);
}
END_TEST

START_TEST(test_chaos)
{
    struct pgshare_mock_chaos chaos = { .delay_op = 1000000, .delay_polls = 1 };
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_PROTECT, 0, 0, 8, 0, NULL);
    ck_assert_uint_eq(rig.answers.completions, 0);
    ck_assert_uint_eq(state(&rig, 0, 0), PGSHARE_MOCK_PRIVATE);
    pgshare_mock_poll(rig.machine);
    ck_assert_uint_eq(rig.answers.pages, 8);
    ck_assert_uint_eq(state(&rig, 0, 0), PGSHARE_MOCK_PROTECTED);

    chaos = (struct pgshare_mock_chaos){ .split = 1000000, .twice = 1000000 };
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_UNPROTECT, 0, 0, 8, 0, NULL);
    ck_assert_uint_gt(rig.answers.completions, 2);
    ck_assert_uint_eq(rig.answers.pages, 16);

    chaos = (struct pgshare_mock_chaos){ .lose = 1000000 };
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_FINGERPRINT, 0, 0, 8, 0, NULL);
    ck_assert_uint_eq(rig.answers.completions, 0);
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 0);

    chaos = (struct pgshare_mock_chaos){ .delay_answer = 1000000,
                                         .delay_polls = 1 };
    pgshare_mock_chaos_set(rig.machine, &chaos);
    op(&rig, PGSHARE_OP_PROTECT, 0, 0, 8, 0, NULL);
    ck_assert_uint_eq(state(&rig, 0, 7), PGSHARE_MOCK_PROTECTED);
    ck_assert_uint_eq(rig.answers.completions, 0);
    ck_assert_uint_eq(violations(&rig), 0);
    op(&rig, PGSHARE_OP_UNPROTECT, 0, 7, 1, 0, NULL); /* overlaps */
    ck_assert_uint_eq(violations(&rig), 1);
    pgshare_mock_deliver(rig.machine);
    tear_down_any(&rig);
}
END_TEST

static void guest_action(void *ctx)
{
    struct rig *rig = ctx;

    pgshare_mock_write(rig->domains[0], 3, 0, "action", 7);
}

START_TEST(test_hooks)
{
    struct pgshare_mock_options options = {
        .flavour = PGSHARE_MOCK_PLAIN_PLATFORM,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_STEPS
    };
    struct pgshare_mock_info info = { .size = sizeof(info) };
    struct rig rig;

    set_up_options(&rig, &options, 0);
    ck_assert_int_eq(pgshare_mock_schedule(rig.machine, guest_action, &rig,
                                           1000000),
                     0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 2, 4, 0, NULL);
    pgshare_mock_info(rig.machine, &info);
    ck_assert_uint_eq(info.hooks, 5); /* before, after, and three between */
    ck_assert_uint_eq(state(&rig, 0, 2), PGSHARE_MOCK_PROTECTED);
    ck_assert_uint_eq(state(&rig, 0, 3), PGSHARE_MOCK_PRIVATE);
    pgshare_mock_schedule(rig.machine, guest_action, &rig, 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_disk)
{
    struct pgshare_mock_disk_options options = {
        .size = sizeof(options), .blocks = 8, .bytes = "base image", .len = 11
    };
    struct pgshare_mock_disk *disk;
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < 2; i++)
        rig.backend->ops->domain_remove(rig.backend, rig.cookies[i]);
    ck_assert_int_eq(pgshare_mock_disk_new(rig.machine, &options, &disk), 0);
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[0], disk, 0, 5, 2), 0);
    assert_text(&rig, 0, 5, "base image");
    write_text(&rig, 0, 5, "overlay", 0);
    ck_assert_int_eq(pgshare_mock_block_write(rig.domains[0], disk, 0, 5, 1),
                     0);
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[0], disk, 0, 7, 1), 0);
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[1], disk, 0, 7, 1), 0);
    assert_text(&rig, 0, 7, "overlay");
    assert_text(&rig, 1, 7, "base image");
    ck_assert_int_eq(pgshare_mock_block_read(rig.domains[1], disk, 7, 7, 2),
                     PGSHARE_ERR_RANGE);
    rig.backend->ops->detach(rig.backend);
    assert_sound(&rig);
    pgshare_mock_machine_free(rig.machine);
}
END_TEST

START_TEST(test_kernel)
{
    struct pgshare_mock_disk_options disk_options = { .size = sizeof(
                                                          disk_options),
                                                      .blocks = 64,
                                                      .bytes = "first block",
                                                      .len = 12 };
    struct pgshare_mock_kernel_options options = { .size = sizeof(options),
                                                   .count = 8 };
    struct pgshare_mock_kernel_info info = { .size = sizeof(info) };
    struct pgshare_mock_kernel *kernel;
    struct rig rig;
    uint64_t gfn;
    uint64_t run;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < 2; i++)
        rig.backend->ops->domain_remove(rig.backend, rig.cookies[i]);
    pgshare_mock_disk_new(rig.machine, &disk_options, &options.disk);
    ck_assert_int_eq(pgshare_mock_kernel_new(rig.domains[0], &options, &kernel),
                     0);
    ck_assert_int_eq(pgshare_mock_kernel_alloc(kernel, 4, &run), 0);
    ck_assert_int_eq(pgshare_mock_kernel_write(kernel, 0, 0, "F", 1), 0);
    for (unsigned block = 0; block < 20; block++)
        ck_assert_int_eq(pgshare_mock_kernel_read(kernel, block, &gfn), 0);
    ck_assert_int_eq(pgshare_mock_kernel_read(kernel, 0, &gfn), 0);
    assert_text(&rig, 0, gfn, "First block");
    ck_assert_int_eq(pgshare_mock_kernel_alloc(kernel, 5, &gfn),
                     PGSHARE_ERR_NOFRAME);
    ck_assert_int_eq(pgshare_mock_kernel_release(kernel, run, 4), 0);
    ck_assert_int_eq(pgshare_mock_kernel_alloc(kernel, 8, &run), 0);
    pgshare_mock_kernel_info(kernel, &info);
    ck_assert_uint_eq(info.free, 0);
    ck_assert_uint_eq(info.cached, 0);
    ck_assert_uint_eq(info.misses, 21);
    rig.backend->ops->detach(rig.backend);
    pgshare_mock_machine_free(rig.machine);
}
END_TEST

static uint64_t run_of(uint64_t seed)
{
    struct pgshare_mock_options options = {
        .seed = seed,
        .flags = PGSHARE_MOCK_DETERMINISTIC,
        .chaos = { .delay_op = 300000, .reorder = 500000, .split = 300000 }
    };
    uint64_t sum = 0;
    struct rig rig;

    set_up_options(&rig, &options, 0);
    for (unsigned i = 0; i < 40; i++) {
        op(&rig, PGSHARE_OP_FINGERPRINT, (int)(i % 2), i, 8, 0, NULL);
        pgshare_mock_poll(rig.machine);
        sum = sum * 31 + rig.answers.token;
        sum = sum * 31 + rig.answers.completions;
    }
    pgshare_mock_deliver(rig.machine);
    sum += pgshare_mock_random(rig.machine);
    tear_down(&rig);
    return sum;
}

START_TEST(test_same_seed_same_run)
{
    ck_assert_uint_eq(run_of(11), run_of(11));
    ck_assert_uint_ne(run_of(11), run_of(12));
}
END_TEST

START_TEST(test_bad_arguments)
{
    struct pgshare_mock_options options = { .size = sizeof(options),
                                            .flavour = 17 };
    struct pgshare_mock_machine *machine = NULL;
    struct rig rig;
    char byte = 0;

    ck_assert_int_eq(pgshare_mock_machine_new(&options, &machine),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_mock_machine_new(NULL, NULL), PGSHARE_ERR_INVALID);
    ck_assert_ptr_null(pgshare_mock_machine_free(NULL));
    set_up(&rig, PGSHARE_MOCK_PLAIN);
    ck_assert_int_eq(pgshare_mock_read(rig.domains[0], GFNS, 0, &byte, 1),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_mock_read(rig.domains[0], 0, UINT64_MAX, &byte, 1),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_mock_read(rig.domains[0], 100, 0, &byte, 1),
                     PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_mock_write(rig.domains[0], 100, 0, &byte, 1),
                     PGSHARE_ERR_HOLE);
    ck_assert_int_eq(pgshare_mock_populate(rig.domains[0], 63, 2),
                     PGSHARE_ERR_EXISTS);
    ck_assert_int_eq(pgshare_mock_populate(rig.domains[0], 64, GFNS),
                     PGSHARE_ERR_RANGE);
    tear_down(&rig);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("mock_machine");
    TCase *memory = pgs_tcase(suite, "memory");
    TCase *rules = pgs_tcase(suite, "rules");
    TCase *guest = pgs_tcase(suite, "guest");

    tcase_add_test(memory, test_memory);
    tcase_add_test(memory, test_orphans);
    tcase_add_test(memory, test_sparse);
    tcase_add_test(memory, test_drop);
    tcase_add_test(memory, test_gone);
    tcase_add_test(rules, test_violations);
    tcase_add_test(rules, test_dma);
    tcase_add_test(rules, test_reader);
    tcase_add_test(rules, test_chaos);
    tcase_add_test(rules, test_hooks);
    tcase_add_test(rules, test_same_seed_same_run);
    tcase_add_test(guest, test_disk);
    tcase_add_test(guest, test_kernel);
    tcase_add_test(guest, test_bad_arguments);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("mock_machine", make, argc, argv);
}
