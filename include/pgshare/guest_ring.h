/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The guest ring: how a guest speaks for its own memory.
 *
 * One page shared between a guest and its host, with two single-producer,
 * single-consumer rings in it: requests (guest to host) and answers (host to
 * guest). Indices run freely and are taken modulo the ring's size, as in Xen's
 * ring.h. The header stands alone: it needs no part of the library, so that a
 * guest's kernel can include it. Little-endian, lock-free, no pointers.
 *
 * Both sides treat the other as hostile: each keeps its own index private and
 * reads the other's once per turn; a distance larger than the ring ends it.
 *
 * Use by one guest thread at a time (or under a guest lock).
 */
#ifndef PGSHARE_GUEST_RING_H
#define PGSHARE_GUEST_RING_H

#include <stdint.h>

/** "pgsr" */
#define PGSHARE_GUEST_RING_MAGIC 0x72736770u
/** The layout's version. */
#define PGSHARE_GUEST_RING_VERSION 1u
/** Entries of the ring of requests. */
#define PGSHARE_GUEST_RING_REQUESTS 64u
/** Entries of the ring of answers. */
#define PGSHARE_GUEST_RING_ANSWERS 128u

/** What a guest can ask for, each for a run of pages. */
enum pgshare_guest_ring_op {
    PGSHARE_GUEST_RING_PUSH = 1,   /**< volatile: into the repayment FIFO */
    PGSHARE_GUEST_RING_WITHDRAW,   /**< out of it again */
    PGSHARE_GUEST_RING_NEVER_SHARE,/**< secrets; where memory is (else HOLE) */
    PGSHARE_GUEST_RING_FREE,       /**< the allocator freed them */
    PGSHARE_GUEST_RING_ALLOCATED,  /**< the allocator hands them out */
    PGSHARE_GUEST_RING_RECLAIMED   /**< answers only: `gfn` has paid */
};

/** Guest to host. */
struct pgshare_guest_ring_request {
    uint64_t gfn;   /**< the first page */
    uint32_t count; /**< 1 … 65536 pages; a withdrawal: 1 */
    uint16_t op;    /**< enum pgshare_guest_ring_op */
    uint16_t id;    /**< the guest's own, comes back in the answer */
};

/** Host to guest: one for each request, and RECLAIMED ones in between. */
struct pgshare_guest_ring_answer {
    uint64_t gfn;   /**< the request's; with an error, of the page where it
                     *   ended: those before it are done */
    int32_t result; /**< 0 or enum pgshare_error; see pgshare/declare.h */
    uint16_t op; /**< the request's, or RECLAIMED */
    uint16_t id; /**< the request's */
};

/** The page. Each side writes its own line and its own entries only. */
struct pgshare_guest_ring {
    uint32_t magic;   /**< guest, before it offers the page */
    uint32_t version; /**< guest */
    uint32_t pad0[14];
    uint32_t request_head; /**< guest: requests produced */
    uint32_t answer_tail;  /**< guest: answers consumed */
    uint32_t pad1[14];
    uint32_t answer_head;  /**< host: answers produced */
    uint32_t request_tail; /**< host: requests consumed */
    uint32_t lost;         /**< host: RECLAIMED answers that found no room; a
                            *   withdrawal tells for each page */
    uint32_t pad2[13];
    uint32_t pad3[16];
    /** Written by the guest. */
    struct pgshare_guest_ring_request requests[PGSHARE_GUEST_RING_REQUESTS];
    /** Written by the host. */
    struct pgshare_guest_ring_answer answers[PGSHARE_GUEST_RING_ANSWERS];
};

/** Guest: prepares a zeroed page. */
static inline void pgshare_guest_ring_init(struct pgshare_guest_ring *ring)
{
    ring->version = PGSHARE_GUEST_RING_VERSION;
    __atomic_store_n(&ring->magic, PGSHARE_GUEST_RING_MAGIC, __ATOMIC_RELEASE);
}

/**
 * Guest: puts a request.
 * @return 1, or 0 when the ring is full: take answers, ring the doorbell, try
 * again
 */
static inline int pgshare_guest_ring_put(struct pgshare_guest_ring *ring,
                                         uint16_t op, uint64_t gfn,
                                         uint32_t count, uint16_t id)
{
    struct pgshare_guest_ring_request *request;
    uint32_t head = ring->request_head;
    uint32_t tail = __atomic_load_n(&ring->request_tail, __ATOMIC_ACQUIRE);

    if (head - tail >= PGSHARE_GUEST_RING_REQUESTS)
        return 0;
    request = &ring->requests[head % PGSHARE_GUEST_RING_REQUESTS];
    request->gfn = gfn;
    request->count = count;
    request->op = op;
    request->id = id;
    __atomic_store_n(&ring->request_head, head + 1, __ATOMIC_RELEASE);
    return 1;
}

/**
 * Guest: takes an answer.
 * @param[out] ret_answer written only when there is one
 * @return 1, or 0 when there is none
 */
static inline int
pgshare_guest_ring_take(struct pgshare_guest_ring *ring,
                        struct pgshare_guest_ring_answer *ret_answer)
{
    uint32_t tail = ring->answer_tail;

    if (tail == __atomic_load_n(&ring->answer_head, __ATOMIC_ACQUIRE))
        return 0;
    *ret_answer = ring->answers[tail % PGSHARE_GUEST_RING_ANSWERS];
    __atomic_store_n(&ring->answer_tail, tail + 1, __ATOMIC_RELEASE);
    return 1;
}

#endif
