/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that is registered: which is refused, and why; what it keeps when it
 * is shared; what of it is given back.
 */
#include "contract/rig.h"

#include <pgshare/kvm.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MB ((size_t)1 << 20)
#define PAGES (MB / PAGE)

/* ---- the probe table --------------------------------------------------- */

START_TEST(each_feature_has_a_name_and_a_sentence)
{
    struct pgshare_kvm_probe probe = { .size = sizeof(probe) };

    for (uint32_t i = 0; i < PGSHARE_KVM_FEATURES; i++) {
        ck_assert_int_eq(pgshare_kvm_probe(i, &probe), 0);
        ck_assert_uint_eq(probe.feature, i);
        ck_assert_uint_le(probe.verdict, PGSHARE_KVM_REFUSED);
        ck_assert_uint_gt(strlen(probe.name), 2);
        ck_assert_uint_gt(strlen(probe.text), 10);
        printf("%s: %s\n", probe.name, probe.text);
    }
    ck_assert_int_eq(pgshare_kvm_probe(PGSHARE_KVM_FEATURES, &probe),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_kvm_probe(0, NULL), PGSHARE_ERR_INVALID);
}
END_TEST

START_TEST(each_reason_has_a_sentence)
{
    for (uint32_t why = 0; why <= PGSHARE_KVM_WHY_ANOTHER; why++)
        ck_assert_uint_gt(strlen(pgshare_kvm_why_text(why)), 10);
    ck_assert_ptr_nonnull(pgshare_kvm_why_text(99));
}
END_TEST

/* ---- refusals ---------------------------------------------------------- */

struct place {
    struct pgshare_kvm *kvm;
    struct pgshare_kvm_guest *guest;
};

static void open_place(struct place *place)
{
    ck_assert_int_eq(pgshare_kvm_new(NULL, &place->kvm), 0);
    ck_assert_int_eq(pgshare_kvm_guest_new(place->kvm, 4 * PAGES, NULL,
                                           &place->guest),
                     0);
}

static void *map(size_t bytes, int protection, int flags)
{
    void *at = mmap(NULL, bytes, protection, flags, -1, 0);

    ck_assert_ptr_ne(at, MAP_FAILED);
    return at;
}

static void *ordinary(size_t bytes)
{
    return map(bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
}

/* Why `count` pages at `at` are refused; WHY_NONE: they are not. */
static uint32_t refusal(struct place *place, void *at, uint64_t gfn,
                        uint64_t count)
{
    uint32_t why = PGSHARE_KVM_WHY_NONE;
    int r = pgshare_kvm_slot_add(place->guest, gfn, count, at, 0, &why);

    ck_assert_int_eq(r == 0, why == PGSHARE_KVM_WHY_NONE);
    if (r)
        ck_assert(r == PGSHARE_ERR_NOTSUP || r == PGSHARE_ERR_EXISTS);
    return why;
}

static void must_be_refused(struct place *place, void *at, uint32_t why)
{
    uint32_t found = refusal(place, at, 0, PAGES);

    ck_assert_msg(found == why, "refused since %s, not since %s",
                  pgshare_kvm_why_text(found), pgshare_kvm_why_text(why));
}

START_TEST(memory_that_cannot_be_shared_is_refused_with_the_reason)
{
    struct place place;
    uint8_t *at = ordinary(MB);
    int fd;

    open_place(&place);
    must_be_refused(&place, at + 1, PGSHARE_KVM_WHY_UNALIGNED);
    munmap(at + MB / 2, PAGE);
    must_be_refused(&place, at, PGSHARE_KVM_WHY_UNMAPPED);
    munmap(at, MB);
    at = map(MB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
    must_be_refused(&place, at, PGSHARE_KVM_WHY_PROTECTION);
    munmap(at, MB);
    at = map(MB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    must_be_refused(&place, at, PGSHARE_KVM_WHY_NOT_PRIVATE);
    munmap(at, MB);
    fd = (int)syscall(SYS_memfd_create, "a file", 0u);
    ck_assert_int_eq(ftruncate(fd, (off_t)MB), 0);
    at = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    must_be_refused(&place, at, PGSHARE_KVM_WHY_NOT_PRIVATE);
    munmap(at, MB);
    close(fd);
    pgshare_kvm_free(place.kvm);
}
END_TEST

START_TEST(memory_that_is_locked_or_merged_by_others_is_refused)
{
    struct place place;
    uint8_t *at = ordinary(MB);

    open_place(&place);
    if (!mlock(at, PAGE)) {
        must_be_refused(&place, at, PGSHARE_KVM_WHY_LOCKED);
        munlock(at, PAGE);
    }
    if (!madvise(at, MB, MADV_MERGEABLE)) {
        must_be_refused(&place, at, PGSHARE_KVM_WHY_KSM);
        madvise(at, MB, MADV_UNMERGEABLE);
    }
    must_be_refused(&place, at, PGSHARE_KVM_WHY_NONE);
    pgshare_kvm_free(place.kvm);
    munmap(at, MB);
}
END_TEST

START_TEST(slots_do_not_overlap_in_the_guest_nor_in_memory)
{
    struct place place;
    uint8_t *at = ordinary(2 * MB);

    open_place(&place);
    ck_assert_uint_eq(refusal(&place, at, 0, PAGES), PGSHARE_KVM_WHY_NONE);
    ck_assert_uint_eq(refusal(&place, at + MB, PAGES - 1, 2),
                      PGSHARE_KVM_WHY_OVERLAP);
    ck_assert_uint_eq(refusal(&place, at + MB - PAGE, PAGES, 2),
                      PGSHARE_KVM_WHY_OVERLAP);
    ck_assert_uint_eq(refusal(&place, at + MB, PAGES, PAGES),
                      PGSHARE_KVM_WHY_NONE);
    ck_assert_int_eq(pgshare_kvm_slot_add(place.guest, 4 * PAGES - 1, 2, at, 0,
                                          NULL),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_kvm_slot_remove(place.guest, 1),
                     PGSHARE_ERR_RANGE);
    ck_assert_int_eq(pgshare_kvm_slot_remove(place.guest, 0), 0);
    ck_assert_uint_eq(refusal(&place, at, 0, PAGES), PGSHARE_KVM_WHY_NONE);
    pgshare_kvm_free(place.kvm);
    munmap(at, 2 * MB);
}
END_TEST

/* ---- what is kept ------------------------------------------------------ */

/* Have all areas between these addresses that flag of /proc/self/smaps? */
static bool all_have(const uint8_t *at, size_t bytes, const char *flag)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    unsigned seen = 0, have = 0;
    bool inside = false;
    char line[512];

    while (fgets(line, sizeof(line), smaps)) {
        unsigned long from, to;

        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = to > (uintptr_t)at && from < (uintptr_t)at + bytes;
        else if (inside && !strncmp(line, "VmFlags:", 8)) {
            seen++;
            have += strstr(line + 8, flag) != NULL;
        }
    }
    fclose(smaps);
    return seen && have == seen;
}

START_TEST(shared_memory_is_dumped_and_inherited_as_little_as_before)
{
    struct rig rig;
    uint8_t *at;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    at = rig.ops->address(rig.guests[0].impl, 0);
    ck_assert(all_have(at, GFNS * PAGE, " dc "));
    rig_fill(&rig, 0, 0, 16, 7);
    rig_fill(&rig, 1, 0, 16, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 16);
    rig_write(&rig, 0, 3);
    ck_assert(all_have(at, GFNS * PAGE, " dc "));
    rig_close(&rig);
}
END_TEST

START_TEST(memory_that_is_not_to_be_dumped_is_not_when_it_is_shared)
{
    struct pgshare_share_request request = { .size = sizeof(request),
                                             .flags = PGSHARE_SHARE_MARK,
                                             .client_gfn = 16,
                                             .count = 16 };
    struct pgshare_host *host;
    struct place place;
    uint8_t *at = ordinary(MB);

    ck_assert_int_eq(madvise(at, MB, MADV_DONTDUMP), 0);
    for (unsigned i = 0; i < 32; i++)
        memset(at + i * PAGE, 'a' + i % 16, PAGE);
    open_place(&place);
    ck_assert_uint_eq(refusal(&place, at, 0, PAGES), PGSHARE_KVM_WHY_NONE);
    ck_assert_int_eq(pgshare_host_new(pgshare_kvm_backend(place.kvm), NULL,
                                      &host),
                     0);
    ck_assert_int_eq(pgshare_kvm_join(place.guest, host, 0), 0);
    request.source_dom = request.client_dom = pgshare_kvm_handle(place.guest);
    ck_assert_int_eq(pgshare_share(host, &request, NULL), 0);
    ck_assert(all_have(at, MB, " dd "));
    for (unsigned i = 0; i < 32; i++)
        ck_assert_int_eq(at[i * PAGE + 77], 'a' + i % 16);
    pgshare_host_free(host);
    pgshare_kvm_free(place.kvm);
    munmap(at, MB);
}
END_TEST

/* ---- what is gained ---------------------------------------------------- */

START_TEST(the_kernel_counts_as_many_frames_as_the_library)
{
    struct pgshare_kvm_info info = { .size = sizeof(info) };
    struct rig rig;

    rig_open(&rig, _i);
    rig_guest(&rig);
    rig_guest(&rig);
    rig_fill(&rig, 0, 0, 32, 7);
    rig_fill(&rig, 1, 0, 32, 7);
    rig_must_share(&rig, 0, 0, 1, 0, 32);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_kvm_info((void *)rig.ops->backend(rig.state),
                                      &info),
                     0);
    ck_assert_uint_eq(info.frames, rig_stats(&rig).frames);
    ck_assert_uint_eq(info.pool_pages, info.frames + info.dead);
    ck_assert_uint_eq(info.held, rig_stats(&rig).reserve);
    rig_close(&rig);
}
END_TEST

/* A VMM that breaks its word is told so by errors. */
START_TEST(memory_that_is_unmapped_under_the_library_harms_nobody_else)
{
    struct rig rig;
    uint8_t *at;

    rig_open(&rig, _i);
    for (unsigned g = 0; g < 3; g++) {
        rig_guest(&rig);
        rig_fill(&rig, g, 0, 16, 7);
    }
    rig_must_share(&rig, 0, 0, 1, 0, 4);
    at = rig.ops->address(rig.guests[2].impl, 0);
    ck_assert_int_eq(munmap(at, GFNS * PAGE), 0);
    rig_expect(&rig, 2, 0, GFNS, NOTHING);
    ck_assert_int_ne(rig_share(&rig, 0, 4, 2, 4, 4), 0);
    ck_assert_int_ne(rig_share(&rig, 2, 8, 1, 8, 4), 0);
    pgshare_host_pass(rig.host, 0);
    pgshare_host_settle(rig.host, SECOND);
    rig_must_share(&rig, 0, 4, 1, 4, 12);
    /* so that it can be freed like any other */
    ck_assert_ptr_eq(mmap(at, GFNS * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     at);
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &shared_memory_is_dumped_and_inherited_as_little_as_before,
      CAN_SHARE | CAN_PIN },
    { &the_kernel_counts_as_many_frames_as_the_library, CAN_SHARE | CAN_PIN },
    { &memory_that_is_unmapped_under_the_library_harms_nobody_else,
      CAN_SHARE | CAN_PIN },
    { &memory_that_cannot_be_shared_is_refused_with_the_reason,
      CAN_HARVEST | CAN_PIN },
    { &memory_that_is_locked_or_merged_by_others_is_refused,
      CAN_HARVEST | CAN_PIN },
    { &slots_do_not_overlap_in_the_guest_nor_in_memory,
      CAN_HARVEST | CAN_PIN },
    { &memory_that_is_not_to_be_dumped_is_not_when_it_is_shared,
      CAN_HARVEST | CAN_PIN },
};

static Suite *make(void)
{
    Suite *suite = contract_suite("kvm-slots", tests,
                                  sizeof(tests) / sizeof(tests[0]));
    TCase *texts = pgs_tcase(suite, "texts");

    tcase_add_test(texts, each_feature_has_a_name_and_a_sentence);
    tcase_add_test(texts, each_reason_has_a_sentence);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-slots", make, argc, argv);
}
