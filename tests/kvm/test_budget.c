/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mapping budget: sharing never uses up what the VMM needs, spends little of
 * it on pages that lie alone, and fails no guest for want of it.
 */
#include "support/suite.h"

#include <pgshare/kvm.h>
#include <pgshare/pgshare.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE PGSHARE_PAGE_SIZE
#define PAGES 4096u
#define ALONE 1024u    /* pages from 0 on, of which every other one is equal */
#define EXTENT 2048u   /* a long extent begins here */
#define EXTENT_PAGES 512u
#define ROOM 400u      /* mappings that sharing may add */
#define SLACK 32u      /* what the test itself and its libraries map */

static uint64_t count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    uint64_t n = 0;

    ck_assert_ptr_nonnull(maps);
    for (int c; (c = fgetc(maps)) != EOF;)
        n += c == '\n';
    fclose(maps);
    return n;
}

static uint64_t mappings_limit(void)
{
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    unsigned long long limit = 0;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%llu", &limit), 1);
    fclose(file);
    return limit;
}

struct place {
    struct pgshare_kvm *kvm;
    struct pgshare_host *host;
    uint64_t group;
    struct pgshare_kvm_guest *guest[2];
    unsigned char *memory[2];
    uint64_t before; /* mappings of the process */
};

/* What page `gfn` of guest `g` holds: odd pages of the first part differ. */
static uint64_t content(unsigned g, uint64_t gfn)
{
    bool own = gfn < ALONE ? gfn % 2 : gfn < EXTENT ||
                                           gfn >= EXTENT + EXTENT_PAGES;

    return (gfn + 1) << 8 | (own ? g + 1 : 0);
}

static void page_of(unsigned g, uint64_t gfn, uint64_t *ret_words)
{
    for (unsigned i = 0; i < PAGE / sizeof(*ret_words); i++)
        ret_words[i] = content(g, gfn) + i;
}

static void fill(struct place *place, unsigned g)
{
    uint64_t words[PGSHARE_PAGE_SIZE / sizeof(uint64_t)];

    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        page_of(g, gfn, words);
        memcpy(place->memory[g] + gfn * PAGE, words, PAGE);
    }
}

static void check(const struct place *place)
{
    uint64_t words[PGSHARE_PAGE_SIZE / sizeof(uint64_t)];

    for (unsigned g = 0; g < 2; g++)
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            page_of(g, gfn, words);
            if (memcmp(words, place->memory[g] + gfn * PAGE, PAGE))
                ck_abort_msg("page %u of guest %u", (unsigned)gfn, g);
        }
}

static void open_place(struct place *place, uint64_t room)
{
    struct pgshare_kvm_options options = { .size = sizeof(options) };

    for (uint32_t i = 0; i < PGSHARE_KVM_FEATURES; i++) {
        struct pgshare_kvm_probe probe = { .size = sizeof(probe) };

        ck_assert_int_eq(pgshare_kvm_probe(i, &probe), 0);
        if (probe.verdict == PGSHARE_KVM_REFUSED)
            pgs_skip(probe.text);
    }
    for (unsigned g = 0; g < 2; g++) {
        place->memory[g] = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ck_assert_ptr_ne(place->memory[g], MAP_FAILED);
        fill(place, g);
    }
    place->before = count_mappings();
    options.mappings_spare = mappings_limit() - place->before - room;
    ck_assert_int_eq(pgshare_kvm_new(&options, &place->kvm), 0);
    ck_assert_int_eq(pgshare_host_new(pgshare_kvm_backend(place->kvm), NULL,
                                      &place->host),
                     0);
    ck_assert_int_eq(pgshare_group_open(place->host, "test", &place->group), 0);
    for (unsigned g = 0; g < 2; g++) {
        ck_assert_int_eq(pgshare_kvm_guest_new(place->kvm, PAGES, NULL,
                                               &place->guest[g]),
                         0);
        ck_assert_int_eq(pgshare_kvm_slot_add(place->guest[g], 0, PAGES,
                                              place->memory[g], 0, NULL),
                         0);
        ck_assert_int_eq(pgshare_kvm_join(place->guest[g], place->host,
                                          place->group),
                         0);
    }
}

static void close_place(struct place *place)
{
    for (unsigned g = 0; g < 2; g++)
        ck_assert_int_eq(pgshare_kvm_leave(place->guest[g]), 0);
    pgshare_host_free(place->host);
    check(place);
    for (unsigned g = 0; g < 2; g++) {
        pgshare_kvm_guest_free(place->guest[g]);
        munmap(place->memory[g], PAGES * PAGE);
    }
    pgshare_kvm_free(place->kvm);
}

static uint64_t pass(struct place *place)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };

    ck_assert_int_eq(pgshare_host_pass(place->host, 0), 0);
    ck_assert_int_eq(pgshare_host_settle(place->host, PGSHARE_FOREVER), 0);
    ck_assert_int_eq(pgshare_host_stats(place->host, &stats), 0);
    return stats.saved;
}

static bool is_shared(const struct place *place, unsigned g, uint64_t gfn)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };

    ck_assert_int_eq(pgshare_gfn_info(place->host,
                                      pgshare_kvm_handle(place->guest[g]), gfn,
                                      &info),
                     0);
    return info.state == PGSHARE_GFN_SHARED;
}

START_TEST(pages_that_lie_alone_leave_room_for_extents)
{
    struct pgshare_kvm_info info = { .size = sizeof(info) };
    struct place place;
    uint64_t saved;

    open_place(&place, ROOM);
    saved = pass(&place);
    printf("%u mappings: %u pages of %u, and the extent\n", ROOM,
           (unsigned)saved - EXTENT_PAGES, ALONE / 2);
    ck_assert_uint_gt(saved, EXTENT_PAGES + 20);
    ck_assert_uint_lt(saved, EXTENT_PAGES + ALONE / 2);
    for (unsigned i = 0; i < EXTENT_PAGES; i++)
        ck_assert(is_shared(&place, 1, EXTENT + i));
    ck_assert_uint_le(count_mappings(), place.before + ROOM + SLACK);
    ck_assert_int_eq(pgshare_kvm_info(place.kvm, &info), 0);
    ck_assert_uint_gt(info.mappings_refused, 0);
    ck_assert_uint_le(info.mappings_max, place.before + ROOM);
    ck_assert_uint_ge(info.mappings, place.before);
    check(&place);
    close_place(&place);
}
END_TEST

START_TEST(another_pass_adds_nothing_beyond_the_budget)
{
    struct place place;
    uint64_t saved;

    open_place(&place, ROOM);
    saved = pass(&place);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_ge(pass(&place), saved);
        ck_assert_uint_le(count_mappings(), place.before + ROOM + SLACK);
    }
    close_place(&place);
}
END_TEST

START_TEST(without_a_budget_nothing_is_shared_and_nothing_lost)
{
    struct pgshare_share_request request = { .size = sizeof(request),
                                             .flags = PGSHARE_SHARE_MARK,
                                             .source_gfn = EXTENT,
                                             .client_gfn = EXTENT,
                                             .count = EXTENT_PAGES };
    int8_t results[EXTENT_PAGES];
    struct pgshare_call call = { .size = sizeof(call), .results = results };
    struct place place;

    open_place(&place, 0);
    ck_assert_uint_eq(pass(&place), 0);
    request.source_dom = pgshare_kvm_handle(place.guest[0]);
    request.client_dom = pgshare_kvm_handle(place.guest[1]);
    ck_assert_int_ne(pgshare_share(place.host, &request, &call), 0);
    ck_assert_uint_eq(call.done, 0);
    for (unsigned i = 0; i < EXTENT_PAGES; i++)
        ck_assert_int_eq(results[i], PGSHARE_ERR_BUSY);
    ck_assert_uint_le(count_mappings(), place.before + SLACK);
    check(&place);
    close_place(&place);
}
END_TEST

/* Pages that go back and forth between two frames, one at a time, cut a mapping
 * into pieces; the pieces are paid for, too. */
START_TEST(what_is_broken_and_shared_again_stays_within_the_budget)
{
    struct place place;

    open_place(&place, ROOM);
    pass(&place);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = round % 2; i < EXTENT_PAGES; i += 2)
            place.memory[1][(EXTENT + i) * PAGE] ^= 1;
        ck_assert_int_eq(pgshare_host_settle(place.host, PGSHARE_FOREVER), 0);
        for (unsigned i = round % 2; i < EXTENT_PAGES; i += 2)
            place.memory[1][(EXTENT + i) * PAGE] ^= 1;
        pass(&place);
        ck_assert_uint_le(count_mappings(), place.before + ROOM + SLACK);
    }
    check(&place);
    close_place(&place);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("kvm-budget");
    TCase *tests = pgs_tcase(suite, "budget");

    tcase_add_test(tests, pages_that_lie_alone_leave_room_for_extents);
    tcase_add_test(tests, another_pass_adds_nothing_beyond_the_budget);
    tcase_add_test(tests, without_a_budget_nothing_is_shared_and_nothing_lost);
    tcase_add_test(tests, what_is_broken_and_shared_again_stays_within_the_budget);
    tcase_set_timeout(tests, 300);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-budget", make, argc, argv);
}
