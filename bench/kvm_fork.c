/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kvm-fork: freezing a stub of 1 GiB, and children of it, from the call until
 * the child's processor has read a tenth of its memory and written a hundredth;
 * beside the same on a full copy. Pages are read and written in random order,
 * where the kernel's guesses at what comes next are of no use.
 *
 * Children are forked without cover (PGSHARE_FORK_UNSECURED): what secures a
 * child's writes is as much memory as a copy.
 */
#include "kvm.h"

#include "measure.h"

#include <pgshare/sys/backend.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 262144u
#define PAGES_QUICK 4096u
#define ROUNDS 5u

/* ---- a backend that takes the time ------------------------------------- */

struct timer {
    struct pgshare_backend backend; /* first */
    struct pgshare_backend *inner;
    uint64_t map_ns; /* in operations that map */
};

static struct timer *timer_of(struct pgshare_backend *backend)
{
    return (struct timer *)(void *)backend;
}

static int timer_attach(struct pgshare_backend *backend,
                        struct pgshare_host *host,
                        const struct pgshare_sink *sink,
                        struct pgshare_backend_info *ret_info)
{
    struct pgshare_backend *inner = timer_of(backend)->inner;

    return inner->ops->attach(inner, host, sink, ret_info);
}

static void timer_detach(struct pgshare_backend *backend)
{
    struct pgshare_backend *inner = timer_of(backend)->inner;

    inner->ops->detach(inner);
}

static int timer_domain_add(struct pgshare_backend *backend, uint64_t dom,
                            const struct pgshare_domain_options *options,
                            struct pgshare_domain_attach *ret_attach)
{
    struct pgshare_backend *inner = timer_of(backend)->inner;

    return inner->ops->domain_add(inner, dom, options, ret_attach);
}

static void timer_domain_remove(struct pgshare_backend *backend, void *cookie)
{
    struct pgshare_backend *inner = timer_of(backend)->inner;

    inner->ops->domain_remove(inner, cookie);
}

static int timer_submit(struct pgshare_backend *backend,
                        const struct pgshare_op *ops, size_t n)
{
    struct timer *timer = timer_of(backend);
    uint64_t begin = pgs_bench_now();
    int error = timer->inner->ops->submit(timer->inner, ops, n);

    if (n && ops[0].kind == PGSHARE_OP_MAP)
        timer->map_ns += pgs_bench_now() - begin;
    return error;
}

static const struct pgshare_backend_ops timer_ops = {
    .size = sizeof(timer_ops),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "timer",
    .attach = timer_attach,
    .detach = timer_detach,
    .domain_add = timer_domain_add,
    .domain_remove = timer_domain_remove,
    .submit = timer_submit,
};

/* ---- guests ------------------------------------------------------------ */

struct rig {
    uint32_t pages;
    uint32_t *order; /* of the processor's reads, and of its writes */
    struct timer timer;
    struct pgshare_kvm *kvm;
    struct pgshare_host *host;
    uint64_t group;
    struct pgs_vm stub;
};

static size_t bytes_of(const struct rig *rig)
{
    return (size_t)rig->pages * PGSHARE_PAGE_SIZE;
}

static void *memory_new(const struct rig *rig)
{
    void *memory = mmap(NULL, bytes_of(rig), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        pgs_bench_die("mmap");
    madvise(memory, bytes_of(rig), MADV_NOHUGEPAGE);
    return memory;
}

static void join(const struct rig *rig, struct pgs_vm *vm, uint32_t flags)
{
    vm->memory = memory_new(rig);
    if (!flags)
        for (uint32_t gfn = 0; gfn < rig->pages; gfn++)
            pgs_content_fill(NULL, 0, gfn,
                             vm->memory + (size_t)gfn * PGSHARE_PAGE_SIZE);
    pgs_bench_check(pgshare_kvm_guest_new(rig->kvm, rig->pages, NULL,
                                          &vm->guest),
                    "pgshare_kvm_guest_new");
    pgs_bench_check(pgshare_kvm_slot_add(vm->guest, 0, rig->pages, vm->memory,
                                         flags, NULL),
                    "pgshare_kvm_slot_add");
    pgs_bench_check(pgshare_kvm_join(vm->guest, rig->host, rig->group),
                    "pgshare_kvm_join");
}

static void leave(const struct rig *rig, struct pgs_vm *vm)
{
    pgs_bench_check(pgshare_kvm_leave(vm->guest), "pgshare_kvm_leave");
    pgshare_kvm_guest_free(vm->guest);
    munmap(vm->memory, bytes_of(rig));
}

static void rig_open(struct rig *rig, const struct pgs_bench *bench)
{
    struct pgshare_host_options options = { .size = sizeof(options),
                                            .reserve_keep = 1 };
    uint64_t seed = bench->seed;

    *rig = (struct rig){
        .pages = bench->quick ? PAGES_QUICK : PAGES,
        .timer = { .backend = { .ops = &timer_ops } },
    };
    rig->order = pgs_bench_order_new(&seed, rig->pages);
    pgs_bench_check(pgshare_kvm_new(NULL, &rig->kvm), "pgshare_kvm_new");
    rig->timer.inner = pgshare_kvm_backend(rig->kvm);
    pgs_bench_check(pgshare_host_new(&rig->timer.backend, &options, &rig->host),
                    "pgshare_host_new");
    pgs_bench_check(pgshare_group_open(rig->host, "bench", &rig->group),
                    "pgshare_group_open");
    join(rig, &rig->stub, 0);
}

static void rig_close(struct rig *rig)
{
    pgs_bench_check(pgshare_domain_thaw(rig->host,
                                        pgshare_kvm_handle(rig->stub.guest)),
                    "pgshare_domain_thaw");
    leave(rig, &rig->stub);
    rig->host = pgshare_host_free(rig->host);
    rig->kvm = pgshare_kvm_free(rig->kvm);
    free(rig->order);
}

/* ---- what the kernel says ---------------------------------------------- */

static uint64_t count_mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    uint64_t n = 0;
    int c;

    if (!file)
        pgs_bench_die("/proc/self/maps cannot be read");
    while ((c = fgetc(file)) != EOF)
        n += c == '\n';
    fclose(file);
    return n;
}

/* KiB of anonymous memory in a guest. */
static double private_memory(const struct rig *rig, const struct pgs_vm *vm)
{
    uintptr_t start = (uintptr_t)vm->memory, end = start + bytes_of(rig);
    FILE *file = fopen("/proc/self/smaps", "re");
    uintptr_t from = 0, a, b;
    double sum = 0, kib;
    char line[512];

    if (!file)
        pgs_bench_die("/proc/self/smaps cannot be read");
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &a, &b) == 2)
            from = a;
        else if (sscanf(line, "Anonymous: %lf", &kib) == 1 && from >= start &&
                 from < end)
            sum += kib;
    fclose(file);
    return sum;
}

/* ---- the processor ----------------------------------------------------- */

static void work(const struct rig *rig, unsigned char *memory)
{
    uint32_t reads = rig->pages / 10, writes = rig->pages / 100;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < reads; i++)
        sum += memory[(size_t)rig->order[i] * PGSHARE_PAGE_SIZE];
    for (uint32_t i = 0; i < writes; i++)
        memory[(size_t)rig->order[rig->pages - 1 - i] * PGSHARE_PAGE_SIZE] ^=
            0xff;
    pgs_bench_use(sum);
}

/* Has a child, or a copy, that has worked, what it should? */
static void check(const struct rig *rig, unsigned char *memory)
{
    unsigned char page[PGSHARE_PAGE_SIZE];

    for (uint32_t i = 0; i < rig->pages; i++) {
        uint32_t gfn = rig->order[i];

        pgs_content_fill(NULL, 0, gfn, page);
        if (i >= rig->pages - rig->pages / 100)
            page[0] ^= 0xff;
        if (memcmp(memory + (size_t)gfn * PGSHARE_PAGE_SIZE, page,
                   sizeof(page)))
            pgs_bench_die("kvm-fork: page %u is lost", gfn);
    }
}

/* ---- measurements ------------------------------------------------------ */

enum quantity { CHILD, COPY, CALL, MAP, MAPPINGS, OWN, QUANTITIES };

/* In ms, mappings, KiB. */
struct measure {
    struct pgs_series of[QUANTITIES];
};

static void note(struct measure *m, enum quantity quantity, double value)
{
    pgs_series_add(&m->of[quantity], value);
}

static double median(struct measure *m, enum quantity quantity)
{
    return pgs_series_median(&m->of[quantity]);
}

static double ms_since(uint64_t begin)
{
    return (double)(pgs_bench_now() - begin) / 1e6;
}

static void measure_child(struct rig *rig, struct measure *m)
{
    struct pgshare_fork_options options = { .size = sizeof(options),
                                            .flags = PGSHARE_FORK_UNSECURED };
    uint64_t begin, mappings;
    struct pgs_vm child;
    double call, own;

    join(rig, &child, PGSHARE_KVM_SLOT_EMPTY);
    mappings = count_mappings();
    rig->timer.map_ns = 0;
    begin = pgs_bench_now();
    pgs_bench_check(pgshare_fork(rig->host,
                                 pgshare_kvm_handle(rig->stub.guest),
                                 pgshare_kvm_handle(child.guest), &options,
                                 NULL, NULL),
                    "pgshare_fork");
    call = ms_since(begin);
    note(m, CALL, call);
    note(m, MAP, (double)rig->timer.map_ns / 1e6);
    note(m, MAPPINGS, (double)(count_mappings() + 1 - mappings));
    own = private_memory(rig, &child);
    note(m, OWN, own);
    begin = pgs_bench_now();
    work(rig, child.memory);
    note(m, CHILD, call + ms_since(begin));
    check(rig, child.memory);
    leave(rig, &child);
}

static void measure_copy(struct rig *rig, struct measure *m)
{
    unsigned char *memory = memory_new(rig);
    uint64_t begin = pgs_bench_now();

    memcpy(memory, rig->stub.memory, bytes_of(rig));
    work(rig, memory);
    note(m, COPY, ms_since(begin));
    check(rig, memory);
    munmap(memory, bytes_of(rig));
}

/* The stub is frozen once; what it is copied to was touched before. */
static void measure_freeze(struct pgs_bench *bench, struct rig *rig)
{
    struct pgs_figure figure = {
        .name = "kvm-fork",
        .metric = "freezing a stub of 1 GiB",
        .unit = "ms",
        .yardstick = "memcpy of the GiB",
        .bound = PGS_BOUND_NONE,
    };
    unsigned char *memory = memory_new(rig);
    uint64_t begin;

    memcpy(memory, rig->stub.memory, bytes_of(rig));
    begin = pgs_bench_now();
    memcpy(memory, rig->stub.memory, bytes_of(rig));
    figure.yardstick_value = ms_since(begin);
    munmap(memory, bytes_of(rig));
    begin = pgs_bench_now();
    pgs_bench_check(pgshare_domain_freeze(
                        rig->host, pgshare_kvm_handle(rig->stub.guest), NULL),
                    "pgshare_domain_freeze");
    figure.value = ms_since(begin);
    pgs_report_add(bench->report, &figure);
}

static void add(struct pgs_bench *bench, const char *metric, const char *unit,
                double value, double limit)
{
    struct pgs_figure figure = {
        .name = "kvm-fork",
        .yardstick = "the target",
        .value = value,
        .yardstick_value = limit,
        .limit = limit,
        .bound = PGS_BOUND_VALUE,
    };

    snprintf(figure.metric, sizeof(figure.metric), "%s", metric);
    snprintf(figure.unit, sizeof(figure.unit), "%s", unit);
    pgs_report_add(bench->report, &figure);
}

static void report(struct pgs_bench *bench, struct measure *m)
{
    struct pgs_figure figure = {
        .name = "kvm-fork",
        .metric = "a child of 1 GiB that reads 10 % and writes 1 %, random "
                  "order",
        .unit = "ms",
        .yardstick = "the same on a full copy, copying included, small pages",
        .value = median(m, CHILD),
        .yardstick_value = median(m, COPY),
        .limit = 0.2,
        .bound = PGS_BOUND_RATIO,
    };

    pgs_report_add(bench->report, &figure);
    pgs_report_note(bench->report, "kvm-fork: of a child's time the call took "
                                   "%.1f ms",
                    median(m, CALL));
    add(bench, "mapping a child", "ms", median(m, MAP), 2);
    add(bench, "mappings of a child", "mappings", median(m, MAPPINGS), 8);
    add(bench, "memory of a child's own, at its start", "KiB", median(m, OWN),
        64);
}

void pgs_bench_kvm_fork(struct pgs_bench *bench)
{
    const char *missing = pgs_vms_missing();
    struct measure m = { 0 }, unused = { 0 };
    struct rig rig;

    if (missing) {
        pgs_report_note(bench->report, "kvm-fork: %s", missing);
        return;
    }
    rig_open(&rig, bench);
    measure_freeze(bench, &rig);
    measure_child(&rig, &unused); /* warm by now */
    measure_copy(&rig, &unused);
    for (unsigned i = 0; i < pgs_bench_rounds(bench, ROUNDS); i++) {
        measure_child(&rig, &m);
        measure_copy(&rig, &m);
    }
    report(bench, &m);
    rig_close(&rig);
    for (unsigned i = 0; i < QUANTITIES; i++) {
        pgs_series_fini(&m.of[i]);
        pgs_series_fini(&unused.of[i]);
    }
}
