/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Public structs keep the layout of the release that brought them.
 *
 * SIZED structs begin with their size and may grow at the end: what is pinned
 * is where the last member of the first release ends.  PLAIN structs are
 * passed in arrays or shared with a guest and never change: their size is
 * pinned.  check-layout.py sees to it that no struct is left out.
 */
#include <pgshare/guest_ring.h>
#include <pgshare/kvm.h>
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>
#include <pgshare/sys/allocator.h>
#include <pgshare/sys/backend.h>
#include <pgshare/sys/decorator.h>
#include <pgshare/sys/platform.h>

#include <stddef.h>
#include <stdio.h>

#define END_OF(type, member) \
    (offsetof(type, member) + sizeof(((type *)NULL)->member))

#define SIZED(name, last, end) \
    check(#name, offsetof(struct name, size), END_OF(struct name, last), end)

#define PLAIN(name, bytes) check(#name, 0, sizeof(struct name), bytes)

static int wrong;

static void check(const char *name, size_t size_at, size_t is, size_t should)
{
    if (size_at == 0 && is == should)
        return;
    printf("struct %s ends at %zu, not at %zu; its size is at %zu\n", name, is,
           should, size_at);
    wrong++;
}

/* As of a 64-bit machine with 8-byte alignment. */
static void check_all(void)
{
    SIZED(pgshare_account, secures, 72);
    SIZED(pgshare_allocator, free, 32);
    SIZED(pgshare_audit, frames, 40);
    SIZED(pgshare_audit_options, ctx, 32);
    PLAIN(pgshare_backend, 8);
    SIZED(pgshare_backend_info, sharers_max, 56);
    SIZED(pgshare_backend_ops, poll_fds, 88);
    SIZED(pgshare_budget, pages, 24);
    SIZED(pgshare_call, done, 48);
    PLAIN(pgshare_completion, 56);
    SIZED(pgshare_delay_options, kinds, 48);
    SIZED(pgshare_domain_attach, reserved, 24);
    SIZED(pgshare_domain_info, group, 40);
    SIZED(pgshare_domain_options, attach, 48);
    SIZED(pgshare_domain_stats, broken, 360);
    SIZED(pgshare_fault, payer, 16);
    SIZED(pgshare_fault_plan, count, 40);
    SIZED(pgshare_finding, found, 56);
    SIZED(pgshare_fork_info, skipped, 32);
    SIZED(pgshare_fork_options, reserved, 16);
    SIZED(pgshare_frame_info, group, 48);
    SIZED(pgshare_gfn_info, sharers, 40);
    PLAIN(pgshare_guest_ring, 3328);
    PLAIN(pgshare_guest_ring_answer, 16);
    PLAIN(pgshare_guest_ring_request, 16);
    SIZED(pgshare_host_options, reserved, 112);
    SIZED(pgshare_host_stats, hint_to_share, 840);
    SIZED(pgshare_kvm_exit, gfn, 24);
    SIZED(pgshare_kvm_guest_options, generation, 24);
    SIZED(pgshare_kvm_info, faults, 96);
    SIZED(pgshare_kvm_options, reserved, 16);
    SIZED(pgshare_kvm_probe, text, 40);
    PLAIN(pgshare_mock_chaos, 32);
    SIZED(pgshare_mock_disk_options, image, 64);
    PLAIN(pgshare_mock_dma, 280);
    SIZED(pgshare_mock_domain_options, ctx, 40);
    PLAIN(pgshare_mock_hold, 40);
    SIZED(pgshare_mock_info, violations, 192);
    SIZED(pgshare_mock_kernel_info, reclaimed, 88);
    SIZED(pgshare_mock_kernel_options, ring, 40);
    SIZED(pgshare_mock_options, ctx, 160);
    SIZED(pgshare_mock_page, bytes, 64);
    SIZED(pgshare_never_share, marked, 32);
    PLAIN(pgshare_op, 80);
    SIZED(pgshare_outcome, tickets, 80);
    SIZED(pgshare_platform, wake, 56);
    SIZED(pgshare_poll, deadline_ns, 32);
    SIZED(pgshare_progress, reserved, 64);
    SIZED(pgshare_report, count, 40);
    SIZED(pgshare_scan_info, yield, 64);
    SIZED(pgshare_scan_options, cpu_ns, 48);
    SIZED(pgshare_share_request, client_tickets, 72);
    SIZED(pgshare_sink, gone, 56);
    SIZED(pgshare_unshare_progress, missing, 32);
}

int main(void)
{
    if (sizeof(void *) != 8)
        return 77;
    check_all();
    return wrong != 0;
}
