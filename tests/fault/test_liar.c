/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Backends that break the contract: answers nobody asked for, events about
 * what does not exist, tables that are not complete.
 */
#include "contract/rig.h"

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
    unsigned spoilt;
    bool belated; /* its answer comes when a QUERY has been submitted */
};

static struct liar liar;

static void complete(void *ctx, const struct pgshare_completion *completion)
{
    struct pgshare_completion spoilt = *completion;

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
 * for that question's. */
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
    ck_assert_uint_eq(errors(&rig) - before, 1);
    liar.belated = false;
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

        liar.sink->broken(liar.sink->ctx, stranger, 0, 1, 99);
        liar.sink->gone(liar.sink->ctx, stranger);
        ck_assert_int_eq(liar.sink->demand(liar.sink->ctx, stranger, 0, 1),
                         PGSHARE_ERR_NODOMAIN);
        ck_assert_int_eq(liar.sink->discarded(liar.sink->ctx, stranger, 0, 1,
                                              0, 99),
                         PGSHARE_ERR_NODOMAIN);
    }
    liar.sink->broken(liar.sink->ctx, dom, GFNS, 1, 99);
    liar.sink->broken(liar.sink->ctx, dom, 0, UINT64_MAX, 99);
    liar.sink->broken(liar.sink->ctx, dom, UINT64_MAX, 2, 99);
    liar.sink->broken(liar.sink->ctx, dom, 0, 0, 99);
    ck_assert_int_ne(liar.sink->discarded(liar.sink->ctx, dom, GFNS, 1, 0, 99),
                     0);
    ck_assert_int_ne(liar.sink->discarded(liar.sink->ctx, dom, 1, UINT64_MAX,
                                          1, 99),
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
    liar.sink->broken(liar.sink->ctx, dom, 20, 40, 99);
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
