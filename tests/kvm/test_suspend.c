/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VMM that migrates or takes a snapshot: it registers a userfaultfd of its own
 * with the memory of a suspended guest.
 */
#include "contract/rig.h"

#include "kvm/sys.h"

#include <errno.h>
#include <unistd.h>

#define SHARED 8u /* pages 0 … 7 of the guests 0 and 1 are shared */

static void open_shared(struct rig *rig, int machine)
{
    rig_open(rig, machine);
    rig_guest(rig);
    rig_guest(rig);
    rig_fill(rig, 0, 0, SHARED, 5);
    rig_fill(rig, 1, 0, SHARED, 5);
    rig_must_share(rig, 0, 0, 1, 0, SHARED);
}

static int watch(int fd, struct rig *rig, uint64_t gfn, uint64_t count)
{
    return pgs_sys_uffd_register(fd,
                                 rig->ops->address(rig->guests[0].impl, gfn),
                                 count * PAGE,
                                 UFFDIO_REGISTER_MODE_MISSING |
                                     UFFDIO_REGISTER_MODE_WP);
}

static void unwatch(int fd, struct rig *rig, uint64_t gfn, uint64_t count)
{
    ck_assert_int_eq(
        pgs_sys_uffd_unregister(fd,
                                rig->ops->address(rig->guests[0].impl, gfn),
                                count * PAGE),
        0);
}

START_TEST(the_memory_of_a_suspended_guest_can_be_watched_by_others)
{
    int fd = pgs_sys_uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                               PGS_UFFD_WP_SHMEM);
    struct rig rig;
    uint64_t dom;

    ck_assert_int_ge(fd, 0);
    open_shared(&rig, _i);
    dom = rig_dom(&rig, 0);
    ck_assert_int_eq(watch(fd, &rig, SHARED, GFNS - SHARED), -EBUSY);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, dom), 0);
    ck_assert_int_eq(watch(fd, &rig, SHARED, GFNS - SHARED), 0);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), PGSHARE_ERR_BUSY);
    ck_assert_int_eq(rig_share(&rig, 0, 0, 1, 20, 1), PGSHARE_ERR_SUSPENDED);
    unwatch(fd, &rig, SHARED, GFNS - SHARED);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), 0);
    ck_assert_int_eq(watch(fd, &rig, SHARED, GFNS - SHARED), -EBUSY);
    close(fd);
    rig_fill(&rig, 0, 20, 4, 9);
    rig_fill(&rig, 1, 20, 4, 9);
    rig_must_share(&rig, 0, 20, 1, 20, 4);
    rig_close(&rig);
}
END_TEST

/* Whatever comes first. */
static void make_private(struct rig *rig, uint64_t dom)
{
    struct pgshare_unshare_progress progress = { .size = sizeof(progress) };

    ck_assert_int_eq(pgshare_domain_unshare(rig->host, dom, 0, GFNS, 0,
                                            &progress),
                     0);
}

static void watch_all(int machine, bool private_first)
{
    int fd = pgs_sys_uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                               PGS_UFFD_WP_SHMEM);
    struct rig rig;
    uint64_t dom;

    open_shared(&rig, machine);
    dom = rig_dom(&rig, 0);
    if (private_first)
        make_private(&rig, dom);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, dom), 0);
    if (!private_first) {
        ck_assert_int_eq(watch(fd, &rig, 0, 1), -EBUSY);
        ck_assert_int_eq(watch(fd, &rig, 0, GFNS), -EBUSY);
        ck_assert_int_eq(rig.ops->depopulate(rig.guests[0].impl, 1, 1),
                         PGSHARE_ERR_BUSY);
        ck_assert_int_eq(rig_write(&rig, 0, 2), 0);
        rig_settle(&rig);
        make_private(&rig, dom);
    }
    ck_assert_int_eq(watch(fd, &rig, 0, GFNS), 0);
    unwatch(fd, &rig, 0, GFNS);
    close(fd);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), 0);
    rig_fill(&rig, 0, 0, SHARED, 5);
    rig_must_share(&rig, 0, 0, 1, 0, SHARED);
    rig_close(&rig);
}

START_TEST(all_of_a_private_guest_is_let_go)
{
    watch_all(_i, true);
}
END_TEST

START_TEST(what_becomes_private_is_let_go)
{
    watch_all(_i, false);
}
END_TEST

/* A resume that fails leaves the VMM's registration as it was. */
START_TEST(a_resume_that_fails_takes_nothing_from_others)
{
    int fd = pgs_sys_uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                               PGS_UFFD_WP_SHMEM);
    int other = pgs_sys_uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
    struct rig rig;
    uint64_t dom;

    open_shared(&rig, _i);
    dom = rig_dom(&rig, 0);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, dom), 0);
    ck_assert_int_eq(watch(fd, &rig, 30, 10), 0);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), PGSHARE_ERR_BUSY);
    for (unsigned gfn = 30; gfn < 40; gfn++)
        ck_assert_int_eq(watch(other, &rig, gfn, 1), -EBUSY);
    ck_assert_int_eq(watch(other, &rig, 20, 1), 0); /* nobody's */
    unwatch(other, &rig, 20, 1);
    unwatch(fd, &rig, 30, 10);
    close(other);
    close(fd);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, dom), 0);
    rig_close(&rig);
}
END_TEST

/* Nobody logs what a suspended guest writes; still it is seen afterwards. */
START_TEST(what_a_suspended_guest_wrote_is_looked_at_again)
{
    struct rig rig;

    open_shared(&rig, _i);
    rig_fill(&rig, 1, 30, 4, 11);
    pgshare_host_pass(rig.host, 0);
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, rig_dom(&rig, 0)), 0);
    rig_fill(&rig, 0, 30, 4, 11);
    rig_write(&rig, 0, 2); /* a shared page: private from now on */
    rig_settle(&rig);
    ck_assert_int_eq(pgshare_domain_resume(rig.host, rig_dom(&rig, 0)), 0);
    pgshare_host_pass(rig.host, 0);
    rig_settle(&rig);
    for (unsigned gfn = 30; gfn < 34; gfn++)
        ck_assert(rig_is(&rig, 0, gfn, PGSHARE_GFN_SHARED));
    ck_assert(rig_is(&rig, 0, 2, PGSHARE_GFN_PRIVATE));
    rig_close(&rig);
}
END_TEST

START_TEST(a_guest_that_leaves_suspended_joins_again)
{
    struct rig rig;

    open_shared(&rig, _i);
    ck_assert_int_eq(pgshare_domain_suspend(rig.host, rig_dom(&rig, 0)), 0);
    rig_fill(&rig, 0, 30, 4, 11);
    ck_assert_int_eq(rig_leave(&rig, 0), 0);
    rig_join(&rig, 0, rig.group);
    rig_fill(&rig, 1, 30, 4, 11);
    rig_must_share(&rig, 0, 30, 1, 30, 4);
    rig_close(&rig);
}
END_TEST

static const struct contract_test tests[] = {
    { &the_memory_of_a_suspended_guest_can_be_watched_by_others, CAN_SHARE },
    { &all_of_a_private_guest_is_let_go, CAN_SHARE },
    { &what_becomes_private_is_let_go, CAN_SHARE },
    { &a_resume_that_fails_takes_nothing_from_others, CAN_SHARE },
    { &what_a_suspended_guest_wrote_is_looked_at_again, CAN_FINGERPRINT },
    { &a_guest_that_leaves_suspended_joins_again, CAN_SHARE },
};

static Suite *make(void)
{
    return contract_suite("kvm-suspend", tests,
                          sizeof(tests) / sizeof(tests[0]));
}

int main(int argc, char **argv)
{
    return pgs_suite_main("kvm-suspend", make, argc, argv);
}
