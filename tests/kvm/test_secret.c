/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest says by its ring which of its pages hold keys: these are never shared,
 * and by the time that a write takes nobody can tell them from pages that have no
 * equal.
 */
#include "contract/rig.h"

#include <pgshare/guest_ring.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEYS 16u   /* pages 0 … 15 of both guests are equal, and keys */
#define EQUAL 32u  /* pages 0 … 31 are equal */
#define OTHERS 48u /* pages 32 … 47 have no equal */

/* What the guest does. */
static void declare_keys(struct rig *rig, struct pgshare_guest_ring *ring)
{
    struct pgshare_guest_ring_answer answer = { .result = 1 };

    pgshare_guest_ring_init(ring);
    ck_assert_int_eq(pgshare_ring_attach(rig->host, rig_dom(rig, 0), ring,
                                         PAGE),
                     0);
    ck_assert(pgshare_guest_ring_put(ring, PGSHARE_GUEST_RING_NEVER_SHARE, 0,
                                     KEYS, 7));
    pgshare_host_run(rig->host, NULL, NULL);
    ck_assert(pgshare_guest_ring_take(ring, &answer));
    ck_assert_int_eq(answer.result, 0);
    ck_assert_uint_eq(answer.id, 7);
}

static void open_secret(struct rig *rig, int machine,
                        struct pgshare_guest_ring *ring, bool shared_before)
{
    rig_open(rig, machine);
    for (unsigned g = 0; g < 2; g++) {
        rig_guest(rig);
        for (unsigned gfn = 0; gfn < OTHERS; gfn++)
            rig_fill(rig, g, gfn, 1, 1 + gfn + (gfn < EQUAL ? 0 : 100 * g));
    }
    if (shared_before)
        rig_must_share(rig, 1, 0, 0, 0, EQUAL);
    declare_keys(rig, ring);
    for (unsigned pass = 0; pass < 3; pass++) {
        ck_assert_int_eq(pgshare_host_pass(rig->host, 0), 0);
        rig_settle(rig);
    }
}

static void check_keys(struct rig *rig)
{
    for (unsigned gfn = 0; gfn < EQUAL; gfn++)
        ck_assert(rig_is(rig, 0, gfn, gfn < KEYS ? PGSHARE_GFN_PRIVATE
                                                 : PGSHARE_GFN_SHARED));
    ck_assert_int_eq(rig_share(rig, 1, 0, 0, 0, 1), PGSHARE_ERR_NEVER_SHARE);
    ck_assert_int_eq(rig_share(rig, 0, 1, 1, 1, 1), PGSHARE_ERR_NEVER_SHARE);
}

static void *ring_new(void)
{
    void *ring = aligned_alloc(PAGE, PAGE);

    ck_assert_ptr_nonnull(ring);
    return memset(ring, 0, PAGE);
}

START_TEST(a_guests_keys_are_never_shared)
{
    struct pgshare_guest_ring *ring = ring_new();
    struct rig rig;

    open_secret(&rig, _i, ring, false);
    check_keys(&rig);
    rig_close(&rig);
    free(ring);
}
END_TEST

START_TEST(keys_that_were_shared_before_are_private_again)
{
    struct pgshare_guest_ring *ring = ring_new();
    struct rig rig;

    open_secret(&rig, _i, ring, true);
    check_keys(&rig);
    rig_close(&rig);
    free(ring);
}
END_TEST

/* ---- time -------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t write_time(struct rig *rig, uint64_t gfn)
{
    volatile uint8_t *at = rig->ops->address(rig->guests[0].impl, gfn);
    uint64_t begin = now_ns();

    at[1] = at[1];
    return now_ns() - begin;
}

/* Medians of first writes, in turns, to pages that read the same afterwards. */
static void measure(struct rig *rig, uint64_t *ret_key, uint64_t *ret_other)
{
    uint64_t key[KEYS], other[KEYS];

    for (unsigned i = 0; i < KEYS; i++) {
        other[i] = write_time(rig, EQUAL + i);
        key[i] = write_time(rig, i);
    }
    qsort(key, KEYS, sizeof(key[0]), compare);
    qsort(other, KEYS, sizeof(other[0]), compare);
    *ret_key = key[KEYS / 2];
    *ret_other = other[KEYS / 2];
}

static bool is_near(uint64_t a, uint64_t b)
{
    return a < 2 * b + 5000;
}

/* Others are at work on the machine, too: once is enough. */
START_TEST(a_write_to_a_key_takes_as_long_as_one_to_a_page_without_an_equal)
{
    struct pgshare_guest_ring *ring = ring_new();
    uint64_t key = 0, other = 0;
    bool near = false;
    struct rig rig;

    open_secret(&rig, _i, ring, false);
    for (unsigned i = 0; i < 20 && !near; i++) {
        measure(&rig, &key, &other);
        near = is_near(key, other) && is_near(other, key);
        ck_assert_int_eq(pgshare_host_pass(rig.host, 0), 0);
        rig_settle(&rig);
    }
    printf("%s: a first write takes %llu ns to a key, %llu to a page without an "
           "equal, %llu to a shared one\n",
           rig.machine->name, (unsigned long long)key,
           (unsigned long long)other,
           (unsigned long long)write_time(&rig, KEYS));
    ck_assert(near);
    rig_close(&rig);
    free(ring);
}
END_TEST

static const struct contract_test tests[] = {
    { &a_guests_keys_are_never_shared, CAN_FINGERPRINT },
    { &keys_that_were_shared_before_are_private_again, CAN_FINGERPRINT },
    { &a_write_to_a_key_takes_as_long_as_one_to_a_page_without_an_equal,
      CAN_FINGERPRINT },
};

static Suite *make(void)
{
    return contract_suite("kvm-secret", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-secret", make, argc, argv);
}
