/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once, for a while: vCPUs that write and read, devices, guests
 * that free, allocate and promise memory, hints, a domain that comes and goes,
 * an auditor and one runner, each in threads of its own.
 *
 * Every page has one thread that writes to it, which knows what it wrote last:
 * a content that many pages have, so that it is shared, and a stamp in it. It
 * reads before each write, and so finds a write that was lost, or a foreign
 * one, soon after it happened. Under the thread sanitizer the same finds races.
 */
#include "support/suite.h"

#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GUESTS 3u
#define VCPUS 2u
#define PAGES 96u /* of each guest */
#define CONTENTS 4u
#define SECONDS 1
/* A write that waits is done by then, or lost. */
#define PATIENCE_S 20

/* What a page should hold; its writer's alone. */
struct expected {
    uint32_t content;
    uint64_t stamp; /* in it, at `offset`; 0: none */
    uint64_t offset;
};

struct stress;

struct actor {
    struct stress *stress;
    struct pgshare_mock_domain *guest;
    uint64_t dom;
    uint64_t random;
    uint64_t first, count; /* pages that it writes to */
    struct expected pages[PAGES];
};

struct stress {
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    uint64_t group;
    struct pgshare_mock_domain *guests[GUESTS + 1];
    _Atomic bool stop, stop_runner, failed;
    _Atomic uint64_t actions;
    pthread_mutex_t lock;
    char text[256]; /* the first failure */
};

static uint8_t contents[CONTENTS][PGSHARE_PAGE_SIZE];

/* ---- tools ------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void
blame(struct stress *s, const char *format, ...)
{
    va_list args;

    pthread_mutex_lock(&s->lock);
    if (!atomic_exchange(&s->failed, true)) {
        va_start(args, format);
        vsnprintf(s->text, sizeof(s->text), format, args);
        va_end(args);
    }
    pthread_mutex_unlock(&s->lock);
    atomic_store(&s->stop, true);
}

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static void expected_bytes(const struct expected *page, uint8_t *ret)
{
    memcpy(ret, contents[page->content], PGSHARE_PAGE_SIZE);
    if (page->stamp)
        memcpy(ret + page->offset, &page->stamp, sizeof(page->stamp));
}

/* Is the page as its writer left it? */
static bool is_right(struct actor *a, uint64_t i)
{
    uint8_t bytes[PGSHARE_PAGE_SIZE];

    expected_bytes(&a->pages[i], bytes);
    return !pgshare_mock_compare(a->guest, a->first + i, 0, bytes,
                                 sizeof(bytes));
}

static void check(struct actor *a, uint64_t i, const char *when)
{
    if (!is_right(a, i))
        blame(a->stress, "GFN %" PRIu64 " of domain %" PRIx64 " is not what "
              "was written to it (%s)", a->first + i, a->dom, when);
}

/* After a write: it was done, or will be. */
static void await(struct actor *a, uint64_t i, int r)
{
    uint64_t end = now_s() + PATIENCE_S;

    if (r && r != PGSHARE_ERR_INPROGRESS)
        blame(a->stress, "write: %s", pgshare_error_name(r));
    while (r && !is_right(a, i)) {
        if (now_s() > end) {
            blame(a->stress, "a write to GFN %" PRIu64 " was lost",
                  a->first + i);
            return;
        }
        sched_yield();
    }
}

static void write_content(struct actor *a, uint64_t i)
{
    a->pages[i].content = (uint32_t)(next(&a->random) % CONTENTS);
    a->pages[i].stamp = 0;
    await(a, i, pgshare_mock_write_page(a->guest, a->first + i,
                                        contents[a->pages[i].content]));
}

static void write_stamp(struct actor *a, uint64_t i)
{
    struct expected *page = &a->pages[i];

    if (!page->stamp)
        page->offset = next(&a->random) % (PGSHARE_PAGE_SIZE / 8) * 8;
    page->stamp = next(&a->random) | 1;
    await(a, i, pgshare_mock_write(a->guest, a->first + i, page->offset,
                                   &page->stamp, sizeof(page->stamp)));
}

/* ---- actors ------------------------------------------------------------ */

static void *vcpu(void *ctx)
{
    struct actor *a = ctx;

    while (!atomic_load(&a->stress->stop)) {
        uint64_t i = next(&a->random) % a->count;

        check(a, i, "read by a vCPU");
        if (next(&a->random) % 3)
            write_content(a, i);
        else
            write_stamp(a, i);
        check(a, i, "read again by a vCPU");
        atomic_fetch_add(&a->stress->actions, 1);
    }
    return NULL;
}

/* A device that writes to pages that it holds. */
static void *device(void *ctx)
{
    struct actor *a = ctx;

    while (!atomic_load(&a->stress->stop)) {
        uint64_t i = next(&a->random) % a->count;
        struct expected *page = &a->pages[i];
        struct pgshare_mock_dma dma;
        int r;

        check(a, i, "before DMA");
        r = pgshare_mock_dma_begin(a->guest, a->first + i, 1,
                                   PGSHARE_MOCK_DMA_DECLARED, &dma);
        if (r == PGSHARE_ERR_BUSY || r == PGSHARE_ERR_INPROGRESS ||
            r == PGSHARE_ERR_NOFRAME)
            continue;
        if (r) {
            blame(a->stress, "DMA: %s", pgshare_error_name(r));
            break;
        }
        page->content = (uint32_t)(next(&a->random) % CONTENTS);
        page->stamp = 0;
        sched_yield();
        r = pgshare_mock_dma_write(&dma, 0, contents[page->content],
                                   PGSHARE_PAGE_SIZE);
        pgshare_mock_dma_end(&dma);
        if (r)
            blame(a->stress, "DMA was lost: %s", pgshare_error_name(r));
        check(a, i, "after DMA");
        atomic_fetch_add(&a->stress->actions, 1);
    }
    return NULL;
}

/* Frees a page, allocates it again, and uses it. */
static void cycle(struct actor *a, uint64_t i)
{
    static const uint8_t zeroes[PGSHARE_PAGE_SIZE];
    struct pgshare_host *host = a->stress->host;
    uint64_t gfn = a->first + i;
    int r;

    do { /* it may be a hole, by the library's books, a moment longer */
        r = pgshare_declare_free(host, a->dom, gfn, 1);
    } while (r == PGSHARE_ERR_INPROGRESS && !atomic_load(&a->stress->stop));
    if (r == PGSHARE_ERR_INPROGRESS)
        return;
    if (r) {
        blame(a->stress, "free: %s", pgshare_error_name(r));
        return;
    }
    sched_yield();
    do {
        r = pgshare_declare_allocated(host, a->dom, gfn, 1);
    } while (r == PGSHARE_ERR_INPROGRESS && !atomic_load(&a->stress->stop));
    if (r && r != PGSHARE_ERR_INPROGRESS)
        blame(a->stress, "allocated: %s", pgshare_error_name(r));
    if (!r && !is_right(a, i) &&
        pgshare_mock_compare(a->guest, gfn, 0, zeroes, sizeof(zeroes)))
        blame(a->stress, "GFN %" PRIu64 " is neither zero nor what it was",
              gfn);
    if (!r)
        write_content(a, i);
    else /* it is free still, and will be as it is */
        a->count = 0;
}

/* Promises a page, and takes it back if it has not paid. */
static void promise(struct actor *a, uint64_t i)
{
    struct pgshare_host *host = a->stress->host;
    uint64_t gfn = a->first + i;
    int r = pgshare_declare_volatile(host, a->dom, gfn, 1, NULL);

    if (r == PGSHARE_ERR_STATE || r == PGSHARE_ERR_BUSY)
        return;
    if (r) {
        blame(a->stress, "volatile: %s", pgshare_error_name(r));
        return;
    }
    sched_yield();
    do {
        r = pgshare_declare_withdraw(host, a->dom, gfn, 1, NULL);
    } while (r == PGSHARE_ERR_BUSY || r == PGSHARE_ERR_OWED);
    if (r && r != PGSHARE_ERR_RECLAIMED)
        blame(a->stress, "withdraw: %s", pgshare_error_name(r));
    if (!r)
        check(a, i, "withdrawn");
    write_content(a, i);
}

static void hint(struct actor *a)
{
    struct pgshare_host *host = a->stress->host;
    uint64_t gfn = next(&a->random) % PAGES;
    uint64_t other = pgshare_mock_handle(
        a->stress->guests[next(&a->random) % GUESTS]);

    pgshare_hint_same(host, a->dom, gfn, other, next(&a->random) % PAGES, 1);
    pgshare_hint_block(host, a->dom, gfn, 1, 1, next(&a->random) % 8);
    pgshare_hint_file(host, a->dom, gfn, 1, 1, next(&a->random) % 8);
    pgshare_declare_never_share(host, a->dom, gfn, 1,
                                next(&a->random) % 4 == 0, NULL);
}

/* What the guest's kernel says of its memory. */
static void *kernel(void *ctx)
{
    struct actor *a = ctx;

    while (!atomic_load(&a->stress->stop) && a->count) {
        uint64_t i = next(&a->random) % a->count;

        check(a, i, "before a declaration");
        switch (next(&a->random) % 4) {
        case 0:
            cycle(a, i);
            break;
        case 1:
            promise(a, i);
            break;
        default:
            hint(a);
            break;
        }
        atomic_fetch_add(&a->stress->actions, 1);
    }
    return NULL;
}

/* Marks, shares and unshares whatever there is. */
static void *sharer(void *ctx)
{
    struct actor *a = ctx;
    struct pgshare_host *host = a->stress->host;

    while (!atomic_load(&a->stress->stop)) {
        struct pgshare_share_request request = {
            .size = sizeof(request),
            .flags = PGSHARE_SHARE_MARK,
            .source_dom = pgshare_mock_handle(
                a->stress->guests[next(&a->random) % GUESTS]),
            .client_dom = a->dom,
            .source_gfn = next(&a->random) % (PAGES - 4),
            .client_gfn = next(&a->random) % (PAGES - 4),
            .count = 1 + next(&a->random) % 4,
        };
        uint64_t gfn = next(&a->random) % PAGES;

        pgshare_share(host, &request, NULL);
        if (next(&a->random) % 4 == 0)
            pgshare_unshare(host, a->dom, gfn, 1, NULL);
        if (next(&a->random) % 4 == 0 &&
            !pgshare_gfn_get(host, a->dom, gfn, 1, PGSHARE_GET_READ, NULL)) {
            sched_yield();
            if (pgshare_gfn_put(host, a->dom, gfn, 1, PGSHARE_GET_READ))
                blame(a->stress, "a hold was lost");
        }
        atomic_fetch_add(&a->stress->actions, 1);
    }
    return NULL;
}

/* A domain that joins, shares, and leaves. Its content stays as it is. */
static void *churner(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;

    while (!atomic_load(&s->stop)) {
        int r = pgshare_mock_join(a->guest, s->host, s->group);
        uint64_t i = next(&a->random) % a->count;

        if (r == PGSHARE_ERR_EXISTS || r == PGSHARE_ERR_NOFRAME) {
            sched_yield(); /* its removal goes on */
            continue;
        }
        if (r) {
            blame(s, "join: %s", pgshare_error_name(r));
            break;
        }
        a->dom = pgshare_mock_handle(a->guest);
        for (uint64_t k = 0; k < 8; k++)
            pgshare_hint_same(s->host, a->dom, next(&a->random) % PAGES,
                              pgshare_mock_handle(s->guests[k % GUESTS]),
                              next(&a->random) % PAGES, 1);
        pgshare_host_pass(s->host, 0);
        for (unsigned k = 0; k < 50; k++)
            sched_yield();
        check(a, i, "of a passing guest");
        write_stamp(a, i);
        r = pgshare_mock_leave(a->guest);
        if (r && r != PGSHARE_ERR_INPROGRESS)
            blame(s, "leave: %s", pgshare_error_name(r));
        for (uint64_t k = 0; k < a->count; k++)
            check(a, k, "of a guest that left");
        atomic_fetch_add(&s->actions, 1);
    }
    return NULL;
}

static void on_finding(void *ctx, const struct pgshare_finding *finding)
{
    blame(ctx, "audit: %s, domain %" PRIx64 ", GFN %" PRIx64 ", frame %" PRIu64
          ": %" PRIu64 " expected, %" PRIu64 " found",
          pgshare_invariant_name(finding->invariant), finding->dom,
          finding->gfn, finding->frame, finding->expected, finding->found);
}

static void audit(struct stress *s, uint32_t flags)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = flags,
        .finding = on_finding,
        .ctx = s,
    };
    struct pgshare_audit audit = { .size = sizeof(audit) };
    int r = pgshare_host_audit(s->host, &options, &audit);

    if (r && (r != PGSHARE_ERR_BUSY || flags))
        blame(s, "audit: %s", pgshare_error_name(r));
}

static void *auditor(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;

    while (!atomic_load(&s->stop)) {
        struct pgshare_host_stats stats = { .size = sizeof(stats) };
        struct pgshare_account account = { .size = sizeof(account) };
        struct pgshare_frame_info frame = { .size = sizeof(frame) };
        uint64_t after = 0;

        audit(s, 0);
        pgshare_host_stats(s->host, &stats);
        pgshare_account(s->host, a->dom, &account);
        while (!pgshare_cow_next(s->host, after, &frame))
            after = frame.frame;
        sched_yield();
    }
    return NULL;
}

static void *runner(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;

    while (!atomic_load(&s->stop_runner)) {
        int r = pgshare_host_run(s->host, NULL, NULL);

        if (r && r != PGSHARE_ERR_BUSY)
            blame(s, "run: %s", pgshare_error_name(r));
        if (next(&a->random) % 16 == 0)
            pgshare_host_pass(s->host, 0);
        sched_yield();
    }
    return NULL;
}

/* Takes part in whatever pass is under way. */
static void *scanner(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;

    while (!atomic_load(&s->stop)) {
        struct pgshare_scan_info info = { .size = sizeof(info) };
        uint64_t pages = 0;

        if (pgshare_scan_step(s->host, NULL, &pages) ||
            pgshare_scan_info(s->host, &info))
            blame(s, "the scanner");
        if (next(&a->random) % 64 == 0 &&
            pgshare_scan_floor(s->host, a->dom, 0, PAGES,
                               next(&a->random) % 3))
            blame(s, "a floor");
        if (!pages)
            sched_yield();
        atomic_fetch_add(&s->actions, 1);
    }
    return NULL;
}

/* ---- the test ---------------------------------------------------------- */

static struct actor *actor_new(struct stress *s, unsigned guest,
                               uint64_t first, uint64_t count)
{
    struct actor *a = calloc(1, sizeof(*a));

    ck_assert_ptr_nonnull(a);
    a->stress = s;
    a->guest = s->guests[guest];
    a->dom = pgshare_mock_handle(a->guest);
    a->random = pgs_test_seed() * 31 + guest * 7 + first * 3 + count + 1;
    a->first = first;
    a->count = count;
    for (uint64_t i = 0; i < count; i++)
        a->pages[i].content = (uint32_t)((first + i) % CONTENTS);
    return a;
}

static void fill(void *ctx, uint64_t gfn, void *ret_page)
{
    (void)ctx;
    memcpy(ret_page, contents[gfn % CONTENTS], PGSHARE_PAGE_SIZE);
}

static void set_up(struct stress *s, uint32_t flavour)
{
    struct pgshare_mock_options machine = {
        .size = sizeof(machine),
        .flavour = flavour,
        .flags = flavour % 2 ? PGSHARE_MOCK_CHANGE_LOG : 0,
        .frames = (GUESTS + 2) * PAGES + 64,
        .seed = pgs_test_seed(),
    };
    struct pgshare_host_options options = {
        .size = sizeof(options),
        .allocator = pgs_test_allocator(),
        .max_hints = 64,
    };

    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    for (unsigned i = 0; i < CONTENTS; i++)
        memset(contents[i], (int)i, PGSHARE_PAGE_SIZE);
    ck_assert_int_eq(pgshare_mock_machine_new(&machine, &s->machine), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_mock_backend(s->machine),
                                      &options, &s->host),
                     0);
    ck_assert_int_eq(pgshare_group_open(s->host, "all", &s->group), 0);
    for (unsigned i = 0; i <= GUESTS; i++) {
        ck_assert_int_eq(pgshare_mock_domain_new(s->machine, PAGES, NULL,
                                                 &s->guests[i]),
                         0);
        ck_assert_int_eq(pgshare_mock_populate(s->guests[i], 0, PAGES), 0);
        if (i < GUESTS)
            ck_assert_int_eq(pgshare_mock_join(s->guests[i], s->host,
                                               s->group),
                             0);
        ck_assert_int_eq(pgshare_mock_fill(s->guests[i], 0, PAGES, fill,
                                           NULL),
                         0);
    }
}

struct threads {
    pthread_t thread[32];
    struct actor *actor[32];
    unsigned n;
};

static void start(struct threads *t, void *(*run)(void *), struct actor *a)
{
    t->actor[t->n] = a;
    ck_assert_int_eq(pthread_create(&t->thread[t->n], NULL, run, a), 0);
    t->n++;
}

/* The runner goes on until all others have ended: they may wait for it. */
static void run_all(struct stress *s)
{
    const uint64_t part = PAGES / (VCPUS + 2);
    struct timespec time = { .tv_sec = SECONDS * (time_t)pgs_test_scale() };
    struct threads t = { .n = 0 };

    start(&t, runner, actor_new(s, 0, 0, 0));
    for (unsigned g = 0; g < GUESTS; g++) {
        for (unsigned i = 0; i < VCPUS; i++)
            start(&t, vcpu, actor_new(s, g, i * part, part));
        start(&t, kernel, actor_new(s, g, VCPUS * part, part));
        start(&t, device, actor_new(s, g, (VCPUS + 1) * part, part));
    }
    start(&t, sharer, actor_new(s, 0, 0, 0));
    start(&t, sharer, actor_new(s, 1, 0, 0));
    start(&t, scanner, actor_new(s, 0, 0, 0));
    start(&t, scanner, actor_new(s, 1, 0, 0));
    start(&t, churner, actor_new(s, GUESTS, 0, PAGES));
    start(&t, auditor, actor_new(s, 1, 0, 0));
    nanosleep(&time, NULL);
    atomic_store(&s->stop, true);
    for (unsigned i = 1; i < t.n; i++)
        pthread_join(t.thread[i], NULL);
    atomic_store(&s->stop_runner, true);
    pthread_join(t.thread[0], NULL);
    pgshare_host_settle(s->host, UINT64_C(1000000000));
    for (unsigned i = 0; i < t.n; i++) {
        for (uint64_t k = 0; k < t.actor[i]->count; k++)
            check(t.actor[i], k, "at the end");
        free(t.actor[i]);
    }
}

static void check_and_tear_down(struct stress *s)
{
    struct pgshare_mock_info info = { .size = sizeof(info) };

    audit(s, PGSHARE_AUDIT_BACKEND);
    ck_assert_msg(!atomic_load(&s->failed), "%s", s->text);
    ck_assert_uint_eq(pgshare_mock_check(s->machine), 0);
    pgshare_host_free(s->host);
    ck_assert_uint_eq(pgshare_mock_check(s->machine), 0);
    ck_assert_int_eq(pgshare_mock_info(s->machine, &info), 0);
    ck_assert_msg(!info.violations, "%s",
                  pgshare_mock_violation(s->machine, 0));
    ck_assert_uint_gt(atomic_load(&s->actions), 100);
    pgshare_mock_machine_free(s->machine);
    pthread_mutex_destroy(&s->lock);
}

static void stress(uint32_t flavour)
{
    struct stress s;

    set_up(&s, flavour);
    run_all(&s);
    check_and_tear_down(&s);
}

START_TEST(test_plain)
{
    stress(PGSHARE_MOCK_PLAIN);
}
END_TEST

START_TEST(test_platform)
{
    stress(PGSHARE_MOCK_PLAIN_PLATFORM);
}
END_TEST

START_TEST(test_linux)
{
    stress(PGSHARE_MOCK_LINUX);
}
END_TEST

START_TEST(test_xen)
{
    stress(PGSHARE_MOCK_XEN);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("stress");

    tcase_add_test(pgs_tcase(suite, "plain"), test_plain);
    tcase_add_test(pgs_tcase(suite, "platform"), test_platform);
    tcase_add_test(pgs_tcase(suite, "linux"), test_linux);
    tcase_add_test(pgs_tcase(suite, "xen"), test_xen);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("stress", make, argc, argv);
}
