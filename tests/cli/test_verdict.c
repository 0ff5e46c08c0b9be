/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `pgshare demo` says when something is wrong. The program's own parts are
 * linked here, except for the story: that is a short one of ours, which does
 * harm behind the back of the shadow copies and of the library.
 */
#include "command.h"
#include "demo/figures.h"
#include "mechanism/host.h"
#include "mock/machine.h"
#include "support/suite.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

#define GFNS 24u
#define PAGES 16u /* populated, from GFN 0 on */
#define ZONE 8u   /* of these, what the guest's kernel has: from here on */
#define SHARED 4u /* GFNs below are shared by both guests */

/* A page's content: no byte of it is zero. */
static void make_page(uint64_t gfn, unsigned char ret_page[PGSHARE_PAGE_SIZE])
{
    for (size_t i = 0; i < PGSHARE_PAGE_SIZE; i++)
        ret_page[i] = (unsigned char)(1 + (gfn * 31 + i) % 255);
}

/* ---- what is compared -------------------------------------------------- */

/* The last page is there, too, behind a hole. */
#define LAST (GFNS - 1)
#define PRESENT (PAGES + 1)

/* A guest without a host, and its shadow. */
struct pair {
    struct pgshare_mock_machine *machine;
    struct pgshare_mock_domain *domain;
    struct shadow shadow;
};

static void open_pair(struct pair *pair)
{
    unsigned char page[PGSHARE_PAGE_SIZE];

    ck_assert_int_eq(pgshare_mock_machine_new(NULL, &pair->machine), 0);
    ck_assert_int_eq(pgshare_mock_domain_new(pair->machine, GFNS, NULL,
                                             &pair->domain),
                     0);
    ck_assert_int_eq(pgshare_mock_populate(pair->domain, 0, PAGES), 0);
    ck_assert_int_eq(pgshare_mock_populate(pair->domain, LAST, 1), 0);
    ck_assert_int_eq(shadow_init(&pair->shadow, GFNS), 0);
    shadow_set(&pair->shadow, PAGES, LAST - PAGES, SHADOW_HOLE);
    for (uint64_t gfn = 0; gfn < ZONE; gfn++) {
        make_page(gfn, page);
        ck_assert_int_eq(pgshare_mock_write_page(pair->domain, gfn, page), 0);
        ck_assert_int_eq(shadow_write(&pair->shadow, gfn, 0, page,
                                      sizeof(page)),
                         0);
    }
}

static void close_pair(struct pair *pair)
{
    shadow_fini(&pair->shadow);
    pgshare_mock_domain_free(pair->domain);
    pgshare_mock_machine_free(pair->machine);
}

/* Changes one byte, which the shadow is not told. */
static void flip(struct pair *pair, uint64_t gfn, uint64_t offset)
{
    unsigned char byte;

    ck_assert_int_eq(pgshare_mock_read(pair->domain, gfn, offset, &byte, 1), 0);
    byte ^= (unsigned char)(1u << offset % 8);
    ck_assert_int_eq(pgshare_mock_write(pair->domain, gfn, offset, &byte, 1),
                     0);
}

static struct shadow_verdict check(const struct pair *pair)
{
    struct shadow_verdict verdict = { 0 };

    shadow_check(&pair->shadow, pair->domain, &verdict);
    return verdict;
}

static void write_zeroes(struct pair *pair, uint64_t gfn)
{
    static const unsigned char zeroes[PGSHARE_PAGE_SIZE];

    ck_assert_int_eq(pgshare_mock_write_page(pair->domain, gfn, zeroes), 0);
}

START_TEST(test_nothing_is_wrong)
{
    struct pair pair;

    open_pair(&pair);
    ck_assert_uint_eq(check(&pair).wrong, 0);
    ck_assert_uint_eq(check(&pair).checked, PRESENT);
    close_pair(&pair);
}
END_TEST

START_TEST(test_every_byte_counts)
{
    static const uint64_t gfns[] = { 0, ZONE - 1, ZONE, LAST };
    struct pair pair;

    open_pair(&pair);
    for (size_t i = 0; i < N(gfns); i++)
        for (uint64_t offset = 0; offset < PGSHARE_PAGE_SIZE; offset++) {
            flip(&pair, gfns[i], offset);
            ck_assert_uint_eq(check(&pair).checked, PRESENT);
            ck_assert_uint_eq(check(&pair).wrong, 1);
            ck_assert_uint_eq(check(&pair).first, gfns[i]);
            flip(&pair, gfns[i], offset);
        }
    ck_assert_uint_eq(check(&pair).wrong, 0);
    close_pair(&pair);
}
END_TEST

START_TEST(test_verdicts_add_up)
{
    struct shadow_verdict verdict = { 0 };
    struct pair pair;

    open_pair(&pair);
    flip(&pair, 5, 0);
    flip(&pair, 11, 17);
    shadow_check(&pair.shadow, pair.domain, &verdict);
    ck_assert_uint_eq(verdict.wrong, 2);
    ck_assert_uint_eq(verdict.first, 5);
    flip(&pair, 5, 0);
    shadow_check(&pair.shadow, pair.domain, &verdict);
    ck_assert_uint_eq(verdict.wrong, 3);
    ck_assert_uint_eq(verdict.first, 5);
    ck_assert_uint_eq(verdict.checked, 2 * PRESENT);
    close_pair(&pair);
}
END_TEST

START_TEST(test_lost_memory_is_wrong)
{
    struct pair pair;

    open_pair(&pair);
    ck_assert_int_eq(pgshare_mock_depopulate(pair.domain, 3, 1), 0);
    ck_assert_uint_eq(check(&pair).wrong, 1);
    ck_assert_uint_eq(check(&pair).first, 3);
    shadow_set(&pair.shadow, 3, 1, SHADOW_HOLE);
    ck_assert_uint_eq(check(&pair).wrong, 0);
    ck_assert_uint_eq(check(&pair).checked, PRESENT - 1);
    close_pair(&pair);
}
END_TEST

START_TEST(test_free_pages_may_be_zero)
{
    static const unsigned flags[] = { SHADOW_FREE, SHADOW_OFFERED };
    struct pair pair;

    open_pair(&pair);
    for (uint64_t i = 0; i < N(flags); i++) {
        shadow_set(&pair.shadow, i, 1, flags[i]);
        ck_assert_uint_eq(check(&pair).wrong, 0);
        flip(&pair, i, 100);
        ck_assert_uint_eq(check(&pair).wrong, 1);
        ck_assert(!shadow_adopt(&pair.shadow, pair.domain, i));
        write_zeroes(&pair, i);
        ck_assert_uint_eq(check(&pair).wrong, 0);
        flip(&pair, i, 100);
        ck_assert_uint_eq(check(&pair).wrong, 1);
        flip(&pair, i, 100);
        shadow_clear(&pair.shadow, i, 1, flags[i]);
        ck_assert_uint_eq(check(&pair).wrong, 1); /* in use: no more */
        shadow_set(&pair.shadow, i, 1, flags[i]);
        ck_assert(shadow_adopt(&pair.shadow, pair.domain, i));
        ck_assert(!shadow_has(&pair.shadow, i, flags[i]));
        ck_assert_uint_eq(check(&pair).wrong, 0);
    }
    close_pair(&pair);
}
END_TEST

static const unsigned char *base_page(void *ctx, uint64_t gfn)
{
    return gfn < ZONE ? NULL : ctx;
}

/* Whatever the bytes come from, the guest's are compared with them. */
START_TEST(test_every_source_counts)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    struct pair pair;

    open_pair(&pair);
    make_page(77, page);
    shadow_borrow(&pair.shadow, 0, page);
    ck_assert_uint_eq(check(&pair).wrong, 1);
    ck_assert_int_eq(pgshare_mock_write_page(pair.domain, 0, page), 0);
    ck_assert_uint_eq(check(&pair).wrong, 0);
    for (uint64_t from = 0; from < 2; from++) { /* borrowed, owned */
        ck_assert_int_eq(shadow_copy(&pair.shadow, 2, &pair.shadow, from), 0);
        ck_assert_uint_eq(check(&pair).wrong, 1);
        ck_assert_uint_eq(check(&pair).first, 2);
    }
    make_page(2, page);
    ck_assert_int_eq(shadow_write(&pair.shadow, 2, 0, page, sizeof(page)), 0);
    make_page(77, page);
    pair.shadow.base = base_page;
    pair.shadow.ctx = page;
    ck_assert_uint_eq(check(&pair).wrong, PRESENT - ZONE);
    for (uint64_t gfn = ZONE; gfn < PAGES; gfn++)
        ck_assert_int_eq(pgshare_mock_write_page(pair.domain, gfn, page), 0);
    ck_assert_uint_eq(check(&pair).wrong, 1);
    ck_assert_int_eq(pgshare_mock_write_page(pair.domain, LAST, page), 0);
    ck_assert_uint_eq(check(&pair).wrong, 0);
    close_pair(&pair);
}
END_TEST

/* ---- what is concluded ------------------------------------------------- */

START_TEST(test_figures)
{
    struct figures *figures = calloc(1, sizeof(*figures));
    uint64_t *wrong[4];

    ck_assert_ptr_nonnull(figures);
    wrong[0] = &figures->content.wrong;
    wrong[1] = &figures->audit.violations;
    wrong[2] = &figures->machine.violations;
    wrong[3] = &figures->stats.backend_errors;
    figures->content.checked = 1000; /* what is wrong with nothing */
    figures->content.first = 7;
    figures->audit.gfns = 1000;
    figures->machine.faults = 1000;
    figures->stats.different = 1000;
    ck_assert(figures_good(figures));
    for (size_t i = 0; i < N(wrong); i++) {
        *wrong[i] = 1;
        ck_assert(!figures_good(figures));
        *wrong[i] = UINT64_C(1) << 32;
        ck_assert(!figures_good(figures));
        *wrong[i] = 0;
        ck_assert(figures_good(figures));
    }
    for (size_t i = 0; i < N(wrong); i++)
        *wrong[i] = 1;
    ck_assert(!figures_good(figures)); /* no two make up for each other */
    free(figures);
}
END_TEST

/* ---- the whole program ------------------------------------------------- */

/* Ours is told once the guests live. Nothing of it may end the test, since
 * stdout and stderr are elsewhere while it runs. */
static int (*harm)(struct demo *demo);
static int story_error;

static int add_guest(struct demo *demo, const char *name)
{
    unsigned char page[PGSHARE_PAGE_SIZE];
    struct guest *guest;
    int error = demo_guest_add(demo, name, GFNS, NULL, &guest);

    if (error)
        return error;
    guest->ram = PAGES;
    error = pgshare_mock_populate(guest->domain, 0, PAGES);
    shadow_clear(&guest->shadow, 0, PAGES, SHADOW_HOLE);
    if (!error)
        error = guest_boot(guest, ZONE, false);
    for (uint64_t gfn = 0; !error && gfn < ZONE; gfn++) {
        make_page(gfn, page);
        error = guest_write_page(guest, gfn, page);
    }
    return error;
}

/* The pages are equal, unless they are wrong. */
static int share(struct demo *demo, uint64_t gfn, uint64_t count)
{
    const struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = demo->guests[0].dom,
        .source_gfn = gfn,
        .client_dom = demo->guests[1].dom,
        .client_gfn = gfn,
        .count = count,
    };

    return pgshare_share(demo->host, &request, NULL);
}

/* In place of the demo's own. */
int story_run(struct demo *demo)
{
    int error = demo_machine(demo, 1024);

    if (!error)
        error = add_guest(demo, "left");
    if (!error)
        error = add_guest(demo, "right");
    if (!error)
        error = share(demo, 0, SHARED);
    if (!error)
        error = demo_settle(demo);
    if (!error && harm)
        error = harm(demo);
    story_error = error;
    return error;
}

static int harm_private(struct demo *demo)
{
    return pgshare_mock_write(demo->guests[1].domain, SHARED + 1,
                              PGSHARE_PAGE_SIZE - 1, "", 1);
}

static int harm_shared(struct demo *demo)
{
    return pgshare_mock_write(demo->guests[0].domain, SHARED - 1, 0, "", 1);
}

static int harm_zeroes(struct demo *demo)
{
    return pgshare_mock_write(demo->guests[1].domain, PAGES - 1, 2000, "x", 1);
}

/* One page in each guest. */
static int harm_both(struct demo *demo)
{
    int error = harm_shared(demo);

    return error ? error : harm_private(demo);
}

/* The guest is gone by the end, and what is wrong is not. */
static int harm_removed(struct demo *demo)
{
    int error = harm_shared(demo);

    return error ? error : demo_guest_remove(demo, &demo->guests[0]);
}

/* A page was wrong when it was handed out, and is right in the end. */
static int harm_free(struct demo *demo)
{
    struct guest *guest = &demo->guests[0];
    uint64_t gfn;
    int error = guest_alloc(guest, PAGES - ZONE, &gfn);

    if (!error)
        error = guest_release(guest, gfn, PAGES - ZONE);
    if (!error)
        error = pgshare_mock_write(guest->domain, ZONE + 2, 0, "x", 1);
    if (!error)
        error = guest_alloc(guest, PAGES - ZONE, &gfn);
    return error ? error
                 : pgshare_mock_write(guest->domain, ZONE + 2, 0, "", 1);
}

/* The host counts a frame that the machine does not have for it. */
static int harm_account(struct demo *demo)
{
    pgs_count(&demo->host->shards, PGS_LEVEL_RESERVE, 1);
    return 0;
}

/* A shared frame changes for a while, under a reader. */
static int harm_frame(struct demo *demo)
{
    struct pgshare_mock_hold hold;
    union {
        const void *given;
        unsigned char *bytes;
    } frame;
    int error = pgshare_mock_hold_begin(demo->guests[0].domain, 1, &hold);

    if (error)
        return error;
    frame.given = hold.bytes;
    frame.bytes[9] ^= 1;
    error = pgshare_mock_hold_end(&hold);
    frame.bytes[9] ^= 1;
    return error == PGSHARE_ERR_DIFFERENT ? 0 : PGSHARE_ERR_INVALID;
}

/* The machine miscounts, which only a walk through all of it tells. */
static int harm_machine(struct demo *demo)
{
    atomic_fetch_add(&demo->machine->sparse, 1);
    return 0;
}

/* The backend answers one operation twice. */
static int harm_answers(struct demo *demo)
{
    const struct pgshare_mock_chaos twice = { .twice = 1000000 };
    int error;

    pgshare_mock_chaos_set(demo->machine, &twice);
    error = pgshare_mark_ro(demo->host, demo->guests[0].dom, SHARED, 1,
                            &(uint64_t){ 0 }, NULL);
    pgshare_mock_chaos_set(demo->machine, NULL);
    return error;
}

/* One thing each, so that nothing else can have given it away. */
static const struct {
    int (*harm)(struct demo *demo);
    uint64_t differ;
    uint64_t audit;
    uint64_t machine;
    uint64_t backend;
    const char *said; /* on stderr */
} harms[] = {
    { .harm = NULL },
    { harm_private, .differ = 1, .said = "right: 1 pages" },
    { harm_shared, .differ = 1, .said = "left: 1 pages" },
    { harm_zeroes, .differ = 1, .said = "GFN 15 among them" },
    { harm_both, .differ = 2, .said = "right: 1 pages" },
    { harm_removed, .differ = 1 },
    { harm_free, .differ = 1 },
    { harm_account, .audit = 1, .said = "audit: backend" },
    { harm_frame, .machine = 1, .said = "a rule was broken" },
    { harm_machine, .machine = 1, .said = "sparse pages, counted" },
    { harm_answers, .backend = 1 },
};

/* What a run of the program said, and its exit status. */
struct run {
    int status;
    char out[16384];
    char err[4096];
};

static FILE *divert(int fd, int *ret_saved)
{
    FILE *file = tmpfile();

    ck_assert_ptr_nonnull(file);
    *ret_saved = dup(fd);
    ck_assert_int_ge(*ret_saved, 0);
    ck_assert_int_eq(dup2(fileno(file), fd), fd);
    return file;
}

static void restore(FILE *file, int fd, int saved, char *ret_text, size_t room)
{
    size_t len;

    dup2(saved, fd);
    close(saved);
    rewind(file);
    len = fread(ret_text, 1, room - 1, file);
    ret_text[len] = '\0';
    fclose(file);
}

static void run_demo(struct run *run, int (*how)(struct demo *demo), bool json)
{
    char name[] = "pgshare demo", option[] = "--json";
    char *argv[] = { name, json ? option : NULL, NULL };
    FILE *out, *err;
    int saved[2];

    harm = how;
    story_error = -1;
    fflush(stdout);
    out = divert(STDOUT_FILENO, &saved[0]);
    err = divert(STDERR_FILENO, &saved[1]);
    run->status = demo_command.run(json ? 2 : 1, argv);
    fflush(stdout);
    restore(out, STDOUT_FILENO, saved[0], run->out, sizeof(run->out));
    restore(err, STDERR_FILENO, saved[1], run->err, sizeof(run->err));
}

static struct json_object *member(struct json_object *parent, const char *name)
{
    struct json_object *child;

    ck_assert_msg(json_object_object_get_ex(parent, name, &child), "%s", name);
    return child;
}

static void assert_number(struct json_object *root, const char *object,
                          const char *name, uint64_t expected)
{
    struct json_object *value = member(member(root, object), name);

    ck_assert_msg(json_object_get_uint64(value) == expected, "%s.%s: %s",
                  object, name, json_object_to_json_string(value));
}

START_TEST(test_json)
{
    bool good = !harms[_i].harm;
    struct json_object *root;
    struct run run;

    run_demo(&run, harms[_i].harm, true);
    ck_assert_int_eq(story_error, 0);
    root = json_tokener_parse(run.out);
    ck_assert_ptr_nonnull(root);
    assert_number(root, "content", "wrong", harms[_i].differ);
    assert_number(root, "content", "checked", 2 * PAGES);
    assert_number(root, "audit", "violations", harms[_i].audit);
    assert_number(root, "audit", "machine_violations", harms[_i].machine);
    assert_number(root, "work", "backend_errors", harms[_i].backend);
    ck_assert_int_eq(json_object_get_boolean(member(root, "ok")), good);
    ck_assert_int_eq(run.status, good ? STATUS_OK : STATUS_WRONG);
    json_object_put(root);
}
END_TEST

START_TEST(test_table)
{
    bool good = !harms[_i].harm;
    char differ[32];
    struct run run;

    run_demo(&run, harms[_i].harm, false);
    ck_assert_int_eq(story_error, 0);
    snprintf(differ, sizeof(differ), ", %u differ\n",
             (unsigned)harms[_i].differ);
    ck_assert_msg(strstr(run.out, differ), "%s", run.out);
    ck_assert_int_eq(!!strstr(run.out, "All is well"), good);
    ck_assert_int_eq(!!strstr(run.out, "SOMETHING IS WRONG"), !good);
    ck_assert_int_eq(run.status, good ? STATUS_OK : STATUS_WRONG);
    if (harms[_i].said)
        ck_assert_msg(strstr(run.err, harms[_i].said), "%s", run.err);
    else
        ck_assert_str_eq(run.err, "");
}
END_TEST

static int give_up(struct demo *demo)
{
    (void)demo;
    return PGSHARE_ERR_NOMEM;
}

/* A demo that did not come to its end is not well, either. */
START_TEST(test_no_figures)
{
    struct run run;

    for (int json = 0; json < 2; json++) {
        run_demo(&run, give_up, json);
        ck_assert_int_eq(story_error, PGSHARE_ERR_NOMEM);
        ck_assert_int_eq(run.status, STATUS_WRONG);
        ck_assert_str_eq(run.out, "");
    }
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("cli-verdict");
    TCase *shadow = pgs_tcase(suite, "shadow");
    TCase *figures = pgs_tcase(suite, "figures");
    TCase *program = pgs_tcase(suite, "program");

    tcase_add_test(shadow, test_nothing_is_wrong);
    tcase_add_test(shadow, test_every_byte_counts);
    tcase_add_test(shadow, test_verdicts_add_up);
    tcase_add_test(shadow, test_lost_memory_is_wrong);
    tcase_add_test(shadow, test_free_pages_may_be_zero);
    tcase_add_test(shadow, test_every_source_counts);
    tcase_add_test(figures, test_figures);
    tcase_add_loop_test(program, test_json, 0, (int)N(harms));
    tcase_add_loop_test(program, test_table, 0, (int)N(harms));
    tcase_add_test(program, test_no_figures);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("cli-verdict", make, argc, argv);
}
