/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The repayment ledger.
 *
 * Sharing frees frames into the reserve, and every frame that it freed can be
 * demanded back by write faults. A claim takes frames out of the reserve for
 * good, so each of them must be replaced by something that can pay: a volatile
 * page in the FIFO of the claimant, or of its service. The invariant
 *
 *      reserve + claimed + unsecured ≥ saved        (where anything is claimed)
 *
 * counts of the FIFOs only what their owners must leave in them: claimed is
 * the sum of what each FIFO secures, and a FIFO is never withdrawn below that.
 * A mapping that is made adds 1 to both sides, one that is broken takes 1 from
 * both; a claim, and a payment from a FIFO, move 1 between two terms of the
 * left side. So whoever may claim once may not later be found wanting, and the
 * weaker invariant of the audit follows, in which FIFOs count whole.
 *
 * The books of one domain change under its lock, but a claim concerns two
 * domains where one serves the other: `claimed` here and `secures` there. Two
 * locks of a kind are never held at once; instead the pair changes under
 * domains_lock, one after the other, so that whoever has that lock sees them
 * agree.
 *
 * A domain that goes takes its FIFO with it, and nothing can be refused then.
 * Claims that lose their cover so are written off: they count as agreed upon
 * until the reserve has made up for them, by frames that the runner takes from
 * the machine (reserve.c), and no new claim is granted before.
 */
#include "mechanism/ledger.h"

#include "mechanism/lookup.h"

#include <pgshare/ledger.h>

/* ---- sums -------------------------------------------------------------- */

static int64_t level(struct pgshare_host *host, unsigned counter)
{
    return (int64_t)pgs_shards_sum(&host->shards, counter);
}

int64_t pgs_ledger_saved(struct pgshare_host *host)
{
    return level(host, PGS_LEVEL_MAPPINGS) +
           level(host, PGS_LEVEL_ZERO_MAPPINGS) - level(host, PGS_LEVEL_FRAMES);
}

static int64_t unsecured(struct pgshare_host *host)
{
    return atomic_load_explicit(&host->unsecured, memory_order_relaxed);
}

int64_t pgs_ledger_surplus(struct pgshare_host *host)
{
    return level(host, PGS_LEVEL_RESERVE) + level(host, PGS_LEVEL_FIFO) +
           unsecured(host) - pgs_ledger_saved(host);
}

uint64_t pgs_ledger_loan(struct pgshare_host *host)
{
    const uint32_t copies = PGSHARE_CAP_PLATFORM_COW | PGSHARE_CAP_SNAPSHOT;

    return (host->info.caps & copies) == copies &&
           level(host, PGS_LEVEL_FRAMES) > 0;
}

/*
 * What can be demanded, for decisions to part with memory. A frame that nothing
 * maps any more counts as saved until its release has brought its memory: it
 * may bring none, where a guest that left the host still reads it, or where the
 * platform has made it a page of its last mapping. Counters are
 * read in the order in which a change leaves the sum too large, not too small.
 */
static int64_t demandable(struct pgshare_host *host)
{
    int64_t sum = level(host, PGS_LEVEL_MAPPINGS) +
                  level(host, PGS_LEVEL_ZERO_MAPPINGS);

    sum += level(host, PGS_LEVEL_EMPTY);
    sum += (int64_t)pgs_ledger_loan(host);
    return sum - level(host, PGS_LEVEL_FRAMES);
}

bool pgs_ledger_is_covered(struct pgshare_host *host)
{
    return level(host, PGS_LEVEL_RESERVE) + level(host, PGS_LEVEL_CLAIMED) +
               unsecured(host) >= demandable(host);
}

uint64_t pgs_ledger_need(struct pgshare_host *host)
{
    int64_t claimed = level(host, PGS_LEVEL_CLAIMED);
    int64_t need = demandable(host) - unsecured(host) - claimed;

    if (host->options.reserve_keep != PGSHARE_RESERVE_KEEP_ALL && !claimed)
        return 0;
    return need > 0 ? (uint64_t)need : 0;
}

bool pgs_ledger_has_spare(struct pgshare_host *host)
{
    return level(host, PGS_LEVEL_RESERVE) > (int64_t)pgs_ledger_need(host);
}

uint64_t pgs_ledger_share(uint64_t n)
{
    return n ? PGSHARE_ENTITLEMENT_ONE * (n - 1) / n : 0;
}

struct adder {
    struct pgs_lookup lookup;
    uint64_t zero_sharers;
    struct pgs_share_sums sums;
};

static int add_mapping(void *ctx, uint64_t gfn, uint32_t page, uint64_t word)
{
    struct adder *adder = ctx;
    uint64_t n = adder->zero_sharers, share;

    (void)gfn;
    if (pgs_word_state(word) != PGS_SHARED) {
        pgs_lookup_end(&adder->lookup);
        return 0;
    }
    if (pgs_word_index(word) == PGS_NODE_ZERO) {
        adder->sums.zero++;
    } else {
        uint32_t frame = pgs_lookup_frame(&adder->lookup, pgs_word_index(word),
                                          page);

        if (frame == PGS_NONE)
            return 0; /* broken this instant */
        n = pgs_frame_at(adder->lookup.frames, frame)->mappings;
    }
    share = pgs_ledger_share(n);
    adder->sums.shared++;
    adder->sums.entitlement += share;
    adder->sums.pss += PGSHARE_ENTITLEMENT_ONE - share;
    return 0;
}

void pgs_ledger_sums(struct pgs_domain *domain, struct pgs_share_sums *ret)
{
    struct pgshare_host *host = domain->host;
    struct adder adder = { .zero_sharers = 1 };

    adder.zero_sharers += (uint64_t)level(host, PGS_LEVEL_ZERO_MAPPINGS);
    pgs_lookup_begin(&adder.lookup, host);
    pgs_words_walk(domain, add_mapping, &adder);
    pgs_lookup_end(&adder.lookup);
    *ret = adder.sums;
}

/* ---- the books --------------------------------------------------------- */

/* domains_lock held. Lengthens what the payer's FIFO must secure, if it is
 * long enough. */
static int secure(struct pgs_domain *payer, uint64_t *what, uint64_t count)
{
    int r = 0;

    pgs_mutex_lock(&payer->lock);
    if (payer->fifo.used < pgs_ledger_secured(payer) + count)
        r = PGSHARE_ERR_OWED;
    else
        *what += count;
    pgs_mutex_unlock(&payer->lock);
    return r;
}

/* Can the reserve give so much and still hold what the claims need? */
static bool reserve_has(struct pgshare_host *host, uint64_t count)
{
    int64_t reserve = pgs_reserve_at_hand(host);

    if (atomic_load_explicit(&host->recount, memory_order_acquire))
        return false; /* until it is known what the reserve has */
    return reserve >= (int64_t)count &&
           reserve + level(host, PGS_LEVEL_CLAIMED) + unsecured(host) >=
               demandable(host);
}

static int enter(struct pgs_domain *domain, uint64_t count, bool charged)
{
    struct pgs_domain *service = domain->service;
    int r;

    /* the FIFO of a service that is on its way out secures nothing any more */
    if (service && pgs_domain_flags(service) &
                       (PGS_DOMAIN_DYING | PGS_DOMAIN_GONE))
        return PGSHARE_ERR_OWED;
    if (service)
        r = secure(service, &service->secures, count);
    else
        r = secure(domain, &domain->claimed, count);
    if (r)
        return r;
    pgs_mutex_lock(&domain->lock);
    if (service)
        domain->claimed += count;
    if (charged)
        domain->charged += count;
    pgs_mutex_unlock(&domain->lock);
    pgs_count(&domain->host->shards, PGS_LEVEL_CLAIMED, count);
    return 0;
}

int pgs_bonus_enter(struct pgs_domain *domain, uint64_t count, bool charged)
{
    struct pgshare_host *host = domain->host;
    struct pgs_share_sums sums;
    uint64_t limit;
    int r;

    pgs_ledger_sums(domain, &sums);
    limit = sums.entitlement / PGSHARE_ENTITLEMENT_ONE;
    if (count > limit)
        return PGSHARE_ERR_ENTITLEMENT;
    pgs_mutex_lock(&host->domains_lock);
    if (domain->claimed > limit - count)
        r = PGSHARE_ERR_ENTITLEMENT;
    else if (!reserve_has(host, count))
        r = PGSHARE_ERR_NOFRAME;
    else
        r = enter(domain, count, charged);
    pgs_mutex_unlock(&host->domains_lock);
    return r;
}

/* domains_lock held. */
static void book(struct pgs_domain *domain, int64_t count, bool charged)
{
    struct pgs_domain *service;

    pgs_mutex_lock(&domain->lock);
    if (count < -(int64_t)domain->claimed)
        count = -(int64_t)domain->claimed;
    domain->claimed += (uint64_t)count;
    if (charged)
        domain->charged += (uint64_t)count;
    if (domain->charged > domain->claimed)
        domain->charged = domain->claimed;
    service = domain->service;
    pgs_mutex_unlock(&domain->lock);
    if (service) {
        pgs_mutex_lock(&service->lock);
        service->secures += (uint64_t)count;
        pgs_mutex_unlock(&service->lock);
    }
    pgs_count(&domain->host->shards, PGS_LEVEL_CLAIMED, (uint64_t)count);
}

void pgs_bonus_book(struct pgs_domain *domain, int64_t count, bool charged)
{
    pgs_mutex_lock(&domain->host->domains_lock);
    book(domain, count, charged);
    pgs_mutex_unlock(&domain->host->domains_lock);
}

/* ---- service accounts, and the end ------------------------------------- */

/* domains_lock and the domain's own held. */
static void be_served_by(struct pgs_domain *domain, struct pgs_domain *service)
{
    if (domain->service)
        domain->service->n_served--;
    if (service)
        service->n_served++;
    domain->service = service;
}

/* domains_lock held. A domain that this one serves, those in a slot after
 * `slot` first; NULL: there are no more. */
static struct pgs_domain *served_by(struct pgs_domain *domain, uint32_t *slot)
{
    struct pgshare_host *host = domain->host;
    struct pgs_domain *other;

    if (!domain->n_served)
        return NULL;
    while (++*slot < host->slots_used) {
        other = atomic_load_explicit(&host->slots[*slot], memory_order_seq_cst);
        if (other && other->service == domain)
            return other;
    }
    other = host->dying;
    while (other && other->service != domain)
        other = other->next_dying;
    return other;
}

/* domains_lock held. Whose claim does a page of this FIFO secure first? */
static struct pgs_domain *secured_by(struct pgs_domain *payer,
                                     struct pgs_domain *breaker)
{
    struct pgs_domain *served;
    uint32_t slot = 0;

    if (breaker && breaker->service == payer && breaker->claimed)
        return breaker;
    if (!payer->service && payer->claimed)
        return payer;
    if (!payer->secures)
        return NULL;
    while ((served = served_by(payer, &slot)) && !served->claimed) {
    }
    return served;
}

void pgs_bonus_repaid(struct pgs_domain *payer, struct pgs_domain *breaker,
                      bool paid)
{
    struct pgshare_host *host = payer->host;
    struct pgs_domain *claimant;

    pgs_mutex_lock(&host->domains_lock);
    claimant = secured_by(payer, breaker);
    if (claimant)
        book(claimant, -1, false);
    if (claimant && !paid)
        atomic_fetch_add_explicit(&host->written_off, 1, memory_order_relaxed);
    pgs_mutex_unlock(&host->domains_lock);
}

/* domains_lock held. */
static void unsecure(struct pgs_domain *service, uint64_t count)
{
    if (!service)
        return;
    pgs_mutex_lock(&service->lock);
    service->secures -= count;
    pgs_mutex_unlock(&service->lock);
}

/* domains_lock held. The domain's own FIFO takes its claims over. */
static int serve_itself(struct pgs_domain *domain)
{
    int r = 0;

    pgs_mutex_lock(&domain->lock);
    if (domain->fifo.used < domain->claimed + domain->secures)
        r = PGSHARE_ERR_OWED;
    else
        be_served_by(domain, NULL);
    pgs_mutex_unlock(&domain->lock);
    return r;
}

int pgs_service_set(struct pgs_domain *domain, struct pgs_domain *service)
{
    struct pgshare_host *host = domain->host;
    struct pgs_domain *before;
    uint32_t slot = 0;
    int r = 0;

    pgs_mutex_lock(&host->domains_lock);
    before = domain->service;
    if (service == before)
        goto out;
    if (service &&
        (service == domain || service->service || served_by(domain, &slot))) {
        r = PGSHARE_ERR_INVALID;
        goto out;
    }
    r = service ? secure(service, &service->secures, domain->claimed)
                : serve_itself(domain);
    if (r)
        goto out;
    pgs_mutex_lock(&domain->lock);
    be_served_by(domain, service);
    pgs_mutex_unlock(&domain->lock);
    unsecure(before, domain->claimed);
out:
    pgs_mutex_unlock(&host->domains_lock);
    return r;
}

/* domains_lock held. Ends a domain's claims; answers how many they were. */
static uint64_t end_claims(struct pgs_domain *domain)
{
    uint64_t claimed;

    pgs_mutex_lock(&domain->lock);
    claimed = domain->claimed;
    domain->claimed = 0;
    domain->charged = 0;
    be_served_by(domain, NULL);
    pgs_mutex_unlock(&domain->lock);
    pgs_count(&domain->host->shards, PGS_LEVEL_CLAIMED, 0 - claimed);
    return claimed;
}

/* The words keep the numbers of their slots, as fingerprints that mean
 * nothing: to change them would need their BUSY. */
static void empty_fifo(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;
    uint64_t stamp;
    uint32_t page;

    pgs_mutex_lock(&domain->lock);
    while (pgs_fifo_oldest(&domain->fifo, &page, &stamp)) {
        pgs_fifo_remove(&domain->fifo, domain->fifo.oldest);
        atomic_fetch_and_explicit(pgs_word_at(&host->chunks, page),
                                  ~PGS_ATTR_VOLATILE, memory_order_release);
        pgs_count(&host->shards, PGS_LEVEL_FIFO, (uint64_t)-1);
    }
    pgs_fifo_fini(&domain->fifo);
    pgs_mutex_unlock(&domain->lock);
}

void pgs_unsecured_add(struct pgs_domain *child, uint64_t n)
{
    atomic_fetch_add_explicit(&child->unsecured, (int64_t)n,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&child->host->unsecured, (int64_t)n,
                              memory_order_relaxed);
}

/* Takes up to `most` of the child's; answers how many. */
static int64_t take_unsecured(struct pgs_domain *child, int64_t most)
{
    int64_t has = atomic_load_explicit(&child->unsecured,
                                       memory_order_relaxed);
    int64_t n;

    if (!has)
        return 0;
    do {
        n = has < most ? has : most;
    } while (!atomic_compare_exchange_weak_explicit(
        &child->unsecured, &has, has - n, memory_order_relaxed,
        memory_order_relaxed));
    atomic_fetch_sub_explicit(&child->host->unsecured, n,
                              memory_order_relaxed);
    return n;
}

void pgs_unsecured_end(struct pgs_domain *child, uint64_t n)
{
    take_unsecured(child, (int64_t)n);
}

/* The same, but the reserve has to make up for them; said first, so that nobody
 * finds the books short. */
static int64_t write_off_unsecured(struct pgs_domain *child, int64_t most)
{
    _Atomic int64_t *written_off = &child->host->written_off;
    int64_t n = atomic_load_explicit(&child->unsecured, memory_order_relaxed);
    int64_t taken;

    n = n < most ? n : most;
    atomic_fetch_add_explicit(written_off, n, memory_order_relaxed);
    taken = take_unsecured(child, n);
    atomic_fetch_sub_explicit(written_off, n - taken, memory_order_relaxed);
    return taken;
}

void pgs_unsecured_end_stub(struct pgs_domain *stub)
{
    struct pgshare_host *host = stub->host;
    struct pgs_share_sums sums;
    int64_t left;

    if (!unsecured(host))
        return;
    pgs_ledger_sums(stub, &sums);
    left = (int64_t)(sums.shared + sums.zero);
    for (uint32_t slot = 1; left && slot < host->slots_used; slot++) {
        struct pgs_domain *child = atomic_load_explicit(&host->slots[slot],
                                                        memory_order_seq_cst);

        if (child) /* whose demands they were does not matter */
            left -= write_off_unsecured(child, left);
    }
}

void pgs_ledger_forget(struct pgs_domain *domain)
{
    struct pgshare_host *host = domain->host;
    struct pgs_domain *service, *served;
    uint64_t lost, own;
    uint32_t slot = 0;

    if (pgs_domain_flags(domain) & PGS_DOMAIN_FROZEN)
        pgs_unsecured_end_stub(domain);
    /* the platform may have broken some, with frames of the reserve */
    write_off_unsecured(domain, INT64_MAX);
    pgs_mutex_lock(&host->domains_lock);
    service = domain->service;
    own = end_claims(domain);
    unsecure(service, own);
    lost = service ? 0 : own;
    while ((served = served_by(domain, &slot)) != NULL)
        lost += end_claims(served);
    pgs_mutex_lock(&domain->lock);
    domain->secures = 0;
    pgs_mutex_unlock(&domain->lock);
    atomic_fetch_add_explicit(&host->written_off, (int64_t)lost,
                              memory_order_relaxed);
    pgs_mutex_unlock(&host->domains_lock);
    empty_fifo(domain);
}
