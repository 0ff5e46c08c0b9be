/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that are written, and come to be what they were: they map the frame that
 * they left, in the mapping where they are.
 */
#include "contract/rig.h"

#include <stdio.h>

#define SHARED 8u /* pages 0 … 7 of all three guests */

/* The rule by which pages are filled, one by one. */
static void fill(struct rig *rig, unsigned g, uint64_t gfn)
{
    rig_fill(rig, g, gfn, 1, 100 + gfn);
}

/* The guests 1 and 2 keep the frames while guest 0 does something else. */
static void open_shared(struct rig *rig, int machine)
{
    rig_open(rig, machine);
    for (unsigned g = 0; g < 3; g++) {
        rig_guest(rig);
        for (unsigned gfn = 0; gfn < SHARED; gfn++)
            fill(rig, g, gfn);
    }
    rig_must_share(rig, 1, 0, 2, 0, SHARED);
    rig_must_share(rig, 1, 0, 0, 0, SHARED);
}

static unsigned count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned n = 0;

    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof(line), maps))
        n += strstr(line, "memfd:pgshare") != NULL;
    fclose(maps);
    return n;
}

/* A write, and another one by which all is as it was. */
static void leave_and_return(struct rig *rig, uint64_t gfn)
{
    ck_assert_int_eq(rig_write(rig, 0, gfn), 0);
    rig_settle(rig);
    ck_assert(rig_is(rig, 0, gfn, PGSHARE_GFN_PRIVATE));
    fill(rig, 0, gfn);
}

START_TEST(a_page_that_is_as_before_maps_its_frame_without_another_mapping)
{
    struct rig rig;
    unsigned before;

    open_shared(&rig, _i);
    before = count_mappings();
    for (unsigned gfn = 0; gfn < SHARED; gfn += 2)
        leave_and_return(&rig, gfn);
    for (unsigned round = 0; round < 2; round++) {
        rig_must_share(&rig, 1, 0, 0, 0, SHARED);
        ck_assert_uint_eq(count_mappings(), before);
        for (unsigned gfn = 0; gfn < SHARED; gfn++)
            ck_assert(rig_together(&rig, 0, gfn, 2, gfn));
        rig_check(&rig);
        leave_and_return(&rig, 3);
    }
    rig_must_share(&rig, 1, 3, 0, 3, 1);
    for (unsigned gfn = 0; gfn < SHARED; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_page_that_is_not_as_before_is_not_dropped)
{
    struct rig rig;

    open_shared(&rig, _i);
    leave_and_return(&rig, 5);
    ck_assert_int_eq(rig_write(&rig, 0, 5), 0);
    ck_assert_int_eq(rig_share(&rig, 1, 5, 0, 5, 1), PGSHARE_ERR_DIFFERENT);
    rig_check(&rig);
    fill(&rig, 0, 5); /* and then it is */
    rig_must_share(&rig, 1, 5, 0, 5, 1);
    rig_close(&rig);
}
END_TEST

START_TEST(a_page_that_is_pinned_is_not_dropped)
{
    struct rig rig;
    void *pin;

    open_shared(&rig, _i);
    leave_and_return(&rig, 5);
    if (rig.ops->pin(rig.guests[0].impl, 5, &pin)) {
        rig_close(&rig);
        pgs_skip("memory cannot be pinned here (io_uring)");
    }
    ck_assert_int_eq(rig_share(&rig, 1, 5, 0, 5, 1), PGSHARE_ERR_BUSY);
    rig_check(&rig);
    rig.ops->unpin(pin);
    rig_must_share(&rig, 1, 5, 0, 5, 1);
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &a_page_that_is_as_before_maps_its_frame_without_another_mapping,
      CAN_SHARE },
    { &a_page_that_is_not_as_before_is_not_dropped, CAN_SHARE },
    { &a_page_that_is_pinned_is_not_dropped, CAN_SHARE | CAN_PIN },
};

static Suite *make(void)
{
    return contract_suite("kvm-return", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-return", make, argc, argv);
}
