/* SPDX-License-Identifier: BSD-2-Clause */
/**
 * @file
 * @brief libpgshare-kvm: virtual machines of a Linux VMM, embedded.
 *
 * A VMM registers the memory of its guests; equal pages of it become private
 * mappings of one frame in a file in memory, and the kernel copies at the next
 * write. KVM needs to know nothing of it, so that any process's memory can be
 * registered, with a virtual machine or without.
 *
 *     pgshare_kvm_new(NULL, &kvm);
 *     pgshare_host_new(pgshare_kvm_backend(kvm), NULL, &host);
 *     pgshare_kvm_guest_new(kvm, gfns, NULL, &guest);
 *     pgshare_kvm_slot_add(guest, 0, gfns, memory, 0, &why);
 *     pgshare_kvm_join(guest, host, group);
 *
 * Memory must be private and anonymous. While it is registered it is not
 * inherited by fork(), is not made of huge pages, and may be unmapped, moved,
 * locked or advised (madvise()) only after its slot was removed. A page that
 * the guest's devices write to by DMA, O_DIRECT or io_uring is safe: pinned
 * pages are left alone. Not so pins that the kernel does not count as such:
 * direct I/O on files of NFS, Ceph or 9p mounts, and vmsplice(); what they may
 * write to must be held (pgshare_gfn_get()).
 *
 * pgshare_domain_suspend() lets go of the guest's private memory, so that the VMM
 * can register a userfaultfd of its own, for a snapshot or for postcopy
 * migration; what is shared is let go when it is made private
 * (pgshare_domain_unshare()), what was reclaimed when it is touched.
 * pgshare_domain_resume() answers ::PGSHARE_ERR_BUSY while the VMM's is
 * registered. Meanwhile no slot is removed, and nothing that is shared dropped
 * (::PGSHARE_ERR_BUSY).
 *
 * After fork() a child's calls answer ::PGSHARE_ERR_FORKED; what it frees is
 * freed for it alone.
 *
 * Threads: functions that make or destroy an object must not run beside others
 * of that object; all else may. Linux 6.8 or newer, or, as far as
 * ::PGSHARE_KVM_DMA_DECLARED goes, 5.19; pgshare_kvm_probe() says what else is
 * needed. A user header: stable within a major version. Package
 * `libpgshare-kvm`.
 */
#ifndef PGSHARE_KVM_H
#define PGSHARE_KVM_H

#include <pgshare/common.h>

PGSHARE_BEGIN_DECLS

struct pgshare_kvm;
struct pgshare_kvm_guest;

/* What the machine can do */

/** What is looked at, in this order. @since 0.1 */
enum pgshare_kvm_feature {
    PGSHARE_KVM_USERFAULTFD = 0, /**< may be opened, for kernel faults too */
    PGSHARE_KVM_MOVE,            /**< UFFDIO_MOVE: pages are detached */
    PGSHARE_KVM_PROTECT,  /**< write protection, of files in memory too */
    PGSHARE_KVM_LOG,      /**< asynchronous write protection */
    PGSHARE_KVM_PAGEMAP,  /**< PAGEMAP_SCAN: breaks are found */
    PGSHARE_KVM_READ,     /**< process_vm_readv() of its own memory */
    PGSHARE_KVM_MEMFD,    /**< files in memory, for the frames */
    PGSHARE_KVM_MAPPINGS, /**< vm.max_map_count */
    PGSHARE_KVM_KSM,      /**< PR_SET_MEMORY_MERGE is off */
    PGSHARE_KVM_LOCKED,   /**< memory is not locked (MCL_FUTURE) */
    PGSHARE_KVM_DEVICE,   /**< /dev/kvm */
    PGSHARE_KVM_FEATURES  /**< their number */
};

/** What was found. @since 0.1 */
enum pgshare_kvm_verdict {
    PGSHARE_KVM_GOOD = 0,
    PGSHARE_KVM_LESS,   /**< works, with less: the text says what is missing */
    PGSHARE_KVM_REFUSED /**< nothing can be shared: the text says why */
};

/**
 * @struct pgshare_kvm_probe
 * One line of the table.
 */
struct pgshare_kvm_probe {
    size_t size;
    uint32_t feature; /**< enum pgshare_kvm_feature */
    uint32_t verdict; /**< enum pgshare_kvm_verdict */
    int64_t value;    /**< of a limit; an errno otherwise; 0 */
    const char *name; /**< of the feature, a static string */
    const char *text; /**< a sentence for the administrator, static */
};

/**
 * Looks at one feature. Needs no backend, changes nothing.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_RANGE (no
 * such feature). @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_probe(uint32_t feature,
                                     struct pgshare_kvm_probe *ret_probe);

/* The backend */

/** Flags of struct pgshare_kvm_options. @since 0.1 */
enum pgshare_kvm_flag {
    /** All that devices write to guest memory is held meanwhile
     * (pgshare_gfn_get() with ::PGSHARE_GET_WRITE, pgshare_gfn_put()). Then
     * memory can be shared, too, where the kernel cannot move pages (before
     * Linux 6.8): slower, without a log of writes, and not where all files in
     * memory are of huge pages (shmem_enabled is always, within_size or force).
     * Otherwise it changes nothing. */
    PGSHARE_KVM_DMA_DECLARED = 1 << 0
};

/**
 * @struct pgshare_kvm_options
 * Zero means the default in brackets.
 */
struct pgshare_kvm_options {
    size_t size;
    uint32_t flags; /**< enum pgshare_kvm_flag */
    uint32_t reserved;
    /** Of the mappings that a process may have (vm.max_map_count), so many are
     * left to the VMM [8192]. Shared pages that lie alone cost two each: near
     * the limit only longer extents are shared, and at last only what continues
     * a mapping. What finds none stays private (::PGSHARE_ERR_BUSY). */
    uint64_t mappings_spare;
};

/**
 * @struct pgshare_kvm_info
 * What the backend has and did.
 */
struct pgshare_kvm_info {
    size_t size;
    uint64_t pools;      /**< files of frames, one for each trust group */
    uint64_t frames;     /**< in them */
    uint64_t dead;       /**< released, their memory kept for the next use */
    uint64_t pool_pages; /**< memory of the files, as the kernel counts */
    uint64_t held;       /**< the reserve, `dead` included */
    uint64_t merges;     /**< pages that were tried */
    uint64_t moved_back; /**< of them, were not equal, or not free to go */
    uint64_t pinned;     /**< were found pinned, and left alone */
    uint64_t slipped;    /**< were written at the last moment */
    uint64_t taken_home; /**< broken pages, made ordinary memory again */
    uint64_t faults;     /**< that the library was asked about */
    uint64_t mappings;   /**< that the process has, all together … */
    uint64_t mappings_max; /**< … and up to which sharing adds some */
    uint64_t mappings_refused; /**< pages that stayed private for want of one,
                                *   counted each time */
};

/**
 * Makes a backend.
 * @param[in] options NULL for the defaults; not kept
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_NOTSUP: pgshare_kvm_probe() says what is missing. @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_new(const struct pgshare_kvm_options *options,
                                   struct pgshare_kvm **ret_kvm);

/** Frees a backend and its guests, whose host is freed before. The guests'
 * memory stays; what was shared of it reads as zeroes. NULL is allowed.
 * @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_kvm *pgshare_kvm_free(struct pgshare_kvm *kvm);

/** What pgshare_host_new() takes.
 * @return the backend, which lives as long as `kvm`. @since 0.1 */
PGSHARE_EXPORT struct pgshare_backend *pgshare_kvm_backend(
    struct pgshare_kvm *kvm);

/** @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_FORKED.
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_kvm_info(struct pgshare_kvm *kvm,
                                    struct pgshare_kvm_info *ret_info);

/* Guests */

/** Flags of struct pgshare_kvm_guest_options. @since 0.1 */
enum pgshare_kvm_guest_flag {
    /** Each write to a shared page comes to the library before a copy is made,
     * so that it is paid for first; without it the kernel copies by itself, and
     * the accounts follow. */
    PGSHARE_KVM_TRAPPED = 1 << 0
};

/**
 * @struct pgshare_kvm_guest_options
 * Zero means the default in brackets.
 */
struct pgshare_kvm_guest_options {
    size_t size;
    uint32_t flags;      /**< enum pgshare_kvm_guest_flag */
    uint32_t domid;      /**< [a number of the backend's] */
    uint64_t generation; /**< [1] */
};

/**
 * Makes a guest without memory.
 * @param[in] gfns 0 … gfns-1 may have memory
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI, ::PGSHARE_ERR_NOMEM,
 * ::PGSHARE_ERR_BACKEND (the kernel gives no userfaultfd). @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_guest_new(
    struct pgshare_kvm *kvm, uint64_t gfns,
    const struct pgshare_kvm_guest_options *options,
    struct pgshare_kvm_guest **ret_guest);

/** Frees a guest that has left its host. Its memory stays; what was shared of
 * it reads as zeroes, unless pgshare_domain_unshare() came first. NULL is
 * allowed. @return NULL. @since 0.1 */
PGSHARE_EXPORT struct pgshare_kvm_guest *pgshare_kvm_guest_free(
    struct pgshare_kvm_guest *guest);

/** Adds the guest, with all memory that it has, to the backend's host.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_EXISTS,
 * ::PGSHARE_ERR_NOFRAME (what it shared in its last host could not be made
 * private), ::PGSHARE_ERR_BUSY (it left suspended, and another userfaultfd is
 * registered), or an error of pgshare_domain_add() or pgshare_domain_ram_add().
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_kvm_join(struct pgshare_kvm_guest *guest,
                                    struct pgshare_host *host, uint64_t group);

/** Removes it from its host. Its memory keeps its content.
 * @return 0, ::PGSHARE_ERR_STATE, or an error of pgshare_domain_remove().
 * @since 0.1 */
PGSHARE_EXPORT int pgshare_kvm_leave(struct pgshare_kvm_guest *guest);

/** @return the domain's handle, 0: it is in no host. @since 0.1 */
PGSHARE_EXPORT uint64_t
pgshare_kvm_handle(const struct pgshare_kvm_guest *guest);

/** For those who call pgshare_domain_add() themselves.
 * @return its `attach`. @since 0.1 */
PGSHARE_EXPORT void *pgshare_kvm_attach(struct pgshare_kvm_guest *guest);

/* Memory */

/** Why memory cannot be shared. @since 0.1 */
enum pgshare_kvm_why {
    PGSHARE_KVM_WHY_NONE = 0,
    PGSHARE_KVM_WHY_UNALIGNED,
    PGSHARE_KVM_WHY_OVERLAP,
    PGSHARE_KVM_WHY_UNMAPPED,
    PGSHARE_KVM_WHY_NOT_PRIVATE,
    PGSHARE_KVM_WHY_HUGETLB,
    PGSHARE_KVM_WHY_LOCKED,
    PGSHARE_KVM_WHY_KSM,
    PGSHARE_KVM_WHY_USERFAULTFD,
    PGSHARE_KVM_WHY_PROTECTION,
    PGSHARE_KVM_WHY_SPECIAL,
    PGSHARE_KVM_WHY_POLICY,
    PGSHARE_KVM_WHY_ANOTHER
};

/** A sentence for a person, without a full stop. @return a static string.
 * @since 0.1 */
PGSHARE_EXPORT const char *pgshare_kvm_why_text(uint32_t why);

/** The slot's pages are not memory yet: holes. */
#define PGSHARE_KVM_SLOT_EMPTY (1u << 0)

/** KVM lets the guest not write to the slot (KVM_MEM_READONLY; firmware, say).
 * In kernel mode only such memory can be declared read-only
 * (pgshare_declare_read_only(), else ::PGSHARE_ERR_NOTSUP): KVM stops the write,
 * and the VMM tells of it (pgshare_kvm_exit()). In a trapped guest any memory can,
 * and the library stops whoever writes there, but while the guest is suspended;
 * he sleeps until a signal comes, or the range ends. */
#define PGSHARE_KVM_SLOT_READONLY (1u << 1)

/**
 * Adds a slot: the memory of GFNs gfn … gfn+count-1 lies at `at`.
 * @param[in] flags ::PGSHARE_KVM_SLOT_EMPTY | ::PGSHARE_KVM_SLOT_READONLY
 * @param[out] ret_why NULL, or with ::PGSHARE_ERR_NOTSUP and
 * ::PGSHARE_ERR_EXISTS the reason (enum pgshare_kvm_why)
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_NOTSUP (this memory cannot be shared), ::PGSHARE_ERR_EXISTS (an
 * overlap), ::PGSHARE_ERR_FULL (64 slots), ::PGSHARE_ERR_BACKEND, or an error
 * of pgshare_domain_ram_add(). @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_slot_add(struct pgshare_kvm_guest *guest,
                                        uint64_t gfn, uint64_t count, void *at,
                                        uint32_t flags, uint32_t *ret_why);

/** Removes the slot that begins at `gfn`. The memory is the VMM's alone again;
 * what was shared of it reads as zeroes.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_RANGE (none begins there),
 * ::PGSHARE_ERR_BUSY (the guest is suspended), or an error of
 * pgshare_domain_ram_remove(). @since 0.1 */
PGSHARE_EXPORT int pgshare_kvm_slot_remove(struct pgshare_kvm_guest *guest,
                                           uint64_t gfn);

/** Holes of a slot become memory (a balloon deflates); it reads as zeroes.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_RANGE, ::PGSHARE_ERR_EXISTS
 * (a GFN is no hole), or an error of pgshare_domain_ram_add(). @since 0.1 */
PGSHARE_EXPORT int pgshare_kvm_ram_add(struct pgshare_kvm_guest *guest,
                                       uint64_t gfn, uint64_t count);

/** Memory of a slot becomes holes (a balloon inflates); its content is dropped,
 * and its memory given back.
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_RANGE, or an error of
 * pgshare_domain_ram_remove(): then a part of it may be holes for the library,
 * and none of it was given back; call again. @since 0.1 */
PGSHARE_EXPORT int pgshare_kvm_ram_remove(struct pgshare_kvm_guest *guest,
                                          uint64_t gfn, uint64_t count);

/**
 * Drops the content of pages that stay memory, and gives their memory back
 * (free page reporting, a discard by the guest): they read as zeroes. The guest
 * must not touch them meanwhile. A page of which that cannot be done, since it is
 * held or a hole, keeps what it has.
 * @param[out] ret_done NULL, or how many pages were dropped
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_RANGE,
 * ::PGSHARE_ERR_INPROGRESS (an operation has one of the pages and does not end:
 * it may be dropped any time later, and is not shared any more). @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_discard(struct pgshare_kvm_guest *guest,
                                       uint64_t gfn, uint64_t count,
                                       uint64_t *ret_done);

/* Virtual machines */

/**
 * Can a virtual machine's guest share? KVM has to follow the process's mappings
 * (KVM_CAP_SYNC_MMU). Needs no backend; the descriptor is not kept.
 * @param[in] vm what KVM_CREATE_VM answered
 * @return 0, ::PGSHARE_ERR_INVALID (that is no VM), ::PGSHARE_ERR_NOTSUP.
 * @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_vm_check(int vm);

/** What the library says of a vCPU's exit. @since 0.1 */
enum pgshare_kvm_exit_verdict {
    PGSHARE_KVM_EXIT_OTHER = 0, /**< it is no concern of the library's */
    PGSHARE_KVM_EXIT_AGAIN,     /**< the memory is there now: run the vCPU */
    PGSHARE_KVM_EXIT_REFUSED    /**< a write to a read-only range: it was
                                 *   reported, and is not done. When the vCPU
                                 *   runs on, KVM skips it after MMIO, and tries
                                 *   it again after a memory fault */
};

/**
 * @struct pgshare_kvm_exit
 * The answer to an exit.
 */
struct pgshare_kvm_exit {
    size_t size;
    uint32_t verdict; /**< enum pgshare_kvm_exit_verdict */
    uint32_t reserved;
    uint64_t gfn;     /**< the page, unless the verdict is OTHER */
};

struct kvm_run;

/**
 * What is to be done about an exit? Called when KVM_RUN returned, whatever the
 * reason: a write to read-only memory (KVM_EXIT_MMIO), or EFAULT with
 * KVM_EXIT_MEMORY_FAULT. A full dirty ring is the VMM's own to empty: the
 * library has a log of its own. What the VMM has made read-only by mprotect() is
 * not recognised.
 * @param[in] run the vCPU's, with `exit_reason` as KVM left it (0 where KVM_RUN
 * failed and KVM_CAP_MEMORY_FAULT_INFO is missing)
 * @return 0, ::PGSHARE_ERR_INVALID, ::PGSHARE_ERR_ABI. @since 0.1
 */
PGSHARE_EXPORT int pgshare_kvm_exit(struct pgshare_kvm_guest *guest,
                                    const struct kvm_run *run,
                                    struct pgshare_kvm_exit *ret_exit);

PGSHARE_END_DECLS

#endif
