/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that keeps its own repayment FIFO, through a ring in one shared page.
 * It offers pages that it can do without, takes one back in time, and learns
 * which of the others have paid for somebody's write.
 */
#include <pgshare/guest_ring.h>
#include <pgshare/mock.h>
#include <pgshare/pgshare.h>

#include <stdio.h>
#include <stdlib.h>

#define MEMORY 64
#define CACHE 32 /* first of eight pages of the guest's page cache */

static void check(int error)
{
    if (error) {
        fprintf(stderr, "guest_ring: %s\n", pgshare_error_text(error));
        exit(1);
    }
}

/* ---- the guest's side: no part of the library is needed for this ---------- */

static void guest_ask(struct pgshare_guest_ring *ring, uint16_t op,
                      uint64_t gfn, uint32_t count)
{
    static uint16_t id;

    if (!pgshare_guest_ring_put(ring, op, gfn, count, ++id))
        check(PGSHARE_ERR_FULL); /* a real guest takes answers, and waits */
}

/* Takes all answers; says how many pages have paid. */
static int guest_answers(struct pgshare_guest_ring *ring)
{
    struct pgshare_guest_ring_answer answer;
    int paid = 0;

    while (pgshare_guest_ring_take(ring, &answer))
        if (answer.op == PGSHARE_GUEST_RING_RECLAIMED) {
            printf("guest: page %llu is gone, I shall read it again\n",
                   (unsigned long long)answer.gfn);
            paid++;
        } else {
            printf("guest: request %d: %s\n", answer.id,
                   pgshare_error_text(answer.result));
        }
    return paid;
}

/* ---- the host's side ------------------------------------------------------ */

int main(void)
{
    struct pgshare_guest_ring *ring = aligned_alloc(4096, 4096);
    struct pgshare_account account = { .size = sizeof(account) };
    struct pgshare_mock_domain *guests[2];
    struct pgshare_mock_machine *machine;
    struct pgshare_host *host;
    uint64_t group, dom[2];
    int paid;

    if (!ring)
        return 1;
    *ring = (struct pgshare_guest_ring){ 0 };
    check(pgshare_mock_machine_new(NULL, &machine));
    check(pgshare_host_new(pgshare_mock_backend(machine), NULL, &host));
    check(pgshare_group_open(host, "mine", &group));
    for (int i = 0; i < 2; i++) {
        check(pgshare_mock_domain_new(machine, 2 * MEMORY, NULL, &guests[i]));
        check(pgshare_mock_populate(guests[i], 0, MEMORY));
        check(pgshare_mock_join(guests[i], host, group));
        dom[i] = pgshare_mock_handle(guests[i]);
        for (uint64_t gfn = 0; gfn < MEMORY; gfn++) /* 16 pages are equal */
            check(pgshare_mock_write(
                guests[i], gfn, 0,
                &(uint64_t){ gfn + 1 + (gfn < 16 ? 0 : 1000u * (i + 1u)) }, 8));
    }
    check(pgshare_host_pass(host, 0));
    check(pgshare_host_settle(host, PGSHARE_FOREVER));

    /* The guest offers eight cache pages; one of them it wants back. */
    pgshare_guest_ring_init(ring);
    check(pgshare_ring_attach(host, dom[0], ring, 4096));
    guest_ask(ring, PGSHARE_GUEST_RING_PUSH, CACHE, 8);
    guest_ask(ring, PGSHARE_GUEST_RING_WITHDRAW, CACHE + 3, 1);
    check(pgshare_ring_kick(host, dom[0])); /* or the next pgshare_host_run() */
    guest_answers(ring);

    /* It gets bonus pages for them; then everybody's sharing breaks. */
    check(pgshare_bonus_claim(host, dom[0], MEMORY, 7, NULL));
    for (uint64_t gfn = 0; gfn < 16; gfn++)
        check(pgshare_mock_write(guests[0], gfn, 8, "mine", 4));
    check(pgshare_host_settle(host, PGSHARE_FOREVER));
    paid = guest_answers(ring);
    check(pgshare_account(host, dom[0], &account));
    printf("host: %d pages have paid, %llu bonus pages are still a loan\n",
           paid, (unsigned long long)account.claimed);

    pgshare_host_free(host);
    pgshare_mock_machine_free(machine);
    free(ring);
    return paid != 7;
}
