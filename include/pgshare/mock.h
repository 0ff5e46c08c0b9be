/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief The mock machine: a whole small machine in memory.
 *
 * A machine has a finite number of frames with real bytes, domains with page
 * tables and guests that use them, CoW disks, and a backend that a host can be
 * made over. It can resolve CoW faults through the library, or by itself as
 * Xen's hypervisor and the Linux kernel do. It watches the library while it
 * works: a broken rule is a *violation*, counted and told at the instant.
 *
 * A first program:
 *
 *     pgshare_mock_machine_new(NULL, &machine);
 *     pgshare_host_new(pgshare_mock_backend(machine), NULL, &host);
 *     pgshare_mock_domain_new(machine, 1024, NULL, &a);
 *     pgshare_mock_populate(a, 0, 1024);
 *     pgshare_mock_join(a, host, group);
 *     pgshare_mock_write(a, 7, 0, "hello", 5);
 *
 * Threads: guest operations of different domains, and of one domain that is
 * not ::PGSHARE_MOCK_DETERMINISTIC, may run at once, and beside the host. A
 * guest access is atomic against protection within one page. The functions of
 * a machine, disk or kernel that make or destroy an object must not run beside
 * others of that object. A deterministic machine is for one thread.
 */
#ifndef PGSHARE_MOCK_H
#define PGSHARE_MOCK_H

#include <pgshare/common.h>

struct pgshare_platform;
struct pgshare_guest_ring;

PGSHARE_BEGIN_DECLS

struct pgshare_mock_machine;
struct pgshare_mock_domain;
struct pgshare_mock_disk;
struct pgshare_mock_kernel;

/** The platform that the machine behaves as. @since 0.1 */
enum pgshare_mock_flavour {
    /** Separate steps, the library resolves CoW, publishing is free. */
    PGSHARE_MOCK_PLAIN = 0,
    /** The same, but the machine resolves CoW itself and tells at harvest. A
     * write to a page that is only protected voids the protection. */
    PGSHARE_MOCK_PLAIN_PLATFORM,
    /** Publish is a snapshot, merge is fused, the machine resolves CoW and
     * copies even for the last mapping. */
    PGSHARE_MOCK_LINUX,
    /** Protecting answers the handle that the frame will have, mapping moves
     * all mappings of the client's frame, the machine resolves CoW, and a
     * write to a protected page silently makes its handle stale. */
    PGSHARE_MOCK_XEN
};

/** Flags of struct pgshare_mock_options. @since 0.1 */
enum pgshare_mock_flag {
    /** One thread, a virtual clock, seeded randomness, faults that never wait:
     * the same seed gives the same run. */
    PGSHARE_MOCK_DETERMINISTIC = 1 << 0,
    /** Compares contents again whenever a page is mapped. */
    PGSHARE_MOCK_PARANOID = 1 << 1,
    /** Offers ::PGSHARE_CAP_CHANGE_LOG. */
    PGSHARE_MOCK_CHANGE_LOG = 1 << 2,
    /** Asks for huge pages under the frames. */
    PGSHARE_MOCK_HUGE = 1 << 3,
    /** Guest hooks run between any two pages of an operation, too, and not
     * only between operations. */
    PGSHARE_MOCK_STEPS = 1 << 4
};

/**
 * @struct pgshare_mock_chaos
 * What the scheduler does to operations, each drawn from the machine's seed
 * with this chance in a million. All zero: every operation is done and
 * answered within submit().
 */
struct pgshare_mock_chaos {
    uint32_t delay_op;     /**< is done some polls later */
    uint32_t delay_answer; /**< is done at once, answered some polls later */
    uint32_t delay_polls;  /**< at most so many polls later [4] */
    uint32_t reorder;      /**< what is due at one poll changes places */
    uint32_t split;        /**< answered in two or more parts */
    uint32_t lose;         /**< done or not, but never answered */
    uint32_t twice;        /**< answered twice */
    uint32_t refuse;       /**< submit() refuses with ::PGSHARE_ERR_BACKEND */
};

/**
 * @struct pgshare_mock_options
 * Zero means the default in brackets.
 */
struct pgshare_mock_options {
    size_t size;
    uint32_t flavour;   /**< enum pgshare_mock_flavour */
    uint32_t flags;     /**< enum pgshare_mock_flag */
    uint64_t frames;    /**< the machine's memory, in pages [65536]; memory of
                         *   the process is used for those touched only */
    uint64_t seed;      /**< of all that is drawn by chance [1] */
    uint64_t poll_ns;   /**< a poll advances the virtual clock by [10 us] */
    uint64_t fault_timeout_ns; /**< how long a guest's fault waits [1 s; 0 when
                                *   deterministic] */
    uint64_t without;   /**< bit 1 << kind for each ::pgshare_op_kind that the
                         *   backend pretends not to have */
    uint64_t zeroed;    /**< frames kept zeroed in advance [256] */
    uint64_t extent_max;     /**< see struct pgshare_backend_info [512] */
    uint64_t extent_cost_ns; /**< likewise [0] */
    uint64_t page_cost_ns;   /**< likewise [0] */
    uint64_t mappings_max;   /**< likewise [0] */
    uint64_t sharers_max;    /**< likewise [0] */
    struct pgshare_mock_chaos chaos; /**< [none] */
    /** Told of each violation, in the thread that found it. Must not call the
     * machine. */
    void (*violation)(void *ctx, const char *text);
    /**
     * The machine's fault handler [pgshare_fault_write() on the host].
     * @param[in] flags PGSHARE_FAULT_WHOLE_PAGE or 0
     * @return 0: try the write again, ::PGSHARE_ERR_READONLY: drop it,
     * ::PGSHARE_ERR_INPROGRESS, _BUSY, _NOFRAME: try again later
     */
    int (*fault)(void *ctx, struct pgshare_mock_domain *domain, uint64_t gfn,
                 uint32_t flags);
    void *ctx; /**< for both */
};

/**
 * @struct pgshare_mock_info
 * Counters and the state of the memory.
 */
struct pgshare_mock_info {
    size_t size;
    /* frames = free + reserve + private_ + cow + orphans */
    uint64_t frames;   /**< of the whole machine */
    uint64_t free;     /**< the machine's free pool */
    uint64_t reserve;  /**< held for the host */
    uint64_t private_; /**< pages of the guests' own, sparse ones included */
    uint64_t cow;      /**< published and not released */
    uint64_t orphans;  /**< released, but mapped by guests without a host */
    /* as of now */
    uint64_t pending;  /**< operations done or answered later */
    uint64_t parked;   /**< guest writes that wait */
    uint64_t unharvested; /**< breaks that were not told yet */
    uint64_t now_ns;   /**< the virtual clock */
    /* ever since */
    uint64_t polls;      /**< of the host, or by pgshare_mock_poll() */
    uint64_t ops;        /**< operations done (about, with several threads) */
    uint64_t faults;     /**< guest writes that trapped */
    uint64_t breaks;     /**< resolved by the machine itself */
    uint64_t copies;     /**< of these: by copying */
    uint64_t retries;    /**< writes parked or repeated */
    uint64_t dropped;    /**< writes to read-only memory, not done */
    uint64_t killed;     /**< writes given up: no memory was to be had */
    uint64_t demands;    /**< pgshare_sink::demand raised */
    uint64_t hooks;      /**< guest actions that the scheduler placed */
    uint64_t lost;       /**< completions never sent */
    uint64_t doubled;    /**< completions sent twice */
    uint64_t violations; /**< rules broken by the library */
};

/**
 * Makes a machine.
 * @param[in] options NULL for the defaults; not kept
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM.
 * @since 0.1
 */
PGSHARE_EXPORT int
pgshare_mock_machine_new(const struct pgshare_mock_options *options,
                         struct pgshare_mock_machine **ret_machine);

/**
 * Destroys a machine, with its domains, disks and kernels. Its host must have
 * been freed.
 * @param[in] machine NULL is fine
 * @return NULL. @since 0.1
 */
PGSHARE_EXPORT struct pgshare_mock_machine *
pgshare_mock_machine_free(struct pgshare_mock_machine *machine);

/** @return the backend, for pgshare_host_new(); lives as long as the machine.
 * @since 0.1 */
PGSHARE_EXPORT struct pgshare_backend *
pgshare_mock_backend(struct pgshare_mock_machine *machine);

/**
 * The platform that the machine lends: with ::PGSHARE_MOCK_DETERMINISTIC its
 * clock and its seeded randomness; always its pressure.
 * @return lives as long as the machine. @since 0.1
 */
PGSHARE_EXPORT const struct pgshare_platform *
pgshare_mock_platform(struct pgshare_mock_machine *machine);

/** @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI. @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_info(struct pgshare_mock_machine *machine,
                                     struct pgshare_mock_info *ret_info);

/**
 * Walks all page tables and frames: counts, pools, and that nothing free is
 * mapped. Each fault found is a violation. Nothing else may run. Linear.
 * @return the number of violations found by this walk. @since 0.1
 */
PGSHARE_EXPORT uint64_t
pgshare_mock_check(struct pgshare_mock_machine *machine);

/** Number of violations kept as texts. */
#define PGSHARE_MOCK_VIOLATIONS_KEPT 16u

/** @return the text of the `index`-th violation, NULL when there was none, or
 * when it is not kept. Valid as long as the machine. @since 0.1 */
PGSHARE_EXPORT const char *
pgshare_mock_violation(struct pgshare_mock_machine *machine, uint64_t index);

/** What pgshare_mock_platform() answers as memory pressure, in percent.
 * @since 0.1 */
PGSHARE_EXPORT void
pgshare_mock_pressure_set(struct pgshare_mock_machine *machine,
                          uint32_t percent);

/** Moves the virtual clock. @since 0.1 */
PGSHARE_EXPORT void
pgshare_mock_clock_advance(struct pgshare_mock_machine *machine, uint64_t ns);

/** For tests.
 * @return a random number from the machine's seed. @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_mock_random(struct pgshare_mock_machine *machine);

/** Changes the scheduler's chances. NULL: none any more.
 * @since 0.1 */
PGSHARE_EXPORT void
pgshare_mock_chaos_set(struct pgshare_mock_machine *machine,
                       const struct pgshare_mock_chaos *chaos);

/**
 * Registers a guest action. The scheduler calls it before and after each
 * operation and, with ::PGSHARE_MOCK_STEPS, between the pages of one. It may
 * use the guest operations and call the library with time-outs of 0. It is
 * not called again while it runs.
 * @param[in] chance in a million; 0 takes the action (`hook`, `ctx`) away
 * @return 0, ::PGSHARE_ERR_FULL (8 actions), ::PGSHARE_ERR_INVALID.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_schedule(struct pgshare_mock_machine *machine,
                                         void (*hook)(void *ctx), void *ctx,
                                         uint32_t chance);

/**
 * Delivers what is due, as the host's runner makes it do: delayed operations
 * and answers, breaks, writes that wait. The virtual clock advances.
 * @return what is left waiting. @since 0.1
 */
PGSHARE_EXPORT uint64_t pgshare_mock_poll(struct pgshare_mock_machine *machine);

/** Delivers all delayed operations and answers now, due or not.
 * @since 0.1 */
PGSHARE_EXPORT void pgshare_mock_deliver(struct pgshare_mock_machine *machine);

/**
 * @name Domains
 * @{
 */

/** Flags of struct pgshare_mock_domain_options. @since 0.1 */
enum pgshare_mock_domain_flag {
    /** Direct page tables: pages cannot be remapped
     * (::PGSHARE_CAP_NO_REMAP). */
    PGSHARE_MOCK_DIRECT = 1 << 0,
    /** All GFNs are populated, and hold what `content` computes until they
     * are written; no bytes and no table entry exist before. */
    PGSHARE_MOCK_SPARSE = 1 << 1,
    /** The guest tells the library what it frees, allocates and scrubs. */
    PGSHARE_MOCK_ENLIGHTENED = 1 << 2
};

/**
 * @struct pgshare_mock_domain_options
 * How to make a guest. Zero means the default in brackets.
 */
struct pgshare_mock_domain_options {
    size_t size;
    uint32_t flags; /**< enum pgshare_mock_domain_flag */
    uint32_t domid; /**< [a number of its own] */
    uint64_t generation; /**< [1] */
    /** Content of a sparse page [a page that differs from all others]. Must
     * always give the same; any thread. */
    void (*content)(void *ctx, uint32_t domid, uint64_t gfn, void *ret_page);
    void *ctx; /**< for `content` */
};

/**
 * Makes a guest, all whose GFNs are holes (or sparse).
 * @param[in] gfns 1 … 2^32
 * @param[in] options NULL for the defaults
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_FULL, ::PGSHARE_ERR_NOFRAME (sparse: no room). @since 0.1
 */
PGSHARE_EXPORT int
pgshare_mock_domain_new(struct pgshare_mock_machine *machine, uint64_t gfns,
                        const struct pgshare_mock_domain_options *options,
                        struct pgshare_mock_domain **ret_domain);

/** Destroys a guest; it must have left its host.
 * @param[in] domain NULL is fine
 * @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_mock_domain *
pgshare_mock_domain_free(struct pgshare_mock_domain *domain);

/**
 * Adds the domain to a host over this machine's backend, and states its
 * populated pages as RAM.
 * @param[in] group as in struct pgshare_domain_options
 * @return as pgshare_domain_add() and pgshare_domain_ram_add(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_join(struct pgshare_mock_domain *domain,
                                     struct pgshare_host *host,
                                     uint64_t group);

/** Takes the domain from its host again; its content stays.
 * @return as pgshare_domain_remove(), ::PGSHARE_ERR_STATE (in none).
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_leave(struct pgshare_mock_domain *domain);

/** The guest dies where it stands: pgshare_sink::gone, and its operations
 * answer ::PGSHARE_ERR_GONE. @since 0.1 */
PGSHARE_EXPORT void pgshare_mock_kill(struct pgshare_mock_domain *domain);

/** @return the host's handle of the domain, 0 while it is in none.
 * @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_mock_handle(const struct pgshare_mock_domain *domain);

/** @return what to put into pgshare_domain_options::attach: the same pointer.
 * @since 0.1 */
PGSHARE_EXPORT void *pgshare_mock_attach(struct pgshare_mock_domain *domain);

/**
 * Gives a guest memory from the machine's free pool: zeroed private pages in
 * place of holes. A host is told (pgshare_domain_ram_add()).
 * @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_EXISTS, ::PGSHARE_ERR_NOFRAME,
 * or what the host answers; nothing was done then. @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_populate(struct pgshare_mock_domain *domain,
                                         uint64_t gfn, uint64_t count);

/**
 * Takes memory away again; the host is told first
 * (pgshare_domain_ram_remove()), what it leaves goes to the free pool.
 * @return 0, ::PGSHARE_ERR_RANGE, or what the host answers. @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_depopulate(struct pgshare_mock_domain *domain,
                                           uint64_t gfn, uint64_t count);

/**
 * The guest drops pages without asking anybody (free page reporting): they
 * become zero, or holes, and pgshare_sink::discarded is raised. Pages that
 * the library must resolve (shared ones, under ::PGSHARE_MOCK_PLAIN) are left
 * alone.
 * @return 0, ::PGSHARE_ERR_RANGE. @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_drop(struct pgshare_mock_domain *domain,
                                     uint64_t gfn, uint64_t count, int hole);

/** What a page is to the machine. @since 0.1 */
enum pgshare_mock_state {
    PGSHARE_MOCK_HOLE = 0,
    PGSHARE_MOCK_RECLAIMED, /**< a hole that reads as zeroes */
    PGSHARE_MOCK_PRIVATE,
    PGSHARE_MOCK_PROTECTED,
    PGSHARE_MOCK_SHARED,
    PGSHARE_MOCK_ZERO       /**< a mapping of the zero frame */
};

/**
 * @struct pgshare_mock_page
 * What a page is to the machine.
 */
struct pgshare_mock_page {
    size_t size;
    uint32_t state;    /**< enum pgshare_mock_state */
    uint32_t read_only;/**< 1: writes trap for good */
    uint32_t written;  /**< 1: in the change log */
    uint32_t sparse;   /**< 1: no bytes exist */
    uint64_t frame;    /**< machine frame number, UINT64_MAX: none */
    uint64_t id;       /**< of a shared page: the backend's name of it */
    uint64_t mappings; /**< of a shared page, the zero frame's excepted */
    uint64_t pins;     /**< DMA that is under way */
    /** Of a private page, its bytes in the machine's memory, to be read only
     * and while it stays what it is; else NULL. */
    const void *bytes;
};

/** Looks a page up. @return 0, ::PGSHARE_ERR_RANGE. @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_page(struct pgshare_mock_domain *domain,
                                     uint64_t gfn,
                                     struct pgshare_mock_page *ret_page);

/**
 * @}
 * @name The guest's use of its memory
 * Offsets are bytes from the start of the GFN and may exceed a page.
 * @{
 */

/** Reads. @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE. @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_read(struct pgshare_mock_domain *domain,
                                     uint64_t gfn, uint64_t offset,
                                     void *ret_bytes, size_t len);

/**
 * Writes, as a vCPU does: traps where a page is not writable, and tries again
 * when the fault has been resolved. Where that has to wait, the vCPU is
 * parked: the write is kept, as are the guest's writes after it, and done in
 * order by pgshare_mock_poll().
 * @return 0, ::PGSHARE_ERR_INPROGRESS (parked, will be done),
 * ::PGSHARE_ERR_READONLY (dropped from there on), ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_NOMEM (cannot park). @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_write(struct pgshare_mock_domain *domain,
                                      uint64_t gfn, uint64_t offset,
                                      const void *bytes, size_t len);

/** Writes one whole page; a fault is told so (PGSHARE_FAULT_WHOLE_PAGE).
 * @return as pgshare_mock_write(). @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_write_page(struct pgshare_mock_domain *domain,
                                           uint64_t gfn, const void *page);

/** Writes `count` whole pages, each computed by `fill`.
 * @return as pgshare_mock_write(). @since 0.1 */
PGSHARE_EXPORT int
pgshare_mock_fill(struct pgshare_mock_domain *domain, uint64_t gfn,
                  uint64_t count,
                  void (*fill)(void *ctx, uint64_t gfn, void *ret_page),
                  void *ctx);

/** Compares. @return 0, ::PGSHARE_ERR_DIFFERENT, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_HOLE. @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_compare(struct pgshare_mock_domain *domain,
                                        uint64_t gfn, uint64_t offset,
                                        const void *expected, size_t len);

/** The guest's allocator frees pages; an enlightened guest declares it.
 * @return 0, or as pgshare_declare_free(). @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_guest_free(struct pgshare_mock_domain *domain,
                                           uint64_t gfn, uint64_t count);

/** The guest zeroes free pages; an enlightened guest declares it.
 * @return 0, or as pgshare_declare_scrub() or pgshare_mock_write().
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_guest_scrub(struct pgshare_mock_domain *domain,
                                            uint64_t gfn, uint64_t count);

/** The guest's allocator hands pages out; an enlightened guest declares it.
 * @return 0, or as pgshare_declare_allocated(). @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_guest_alloc(struct pgshare_mock_domain *domain,
                                            uint64_t gfn, uint64_t count);

/**
 * @}
 * @name Devices
 * @{
 */

/** Flags of pgshare_mock_dma_begin(). @since 0.1 */
enum pgshare_mock_dma_flag {
    /** The device model holds the pages (pgshare_gfn_get(), write). */
    PGSHARE_MOCK_DMA_DECLARED = 1 << 0,
    /** The device's pages are not pinned either, so that nothing can know of
     * it; what it loses is found when it writes. */
    PGSHARE_MOCK_DMA_UNPINNED = 1 << 1
};

/**
 * @struct pgshare_mock_dma
 * A transfer under way. Members are private.
 */
struct pgshare_mock_dma {
    struct pgshare_mock_domain *domain; /**< private, like the others */
    uint64_t gfn;        /**< private */
    uint32_t count;      /**< private */
    uint32_t flags;      /**< private */
    uint32_t frames[64]; /**< private */
};

/** Pages of one transfer. */
#define PGSHARE_MOCK_DMA_MAX 64u

/**
 * Starts a transfer from a device into guest memory.
 * @param[in] count 1 … PGSHARE_MOCK_DMA_MAX
 * @param[in] flags 0: not declared, but pinned: protecting answers BUSY
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE,
 * ::PGSHARE_ERR_BUSY (a page is not writable now), or as pgshare_gfn_get().
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_dma_begin(struct pgshare_mock_domain *domain,
                                          uint64_t gfn, uint32_t count,
                                          uint32_t flags,
                                          struct pgshare_mock_dma *ret_dma);

/** The device writes, past all protection.
 * @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_STATE (the page is another by
 * now: what is written is lost; a violation if the transfer was declared).
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_dma_write(struct pgshare_mock_dma *dma,
                                          uint64_t offset, const void *bytes,
                                          size_t len);

/** Ends a transfer. @since 0.1 */
PGSHARE_EXPORT void pgshare_mock_dma_end(struct pgshare_mock_dma *dma);

/**
 * @struct pgshare_mock_hold
 * A reader of a page.
 */
struct pgshare_mock_hold {
    const void *bytes; /**< the page; changes under it are violations */
    struct pgshare_mock_domain *domain; /**< private from here on */
    uint64_t gfn;     /**< private */
    uint64_t sum;     /**< private */
    uint32_t frame;   /**< private */
    uint32_t version; /**< private */
};

/**
 * Starts to read a shared page where it lies, as a device model does between
 * pgshare_gfn_get() with read intent and the put.
 * @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_STATE (not shared).
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_hold_begin(struct pgshare_mock_domain *domain,
                                           uint64_t gfn,
                                           struct pgshare_mock_hold *ret_hold);

/** Ends it. Content that changed, or a frame that was released meanwhile, is a
 * violation. @return 0, ::PGSHARE_ERR_DIFFERENT. @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_hold_end(struct pgshare_mock_hold *hold);

/**
 * @struct pgshare_mock_disk_options
 * The base image: bytes, or a descriptor, or a function; one of them.
 */
struct pgshare_mock_disk_options {
    size_t size;
    uint64_t blocks;   /**< of PGSHARE_PAGE_SIZE bytes */
    const void *bytes; /**< borrowed as long as the disk lives */
    uint64_t len;      /**< of `bytes`; reads as zeroes behind */
    int fd;            /**< borrowed; with `use_fd`; reads as zeroes behind */
    uint32_t use_fd;   /**< 1: the base image is `fd` */
    /** Computes a block; must always give the same. */
    void (*content)(void *ctx, uint64_t block, void *ret_page);
    void *ctx;         /**< for `content` */
    uint64_t image;    /**< its name in hints [one of its own] */
};

/**
 * Makes a CoW disk: each domain that uses it sees the base image and has an
 * overlay of its own for what it wrote.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM.
 * @since 0.1
 */
PGSHARE_EXPORT int
pgshare_mock_disk_new(struct pgshare_mock_machine *machine,
                      const struct pgshare_mock_disk_options *options,
                      struct pgshare_mock_disk **ret_disk);

/** @param[in] disk NULL is fine @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_mock_disk *
pgshare_mock_disk_free(struct pgshare_mock_disk *disk);

/** @return the base image's name in hints. @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_mock_disk_image(const struct pgshare_mock_disk *disk);

/**
 * Reads blocks into guest pages, as a block backend does: the pages are held
 * for overwriting (pgshare_gfn_get()), filled, put, and hinted: blocks of the
 * base image under its name, others under the overlay's.
 * @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE, ::PGSHARE_ERR_BACKEND
 * (the image cannot be read), ::PGSHARE_ERR_INPROGRESS and others of
 * pgshare_gfn_get(): nothing was read then; try again. @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_block_read(struct pgshare_mock_domain *domain,
                                           struct pgshare_mock_disk *disk,
                                           uint64_t block, uint64_t gfn,
                                           uint64_t count);

/** Writes guest pages to the domain's overlay.
 * @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_HOLE, ::PGSHARE_ERR_NOMEM.
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_block_write(struct pgshare_mock_domain *domain,
                                            struct pgshare_mock_disk *disk,
                                            uint64_t block, uint64_t gfn,
                                            uint64_t count);

/** What a block reads as for a domain (for shadow copies).
 * @return 0, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_BACKEND. @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_block_peek(struct pgshare_mock_domain *domain,
                                           struct pgshare_mock_disk *disk,
                                           uint64_t block, void *ret_page);

/**
 * @}
 * @name A guest's kernel: page allocator, page cache of a CoW disk, FIFO
 * @{
 */

/**
 * @struct pgshare_mock_kernel_options
 * What a guest kernel manages.
 */
struct pgshare_mock_kernel_options {
    size_t size;
    uint64_t first; /**< the GFNs that it manages … */
    uint64_t count; /**< … all populated; at the beginning all are free */
    struct pgshare_mock_disk *disk; /**< NULL: no page cache */
    /** Speaks through this ring (attached by the embedder) instead of calling
     * the library. */
    struct pgshare_guest_ring *ring;
};

/**
 * @struct pgshare_mock_kernel_info
 * What a guest kernel has, and did.
 */
struct pgshare_mock_kernel_info {
    size_t size;
    uint64_t free;      /**< pages not in use */
    uint64_t cached;    /**< blocks in the page cache */
    uint64_t dirty;     /**< of these: changed */
    uint64_t volatile_; /**< of these: in the repayment FIFO */
    uint64_t hits;      /**< blocks read that were cached */
    uint64_t misses;    /**< blocks read from the disk */
    uint64_t evicted;   /**< pages taken out of the cache */
    uint64_t pushed;    /**< pages put into the FIFO */
    uint64_t withdrawn; /**< taken out again */
    uint64_t reclaimed; /**< lost to it, and read from disk again */
};

/** @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_NOMEM. @since 0.1 */
PGSHARE_EXPORT int
pgshare_mock_kernel_new(struct pgshare_mock_domain *domain,
                        const struct pgshare_mock_kernel_options *options,
                        struct pgshare_mock_kernel **ret_kernel);

/** @param[in] kernel NULL is fine @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_mock_kernel *
pgshare_mock_kernel_free(struct pgshare_mock_kernel *kernel);

/** What the kernel has, and did.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI. @since 0.1 */
PGSHARE_EXPORT int
pgshare_mock_kernel_info(struct pgshare_mock_kernel *kernel,
                         struct pgshare_mock_kernel_info *ret_info);

/**
 * Allocates consecutive pages (evicting clean cache pages when needed).
 * @return 0, ::PGSHARE_ERR_NOFRAME (the guest has none),
 * ::PGSHARE_ERR_INPROGRESS (call again), or as pgshare_mock_guest_alloc().
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_kernel_alloc(struct pgshare_mock_kernel *kernel,
                                             uint64_t count, uint64_t *ret_gfn);

/** Frees such pages. @return 0, ::PGSHARE_ERR_STATE (not allocated),
 * or as pgshare_mock_guest_free(). @since 0.1 */
PGSHARE_EXPORT int
pgshare_mock_kernel_release(struct pgshare_mock_kernel *kernel, uint64_t gfn,
                            uint64_t count);

/**
 * Brings a block of the disk into the page cache and uses it; a volatile page
 * is withdrawn from the FIFO first, a reclaimed one read again.
 * @param[out] ret_gfn NULL, or where it lies
 * @return 0, ::PGSHARE_ERR_INPROGRESS (call again), ::PGSHARE_ERR_NOFRAME, or
 * as pgshare_mock_block_read(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_mock_kernel_read(struct pgshare_mock_kernel *kernel,
                                            uint64_t block, uint64_t *ret_gfn);

/** Changes bytes of a cached block; written back by _sync() or on eviction.
 * @return as pgshare_mock_kernel_read() and pgshare_mock_write(). @since 0.1 */
PGSHARE_EXPORT int pgshare_mock_kernel_write(struct pgshare_mock_kernel *kernel,
                                             uint64_t block, uint32_t offset,
                                             const void *bytes, uint32_t len);

/** Writes all changed blocks to the overlay.
 * @return 0, or as pgshare_mock_block_write(). @since 0.1 */
PGSHARE_EXPORT int
pgshare_mock_kernel_sync(struct pgshare_mock_kernel *kernel);

/**
 * Offers up to `count` of the oldest clean cache pages as volatile. Pages that
 * are shared first become private.
 * @param[out] ret_pushed how many more are in the FIFO now (or, over a ring,
 * were asked to be)
 * @return 0, or what the library answered. @since 0.1
 */
PGSHARE_EXPORT int
pgshare_mock_kernel_offer(struct pgshare_mock_kernel *kernel, uint64_t count,
                          uint64_t *ret_pushed);

/** Takes the answers from the guest ring. @return how many. @since 0.1 */
PGSHARE_EXPORT uint32_t
pgshare_mock_kernel_answers(struct pgshare_mock_kernel *kernel);

/** @} */

PGSHARE_END_DECLS

#endif
