/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lending and repaying. Guests offer cache pages that they could read again,
 * and get bonus pages for as many; when writes break sharing and the reserve is
 * used up, the pages offered pay. The guest that knows nothing of this has a
 * service domain offer pages for it.
 */
#include "story.h"

#include <inttypes.h>
#include <stdio.h>

static int account_of(struct guest *guest, struct pgshare_account *ret_account)
{
    int error;

    ret_account->size = sizeof(*ret_account);
    error = pgshare_account(guest->demo->host, guest->dom, ret_account);
    return error ? complain(error, "%s: account", guest->name) : 0;
}

/* The service domain: scratch memory that it can do without. */
static int add_service(struct demo *demo, const struct plan *plan)
{
    struct guest *client = &demo->guests[demo->options->guests - 1], *service;
    unsigned char page[PGSHARE_PAGE_SIZE] = "swap";
    int error = demo_guest_add(demo, "service", plan->service, NULL, &service);

    if (error)
        return error;
    service->ram = plan->service;
    error = pgshare_mock_populate(service->domain, 0, plan->service);
    if (error)
        return complain(error, "service domain: memory");
    shadow_clear(&service->shadow, 0, plan->service, SHADOW_HOLE);
    for (uint64_t gfn = 0; !error && gfn < plan->service; gfn++) {
        snprintf((char *)page + 8, 32, "slot %" PRIu64, gfn);
        error = guest_write_page(service, gfn, page);
    }
    if (!error)
        error = pgshare_declare_volatile(demo->host, service->dom, 0,
                                         plan->service, NULL);
    shadow_set(&service->shadow, 0, plan->service, SHADOW_OFFERED);
    if (!error)
        error = pgshare_service_set(demo->host, client->dom, service->dom);
    return error ? complain(error, "service domain") : 0;
}

/* What the guest claims: as much as it is entitled to, has room for, and can
 * secure. */
static int may_claim(struct guest *guest, uint64_t fifo, uint64_t *ret_count)
{
    struct pgshare_account account;
    uint64_t count;
    int error = account_of(guest, &account);

    if (error)
        return error;
    count = account.entitlement / PGSHARE_ENTITLEMENT_ONE;
    count = count < fifo ? count : fifo;
    if (count > guest->shadow.pages - guest->ram)
        count = guest->shadow.pages - guest->ram;
    *ret_count = count;
    return 0;
}

static int claim_one(struct guest *guest, uint64_t fifo)
{
    struct demo *demo = guest->demo;
    struct pgshare_mock_kernel_options options = {
        .size = sizeof(options),
        .first = guest->ram,
        .disk = demo->disk,
    };
    uint64_t count = 0;
    int error = may_claim(guest, fifo, &count);

    if (error || !count)
        return error;
    error = pgshare_bonus_claim(demo->host, guest->dom, guest->ram, count,
                                NULL);
    if (error)
        return complain(error, "%s: claiming %" PRIu64 " bonus pages",
                        guest->name, count);
    guest->n_bonus = count;
    shadow_clear(&guest->shadow, guest->ram, count, SHADOW_HOLE);
    options.count = count;
    error = pgshare_mock_kernel_new(guest->domain, &options, &guest->bonus);
    return error ? complain(error, "%s: bonus pages", guest->name) : 0;
}

/* Bonus pages are used: as page cache for what another guest's documents are,
 * too. */
static int use_bonus(struct guest *guest, const struct plan *plan, uint64_t at)
{
    uint32_t next = (number_of(guest) + 1) % guest->demo->options->guests;

    if (at >= guest->n_bonus || at >= plan->documents)
        return 0;
    return guest_read(guest, guest->bonus,
                      plan->system + next * plan->documents + at, NULL);
}

int act_claim(struct demo *demo, const struct plan *plan)
{
    uint32_t guests = demo->options->guests;
    int error = 0;

    for (uint32_t i = 0; !error && i + 1 < guests; i++) {
        uint64_t offered = 0;

        error = guest_offer(&demo->guests[i], plan->documents, &offered);
        if (!error)
            error = claim_one(&demo->guests[i], offered);
        if (!error)
            error = demo_tick(demo);
    }
    if (!error)
        error = add_service(demo, plan);
    if (!error)
        error = claim_one(&demo->guests[guests - 1], plan->service);
    return error ? error : in_turns(demo, plan, plan->pages / 2, use_bonus);
}

/* ---- writing -------------------------------------------------------------- */

static int touch_system(struct guest *guest, const struct plan *plan,
                        uint64_t at)
{
    uint64_t mark = guest_random(guest, UINT64_MAX);
    uint64_t block = guest_random(guest, plan->system);
    uint32_t offset = (uint32_t)guest_random(guest, PGSHARE_PAGE_SIZE - 8);

    (void)at;
    return guest_edit(guest, block, offset, &mark, sizeof(mark));
}

/* Some documents are wanted again: those that have paid are read anew. */
static int reread(struct guest *guest, const struct plan *plan, uint64_t at)
{
    uint64_t first = plan->system + number_of(guest) * plan->documents;

    if (at % 8)
        return 0;
    return guest_read(guest, guest->kernel, first + at, NULL);
}

/* Programs start in three quarters of the memory that is free, page by page:
 * pages of the zero frame so far. */
static int start_program(struct guest *guest, const struct plan *plan,
                         uint64_t at)
{
    struct pgshare_mock_kernel_info info = { .size = sizeof(info) };
    uint64_t gfn;
    int error = pgshare_mock_kernel_info(guest->kernel, &info);

    if (!at)
        guest->keep_free = info.free / 4;
    if (error || info.free <= guest->keep_free)
        return error;
    error = guest_alloc(guest, 1, &gfn);
    return error ? error : guest_write(guest, gfn, 0, "main", 4);
}

int act_break(struct demo *demo, const struct plan *plan)
{
    int error = in_turns(demo, plan, plan->system, touch_system);

    if (!error)
        error = in_turns(demo, plan, plan->pages, start_program);
    return error ? error : in_turns(demo, plan, plan->documents, reread);
}

/* ---- and back ------------------------------------------------------------- */

/* A page that has paid took a claim with it; so many bonus pages are the
 * guest's own by now. */
static int repay_one(struct guest *guest)
{
    struct pgshare_host *host = guest->demo->host;
    struct pgshare_account account;
    int error = 0;

    guest->bonus = pgshare_mock_kernel_free(guest->bonus);
    if (guest->n_bonus)
        error = pgshare_unshare(host, guest->dom, guest->ram, guest->n_bonus,
                                NULL);
    if (error)
        return complain(error, "%s: bonus pages", guest->name);
    error = account_of(guest, &account);
    if (error || !account.claimed)
        return error;
    error = pgshare_bonus_return(host, guest->dom, guest->ram, account.claimed,
                                 NULL);
    if (error)
        return complain(error, "%s: handing %" PRIu64 " bonus pages back",
                        guest->name, account.claimed);
    for (uint64_t i = 0; i < account.claimed; i++)
        shadow_borrow(&guest->shadow, guest->ram + i, NULL);
    shadow_set(&guest->shadow, guest->ram, account.claimed, SHADOW_HOLE);
    return 0;
}

/* Every document is read again, which withdraws it from the FIFO. */
static int withdraw(struct guest *guest, const struct plan *plan, uint64_t at)
{
    uint64_t first = plan->system + number_of(guest) * plan->documents;

    return guest_read(guest, guest->kernel, first + at, NULL);
}

int act_repay(struct demo *demo, const struct plan *plan)
{
    int error = 0;

    for (uint32_t i = 0; !error && i < demo->options->guests; i++)
        error = repay_one(&demo->guests[i]);
    return error ? error : in_turns(demo, plan, plan->documents, withdraw);
}
