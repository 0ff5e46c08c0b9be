/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small world for tests of the core: the mock machine, a host over it, two
 * guests in one trust group, all deterministic.
 *
 *     struct world w;
 *     world_open(&w, NULL);
 *     world_share(&w, 0, 100);
 *     ...
 *     world_close(&w);
 *
 * Closing checks the machine and the audit.
 */
#ifndef PGS_TESTS_UNIT_WORLD_H
#define PGS_TESTS_UNIT_WORLD_H

#include "mechanism/host.h"
#include "support/suite.h"

#include <pgshare/mock.h>
#include <pgshare/pgshare.h>
#include <pgshare/sys/decorator.h>

#include <string.h>

#define WORLD_GFNS 1024u
#define WORLD_PAGES 512u /* populated in each guest, from GFN 0 on */
#define WORLD_REPORTS 64u

struct world_options {
    uint32_t flavour;
    uint64_t frames; /* [4 * WORLD_PAGES] */
    uint64_t reserve_keep;
    uint64_t timeout_ns;
    uint64_t sharers_max;
    uint64_t extent_cost_ns;
    bool faulty; /* over a fault decorator */
    bool logged; /* with a change log */
};

struct world {
    struct pgshare_mock_machine *machine;
    struct pgshare_fault_backend *faults;
    struct pgshare_host *host;
    struct pgshare_mock_domain *guest[2];
    uint64_t dom[2];
    uint64_t group;
    uint64_t findings[PGSHARE_INVARIANT_BACKEND + 1];
    struct pgshare_report report[WORLD_REPORTS];
    unsigned n_reports;
    struct pgshare_outcome outcome;
    unsigned n_outcomes;
};

static inline void world_report(void *ctx, const struct pgshare_report *report)
{
    struct world *w = ctx;

    w->report[w->n_reports++ % WORLD_REPORTS] = *report;
}

static inline void world_outcome(void *ctx,
                                 const struct pgshare_outcome *outcome)
{
    struct world *w = ctx;

    w->outcome = *outcome;
    w->n_outcomes++;
}

/* Reports of one kind so far. */
static inline unsigned world_reports(const struct world *w, uint32_t kind)
{
    unsigned n = 0;

    for (unsigned i = 0; i < w->n_reports && i < WORLD_REPORTS; i++)
        n += w->report[i].kind == kind;
    return n;
}

/* A page with content of its own for each `value`. */
static inline void world_page(uint64_t value, unsigned char *ret_page)
{
    for (size_t i = 0; i < PGSHARE_PAGE_SIZE; i += sizeof(value))
        memcpy(ret_page + i, &value, sizeof(value));
}

/* Page i of each guest holds 1000 + i. */
static inline void world_fill(void *ctx, uint64_t gfn, void *ret_page)
{
    (void)ctx;
    world_page(1000 + gfn, ret_page);
}

static inline void world_add_guest(struct world *w, unsigned i)
{
    ck_assert_int_eq(pgshare_mock_domain_new(w->machine, WORLD_GFNS, NULL,
                                             &w->guest[i]),
                     0);
    ck_assert_int_eq(pgshare_mock_populate(w->guest[i], 0, WORLD_PAGES), 0);
    ck_assert_int_eq(pgshare_mock_fill(w->guest[i], 0, WORLD_PAGES, world_fill,
                                       NULL),
                     0);
    ck_assert_int_eq(pgshare_mock_join(w->guest[i], w->host, w->group), 0);
    w->dom[i] = pgshare_mock_handle(w->guest[i]);
    ck_assert_uint_ne(w->dom[i], 0);
}

static inline void world_open(struct world *w,
                              const struct world_options *options)
{
    static const struct world_options none;
    const struct world_options *o = options ? options : &none;
    struct pgshare_mock_options machine = {
        .size = sizeof(machine),
        .flavour = o->flavour,
        .flags = PGSHARE_MOCK_DETERMINISTIC | PGSHARE_MOCK_PARANOID |
                 (o->logged ? PGSHARE_MOCK_CHANGE_LOG : 0),
        .frames = o->frames ? o->frames : 4 * WORLD_PAGES,
        .sharers_max = o->sharers_max,
        .extent_cost_ns = o->extent_cost_ns,
    };
    struct pgshare_host_options host = {
        .size = sizeof(host),
        .allocator = pgs_test_allocator(),
        .report = world_report,
        .outcome = world_outcome,
        .ctx = w,
        .reserve_keep = o->reserve_keep,
        .timeout_ns = o->timeout_ns,
    };
    struct pgshare_backend *backend;

    memset(w, 0, sizeof(*w));
    ck_assert_int_eq(pgshare_mock_machine_new(&machine, &w->machine), 0);
    host.platform = pgshare_mock_platform(w->machine);
    backend = pgshare_mock_backend(w->machine);
    if (o->faulty) {
        ck_assert_int_eq(pgshare_fault_backend_new(backend, &w->faults), 0);
        backend = pgshare_fault_backend_base(w->faults);
    }
    ck_assert_int_eq(pgshare_host_new(backend, &host, &w->host), 0);
    ck_assert_int_eq(pgshare_group_open(w->host, "world", &w->group), 0);
    world_add_guest(w, 0);
    world_add_guest(w, 1);
}

static inline void world_finding(void *ctx,
                                 const struct pgshare_finding *finding)
{
    struct world *w = ctx;

    ck_assert_uint_le(finding->invariant, PGSHARE_INVARIANT_BACKEND);
    w->findings[finding->invariant]++;
}

/* Audits; answers how many violations there are, by kind in w->findings. */
static inline uint64_t world_audit(struct world *w, uint32_t flags)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = flags,
        .finding = world_finding,
        .ctx = w,
    };
    struct pgshare_audit audit = { .size = sizeof(audit) };

    memset(w->findings, 0, sizeof(w->findings));
    ck_assert_int_eq(pgshare_host_audit(w->host, &options, &audit), 0);
    return audit.violations;
}

static inline void world_assert_sound(struct world *w)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    if (world_audit(w, PGSHARE_AUDIT_BACKEND))
        for (uint32_t i = 1; i <= PGSHARE_INVARIANT_BACKEND; i++)
            ck_assert_msg(!w->findings[i], "%u violations of %s",
                          (unsigned)w->findings[i], pgshare_invariant_name(i));
    ck_assert_int_eq(pgshare_mock_info(w->machine, &info), 0);
    ck_assert_msg(!info.violations, "%s",
                  pgshare_mock_violation(w->machine, 0));
}

static inline void world_settle(struct world *w)
{
    ck_assert_int_eq(pgshare_host_settle(w->host, 1000000000), 0);
}

static inline void world_close(struct world *w)
{
    world_settle(w);
    world_assert_sound(w);
    ck_assert_ptr_null(pgshare_host_free(w->host));
    ck_assert_uint_eq(pgshare_mock_check(w->machine), 0);
    pgshare_fault_backend_free(w->faults);
    pgshare_mock_machine_free(w->machine);
}

/* Shares `count` pages from GFN `gfn` on between the two guests. */
static inline void world_share(struct world *w, uint64_t gfn, uint64_t count)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = w->dom[0],
        .source_gfn = gfn,
        .client_dom = w->dom[1],
        .client_gfn = gfn,
        .count = count,
    };

    ck_assert_int_eq(pgshare_share(w->host, &request, NULL), 0);
}

/* The guest writes one word. */
static inline int world_write(struct world *w, unsigned guest, uint64_t gfn,
                              uint64_t value)
{
    return pgshare_mock_write(w->guest[guest], gfn, 0, &value, sizeof(value));
}

/* Does the page hold what world_page(value) says? */
static inline bool world_holds(struct world *w, unsigned guest, uint64_t gfn,
                               uint64_t value)
{
    unsigned char page[PGSHARE_PAGE_SIZE];

    world_page(value, page);
    return !pgshare_mock_compare(w->guest[guest], gfn, 0, page, sizeof(page));
}

static inline struct pgshare_gfn_info world_gfn(struct world *w, unsigned guest,
                                                uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_gfn_info(w->host, w->dom[guest], gfn, &info), 0);
    return info;
}

static inline struct pgshare_account world_account(struct world *w,
                                                   unsigned guest)
{
    struct pgshare_account account = { .size = sizeof(account) };

    ck_assert_int_eq(pgshare_account(w->host, w->dom[guest], &account), 0);
    return account;
}

static inline struct pgshare_host_stats world_stats(struct world *w)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    ck_assert_int_eq(pgshare_host_stats(w->host, &stats), 0);
    return stats;
}

#endif
