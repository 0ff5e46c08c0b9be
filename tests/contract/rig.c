/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See rig.h. The shadow is what the guests wrote; where a page's content is
 * left open (declared free, volatile, given up) `known` says how much of it
 * holds, and comparing takes that into account.
 *
 * With PGS_TEST_TRACE in the environment each operation, completion and event
 * is printed.
 */
#include "contract/rig.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define WRITTEN_AT 2000u /* where rig_write() writes */

/* ---- callbacks --------------------------------------------------------- */

static void report(void *ctx, const struct pgshare_report *told)
{
    struct rig *rig = ctx;

    ck_assert_uint_lt(told->kind, 16);
    rig->reports[told->kind]++;
    rig->told[told->kind] += told->count;
    rig->report = *told;
}

static void outcome(void *ctx, const struct pgshare_outcome *told)
{
    struct rig *rig = ctx;

    rig->outcomes++;
    rig->outcome = *told;
    for (uint64_t i = 0; told->tickets && i < told->count; i++)
        rig->tickets[i] = told->tickets[i];
    rig->outcome.tickets = NULL;
}

static void finding(void *ctx, const struct pgshare_finding *f)
{
    fprintf(stderr,
            "audit: %s: dom %" PRIx64 " gfn %" PRIx64 " frame %" PRIx64
            ": %" PRIu64 " expected, %" PRIu64 " found\n",
            pgshare_invariant_name(f->invariant), f->dom, f->gfn, f->frame,
            f->expected, f->found);
}

static void line(void *ctx, const char *text)
{
    fprintf(stderr, "%s\n", text);
}

/* ---- opening ----------------------------------------------------------- */

int rig_try_open(struct rig *rig, int machine,
                 const struct rig_options *options)
{
    struct pgshare_host_options host = { 0 };
    struct pgshare_backend *backend;
    int r;

    memset(rig, 0, sizeof(*rig));
    rig->machine = &machines[machine];
    rig->ops = rig->machine->ops;
    rig->state = rig->ops->open(
        rig->machine, options && options->frames ? options->frames : FRAMES);
    backend = rig->ops->backend(rig->state);
    if (options)
        host = options->host;
    if (options && options->wrap)
        backend = options->wrap(backend);
    if (options && options->decorated) {
        ck_assert_int_eq(pgshare_fault_backend_new(backend, &rig->faults), 0);
        backend = pgshare_fault_backend_base(rig->faults);
    }
    if (getenv("PGS_TEST_TRACE")) {
        ck_assert_int_eq(
            pgshare_trace_backend_new(backend, line, NULL, &rig->trace), 0);
        backend = pgshare_trace_backend_base(rig->trace);
    }
    host.size = sizeof(host);
    host.allocator = pgs_test_allocator();
    host.platform = rig->ops->platform(rig->state);
    host.outcome = outcome;
    host.report = report;
    host.ctx = rig;
    if (!host.max_map_entries)
        host.max_map_entries = 1024;
    r = pgshare_host_new(backend, &host, &rig->host);
    if (!r)
        r = pgshare_group_open(rig->host, "rig", &rig->group);
    return r;
}

void rig_open_with(struct rig *rig, int machine,
                   const struct rig_options *options)
{
    ck_assert_int_eq(rig_try_open(rig, machine, options), 0);
}

void rig_open(struct rig *rig, int machine)
{
    rig_open_with(rig, machine, NULL);
}

unsigned rig_new_guest(struct rig *rig, uint32_t domid, uint64_t generation,
                       bool ram)
{
    unsigned g = rig->n_guests++;
    struct guest *guest = &rig->guests[g];

    ck_assert_uint_lt(g, GUESTS);
    guest->shadow = calloc(GFNS, PAGE);
    ck_assert_ptr_nonnull(guest->shadow);
    guest->impl = rig->ops->guest_new(rig->state, GFNS, domid, generation);
    if (ram) {
        ck_assert_int_eq(rig->ops->populate(guest->impl, 0, GFNS), 0);
        rig_expect(rig, g, 0, GFNS, EXACT);
    }
    return g;
}

int rig_try_join(struct rig *rig, unsigned g, uint64_t group)
{
    struct guest *guest = &rig->guests[g];
    int r = rig->ops->join(guest->impl, rig->host, group, &guest->dom);

    guest->joined = !r;
    return r;
}

void rig_join(struct rig *rig, unsigned g, uint64_t group)
{
    ck_assert_int_eq(rig_try_join(rig, g, group), 0);
    ck_assert_uint_ne(rig_dom(rig, g), 0);
}

unsigned rig_guest(struct rig *rig)
{
    unsigned g = rig_new_guest(rig, 0, 0, true);

    rig_join(rig, g, rig->group);
    return g;
}

unsigned rig_empty_guest(struct rig *rig)
{
    unsigned g = rig_new_guest(rig, 0, 0, false);

    rig_join(rig, g, rig->group);
    return g;
}

int rig_leave(struct rig *rig, unsigned g)
{
    int r = rig->ops->leave(rig->guests[g].impl);

    if (!r)
        rig->guests[g].joined = false;
    return r;
}

void rig_kill(struct rig *rig, unsigned g)
{
    rig->ops->kill(rig->guests[g].impl);
    rig->guests[g].dead = true;
}

/* ---- checking and closing ---------------------------------------------- */

/* For what is asked often: libcheck tells its parent of every assertion, of
 * those that hold as well. */
static void must(int r)
{
    if (r)
        ck_abort_msg("%s", pgshare_error_name(r));
}

static bool is_zero(const uint8_t *page)
{
    static const uint8_t zeroes[PGSHARE_PAGE_SIZE];

    return !memcmp(page, zeroes, PAGE);
}

static void check_page(struct rig *rig, unsigned g, uint64_t gfn)
{
    struct guest *guest = &rig->guests[g];
    uint8_t page[PGSHARE_PAGE_SIZE];
    bool equal;

    if (guest->known[gfn] == HOLE || guest->known[gfn] == NOTHING)
        return;
    must(rig->ops->read(guest->impl, gfn, page));
    equal = !memcmp(page, guest->shadow[gfn], PAGE);
    if (!equal && guest->known[gfn] == OR_ZERO)
        equal = is_zero(page);
    if (!equal)
        ck_abort_msg(
            "guest %u gfn %u: begins with %02x %02x %02x %02x, not with "
            "%02x %02x %02x %02x",
            g, (unsigned)gfn, page[0], page[1], page[2], page[3],
            guest->shadow[gfn][0], guest->shadow[gfn][1],
            guest->shadow[gfn][2], guest->shadow[gfn][3]);
}

void rig_check_content(struct rig *rig)
{
    const char *text;
    uint64_t violations;

    rig->ops->quiesce(rig->state, rig->host);
    for (unsigned g = 0; g < rig->n_guests; g++)
        for (uint64_t gfn = 0; gfn < GFNS && !rig->guests[g].dead; gfn++)
            check_page(rig, g, gfn);
    violations = rig->ops->violations(rig->state, &text);
    ck_assert_msg(!violations, "%" PRIu64 " violations: %s", violations, text);
}

static void audit(struct rig *rig)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_AUDIT_BACKEND,
        .finding = finding,
    };
    struct pgshare_audit verdict = { .size = sizeof(verdict) };
    int r = pgshare_host_audit(rig->host, &options, &verdict);

    ck_assert_msg(!r, "audit: %s", pgshare_error_name(r));
    ck_assert_msg(!verdict.violations, "the audit finds %u violations",
                  (unsigned)verdict.violations);
}

void rig_check(struct rig *rig)
{
    rig_settle(rig);
    rig_check_content(rig);
    audit(rig);
}

static void end(struct rig *rig, bool check)
{
    if (rig->host)
        rig->host = pgshare_host_free(rig->host);
    rig->trace = pgshare_trace_backend_free(rig->trace);
    rig->faults = pgshare_fault_backend_free(rig->faults);
    if (check)
        rig_check_content(rig);
    for (unsigned g = 0; g < rig->n_guests; g++)
        free(rig->guests[g].shadow);
    rig->ops->close(rig->state);
}

void rig_close(struct rig *rig)
{
    rig_check(rig);
    end(rig, true);
}

void rig_drop(struct rig *rig)
{
    end(rig, false);
}

/* ---- guests at work ---------------------------------------------------- */

static void compute(uint64_t tag, uint64_t i, uint8_t *ret_page)
{
    uint64_t word = tag * UINT64_C(0x9e3779b97f4a7c15) + i;

    memset(ret_page, 0, PAGE);
    if (!tag)
        return;
    for (unsigned at = 0; at < WRITTEN_AT; at += sizeof(word)) {
        word = word * UINT64_C(6364136223846793005) + 1442695040888963407u;
        memcpy(ret_page + at, &word, sizeof(word));
    }
}

int rig_write_page(struct rig *rig, unsigned g, uint64_t gfn, uint64_t tag)
{
    struct guest *guest = &rig->guests[g];
    uint8_t page[PGSHARE_PAGE_SIZE];
    int r;

    compute(tag, 0, page);
    r = rig->ops->write(rig->state, guest->impl, rig->host, gfn, 0, page, PAGE);
    if (!r) {
        memcpy(guest->shadow[gfn], page, PAGE);
        guest->known[gfn] = EXACT;
    }
    return r;
}

void rig_fill(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count,
              uint64_t tag)
{
    struct guest *guest = &rig->guests[g];

    for (uint64_t i = 0; i < count; i++) {
        uint8_t *page = guest->shadow[gfn + i];

        compute(tag, i, page);
        must(rig->ops->write(rig->state, guest->impl, rig->host, gfn + i, 0,
                             page, PAGE));
        guest->known[gfn + i] = EXACT;
    }
}

/* Content that no write before had; where it goes is not shared otherwise. */
static void stamp(uint32_t ret_bytes[2], unsigned g)
{
    static uint32_t serial = 1;

    ret_bytes[0] = serial++;
    ret_bytes[1] = g;
}

int rig_write(struct rig *rig, unsigned g, uint64_t gfn)
{
    struct guest *guest = &rig->guests[g];
    uint32_t bytes[2];
    int r;

    stamp(bytes, g);
    r = rig->ops->write(rig->state, guest->impl, rig->host, gfn, WRITTEN_AT,
                        bytes, sizeof(bytes));
    if (!r)
        memcpy(guest->shadow[gfn] + WRITTEN_AT, bytes, sizeof(bytes));
    return r;
}

void rig_write_later(struct rig *rig, unsigned g, uint64_t gfn)
{
    struct guest *guest = &rig->guests[g];
    uint32_t bytes[2];

    stamp(bytes, g);
    ck_assert_int_eq(rig->ops->write_later(guest->impl, gfn, WRITTEN_AT, bytes,
                                           sizeof(bytes)),
                     0);
    memcpy(guest->shadow[gfn] + WRITTEN_AT, bytes, sizeof(bytes));
}

void rig_expect(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count,
                enum known known)
{
    memset(rig->guests[g].known + gfn, known, count);
}

void rig_expect_zero(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count)
{
    memset(rig->guests[g].shadow[gfn], 0, count * PAGE);
    rig_expect(rig, g, gfn, count, EXACT);
}

void rig_expect_copy(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count,
                     unsigned from, uint64_t from_gfn)
{
    memcpy(rig->guests[g].shadow[gfn], rig->guests[from].shadow[from_gfn],
           count * PAGE);
    rig_expect(rig, g, gfn, count, EXACT);
}

/* ---- the host at work -------------------------------------------------- */

/* A platform's breaks are harvested every 10 ms of its time. */
void rig_settle(struct rig *rig)
{
    int r;

    rig->ops->quiesce(rig->state, rig->host);
    rig_wait(rig, 25000000);
    r = pgshare_host_settle(rig->host, 20 * SECOND);
    ck_assert_msg(!r, "settle: %s", pgshare_error_name(r));
}

void rig_wait(struct rig *rig, uint64_t ns)
{
    const struct pgshare_platform *platform = rig->ops->platform(rig->state);
    uint64_t start = platform->now_ns(platform->ctx);

    while (platform->now_ns(platform->ctx) - start < ns)
        must(pgshare_host_run(rig->host, NULL, NULL));
}

int rig_share(struct rig *rig, unsigned source, uint64_t source_gfn,
              unsigned client, uint64_t client_gfn, uint64_t count)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = rig_dom(rig, source),
        .source_gfn = source_gfn,
        .client_dom = rig_dom(rig, client),
        .client_gfn = client_gfn,
        .count = count,
    };

    return pgshare_share(rig->host, &request, NULL);
}

void rig_must_share(struct rig *rig, unsigned source, uint64_t source_gfn,
                    unsigned client, uint64_t client_gfn, uint64_t count)
{
    int r = rig_share(rig, source, source_gfn, client, client_gfn, count);

    ck_assert_msg(!r, "share: %s", pgshare_error_name(r));
    for (uint64_t i = 0; i < count; i++)
        ck_assert(rig_together(rig, source, source_gfn + i, client,
                               client_gfn + i));
}

int rig_share_tickets(struct rig *rig, unsigned source, uint64_t source_gfn,
                      uint64_t source_ticket, unsigned client,
                      uint64_t client_gfn, uint64_t client_ticket)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .source_dom = rig_dom(rig, source),
        .source_gfn = source_gfn,
        .client_dom = rig_dom(rig, client),
        .client_gfn = client_gfn,
        .count = 1,
        .source_tickets = &source_ticket,
        .client_tickets = &client_ticket,
    };

    return pgshare_share(rig->host, &request, NULL);
}

uint64_t rig_mark(struct rig *rig, unsigned g, uint64_t gfn)
{
    uint64_t ticket = 0;
    int r = pgshare_mark_ro(rig->host, rig_dom(rig, g), gfn, 1, &ticket, NULL);

    ck_assert_msg(!r, "mark: %s", pgshare_error_name(r));
    ck_assert_uint_ne(ticket, 0);
    return ticket;
}

struct pgshare_gfn_info rig_info(struct rig *rig, unsigned g, uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_gfn_info(rig->host, rig_dom(rig, g), gfn, &info),
                     0);
    return info;
}

bool rig_is(struct rig *rig, unsigned g, uint64_t gfn,
            enum pgshare_gfn_state state)
{
    return rig_info(rig, g, gfn).state == state;
}

bool rig_together(struct rig *rig, unsigned a, uint64_t gfn_a, unsigned b,
                  uint64_t gfn_b)
{
    struct pgshare_gfn_info one = rig_info(rig, a, gfn_a);
    struct pgshare_gfn_info two = rig_info(rig, b, gfn_b);

    return one.state == PGSHARE_GFN_SHARED && two.state == PGSHARE_GFN_SHARED &&
           one.frame == two.frame;
}

bool rig_zero_mapped(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count)
{
    struct pgshare_frame_info zero = { .size = sizeof(zero) };
    bool all = true;

    while (!pgshare_cow_next(rig->host, zero.frame, &zero) && zero.group)
        ;
    for (uint64_t i = 0; i < count; i++) {
        struct pgshare_gfn_info info = rig_info(rig, g, gfn + i);

        all &= info.state == PGSHARE_GFN_SHARED && !zero.group &&
               info.frame == zero.frame;
    }
    return all;
}

struct pgshare_host_stats rig_stats(struct rig *rig)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    ck_assert_int_eq(pgshare_host_stats(rig->host, &stats), 0);
    return stats;
}

struct pgshare_account rig_account(struct rig *rig, unsigned g)
{
    struct pgshare_account account = { .size = sizeof(account) };

    ck_assert_int_eq(pgshare_account(rig->host, rig_dom(rig, g), &account), 0);
    return account;
}

uint64_t rig_faults(struct rig *rig, enum pgshare_fault_outcome which)
{
    return rig_stats(rig).faults[which];
}

/* ---- suites ------------------------------------------------------------ */

static const char *missing(unsigned m)
{
    return machines[m].ops->missing ? machines[m].ops->missing() : NULL;
}

START_TEST(this_machine_cannot)
{
    pgs_skip(missing((unsigned)_i));
}
END_TEST

Suite *contract_suite(const char *name, const struct contract_test *tests,
                      unsigned n)
{
    Suite *suite = suite_create(name);

    for (unsigned m = 0; m < n_machines; m++) {
        TCase *tcase = pgs_tcase(suite, machines[m].name);
        bool cannot = missing(m);

        for (unsigned i = 0; i < n; i++)
            if ((machines[m].can & tests[i].needs) == tests[i].needs)
                tcase_add_loop_test(
                    tcase, cannot ? this_machine_cannot : *tests[i].test,
                    (int)m, (int)m + 1);
    }
    return suite;
}
