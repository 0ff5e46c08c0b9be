/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief What a backend must do, and how it answers.
 *
 * For authors of backends. Stable within a minor version.
 *
 * A backend turns the library's decisions into what a hypervisor, a kernel or
 * a simulated machine does. It knows nothing of policy; the core never touches
 * guest memory itself.
 *
 * **Operations are asynchronous.** submit() takes operations on extents, each
 * with a token. A backend completes each through the sink that it was attached
 * with, from any thread: inline (before submit() returns) or later, in any
 * order, whole or in parts. All memory that an operation points to (its arrays) is valid
 * until submit() returns; what is needed later must be copied. All memory of a
 * completion is the backend's, and is read before the call returns. A
 * completion whose token is not awaited is ignored: as a matter of course where
 * the core has given the operation up (no answer within `op_timeout_ns`, a
 * domain that was removed), else (answered twice) it is counted as an error.
 * When the peer is dead, every element answers ::PGSHARE_ERR_GONE.
 *
 * **Order.** What happens to a GFN is applied in the order in which it took
 * effect. Three rules see to that:
 *  - The core has one operation at a time that changes a GFN under way, and
 *    hears only the answer that it awaits. So completions of different
 *    operations may arrive in any order.
 *  - Breaks may be told late, but no later than the next
 *    ::PGSHARE_OP_HARVEST. Until a break has been told, the backend lets no
 *    operation map or protect that page: it answers BUSY or CLIENT_TICKET. A
 *    page that the core has made private itself it maps again only after a
 *    harvest that began later; and a break that arrives while an operation is
 *    under way is applied at that one's end.
 *  - What was dropped is the backend's to keep in order: see
 *    pgshare_sink::discarded.
 *
 * Each completion, break and drop of a domain carries a sequence number `seq`
 * from one counter of the domain (never 0). An operation takes it when it
 * begins to take effect; a break or drop when it takes effect or, at the
 * latest, when it is found, before it is told. The core compares one pair: when
 * a harvest with the number n has completed well, all breaks below n have been
 * told, and one that is told afterwards breaks the contract: it is counted
 * (stats: backend_errors) and ignored. All other numbers are for traces and
 * checkers. The core has no room for one in each page and could not tell that
 * something else came too late; it is applied as it arrives.
 *
 * **The reserve** is memory that the backend holds for the host: map, merge,
 * release, discard and reclaim put the frames that they free into it; unshare,
 * publish, grant and copy take from it; ::PGSHARE_OP_RESERVE exchanges with
 * the machine. Every completion states the difference that it made.
 *
 * **Races with the guest.** Whether a write that races with a share wins
 * before or after it is the backend's choice; both at once never: between
 * protect and map (or within merge) a write either is refused until the end,
 * or is found by the backend and makes the page fail with
 * ::PGSHARE_ERR_CLIENT_TICKET or ::PGSHARE_ERR_SOURCE_TICKET. Memory that
 * something else can write to (pinned for DMA) must fail to be protected or
 * merged, with ::PGSHARE_ERR_BUSY.
 *
 * The core calls a backend without holding any of its locks, from any thread
 * that calls the library. Operations that change a GFN never overlap on it;
 * FINGERPRINT, QUERY, CHANGES and HARVEST may overlap with any.
 */
#ifndef PGSHARE_SYS_BACKEND_H
#define PGSHARE_SYS_BACKEND_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

struct pgshare_domain_options;

/** Version of this contract. */
#define PGSHARE_BACKEND_VERSION 1u

/** The permanent frame that reads as zeroes, in `ids`. */
#define PGSHARE_ID_ZERO UINT64_MAX
/** No frame, in `ids`. A frame's id is neither this nor PGSHARE_ID_ZERO. */
#define PGSHARE_ID_NONE ((uint64_t)0)

/**
 * Operations. "Page" is an element of the extent (domain, gfn … gfn+count-1).
 * Status of each page: 0 or an error; those named are expected, any other
 * undoes that page and is reported. @since 0.1
 */
enum pgshare_op_kind {
    /** out `ids`: XXH3-64 of each page with seed `arg`. A page that is being
     * written meanwhile may give any value. in `own_ids`: NULL, or pages with
     * PGSHARE_ID_NONE there are passed over and answer 0, so that scattered
     * pages need one operation. HOLE. */
    PGSHARE_OP_FINGERPRINT = 1,
    /** Pages become read-only and cannot be written by anything until mapped,
     * unprotected or broken. out `ids`: what the backend wants to have back as
     * `own_ids` (Xen: the share handle); not PGSHARE_ID_NONE where it has
     * MERGE. HOLE, BUSY, NOTSUP, NOMEM. */
    PGSHARE_OP_PROTECT,
    /** Protected pages are writable again. in `own_ids`. */
    PGSHARE_OP_UNPROTECT,
    /** Are the protected pages equal to the frames `ids` or, where `ids` is
     * NULL, to the protected pages at `peer_gfn` of `peer`? DIFFERENT,
     * CLIENT_TICKET, SOURCE_TICKET. */
    PGSHARE_OP_COMPARE,
    /** Protected pages become frames, the page itself their first mapping
     * (with PGSHARE_CAP_SNAPSHOT: frames with a copy of the content and no
     * mapping; the page stays private and need not be protected). in
     * `own_ids`; out `ids`. NOFRAME, CLIENT_TICKET, BUSY. */
    PGSHARE_OP_PUBLISH,
    /** Protected pages, or mappings of other frames (with PGSHARE_OP_HOLES:
     * holes) are replaced by mappings of the frames `ids`; the old memory, if
     * it was the page's own, goes into the reserve. in `own_ids` (PROTECT's
     * answers; of mappings: the frame that is mapped; a page that is not that
     * any more answers CLIENT_TICKET); `peer`, `peer_gfn`: pages that map these
     * frames already, or NULL. CLIENT_TICKET, SOURCE_TICKET, NOMEM; of holes
     * BUSY (see pgshare_sink::discarded). */
    PGSHARE_OP_MAP,
    /** Protect, compare and map in one go (PGSHARE_CAP_MERGE): private or
     * protected pages, or mappings of other frames, that equal the frames
     * `ids` are replaced by mappings, others stay as they were. in `own_ids`:
     * as for MAP, and PGSHARE_ID_NONE for pages that are private. DIFFERENT,
     * BUSY, HOLE, CLIENT_TICKET. */
    PGSHARE_OP_MERGE,
    /** Mappings of the frames `ids` become private and writable, by `flags`:
     * PGSHARE_OP_COPY, _ZERO or _TAKE. NOFRAME; CLIENT_TICKET: is broken
     * already, and the break is or will be told (PGSHARE_CAP_PLATFORM_COW). */
    PGSHARE_OP_UNSHARE,
    /** Frames `ids` without mappings are given up. `domain` is NULL. What is no
     * frame any more answers 0 and frees nothing: one that was released before
     * (so that a lost answer can be had by asking again), or that the platform
     * has made a private page of its last mapping (told as a break). */
    PGSHARE_OP_RELEASE,
    /** Pages (private, or mappings of frames) become holes. */
    PGSHARE_OP_DISCARD,
    /** A volatile, private page becomes a hole that reads as zeroes; yields
     * exactly one frame and needs none. */
    PGSHARE_OP_RECLAIM,
    /** Holes become private pages that read as zeroes. With
     * PGSHARE_OP_CHARGE: only the domain's allowance grows by `count` (shrinks
     * with PGSHARE_OP_OFF; NOFRAME: the domain has not freed so much).
     * NOFRAME, NOTSUP, BUSY (see pgshare_sink::discarded). */
    PGSHARE_OP_GRANT,
    /** Holes become private copies of the pages at `peer_gfn` of `peer`.
     * NOFRAME, BUSY (see pgshare_sink::discarded). */
    PGSHARE_OP_CLONE,
    /** Pages are write-protected for good, writes trap and are told by
     * pgshare_fault_write(); ends with PGSHARE_OP_OFF. NOTSUP. */
    PGSHARE_OP_READ_ONLY,
    /** All breaks of the domain so far are told by the sink's broken(),
     * then the operation completes: none that took effect before is told
     * after (by its `seq`, such a one is counted and ignored). Only with
     * PGSHARE_CAP_PLATFORM_COW. */
    PGSHARE_OP_HARVEST,
    /** The change log: status 1 for pages written since last asked, 0 for
     * others; asking clears. Only with PGSHARE_CAP_CHANGE_LOG. */
    PGSHARE_OP_CHANGES,
    /** What is each page? Status: enum pgshare_gfn_state or HOLE … as
     * positive value; out `ids`: the frame of a shared page; of a protected
     * one what PROTECT answered, whose answer may have been lost. */
    PGSHARE_OP_QUERY,
    /** Exchanges `arg` (signed) frames with the machine: positive: into the
     * reserve. `domain` is NULL. NOFRAME: not all could be had. out `ids`[0]:
     * what the reserve holds now (`arg` 0 asks for that, after a completion
     * was lost). */
    PGSHARE_OP_RESERVE,
    /** The demand with cookie `arg` has been paid (frames were put where the
     * platform finds them), or, with PGSHARE_OP_OFF, cannot be. */
    PGSHARE_OP_ANSWER,
    /** Fault handling and dirty log go back to the VMM (PGSHARE_OP_OFF: come
     * back). Optional. */
    PGSHARE_OP_SUSPEND,
    /** Builds the child `domain` from the frozen `peer` at once, in place of
     * MAP with holes; out `ids`: the frames. Optional. */
    PGSHARE_OP_FORK,
    PGSHARE_OP_MAX
};

/** Bits of pgshare_op::flags. */
enum pgshare_op_flag {
    PGSHARE_OP_COPY = 1 << 0,   /**< unshare: a frame with the content */
    PGSHARE_OP_ZERO = 1 << 1,   /**< unshare: a zeroed frame, no copy */
    PGSHARE_OP_TAKE = 1 << 2,   /**< unshare: the frame itself; it is no frame
                                 *   any more; the page is its last mapping */
    PGSHARE_OP_HOLES = 1 << 3,  /**< map: into holes */
    PGSHARE_OP_CHARGE = 1 << 4, /**< grant: account only */
    PGSHARE_OP_OFF = 1 << 5     /**< the reverse */
};

/**
 * @struct pgshare_op
 * One operation on one extent.
 */
struct pgshare_op {
    uint64_t token; /**< comes back in the completion */
    uint32_t kind;  /**< enum pgshare_op_kind */
    uint32_t flags; /**< enum pgshare_op_flag */
    void *domain;   /**< the backend's cookie, NULL for frame operations */
    uint64_t gfn;   /**< the first page */
    uint32_t count; /**< 1 … PGSHARE_EXTENT_MAX */
    uint32_t reserved;
    void *peer;     /**< cookie of the other domain, where there is one */
    uint64_t peer_gfn; /**< its first page */
    uint64_t arg;   /**< see enum pgshare_op_kind */
    const uint64_t *ids;     /**< `count` frames, or NULL */
    const uint64_t *own_ids; /**< `count` answers of PROTECT, or NULL */
};

/**
 * @struct pgshare_completion
 * The answer to (a part of) an operation.
 */
struct pgshare_completion {
    uint64_t token;        /**< of the operation */
    uint32_t first;        /**< the first page that this answer speaks of */
    uint32_t count;        /**< pages it speaks of */
    int32_t result;        /**< 0, or an error of all these pages */
    uint32_t reserved;
    const int8_t *status;  /**< `count` statuses, or NULL: all `result` */
    const uint64_t *ids;   /**< `count` outputs, or NULL: all 0 */
    uint64_t seq;          /**< see "Order"; 0 for frame operations */
    int64_t reserve;       /**< frames that the reserve gained */
};

/** Bits of pgshare_backend_info::caps. */
enum pgshare_cap {
    /** Write faults are resolved below; breaks are harvested. Without it, all
     * write faults reach pgshare_fault_write(). */
    PGSHARE_CAP_PLATFORM_COW = 1 << 0,
    /** MERGE exists and is to be used in place of the separate steps. */
    PGSHARE_CAP_MERGE = 1 << 1,
    /** PUBLISH makes a snapshot. */
    PGSHARE_CAP_SNAPSHOT = 1 << 2,
    /** MAP moves every mapping of the client's frame (Xen). */
    PGSHARE_CAP_MAP_MOVES_FRAME = 1 << 3,
    /** CHANGES exists. */
    PGSHARE_CAP_CHANGE_LOG = 1 << 4,
    /** Shared pages cannot be remapped in this domain: it never shares. */
    PGSHARE_CAP_NO_REMAP = 1 << 5
};

/**
 * @struct pgshare_backend_info
 * What a backend is like.
 */
struct pgshare_backend_info {
    size_t size;
    uint32_t caps;        /**< enum pgshare_cap, of all domains */
    uint32_t extent_max;  /**< pages of one operation, ≤ PGSHARE_EXTENT_MAX */
    uint64_t ops;         /**< bit 1 << kind for each operation it has */
    uint64_t extent_cost_ns;  /**< mapping one extent costs so much … */
    uint64_t page_cost_ns;    /**< … and each of its pages so much more */
    uint64_t mappings_max;    /**< extents mapped at most, 0: no limit */
    uint64_t sharers_max;     /**< mappings of a frame at most, 0: no limit */
};

/**
 * @struct pgshare_domain_attach
 * What a backend says of a domain.
 */
struct pgshare_domain_attach {
    size_t size;
    void *cookie;  /**< comes back as pgshare_op::domain */
    uint32_t caps; /**< enum pgshare_cap that hold for it in addition */
    uint32_t reserved;
};

/**
 * @struct pgshare_sink
 * Where a backend's completions and events go, from any thread, also from
 * within submit(), but with none of its own locks held that submit() takes.
 * Callbacks here need no memory, wait for nothing and call no backend. Valid
 * from attach() until detach() has returned.
 */
struct pgshare_sink {
    size_t size;
    void *ctx; /**< first argument of each */

    /** Answers (a part of) an operation. */
    void (*complete)(void *ctx, const struct pgshare_completion *completion);

    /** Guest writes have broken these mappings (or marks); the pages are
     * private. Applied at once, or by the operation that holds the page. A
     * range that the domain does not have, and a `seq` below that of a
     * completed harvest, are counted and ignored. */
    void (*broken)(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                   uint64_t seq);

    /** A fault in the platform found no memory (Xen: the ENOMEM ring).
     * Answered by ::PGSHARE_OP_ANSWER with that cookie once the ledger has
     * paid. Returns 0, ::PGSHARE_ERR_BUSY (too many wait; tell it again
     * later), ::PGSHARE_ERR_NODOMAIN. */
    int (*demand)(void *ctx, uint64_t dom, uint64_t gfn, uint64_t cookie);

    /** The guest or the platform dropped the content of these pages: they are
     * zero now, and private or holes (`hole`). From the moment when it took
     * effect until this has returned 0, the backend lets nothing give these
     * pages another state: to PROTECT, MAP, MERGE, GRANT and CLONE they answer
     * HOLE, BUSY or CLIENT_TICKET, and a toolstack does not populate them. So
     * it cannot be taken for a drop of what the page has become since, which
     * the core could not tell. Returns 0, ::PGSHARE_ERR_BUSY (an operation is
     * under way on a page, those before it are done; tell all of it again
     * later), ::PGSHARE_ERR_RANGE (counted and ignored),
     * ::PGSHARE_ERR_NODOMAIN. */
    int (*discarded)(void *ctx, uint64_t dom, uint64_t gfn, uint64_t count,
                     int hole, uint64_t seq);

    /** The domain's process or machine is dead. */
    void (*gone)(void *ctx, uint64_t dom);
};

/**
 * @struct pgshare_backend_ops
 * Mandatory: attach, detach, domain_add, domain_remove, submit; and of the
 * operations PROTECT, UNPROTECT, COMPARE, PUBLISH, MAP (or MERGE and PUBLISH),
 * UNSHARE, RELEASE, DISCARD; HARVEST with PGSHARE_CAP_PLATFORM_COW, CHANGES
 * with PGSHARE_CAP_CHANGE_LOG. Checked once, by pgshare_host_new(). What is
 * optional and missing is "not supported", never success.
 */
struct pgshare_backend_ops {
    size_t size;
    uint32_t version; /**< PGSHARE_BACKEND_VERSION */
    uint32_t reserved;
    const char *name; /**< for logs and traces */

    /** A host takes the backend into use. Events may come from now on, through
     * `sink`, which is valid until detach() has returned. A decorator hands a
     * sink of its own to the backend that it decorates. */
    int (*attach)(struct pgshare_backend *backend, struct pgshare_host *host,
                  const struct pgshare_sink *sink,
                  struct pgshare_backend_info *ret_info);
    /** The host is done with it; nothing may be completed afterwards. */
    void (*detach)(struct pgshare_backend *backend);

    /** `dom` is the handle that events are to carry. */
    int (*domain_add)(struct pgshare_backend *backend, uint64_t dom,
                      const struct pgshare_domain_options *options,
                      struct pgshare_domain_attach *ret_attach);
    /** Operations on it that are under way are forgotten. (The core may have
     * given them up a while before: an operation on its pages can then find the
     * pages of its `peer` unprotected, and fails.) Its mappings of frames go:
     * the frames are released by the core afterwards. The guest's content stays
     * readable to the guest while it lives. */
    void (*domain_remove)(struct pgshare_backend *backend, void *cookie);

    /** All `n` operations are accepted (0), or none (an error). */
    int (*submit)(struct pgshare_backend *backend, const struct pgshare_op *ops,
                  size_t n);

    /** Optional: what submit() queued must go out now. NULL: never queues. */
    void (*flush)(struct pgshare_backend *backend);
    /** Optional: delivers completions and events that have arrived, without
     * waiting. NULL: they come from the backend's own threads or inline. */
    void (*poll)(struct pgshare_backend *backend);
    /** Optional: writes up to `max` descriptors that announce work for poll.
     * Returns their number. */
    size_t (*poll_fds)(struct pgshare_backend *backend, int *ret_fds,
                       size_t max);
};

/**
 * @struct pgshare_backend
 * Implementors embed this as the first member of their own struct.
 */
struct pgshare_backend {
    const struct pgshare_backend_ops *ops; /**< set by its maker, for good */
};

PGSHARE_END_DECLS

#endif
