/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's end of guest rings.
 *
 * The page is the guest's: everything in it may change at any instant and to
 * anything. So the host keeps its own indices, reads each field once, into its
 * own memory, and looks only at that. Of what the guest writes, the indices
 * must make sense, or the ring is given up; a request may be any nonsense and
 * gets an answer that says so. Nothing here waits for the guest or for the
 * backend.
 *
 * A request is taken only when there is room for its answer, so that the guest
 * finds one answer for each; a guest that does not take its answers is not
 * served. While a request is carried out the lock is free, since declarations
 * take it, and `ring_serving` keeps the other servers off and one answer's
 * room from being used for news of reclaimed pages. If the ring was detached
 * meanwhile, its turn has moved on, and the answer goes nowhere.
 */
#include "mechanism/ring.h"

#include "mechanism/cycle.h"

#include <pgshare/guest_ring.h>

#define COUNT_MAX 65536u
/* Pages after which a serve makes room for others. */
#define PAGES_PER_SERVE 65536u

static_assert(sizeof(struct pgshare_guest_ring) <= PGSHARE_PAGE_SIZE,
              "the ring is one page");

#define READ_ONCE(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* ---- the indices; domain locked ---------------------------------------- */

/* Answers that fit before the guest takes one. False: it breaks the rules. */
static bool answer_room(const struct pgs_domain *domain, uint32_t *ret)
{
    uint32_t tail = __atomic_load_n(&domain->ring->answer_tail,
                                    __ATOMIC_ACQUIRE);
    uint32_t used = domain->ring_answer_head - tail;

    *ret = PGSHARE_GUEST_RING_ANSWERS - used;
    return used <= PGSHARE_GUEST_RING_ANSWERS;
}

static bool requests_there(const struct pgs_domain *domain, uint32_t *ret)
{
    uint32_t head = __atomic_load_n(&domain->ring->request_head,
                                    __ATOMIC_ACQUIRE);

    *ret = head - domain->ring_request_tail;
    return *ret <= PGSHARE_GUEST_RING_REQUESTS;
}

static void put_answer(struct pgs_domain *domain,
                       const struct pgshare_guest_ring_answer *answer)
{
    struct pgshare_guest_ring *ring = domain->ring;
    uint32_t head = domain->ring_answer_head;

    ring->answers[head % PGSHARE_GUEST_RING_ANSWERS] = *answer;
    domain->ring_answer_head = head + 1;
    __atomic_store_n(&ring->answer_head, head + 1, __ATOMIC_RELEASE);
}

static void take_request(struct pgs_domain *domain,
                         struct pgshare_guest_ring_request *ret)
{
    struct pgshare_guest_ring *ring = domain->ring;
    uint32_t tail = domain->ring_request_tail;
    struct pgshare_guest_ring_request *request;

    request = &ring->requests[tail % PGSHARE_GUEST_RING_REQUESTS];
    ret->gfn = READ_ONCE(request->gfn);
    ret->count = READ_ONCE(request->count);
    ret->op = READ_ONCE(request->op);
    ret->id = READ_ONCE(request->id);
    domain->ring_request_tail = tail + 1;
    __atomic_store_n(&ring->request_tail, tail + 1, __ATOMIC_RELEASE);
}

static void detach(struct pgs_domain *domain)
{
    domain->ring = NULL;
    domain->ring_turn++;
    domain->ring_serving = false;
}

/* ---- requests ---------------------------------------------------------- */

/* The page at which it ended is left in request->gfn if it failed. */
static int carry_out(struct pgs_domain *domain,
                     struct pgshare_guest_ring_request *request)
{
    struct pgshare_never_share left;
    uint64_t gfn = request->gfn, done = 0;
    uint32_t count = request->count;
    int r = 0;

    if (!count || count > COUNT_MAX || !pgs_range_ok(domain, gfn, count) ||
        (request->op == PGSHARE_GUEST_RING_WITHDRAW && count != 1))
        return PGSHARE_ERR_RANGE;
    switch (request->op) {
    case PGSHARE_GUEST_RING_PUSH:
        r = pgs_cycle_push(domain, gfn, count, &done);
        break;
    case PGSHARE_GUEST_RING_WITHDRAW:
        r = pgs_cycle_withdraw(domain, gfn, count, &done);
        break;
    case PGSHARE_GUEST_RING_NEVER_SHARE:
        r = pgs_cycle_never_share(domain, gfn, count, true, &left, &done);
        break;
    case PGSHARE_GUEST_RING_FREE:
        r = pgs_cycle_free(domain, gfn, count, &done);
        break;
    case PGSHARE_GUEST_RING_ALLOCATED:
        r = pgs_cycle_allocated(domain, gfn, count, &done);
        break;
    default:
        return PGSHARE_ERR_INVALID;
    }
    if (r)
        request->gfn += done;
    return r;
}

/*
 * Takes the next request, if there is one that can be answered. 1: taken, and
 * the server is alone; 0: nothing to do; or an error.
 */
static int begin_request(struct pgs_domain *domain,
                         struct pgshare_guest_ring_request *ret,
                         uint32_t *ret_turn)
{
    uint32_t room, there;
    int r = 0;

    pgs_mutex_lock(&domain->lock);
    if (!domain->ring) {
        r = PGSHARE_ERR_STATE;
    } else if (domain->ring_serving) {
        r = 0; /* the other server will come to it */
    } else if (!answer_room(domain, &room) || !requests_there(domain, &there)) {
        detach(domain);
        r = PGSHARE_ERR_PROTOCOL;
    } else if (room && there) {
        take_request(domain, ret);
        domain->ring_serving = true;
        r = 1;
    }
    *ret_turn = domain->ring_turn;
    pgs_mutex_unlock(&domain->lock);
    return r;
}

static void end_request(struct pgs_domain *domain, uint32_t turn,
                        const struct pgshare_guest_ring_request *request,
                        int result)
{
    struct pgshare_guest_ring_answer answer = {
        .gfn = request->gfn,
        .result = result,
        .op = request->op,
        .id = request->id,
    };
    uint32_t room;

    pgs_mutex_lock(&domain->lock);
    if (domain->ring && domain->ring_turn == turn) {
        /* a tail that makes no sense is found by the next begin */
        if (answer_room(domain, &room) && room)
            put_answer(domain, &answer);
        domain->ring_serving = false;
    }
    pgs_mutex_unlock(&domain->lock);
}

int pgs_ring_serve(struct pgs_domain *domain, uint32_t *ret)
{
    struct pgshare_guest_ring_request request;
    uint32_t n = 0, pages = 0, turn;
    int r = 0;

    while (n < PGSHARE_GUEST_RING_REQUESTS && pages < PAGES_PER_SERVE) {
        r = begin_request(domain, &request, &turn);
        if (r != 1)
            break;
        pages += request.count < COUNT_MAX ? request.count : COUNT_MAX;
        end_request(domain, turn, &request, carry_out(domain, &request));
        n++;
    }
    if (r == 1)
        pgs_wake(domain->host); /* there may be more */
    if (ret)
        *ret = n;
    return r == 1 ? 0 : r;
}

/* ---- news -------------------------------------------------------------- */

void pgs_ring_tell_reclaimed(struct pgs_domain *domain, uint64_t gfn)
{
    struct pgshare_guest_ring_answer answer = {
        .gfn = gfn,
        .op = PGSHARE_GUEST_RING_RECLAIMED,
    };
    uint32_t room;

    pgs_mutex_lock(&domain->lock);
    if (domain->ring && answer_room(domain, &room)) {
        if (room > domain->ring_serving)
            put_answer(domain, &answer);
        else
            __atomic_store_n(&domain->ring->lost, ++domain->ring_lost,
                             __ATOMIC_RELEASE);
    }
    pgs_mutex_unlock(&domain->lock);
}

/* ---- attach and detach ------------------------------------------------- */

int pgs_ring_attach(struct pgs_domain *domain, struct pgshare_guest_ring *page,
                    size_t len)
{
    int r = 0;

    if (!page || (uintptr_t)page % PGSHARE_PAGE_SIZE || len < sizeof(*page))
        return PGSHARE_ERR_INVALID;
    if (__atomic_load_n(&page->magic, __ATOMIC_ACQUIRE) !=
            PGSHARE_GUEST_RING_MAGIC ||
        READ_ONCE(page->version) != PGSHARE_GUEST_RING_VERSION)
        return PGSHARE_ERR_PROTOCOL;
    pgs_mutex_lock(&domain->lock);
    if (domain->ring) {
        r = PGSHARE_ERR_EXISTS;
    } else {
        __atomic_store_n(&page->answer_head, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&page->request_tail, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&page->lost, 0, __ATOMIC_RELEASE);
        domain->ring = page;
        domain->ring_turn++;
        domain->ring_request_tail = 0;
        domain->ring_answer_head = 0;
        domain->ring_lost = 0;
    }
    pgs_mutex_unlock(&domain->lock);
    return r;
}

int pgs_ring_detach(struct pgs_domain *domain)
{
    int r = 0;

    pgs_mutex_lock(&domain->lock);
    if (domain->ring)
        detach(domain);
    else
        r = PGSHARE_ERR_STATE;
    pgs_mutex_unlock(&domain->lock);
    return r;
}
