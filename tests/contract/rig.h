/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A rig: a machine, a host over it, guests in one trust group, and a shadow
 * copy of every byte that the guests believe to have written.
 *
 *     START_TEST(test_equal_pages_share_one_frame)
 *     {
 *         struct rig rig;
 *         unsigned a, b;
 *
 *         rig_open(&rig, _i);
 *         a = rig_guest(&rig);
 *         ...
 *         rig_close(&rig);
 *     }
 *
 * rig_close() lets everything come to rest and then asks for what no test has
 * to say: no rule of the machine broken, a clean audit, every byte as it was
 * written, before the host is freed and after.
 */
#ifndef PGS_TESTS_CONTRACT_RIG_H
#define PGS_TESTS_CONTRACT_RIG_H

#include "contract/machine.h"
#include "support/suite.h"

#include <pgshare/sys/decorator.h>

#include <string.h>

#define GUESTS 6u
#define GFNS 64u       /* of each guest */
#define FRAMES 2048u   /* of the machine, unless said otherwise */
#define PAGE PGSHARE_PAGE_SIZE
#define SECOND UINT64_C(1000000000)

/* What is known of a page's content. */
enum known { HOLE, EXACT, OR_ZERO, NOTHING };

struct guest {
    void *impl;
    uint64_t dom;   /* the host's handle */
    bool joined;
    bool dead;      /* killed: its memory is gone with it */
    bool no_ram;    /* begins with holes only */
    uint8_t known[GFNS];
    uint8_t (*shadow)[PGSHARE_PAGE_SIZE]; /* [GFNS] */
};

struct rig {
    const struct machine *machine;
    const struct machine_ops *ops;
    void *state;
    struct pgshare_fault_backend *faults; /* NULL, or over the machine's */
    struct pgshare_trace_backend *trace;  /* over that; see rig.c */
    struct pgshare_host *host;
    uint64_t group;
    struct guest guests[GUESTS];
    unsigned n_guests;

    /* what the host has told */
    unsigned reports[16];             /* by kind */
    uint64_t told[16];                /* … and the sum of their counts */
    struct pgshare_report report;     /* the last of them */
    unsigned outcomes;
    struct pgshare_outcome outcome;   /* the last; `tickets` void */
    uint64_t tickets[512];            /* the last outcome's */
};

/* Extra ways to open a rig. */
struct rig_options {
    uint64_t frames;
    bool decorated; /* rig.faults is there */
    /* A decorator of the test's own over the machine's backend, or NULL. */
    struct pgshare_backend *(*wrap)(struct pgshare_backend *inner);
    struct pgshare_host_options host;
};

void rig_open(struct rig *rig, int machine);
void rig_open_with(struct rig *rig, int machine,
                   const struct rig_options *options);
/* The host's error, for tests that make it fail; 0: as rig_open_with(). */
int rig_try_open(struct rig *rig, int machine,
                 const struct rig_options *options);
void rig_close(struct rig *rig);
/* Asks for all that rig_close() does, and goes on. */
void rig_check(struct rig *rig);
/* Only what may never fail: bytes and rules. For rigs in mid-flight. */
void rig_check_content(struct rig *rig);
/* Everything as if by rig_close(), but nothing is checked or waited for. */
void rig_drop(struct rig *rig);

/* A guest with GFNS pages of zeroes, joined to the group; … with all holes;
 * … with a given name, in a given group, not joined yet. */
unsigned rig_guest(struct rig *rig);
unsigned rig_empty_guest(struct rig *rig);
unsigned rig_new_guest(struct rig *rig, uint32_t domid, uint64_t generation,
                       bool ram);
void rig_join(struct rig *rig, unsigned g, uint64_t group);
int rig_try_join(struct rig *rig, unsigned g, uint64_t group);
int rig_leave(struct rig *rig, unsigned g);
void rig_kill(struct rig *rig, unsigned g);

static inline uint64_t rig_dom(const struct rig *rig, unsigned g)
{
    return rig->guests[g].dom;
}

/* ---- guests at work ---------------------------------------------------- */

/* Fills pages with content that `tag` and the position in the run name: runs
 * with equal tags are equal; tag 0 is zeroes. */
void rig_fill(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count,
              uint64_t tag);
/* Writes a few bytes in the page's middle that nobody else writes. */
int rig_write(struct rig *rig, unsigned g, uint64_t gfn);
/* The same, without waiting until it is done. */
void rig_write_later(struct rig *rig, unsigned g, uint64_t gfn);
int rig_write_page(struct rig *rig, unsigned g, uint64_t gfn, uint64_t tag);
/* The content is from now on … */
void rig_expect(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count,
                enum known known);
void rig_expect_zero(struct rig *rig, unsigned g, uint64_t gfn,
                     uint64_t count);
void rig_expect_copy(struct rig *rig, unsigned g, uint64_t gfn, uint64_t count,
                     unsigned from, uint64_t from_gfn);

/* ---- the host at work -------------------------------------------------- */

/* Runs until nothing is left to do, the breaks of the platform harvested. */
void rig_settle(struct rig *rig);
/* Runs for so much of the machine's time. */
void rig_wait(struct rig *rig, uint64_t ns);

/* pgshare_share() with PGSHARE_SHARE_MARK. */
int rig_share(struct rig *rig, unsigned source, uint64_t source_gfn,
              unsigned client, uint64_t client_gfn, uint64_t count);
/* … must succeed. */
void rig_must_share(struct rig *rig, unsigned source, uint64_t source_gfn,
                    unsigned client, uint64_t client_gfn, uint64_t count);
int rig_share_tickets(struct rig *rig, unsigned source, uint64_t source_gfn,
                      uint64_t source_ticket, unsigned client,
                      uint64_t client_gfn, uint64_t client_ticket);
uint64_t rig_mark(struct rig *rig, unsigned g, uint64_t gfn);

struct pgshare_gfn_info rig_info(struct rig *rig, unsigned g, uint64_t gfn);
bool rig_is(struct rig *rig, unsigned g, uint64_t gfn,
            enum pgshare_gfn_state state);
/* Do the two map one frame? */
bool rig_together(struct rig *rig, unsigned a, uint64_t gfn_a, unsigned b,
                  uint64_t gfn_b);
/* Do `count` pages from there on all map the zero frame? */
bool rig_zero_mapped(struct rig *rig, unsigned g, uint64_t gfn,
                     uint64_t count);
struct pgshare_host_stats rig_stats(struct rig *rig);
struct pgshare_account rig_account(struct rig *rig, unsigned g);
uint64_t rig_faults(struct rig *rig, enum pgshare_fault_outcome outcome);

/* ---- suites ------------------------------------------------------------ */

struct contract_test {
    const TTest *const *test; /* &test_… */
    uint32_t needs; /* enum machine_can */
};

/* One test case per machine, with the tests whose needs it meets. */
Suite *contract_suite(const char *name, const struct contract_test *tests,
                      unsigned n);

#endif
