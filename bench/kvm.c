/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two guests without processors: the memory of a VMM, which the bench's own
 * threads write to as virtual CPUs would. Faults, protections and mappings are
 * the process's, whoever runs in it.
 */
#include "kvm.h"

#include "measure.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define GROUP_NAME "bench"

/* ---- layouts ----------------------------------------------------------- */

/* Of all equal pages, so many percent lie in extents of that many pages (two
 * Debian guests; single pages and long runs make up most of it). */
static const struct {
    uint32_t percent;
    uint32_t least, most;
} real_extents[] = {
    { 8, 1, 1 },
    { 10, 2, 15 },
    { 17, 16, 63 },
    { 14, 64, 255 },
    { 51, 256, 2048 },
};
#define N_REAL (sizeof(real_extents) / sizeof(real_extents[0]))

static uint32_t *numbers_new(uint32_t n)
{
    uint32_t *numbers = malloc(n * sizeof(*numbers));

    if (!numbers)
        pgs_bench_die("no memory");
    return numbers;
}

/* Blocks of `size` pages, those of the second guest in random order. */
static void lay_blocks(struct pgs_layout *layout, uint32_t size, uint64_t *seed)
{
    uint32_t blocks = layout->pages / size;
    uint32_t *order = pgs_bench_order_new(seed, blocks);

    for (uint32_t i = 0; i < layout->pages; i++) {
        layout->content[0][i] = i;
        layout->content[1][i] = order[i / size] * size + i % size;
    }
    layout->equal = layout->pages;
    free(order);
}

/* Lengths of extents, each taking a page more than its length, until the pages
 * are used up. Answers how many. */
static uint32_t choose_lengths(const struct pgs_layout *layout,
                               uint32_t *lengths, uint64_t *seed)
{
    uint32_t left[N_REAL], used = 0, n = 0;

    for (unsigned k = 0; k < N_REAL; k++)
        left[k] = (uint32_t)((uint64_t)layout->pages * 9 / 10 *
                             real_extents[k].percent / 100);
    for (unsigned k = 0; k < N_REAL;) {
        uint32_t spread = real_extents[k].most - real_extents[k].least + 1;
        uint32_t length = real_extents[k].least +
                          (uint32_t)pgs_bench_below(seed, spread);

        if (!left[k] || used + 1 >= layout->pages) {
            k++;
            continue;
        }
        if (length > left[k])
            length = left[k];
        if (length > layout->pages - used - 1)
            length = layout->pages - used - 1;
        left[k] -= length;
        used += length + 1;
        lengths[n++] = length;
    }
    return n;
}

/* Lays the extents out one after the other; numbers of equal pages begin at 0,
 * others at `other`. */
static void lay_extents(struct pgs_layout *layout, unsigned vm,
                        const uint32_t *lengths, const uint32_t *first,
                        const uint32_t *order, uint32_t n, uint32_t other)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = order[i];

        for (uint32_t p = 0; p < lengths[k]; p++)
            layout->content[vm][at++] = first[k] + p;
        layout->content[vm][at++] = other++;
    }
    while (at < layout->pages)
        layout->content[vm][at++] = other++;
}

static void lay_real(struct pgs_layout *layout, uint64_t *seed)
{
    uint32_t *lengths = numbers_new(layout->pages);
    uint32_t *first = numbers_new(layout->pages);
    uint32_t n = choose_lengths(layout, lengths, seed);

    for (uint32_t k = 0; k < n; k++) {
        first[k] = layout->equal;
        layout->equal += lengths[k];
    }
    for (unsigned vm = 0; vm < PGS_VMS; vm++) {
        uint32_t *order = pgs_bench_order_new(seed, n);

        lay_extents(layout, vm, lengths, first, order, n,
                    (vm + 1) * layout->pages);
        free(order);
    }
    free(lengths);
    free(first);
}

void pgs_layout_init(struct pgs_layout *layout, enum pgs_order order,
                     uint32_t pages, uint64_t seed)
{
    *layout = (struct pgs_layout){ .pages = pages };
    for (unsigned vm = 0; vm < PGS_VMS; vm++)
        layout->content[vm] = numbers_new(pages);
    switch (order) {
    case PGS_ORDER_SAME:
        lay_blocks(layout, pages, &seed);
        break;
    case PGS_ORDER_EIGHTS:
        lay_blocks(layout, 8, &seed);
        break;
    case PGS_ORDER_SINGLE:
        lay_blocks(layout, 1, &seed);
        break;
    case PGS_ORDER_REAL:
        lay_real(layout, &seed);
        break;
    }
}

void pgs_layout_fini(struct pgs_layout *layout)
{
    for (unsigned vm = 0; vm < PGS_VMS; vm++)
        free(layout->content[vm]);
}

/* ---- guests ------------------------------------------------------------ */

const char *pgs_vms_missing(void)
{
    struct pgshare_kvm_probe probe = { .size = sizeof(probe) };

    for (uint32_t i = 0; i < PGSHARE_KVM_FEATURES; i++) {
        pgs_bench_check(pgshare_kvm_probe(i, &probe), "pgshare_kvm_probe");
        if (probe.verdict == PGSHARE_KVM_REFUSED)
            return probe.text;
    }
    return NULL;
}

uint64_t pgs_vms_cpu(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t bytes_of(const struct pgs_vms *vms)
{
    return (size_t)vms->layout->pages * PGSHARE_PAGE_SIZE;
}

void pgs_vms_open(struct pgs_vms *vms, const struct pgs_layout *layout,
                  bool give)
{
    struct pgshare_host_options options = {
        .size = sizeof(options),
        .reserve_keep = give ? 1 : 0,
    };

    *vms = (struct pgs_vms){ .layout = layout };
    for (unsigned i = 0; i < PGS_VMS; i++) {
        unsigned char *memory = mmap(NULL, bytes_of(vms),
                                     PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED)
            pgs_bench_die("mmap");
        madvise(memory, bytes_of(vms), MADV_NOHUGEPAGE);
        for (uint32_t gfn = 0; gfn < layout->pages; gfn++)
            pgs_content_fill(NULL, 0, layout->content[i][gfn],
                             memory + (size_t)gfn * PGSHARE_PAGE_SIZE);
        vms->vm[i].memory = memory;
    }
    pgs_bench_check(pgshare_kvm_new(NULL, &vms->kvm), "pgshare_kvm_new");
    pgs_bench_check(pgshare_host_new(pgshare_kvm_backend(vms->kvm), &options,
                                     &vms->host),
                    "pgshare_host_new");
    pgs_bench_check(pgshare_group_open(vms->host, GROUP_NAME, &vms->group),
                    "pgshare_group_open");
}

void pgs_vms_register(struct pgs_vms *vms, uint32_t flags)
{
    struct pgshare_kvm_guest_options options = { .size = sizeof(options),
                                                 .flags = flags };

    for (unsigned i = 0; i < PGS_VMS; i++) {
        struct pgs_vm *vm = &vms->vm[i];

        pgs_bench_check(pgshare_kvm_guest_new(vms->kvm, vms->layout->pages,
                                              &options, &vm->guest),
                        "pgshare_kvm_guest_new");
        pgs_bench_check(pgshare_kvm_slot_add(vm->guest, 0, vms->layout->pages,
                                             vm->memory, 0, NULL),
                        "pgshare_kvm_slot_add");
        pgs_bench_check(pgshare_kvm_join(vm->guest, vms->host, vms->group),
                        "pgshare_kvm_join");
    }
}

uint64_t pgs_vms_merge(struct pgs_vms *vms, uint64_t enough)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    struct pgshare_progress progress = { .size = sizeof(progress) };

    pgs_bench_check(pgshare_host_pass(vms->host, 0), "pgshare_host_pass");
    do {
        pgs_bench_check(pgshare_host_run(vms->host, NULL, &progress),
                        "pgshare_host_run");
        pgs_bench_check(pgshare_host_stats(vms->host, &stats),
                        "pgshare_host_stats");
    } while (stats.saved < enough && progress.more);
    return stats.saved;
}

void pgs_vms_check(const struct pgs_vms *vms)
{
    unsigned char page[PGSHARE_PAGE_SIZE];

    for (unsigned i = 0; i < PGS_VMS; i++) {
        for (uint32_t gfn = 0; gfn < vms->layout->pages; gfn++) {
            pgs_content_fill(NULL, 0, vms->layout->content[i][gfn], page);
            if (memcmp(page,
                       vms->vm[i].memory + (size_t)gfn * PGSHARE_PAGE_SIZE,
                       PGSHARE_PAGE_SIZE))
                pgs_bench_die("guest %u has lost page %u", i, gfn);
        }
    }
}

void pgs_vms_close(struct pgs_vms *vms)
{
    for (unsigned i = 0; i < PGS_VMS; i++)
        if (vms->vm[i].guest)
            pgs_bench_check(pgshare_kvm_leave(vms->vm[i].guest),
                            "pgshare_kvm_leave");
    vms->host = pgshare_host_free(vms->host);
    for (unsigned i = 0; i < PGS_VMS; i++) {
        pgshare_kvm_guest_free(vms->vm[i].guest);
        munmap(vms->vm[i].memory, bytes_of(vms));
    }
    vms->kvm = pgshare_kvm_free(vms->kvm);
}
