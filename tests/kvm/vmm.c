/* SPDX-License-Identifier: BSD-2-Clause */
#include "kvm/vmm.h"

#include <sys/mman.h>

static unsigned char fill_equal(unsigned g, unsigned gfn)
{
    return (unsigned char)(gfn + 1);
}

static void add_slot(struct vmm *vmm, unsigned g)
{
    ck_assert_int_eq(pgshare_kvm_slot_add(vmm->guest[g], 0, GFNS,
                                          vmm->memory[g], 0, NULL),
                     0);
}

static void make_guest(struct vmm *vmm, unsigned g, int machine,
                       const struct vmm_options *options)
{
    struct pgshare_kvm_guest_options ours = {
        .size = sizeof(ours),
        .flags = machines[machine].flavour & PGSHARE_KVM_TRAPPED,
    };

    vmm->memory[g] = mmap(NULL, GFNS * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(vmm->memory[g], MAP_FAILED);
    for (unsigned gfn = 0; gfn < GFNS; gfn++)
        memset(vmm->memory[g] + gfn * PAGE,
               (options->fill ? options->fill : fill_equal)(g, gfn), PAGE);
    ck_assert_int_eq(pgshare_kvm_guest_new(vmm->kvm, GFNS, &ours,
                                           &vmm->guest[g]),
                     0);
}

/* The first guest joins before it has slots, the second one after. */
void vmm_open(struct vmm *vmm, int machine, const struct vmm_options *options)
{
    static const struct vmm_options none;
    struct pgshare_host_options host;

    options = options ? options : &none;
    host = options->host;
    host.size = sizeof(host);
    *vmm = (struct vmm){ .kvm = NULL };
    ck_assert_int_eq(pgshare_kvm_new(NULL, &vmm->kvm), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_kvm_backend(vmm->kvm), &host,
                                      &vmm->host),
                     0);
    ck_assert_int_eq(pgshare_group_open(vmm->host, "vmm", &vmm->group), 0);
    for (unsigned g = 0; g < VMM_GUESTS; g++) {
        make_guest(vmm, g, machine, options);
        if (g)
            (options->slots ? options->slots : add_slot)(vmm, g);
        ck_assert_int_eq(pgshare_kvm_join(vmm->guest[g], vmm->host, vmm->group),
                         0);
        if (!g)
            (options->slots ? options->slots : add_slot)(vmm, g);
    }
}

void vmm_close(struct vmm *vmm)
{
    struct pgshare_audit_options options = { .size = sizeof(options),
                                             .flags = PGSHARE_AUDIT_BACKEND };
    struct pgshare_kvm_info info = { .size = sizeof(info) };
    struct pgshare_audit audit = { .size = sizeof(audit) };

    ck_assert_int_eq(pgshare_host_settle(vmm->host, 10 * SECOND), 0);
    ck_assert_int_eq(pgshare_host_audit(vmm->host, &options, &audit), 0);
    ck_assert_uint_eq(audit.violations, 0);
    for (unsigned g = 0; g < VMM_GUESTS; g++)
        ck_assert_int_eq(pgshare_kvm_leave(vmm->guest[g]), 0);
    pgshare_host_free(vmm->host);
    for (unsigned g = 0; g < VMM_GUESTS; g++) {
        pgshare_kvm_guest_free(vmm->guest[g]);
        munmap(vmm->memory[g], GFNS * PAGE);
    }
    ck_assert_int_eq(pgshare_kvm_info(vmm->kvm, &info), 0);
    ck_assert_uint_eq(info.frames, 0);
    pgshare_kvm_free(vmm->kvm);
}

uint64_t vmm_dom(const struct vmm *vmm, unsigned g)
{
    return pgshare_kvm_handle(vmm->guest[g]);
}

struct pgshare_gfn_info vmm_info(const struct vmm *vmm, unsigned g,
                                 uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_gfn_info(vmm->host, vmm_dom(vmm, g), gfn, &info),
                     0);
    return info;
}

bool vmm_is_shared(const struct vmm *vmm, unsigned g, uint64_t gfn)
{
    return vmm_info(vmm, g, gfn).state == PGSHARE_GFN_SHARED;
}

void vmm_pass(struct vmm *vmm)
{
    ck_assert_int_eq(pgshare_host_pass(vmm->host, 0), 0);
    ck_assert_int_eq(pgshare_host_settle(vmm->host, 10 * SECOND), 0);
}
