/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once on this process's own memory: threads that write as virtual
 * CPUs would, declarations, holds, sharing and unsharing, guests that are
 * suspended, come and go, an auditor, scan workers and one runner.
 *
 * As in the stress test of the mock machine every page has one thread that
 * writes to it and knows what it wrote last: a content that many pages have, and
 * a stamp in it. It reads before each write, so that a write that was lost, or a
 * foreign one, is found soon after it happened.
 */
#include "support/suite.h"

#include <pgshare/kvm.h>
#include <pgshare/pgshare.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE PGSHARE_PAGE_SIZE
#define GUESTS 2u
#define VCPUS 2u
#define PAGES 128u /* of each guest */
#define PART 32u   /* … and of each thread that writes */
#define CONTENTS 4u
#define SECONDS 2

/* What a page should hold; its writer's alone. */
struct expected {
    uint32_t content;
    uint32_t offset; /* of the stamp */
    uint64_t stamp;  /* 0: none */
};

struct stress;

struct actor {
    struct stress *stress;
    unsigned guest;
    uint64_t random;
    uint64_t first, count; /* pages that it writes to */
    struct expected pages[PAGES];
};

struct stress {
    struct pgshare_kvm *kvm;
    struct pgshare_host *host;
    uint64_t group;
    struct pgshare_kvm_guest *guests[GUESTS + 1]; /* the last comes and goes */
    unsigned char *memory[GUESTS + 1];
    _Atomic bool stop, stop_runner, failed;
    _Atomic uint64_t actions;
    pthread_mutex_t lock;
    char text[256]; /* the first failure */
};

static unsigned char contents[CONTENTS][PGSHARE_PAGE_SIZE];

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

static unsigned char *page_at(const struct actor *a, uint64_t i)
{
    return a->stress->memory[a->guest] + (a->first + i) * PAGE;
}

static uint64_t dom_of(const struct stress *s, unsigned guest)
{
    return pgshare_kvm_handle(s->guests[guest]);
}

static bool is_right(const struct actor *a, uint64_t i)
{
    const struct expected *page = &a->pages[i];
    unsigned char bytes[PGSHARE_PAGE_SIZE];

    memcpy(bytes, contents[page->content], PAGE);
    if (page->stamp)
        memcpy(bytes + page->offset, &page->stamp, sizeof(page->stamp));
    return !memcmp(bytes, page_at(a, i), PAGE);
}

static void check(struct actor *a, uint64_t i, const char *when)
{
    if (!is_right(a, i))
        blame(a->stress, "page %" PRIu64 " of guest %u is not what was written "
              "to it (%s)", a->first + i, a->guest, when);
}

static void write_content(struct actor *a, uint64_t i)
{
    a->pages[i].content = (uint32_t)(next(&a->random) % CONTENTS);
    a->pages[i].stamp = 0;
    memcpy(page_at(a, i), contents[a->pages[i].content], PAGE);
}

static void write_stamp(struct actor *a, uint64_t i)
{
    struct expected *page = &a->pages[i];

    if (!page->stamp)
        page->offset = (uint32_t)(next(&a->random) % (PAGE / 8) * 8);
    page->stamp = next(&a->random) | 1;
    memcpy(page_at(a, i) + page->offset, &page->stamp, sizeof(page->stamp));
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
        if (next(&a->random) % 8 == 0)
            sched_yield();
        atomic_fetch_add(&a->stress->actions, 1);
    }
    return NULL;
}

/* A device that overwrites a page that it holds. */
static void *device(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;

    while (!atomic_load(&s->stop)) {
        uint64_t i = next(&a->random) % a->count;
        int r;

        check(a, i, "before a hold");
        r = pgshare_gfn_get(s->host, dom_of(s, a->guest), a->first + i, 1,
                            PGSHARE_GET_WRITE, NULL);
        if (r == PGSHARE_ERR_BUSY || r == PGSHARE_ERR_INPROGRESS ||
            r == PGSHARE_ERR_NOFRAME)
            continue;
        if (r) {
            blame(s, "get: %s", pgshare_error_name(r));
            break;
        }
        check(a, i, "held");
        sched_yield();
        write_content(a, i);
        if (pgshare_gfn_put(s->host, dom_of(s, a->guest), a->first + i, 1,
                            PGSHARE_GET_WRITE))
            blame(s, "a hold was lost");
        atomic_fetch_add(&s->actions, 1);
    }
    return NULL;
}

/* Frees a page, allocates it again, and uses it. */
static void cycle(struct actor *a, uint64_t i)
{
    static const unsigned char zeroes[PGSHARE_PAGE_SIZE];
    struct stress *s = a->stress;
    uint64_t gfn = a->first + i, dom = dom_of(s, a->guest);
    int r;

    do { /* it may be a hole, by the library's books, a moment longer */
        r = pgshare_declare_free(s->host, dom, gfn, 1);
    } while (r == PGSHARE_ERR_INPROGRESS);
    if (r) {
        blame(s, "free: %s", pgshare_error_name(r));
        return;
    }
    sched_yield();
    do {
        r = pgshare_declare_allocated(s->host, dom, gfn, 1);
    } while (r == PGSHARE_ERR_INPROGRESS);
    if (r)
        blame(s, "allocated: %s", pgshare_error_name(r));
    if (!is_right(a, i) && memcmp(page_at(a, i), zeroes, PAGE))
        blame(s, "page %" PRIu64 " is neither zero nor what it was", gfn);
    write_content(a, i);
}

/* Promises a page, and takes it back if it has not paid. */
static void promise(struct actor *a, uint64_t i)
{
    struct stress *s = a->stress;
    uint64_t gfn = a->first + i, dom = dom_of(s, a->guest);
    int r = pgshare_declare_volatile(s->host, dom, gfn, 1, NULL);

    if (r == PGSHARE_ERR_STATE || r == PGSHARE_ERR_BUSY)
        return;
    if (r) {
        blame(s, "volatile: %s", pgshare_error_name(r));
        return;
    }
    sched_yield();
    do {
        r = pgshare_declare_withdraw(s->host, dom, gfn, 1, NULL);
    } while (r == PGSHARE_ERR_BUSY || r == PGSHARE_ERR_OWED);
    if (r && r != PGSHARE_ERR_RECLAIMED)
        blame(s, "withdraw: %s", pgshare_error_name(r));
    if (!r)
        check(a, i, "withdrawn");
    write_content(a, i);
}

/* A balloon: the page goes, and comes back as zeroes. */
static void balloon(struct actor *a, uint64_t i)
{
    struct stress *s = a->stress;
    struct pgshare_kvm_guest *guest = s->guests[a->guest];
    int r;

    do {
        r = pgshare_kvm_ram_remove(guest, a->first + i, 1);
    } while (r == PGSHARE_ERR_INPROGRESS);
    if (r == PGSHARE_ERR_BUSY)
        return;
    if (r) {
        blame(s, "remove: %s", pgshare_error_name(r));
        return;
    }
    sched_yield();
    r = pgshare_kvm_ram_add(guest, a->first + i, 1);
    if (r)
        blame(s, "add: %s", pgshare_error_name(r));
    a->pages[i] = (struct expected){ .content = 0 };
    check(a, i, "a balloon gave it back");
}

/* What the guest's kernel says of its memory. */
static void *kernel(void *ctx)
{
    struct actor *a = ctx;

    while (!atomic_load(&a->stress->stop)) {
        uint64_t i = next(&a->random) % a->count;

        check(a, i, "before a declaration");
        switch (next(&a->random) % 4) {
        case 0:
            cycle(a, i);
            break;
        case 1:
            promise(a, i);
            break;
        case 2:
            balloon(a, i);
            break;
        default:
            pgshare_declare_never_share(a->stress->host,
                                        dom_of(a->stress, a->guest),
                                        a->first + i, 1,
                                        next(&a->random) % 4 == 0, NULL);
            break;
        }
        atomic_fetch_add(&a->stress->actions, 1);
    }
    return NULL;
}

/* Shares and unshares whatever there is; marks, too. */
static void *sharer(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;

    while (!atomic_load(&s->stop)) {
        struct pgshare_share_request request = {
            .size = sizeof(request),
            .flags = PGSHARE_SHARE_MARK,
            .source_dom = dom_of(s, (unsigned)(next(&a->random) % GUESTS)),
            .client_dom = dom_of(s, a->guest),
            .source_gfn = next(&a->random) % (PAGES - 8),
            .client_gfn = next(&a->random) % (PAGES - 8),
            .count = 1 + next(&a->random) % 8,
        };
        uint64_t gfn = next(&a->random) % (PAGES - 4), tickets[4];

        pgshare_share(s->host, &request, NULL);
        if (next(&a->random) % 4 == 0)
            pgshare_unshare(s->host, request.client_dom, gfn, 4, NULL);
        if (next(&a->random) % 4 == 0 &&
            !pgshare_mark_ro(s->host, request.client_dom, gfn, 4, tickets,
                             NULL))
            pgshare_unmark(s->host, request.client_dom, gfn, 4, tickets, NULL);
        atomic_fetch_add(&s->actions, 1);
    }
    return NULL;
}

/* Suspends a guest for a while, or makes all of it private. */
static void *operator(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };
    struct timespec rest = { .tv_nsec = 3000000 };

    while (!atomic_load(&s->stop)) {
        uint64_t dom = dom_of(s, a->guest);
        int r = pgshare_domain_suspend(s->host, dom);

        nanosleep(&rest, NULL);
        if (!r) {
            do {
                r = pgshare_domain_resume(s->host, dom);
            } while (r == PGSHARE_ERR_INPROGRESS);
            if (r)
                blame(s, "resume: %s", pgshare_error_name(r));
        } else if (r != PGSHARE_ERR_INPROGRESS && r != PGSHARE_ERR_BUSY) {
            blame(s, "suspend: %s", pgshare_error_name(r));
        }
        nanosleep(&rest, NULL);
        if (next(&a->random) % 4 == 0)
            pgshare_domain_unshare(s->host, dom, 0, PAGES, 0, &progress);
        atomic_fetch_add(&s->actions, 1);
    }
    return NULL;
}

/* A guest that joins, shares, and leaves. Its content stays as it is. */
static void *churner(void *ctx)
{
    struct actor *a = ctx;
    struct stress *s = a->stress;
    struct timespec rest = { .tv_nsec = 2000000 };

    while (!atomic_load(&s->stop)) {
        int r = pgshare_kvm_join(s->guests[a->guest], s->host, s->group);
        uint64_t i = next(&a->random) % a->count;

        if (r == PGSHARE_ERR_EXISTS || r == PGSHARE_ERR_NOFRAME) {
            sched_yield(); /* its removal goes on */
            continue;
        }
        if (r) {
            blame(s, "join: %s", pgshare_error_name(r));
            break;
        }
        for (unsigned k = 0; k < 8; k++)
            pgshare_hint_same(s->host, dom_of(s, a->guest),
                              next(&a->random) % PAGES, dom_of(s, k % GUESTS),
                              next(&a->random) % PAGES, 1);
        pgshare_host_pass(s->host, 0);
        nanosleep(&rest, NULL);
        check(a, i, "of a passing guest");
        write_stamp(a, i);
        r = pgshare_kvm_leave(s->guests[a->guest]);
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
    struct timespec rest = { .tv_nsec = 1000000 };

    while (!atomic_load(&a->stress->stop)) {
        struct pgshare_kvm_info info = { .size = sizeof(info) };

        audit(a->stress, 0);
        pgshare_kvm_info(a->stress->kvm, &info);
        nanosleep(&rest, NULL);
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

static void *scanner(void *ctx)
{
    struct actor *a = ctx;

    while (!atomic_load(&a->stress->stop)) {
        uint64_t pages = 0;

        if (pgshare_scan_step(a->stress->host, NULL, &pages))
            blame(a->stress, "the scanner");
        if (!pages)
            sched_yield();
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
    a->guest = guest;
    a->random = pgs_test_seed() * 31 + guest * 7 + first * 3 + count + 1;
    a->first = first;
    a->count = count;
    for (uint64_t i = 0; i < count; i++)
        a->pages[i].content = (uint32_t)((first + i) % CONTENTS);
    return a;
}

static void make_guest(struct stress *s, unsigned g, uint32_t flags)
{
    struct pgshare_kvm_guest_options options = { .size = sizeof(options),
                                                 .flags = flags };

    s->memory[g] = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(s->memory[g], MAP_FAILED);
    for (unsigned i = 0; i < PAGES; i++)
        memcpy(s->memory[g] + i * PAGE, contents[i % CONTENTS], PAGE);
    ck_assert_int_eq(pgshare_kvm_guest_new(s->kvm, PAGES, &options,
                                           &s->guests[g]),
                     0);
    ck_assert_int_eq(pgshare_kvm_slot_add(s->guests[g], 0, PAGES, s->memory[g],
                                          0, NULL),
                     0);
}

static void set_up(struct stress *s, uint32_t flags)
{
    struct pgshare_host_options options = {
        .size = sizeof(options),
        .allocator = pgs_test_allocator(),
        .max_hints = 64,
    };

    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    for (unsigned i = 0; i < CONTENTS; i++)
        memset(contents[i], (int)i, PAGE);
    ck_assert_int_eq(pgshare_kvm_new(NULL, &s->kvm), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_kvm_backend(s->kvm), &options,
                                      &s->host),
                     0);
    ck_assert_int_eq(pgshare_group_open(s->host, "all", &s->group), 0);
    for (unsigned g = 0; g <= GUESTS; g++)
        make_guest(s, g, flags);
    for (unsigned g = 0; g < GUESTS; g++)
        ck_assert_int_eq(pgshare_kvm_join(s->guests[g], s->host, s->group), 0);
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
    struct timespec time = { .tv_sec = SECONDS * (time_t)pgs_test_scale() };
    struct threads t = { .n = 0 };

    start(&t, runner, actor_new(s, 0, 0, 0));
    for (unsigned g = 0; g < GUESTS; g++) {
        for (unsigned i = 0; i < VCPUS; i++)
            start(&t, vcpu, actor_new(s, g, i * PART, PART));
        start(&t, kernel, actor_new(s, g, VCPUS * PART, PART));
        start(&t, device, actor_new(s, g, (VCPUS + 1) * PART, PART));
        start(&t, operator, actor_new(s, g, 0, 0));
    }
    start(&t, sharer, actor_new(s, 0, 0, 0));
    start(&t, sharer, actor_new(s, 1, 0, 0));
    start(&t, scanner, actor_new(s, 0, 0, 0));
    start(&t, churner, actor_new(s, GUESTS, 0, PAGES));
    start(&t, auditor, actor_new(s, 0, 0, 0));
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
    struct pgshare_kvm_info info = { .size = sizeof(info) };
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    audit(s, PGSHARE_AUDIT_BACKEND);
    ck_assert_msg(!atomic_load(&s->failed), "%s", s->text);
    ck_assert_int_eq(pgshare_host_stats(s->host, &stats), 0);
    ck_assert_uint_gt(stats.compared, 100);
    ck_assert_uint_eq(stats.backend_errors, 0);
    for (unsigned g = 0; g < GUESTS; g++)
        ck_assert_int_eq(pgshare_kvm_leave(s->guests[g]), 0);
    pgshare_host_free(s->host);
    for (unsigned g = 0; g <= GUESTS; g++) {
        pgshare_kvm_guest_free(s->guests[g]);
        munmap(s->memory[g], PAGES * PAGE);
    }
    ck_assert_int_eq(pgshare_kvm_info(s->kvm, &info), 0);
    ck_assert_uint_eq(info.frames, 0);
    ck_assert_uint_eq(info.held, 0);
    ck_assert_uint_eq(info.pool_pages, 0);
    ck_assert_uint_gt(atomic_load(&s->actions), 100);
    pgshare_kvm_free(s->kvm);
    pthread_mutex_destroy(&s->lock);
}

static void stress(uint32_t flags)
{
    struct stress s;

    for (uint32_t i = 0; i < PGSHARE_KVM_FEATURES; i++) {
        struct pgshare_kvm_probe probe = { .size = sizeof(probe) };

        ck_assert_int_eq(pgshare_kvm_probe(i, &probe), 0);
        if (probe.verdict == PGSHARE_KVM_REFUSED)
            pgs_skip(probe.text);
    }
    set_up(&s, flags);
    run_all(&s);
    check_and_tear_down(&s);
}

START_TEST(test_kernel)
{
    stress(0);
}
END_TEST

START_TEST(test_trapped)
{
    stress(PGSHARE_KVM_TRAPPED);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("kvm-stress");

    tcase_add_test(pgs_tcase(suite, "kernel"), test_kernel);
    tcase_add_test(pgs_tcase(suite, "trapped"), test_trapped);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-stress", make, argc, argv);
}
