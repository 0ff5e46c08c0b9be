/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Backends that break the contract: answers nobody asked for, events about
 * what does not exist, tables that are not complete.
 */
#include "contract/rig.h"

#define LATEST UINT64_MAX /* as a sequence number */

/* ---- a backend whose sink is in our hands ------------------------------ */

struct liar {
    struct pgshare_backend base;
    struct pgshare_backend *inner;
    const struct pgshare_sink *sink;
    /* Of the next operations of this kind the answer is spoilt. */
    uint32_t kind;
    void (*spoil)(struct pgshare_completion *completion);
    struct pgshare_sink ours;
    uint64_t token;
    uint64_t harvest; /* the last one's token */
    unsigned spoilt;
    bool belated; /* its answer comes when a QUERY has been submitted */
    bool deaf;    /* the host is always busy when a page was dropped */
    uint64_t harvested; /* the highest number of a completed harvest */
};

static struct liar liar;

static void complete(void *ctx, const struct pgshare_completion *completion)
{
    struct pgshare_completion spoilt = *completion;

    if (completion->token == liar.harvest &&
        completion->seq > liar.harvested)
        liar.harvested = completion->seq;
    if (liar.belated && completion->token == liar.token)
        return;
    if (liar.spoil && completion->token == liar.token) {
        liar.spoilt++;
        liar.spoil(&spoilt);
        liar.sink->complete(liar.sink->ctx, &spoilt);
    }
    liar.sink->complete(liar.sink->ctx, completion);
}

static void broken(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                   uint64_t seq)
{
    liar.sink->broken(liar.sink->ctx, dom, gfn, count, seq);
}

static int demand(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie)
{
    return liar.sink->demand(liar.sink->ctx, dom, gfn, cookie);
}

static int discarded(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                     int hole, uint64_t seq)
{
    if (liar.deaf)
        return PGSHARE_ERR_BUSY;
    return liar.sink->discarded(liar.sink->ctx, dom, gfn, count, hole, seq);
}

static void gone(void *ctx, uint64_t dom)
{
    liar.sink->gone(liar.sink->ctx, dom);
}

static int attach(struct pgshare_backend *backend, struct pgshare_host *host,
                  const struct pgshare_sink *sink,
                  struct pgshare_backend_info *ret_info)
{
    liar.sink = sink;
    liar.ours = (struct pgshare_sink){ sizeof(liar.ours), NULL, complete,
                                       broken, demand, discarded, gone };
    return liar.inner->ops->attach(liar.inner, host, &liar.ours, ret_info);
}

static void detach(struct pgshare_backend *backend)
{
    liar.inner->ops->detach(liar.inner);
}

static int domain_add(struct pgshare_backend *backend, uint64_t dom,
                      const struct pgshare_domain_options *options,
                      struct pgshare_domain_attach *ret_attach)
{
    return liar.inner->ops->domain_add(liar.inner, dom, options, ret_attach);
}

static void domain_remove(struct pgshare_backend *backend, void *cookie)
{
    liar.inner->ops->domain_remove(liar.inner, cookie);
}

static int submit(struct pgshare_backend *backend, const struct pgshare_op *ops,
                  size_t n)
{
    struct pgshare_completion late = { .token = liar.token };

    if (n && ops->kind == liar.kind)
        liar.token = ops->token;
    if (n && ops->kind == PGSHARE_OP_HARVEST)
        liar.harvest = ops->token;
    if (n && liar.belated && ops->kind == PGSHARE_OP_QUERY) {
        late.count = ops->count;
        liar.sink->complete(liar.sink->ctx, &late);
    }
    return liar.inner->ops->submit(liar.inner, ops, n);
}

static void poll(struct pgshare_backend *backend)
{
    if (liar.inner->ops->poll)
        liar.inner->ops->poll(liar.inner);
}

static struct pgshare_backend_ops table = {
    .size = sizeof(table),
    .version = PGSHARE_BACKEND_VERSION,
    .name = "liar",
    .attach = attach,
    .detach = detach,
    .domain_add = domain_add,
    .domain_remove = domain_remove,
    .submit = submit,
    .poll = poll,
};

static struct pgshare_backend *wrap(struct pgshare_backend *inner)
{
    liar = (struct liar){ .base = { &table }, .inner = inner };
    return &liar.base;
}

static void open_lying(struct rig *rig, int machine)
{
    struct rig_options options = { .wrap = wrap };

    rig_open_with(rig, machine, &options);
    rig_guest(rig);
    rig_guest(rig);
    rig_fill(rig, 0, 0, 8, 7);
    rig_fill(rig, 1, 0, 8, 7);
}

static uint64_t errors(struct rig *rig)
{
    return rig_stats(rig).backend_errors;
}

/* ---- answers ----------------------------------------------------------- */

START_TEST(answers_that_nobody_asked_for_are_counted_and_ignored)
{
    static const uint64_t tokens[] = { 0, 1, 2, 3, 0xfffe, 0x10000, 0x1fffe,
                                       UINT64_MAX, UINT64_MAX - 1 };
    struct rig rig;
    uint64_t before;

    open_lying(&rig, _i);
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    rig_settle(&rig);
    before = errors(&rig);
    for (unsigned i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        struct pgshare_completion answer = { .token = tokens[i],
                                             .count = 1,
                                             .reserve = 1000 };

        liar.sink->complete(liar.sink->ctx, &answer);
    }
    ck_assert_uint_eq(errors(&rig) - before,
                      sizeof(tokens) / sizeof(tokens[0]));
    rig_close(&rig);
}
END_TEST

static void wrong_token(struct pgshare_completion *completion)
{
    completion->token += 2;
}

static void first_out_of_range(struct pgshare_completion *completion)
{
    completion->first = 1000;
    completion->status = NULL;
    completion->ids = NULL;
    completion->reserve = 0;
}

static void count_out_of_range(struct pgshare_completion *completion)
{
    completion->count = UINT32_MAX;
    completion->status = NULL;
    completion->ids = NULL;
    completion->reserve = 0;
}

static void first_wraps(struct pgshare_completion *completion)
{
    completion->first = UINT32_MAX;
    completion->count = 2;
    completion->status = NULL;
    completion->ids = NULL;
    completion->reserve = 0;
}

START_TEST(answers_out_of_range_are_counted_and_ignored)
{
    static void (*const spoils[])(struct pgshare_completion *completion) = {
        wrong_token, first_out_of_range, count_out_of_range, first_wraps,
    };

    for (unsigned i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++)
        for (uint32_t kind = 1; kind < PGSHARE_OP_MAX; kind++) {
            struct rig rig;

            open_lying(&rig, _i);
            liar.kind = kind;
            liar.spoil = spoils[i];
            rig_must_share(&rig, 0, 0, 1, 0, 8);
            ck_assert_int_eq(rig_write(&rig, 0, 1), 0);
            ck_assert_int_eq(pgshare_unshare(rig.host, rig_dom(&rig, 1), 2, 2,
                                             NULL),
                             0);
            rig_settle(&rig);
            ck_assert_uint_eq(errors(&rig), liar.spoilt);
            liar.spoil = NULL;
            rig_close(&rig);
        }
}
END_TEST

static void first_page_differs(struct pgshare_completion *completion)
{
    completion->count = 1;
    completion->result = PGSHARE_ERR_DIFFERENT;
    completion->status = NULL;
    completion->reserve = 0;
}

/* The true answer comes second, says that all pages are equal, and is heard
 * for those that were not answered yet. */
START_TEST(what_was_answered_first_holds)
{
    struct rig rig;
    uint64_t before;

    open_lying(&rig, _i);
    liar.kind = PGSHARE_OP_COMPARE;
    liar.spoil = first_page_differs;
    before = errors(&rig);
    rig_share(&rig, 0, 0, 1, 0, 8);
    liar.spoil = NULL;
    if (liar.spoilt) { /* it does compare, and not merge in one go */
        ck_assert(!rig_together(&rig, 0, 0, 1, 0));
        ck_assert_uint_eq(errors(&rig) - before, liar.spoilt);
    }
    for (unsigned gfn = 1; gfn < 8; gfn++)
        ck_assert(rig_together(&rig, 0, gfn, 1, gfn));
    rig_close(&rig);
}
END_TEST

/* What became of it has been asked by then, and the late answer is not taken
 * for that question's; nor for a lie. */
START_TEST(an_answer_that_was_given_up_is_not_taken_for_another)
{
    struct rig_options options = { .wrap = wrap,
                                   .host.op_timeout_ns = SECOND / 1000 };
    struct rig rig;
    uint64_t before;

    rig_open_with(&rig, _i, &options);
    rig_guest(&rig);
    before = errors(&rig);
    liar.kind = PGSHARE_OP_PROTECT;
    liar.belated = true;
    rig_mark(&rig, 0, 0);
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_PROTECTED));
    ck_assert_uint_eq(errors(&rig) - before, 0);
    liar.belated = false;
    rig_close(&rig);
}
END_TEST

/* ---- reports ----------------------------------------------------------- */

/* The true answer; another follows. */
static void the_same(struct pgshare_completion *completion)
{
}

/* What the host counts it tells, in one report a run. */
START_TEST(what_is_counted_is_reported)
{
    struct rig rig;
    unsigned told = 0;

    open_lying(&rig, _i);
    rig_settle(&rig);
    ck_assert_uint_eq(errors(&rig), 0);
    ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_BACKEND_ERROR], 0);
    liar.spoil = the_same;
    for (uint32_t kind = 1; kind < PGSHARE_OP_MAX; kind++) {
        struct pgshare_completion stray = { .token = 1 };

        liar.kind = kind;
        rig_share(&rig, 0, kind % 8, 1, kind % 8, 1);
        rig_write(&rig, 0, kind % 8);
        for (uint32_t i = 0; i < kind; i++)
            liar.sink->complete(liar.sink->ctx, &stray);
        ck_assert_int_eq(pgshare_host_run(rig.host, NULL, NULL), 0);
        ck_assert_uint_eq(rig.reports[PGSHARE_REPORT_BACKEND_ERROR], ++told);
        ck_assert_uint_eq(rig.told[PGSHARE_REPORT_BACKEND_ERROR],
                          errors(&rig));
        ck_assert_int_eq(rig.report.error, PGSHARE_ERR_BACKEND);
        ck_assert_uint_eq(rig.report.dom, 0);
        ck_assert_uint_eq(rig.report.gfn, 0);
    }
    ck_assert_uint_gt(liar.spoilt, 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.told[PGSHARE_REPORT_BACKEND_ERROR], errors(&rig));
    rig_close(&rig);
}
END_TEST

/* Nobody has to run it again by chance: it is woken. */
START_TEST(a_host_at_rest_is_woken_to_report)
{
    struct pgshare_completion stray = { .token = 1 };
    struct pgshare_poll poll = { .size = sizeof(poll) };
    struct rig rig;

    open_lying(&rig, _i);
    rig_settle(&rig);
    liar.sink->complete(liar.sink->ctx, &stray);
    ck_assert_int_eq(pgshare_host_poll(rig.host, &poll), 0);
    ck_assert_uint_eq(poll.deadline_ns, 0);
    rig_close(&rig);
}
END_TEST

/* ---- order ------------------------------------------------------------- */

/* A break that a completed harvest should have told is not taken for one of
 * what the page has become since; one that is not older is. */
START_TEST(a_break_that_comes_after_its_harvest_is_counted_and_ignored)
{
    struct rig rig;
    uint64_t before;

    open_lying(&rig, _i);
    rig_must_share(&rig, 0, 0, 1, 0, 2);
    ck_assert_int_eq(pgshare_unshare(rig.host, rig_dom(&rig, 1), 0, 2, NULL),
                     0);
    rig_wait(&rig, SECOND / 10); /* the quarantine */
    rig_must_share(&rig, 0, 0, 1, 0, 2);
    rig_settle(&rig);
    ck_assert_uint_gt(liar.harvested, 1);
    before = errors(&rig);
    liar.sink->broken(liar.sink->ctx, rig_dom(&rig, 1), 0, 2,
                      liar.harvested - 1);
    liar.sink->broken(liar.sink->ctx, rig_dom(&rig, 1), 0, 2, 0);
    ck_assert_uint_eq(errors(&rig) - before, 2);
    rig_settle(&rig);
    ck_assert(rig_together(&rig, 0, 0, 1, 0));
    ck_assert(rig_together(&rig, 0, 1, 1, 1));
    rig_check(&rig);
    ck_assert_int_eq(rig_write(&rig, 1, 1), 0);
    rig_settle(&rig);
    ck_assert(rig_together(&rig, 0, 0, 1, 0));
    ck_assert(!rig_together(&rig, 0, 1, 1, 1));
    ck_assert_uint_eq(errors(&rig) - before, 2);
    rig_close(&rig);
}
END_TEST

static int in_flight;
static uint64_t flying;

static void drop_in_flight(struct pgshare_completion *completion)
{
    if (completion->count == 1 && !completion->result)
        in_flight = liar.sink->discarded(liar.sink->ctx, flying, 0, 1, 0,
                                         LATEST);
    completion->reserve = 0;
    completion->token += 2;
}

START_TEST(a_drop_of_a_page_in_flight_is_to_be_told_again)
{
    struct rig rig;

    open_lying(&rig, _i);
    flying = rig_dom(&rig, 0);
    in_flight = 0;
    liar.kind = PGSHARE_OP_PROTECT;
    liar.spoil = drop_in_flight;
    rig_mark(&rig, 0, 0);
    liar.spoil = NULL;
    ck_assert_uint_eq(liar.spoilt, 1);
    ck_assert_int_eq(in_flight, PGSHARE_ERR_BUSY);
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_PROTECTED));
    rig_close(&rig);
}
END_TEST

/* The backend's duty: what was dropped stays so until the host has heard. */
START_TEST(a_dropped_page_is_nothing_else_before_it_is_told)
{
    struct rig rig;

    open_lying(&rig, _i);
    rig_fill(&rig, 1, 0, 1, 0);
    liar.deaf = true;
    ck_assert_int_eq(rig.ops->drop(rig.guests[0].impl, 0, 1, 0), 0);
    rig_expect_zero(&rig, 0, 0, 1);
    rig_share(&rig, 0, 0, 1, 0, 1);
    rig_share(&rig, 1, 0, 0, 0, 1);
    ck_assert(rig_is(&rig, 0, 0, PGSHARE_GFN_PRIVATE));
    ck_assert_int_eq(rig.ops->drop(rig.guests[0].impl, 1, 1, 1), 0);
    rig_expect(&rig, 0, 1, 1, HOLE);
    ck_assert_int_eq(rig.ops->populate(rig.guests[0].impl, 1, 1),
                     PGSHARE_ERR_EXISTS);
    liar.deaf = false;
    rig_wait(&rig, SECOND / 10);
    ck_assert(rig_is(&rig, 0, 1, PGSHARE_GFN_HOLE));
    rig_must_share(&rig, 0, 0, 1, 0, 1);
    ck_assert_int_eq(rig.ops->populate(rig.guests[0].impl, 1, 1), 0);
    rig_expect_zero(&rig, 0, 1, 1);
    rig_settle(&rig);
    ck_assert(rig_together(&rig, 0, 0, 1, 0));
    ck_assert_uint_eq(errors(&rig), 0);
    rig_close(&rig);
}
END_TEST

/* ---- events ------------------------------------------------------------ */

START_TEST(events_about_what_does_not_exist_are_refused)
{
    struct rig rig;
    uint64_t dom;

    open_lying(&rig, _i);
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    dom = rig_dom(&rig, 0);
    for (unsigned i = 0; i < 3; i++) {
        static const uint64_t strangers[] = { 0, UINT64_MAX, 65536 };
        uint64_t stranger = strangers[i];

        liar.sink->broken(liar.sink->ctx, stranger, 0, 1, LATEST);
        liar.sink->gone(liar.sink->ctx, stranger);
        ck_assert_int_eq(liar.sink->demand(liar.sink->ctx, stranger, 0, 1),
                         PGSHARE_ERR_NODOMAIN);
        ck_assert_int_eq(liar.sink->discarded(liar.sink->ctx, stranger, 0, 1,
                                              0, LATEST),
                         PGSHARE_ERR_NODOMAIN);
    }
    liar.sink->broken(liar.sink->ctx, dom, GFNS, 1, LATEST);
    liar.sink->broken(liar.sink->ctx, dom, 0, UINT64_MAX, LATEST);
    liar.sink->broken(liar.sink->ctx, dom, UINT64_MAX, 2, LATEST);
    liar.sink->broken(liar.sink->ctx, dom, 0, 0, LATEST);
    ck_assert_int_eq(liar.sink->discarded(liar.sink->ctx, dom, GFNS, 1, 0,
                                          LATEST),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_ne(liar.sink->discarded(liar.sink->ctx, dom, 1, UINT64_MAX,
                                          1, LATEST),
                     0);
    rig_settle(&rig);
    for (unsigned gfn = 0; gfn < 4; gfn++)
        ck_assert(rig_together(&rig, 0, gfn, 1, gfn));
    rig_close(&rig);
}
END_TEST

START_TEST(breaks_of_pages_that_are_no_mappings_change_nothing)
{
    struct rig rig;
    uint64_t dom;

    open_lying(&rig, _i);
    dom = rig_dom(&rig, 0);
    ck_assert_int_eq(pgshare_declare_volatile(rig.host, dom, 40, 2, NULL), 0);
    liar.sink->broken(liar.sink->ctx, dom, 20, 40, LATEST);
    rig_settle(&rig);
    ck_assert_uint_eq(rig_account(&rig, 0).fifo, 2);
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    rig_close(&rig);
}
END_TEST

/* ---- tables ------------------------------------------------------------ */

START_TEST(backends_without_the_mandatory_are_refused)
{
    struct pgshare_backend_ops good = table;
    struct rig_options options = { .wrap = wrap };
    struct rig rig;

    for (unsigned i = 0; i < 8; i++) {
        switch (i) {
        case 0: table.size = sizeof(table) - 8; break;
        case 1: table.version = 0; break;
        case 2: table.version = PGSHARE_BACKEND_VERSION + 1; break;
        case 3: table.attach = NULL; break;
        case 4: table.detach = NULL; break;
        case 5: table.domain_add = NULL; break;
        case 6: table.domain_remove = NULL; break;
        default: table.submit = NULL; break;
        }
        ck_assert_int_eq(rig_try_open(&rig, _i, &options),
                         PGSHARE_ERR_BACKEND);
        table = good;
        rig_drop(&rig);
    }
}
END_TEST

static const struct contract_test tests[] = {
    { &answers_that_nobody_asked_for_are_counted_and_ignored, CAN_SHARE },
    { &answers_out_of_range_are_counted_and_ignored,
      CAN_SHARE | CAN_INLINE },
    { &what_was_answered_first_holds, CAN_SHARE | CAN_INLINE },
    { &an_answer_that_was_given_up_is_not_taken_for_another,
      CAN_SHARE | CAN_INLINE },
    { &what_is_counted_is_reported, CAN_SHARE | CAN_INLINE },
    { &a_host_at_rest_is_woken_to_report, CAN_SHARE | CAN_INLINE },
    { &a_break_that_comes_after_its_harvest_is_counted_and_ignored,
      CAN_SHARE | CAN_INLINE | CAN_HARVEST },
    { &a_drop_of_a_page_in_flight_is_to_be_told_again,
      CAN_SHARE | CAN_INLINE | CAN_DROP },
    { &a_dropped_page_is_nothing_else_before_it_is_told,
      CAN_SHARE | CAN_INLINE | CAN_DROP },
    { &events_about_what_does_not_exist_are_refused, CAN_SHARE | CAN_INLINE },
    { &breaks_of_pages_that_are_no_mappings_change_nothing,
      CAN_SHARE | CAN_INLINE },
    { &backends_without_the_mandatory_are_refused, CAN_INLINE },
};

static Suite *make(void)
{
    return contract_suite("fault-liar", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("fault-liar", make, argc, argv);
}
