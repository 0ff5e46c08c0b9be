/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit must find what is broken: each test breaks one thing in the
 * tables, sees the right invariant reported, and puts it back.
 */
#include "policy/policy.h"
#include "unit/world.h"

#include <pgshare/ledger.h>

struct broken {
    struct world w;
    struct pgs_domain *domain[2];
};

/* Shared: pages 0 … 19; marked: 20 … 23; volatile: 30 … 39; held: 40 … */
static void open_broken(struct broken *b)
{
    struct world *w = &b->w;
    uint64_t tickets[4];

    world_open(w, NULL);
    world_share(w, 0, 20);
    ck_assert_int_eq(pgshare_mark_ro(w->host, w->dom[0], 20, 4, tickets, NULL),
                     0);
    ck_assert_int_eq(pgshare_declare_volatile(w->host, w->dom[0], 30, 10, NULL),
                     0);
    ck_assert_int_eq(pgshare_gfn_get(w->host, w->dom[0], 40, 1,
                                     PGSHARE_GET_WRITE, NULL),
                     0);
    ck_assert_int_eq(pgshare_gfn_get(w->host, w->dom[1], 5, 1, PGSHARE_GET_READ,
                                     NULL),
                     0);
    ck_assert_int_eq(pgshare_bonus_claim(w->host, w->dom[0], 600, 5, NULL), 0);
    for (unsigned i = 0; i < 2; i++)
        b->domain[i] = pgs_domain_of(w->host, w->dom[i]);
    world_assert_sound(w);
}

static void close_broken(struct broken *b)
{
    world_assert_sound(&b->w);
    ck_assert_int_eq(pgshare_gfn_put(b->w.host, b->w.dom[1], 5, 1,
                                     PGSHARE_GET_READ),
                     0);
    ck_assert_int_eq(pgshare_gfn_put(b->w.host, b->w.dom[0], 40, 1,
                                     PGSHARE_GET_WRITE),
                     0);
    world_close(&b->w);
}

static void expect(struct broken *b, uint32_t invariant)
{
    ck_assert_uint_gt(world_audit(&b->w, 0), 0);
    for (uint32_t i = 1; i <= PGSHARE_INVARIANT_BACKEND; i++)
        if (b->w.findings[i])
            ck_assert_msg(b->w.findings[invariant] > 0, "%s in place of %s",
                          pgshare_invariant_name(i),
                          pgshare_invariant_name(invariant));
}

static _Atomic uint64_t *word(struct broken *b, unsigned guest, uint64_t gfn)
{
    return pgs_word_of(b->domain[guest], gfn);
}

static struct pgs_frame *frame_of(struct broken *b, unsigned guest,
                                  uint64_t gfn)
{
    struct pgs_frames *frames = &b->w.host->frames;
    uint32_t node = pgs_word_index(*word(b, guest, gfn));

    return pgs_frame_at(frames, pgs_node_at(frames, node)->frame);
}

/* ---- words ------------------------------------------------------------- */

START_TEST(test_words_that_make_no_sense)
{
    static const struct {
        uint64_t gfn;
        uint64_t flip;
    } flips[] = {
        { 50, PGS_ATTR_RECLAIMED },      { 50, PGS_ATTR_BROKEN },
        { 50, PGS_ATTR_SCRUB },          { 50, PGS_ATTR_HELD_WRITE },
        { 0, PGS_ATTR_STUCK },           { 0, PGS_ATTR_RECLAIMED },
        { 0, UINT64_C(1) << 63 },        { 31, PGS_ATTR_READONLY },
        { WORLD_PAGES, PGS_ATTR_BONUS }, { WORLD_PAGES, UINT64_C(1) << 20 },
    };
    struct broken b;

    open_broken(&b);
    for (unsigned i = 0; i < sizeof(flips) / sizeof(flips[0]); i++) {
        *word(&b, 0, flips[i].gfn) ^= flips[i].flip;
        ck_assert_uint_eq(world_audit(&b.w, 0), 1);
        ck_assert_uint_eq(b.w.findings[PGSHARE_INVARIANT_ENTRY], 1);
        *word(&b, 0, flips[i].gfn) ^= flips[i].flip;
    }
    close_broken(&b);
}
END_TEST

START_TEST(test_a_page_in_flight_is_passed_over)
{
    struct broken b;
    uint64_t seen;

    open_broken(&b);
    ck_assert(pgs_word_trylock(word(&b, 0, 50), false, &seen));
    *word(&b, 0, 50) ^= PGS_ATTR_SCRUB;
    ck_assert_uint_eq(world_audit(&b.w, PGSHARE_AUDIT_BACKEND), 0);
    *word(&b, 0, 50) ^= PGS_ATTR_SCRUB;
    pgs_word_unlock(word(&b, 0, 50));
    close_broken(&b);
}
END_TEST

/* ---- mappings ---------------------------------------------------------- */

START_TEST(test_two_words_with_one_node)
{
    struct broken b;
    uint64_t right;

    open_broken(&b);
    right = *word(&b, 0, 3);
    *word(&b, 0, 3) = *word(&b, 0, 4);
    expect(&b, PGSHARE_INVARIANT_RMAP);
    *word(&b, 0, 3) = pgs_word_with(PGS_SHARED, PGS_NONE - 1, 0);
    expect(&b, PGSHARE_INVARIANT_RMAP);
    *word(&b, 0, 3) = right;
    close_broken(&b);
}
END_TEST

START_TEST(test_a_mapping_that_its_page_forgot)
{
    struct broken b;
    uint64_t right;

    open_broken(&b);
    right = *word(&b, 0, 3);
    *word(&b, 0, 3) = PGS_PRIVATE;
    expect(&b, PGSHARE_INVARIANT_RMAP);
    *word(&b, 0, 3) = pgs_word_with(PGS_SHARED, PGS_NODE_ZERO, 0);
    expect(&b, PGSHARE_INVARIANT_RMAP);
    *word(&b, 0, 3) = right;
    close_broken(&b);
}
END_TEST

START_TEST(test_lists_that_are_torn)
{
    struct broken b;
    struct pgs_frames *frames;
    struct pgs_frame *frame;
    struct pgs_node *head;
    uint32_t right;

    open_broken(&b);
    frames = &b.w.host->frames;
    frame = frame_of(&b, 0, 3);
    head = pgs_node_at(frames, frame->head);
    right = head->next;
    head->next = PGS_NONE;
    expect(&b, PGSHARE_INVARIANT_COUNT);
    head->next = frame->head; /* a circle */
    expect(&b, PGSHARE_INVARIANT_RMAP);
    head->next = PGS_NONE - 1;
    expect(&b, PGSHARE_INVARIANT_RMAP);
    head->next = right;
    right = head->page;
    head->page = PGS_PAGE_NONE;
    expect(&b, PGSHARE_INVARIANT_RMAP);
    head->page = right;
    close_broken(&b);
}
END_TEST

START_TEST(test_counts_that_are_off_by_one)
{
    struct broken b;
    struct pgs_frame *frame;

    open_broken(&b);
    frame = frame_of(&b, 0, 3);
    frame->mappings++;
    expect(&b, PGSHARE_INVARIANT_COUNT);
    frame->mappings -= 2;
    expect(&b, PGSHARE_INVARIANT_COUNT);
    frame->mappings++;
    close_broken(&b);
}
END_TEST

START_TEST(test_frames_that_make_no_sense)
{
    struct broken b;
    struct pgs_frame *frame, right;

    open_broken(&b);
    frame = frame_of(&b, 0, 3);
    right = *frame;
    frame->flags |= PGS_FRAME_DOOMED;
    expect(&b, PGSHARE_INVARIANT_FRAME);
    *frame = right;
    frame->id = PGSHARE_ID_NONE;
    expect(&b, PGSHARE_INVARIANT_FRAME);
    *frame = right;
    frame->group++;
    expect(&b, PGSHARE_INVARIANT_FRAME);
    *frame = right;
    frame->ticket = 0;
    expect(&b, PGSHARE_INVARIANT_TICKET);
    frame->ticket = UINT64_MAX;
    expect(&b, PGSHARE_INVARIANT_TICKET);
    *frame = right;
    close_broken(&b);
}
END_TEST

/* ---- side tables ------------------------------------------------------- */

START_TEST(test_marks)
{
    struct broken b;
    struct pgs_mark *mark, right;
    uint64_t before;

    open_broken(&b);
    before = *word(&b, 0, 21);
    mark = pgs_mark_at(&b.w.host->marks, pgs_word_index(before));
    right = *mark;
    mark->page++;
    expect(&b, PGSHARE_INVARIANT_TICKET);
    *mark = right;
    mark->ticket = 0;
    expect(&b, PGSHARE_INVARIANT_TICKET);
    *mark = right;
    *word(&b, 0, 21) = *word(&b, 0, 22);
    expect(&b, PGSHARE_INVARIANT_TICKET);
    *word(&b, 0, 21) = pgs_word_with(PGS_PROTECTED, PGS_NONE - 1, 0);
    expect(&b, PGSHARE_INVARIANT_TICKET);
    *word(&b, 0, 21) = before;
    b.w.host->marks.used++;
    expect(&b, PGSHARE_INVARIANT_TICKET);
    b.w.host->marks.used--;
    close_broken(&b);
}
END_TEST

START_TEST(test_holds)
{
    struct broken b;
    struct pgs_hold *hold;

    open_broken(&b);
    *word(&b, 0, 40) &= ~PGS_ATTR_HELD_WRITE;
    expect(&b, PGSHARE_INVARIANT_HOLD);
    *word(&b, 0, 40) |= PGS_ATTR_HELD_WRITE;
    *word(&b, 0, 41) |= PGS_ATTR_HELD;
    expect(&b, PGSHARE_INVARIANT_HOLD);
    *word(&b, 0, 41) &= ~PGS_ATTR_HELD;
    frame_of(&b, 1, 5)->pins++;
    expect(&b, PGSHARE_INVARIANT_HOLD);
    frame_of(&b, 1, 5)->pins -= 2;
    expect(&b, PGSHARE_INVARIANT_HOLD);
    frame_of(&b, 1, 5)->pins++;
    hold = pgs_holds_find(&b.w.host->holds, pgs_page_of(b.domain[1], 5));
    hold->pins++;
    expect(&b, PGSHARE_INVARIANT_HOLD);
    hold->pins--;
    b.w.host->holds.used++;
    expect(&b, PGSHARE_INVARIANT_HOLD);
    b.w.host->holds.used--;
    close_broken(&b);
}
END_TEST

START_TEST(test_fifos)
{
    struct broken b;
    struct pgs_fifo *fifo;
    uint32_t right;

    open_broken(&b);
    fifo = &b.domain[0]->fifo;
    *word(&b, 0, 32) &= ~PGS_ATTR_VOLATILE;
    expect(&b, PGSHARE_INVARIANT_FIFO);
    *word(&b, 0, 32) |= PGS_ATTR_VOLATILE;
    *word(&b, 0, 50) |= PGS_ATTR_VOLATILE;
    expect(&b, PGSHARE_INVARIANT_FIFO);
    *word(&b, 0, 50) &= ~PGS_ATTR_VOLATILE;
    right = fifo->slots[fifo->oldest].page;
    fifo->slots[fifo->oldest].page = pgs_page_of(b.domain[1], 30);
    expect(&b, PGSHARE_INVARIANT_FIFO);
    fifo->slots[fifo->oldest].page = PGS_PAGE_NONE;
    expect(&b, PGSHARE_INVARIANT_FIFO);
    fifo->slots[fifo->oldest].page = right;
    right = fifo->slots[fifo->oldest].next;
    fifo->slots[fifo->oldest].next = PGS_FIFO_END;
    expect(&b, PGSHARE_INVARIANT_FIFO);
    fifo->slots[fifo->oldest].next = fifo->oldest;
    expect(&b, PGSHARE_INVARIANT_FIFO);
    fifo->slots[fifo->oldest].next = right;
    close_broken(&b);
}
END_TEST

/* ---- books ------------------------------------------------------------- */

START_TEST(test_cover)
{
    struct broken b;
    struct pgshare_host *host;

    open_broken(&b);
    host = b.w.host;
    b.domain[0]->claimed = 11;
    expect(&b, PGSHARE_INVARIANT_COVER);
    b.domain[0]->claimed = 5;
    b.domain[1]->secures = 1;
    expect(&b, PGSHARE_INVARIANT_COVER);
    b.domain[1]->secures = 0;
    b.domain[0]->charged = 6;
    expect(&b, PGSHARE_INVARIANT_COVER);
    b.domain[0]->charged = 0;
    pgs_count(&host->shards, PGS_LEVEL_RESERVE, (uint64_t)-15);
    expect(&b, PGSHARE_INVARIANT_COVER);
    host->written_off = 10; /* agreed upon */
    ck_assert_uint_eq(world_audit(&b.w, 0), 0);
    ck_assert_int_eq(host->written_off, 10);
    pgs_count(&host->shards, PGS_LEVEL_RESERVE, 15);
    ck_assert_uint_eq(world_audit(&b.w, 0), 0);
    ck_assert_int_eq(host->written_off, 0); /* made good */
    close_broken(&b);
}
END_TEST

START_TEST(test_totals)
{
    static const unsigned levels[] = {
        PGS_LEVEL_TRACKED,       PGS_LEVEL_PROTECTED, PGS_LEVEL_MAPPINGS,
        PGS_LEVEL_ZERO_MAPPINGS, PGS_LEVEL_FRAMES,    PGS_LEVEL_FIFO,
        PGS_LEVEL_CLAIMED,
    };
    struct broken b;

    open_broken(&b);
    for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        pgs_count(&b.w.host->shards, levels[i], 1);
        expect(&b, PGSHARE_INVARIANT_TOTALS);
        pgs_count(&b.w.host->shards, levels[i], (uint64_t)-1);
    }
    close_broken(&b);
}
END_TEST

/* A second page in the place of a word's first: all counts are right, but the
 * shares do not add up to what was freed. */
START_TEST(test_entitlement)
{
    struct broken b;
    uint64_t right;

    open_broken(&b);
    right = *word(&b, 0, 3);
    *word(&b, 0, 3) = PGS_PRIVATE;
    expect(&b, PGSHARE_INVARIANT_ENTITLEMENT);
    *word(&b, 0, 3) = right;
    close_broken(&b);
}
END_TEST

START_TEST(test_index_and_maps)
{
    struct broken b;
    struct pgs_policy *policy;
    struct pgs_seek seek;

    open_broken(&b);
    policy = b.w.host->policy;
    policy->index.used++;
    expect(&b, PGSHARE_INVARIANT_INDEX);
    policy->index.used--;
    pgs_index_reserve(&policy->index, 1, 0);
    pgs_index_seek(&policy->index, 4711, &seek);
    pgs_index_add(&policy->index, &seek, 3, true);
    ck_assert_uint_eq(world_audit(&b.w, 0), 0);
    ck_assert_int_eq(pgs_keymap_put(&policy->files, &(struct pgs_key){ 1, 2 },
                                    3, false),
                     0);
    ck_assert_uint_eq(world_audit(&b.w, 0), 0);
    policy->files.used--;
    expect(&b, PGSHARE_INVARIANT_INDEX);
    policy->files.used++;
    ck_assert_int_eq(pgs_keymap_put(&policy->files, &(struct pgs_key){ 1, 2 },
                                    PGS_PAGE_NONE - 1, false),
                     0);
    expect(&b, PGSHARE_INVARIANT_INDEX);
    ck_assert_int_eq(pgs_keymap_put(&policy->files, &(struct pgs_key){ 1, 2 },
                                    3, false),
                     0);
    close_broken(&b);
}
END_TEST

START_TEST(test_the_backend_is_asked)
{
    struct broken b;
    uint64_t right, reserve;
    struct pgs_frame *frame;

    open_broken(&b);
    right = *word(&b, 0, 50);
    *word(&b, 0, 50) = pgs_word_with(PGS_SHARED, PGS_NODE_ZERO, 0);
    ck_assert_uint_gt(world_audit(&b.w, PGSHARE_AUDIT_BACKEND), 0);
    ck_assert_uint_eq(b.w.findings[PGSHARE_INVARIANT_BACKEND], 1);
    *word(&b, 0, 50) = right;
    frame = frame_of(&b, 0, 3);
    frame->id ^= 1;
    ck_assert_uint_eq(world_audit(&b.w, PGSHARE_AUDIT_BACKEND), 2);
    ck_assert_uint_eq(b.w.findings[PGSHARE_INVARIANT_BACKEND], 2);
    frame->id ^= 1;
    reserve = world_stats(&b.w).reserve;
    pgs_count(&b.w.host->shards, PGS_LEVEL_RESERVE, 1);
    ck_assert_uint_eq(world_audit(&b.w, 0), 0);
    ck_assert_uint_eq(world_audit(&b.w, PGSHARE_AUDIT_BACKEND), 1);
    ck_assert_uint_eq(b.w.findings[PGSHARE_INVARIANT_BACKEND], 1);
    pgs_count(&b.w.host->shards, PGS_LEVEL_RESERVE, (uint64_t)-1);
    ck_assert_uint_eq(world_stats(&b.w).reserve, reserve);
    close_broken(&b);
}
END_TEST

/* ---- the call ---------------------------------------------------------- */

START_TEST(test_bad_arguments)
{
    struct world w;
    struct pgshare_audit audit = { .size = sizeof(audit) };
    struct pgshare_audit_options options = { .size = sizeof(options) };

    world_open(&w, NULL);
    ck_assert_int_eq(pgshare_host_audit(w.host, NULL, NULL),
                     PGSHARE_ERR_INVALID);
    ck_assert_int_eq(pgshare_host_audit(NULL, NULL, &audit),
                     PGSHARE_ERR_INVALID);
    options.flags = 2;
    ck_assert_int_eq(pgshare_host_audit(w.host, &options, &audit),
                     PGSHARE_ERR_INVALID);
    options.flags = 0;
    options.size = 3;
    ck_assert_int_eq(pgshare_host_audit(w.host, &options, &audit),
                     PGSHARE_ERR_ABI);
    options.size = sizeof(options);
    audit.size = 3;
    ck_assert_int_eq(pgshare_host_audit(w.host, &options, &audit),
                     PGSHARE_ERR_ABI);
    audit.size = sizeof(audit);
    ck_assert_int_eq(pgshare_host_audit(w.host, NULL, &audit), 0);
    ck_assert_uint_eq(audit.violations, 0);
    options.flags = PGSHARE_AUDIT_BACKEND;
    w.host->info.ops &= ~(UINT64_C(1) << PGSHARE_OP_QUERY);
    ck_assert_int_eq(pgshare_host_audit(w.host, &options, &audit),
                     PGSHARE_ERR_NOTSUP);
    world_settle(&w);
    pgshare_host_free(w.host);
    pgshare_mock_machine_free(w.machine);
}
END_TEST

START_TEST(test_the_verdict_says_what_was_looked_at)
{
    struct broken b;
    struct pgshare_audit audit = { .size = sizeof(audit) };

    open_broken(&b);
    ck_assert_int_eq(pgshare_host_audit(b.w.host, NULL, &audit), 0);
    ck_assert_uint_eq(audit.gfns, 2 * WORLD_PAGES + 5);
    ck_assert_uint_eq(audit.mappings, 40);
    ck_assert_uint_eq(audit.frames, 20);
    close_broken(&b);
}
END_TEST

/* More findings than there is memory for: the verdict is not wrong, but
 * refused. */
START_TEST(test_findings_without_memory)
{
    struct broken b;
    struct pgshare_audit audit = { .size = sizeof(audit) };
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .finding = world_finding,
        .ctx = &b.w,
    };

    open_broken(&b);
    for (uint64_t gfn = 100; gfn < 300; gfn++)
        *word(&b, 0, gfn) ^= PGS_ATTR_SCRUB;
    ck_assert_uint_eq(world_audit(&b.w, 0), 200);
    ck_assert_uint_eq(b.w.findings[PGSHARE_INVARIANT_ENTRY], 200);
    for (uint64_t i = 0; i < 3; i++) {
        pgs_tracker_fail_once(pgs_test_tracker(), i);
        ck_assert_int_eq(pgshare_host_audit(b.w.host, &options, &audit),
                         PGSHARE_ERR_NOMEM);
    }
    pgs_tracker_fail_from(pgs_test_tracker(), 0);
    ck_assert_int_eq(pgshare_host_audit(b.w.host, NULL, &audit), 0);
    ck_assert_uint_eq(audit.violations, 200);
    pgs_tracker_fail_never(pgs_test_tracker());
    for (uint64_t gfn = 100; gfn < 300; gfn++)
        *word(&b, 0, gfn) ^= PGS_ATTR_SCRUB;
    close_broken(&b);
}
END_TEST

/* A finding's callback may do what it likes, even remove the domain. */
static void remove_it(void *ctx, const struct pgshare_finding *finding)
{
    struct world *w = ctx;

    ck_assert_uint_eq(finding->dom, w->dom[0]);
    ck_assert_int_eq(pgshare_mock_leave(w->guest[0]), 0);
}

START_TEST(test_callbacks_are_outside)
{
    struct world w;
    struct pgshare_audit audit = { .size = sizeof(audit) };
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .finding = remove_it,
        .ctx = &w,
    };

    world_open(&w, NULL);
    *pgs_word_of(pgs_domain_of(w.host, w.dom[0]), 9) ^= PGS_ATTR_SCRUB;
    ck_assert_int_eq(pgshare_host_audit(w.host, &options, &audit), 0);
    ck_assert_uint_eq(audit.violations, 1);
    world_close(&w);
}
END_TEST

START_TEST(test_names)
{
    ck_assert_str_eq(pgshare_invariant_name(PGSHARE_INVARIANT_RMAP), "rmap");
    ck_assert_str_eq(pgshare_invariant_name(PGSHARE_INVARIANT_BACKEND),
                     "backend");
    ck_assert_ptr_null(pgshare_invariant_name(0));
    ck_assert_ptr_null(pgshare_invariant_name(PGSHARE_INVARIANT_BACKEND + 1));
    ck_assert_ptr_null(pgshare_invariant_name(UINT32_MAX));
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("audit");
    TCase *words = pgs_tcase(suite, "words");
    TCase *mappings = pgs_tcase(suite, "mappings");
    TCase *tables = pgs_tcase(suite, "tables");
    TCase *books = pgs_tcase(suite, "books");
    TCase *call = pgs_tcase(suite, "call");

    tcase_add_test(words, test_words_that_make_no_sense);
    tcase_add_test(words, test_a_page_in_flight_is_passed_over);
    tcase_add_test(mappings, test_two_words_with_one_node);
    tcase_add_test(mappings, test_a_mapping_that_its_page_forgot);
    tcase_add_test(mappings, test_lists_that_are_torn);
    tcase_add_test(mappings, test_counts_that_are_off_by_one);
    tcase_add_test(mappings, test_frames_that_make_no_sense);
    tcase_add_test(tables, test_marks);
    tcase_add_test(tables, test_holds);
    tcase_add_test(tables, test_fifos);
    tcase_add_test(tables, test_index_and_maps);
    tcase_add_test(tables, test_the_backend_is_asked);
    tcase_add_test(books, test_cover);
    tcase_add_test(books, test_totals);
    tcase_add_test(books, test_entitlement);
    tcase_add_test(call, test_bad_arguments);
    tcase_add_test(call, test_the_verdict_says_what_was_looked_at);
    tcase_add_test(call, test_findings_without_memory);
    tcase_add_test(call, test_callbacks_are_outside);
    tcase_add_test(call, test_names);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("audit", make, argc, argv);
}
