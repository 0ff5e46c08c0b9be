/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls: everything that may have to wait for the backend.
 *
 * A call is a small state machine. Its `step` does what can be done now and
 * says how it goes on: PGS_NEXT (another step is set), PGS_WAIT_OP (an
 * operation is with the backend), PGS_WAIT_PAGE (somebody else's BUSY bit) and
 * its kin, PGS_DONE (with `result` set). Whoever drives a call runs its steps:
 * the thread that made it, up to its deadline, and from then on the runner. So
 * there is one code for calls that wait, calls that do not, and the policy's
 * own work.
 *
 * A call has at most one operation under way. The backend may answer it from
 * any thread, in parts, twice or after it was given up: `gate` holds the token
 * that may answer, an answer claims the gate for as long as it copies, and a
 * token is never used again. Calls come from a pool that is allocated with the
 * host, so that undoing needs no memory.
 */
#ifndef PGS_MECHANISM_CALL_H
#define PGS_MECHANISM_CALL_H

#include "base/alloc.h"
#include "base/lock.h"
#include "base/shard.h"

#include <pgshare/error.h>
#include <pgshare/host.h>
#include <pgshare/sys/backend.h>

#include <stdatomic.h>
#include <stdbool.h>

struct pgs_call;
struct pgs_domain;
struct pgs_extent;

enum pgs_verdict {
    PGS_NEXT,
    PGS_WAIT_OP,
    PGS_WAIT_PAGE,
    PGS_WAIT_CALM,    /* the same, up to pgs_call::again_ns, and while the
                       * domain lives */
    PGS_WAIT_HARVEST, /* somebody else's, of pgs_call::harvest */
    PGS_WAIT_JOIN,    /* pgs_call::frame is being joined to another */
    PGS_WAIT_FRAME,   /* the reserve is empty; up to pgs_call::again_ns, and
                       * while the domain lives */
    PGS_DONE
};

typedef enum pgs_verdict (*pgs_step)(struct pgs_call *call);

/* Pages of an operation whose answers fit into the call itself. */
#define PGS_INLINE 16u
/* `status` of a page that has not been answered yet, from the first answer on
 * that is not of the whole operation (`pending`). */
#define PGS_PENDING INT8_MIN

struct pgs_call {
    /* answered by the backend */
    _Alignas(64) _Atomic uint64_t gate; /* token, | 1 while being written */
    _Atomic uint64_t given_up;  /* the last token that we did not wait for */
    _Atomic uint32_t answered;  /* 1: the operation is over */
    uint32_t left;              /* pages without an answer */
    bool pending;               /* status[] tells which */
    bool clean;                 /* every status[] is 0 */
    void *_Atomic op_domain;    /* op.domain, for those who cancel */
    _Atomic uintptr_t submitter; /* the thread that is within submit(), or 0 */
    int64_t reserve;            /* what the operation gained */
    uint64_t seq;               /* of its last answer, 0: none */
    int8_t *status;             /* [op.count] */
    uint64_t *ids;              /* [op.count] */

    /* the driver's */
    struct pgshare_host *host;
    uint64_t serial;            /* of tokens; lives on in the pool */
    uint32_t index;             /* in the pool */
    uint32_t kind;              /* enum pgshare_outcome_kind, 0: internal */
    uint64_t token;             /* what the caller was told, or 0 */
    struct pgshare_op op;       /* the operation under way, or the last one */
    enum pgs_verdict verdict;   /* of the last step */
    pgs_step step;
    struct pgshare_op lost;     /* expire.c: the one that is asked about */
    pgs_step lost_step;         /* and where it goes on */
    pgs_step resume;            /* where a payment returns to */
    int32_t result;
    uint32_t flags;             /* the kind's own */
    void *cookie;
    uint64_t timeout;           /* of its caller, ns */
    uint64_t op_since;          /* when its operation was first waited for */

    struct pgs_domain *_Atomic domain; /* for cancellation, too */
    struct pgs_domain *_Atomic peer;
    uint64_t gfn;
    uint64_t count;
    uint64_t done;
    uint32_t page;              /* the word that it is about */
    uint32_t waits;             /* PGS_WAIT_PAGE, _CALM: the BUSY word */
    uint32_t frame;
    uint32_t outcome;           /* enum pgshare_fault_outcome */
    uint32_t payer;             /* enum pgshare_payer */
    uint32_t intent;            /* enum pgshare_intent, for gets */
    struct pgs_domain *harvest; /* whose breaks are being harvested */
    struct pgs_domain *_Atomic victim; /* who pays */
    uint32_t victim_page;
    uint32_t tries;             /* as the kind counts them */
    bool repays;                /* pay.c: what is owed, not memory beyond it */
    uint64_t pushed;            /* pay.c: volatile pages from this stamp on came
                                 * after the payment had begun */
    struct pgs_extent *extent;  /* for shares, marks, forks */
    void (*finish)(struct pgs_call *call); /* runner-owned: at the end */
    uint64_t born_ns;
    uint64_t again_ns;          /* PGS_WAIT_FRAME, _CALM */

    struct pgs_call *next;      /* the runner's list, or the free list */
    _Atomic uint32_t owner;     /* enum pgs_owner */

    uint32_t batch[PGS_INLINE]; /* frames of a release */
    int8_t status1[PGS_INLINE];
    uint64_t ids1[PGS_INLINE];
};

enum pgs_owner { PGS_OWNER_NONE, PGS_OWNER_CALLER, PGS_OWNER_RUNNER };

/* The pool. `free` and `running` under `lock`. */
struct pgs_calls {
    struct pgs_call *pool;
    uint32_t size;
    struct pgs_mutex lock;
    struct pgs_call *free;
    struct pgs_call *running; /* owned by the runner, newest first */
    _Atomic uint32_t n_running;
    struct pgs_cache {
        _Alignas(64) struct pgs_call *_Atomic call;
    } cache[PGS_SHARDS];      /* one free call for each shard */
};

int pgs_calls_init(struct pgshare_host *host, uint32_t size);
void pgs_calls_fini(struct pgshare_host *host);

/* A call with everything zero but host, token, index. NULL: none is free. */
struct pgs_call *pgs_call_take(struct pgshare_host *host,
                               struct pgs_domain *domain, pgs_step first);
void pgs_call_give(struct pgs_call *call);

/*
 * Hands one operation to the backend; fills in op->token and the cookie of
 * op->domain. Answers PGS_NEXT when it is over already (call->step then looks
 * at status[]), else PGS_WAIT_OP.
 */
enum pgs_verdict pgs_call_submit(struct pgs_call *call, struct pgshare_op *op,
                                 pgs_step next);
/* The same with arrays of the caller's for op->count answers. */
enum pgs_verdict pgs_call_submit_into(struct pgs_call *call,
                                      struct pgshare_op *op, pgs_step next,
                                      int8_t *status, uint64_t *ids);
/* Goes on as if the operation that was answered last had not been: in time it
 * is asked about (expire.c). */
enum pgs_verdict pgs_call_lose(struct pgs_call *call, pgs_step next);

/*
 * Drives a call until it is done or its deadline is over. True: done, the
 * caller reads what it wants and gives the call back. False: the runner has it
 * now, and *ret_token names it.
 */
bool pgs_call_drive(struct pgs_call *call, uint64_t *ret_token);

/* Gives a fresh call to the runner. */
void pgs_call_launch(struct pgs_call *call);

/* The runner: drives all its calls as far as they go; answers how many moved.
 * `only` NULL, or just those that concern this domain. */
uint32_t pgs_calls_run(struct pgshare_host *host, struct pgs_domain *only);
/* Takes the awaited answer's place: the gate closes. withdraw: nothing is
 * answered, false if it has been; abandon: what is open answers `error`. */
bool pgs_call_withdraw(struct pgs_call *call);
void pgs_call_abandon(struct pgs_call *call, int error);
/* The call's last operation is over: was it so, without the backend's answer? */
static inline bool pgs_call_is_given_up(const struct pgs_call *call)
{
    return atomic_load_explicit(&call->given_up, memory_order_acquire) ==
           call->op.token;
}

/* expire.c. Driver: looks after an operation that got no answer for too long.
 * The runner: after those of all its calls. */
void pgs_call_expire(struct pgs_call *call, uint64_t now);
void pgs_calls_expire(struct pgshare_host *host, uint64_t now);

/* Ends with PGSHARE_ERR_GONE the operations on the domain's own pages (those on
 * other domains' pages that name it must be answered). True: some call still
 * concerns it. */
bool pgs_calls_cancel(struct pgshare_host *host, struct pgs_domain *domain);

/* The sink's complete(). */
void pgs_call_complete(void *host, const struct pgshare_completion *completion);

/* pgshare_host_free(): what no answer came for is given up. */
void pgs_calls_abandon(struct pgshare_host *host);

/* Calls that are taken, as of now. Looks at the whole pool. Where it answers 0
 * before and after something was read, no call was in the middle of its books
 * meanwhile, except for calls that came and went in between. */
uint32_t pgs_calls_busy(struct pgshare_host *host);

/* Tells the embedder how a call ended that the runner finished. */
void pgs_call_deliver(struct pgs_call *call, const uint64_t *tickets);

#endif
