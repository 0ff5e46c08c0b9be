/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow copies: what each page of a guest should read as, kept by the demo
 * itself and compared with what the guest really reads.
 */
#ifndef PGSHARE_CLI_SHADOW_H
#define PGSHARE_CLI_SHADOW_H

#include <pgshare/common.h>

#include <stdbool.h>

struct pgshare_mock_domain;

/* What is known of a page beside its bytes. */
enum shadow_flag {
    SHADOW_OWNED = 1 << 0, /* `at` was allocated for this page */
    SHADOW_HOLE = 1 << 1,  /* no memory there: nothing to read */
    /* The guest's allocator has it (declared free), or it was offered for
     * repayment: reads as its bytes, or as zeroes. */
    SHADOW_FREE = 1 << 2,
    SHADOW_OFFERED = 1 << 3
};

/* `at[gfn]` points to what the page reads as, borrowed unless OWNED; NULL:
 * zeroes, or what `base` says. */
struct shadow {
    uint64_t pages;
    const unsigned char **at;
    uint8_t *flags;
    /* What untouched pages read as, or NULL. Answers NULL for zeroes. */
    const unsigned char *(*base)(void *ctx, uint64_t gfn);
    void *ctx;
};

/* The verdict of comparing. */
struct shadow_verdict {
    uint64_t checked; /* pages compared */
    uint64_t wrong;   /* of these: did not read as they should */
    uint64_t first;   /* a GFN that was wrong */
};

/* Pages are zero. PGSHARE_ERR_NOMEM. */
int shadow_init(struct shadow *shadow, uint64_t pages);
void shadow_fini(struct shadow *shadow);

/* The page's bytes: never NULL. */
const unsigned char *shadow_bytes(const struct shadow *shadow, uint64_t gfn);

/* The page reads as these bytes, which outlive the shadow. NULL: zeroes. */
void shadow_borrow(struct shadow *shadow, uint64_t gfn,
                   const unsigned char *bytes);

/* The page reads as another one does now. PGSHARE_ERR_NOMEM. */
int shadow_copy(struct shadow *shadow, uint64_t gfn, const struct shadow *from,
                uint64_t from_gfn);

/* Part of the page was written. PGSHARE_ERR_NOMEM. */
int shadow_write(struct shadow *shadow, uint64_t gfn, uint32_t offset,
                 const void *bytes, uint32_t len);

void shadow_set(struct shadow *shadow, uint64_t gfn, uint64_t count,
                unsigned flags);
void shadow_clear(struct shadow *shadow, uint64_t gfn, uint64_t count,
                  unsigned flags);
bool shadow_has(const struct shadow *shadow, uint64_t gfn, unsigned flags);

/*
 * The page is handed out again: whichever of the two it reads as is what
 * counts from now on. Answers whether it was one of them.
 */
bool shadow_adopt(struct shadow *shadow, struct pgshare_mock_domain *domain,
                  uint64_t gfn);

/* Compares every page with what the guest reads; adds to the verdict. */
void shadow_check(const struct shadow *shadow,
                  struct pgshare_mock_domain *domain,
                  struct shadow_verdict *verdict);

#endif
