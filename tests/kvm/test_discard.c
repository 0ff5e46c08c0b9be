/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages whose content the guest does not want any more, though it keeps the
 * memory (free page reporting).
 */
#include "kvm/vmm.h"

#include <unistd.h>

#define SHARED 8u /* pages 0 … 7 of both guests are shared */

static unsigned char fill(unsigned g, unsigned gfn)
{
    return (unsigned char)(gfn + 1 + (gfn < SHARED ? 0 : 100 * g));
}

static void open_shared(struct vmm *vmm, int machine)
{
    const struct vmm_options options = { .fill = fill };

    vmm_open(vmm, machine, &options);
    vmm_pass(vmm);
}

static uint32_t state_of(struct vmm *vmm, unsigned g, uint64_t gfn)
{
    return vmm_info(vmm, g, gfn).state;
}

static void must_be_zero(struct vmm *vmm, uint64_t gfn, uint64_t count)
{
    for (uint64_t i = gfn; i < gfn + count; i++) {
        for (unsigned k = 0; k < PAGE; k += 512)
            ck_assert_uint_eq(vmm->memory[0][i * PAGE + k], 0);
        ck_assert_uint_eq(state_of(vmm, 0, i), PGSHARE_GFN_PRIVATE);
    }
}

START_TEST(pages_that_were_dropped_read_as_zeroes_and_are_memory)
{
    struct vmm vmm;
    uint64_t done;

    open_shared(&vmm, _i);
    ck_assert_uint_eq(state_of(&vmm, 0, 3), PGSHARE_GFN_SHARED);
    ck_assert_int_eq(pgshare_kvm_discard(vmm.guest[0], 4, 20, &done), 0);
    ck_assert_uint_eq(done, 20);
    must_be_zero(&vmm, 4, 20);
    ck_assert_uint_eq(state_of(&vmm, 0, 3), PGSHARE_GFN_SHARED);
    ck_assert_uint_eq(vmm.memory[0][3 * PAGE], 4);
    ck_assert_uint_eq(vmm.memory[1][4 * PAGE], 5);
    ck_assert_uint_eq(vmm.memory[0][24 * PAGE], 25);
    memset(vmm.memory[0] + 4 * PAGE, 5, PAGE); /* and can be shared again, */
    for (unsigned i = 0; i < 100 && state_of(&vmm, 0, 4) != PGSHARE_GFN_SHARED;
         i++) {
        usleep(10000); /* after the next harvest */
        vmm_pass(&vmm);
    }
    ck_assert_uint_eq(state_of(&vmm, 0, 4), PGSHARE_GFN_SHARED);
    vmm_close(&vmm);
}
END_TEST

START_TEST(a_page_that_is_held_keeps_its_content_and_holes_stay_holes)
{
    struct vmm vmm;
    uint64_t dom, done;

    open_shared(&vmm, _i);
    dom = vmm_dom(&vmm, 0);
    ck_assert_int_eq(pgshare_gfn_get(vmm.host, dom, 10, 1, PGSHARE_GET_WRITE,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_kvm_ram_remove(vmm.guest[0], 12, 2), 0);
    ck_assert_int_eq(pgshare_kvm_discard(vmm.guest[0], 8, 8, &done), 0);
    ck_assert_uint_eq(done, 5);
    must_be_zero(&vmm, 8, 2);
    ck_assert_uint_eq(vmm.memory[0][10 * PAGE], 11);
    must_be_zero(&vmm, 11, 1);
    ck_assert_uint_eq(state_of(&vmm, 0, 12), PGSHARE_GFN_HOLE);
    ck_assert_uint_eq(state_of(&vmm, 0, 13), PGSHARE_GFN_HOLE);
    must_be_zero(&vmm, 14, 2);
    ck_assert_int_eq(pgshare_gfn_put(vmm.host, dom, 10, 1, PGSHARE_GET_WRITE),
                     0);
    vmm_close(&vmm);
}
END_TEST

START_TEST(a_guest_without_a_host_drops_pages_too)
{
    struct vmm vmm;
    uint64_t done;

    open_shared(&vmm, _i);
    ck_assert_int_eq(pgshare_kvm_leave(vmm.guest[0]), 0);
    ck_assert_int_eq(pgshare_kvm_discard(vmm.guest[0], 0, GFNS, &done), 0);
    ck_assert_uint_eq(done, GFNS);
    for (unsigned gfn = 0; gfn < GFNS; gfn++)
        ck_assert_uint_eq(vmm.memory[0][gfn * PAGE], 0);
    ck_assert_uint_eq(vmm.memory[1][0], 1);
    ck_assert_int_eq(pgshare_kvm_discard(vmm.guest[0], 1, GFNS, NULL),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_kvm_discard(NULL, 0, 1, NULL),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_kvm_join(vmm.guest[0], vmm.host, 0), 0);
    vmm_close(&vmm);
}
END_TEST

static const struct contract_test tests[] = {
    { &pages_that_were_dropped_read_as_zeroes_and_are_memory,
      CAN_FINGERPRINT | CAN_PIN },
    { &a_page_that_is_held_keeps_its_content_and_holes_stay_holes,
      CAN_FINGERPRINT | CAN_PIN },
    { &a_guest_without_a_host_drops_pages_too, CAN_FINGERPRINT | CAN_PIN },
};

static Suite *make(void)
{
    return contract_suite("kvm-discard", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-discard", make, argc, argv);
}
