/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM that calls fork(): the child has the library's objects and descriptors,
 * but not the guests. Whatever it does with them, the parent's guests do not
 * notice.
 */
#include "kvm/vmm.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* What fails first, 0: nothing. */
static int refused(struct vmm *vmm, void *elsewhere)
{
    struct pgshare_kvm_guest *guest = vmm->guest[0], *another;
    struct pgshare_kvm_info info = { .size = sizeof(info) };
    const int results[] = {
        pgshare_kvm_info(vmm->kvm, &info),
        pgshare_kvm_guest_new(vmm->kvm, 1, NULL, &another),
        pgshare_kvm_slot_remove(guest, 0),
        pgshare_kvm_slot_add(guest, 0, 1, elsewhere, 0, NULL),
        pgshare_kvm_ram_add(guest, 0, 1),
        pgshare_kvm_ram_remove(guest, 0, 1),
        pgshare_kvm_discard(guest, 0, 1, NULL),
        pgshare_kvm_leave(guest),
        pgshare_kvm_join(guest, vmm->host, vmm->group),
    };

    for (int i = 0; i < (int)(sizeof(results) / sizeof(results[0])); i++)
        if (results[i] != PGSHARE_ERR_FORKED)
            return i + 1;
    return 0;
}

/* Ends with 0 if all is as it should be. */
static _Noreturn void be_child(struct vmm *vmm, bool free_all)
{
    void *elsewhere = aligned_alloc(PAGE, PAGE);
    int r = refused(vmm, elsewhere);

    free(elsewhere);
    if (free_all) {
        pgshare_host_free(vmm->host);
        pgshare_kvm_guest_free(vmm->guest[1]);
        pgshare_kvm_free(vmm->kvm);
    }
    _exit(r);
}

static void have_child(struct vmm *vmm, bool free_all)
{
    pid_t pid = fork();
    int status = -1;

    if (!pid)
        be_child(vmm, free_all);
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status),
                  "the child ends with %x", (unsigned)status);
}

START_TEST(a_child_of_the_vmm_harms_nobody)
{
    struct vmm vmm;

    vmm_open(&vmm, _i, NULL);
    vmm_pass(&vmm);
    ck_assert(vmm_is_shared(&vmm, 0, 3));
    for (unsigned round = 0; round < 4; round++) {
        unsigned char *at = vmm.memory[round % 2] + round * PAGE;

        have_child(&vmm, round / 2);
        at[7] ^= 0xff; /* is still found out */
        for (unsigned i = 0; i < 100 && vmm_is_shared(&vmm, round % 2, round);
             i++) {
            usleep(10000);
            pgshare_host_settle(vmm.host, SECOND);
        }
        ck_assert(!vmm_is_shared(&vmm, round % 2, round));
        at[7] ^= 0xff;
        for (unsigned i = 0; i < 100 && !vmm_is_shared(&vmm, round % 2, round);
             i++) {
            usleep(10000);
            vmm_pass(&vmm);
        }
        for (unsigned gfn = 0; gfn < GFNS; gfn++)
            for (unsigned g = 0; g < VMM_GUESTS; g++) {
                ck_assert(vmm_is_shared(&vmm, g, gfn));
                ck_assert_uint_eq(vmm.memory[g][gfn * PAGE + 7], gfn + 1);
            }
    }
    vmm_close(&vmm);
}
END_TEST

static const struct contract_test tests[] = {
    { &a_child_of_the_vmm_harms_nobody, CAN_FINGERPRINT | CAN_PIN },
};

static Suite *make(void)
{
    return contract_suite("kvm-child", tests, sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-child", make, argc, argv);
}
