/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Read-only memory: slots that nobody is to write to, ranges that are declared
 * so, and what a VMM does with a vCPU that tried.
 */
#include "kvm/vmm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROM 16u /* pages 0 … 15 are firmware, 16 … are memory */
#define EXIT_MEMORY_FAULT 39u
#define MEMORY_FAULT_PRIVATE 8u

/* ---- guests that have the same firmware --------------------------------- */

struct rom {
    struct vmm vmm; /* first */
    unsigned reports;
    struct pgshare_report report;
};

static void hear(void *ctx, const struct pgshare_report *report)
{
    struct rom *rom = ctx;

    if (report->kind != PGSHARE_REPORT_READONLY_WRITE)
        return;
    rom->report = *report;
    rom->reports++;
}

static void add_rom(struct vmm *vmm, unsigned g)
{
    ck_assert_int_eq(pgshare_kvm_slot_add(vmm->guest[g], 0, ROM, vmm->memory[g],
                                          PGSHARE_KVM_SLOT_READONLY, NULL),
                     0);
}

static void add_slots(struct vmm *vmm, unsigned g)
{
    add_rom(vmm, g);
    ck_assert_int_eq(pgshare_kvm_slot_add(vmm->guest[g], ROM, GFNS - ROM,
                                          vmm->memory[g] + ROM * PAGE, 0, NULL),
                     0);
}

/* Once a guest has joined, the VMM says what is read-only. */
static void declare_rom(struct vmm *vmm, unsigned g, int on)
{
    ck_assert_int_eq(pgshare_declare_read_only(vmm->host, vmm_dom(vmm, g), 0,
                                               ROM, on),
                     0);
}

static void open_rom(struct rom *rom, int machine)
{
    const struct vmm_options options = {
        .host = { .report = hear, .ctx = rom },
        .slots = add_slots,
    };

    *rom = (struct rom){ .reports = 0 };
    vmm_open(&rom->vmm, machine, &options);
    for (unsigned g = 0; g < VMM_GUESTS; g++)
        declare_rom(&rom->vmm, g, 1);
}

static void close_rom(struct rom *rom)
{
    for (unsigned g = 0; g < VMM_GUESTS; g++)
        for (unsigned gfn = 0; gfn < GFNS; gfn++)
            ck_assert_uint_eq(rom->vmm.memory[g][gfn * PAGE + 9], gfn + 1);
    vmm_close(&rom->vmm);
}

static bool is_read_only(const struct vmm *vmm, unsigned g, uint64_t gfn)
{
    return vmm_info(vmm, g, gfn).flags & PGSHARE_GFN_READ_ONLY;
}

static void share_all(struct vmm *vmm)
{
    vmm_pass(vmm);
    for (unsigned gfn = 0; gfn < GFNS; gfn++)
        ck_assert(vmm_is_shared(vmm, 0, gfn) && vmm_is_shared(vmm, 1, gfn));
}

/* What the library says of an exit at that page. */
static uint32_t say(struct vmm *vmm, uint32_t reason, uint64_t gfn, bool write)
{
    struct pgshare_kvm_exit answer = { .size = sizeof(answer) };
    struct kvm_run run = { .exit_reason = reason };
    uint64_t fault[3] = { write ? 0 : MEMORY_FAULT_PRIVATE, gfn * PAGE, PAGE };

    if (reason == EXIT_MEMORY_FAULT) {
        memcpy(&run.mmio, fault, sizeof(fault));
    } else {
        run.mmio.phys_addr = gfn * PAGE + 8;
        run.mmio.len = 4;
        run.mmio.is_write = write;
    }
    ck_assert_int_eq(pgshare_kvm_exit(vmm->guest[0], &run, &answer), 0);
    if (answer.verdict != PGSHARE_KVM_EXIT_OTHER)
        ck_assert_uint_eq(answer.gfn, gfn);
    return answer.verdict;
}

START_TEST(a_slot_for_reading_is_shared_and_stays_for_reading)
{
    struct rom rom;
    struct vmm *vmm = &rom.vmm;

    open_rom(&rom, _i);
    share_all(vmm);
    for (unsigned g = 0; g < 2; g++)
        for (unsigned gfn = 0; gfn < GFNS; gfn++)
            ck_assert_int_eq(!(is_read_only(vmm, g, gfn)),
                             gfn >= ROM);
    close_rom(&rom);
}
END_TEST

START_TEST(an_exit_of_a_write_to_it_is_reported)
{
    struct rom rom;
    struct vmm *vmm = &rom.vmm;

    open_rom(&rom, _i);
    for (unsigned round = 0; round < 2; round++) {
        ck_assert_uint_eq(say(vmm, KVM_EXIT_MMIO, 3, true),
                          PGSHARE_KVM_EXIT_REFUSED);
        ck_assert_uint_eq(say(vmm, EXIT_MEMORY_FAULT, 4, true),
                          PGSHARE_KVM_EXIT_REFUSED);
        pgshare_host_settle(vmm->host, SECOND);
        ck_assert_uint_eq(rom.reports, 2 * round + 2);
        ck_assert_uint_eq(rom.report.dom, vmm_dom(vmm, 0));
        ck_assert_uint_eq(rom.report.gfn, 4);
        share_all(vmm); /* as long as it is private, and then shared */
    }
    close_rom(&rom);
}
END_TEST

START_TEST(an_exit_that_is_about_something_else_is_the_vmms)
{
    struct pgshare_kvm_exit answer = { .size = sizeof(answer) };
    struct kvm_run run = { .exit_reason = KVM_EXIT_DIRTY_RING_FULL };
    struct rom rom;
    struct vmm *vmm = &rom.vmm;

    open_rom(&rom, _i);
    ck_assert_uint_eq(say(vmm, KVM_EXIT_MMIO, 3, false),
                      PGSHARE_KVM_EXIT_OTHER);
    ck_assert_uint_eq(say(vmm, KVM_EXIT_MMIO, ROM, true),
                      PGSHARE_KVM_EXIT_OTHER);
    ck_assert_uint_eq(say(vmm, KVM_EXIT_MMIO, GFNS + 100, true),
                      PGSHARE_KVM_EXIT_OTHER);
    ck_assert_uint_eq(say(vmm, KVM_EXIT_HLT, 3, true), PGSHARE_KVM_EXIT_OTHER);
    ck_assert_int_eq(pgshare_kvm_exit(vmm->guest[0], &run, &answer), 0);
    ck_assert_uint_eq(answer.verdict, PGSHARE_KVM_EXIT_OTHER);
    ck_assert_uint_eq(rom.reports, 0);
    ck_assert_int_eq(pgshare_kvm_exit(NULL, &run, &answer),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_kvm_exit(vmm->guest[0], NULL, &answer),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_kvm_exit(vmm->guest[0], &run, NULL),
                     PGSHARE_ERR_INVALID);
    close_rom(&rom);
}
END_TEST

START_TEST(a_fault_on_memory_that_is_there_is_tried_again)
{
    struct rom rom;
    struct vmm *vmm = &rom.vmm;
    void *at;

    open_rom(&rom, _i);
    share_all(vmm);
    ck_assert_uint_eq(say(vmm, EXIT_MEMORY_FAULT, ROM + 1, true),
                      PGSHARE_KVM_EXIT_AGAIN);
    ck_assert(vmm_is_shared(vmm, 0, ROM + 1));
    ck_assert_uint_eq(say(vmm, EXIT_MEMORY_FAULT, GFNS + 100, true),
                      PGSHARE_KVM_EXIT_OTHER);
    ck_assert_uint_eq(say(vmm, EXIT_MEMORY_FAULT, ROM + 1, false),
                      PGSHARE_KVM_EXIT_OTHER); /* of private memory */
    at = vmm->memory[0] + (ROM + 2) * PAGE;
    munmap(at, PAGE); /* a VMM that breaks its word */
    ck_assert_uint_eq(say(vmm, EXIT_MEMORY_FAULT, ROM + 2, true),
                      PGSHARE_KVM_EXIT_OTHER);
    ck_assert_ptr_eq(mmap(at, PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     at);
    memset(at, ROM + 3, PAGE);
    close_rom(&rom);
}
END_TEST

START_TEST(a_slot_that_was_for_reading_leaves_nothing_behind)
{
    struct pgshare_kvm_guest *guest;
    struct rom rom;
    struct vmm *vmm = &rom.vmm;

    open_rom(&rom, _i);
    guest = vmm->guest[1];
    declare_rom(vmm, 1, 0);
    ck_assert_int_eq(pgshare_kvm_slot_remove(guest, 0), 0);
    ck_assert_int_eq(pgshare_kvm_slot_add(guest, 0, ROM, vmm->memory[1], 0,
                                          NULL),
                     0);
    for (unsigned gfn = 0; gfn < ROM; gfn++) {
        ck_assert(!(is_read_only(vmm, 1, gfn)));
        vmm->memory[1][gfn * PAGE] ^= 0xff;
    }
    ck_assert_int_eq(pgshare_kvm_slot_remove(guest, 0), 0);
    add_rom(vmm, 1);
    declare_rom(vmm, 1, 1);
    ck_assert(is_read_only(vmm, 1, 0));
    close_rom(&rom);
}
END_TEST

/* ---- ranges ------------------------------------------------------------ */

START_TEST(in_kernel_mode_no_other_range_can_be_guarded)
{
    struct rom rom;
    struct vmm *vmm = &rom.vmm;
    uint64_t dom;

    open_rom(&rom, _i);
    dom = vmm_dom(vmm, 0);
    ck_assert_int_eq(pgshare_declare_read_only(vmm->host, dom, ROM, 2, 1),
                     PGSHARE_ERR_NOTSUP);
    ck_assert_int_eq(pgshare_declare_read_only(vmm->host, dom, ROM - 1, 1, 1),
                     0);
    ck_assert(!(is_read_only(vmm, 0, ROM)));
    close_rom(&rom);
}
END_TEST

static void declare(struct rig *rig, uint64_t gfn, uint64_t count, int on)
{
    ck_assert_int_eq(pgshare_declare_read_only(rig->host, rig_dom(rig, 0), gfn,
                                               count, on),
                     0);
}

static void must_refuse(struct rig *rig, uint64_t gfn)
{
    unsigned before = rig->reports[PGSHARE_REPORT_READONLY_WRITE];

    ck_assert_int_eq(rig_write(rig, 0, gfn), PGSHARE_ERR_READONLY);
    ck_assert_uint_eq(rig->reports[PGSHARE_REPORT_READONLY_WRITE], before + 1);
}

START_TEST(a_page_stays_guarded_whatever_becomes_of_it)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 4, 3);
    rig_fill(&rig, 1, 0, 4, 3);
    declare(&rig, 0, 4, 1);
    rig_mark(&rig, 0, 3);
    rig_must_share(&rig, 1, 0, 0, 0, 3);
    ck_assert_int_eq(rig_share(&rig, 1, 9, 0, 3, 1), PGSHARE_ERR_DIFFERENT);
    must_refuse(&rig, 3); /* went away, came back */
    ck_assert_int_eq(pgshare_domain_unshare(rig.host, rig_dom(&rig, 0), 0, 4, 0,
                                            &progress),
                     0);
    must_refuse(&rig, 0); /* made private again */
    rig_must_share(&rig, 1, 0, 0, 0, 1);
    must_refuse(&rig, 0);
    declare(&rig, 0, 4, 0);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert_int_eq(rig_write(&rig, 0, gfn), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(a_page_that_was_never_touched_is_guarded)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    declare(&rig, 20, 2, 1);
    must_refuse(&rig, 20);
    rig_check_content(&rig); /* all pages are read */
    must_refuse(&rig, 20);
    must_refuse(&rig, 21);
    declare(&rig, 20, 2, 0);
    ck_assert_int_eq(rig_write(&rig, 0, 20), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(it_is_guarded_again_when_a_guest_resumes)
{
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    declare(&rig, 5, 1, 1);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, rig_dom(&rig, 0)), 0);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, rig_dom(&rig, 0)), 0);
    must_refuse(&rig, 5);
    ck_assert_int_eq(rig_leave(&rig, 0), 0); /* and by nobody after that */
    ck_assert_int_eq(rig_write(&rig, 0, 5), 0);
    rig_close(&rig);
}
END_TEST

/* ---- virtual machines -------------------------------------------------- */

START_TEST(what_is_no_virtual_machine_is_told_apart)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm;

    ck_assert_int_eq(pgshare_kvm_vm_check(-1), PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_kvm_vm_check(STDIN_FILENO), PGSHARE_ERR_INVALID);
    if (kvm < 0) {
        pgs_skip_because("no virtual machine is looked at: no /dev/kvm");
        return;
    }
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    ck_assert_int_ge(vm, 0);
    ck_assert_int_eq(pgshare_kvm_vm_check(vm), 0);
    ck_assert_int_eq(pgshare_kvm_vm_check(kvm), PGSHARE_ERR_INVALID);
    close(vm);
    close(kvm);
}
END_TEST

static const struct contract_test tests[] = {
    { &a_slot_for_reading_is_shared_and_stays_for_reading,
      CAN_FINGERPRINT | CAN_PIN },
    { &an_exit_of_a_write_to_it_is_reported, CAN_FINGERPRINT | CAN_PIN },
    { &an_exit_that_is_about_something_else_is_the_vmms, CAN_SHARE | CAN_PIN },
    { &a_fault_on_memory_that_is_there_is_tried_again,
      CAN_FINGERPRINT | CAN_PIN },
    { &a_slot_that_was_for_reading_leaves_nothing_behind,
      CAN_SHARE | CAN_PIN },
    { &in_kernel_mode_no_other_range_can_be_guarded, CAN_HARVEST | CAN_PIN },
    { &a_page_stays_guarded_whatever_becomes_of_it, CAN_READ_ONLY },
    { &a_page_that_was_never_touched_is_guarded, CAN_READ_ONLY },
    { &it_is_guarded_again_when_a_guest_resumes, CAN_READ_ONLY },
};

static Suite *make(void)
{
    Suite *suite = contract_suite("kvm-readonly", tests,
                                  sizeof(tests) / sizeof(tests[0]));
    TCase *vms = pgs_tcase(suite, "virtual machines");

    tcase_add_test(vms, what_is_no_virtual_machine_is_told_apart);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-readonly", make, argc, argv);
}
