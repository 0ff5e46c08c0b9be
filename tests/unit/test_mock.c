/* SPDX-License-Identifier: BSD-2-Clause */
/* The mock machine's operations: sharing, and breaks by library or platform. */
#include "unit/mock_rig.h"

START_TEST(test_steps)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    ck_assert_uint_eq(state(&rig, 0, 1), PGSHARE_MOCK_SHARED);
    ck_assert_uint_eq(state(&rig, 1, 2), PGSHARE_MOCK_SHARED);
    assert_sound(&rig);

    op_ok(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY, &id);
    ck_assert_int_eq(rig.answers.reserve, -1);
    write_text(&rig, 1, 2, "else", 0);
    assert_text(&rig, 0, 1, "same");
    op_ok(&rig, PGSHARE_OP_UNSHARE, 0, 1, 1, PGSHARE_OP_TAKE, &id);
    ck_assert_int_eq(rig.answers.reserve, 0);
    write_text(&rig, 0, 1, "mine", 0);
    assert_text(&rig, 1, 2, "else");
    tear_down(&rig);
}
END_TEST

START_TEST(test_extent)
{
    uint64_t ids[16];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < 16; i++) {
        unsigned char page[PAGE];

        memset(page, (int)i, PAGE);
        pgshare_mock_write_page(rig.domains[0], i, page);
        pgshare_mock_write_page(rig.domains[1], 20 + i, page);
    }
    write_text(&rig, 1, 25, "another", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 0, 16, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PROTECT, 1, 20, 16, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PUBLISH, 0, 0, 16, 0, NULL);
    memcpy(ids, rig.answers.ids, sizeof(ids));
    ck_assert_int_eq(op(&rig, PGSHARE_OP_COMPARE, 1, 20, 16, 0, ids), 0);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_int_eq(rig.answers.status[i],
                         i == 5 ? PGSHARE_ERR_DIFFERENT : 0);
    op_ok(&rig, PGSHARE_OP_MAP, 1, 20, 5, 0, ids);
    op_ok(&rig, PGSHARE_OP_MAP, 1, 26, 10, 0, ids + 6);
    ck_assert_int_eq(rig.answers.reserve, 10);
    op_ok(&rig, PGSHARE_OP_UNPROTECT, 1, 25, 1, 0, NULL);
    write_text(&rig, 1, 25, "again", 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_zero_frame)
{
    const uint64_t zero = PGSHARE_ID_ZERO;
    static const unsigned char zeroes[PAGE];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 3, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_COMPARE, 0, 3, 1, 0, &zero);
    op_ok(&rig, PGSHARE_OP_MAP, 0, 3, 1, 0, &zero);
    ck_assert_int_eq(rig.answers.reserve, 1);
    tear_down_any(&rig);

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    write_text(&rig, 0, 3, "text", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 3, 1, 0, NULL);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_COMPARE, 0, 3, 1, 0, &zero), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_DIFFERENT);
    op_ok(&rig, PGSHARE_OP_UNPROTECT, 0, 3, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 4, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_MAP, 0, 4, 1, 0, &zero);
    op_ok(&rig, PGSHARE_OP_UNSHARE, 0, 4, 1, PGSHARE_OP_ZERO, &zero);
    ck_assert_int_eq(pgshare_mock_compare(rig.domains[0], 4, 0, zeroes, PAGE),
                     0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_library_resolves)
{
    struct rig rig;
    uint64_t id;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    id = share(&rig);
    /* The handler has to wait: the write is parked, and what follows too. */
    write_text(&rig, 1, 2, "parked", PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_eq(rig.faults, 1);
    write_text(&rig, 1, 9, "behind", PGSHARE_ERR_INPROGRESS);
    assert_text(&rig, 1, 2, "same");
    op_ok(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY, &id);
    ck_assert_uint_eq(pgshare_mock_poll(rig.machine), 0);
    assert_text(&rig, 1, 2, "parked");
    assert_text(&rig, 1, 9, "behind");
    assert_text(&rig, 0, 1, "same");
    tear_down(&rig);
}
END_TEST

START_TEST(test_read_only)
{
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    op_ok(&rig, PGSHARE_OP_READ_ONLY, 0, 5, 2, 0, NULL);
    rig.fault_answer = PGSHARE_ERR_READONLY;
    write_text(&rig, 0, 5, "no", PGSHARE_ERR_READONLY);
    op_ok(&rig, PGSHARE_OP_READ_ONLY, 0, 5, 2, PGSHARE_OP_OFF, NULL);
    write_text(&rig, 0, 5, "yes", 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_platform_resolves)
{
    const uint32_t flavour = (uint32_t)_i;
    struct rig rig;
    uint64_t id;

    set_up(&rig, flavour);
    id = share(&rig);
    write_text(&rig, 1, 2, "else", 0);
    write_text(&rig, 0, 1, "mine", 0);
    ck_assert_uint_eq(rig.faults, 0);
    assert_text(&rig, 1, 2, "else");
    assert_text(&rig, 0, 1, "mine");
    op_ok(&rig, PGSHARE_OP_HARVEST, 0, 0, 1, 0, NULL);
    ck_assert_uint_eq(rig.answers.broken, 1);
    ck_assert_uint_lt(rig.answers.broken_seq, rig.answers.seq);
    op_ok(&rig, PGSHARE_OP_HARVEST, 1, 0, 1, 0, NULL);
    ck_assert_uint_eq(rig.answers.broken, 2);
    /* Linux has copied for the last mapping too; the frame is still there. */
    op_ok(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &id);
    ck_assert_int_eq(rig.answers.reserve, flavour == PGSHARE_MOCK_LINUX);
    tear_down(&rig);
}
END_TEST

START_TEST(test_broken_pages_refuse)
{
    const uint32_t flavour = (uint32_t)_i;
    struct rig rig;
    uint64_t id;

    set_up(&rig, flavour);
    id = share(&rig);
    write_text(&rig, 1, 2, "else", 0);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_UNSHARE, 1, 2, 1, PGSHARE_OP_COPY,
                        &id),
                     0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(rig.answers.reserve, 0);
    tear_down(&rig);
}
END_TEST

START_TEST(test_void_protection)
{
    const uint32_t flavour = (uint32_t)_i;
    struct rig rig;
    uint64_t id;

    set_up(&rig, flavour);
    id = share(&rig);
    write_text(&rig, 0, 7, "same", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    write_text(&rig, 0, 7, "changed", 0);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_COMPARE, 0, 7, 1, 0, &id), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    ck_assert_int_eq(op(&rig, PGSHARE_OP_MAP, 0, 7, 1, 0, &id), 0);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    op_ok(&rig, PGSHARE_OP_HARVEST, 0, 0, 1, 0, NULL);
    /* Xen lets the handle get stale and says nothing. */
    ck_assert_uint_eq(rig.answers.broken, flavour != PGSHARE_MOCK_XEN);
    tear_down(&rig);
}
END_TEST

START_TEST(test_xen_handles)
{
    struct pgshare_op operation;
    struct rig rig;
    uint64_t first;
    uint64_t second;

    set_up(&rig, PGSHARE_MOCK_XEN);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    first = rig.answers.ids[0];
    ck_assert_uint_ne(first, 0);
    write_text(&rig, 0, 7, "changed", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    second = rig.answers.ids[0];
    ck_assert_uint_ne(first, second);
    operation = (struct pgshare_op){ .token = 99,
                                     .kind = PGSHARE_OP_PUBLISH,
                                     .domain = rig.cookies[0],
                                     .gfn = 7,
                                     .count = 1,
                                     .own_ids = &first };
    rig.backend->ops->submit(rig.backend, &operation, 1);
    ck_assert_int_eq(rig.answers.status[0], PGSHARE_ERR_CLIENT_TICKET);
    operation.own_ids = &second;
    rig.backend->ops->submit(rig.backend, &operation, 1);
    ck_assert_int_eq(rig.answers.status[0], 0);
    ck_assert_uint_eq(rig.answers.ids[0], second);
    tear_down(&rig);
}
END_TEST

START_TEST(test_xen_moves_frame)
{
    struct rig rig;
    uint64_t from;
    uint64_t to;

    set_up(&rig, PGSHARE_MOCK_XEN);
    from = share(&rig);
    write_text(&rig, 0, 7, "same", 0);
    op_ok(&rig, PGSHARE_OP_PROTECT, 0, 7, 1, 0, NULL);
    op_ok(&rig, PGSHARE_OP_PUBLISH, 0, 7, 1, 0, NULL);
    to = rig.answers.ids[0];
    op_ok(&rig, PGSHARE_OP_MAP, 1, 2, 1, 0, &to);
    op_ok(&rig, PGSHARE_OP_RELEASE, -1, 0, 1, 0, &from);
    ck_assert_int_eq(rig.answers.reserve, 1);
    tear_down_any(&rig);
}
END_TEST

START_TEST(test_demand)
{
    struct pgshare_mock_options options = {
        .flavour = PGSHARE_MOCK_LINUX,
        .flags = PGSHARE_MOCK_DETERMINISTIC,
        .frames = 128,
    };
    struct pgshare_op answer = { .token = 7, .kind = PGSHARE_OP_ANSWER };
    struct rig rig;

    set_up_options(&rig, &options, 0); /* both domains take all there is */
    {
        const uint64_t zero = PGSHARE_ID_ZERO;

        op_ok(&rig, PGSHARE_OP_MERGE, 0, 0, 1, 0, &zero);
        ck_assert_int_eq(rig.answers.reserve, 1);
    }
    write_text(&rig, 0, 0, "more", PGSHARE_ERR_INPROGRESS);
    ck_assert_uint_ne(rig.answers.cookie, 0);
    reserve(&rig, -1);
    ck_assert_int_eq(rig.answers.reserve, -1);
    answer.arg = rig.answers.cookie;
    rig.backend->ops->submit(rig.backend, &answer, 1);
    pgshare_mock_poll(rig.machine);
    assert_text(&rig, 0, 0, "more");
    tear_down(&rig);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("mock");
    TCase *share_case = pgs_tcase(suite, "share");
    TCase *platform = pgs_tcase(suite, "platform");

    tcase_add_test(share_case, test_steps);
    tcase_add_test(share_case, test_extent);
    tcase_add_test(share_case, test_zero_frame);
    tcase_add_test(share_case, test_library_resolves);
    tcase_add_test(share_case, test_read_only);
    tcase_add_loop_test(platform, test_platform_resolves,
                        PGSHARE_MOCK_PLAIN_PLATFORM, PGSHARE_MOCK_XEN + 1);
    tcase_add_loop_test(platform, test_broken_pages_refuse,
                        PGSHARE_MOCK_PLAIN_PLATFORM, PGSHARE_MOCK_XEN + 1);
    tcase_add_loop_test(platform, test_void_protection,
                        PGSHARE_MOCK_PLAIN_PLATFORM, PGSHARE_MOCK_XEN + 1);
    tcase_add_test(platform, test_xen_handles);
    tcase_add_test(platform, test_xen_moves_frame);
    tcase_add_test(platform, test_demand);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("mock", make, argc, argv);
}
