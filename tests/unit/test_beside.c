/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking while others work: the audit, accounts, statistics and reverse maps
 * beside faults, shares, declarations and the runner. Nothing may be found
 * that is not wrong.
 */
#include "support/suite.h"

#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define PAGES 256u
#define TURNS 300u
#define WORKERS 6u

struct stage {
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    struct pgshare_mock_domain *guest[2];
    uint64_t dom[2];
    _Atomic unsigned working;
    _Atomic uint64_t turns;
    _Atomic uint64_t violations;
    uint32_t first; /* of the findings, an invariant */
};

static void fill(void *ctx, uint64_t gfn, void *ret_page)
{
    (void)ctx;
    memset(ret_page, (int)(gfn % 7 + 1), PGSHARE_PAGE_SIZE);
}

static void open_stage(struct stage *s, uint32_t flavour)
{
    struct pgshare_mock_options machine = {
        .size = sizeof(machine),
        .flavour = flavour,
        .frames = 8 * PAGES,
    };
    struct pgshare_host_options options = {
        .size = sizeof(options),
        .allocator = pgs_test_allocator(),
    };
    uint64_t group;

    memset(s, 0, sizeof(*s));
    ck_assert_int_eq(pgshare_mock_machine_new(&machine, &s->machine), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_mock_backend(s->machine),
                                      &options, &s->host),
                     0);
    ck_assert_int_eq(pgshare_group_open(s->host, "g", &group), 0);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(pgshare_mock_domain_new(s->machine, 2 * PAGES, NULL,
                                                 &s->guest[i]),
                         0);
        ck_assert_int_eq(pgshare_mock_populate(s->guest[i], 0, PAGES), 0);
        ck_assert_int_eq(pgshare_mock_fill(s->guest[i], 0, PAGES, fill, NULL),
                         0);
        ck_assert_int_eq(pgshare_mock_join(s->guest[i], s->host, group), 0);
        s->dom[i] = pgshare_mock_handle(s->guest[i]);
    }
}

/* ---- those who work ---------------------------------------------------- */

static uint64_t next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return *state >> 33;
}

static void share(struct stage *s, uint64_t *state)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = s->dom[0],
        .source_gfn = next(state) % (PAGES - 16),
        .client_dom = s->dom[1],
        .count = 1 + next(state) % 16,
    };

    request.client_gfn = request.source_gfn;
    pgshare_share(s->host, &request, NULL);
}

static void write_pages(struct stage *s, uint64_t *state)
{
    uint64_t value = next(state) % 4, gfn = next(state) % PAGES;

    pgshare_mock_write(s->guest[next(state) % 2], gfn, 0, &value,
                       sizeof(value));
}

static void declare(struct stage *s, uint64_t *state)
{
    uint64_t dom = s->dom[next(state) % 2], gfn = next(state) % PAGES;

    switch (next(state) % 8) {
    case 0:
        pgshare_declare_volatile(s->host, dom, gfn, 1, NULL);
        break;
    case 1:
        pgshare_declare_withdraw(s->host, dom, gfn, 1, NULL);
        break;
    case 2:
        pgshare_declare_free(s->host, dom, gfn, 1);
        break;
    case 3:
        pgshare_declare_allocated(s->host, dom, gfn, 1);
        break;
    case 4:
        pgshare_declare_overwrite(s->host, dom, gfn, 1);
        break;
    case 5:
        pgshare_declare_never_share(s->host, dom, gfn, 1, (int)(gfn % 2), NULL);
        break;
    case 6:
        if (!pgshare_gfn_get(s->host, dom, gfn, 1, PGSHARE_GET_READ, NULL))
            pgshare_gfn_put(s->host, dom, gfn, 1, PGSHARE_GET_READ);
        break;
    default:
        if (!pgshare_bonus_claim(s->host, dom, PAGES + gfn, 1, NULL))
            pgshare_bonus_return(s->host, dom, PAGES + gfn, 1, NULL);
        break;
    }
}

struct worker {
    struct stage *stage;
    unsigned number;
};

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct stage *s = worker->stage;
    uint64_t state = pgs_test_seed() + worker->number;

    for (uint64_t i = 0; i < TURNS * pgs_test_scale(); i++) {
        if (worker->number < 2)
            share(s, &state);
        else if (worker->number < 4)
            write_pages(s, &state);
        else
            declare(s, &state);
        atomic_fetch_add(&s->turns, 1);
    }
    atomic_fetch_sub(&s->working, 1);
    return NULL;
}

static void *run(void *arg)
{
    struct stage *s = arg;

    while (atomic_load(&s->working))
        pgshare_host_run(s->host, NULL, NULL);
    return NULL;
}

/* ---- those who look ---------------------------------------------------- */

static void finding(void *ctx, const struct pgshare_finding *found)
{
    struct stage *s = ctx;

    if (!atomic_fetch_add(&s->violations, 1))
        s->first = found->invariant;
}

static void audit_once(struct stage *s, uint32_t flags)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = flags,
        .finding = finding,
        .ctx = s,
    };
    struct pgshare_audit verdict = { .size = sizeof(verdict) };

    pgshare_host_audit(s->host, &options, &verdict);
}

static void *audit(void *arg)
{
    struct stage *s = arg;

    while (atomic_load(&s->working)) {
        audit_once(s, 0);
        audit_once(s, PGSHARE_AUDIT_BACKEND);
    }
    return NULL;
}

static int visit(void *ctx, uint64_t dom, uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    return pgshare_gfn_info(ctx, dom, gfn, &info);
}

static void *look(void *arg)
{
    struct stage *s = arg;
    struct pgshare_account account = { .size = sizeof(account) };
    struct pgshare_domain_stats domain = { .size = sizeof(domain) };
    struct pgshare_host_stats host = { .size = sizeof(host) };
    struct pgshare_frame_info frame = { .size = sizeof(frame) };

    while (atomic_load(&s->working)) {
        pgshare_account(s->host, s->dom[0], &account);
        pgshare_domain_stats(s->host, s->dom[1], &domain);
        pgshare_host_stats(s->host, &host);
        for (uint64_t after = 0; !pgshare_cow_next(s->host, after, &frame);
             after = frame.frame)
            pgshare_frame_mappings(s->host, frame.frame, visit, s->host);
    }
    return NULL;
}

START_TEST(test_nothing_is_found_that_is_not_wrong)
{
    struct stage s;
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS + 3];

    open_stage(&s, (uint32_t)_i);
    s.working = WORKERS;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ &s, i };
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]),
                         0);
    }
    ck_assert_int_eq(pthread_create(&threads[WORKERS], NULL, run, &s), 0);
    ck_assert_int_eq(pthread_create(&threads[WORKERS + 1], NULL, audit, &s), 0);
    ck_assert_int_eq(pthread_create(&threads[WORKERS + 2], NULL, look, &s), 0);
    for (unsigned i = 0; i < WORKERS + 3; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_msg(!s.violations, "%u violations, the first of %s",
                  (unsigned)s.violations, pgshare_invariant_name(s.first));
    ck_assert_int_eq(pgshare_host_settle(s.host, PGSHARE_FOREVER), 0);
    audit_once(&s, PGSHARE_AUDIT_BACKEND);
    ck_assert_msg(!s.violations, "%u violations in the end, the first of %s",
                  (unsigned)s.violations, pgshare_invariant_name(s.first));
    pgshare_host_free(s.host);
    ck_assert_uint_eq(pgshare_mock_check(s.machine), 0);
    pgshare_mock_machine_free(s.machine);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("beside");
    TCase *threads = pgs_tcase(suite, "threads");

    tcase_add_loop_test(threads, test_nothing_is_found_that_is_not_wrong,
                        PGSHARE_MOCK_PLAIN, PGSHARE_MOCK_XEN + 1);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("beside", make, argc, argv);
}
