/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mock's flavours as machines, each once with inline answers and once with
 * operations and answers that come late, out of order and in parts.
 */
#include "contract/machine.h"

#include "support/suite.h"

#include <pgshare/mock.h>

#include <stdio.h>
#include <stdlib.h>

/* A poll is 100 us of virtual time, so that waiting for ever is soon over. */
#define POLL_NS 100000

static void told(void *ctx, const char *text)
{
    fprintf(stderr, "violation: %s\n", text);
}

static void *mock_open(const struct machine *machine, uint64_t frames)
{
    struct pgshare_mock_options options = {
        .size = sizeof(options),
        .flavour = machine->flavour,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID |
                 PGSHARE_MOCK_STEPS,
        .frames = frames,
        .seed = pgs_test_seed(),
        .poll_ns = POLL_NS,
        .zeroed = 16,
        .violation = told,
    };
    struct pgshare_mock_machine *mock;

    if (machine->chaos)
        options.chaos = (struct pgshare_mock_chaos){
            .delay_op = machine->chaos,
            .delay_answer = machine->chaos,
            .delay_polls = 3,
            .reorder = 500000,
            .split = machine->chaos,
        };
    ck_assert_int_eq(pgshare_mock_machine_new(&options, &mock), 0);
    return mock;
}

static void mock_close(void *state)
{
    pgshare_mock_machine_free(state);
}

static struct pgshare_backend *mock_backend(void *state)
{
    return pgshare_mock_backend(state);
}

static const struct pgshare_platform *mock_platform(void *state)
{
    return pgshare_mock_platform(state);
}

/* ---- guests ------------------------------------------------------------ */

static uint32_t domain_flags; /* of the machine that is open */

static void *mock_open_flags(const struct machine *machine, uint64_t frames)
{
    domain_flags = machine->domain_flags;
    return mock_open(machine, frames);
}

static void *mock_guest_new(void *state, uint64_t gfns, uint32_t domid,
                            uint64_t generation)
{
    struct pgshare_mock_domain_options options = {
        .size = sizeof(options),
        .flags = domain_flags,
        .domid = domid,
        .generation = generation,
    };
    struct pgshare_mock_domain *domain;

    ck_assert_int_eq(pgshare_mock_domain_new(state, gfns, &options, &domain),
                     0);
    return domain;
}

static void mock_guest_free(void *guest)
{
    pgshare_mock_domain_free(guest);
}

static int mock_join(void *guest, struct pgshare_host *host, uint64_t group,
                     uint64_t *ret_dom)
{
    int r = pgshare_mock_join(guest, host, group);

    *ret_dom = pgshare_mock_handle(guest);
    return r;
}

static int mock_leave(void *guest)
{
    return pgshare_mock_leave(guest);
}

static int mock_populate(void *guest, uint64_t gfn, uint64_t count)
{
    return pgshare_mock_populate(guest, gfn, count);
}

static int mock_depopulate(void *guest, uint64_t gfn, uint64_t count)
{
    return pgshare_mock_depopulate(guest, gfn, count);
}

static int mock_read(void *guest, uint64_t gfn, void *ret_page)
{
    return pgshare_mock_read(guest, gfn, 0, ret_page, PGSHARE_PAGE_SIZE);
}

static void mock_quiesce(void *state, struct pgshare_host *host)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    for (unsigned i = 0; i < 1000; i++) {
        pgshare_mock_poll(state);
        if (host)
            pgshare_host_run(host, NULL, NULL);
        if (pgshare_mock_info(state, &info))
            ck_abort_msg("the machine tells nothing of itself");
        if (!info.pending && !info.parked)
            return;
    }
    ck_abort_msg("%u operations and %u writes wait for ever",
                 (unsigned)info.pending, (unsigned)info.parked);
}

static uint64_t killed(void *state)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    if (pgshare_mock_info(state, &info))
        ck_abort_msg("the machine tells nothing of itself");
    return info.killed;
}

static int mock_write(void *state, void *guest, struct pgshare_host *host,
                      uint64_t gfn, uint64_t offset, const void *bytes,
                      size_t len)
{
    uint64_t before = killed(state);
    int r = len == PGSHARE_PAGE_SIZE && !offset
                ? pgshare_mock_write_page(guest, gfn, bytes)
                : pgshare_mock_write(guest, gfn, offset, bytes, len);

    if (r != PGSHARE_ERR_INPROGRESS)
        return r;
    mock_quiesce(state, host);
    return killed(state) == before ? 0 : PGSHARE_ERR_NOFRAME;
}

static int mock_write_later(void *guest, uint64_t gfn, uint64_t offset,
                            const void *bytes, size_t len)
{
    int r = pgshare_mock_write(guest, gfn, offset, bytes, len);

    return r == PGSHARE_ERR_INPROGRESS ? 0 : r;
}

static uint64_t mock_violations(void *state, const char **ret_text)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    pgshare_mock_check(state);
    ck_assert_int_eq(pgshare_mock_info(state, &info), 0);
    *ret_text = pgshare_mock_violation(state, 0);
    return info.violations;
}

static uint64_t mock_free_frames(void *state)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_mock_info(state, &info), 0);
    return info.free;
}

static void mock_kill(void *guest)
{
    pgshare_mock_kill(guest);
}

static int mock_drop(void *guest, uint64_t gfn, uint64_t count, int hole)
{
    return pgshare_mock_drop(guest, gfn, count, hole);
}

static int mock_pin(void *guest, uint64_t gfn, void **ret_pin)
{
    struct pgshare_mock_dma *dma = malloc(sizeof(*dma));
    int r = pgshare_mock_dma_begin(guest, gfn, 1, 0, dma);

    *ret_pin = dma;
    return r;
}

static void mock_unpin(void *pin)
{
    pgshare_mock_dma_end(pin);
    free(pin);
}

static int mock_schedule(void *state, void (*hook)(void *ctx), void *ctx,
                         uint32_t chance)
{
    return pgshare_mock_schedule(state, hook, ctx, chance);
}

static const struct machine_ops mock_ops = {
    .open = mock_open_flags,
    .close = mock_close,
    .backend = mock_backend,
    .platform = mock_platform,
    .guest_new = mock_guest_new,
    .guest_free = mock_guest_free,
    .join = mock_join,
    .leave = mock_leave,
    .populate = mock_populate,
    .depopulate = mock_depopulate,
    .read = mock_read,
    .write = mock_write,
    .write_later = mock_write_later,
    .quiesce = mock_quiesce,
    .violations = mock_violations,
    .free_frames = mock_free_frames,
    .kill = mock_kill,
    .drop = mock_drop,
    .pin = mock_pin,
    .unpin = mock_unpin,
    .schedule = mock_schedule,
};

/* ---- the machines ------------------------------------------------------ */

#define ALL                                                                   \
    (CAN_SHARE | CAN_READ_ONLY | CAN_PAY | CAN_CLONE | CAN_FINGERPRINT |      \
     CAN_PIN | CAN_DROP | CAN_EXHAUST | CAN_KILL | CAN_STEPS)
#define LIBRARY (ALL | CAN_RESOLVE | CAN_TELL | CAN_TAKE_LAST)
#define PLATFORM (ALL | CAN_HARVEST | CAN_TELL | CAN_TAKE_LAST)
#define LINUX (ALL | CAN_HARVEST | CAN_TELL)
#define XEN (ALL | CAN_HARVEST | CAN_TAKE_LAST)
#define OFTEN 300000 /* in a million */

const struct machine machines[] = {
    { "plain", LIBRARY | CAN_INLINE, PGSHARE_MOCK_PLAIN, 0, 0, &mock_ops },
    { "plain-late", LIBRARY, PGSHARE_MOCK_PLAIN, OFTEN, 0, &mock_ops },
    { "platform", PLATFORM | CAN_INLINE, PGSHARE_MOCK_PLAIN_PLATFORM, 0, 0,
      &mock_ops },
    { "platform-late", PLATFORM, PGSHARE_MOCK_PLAIN_PLATFORM, OFTEN, 0,
      &mock_ops },
    { "linux", LINUX | CAN_INLINE, PGSHARE_MOCK_LINUX, 0, 0, &mock_ops },
    { "linux-late", LINUX, PGSHARE_MOCK_LINUX, OFTEN, 0, &mock_ops },
    { "xen", XEN | CAN_INLINE, PGSHARE_MOCK_XEN, 0, 0, &mock_ops },
    { "xen-late", XEN, PGSHARE_MOCK_XEN, OFTEN, 0, &mock_ops },
    { "direct", CAN_REFUSE | CAN_INLINE, PGSHARE_MOCK_PLAIN, 0,
      PGSHARE_MOCK_DIRECT, &mock_ops },
};
const unsigned n_machines = sizeof(machines) / sizeof(machines[0]);
