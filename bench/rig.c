/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine of the benches: a plain mock machine, whose CoW faults the
 * library resolves. Guests that need no bytes of their own are sparse, so that
 * a frame with a million mappings takes the memory of one page.
 */
#include "bench.h"

#include "measure.h"

#include <stdlib.h>

#define GROUP_NAME "bench"
#define PAGE_WORDS (PGSHARE_PAGE_SIZE / sizeof(uint64_t))

static const enum pgs_content contents[] = {
    PGS_CONTENT_BY_GFN,
    PGS_CONTENT_SAME,
};

void pgs_content_fill(void *content, uint32_t domid, uint64_t gfn,
                      void *ret_page)
{
    uint64_t *words = ret_page;
    uint64_t base = UINT64_C(0x9e3779b97f4a7c15);

    if (!content || *(const enum pgs_content *)content == PGS_CONTENT_BY_GFN)
        base *= gfn + 1;
    for (size_t i = 0; i < PAGE_WORDS; i++)
        words[i] = base + i;
}

static void fill_page(void *content, uint64_t gfn, void *ret_page)
{
    pgs_content_fill(content, 0, gfn, ret_page);
}

/* Told to whoever looks at a bench that cannot be right. */
static void violated(void *ctx, const char *text)
{
    pgs_bench_die("the mock machine found a violation: %s", text);
}

void pgs_rig_host_open(struct pgs_rig *rig)
{
    pgs_rig_host_open_on(rig, NULL);
}

void pgs_rig_host_open_on(struct pgs_rig *rig,
                          const struct pgshare_platform *platform)
{
    struct pgshare_host_options options = {
        .size = sizeof(options),
        .platform = platform,
    };

    pgs_bench_check(pgshare_host_new(pgshare_mock_backend(rig->machine),
                                     &options, &rig->host),
                    "pgshare_host_new");
    pgs_bench_check(pgshare_group_open(rig->host, GROUP_NAME, &rig->group),
                    "pgshare_group_open");
}

void pgs_rig_host_close(struct pgs_rig *rig)
{
    rig->host = pgshare_host_free(rig->host);
}

static void open_machine(struct pgs_rig *rig, uint64_t frames, uint64_t zeroed,
                         uint32_t flags)
{
    struct pgshare_mock_options options = {
        .size = sizeof(options),
        .frames = frames,
        .zeroed = zeroed,
        .flags = flags | PGSHARE_MOCK_HUGE,
        .violation = violated,
    };

    pgs_bench_check(pgshare_mock_machine_new(&options, &rig->machine),
                    "pgshare_mock_machine_new");
    pgs_rig_host_open(rig);
}

void pgs_rig_open(struct pgs_rig *rig, uint64_t frames, uint64_t zeroed)
{
    open_machine(rig, frames, zeroed, 0);
}

void pgs_rig_open_logged(struct pgs_rig *rig, uint64_t frames)
{
    open_machine(rig, frames, 1, PGSHARE_MOCK_CHANGE_LOG);
}

void pgs_rig_close(struct pgs_rig *rig)
{
    pgs_rig_host_close(rig);
    rig->machine = pgshare_mock_machine_free(rig->machine);
}

void pgs_rig_guest(struct pgs_rig *rig, struct pgs_guest *guest, uint64_t gfns,
                   enum pgs_content content, bool sparse)
{
    struct pgshare_mock_domain_options options = {
        .size = sizeof(options),
        .flags = sparse ? PGSHARE_MOCK_SPARSE : 0,
    };
    void *ctx = (void *)(uintptr_t)&contents[content];

    if (content != PGS_CONTENT_UNIQUE) {
        options.content = pgs_content_fill;
        options.ctx = ctx;
    }
    pgs_bench_check(pgshare_mock_domain_new(rig->machine, gfns, &options,
                                            &guest->mock),
                    "pgshare_mock_domain_new");
    guest->gfns = gfns;
    guest->dom = 0;
    if (sparse)
        return;
    pgs_bench_check(pgshare_mock_populate(guest->mock, 0, gfns),
                    "pgshare_mock_populate");
    pgs_bench_check(pgshare_mock_fill(guest->mock, 0, gfns, fill_page, ctx),
                    "pgshare_mock_fill");
}

void pgs_rig_join(struct pgs_rig *rig, struct pgs_guest *guest)
{
    pgs_bench_check(pgshare_mock_join(guest->mock, rig->host, rig->group),
                    "pgshare_mock_join");
    guest->dom = pgshare_mock_handle(guest->mock);
}

void pgs_rig_leave(struct pgs_guest *guest)
{
    pgs_bench_check(pgshare_mock_leave(guest->mock), "pgshare_mock_leave");
    guest->dom = 0;
}

void pgs_rig_share(struct pgs_rig *rig, const struct pgs_guest *source,
                   uint64_t source_gfn, const struct pgs_guest *client,
                   uint64_t client_gfn, uint64_t count)
{
    struct pgshare_share_request request = {
        .size = sizeof(request),
        .flags = PGSHARE_SHARE_MARK,
        .source_dom = source->dom,
        .source_gfn = source_gfn,
        .client_dom = client->dom,
        .client_gfn = client_gfn,
        .count = count,
    };

    pgs_bench_check(pgshare_share(rig->host, &request, NULL), "pgshare_share");
}

void pgs_rig_unshare(struct pgs_rig *rig, const struct pgs_guest *guest,
                     uint64_t gfn, uint64_t count)
{
    pgs_bench_check(pgshare_unshare(rig->host, guest->dom, gfn, count, NULL),
                    "pgshare_unshare");
}

/* ---- populations ------------------------------------------------------- */

void pgs_population_share(struct pgs_population *population, uint64_t gfn,
                          uint64_t count)
{
    struct pgs_population *p = population;

    if (!p->one) {
        pgs_rig_share(&p->rig, &p->source, gfn, &p->client, gfn, count);
        return;
    }
    for (uint64_t i = gfn; i < gfn + count; i++)
        pgs_rig_share(&p->rig, &p->source, 0, &p->client, i, 1);
}

void pgs_population_open(struct pgs_population *population, uint32_t mappings,
                         bool one)
{
    struct pgs_population *p = population;
    uint64_t source = one ? 1 : mappings / 2;
    uint64_t client = one ? mappings - 1 : mappings / 2;
    enum pgs_content content = one ? PGS_CONTENT_SAME : PGS_CONTENT_BY_GFN;

    p->one = one;
    pgs_rig_open(&p->rig, 2 * (source + client) + 65536, 256);
    pgs_rig_guest(&p->rig, &p->source, source, content, false);
    pgs_rig_guest(&p->rig, &p->client, client, content, true);
    pgs_rig_join(&p->rig, &p->source);
    pgs_rig_join(&p->rig, &p->client);
    pgs_population_share(p, 0, client);
}

void pgs_population_close(struct pgs_population *population)
{
    pgs_rig_close(&population->rig);
}
