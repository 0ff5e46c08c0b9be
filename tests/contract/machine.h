/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine that the contract suite runs on: a backend, guests with memory,
 * and hands to move them. The mock's flavours are machines (machine_mock.c); a
 * real hypervisor becomes one by filling in the same table.
 *
 * Each test is written once, says what it needs, and runs on every machine
 * that has it (suite.h).
 */
#ifndef PGS_TESTS_CONTRACT_MACHINE_H
#define PGS_TESTS_CONTRACT_MACHINE_H

#include <pgshare/pgshare.h>
#include <pgshare/sys/backend.h>
#include <pgshare/sys/platform.h>

#include <stdbool.h>

/* What a machine can do; what a test needs. */
enum machine_can {
    CAN_SHARE = 1 << 0,      /* guests' pages can be remapped */
    CAN_RESOLVE = 1 << 1,    /* the library resolves write faults */
    CAN_HARVEST = 1 << 2,    /* the platform does, and tells of it later */
    CAN_READ_ONLY = 1 << 3,
    CAN_PAY = 1 << 4,        /* reclaim and grant: the ledger works */
    CAN_CLONE = 1 << 5,
    CAN_FINGERPRINT = 1 << 6,
    CAN_PIN = 1 << 7,        /* device(): pages pinned for DMA */
    CAN_DROP = 1 << 8,       /* drop(): guests give up pages by themselves */
    CAN_EXHAUST = 1 << 9,    /* memory is finite, and free() tells how much */
    CAN_KILL = 1 << 10,      /* kill(): a guest dies where it stands */
    CAN_STEPS = 1 << 11,     /* schedule(): actions between two steps */
    CAN_INLINE = 1 << 12,    /* operations are answered within submit() */
    CAN_REFUSE = 1 << 13,    /* direct page tables: sharing refuses */
    CAN_TELL = 1 << 14,      /* a write to a page that is only marked is told;
                              * elsewhere a share is what finds it */
    CAN_TAKE_LAST = 1 << 15  /* a write to the last mapping needs no frame */
};

struct machine {
    const char *name;
    uint32_t can;                     /* enum machine_can */
    uint32_t flavour;                 /* the adapter's own, as are … */
    uint32_t chaos;
    uint32_t domain_flags;
    const struct machine_ops *ops;
};

/*
 * Hands. `state` is a running machine, `guest` one of its guests. Writes wait
 * until they are done; they answer 0, or an error of the fault that was not
 * resolved, and nothing was written then.
 */
struct machine_ops {
    /* Why there can be no such machine here, or NULL. Optional. */
    const char *(*missing)(void);
    void *(*open)(const struct machine *machine, uint64_t frames);
    /* Its host has been freed, its guests are gone or not. */
    void (*close)(void *state);
    struct pgshare_backend *(*backend)(void *state);
    const struct pgshare_platform *(*platform)(void *state);

    void *(*guest_new)(void *state, uint64_t gfns, uint32_t domid,
                       uint64_t generation);
    void (*guest_free)(void *guest);
    int (*join)(void *guest, struct pgshare_host *host, uint64_t group,
                uint64_t *ret_dom);
    int (*leave)(void *guest);
    int (*populate)(void *guest, uint64_t gfn, uint64_t count);
    int (*depopulate)(void *guest, uint64_t gfn, uint64_t count);

    /* Where the page lies in this process. Optional. */
    void *(*address)(void *guest, uint64_t gfn);
    int (*read)(void *guest, uint64_t gfn, void *ret_page);
    int (*write)(void *state, void *guest, struct pgshare_host *host,
                 uint64_t gfn, uint64_t offset, const void *bytes, size_t len);
    /* The same, but waits for nothing: 0 when it is or will be done, in order.
     * Callable from an action of schedule(). */
    int (*write_later)(void *guest, uint64_t gfn, uint64_t offset,
                       const void *bytes, size_t len);
    /* All that is under way in the machine comes to its end. */
    void (*quiesce)(void *state, struct pgshare_host *host);
    /* Rules that the library broke so far; the text of one, or NULL. */
    uint64_t (*violations)(void *state, const char **ret_text);

    uint64_t (*free_frames)(void *state);                    /* CAN_EXHAUST */
    void (*kill)(void *guest);                               /* CAN_KILL */
    int (*drop)(void *guest, uint64_t gfn, uint64_t count,
                int hole);                                   /* CAN_DROP */
    int (*pin)(void *guest, uint64_t gfn, void **ret_pin);   /* CAN_PIN */
    void (*unpin)(void *pin);
    int (*schedule)(void *state, void (*hook)(void *ctx), void *ctx,
                    uint32_t chance);                        /* CAN_STEPS */
};

extern const struct machine machines[];
extern const unsigned n_machines;

#endif
