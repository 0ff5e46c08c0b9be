/* SPDX-License-Identifier: BSD-2-Clause */
/* Structs of other versions. */
#include "base/abi.h"
#include "support/suite.h"

#include <pgshare/error.h>

#include <string.h>

struct ours {
    size_t size;
    uint64_t first;
    uint64_t second;
};

/* What a caller of a later version has. */
struct later {
    size_t size;
    uint64_t first;
    uint64_t second;
    uint64_t third;
};

#define LEAST (2 * sizeof(size_t))

START_TEST(test_null_is_all_zero)
{
    struct ours ours = { 1, 2, 3 };

    ck_assert_int_eq(pgs_abi_in(&ours, sizeof(ours), LEAST, NULL), 0);
    ck_assert_uint_eq(ours.size | ours.first | ours.second, 0);
}
END_TEST

START_TEST(test_a_shorter_struct_is_filled_up)
{
    struct ours theirs = { LEAST, 7, 8 };
    struct ours ours;

    ck_assert_int_eq(pgs_abi_in(&ours, sizeof(ours), LEAST, &theirs), 0);
    ck_assert_uint_eq(ours.first, 7);
    ck_assert_uint_eq(ours.second, 0);
}
END_TEST

START_TEST(test_a_longer_struct_must_end_in_zeroes)
{
    struct later theirs = { sizeof(theirs), 7, 8, 0 };
    struct ours ours = { 0, 0, 0 };

    ck_assert_int_eq(pgs_abi_in(&ours, sizeof(ours), LEAST, &theirs), 0);
    ck_assert_uint_eq(ours.second, 8);
    for (unsigned byte = 0; byte < sizeof(theirs.third); byte++) {
        theirs.third = UINT64_C(1) << 8 * byte;
        ck_assert_int_eq(pgs_abi_in(&ours, sizeof(ours), LEAST, &theirs),
                         PGSHARE_ERR_ABI);
    }
}
END_TEST

START_TEST(test_impossible_sizes_are_refused)
{
    size_t sizes[] = { 0, 1, LEAST - 1, 4097, SIZE_MAX };
    struct ours ours = { 1, 2, 3 };

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct ours theirs = { sizes[i], 0, 0 };

        ck_assert_int_eq(pgs_abi_in(&ours, sizeof(ours), LEAST, &theirs),
                         PGSHARE_ERR_ABI);
        ck_assert_int_eq(pgs_abi_check_out(&theirs, LEAST), PGSHARE_ERR_ABI);
    }
    ck_assert_uint_eq(ours.second, 3);
    ck_assert_int_eq(pgs_abi_check_out(NULL, LEAST), 0);
    ours.size = sizeof(ours);
    ck_assert_int_eq(pgs_abi_check_out(&ours, LEAST), 0);
}
END_TEST

START_TEST(test_out_fits_the_caller)
{
    struct ours ours = { 99, 7, 8 };
    struct later later = { sizeof(later), 1, 2, 3 };
    struct ours sooner = { LEAST, 1, 2 };

    pgs_abi_out(NULL, &ours, sizeof(ours));
    pgs_abi_out(&later, &ours, sizeof(ours));
    ck_assert_uint_eq(later.size, sizeof(later));
    ck_assert_uint_eq(later.first, 7);
    ck_assert_uint_eq(later.second, 8);
    ck_assert_uint_eq(later.third, 0);
    pgs_abi_out(&sooner, &ours, sizeof(ours));
    ck_assert_uint_eq(sooner.size, LEAST);
    ck_assert_uint_eq(sooner.first, 7);
    ck_assert_uint_eq(sooner.second, 2);
}
END_TEST

START_TEST(test_structs_may_be_unaligned)
{
    unsigned char bytes[sizeof(struct ours) + 1];
    struct ours theirs = { sizeof(theirs), 5, 6 };
    struct ours ours;

    memcpy(bytes + 1, &theirs, sizeof(theirs));
    ck_assert_int_eq(pgs_abi_in(&ours, sizeof(ours), LEAST, bytes + 1), 0);
    ck_assert_uint_eq(ours.second, 6);
    ours.second = 9;
    pgs_abi_out(bytes + 1, &ours, sizeof(ours));
    memcpy(&theirs, bytes + 1, sizeof(theirs));
    ck_assert_uint_eq(theirs.second, 9);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("abi");
    TCase *in = pgs_tcase(suite, "in");
    TCase *out = pgs_tcase(suite, "out");

    tcase_add_test(in, test_null_is_all_zero);
    tcase_add_test(in, test_a_shorter_struct_is_filled_up);
    tcase_add_test(in, test_a_longer_struct_must_end_in_zeroes);
    tcase_add_test(in, test_impossible_sizes_are_refused);
    tcase_add_test(out, test_out_fits_the_caller);
    tcase_add_test(out, test_structs_may_be_unaligned);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("abi", make, argc, argv);
}
