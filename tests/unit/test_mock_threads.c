/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mock machine under real concurrency: vCPU threads write while another
 * thread shares and unshares the same pages by hand. What a guest wrote last
 * must be there, whoever won.
 */
#include "support/suite.h"

#include <pgshare/domain.h>
#include <pgshare/error.h>
#include <pgshare/mock.h>
#include <pgshare/sys/backend.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define GUESTS 2u
#define PAGES 32u
#define ROUNDS 400u

struct rig {
    struct pgshare_sink sink;
    struct pgshare_mock_machine *machine;
    struct pgshare_backend *backend;
    struct pgshare_mock_domain *domains[GUESTS];
    void *cookies[GUESTS];
    /* One lock per pair of pages stands for the core's "in flight". */
    pthread_mutex_t locks[PAGES];
    uint64_t frames[PAGES]; /* shared by both guests, or 0 */
    bool mapped[GUESTS][PAGES];
    atomic_bool stop;
};

/* What the submitting thread is answered. */
struct answer {
    int8_t status;
    uint64_t id;
};

static _Thread_local struct answer answer;

static void sink_complete(void *ctx,
                          const struct pgshare_completion *completion)
{
    answer.status = completion->status ? completion->status[0]
                                       : (int8_t)completion->result;
    answer.id = completion->ids ? completion->ids[0] : 0;
}

static int op(struct rig *rig, uint32_t kind, unsigned guest, uint64_t gfn,
              uint32_t flags, const uint64_t *ids)
{
    struct pgshare_op operation = {
        .kind = kind,
        .flags = flags,
        .domain = guest < GUESTS ? rig->cookies[guest] : NULL,
        .gfn = gfn,
        .count = 1,
        .ids = ids,
    };

    rig->backend->ops->submit(rig->backend, &operation, 1);
    return answer.status;
}

/* Makes a page private again; with its lock held. */
static void unshare_page(struct rig *rig, unsigned guest, uint64_t gfn)
{
    bool last = !rig->mapped[!guest][gfn];

    if (!rig->mapped[guest][gfn])
        return;
    ck_assert_int_eq(op(rig, PGSHARE_OP_UNSHARE, guest, gfn,
                        last ? PGSHARE_OP_TAKE : PGSHARE_OP_COPY,
                        &rig->frames[gfn]),
                     0);
    rig->mapped[guest][gfn] = false;
    if (last)
        rig->frames[gfn] = 0;
}

static int fault(void *ctx, struct pgshare_mock_domain *domain, uint64_t gfn,
                 uint32_t flags)
{
    struct rig *rig = ctx;

    pthread_mutex_lock(&rig->locks[gfn]);
    unshare_page(rig, domain == rig->domains[1], gfn);
    pthread_mutex_unlock(&rig->locks[gfn]);
    return 0;
}

static void share(struct rig *rig, uint64_t gfn)
{
    if (rig->mapped[0][gfn] || rig->mapped[1][gfn])
        return;
    ck_assert_int_eq(op(rig, PGSHARE_OP_PROTECT, 0, gfn, 0, NULL), 0);
    ck_assert_int_eq(op(rig, PGSHARE_OP_PROTECT, 1, gfn, 0, NULL), 0);
    op(rig, PGSHARE_OP_PUBLISH, 0, gfn, 0, NULL);
    rig->frames[gfn] = answer.id;
    rig->mapped[0][gfn] = true;
    if (!op(rig, PGSHARE_OP_COMPARE, 1, gfn, 0, &rig->frames[gfn])) {
        ck_assert_int_eq(op(rig, PGSHARE_OP_MAP, 1, gfn, 0, &rig->frames[gfn]),
                         0);
        rig->mapped[1][gfn] = true;
    } else {
        op(rig, PGSHARE_OP_UNPROTECT, 1, gfn, 0, NULL);
    }
}

static void *sharer(void *ctx)
{
    struct rig *rig = ctx;

    while (!atomic_load(&rig->stop))
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            pthread_mutex_lock(&rig->locks[gfn]);
            share(rig, gfn);
            pthread_mutex_unlock(&rig->locks[gfn]);
            sched_yield();
        }
    return NULL;
}

struct vcpu {
    struct rig *rig;
    unsigned guest;
    unsigned mismatches;
};

static void *vcpu(void *ctx)
{
    struct vcpu *vcpu = ctx;
    struct pgshare_mock_domain *domain = vcpu->rig->domains[vcpu->guest];
    unsigned char page[PGSHARE_PAGE_SIZE];
    unsigned char seen[PGSHARE_PAGE_SIZE];

    for (unsigned round = 0; round < ROUNDS * pgs_test_scale(); round++)
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            memset(page, (int)(round % 3), sizeof(page));
            if (pgshare_mock_write_page(domain, gfn, page) ||
                pgshare_mock_read(domain, gfn, 0, seen, sizeof(seen)) ||
                memcmp(page, seen, sizeof(page)))
                vcpu->mismatches++;
        }
    return NULL;
}

static void set_up(struct rig *rig, uint32_t flavour)
{
    struct pgshare_mock_options options = { .size = sizeof(options),
                                            .flavour = flavour,
                                            .flags = PGSHARE_MOCK_PARANOID,
                                            .frames = 4 * PAGES,
                                            .fault = fault,
                                            .ctx = rig };
    struct pgshare_backend_info info;

    memset(rig, 0, sizeof(*rig));
    rig->sink.size = sizeof(rig->sink);
    rig->sink.complete = sink_complete;
    ck_assert_int_eq(pgshare_mock_machine_new(&options, &rig->machine), 0);
    rig->backend = pgshare_mock_backend(rig->machine);
    ck_assert_int_eq(rig->backend->ops->attach(rig->backend, NULL, &rig->sink,
                                               &info),
                     0);
    for (unsigned i = 0; i < PAGES; i++)
        pthread_mutex_init(&rig->locks[i], NULL);
    for (unsigned i = 0; i < GUESTS; i++) {
        struct pgshare_domain_options add = { .size = sizeof(add),
                                              .gfns = PAGES };
        struct pgshare_domain_attach attach;

        pgshare_mock_domain_new(rig->machine, PAGES, NULL, &rig->domains[i]);
        pgshare_mock_populate(rig->domains[i], 0, PAGES);
        add.attach = pgshare_mock_attach(rig->domains[i]);
        rig->backend->ops->domain_add(rig->backend, i + 1, &add, &attach);
        rig->cookies[i] = attach.cookie;
    }
}

START_TEST(test_writes_and_shares)
{
    struct vcpu vcpus[GUESTS];
    pthread_t threads[GUESTS];
    pthread_t sharing;
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    pthread_create(&sharing, NULL, sharer, &rig);
    for (unsigned i = 0; i < GUESTS; i++) {
        vcpus[i] = (struct vcpu){ .rig = &rig, .guest = i };
        pthread_create(&threads[i], NULL, vcpu, &vcpus[i]);
    }
    for (unsigned i = 0; i < GUESTS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&rig.stop, true);
    pthread_join(sharing, NULL);
    for (unsigned i = 0; i < GUESTS; i++)
        ck_assert_uint_eq(vcpus[i].mismatches, 0);
    ck_assert_msg(!pgshare_mock_check(rig.machine) &&
                      !pgshare_mock_violation(rig.machine, 0),
                  "%s", pgshare_mock_violation(rig.machine, 0));
    for (unsigned i = 0; i < GUESTS; i++)
        rig.backend->ops->domain_remove(rig.backend, rig.cookies[i]);
    rig.backend->ops->detach(rig.backend);
    pgshare_mock_machine_free(rig.machine);
    for (unsigned i = 0; i < PAGES; i++)
        pthread_mutex_destroy(&rig.locks[i]);
}
END_TEST

/* Frames come and go in many threads; none is refused while there is one. */
struct taker {
    struct rig *rig;
    unsigned guest;
    unsigned refused;
};

static void *take_and_give(void *ctx)
{
    struct taker *taker = ctx;

    for (unsigned round = 0; round < 20 * ROUNDS; round++) {
        uint64_t gfn = round % (PAGES / 2);

        if (op(taker->rig, PGSHARE_OP_DISCARD, taker->guest, gfn, 0, NULL) ||
            op(taker->rig, PGSHARE_OP_GRANT, taker->guest, gfn, 0, NULL))
            taker->refused++;
    }
    return NULL;
}

START_TEST(test_last_frame_is_found)
{
    struct taker takers[GUESTS];
    pthread_t threads[GUESTS];
    struct rig rig;

    set_up(&rig, PGSHARE_MOCK_PLAIN);
    for (unsigned i = 0; i < GUESTS; i++) {
        takers[i] = (struct taker){ .rig = &rig, .guest = i };
        pthread_create(&threads[i], NULL, take_and_give, &takers[i]);
    }
    for (unsigned i = 0; i < GUESTS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < GUESTS; i++)
        ck_assert_uint_eq(takers[i].refused, 0);
    ck_assert_uint_eq(pgshare_mock_check(rig.machine), 0);
    for (unsigned i = 0; i < GUESTS; i++)
        rig.backend->ops->domain_remove(rig.backend, rig.cookies[i]);
    rig.backend->ops->detach(rig.backend);
    pgshare_mock_machine_free(rig.machine);
    for (unsigned i = 0; i < PAGES; i++)
        pthread_mutex_destroy(&rig.locks[i]);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("mock_threads");
    TCase *race = pgs_tcase(suite, "race");

    tcase_add_test(race, test_writes_and_shares);
    tcase_add_test(race, test_last_frame_is_found);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("mock_threads", make, argc, argv);
}
