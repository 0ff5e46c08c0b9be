/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bad input through the public API: each function with each of its arguments
 * wrong. Every call has its documented error, and changes nothing: the rigs
 * are checked like all others.
 */
#include "contract/rig.h"

#include <pgshare/guest_ring.h>

#define is(call, error) ck_assert_int_eq(call, PGSHARE_ERR_##error)

/* Two guests that share a page, mark one and hold one. */
static void open_busy(struct rig *rig, int machine)
{
    rig_open(rig, machine);
    rig_guest(rig);
    rig_guest(rig);
    rig_fill(rig, 0, 0, 2, 7);
    rig_fill(rig, 1, 0, 2, 7);
    rig_must_share(rig, 0, 0, 1, 0, 1);
    rig_mark(rig, 0, 5);
}

/* ---- handles and ranges ------------------------------------------------ */

struct ranged {
    const char *name;
    int (*call)(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                uint64_t count);
};

static int mark(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                uint64_t count)
{
    static uint64_t tickets[2 * GFNS];

    return pgshare_mark_ro(host, dom, gfn, count, tickets, NULL);
}

static int unmark(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                  uint64_t count)
{
    return pgshare_unmark(host, dom, gfn, count, NULL, NULL);
}

static int unshare(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                   uint64_t count)
{
    return pgshare_unshare(host, dom, gfn, count, NULL);
}

static int get(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
               uint64_t count)
{
    return pgshare_gfn_get(host, dom, gfn, count, PGSHARE_GET_READ, NULL);
}

static int put(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
               uint64_t count)
{
    return pgshare_gfn_put(host, dom, gfn, count, PGSHARE_GET_READ);
}

static int push(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                uint64_t count)
{
    return pgshare_declare_volatile(host, dom, gfn, count, NULL);
}

static int withdraw(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                    uint64_t count)
{
    return pgshare_declare_withdraw(host, dom, gfn, count, NULL);
}

static int never_share(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                       uint64_t count)
{
    return pgshare_declare_never_share(host, dom, gfn, count, 1, NULL);
}

static int read_only(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                     uint64_t count)
{
    return pgshare_declare_read_only(host, dom, gfn, count, 1);
}

static int ram_remove(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                      uint64_t count)
{
    return pgshare_domain_ram_remove(host, dom, gfn, count, NULL);
}

static int domain_unshare(struct pgshare_host *host, uint64_t dom,
                          uint64_t gfn, uint64_t count)
{
    return pgshare_domain_unshare(host, dom, gfn, count, 0, NULL);
}

static int hint_block(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                      uint64_t count)
{
    return pgshare_hint_block(host, dom, gfn, count, 1, 1);
}

static int hint_file(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                     uint64_t count)
{
    return pgshare_hint_file(host, dom, gfn, count, 1, 1);
}

static int hint_same_a(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                       uint64_t count)
{
    return pgshare_hint_same(host, dom, gfn, dom, 0, count);
}

static int hint_same_b(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                       uint64_t count)
{
    return pgshare_hint_same(host, dom, 0, dom, gfn, count);
}

static int claim(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                 uint64_t count)
{
    return pgshare_bonus_claim(host, dom, gfn, count, NULL);
}

static int give_back(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                     uint64_t count)
{
    return pgshare_bonus_return(host, dom, gfn, count, NULL);
}

static int share_source(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                        uint64_t count)
{
    struct pgshare_share_request request = { sizeof(request),
                                             PGSHARE_SHARE_MARK,
                                             0, dom, gfn, dom, 0, count,
                                             NULL, NULL };

    return pgshare_share(host, &request, NULL);
}

static int share_client(struct pgshare_host *host, uint64_t dom, uint64_t gfn,
                        uint64_t count)
{
    struct pgshare_share_request request = { sizeof(request),
                                             PGSHARE_SHARE_MARK,
                                             0, dom, 0, dom, gfn, count,
                                             NULL, NULL };

    return pgshare_share(host, &request, NULL);
}

static const struct ranged ranged[] = {
    { "mark_ro", mark },
    { "unmark", unmark },
    { "unshare", unshare },
    { "gfn_get", get },
    { "gfn_put", put },
    { "declare_free", pgshare_declare_free },
    { "declare_scrub", pgshare_declare_scrub },
    { "declare_allocated", pgshare_declare_allocated },
    { "declare_overwrite", pgshare_declare_overwrite },
    { "declare_volatile", push },
    { "declare_withdraw", withdraw },
    { "declare_never_share", never_share },
    { "declare_read_only", read_only },
    { "domain_ram_add", pgshare_domain_ram_add },
    { "domain_ram_remove", ram_remove },
    { "domain_unshare", domain_unshare },
    { "hint_block", hint_block },
    { "hint_file", hint_file },
    { "hint_same, first", hint_same_a },
    { "hint_same, second", hint_same_b },
    { "bonus_claim", claim },
    { "bonus_return", give_back },
    { "share, source", share_source },
    { "share, client", share_client },
};
#define N_RANGED (sizeof(ranged) / sizeof(ranged[0]))

START_TEST(ranges_outside_of_the_domain_are_refused)
{
    static const uint64_t bad[][2] = {
        { 0, 0 },
        { GFNS, 1 },
        { GFNS - 1, 2 },
        { 0, GFNS + 1 },
        { GFNS / 2, UINT64_MAX },
        { GFNS / 2, UINT64_MAX - GFNS / 2 + 1 },
        { UINT64_MAX - 1, 1 },
        { UINT64_MAX - 1, 2 },
        { UINT64_MAX - 1, UINT64_MAX },
        { UINT64_C(1) << 32, 1 },
        { UINT64_C(1) << 63, UINT64_C(1) << 63 },
    };
    struct rig rig;

    open_busy(&rig, _i);
    for (unsigned i = 0; i < N_RANGED; i++)
        for (unsigned k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
            int r = ranged[i].call(rig.host, rig_dom(&rig, 0), bad[k][0],
                                   bad[k][1]);

            ck_assert_msg(r == PGSHARE_ERR_RANGE,
                          "%s, range %u: %s", ranged[i].name, k,
                          pgshare_error_name(r));
        }
    rig_close(&rig);
}
END_TEST

START_TEST(handles_that_never_were_or_are_no_more_are_refused)
{
    struct rig rig;
    uint64_t bad[6];

    open_busy(&rig, _i);
    rig_guest(&rig);
    bad[0] = 0;
    bad[1] = UINT64_MAX;
    bad[2] = rig_dom(&rig, 0) + 1000;
    bad[3] = rig_dom(&rig, 0) + 65536; /* the same slot, another time */
    bad[4] = rig_dom(&rig, 0) & 65535;
    bad[5] = rig_dom(&rig, 2);
    ck_assert_int_eq(rig_leave(&rig, 2), 0);
    for (unsigned k = 0; k < 6; k++) {
        struct pgshare_domain_info info = { .size = sizeof(info) };
        struct pgshare_domain_stats stats = { .size = sizeof(stats) };
        struct pgshare_account account = { .size = sizeof(account) };
        struct pgshare_gfn_info gfn = { .size = sizeof(gfn) };
        uint64_t dom = rig_dom(&rig, 0);

        for (unsigned i = 0; i < N_RANGED; i++) {
            int r = ranged[i].call(rig.host, bad[k], 1, 1);

            ck_assert_msg(r == PGSHARE_ERR_NODOMAIN, "%s, handle %u: %s",
                          ranged[i].name, k, pgshare_error_name(r));
        }
        is(pgshare_domain_remove(rig.host, bad[k]), NODOMAIN);
        is(pgshare_domain_info(rig.host, bad[k], &info), NODOMAIN);
        is(pgshare_domain_stats(rig.host, bad[k], &stats), NODOMAIN);
        is(pgshare_account(rig.host, bad[k], &account), NODOMAIN);
        is(pgshare_gfn_info(rig.host, bad[k], 0, &gfn), NODOMAIN);
        is(pgshare_fault_write(rig.host, bad[k], 0, 0, NULL, NULL), NODOMAIN);
        is(pgshare_domain_suspend(rig.host, bad[k]), NODOMAIN);
        is(pgshare_domain_resume(rig.host, bad[k]), NODOMAIN);
        is(pgshare_domain_freeze(rig.host, bad[k], NULL), NODOMAIN);
        is(pgshare_domain_thaw(rig.host, bad[k]), NODOMAIN);
        is(pgshare_fork(rig.host, bad[k], dom, NULL, NULL, NULL), NODOMAIN);
        is(pgshare_fork(rig.host, dom, bad[k], NULL, NULL, NULL), NODOMAIN);
        is(pgshare_hint_lineage(rig.host, bad[k], dom), NODOMAIN);
        is(pgshare_hint_lineage(rig.host, dom, bad[k]), NODOMAIN);
        is(pgshare_service_set(rig.host, bad[k], dom), NODOMAIN);
        is(pgshare_ring_detach(rig.host, bad[k]), NODOMAIN);
        is(pgshare_ring_kick(rig.host, bad[k]), NODOMAIN);
        if (bad[k]) {
            is(pgshare_host_pass(rig.host, bad[k]), NODOMAIN);
            is(pgshare_scan_floor(rig.host, bad[k], 0, 1, 1), NODOMAIN);
            is(pgshare_service_set(rig.host, dom, bad[k]), NODOMAIN);
        }
    }
    rig_close(&rig);
}
END_TEST

/* ---- NULLs, flags, intents --------------------------------------------- */

START_TEST(missing_arguments_are_refused)
{
    struct rig rig;
    uint64_t dom, id;

    open_busy(&rig, _i);
    dom = rig_dom(&rig, 0);
    for (unsigned i = 0; i < N_RANGED; i++)
        is(ranged[i].call(NULL, dom, 0, 1), INVALID);
    is(pgshare_host_new(NULL, NULL, &rig.host), INVALID);
    is(pgshare_host_new(rig.ops->backend(rig.state), NULL, NULL), INVALID);
    ck_assert_ptr_null(pgshare_host_free(NULL));
    is(pgshare_host_run(NULL, NULL, NULL), INVALID);
    is(pgshare_host_settle(NULL, 0), INVALID);
    is(pgshare_host_poll(NULL, NULL), INVALID);
    is(pgshare_host_poll(rig.host, NULL), INVALID);
    is(pgshare_host_pass(NULL, 0), INVALID);
    is(pgshare_scan_set(NULL, NULL), INVALID);
    is(pgshare_scan_info(NULL, NULL), INVALID);
    is(pgshare_scan_info(rig.host, NULL), INVALID);
    is(pgshare_scan_step(NULL, NULL, NULL), INVALID);
    is(pgshare_scan_floor(NULL, dom, 0, 1, 1), INVALID);
    is(pgshare_scan_floor(rig.host, dom, 0, 1, PGSHARE_ORDERS), INVALID);
    is(pgshare_host_stats(rig.host, NULL), INVALID);
    is(pgshare_domain_stats(rig.host, dom, NULL), INVALID);
    is(pgshare_domain_info(rig.host, dom, NULL), INVALID);
    is(pgshare_domain_find(rig.host, 1, 1, NULL), INVALID);
    is(pgshare_domain_add(rig.host, NULL, &id), INVALID);
    is(pgshare_group_open(rig.host, NULL, &id), INVALID);
    is(pgshare_group_open(rig.host, "x", NULL), INVALID);
    is(pgshare_group_open(rig.host, "", &id), INVALID);
    is(pgshare_group_open(rig.host,
                          "0123456789012345678901234567890123456789"
                          "012345678901234567890123",
                          &id),
       INVALID);
    is(pgshare_account(rig.host, dom, NULL), INVALID);
    is(pgshare_gfn_info(rig.host, dom, 0, NULL), INVALID);
    is(pgshare_share(rig.host, NULL, NULL), INVALID);
    is(pgshare_mark_ro(rig.host, dom, 0, 1, NULL, NULL), INVALID);
    is(pgshare_cow_next(rig.host, 0, NULL), INVALID);
    is(pgshare_frame_mappings(rig.host, 1, NULL, NULL), INVALID);
    is(pgshare_hint_block(rig.host, dom, 0, 1, 0, 0), INVALID);
    is(pgshare_hint_file(rig.host, dom, 0, 1, 0, 0), INVALID);
    is(pgshare_library_add(rig.host, 0, 0, 1), INVALID);
    is(pgshare_library_add(rig.host, 1, 0, 0), INVALID);
    is(pgshare_ring_attach(rig.host, dom, NULL, 4096), INVALID);
    rig_close(&rig);
}
END_TEST

START_TEST(unknown_flags_and_intents_are_refused)
{
    struct pgshare_share_request request = { .size = sizeof(request),
                                             .flags = 1 << 7,
                                             .client_gfn = 1,
                                             .count = 1 };
    struct pgshare_fork_options fork = { .size = sizeof(fork), .flags = 1 << 9 };
    struct pgshare_domain_options add = { .size = sizeof(add),
                                          .flags = 1,
                                          .gfns = 1 };
    struct pgshare_audit_options audit = { .size = sizeof(audit),
                                           .flags = 1 << 20 };
    struct pgshare_audit verdict = { .size = sizeof(verdict) };
    struct pgshare_host_options host = { .size = sizeof(host), .flags = 2 };
    struct pgshare_host *none = NULL;
    uint64_t tickets[1] = { 1 };
    struct rig rig;
    uint64_t dom, id;

    open_busy(&rig, _i);
    dom = rig_dom(&rig, 0);
    request.source_dom = request.client_dom = dom;
    is(pgshare_share(rig.host, &request, NULL), INVALID);
    request.flags = PGSHARE_SHARE_MARK;
    request.reserved = 1;
    is(pgshare_share(rig.host, &request, NULL), INVALID);
    request.reserved = 0;
    request.source_tickets = tickets;
    is(pgshare_share(rig.host, &request, NULL), INVALID);
    request.flags = 0; /* now the client's are missing */
    is(pgshare_share(rig.host, &request, NULL), INVALID);
    is(pgshare_fork(rig.host, dom, rig_dom(&rig, 1), &fork, NULL, NULL),
       INVALID);
    is(pgshare_domain_add(rig.host, &add, &id), INVALID);
    is(pgshare_host_audit(rig.host, &audit, &verdict), INVALID);
    is(pgshare_host_new(rig.ops->backend(rig.state), &host, &none), INVALID);
    is(pgshare_fault_write(rig.host, dom, 0, 1 << 5, NULL, NULL), INVALID);
    is(pgshare_gfn_get(rig.host, dom, 0, 1, 0, NULL), INVALID);
    is(pgshare_gfn_get(rig.host, dom, 0, 1, 4, NULL), INVALID);
    is(pgshare_gfn_put(rig.host, dom, 0, 1, 77), INVALID);
    rig_close(&rig);
}
END_TEST

static void *never_alloc(void *ctx, size_t bytes, size_t align, uint32_t flags)
{
    return NULL;
}

static void never_free(void *ctx, void *ptr, size_t bytes)
{
}

START_TEST(an_allocator_without_its_functions_is_refused)
{
    static const struct {
        struct pgshare_allocator allocator;
        int error;
    } bad[] = {
        { { .size = 8, .alloc = never_alloc, .free = never_free },
          PGSHARE_ERR_ABI },
        { { .alloc = never_alloc, .free = never_free }, PGSHARE_ERR_ABI },
        { { .size = sizeof(struct pgshare_allocator), .free = never_free },
          PGSHARE_ERR_INVALID },
        { { .size = sizeof(struct pgshare_allocator), .alloc = never_alloc },
          PGSHARE_ERR_INVALID },
        { { .size = sizeof(struct pgshare_allocator),
            .alloc = never_alloc,
            .free = never_free },
          PGSHARE_ERR_NOMEM },
    };
    struct pgshare_host *none = NULL;
    struct rig rig;

    rig_open(&rig, _i);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct pgshare_host_options options = {
            .size = sizeof(options),
            .allocator = &bad[i].allocator,
        };

        ck_assert_int_eq(pgshare_host_new(rig.ops->backend(rig.state), &options,
                                          &none),
                         bad[i].error);
        ck_assert_ptr_null(none);
    }
    rig_close(&rig);
}
END_TEST

/* ---- sizes ------------------------------------------------------------- */

/* Each call with a struct that says it is as big as `size`. */
static void with_size(struct rig *rig, size_t size, unsigned char *room)
{
    uint64_t dom = rig_dom(rig, 0), id;
    struct pgshare_host *none = NULL;

    memcpy(room, &size, sizeof(size));
    is(pgshare_host_new(rig->ops->backend(rig->state), (void *)room, &none),
       ABI);
    is(pgshare_domain_add(rig->host, (void *)room, &id), ABI);
    is(pgshare_host_run(rig->host, (void *)room, NULL), ABI);
    is(pgshare_host_poll(rig->host, (void *)room), ABI);
    is(pgshare_share(rig->host, (void *)room, NULL), ABI);
    is(pgshare_unshare(rig->host, dom, 0, 1, (void *)room), ABI);
    is(pgshare_unmark(rig->host, dom, 0, 1, NULL, (void *)room), ABI);
    is(pgshare_gfn_get(rig->host, dom, 0, 1, PGSHARE_GET_READ, (void *)room),
       ABI);
    is(pgshare_fault_write(rig->host, dom, 0, 0, (void *)room, NULL), ABI);
    is(pgshare_domain_ram_remove(rig->host, dom, 0, 1, (void *)room), ABI);
    is(pgshare_declare_volatile(rig->host, dom, 9, 1, (void *)room), ABI);
    is(pgshare_declare_withdraw(rig->host, dom, 9, 1, (void *)room), ABI);
    is(pgshare_bonus_claim(rig->host, dom, 9, 1, (void *)room), ABI);
    is(pgshare_bonus_return(rig->host, dom, 9, 1, (void *)room), ABI);
    is(pgshare_domain_freeze(rig->host, dom, (void *)room), ABI);
    is(pgshare_fork(rig->host, dom, rig_dom(rig, 1), (void *)room, NULL, NULL),
       ABI);
}

/* … and structs that are only written. */
static void with_size_out(struct rig *rig, size_t size, unsigned char *room)
{
    uint64_t dom = rig_dom(rig, 0);

    memcpy(room, &size, sizeof(size));
    is(pgshare_host_run(rig->host, NULL, (void *)room), ABI);
    is(pgshare_host_stats(rig->host, (void *)room), ABI);
    is(pgshare_domain_stats(rig->host, dom, (void *)room), ABI);
    is(pgshare_domain_info(rig->host, dom, (void *)room), ABI);
    is(pgshare_account(rig->host, dom, (void *)room), ABI);
    is(pgshare_gfn_info(rig->host, dom, 0, (void *)room), ABI);
    is(pgshare_cow_next(rig->host, 0, (void *)room), ABI);
    is(pgshare_host_audit(rig->host, NULL, (void *)room), ABI);
    is(pgshare_fault_write(rig->host, dom, 0, 0, NULL, (void *)room), ABI);
    is(pgshare_domain_unshare(rig->host, dom, 0, 1, 0, (void *)room), ABI);
    is(pgshare_declare_never_share(rig->host, dom, 9, 1, 1, (void *)room), ABI);
    is(pgshare_fork(rig->host, dom, rig_dom(rig, 1), NULL, NULL, (void *)room),
       ABI);
}

START_TEST(structs_of_impossible_sizes_are_refused)
{
    static const size_t sizes[] = { 0, 1, 7, 8, 12, 4097, SIZE_MAX };
    static _Alignas(16) unsigned char room[8192];
    struct rig rig;

    open_busy(&rig, _i);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        with_size(&rig, sizes[i], room);
        with_size_out(&rig, sizes[i], room);
    }
    rig_close(&rig);
}
END_TEST

START_TEST(structs_of_later_versions_must_have_a_tail_of_zeroes)
{
    static _Alignas(16) unsigned char room[4096];
    struct rig rig;

    memset(room, 0, sizeof(room));
    open_busy(&rig, _i);
    room[2000] = 1;
    with_size(&rig, 2048, room);
    room[2000] = 0;
    {
        struct pgshare_budget *budget = (void *)room;
        struct pgshare_host_stats *stats = (void *)room;

        budget->size = 2048;
        ck_assert_int_eq(pgshare_host_run(rig.host, budget, NULL), 0);
        memset(room, 0xff, sizeof(room));
        stats->size = 2048;
        ck_assert_int_eq(pgshare_host_stats(rig.host, stats), 0);
        ck_assert_uint_eq(stats->size, 2048);
        ck_assert_uint_eq(stats->domains, 2);
        ck_assert_uint_eq(room[2047], 0);
        ck_assert_uint_eq(room[2048], 0xff);
    }
    rig_close(&rig);
}
END_TEST

/* ---- names ------------------------------------------------------------- */

START_TEST(every_number_has_a_name_or_none)
{
    for (int i = -200; i < 200; i++) {
        ck_assert_ptr_nonnull(pgshare_error_name(i));
        ck_assert_ptr_nonnull(pgshare_error_text(i));
    }
    ck_assert_str_eq(pgshare_error_name(-1000), "PGSHARE_ERR_UNKNOWN");
    ck_assert_str_eq(pgshare_error_name(1), "PGSHARE_ERR_UNKNOWN");
    ck_assert_ptr_null(pgshare_cause_name(UINT32_MAX));
    ck_assert_ptr_null(pgshare_fault_name(UINT32_MAX));
    ck_assert_ptr_null(pgshare_fault_name(0));
    ck_assert_ptr_null(pgshare_invariant_name(UINT32_MAX));
    ck_assert_ptr_null(pgshare_invariant_name(0));
}
END_TEST

static const struct contract_test tests[] = {
    { &ranges_outside_of_the_domain_are_refused, CAN_SHARE | CAN_INLINE },
    { &handles_that_never_were_or_are_no_more_are_refused,
      CAN_SHARE | CAN_INLINE },
    { &missing_arguments_are_refused, CAN_SHARE | CAN_INLINE },
    { &unknown_flags_and_intents_are_refused, CAN_SHARE | CAN_INLINE },
    { &an_allocator_without_its_functions_is_refused, CAN_SHARE | CAN_INLINE },
    { &structs_of_impossible_sizes_are_refused, CAN_SHARE | CAN_INLINE },
    { &structs_of_later_versions_must_have_a_tail_of_zeroes,
      CAN_SHARE | CAN_INLINE },
    { &every_number_has_a_name_or_none, CAN_SHARE | CAN_INLINE },
};

static Suite *make(void)
{
    return contract_suite("contract-arguments", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("contract-arguments", make, argc, argv);
}
