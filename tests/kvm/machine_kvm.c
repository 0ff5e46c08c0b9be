/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * This process as a machine: guests are memory of its own, which the test's
 * thread writes to as a vCPU would. Once in kernel mode and once trapped; and each
 * as on a kernel of Debian 12, which cannot move pages.
 *
 * Closing looks for what was left behind: mappings of pools, and frames.
 * (Descriptors are counted around every test, suite.h.)
 */
#include "contract/machine.h"

#include "kvm/pin.h"
#include "support/suite.h"

#include "kvm/sys.h"

#include <pgshare/kvm.h>

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#define GUESTS_MAX 16u
#define OLD (1u << 31) /* beside the guests' flags */

struct kvm_guest {
    struct pgshare_kvm_guest *guest;
    struct kvm_state *state;
    unsigned char *memory;
    uint64_t gfns;
    bool *ram; /* [gfns] */
};

struct kvm_state {
    const struct machine *machine;
    struct pgshare_kvm *kvm;
    struct pgshare_platform platform;
    struct kvm_guest guests[GUESTS_MAX];
    unsigned n_guests;
};

static bool is_young(uint32_t feature)
{
    return feature == PGSHARE_KVM_MOVE || feature == PGSHARE_KVM_LOG ||
           feature == PGSHARE_KVM_PAGEMAP;
}

/* What cannot be done without, or not as on a new kernel. */
static const char *missing(bool old)
{
    struct pgshare_kvm_probe probe = { .size = sizeof(probe) };

    for (uint32_t i = 0; i < PGSHARE_KVM_FEATURES; i++) {
        if (pgshare_kvm_probe(i, &probe))
            return "this machine cannot be looked at";
        if (probe.verdict == PGSHARE_KVM_REFUSED ||
            (!old && is_young(i) && probe.verdict != PGSHARE_KVM_GOOD))
            return probe.text;
    }
    return NULL;
}

static const char *kvm_missing(void)
{
    return missing(false);
}

static const char *old_missing(void)
{
    return missing(true);
}

static uint64_t now_ns(void *ctx)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static unsigned open_machines;

static void *kvm_open(const struct machine *machine, uint64_t frames)
{
    struct kvm_state *state = calloc(1, sizeof(*state));
    struct pgshare_kvm_options options = { .size = sizeof(options) };

    if (machine->flavour & OLD)
        options.flags = PGSHARE_KVM_DMA_DECLARED;
    pgs_sys_be_old(machine->flavour & OLD);
    state->machine = machine;
    state->platform.size = sizeof(state->platform);
    state->platform.now_ns = now_ns;
    ck_assert_int_eq(pgshare_kvm_new(&options, &state->kvm), 0);
    open_machines++;
    return state;
}

static void forget_guest(struct kvm_guest *guest)
{
    guest->guest = pgshare_kvm_guest_free(guest->guest);
    if (guest->memory)
        munmap(guest->memory, guest->gfns * PGSHARE_PAGE_SIZE);
    guest->memory = NULL;
    free(guest->ram);
    guest->ram = NULL;
}

static void check_nothing_left(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];

    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof(line), maps))
        ck_assert_msg(!strstr(line, "memfd:pgshare"), "left behind: %s", line);
    fclose(maps);
}

static void kvm_close(void *ctx)
{
    struct kvm_state *state = ctx;
    struct pgshare_kvm_info info = { .size = sizeof(info) };

    for (unsigned i = 0; i < state->n_guests; i++)
        forget_guest(&state->guests[i]);
    ck_assert_int_eq(pgshare_kvm_info(state->kvm, &info), 0);
    ck_assert_uint_eq(info.frames, 0);
    ck_assert_uint_eq(info.held, 0);
    ck_assert_uint_eq(info.pool_pages, 0);
    pgshare_kvm_free(state->kvm);
    if (!--open_machines) {
        check_nothing_left();
        pgs_sys_be_old(false);
    }
    free(state);
}

static struct pgshare_backend *kvm_backend(void *ctx)
{
    struct kvm_state *state = ctx;

    return pgshare_kvm_backend(state->kvm);
}

static const struct pgshare_platform *kvm_platform(void *ctx)
{
    struct kvm_state *state = ctx;

    return &state->platform;
}

/* ---- guests ------------------------------------------------------------ */

static void *kvm_guest_new(void *ctx, uint64_t gfns, uint32_t domid,
                           uint64_t generation)
{
    struct kvm_state *state = ctx;
    struct pgshare_kvm_guest_options options = {
        .size = sizeof(options),
        .flags = state->machine->flavour & ~OLD,
        .domid = domid,
        .generation = generation,
    };
    struct kvm_guest *guest = &state->guests[state->n_guests++];
    uint32_t why = 0;
    int r;

    ck_assert_uint_le(state->n_guests, GUESTS_MAX);
    guest->state = state;
    guest->gfns = gfns;
    guest->ram = calloc(gfns, sizeof(*guest->ram));
    guest->memory = mmap(NULL, gfns * PGSHARE_PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(guest->memory, MAP_FAILED);
    ck_assert_int_eq(pgshare_kvm_guest_new(state->kvm, gfns, &options,
                                           &guest->guest),
                     0);
    r = pgshare_kvm_slot_add(guest->guest, 0, gfns, guest->memory,
                             PGSHARE_KVM_SLOT_EMPTY, &why);
    ck_assert_msg(!r, "slot: %s: %s", pgshare_error_name(r),
                  pgshare_kvm_why_text(why));
    return guest;
}

static void kvm_guest_free(void *ctx)
{
    forget_guest(ctx);
}

static int kvm_join(void *ctx, struct pgshare_host *host, uint64_t group,
                    uint64_t *ret_dom)
{
    struct kvm_guest *guest = ctx;
    int r = pgshare_kvm_join(guest->guest, host, group);

    *ret_dom = pgshare_kvm_handle(guest->guest);
    return r;
}

static int kvm_leave(void *ctx)
{
    struct kvm_guest *guest = ctx;

    return pgshare_kvm_leave(guest->guest);
}

static int kvm_populate(void *ctx, uint64_t gfn, uint64_t count)
{
    struct kvm_guest *guest = ctx;
    int r = pgshare_kvm_ram_add(guest->guest, gfn, count);

    if (!r)
        memset(guest->ram + gfn, true, count);
    return r;
}

static int kvm_depopulate(void *ctx, uint64_t gfn, uint64_t count)
{
    struct kvm_guest *guest = ctx;
    int r = pgshare_kvm_ram_remove(guest->guest, gfn, count);

    if (!r)
        memset(guest->ram + gfn, false, count);
    return r;
}

static void *kvm_address(void *ctx, uint64_t gfn)
{
    struct kvm_guest *guest = ctx;

    return guest->memory + gfn * PGSHARE_PAGE_SIZE;
}

static int kvm_read(void *ctx, uint64_t gfn, void *ret_page)
{
    struct kvm_guest *guest = ctx;

    memcpy(ret_page, guest->memory + gfn * PGSHARE_PAGE_SIZE,
           PGSHARE_PAGE_SIZE);
    return 0;
}

static int kvm_write_later(void *ctx, uint64_t gfn, uint64_t offset,
                           const void *bytes, size_t len)
{
    struct kvm_guest *guest = ctx;

    memcpy(guest->memory + gfn * PGSHARE_PAGE_SIZE + offset, bytes, len);
    return 0;
}

/* A VMM that emulates a write knows how much of the page it covers. */
static void tell_whole(struct kvm_guest *guest, struct pgshare_host *host,
                       uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    uint64_t dom = pgshare_kvm_handle(guest->guest);

    if (!pgshare_gfn_info(host, dom, gfn, &info) &&
        info.state == PGSHARE_GFN_SHARED)
        pgshare_fault_write(host, dom, gfn, PGSHARE_FAULT_WHOLE_PAGE, NULL,
                            NULL);
}

/* A vCPU that waits for what will not come is kicked by a signal. */
static sigjmp_buf kicked;

static void kick(int signal)
{
    siglongjmp(kicked, 1);
}

static int write_trapped(void *guest, uint64_t gfn, uint64_t offset,
                         const void *bytes, size_t len)
{
    const struct itimerval soon = { .it_value.tv_sec = 1 };
    const struct itimerval never = { .it_value.tv_usec = 0 };
    struct sigaction ours = { .sa_handler = kick }, old;
    int r = PGSHARE_ERR_READONLY;

    sigaction(SIGALRM, &ours, &old);
    if (!sigsetjmp(kicked, 1)) {
        setitimer(ITIMER_REAL, &soon, NULL);
        r = kvm_write_later(guest, gfn, offset, bytes, len);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    return r;
}

static int kvm_write(void *ctx, void *guest, struct pgshare_host *host,
                     uint64_t gfn, uint64_t offset, const void *bytes,
                     size_t len)
{
    struct kvm_state *state = ctx;

    if (host && state->machine->can & CAN_RESOLVE && len == PGSHARE_PAGE_SIZE)
        tell_whole(guest, host, gfn);
    if (state->machine->can & CAN_RESOLVE)
        return write_trapped(guest, gfn, offset, bytes, len);
    return kvm_write_later(guest, gfn, offset, bytes, len);
}

static void kvm_quiesce(void *state, struct pgshare_host *host)
{
    if (host)
        pgshare_host_run(host, NULL, NULL);
}

static uint64_t kvm_violations(void *state, const char **ret_text)
{
    *ret_text = NULL;
    return 0;
}

static int kvm_pin(void *ctx, uint64_t gfn, void **ret_pin)
{
    struct kvm_guest *guest = ctx;
    int *pin = malloc(sizeof(*pin));

    *pin = pin_memory(guest->memory + gfn * PGSHARE_PAGE_SIZE,
                      PGSHARE_PAGE_SIZE);
    *ret_pin = pin;
    return *pin < 0 ? PGSHARE_ERR_NOTSUP : 0;
}

static void kvm_unpin(void *ctx)
{
    int *pin = ctx;

    unpin_memory(*pin);
    free(pin);
}

#define OPS(missing_)                   \
    {                                   \
        .missing = missing_,            \
        .open = kvm_open,               \
        .close = kvm_close,             \
        .backend = kvm_backend,         \
        .platform = kvm_platform,       \
        .guest_new = kvm_guest_new,     \
        .guest_free = kvm_guest_free,   \
        .join = kvm_join,               \
        .leave = kvm_leave,             \
        .populate = kvm_populate,       \
        .depopulate = kvm_depopulate,   \
        .address = kvm_address,         \
        .read = kvm_read,               \
        .write = kvm_write,             \
        .write_later = kvm_write_later, \
        .quiesce = kvm_quiesce,         \
        .violations = kvm_violations,   \
        .pin = kvm_pin,                 \
        .unpin = kvm_unpin,             \
    }

static const struct machine_ops kvm_ops = OPS(kvm_missing);
static const struct machine_ops old_ops = OPS(old_missing);

/* ---- the machines ------------------------------------------------------ */

#define ALL                                               \
    (CAN_SHARE | CAN_PAY | CAN_CLONE | CAN_FINGERPRINT |  \
     CAN_INLINE | CAN_TELL)
#define KERNEL (ALL | CAN_HARVEST)
#define TRAPPED (ALL | CAN_RESOLVE | CAN_TAKE_LAST | CAN_READ_ONLY)

const struct machine machines[] = {
    { "kernel", KERNEL | CAN_PIN, 0, 0, 0, &kvm_ops },
    { "trapped", TRAPPED | CAN_PIN, PGSHARE_KVM_TRAPPED, 0, 0, &kvm_ops },
    { "kernel, old", KERNEL, OLD, 0, 0, &old_ops },
    { "trapped, old", TRAPPED, PGSHARE_KVM_TRAPPED | OLD, 0, 0, &old_ops },
};
const unsigned n_machines = sizeof(machines) / sizeof(machines[0]);
