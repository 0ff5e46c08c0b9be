/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking: is everything as the model says?
 */
#include "world.h"

#include <inttypes.h>
#include <string.h>

/* ---- the model's side -------------------------------------------------- */

void model_write(struct page *page, uint32_t offset, const void *bytes,
                 uint32_t len)
{
    memcpy(page->bytes + offset, bytes, len);
    if (page->flags & P_OVER)
        page->flags |= P_LOOSE;
    page->flags &= ~(uint32_t)P_OVER;
    if (len == PGSHARE_PAGE_SIZE && !page->calls &&
        !(page->flags & P_DEVICE))
        page->flags &= ~(uint32_t)P_LOOSE;
}

void model_zero(struct page *page)
{
    memset(page->bytes, 0, sizeof(page->bytes));
}

struct waiting *model_call(struct world *w, struct guest *g, uint64_t gfn,
                           uint64_t count, uint32_t intent)
{
    for (unsigned i = 0; i < WAITING; i++) {
        struct waiting *waiting = &w->waiting[i];

        if (waiting->guest)
            continue;
        *waiting = (struct waiting){
            .guest = g, .gfn = gfn, .count = count, .intent = intent
        };
        return waiting;
    }
    return NULL;
}

void model_holds(struct guest *g, uint64_t gfn, uint64_t count)
{
    for (uint64_t i = gfn - g->base; i < gfn - g->base + count; i++)
        g->pages[i].pushed = 0;
}

bool model_hold_add(struct world *w, struct guest *g, uint64_t gfn,
                    uint64_t count, uint32_t intent)
{
    model_holds(g, gfn, count);
    for (unsigned i = 0; i < HOLDS; i++)
        if (!w->holds[i].guest) {
            w->holds[i] = (struct hold){ g, gfn, count, intent };
            return true;
        }
    return false;
}

void model_holds_forget(struct world *w, const struct guest *g)
{
    for (unsigned i = 0; i < HOLDS; i++)
        if (w->holds[i].guest == g)
            w->holds[i].guest = NULL;
}

bool model_is_held(const struct world *w, const struct guest *g, uint64_t gfn,
                   bool writes_only)
{
    for (unsigned i = 0; i < HOLDS; i++) {
        const struct hold *hold = &w->holds[i];

        if (hold->guest == g && gfn >= hold->gfn &&
            gfn - hold->gfn < hold->count &&
            !(writes_only && hold->intent == PGSHARE_GET_READ))
            return true;
    }
    return false;
}

void model_hole(struct page *page)
{
    if (page->flags & P_READ_ONLY)
        page->flags |= P_READ_ONLY_MAYBE;
    page->flags &= P_NEVER | P_READ_ONLY_MAYBE | P_DEVICE;
}

/* ---- one page ---------------------------------------------------------- */

struct pgshare_gfn_info check_info(struct world *w, const struct guest *g,
                                   uint32_t i)
{
    struct pgshare_gfn_info info = { .size = sizeof(info) };
    int r;

    if (!op_is_in(g))
        return info;
    r = pgshare_gfn_info(w->host, g->dom, g->base + i, &info);
    if (r)
        world_fail(w, "gfn_info: %s", pgshare_error_name(r));
    return info;
}

static void compare(struct world *w, const struct guest *g, uint32_t i,
                    const uint8_t *found, bool loose)
{
    const struct page *page = &g->pages[i];

    if (!memcmp(found, page->bytes, PGSHARE_PAGE_SIZE))
        return;
    for (uint32_t k = 0; k < PGSHARE_PAGE_SIZE; k++)
        if (found[k] != page->bytes[k] && !(loose && !found[k]))
            world_fail(w, "byte %u of GFN %" PRIu64 " of domain %u is %02x "
                       "and should be %02x%s (model: %x)", k, g->base + i,
                       (unsigned)(g - w->guests), found[k], page->bytes[k],
                       loose ? " or 0" : "", page->flags);
}

/* A page without memory: is that right? */
static void check_hole(struct world *w, struct guest *g, uint32_t i,
                       bool quiet)
{
    struct page *page = &g->pages[i];

    if (page->flags & P_PRESENT && !(page->flags & P_MAYBE))
        world_fail(w, "GFN %" PRIu64 " of domain %u has lost its memory",
                   g->base + i, (unsigned)(g - w->guests));
    if (quiet)
        model_hole(page);
}

static void check_reclaimed(struct world *w, struct guest *g, uint32_t i)
{
    struct page *page = &g->pages[i];

    if (page->flags & P_RECLAIMED || !page->flags)
        return;
    if (!(page->flags & P_VOLATILE))
        world_fail(w, "GFN %" PRIu64 " of domain %u was reclaimed, but never "
                   "volatile", g->base + i, (unsigned)(g - w->guests));
    model_zero(page);
    model_hole(page);
    page->flags |= P_PRESENT | P_RECLAIMED;
}

/* Settles what the documents leave open, now that it can be seen. */
static void look_closer(struct page *page, const uint8_t *found)
{
    if (page->calls || page->flags & (P_FREE | P_OVER))
        return;
    memcpy(page->bytes, found, sizeof(page->bytes));
    page->flags &= ~(uint32_t)P_LOOSE;
}

void check_page(struct world *w, struct guest *g, uint32_t i, bool quiet)
{
    struct pgshare_mock_page mock = { .size = sizeof(mock) };
    struct page *page = &g->pages[i];
    uint8_t found[PGSHARE_PAGE_SIZE];
    bool paid;

    if (g->dead || page->flags & P_GOING)
        return;
    if (pgshare_mock_page(g->mock, g->base + i, &mock))
        world_fail(w, "no page");
    if (mock.state == PGSHARE_MOCK_HOLE ||
        (mock.state == PGSHARE_MOCK_RECLAIMED &&
         !(page->flags & (P_PRESENT | P_MAYBE)))) {
        check_hole(w, g, i, quiet);
        return;
    }
    if (!(page->flags & (P_PRESENT | P_MAYBE)))
        world_fail(w, "GFN %" PRIu64 " of domain %u has memory",
                   g->base + i, (unsigned)(g - w->guests));
    if (page->flags & P_MAYBE && quiet) {
        page->flags &= ~(uint32_t)P_MAYBE;
        page->flags |= P_PRESENT;
    }
    if (page->flags & (P_UNSURE | P_UNKNOWN) && !quiet)
        return;
    if (mock.state == PGSHARE_MOCK_RECLAIMED)
        check_reclaimed(w, g, i);
    paid = page->flags & P_VOLATILE && op_is_in(g) &&
           !(check_info(w, g, i).flags & PGSHARE_GFN_VOLATILE);
    if (pgshare_mock_read(g->mock, g->base + i, 0, found, sizeof(found)))
        world_fail(w, "cannot read");
    if (page->flags & P_UNKNOWN)
        memcpy(page->bytes, found, sizeof(found));
    page->flags &= ~(uint32_t)P_UNKNOWN;
    if (page->flags & P_UNSURE) {
        struct pgshare_mock_info info = world_info(w);

        page->flags &= ~(uint32_t)P_UNSURE;
        if (info.killed + info.dropped != w->gave_up)
            memcpy(page->bytes, found, sizeof(found));
    }
    compare(w, g, i, found, paid || page->flags & P_UNEXACT);
    /* a request in the ring may push it yet */
    if (paid && quiet && !g->ring_open)
        page->flags &= ~(uint32_t)P_VOLATILE;
    if (quiet)
        look_closer(page, found);
}

void check_pages(struct world *w, bool quiet)
{
    struct pgshare_mock_info info;

    for (unsigned k = 0; k < DOMAINS; k++)
        for (uint32_t i = 0; w->guests[k].mock && i < PAGES; i++)
            check_page(w, &w->guests[k], i, quiet);
    info = world_info(w);
    if (quiet)
        w->gave_up = info.killed + info.dropped;
}

/* ---- the books --------------------------------------------------------- */

struct sums {
    uint64_t mappings, zero, tracked, held;
    uint64_t entitlement;
    struct {
        uint64_t frame, group, mappings, sharers;
    } frames[DOMAINS * PAGES];
    uint32_t n;
};

static void add_mapping(struct world *w, struct sums *sums,
                        const struct guest *g,
                        const struct pgshare_gfn_info *info)
{
    struct pgshare_domain_info domain = { .size = sizeof(domain) };
    uint32_t i = 0;

    if (pgshare_domain_info(w->host, g->dom, &domain))
        world_fail(w, "domain_info");
    while (i < sums->n && sums->frames[i].frame != info->frame)
        i++;
    if (i == sums->n) {
        sums->frames[i].frame = info->frame;
        sums->frames[i].group = domain.group;
        sums->frames[i].mappings = 0;
        sums->frames[i].sharers = info->sharers;
        sums->n++;
    }
    sums->frames[i].mappings++;
    if (sums->frames[i].group != domain.group && info->frame != 1)
        world_fail(w, "frame %" PRIu64 " is shared across trust groups",
                   info->frame);
    if (sums->frames[i].sharers != info->sharers)
        world_fail(w, "frame %" PRIu64 " has %" PRIu64 " and %" PRIu64
                   " sharers", info->frame, info->sharers,
                   sums->frames[i].sharers);
}

/* Could the library have a frame for whatever it likes? Where it cannot ask
 * the machine, all that it has may be owed. */
static bool has_memory(struct world *w)
{
    return world_info(w).free &&
           !(w->options.without >> PGSHARE_OP_RESERVE & 1);
}

static void add_page(struct world *w, struct sums *sums, struct guest *g,
                     uint32_t i)
{
    struct pgshare_gfn_info info = check_info(w, g, i);
    uint64_t sharers = info.sharers + (info.frame == 1);
    struct page *page = &g->pages[i];

    if (info.flags & PGSHARE_GFN_IN_FLIGHT)
        world_fail(w, "GFN %" PRIu64 " of domain %u is in flight for ever",
                   g->base + i, (unsigned)(g - w->guests));
    sums->tracked += info.state != PGSHARE_GFN_HOLE;
    sums->held += !!(info.flags & PGSHARE_GFN_HELD);
    if (!!(info.flags & PGSHARE_GFN_HELD) !=
        model_is_held(w, g, g->base + i, false))
        world_fail(w, "GFN %" PRIu64 " of domain %u: held or not?",
                   g->base + i, (unsigned)(g - w->guests));
    if (page->flags & P_NEVER && info.state == PGSHARE_GFN_SHARED &&
        has_memory(w))
        world_fail(w, "GFN %" PRIu64 " of domain %u is secret, but shared",
                   g->base + i, (unsigned)(g - w->guests));
    if (info.state != PGSHARE_GFN_SHARED)
        return;
    if (!info.frame || !info.ticket || !info.sharers)
        world_fail(w, "a shared page without a frame");
    sums->mappings += info.frame != 1;
    sums->zero += info.frame == 1;
    sums->entitlement += PGSHARE_ENTITLEMENT_ONE * (sharers - 1) / sharers;
    add_mapping(w, sums, g, &info);
}

static void check_guest(struct world *w, struct sums *sums, struct guest *g)
{
    struct pgshare_account account = { .size = sizeof(account) };
    uint64_t before = sums->mappings + sums->zero, fifo = 0;

    if (!op_is_in(g) || g->dead)
        return;
    sums->entitlement = 0;
    for (uint32_t i = 0; i < PAGES; i++) {
        add_page(w, sums, g, i);
        fifo += !!(g->pages[i].flags & P_VOLATILE);
    }
    if (pgshare_account(w->host, g->dom, &account))
        world_fail(w, "no account");
    if (account.entitlement != sums->entitlement)
        world_fail(w, "domain %u is entitled to %" PRIx64 ", not %" PRIx64,
                   (unsigned)(g - w->guests), sums->entitlement,
                   account.entitlement);
    if (account.shared != sums->mappings + sums->zero - before)
        world_fail(w, "domain %u has another number of mappings",
                   (unsigned)(g - w->guests));
    if (account.claimed > g->claimed)
        world_fail(w, "domain %u has %" PRIu64 " bonus pages, it asked for %"
                   PRIu64, (unsigned)(g - w->guests), account.claimed,
                   g->claimed);
    if (account.fifo > fifo)
        world_fail(w, "domain %u has %" PRIu64 " volatile pages, it gave %"
                   PRIu64, (unsigned)(g - w->guests), account.fifo, fifo);
    if (account.fifo < (account.service ? 0 : account.claimed) +
                           account.secures)
        world_fail(w, "domain %u owes more than its FIFO has",
                   (unsigned)(g - w->guests));
}

/* Answers went by unheard, late or with a domain, and the library cannot ask
 * what the reserve holds now. */
static bool is_uncounted(const struct world *w,
                         const struct pgshare_host_stats *stats)
{
    return w->uncounted || (stats->backend_lost &&
                            w->options.without >> PGSHARE_OP_RESERVE & 1);
}

static void check_stats(struct world *w, const struct sums *sums)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    uint64_t frames = 0;
    bool dead = false;

    for (unsigned i = 0; i < DOMAINS; i++)
        dead |= w->guests[i].dead;
    if (pgshare_host_stats(w->host, &stats))
        world_fail(w, "no statistics");
    for (uint32_t i = 0; i < sums->n; i++) {
        frames += sums->frames[i].frame != 1;
        if (sums->frames[i].mappings != sums->frames[i].sharers && !dead)
            world_fail(w, "frame %" PRIu64 " says %" PRIu64 " sharers and has %"
                       PRIu64, sums->frames[i].frame, sums->frames[i].sharers,
                       sums->frames[i].mappings);
    }
    if (dead)
        return;
    if (stats.mappings + stats.zero_mappings != sums->mappings + sums->zero &&
        stats.mappings != sums->mappings + sums->zero)
        world_fail(w, "%" PRIu64 " mappings, not %" PRIu64, stats.mappings,
                   sums->mappings);
    if (stats.zero_mappings != sums->zero)
        world_fail(w, "%" PRIu64 " zero mappings, not %" PRIu64,
                   stats.zero_mappings, sums->zero);
    if (stats.frames < frames || (stats.frames > frames && !sums->held))
        world_fail(w, "%" PRIu64 " frames, not %" PRIu64, stats.frames, frames);
    if (stats.tracked != sums->tracked)
        world_fail(w, "%" PRIu64 " pages tracked, not %" PRIu64, stats.tracked,
                   sums->tracked);
    if (stats.reserve != world_info(w).reserve && !is_uncounted(w, &stats))
        world_fail(w, "%" PRIu64 " frames in reserve, not %" PRIu64,
                   stats.reserve, world_info(w).reserve);
}

static void on_finding(void *ctx, const struct pgshare_finding *finding)
{
    struct world *w = ctx;

    world_say(w, "audit: %s, domain %" PRIx64 " GFN %" PRIu64 " frame %" PRIu64
              ": %" PRIu64 " expected, %" PRIu64 " found",
              pgshare_invariant_name(finding->invariant), finding->dom,
              finding->gfn, finding->frame, finding->expected, finding->found);
}

static void check_audit(struct world *w)
{
    struct pgshare_audit_options options = {
        .size = sizeof(options),
        .flags = PGSHARE_AUDIT_BACKEND,
        .finding = on_finding,
        .ctx = w,
    };
    struct pgshare_audit audit = { .size = sizeof(audit) };
    int r;

    if (w->options.without)
        options.flags = 0; /* it may not be able to say */
    r = pgshare_host_audit(w->host, &options, &audit);
    if (r)
        world_fail(w, "audit: %s", pgshare_error_name(r));
    if (audit.violations)
        world_fail(w, "%" PRIu64 " invariants are violated", audit.violations);
}

void check_all(struct world *w)
{
    struct sums sums = { 0 };
    bool settling = w->settling;

    w->settling = true;
    check_pages(w, world_is_quiet(w));
    pgshare_mock_check(w->machine);
    if (world_info(w).violations)
        world_fail(w, "%" PRIu64 " violations", world_info(w).violations);
    for (unsigned k = 0; k < DOMAINS; k++)
        if (w->guests[k].mock)
            check_guest(w, &sums, &w->guests[k]);
    check_stats(w, &sums);
    check_audit(w);
    w->settling = settling;
}
