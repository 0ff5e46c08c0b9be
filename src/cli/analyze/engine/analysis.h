/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much could be shared in some RAM images: the counting, without the
 * command line and without any output.
 *
 *     input.c      an image: what it is, where its pages are
 *     elf.c        ... if it is a core dump
 *     stream.c     ... if it can only be read from front to end, or is packed
 *     read.c       all pages are read and fingerprinted, by several threads
 *     contents.c   equal pages get equal numbers
 *     blocks.c     equal aligned blocks, by order
 *     extents.c    matching extents, of any alignment;  suffix.c  their index
 *     threads.c    threads
 *
 * Everything is counted from fingerprints of 128 bits with a secret seed, so
 * that no content can be made to look like another one on purpose; by chance,
 * two among 2^32 pages do with a probability of 2^-65. Blocks and extents are
 * compared by their pages' numbers and add no uncertainty to that.
 *
 * Positions. All pages of all images have a place in one array, their
 * position: images in the order given, pages by GFN. A gap between GFNs takes
 * as few places as keep position and GFN congruent modulo the largest block,
 * one at least: so an aligned block of GFNs is an aligned block of positions,
 * and consecutive positions that are no gaps are consecutive GFNs. The array
 * is made of chunks, which are there only if they hold anything but zeroes.
 */
#ifndef PGSHARE_CLI_ANALYSIS_H
#define PGSHARE_CLI_ANALYSIS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ORDERS 10u
/* Lengths of extents, by powers of two. */
#define LENGTHS 32u

#define BLOCK_MAX (1u << (ORDERS - 1))
#define CHUNK_SHIFT 12u
#define CHUNK (1u << CHUNK_SHIFT)
/* All positions, and a few more numbers, must fit into 32 bits. */
#define CHUNKS_MAX ((1u << (32 - CHUNK_SHIFT)) - 1)

static_assert(CHUNK % BLOCK_MAX == 0, "no block is in two chunks");

#define ANALYSIS_PAGE_MIN ((uint64_t)512)
#define ANALYSIS_PAGE_MAX ((uint64_t)64 << 20)

/* ---- what is counted ----------------------------------------------------- */

/*
 * Of one image alone, or of all.
 *
 * Invariants: pages = zero + unique + within + across
 *             reclaimable = pages − distinct = (zero − 1, or 0) + intra + inter
 *             Σ extent_pages = intra + inter
 */
struct tally {
    uint64_t pages;
    uint64_t zero;
    uint64_t distinct; /* contents; zero is one, over all groups */
    uint64_t intra;    /* copies beyond the first in the same image */
    uint64_t inter;    /* images that hold a content, beyond the first */
    /* What pages are, seen among all images of their group. */
    uint64_t unique; /* no other page is equal */
    uint64_t within; /* some are, but in this image only */
    uint64_t across; /* some are, in other images */
    uint64_t blocks[ORDERS];
    uint64_t distinct_blocks[ORDERS];
    uint64_t extents[LENGTHS]; /* of 2^i … 2^(i + 1) − 1 pages: how many */
    uint64_t extent_pages[LENGTHS]; /* … and their pages */
};

/* What a page is to its image's group. */
enum kind { KIND_ZERO, KIND_UNIQUE, KIND_WITHIN, KIND_ACROSS, KIND_GAP, KINDS };

static inline uint64_t tally_reclaimable(const struct tally *tally)
{
    return tally->pages - tally->distinct;
}

static inline uint64_t tally_reclaimable_zero(const struct tally *tally)
{
    return tally->zero ? tally->zero - 1 : 0;
}

/* ---- how it is asked for -------------------------------------------------- */

struct analysis_options {
    uint64_t page_size; /* a power of two, ANALYSIS_PAGE_MIN … _MAX */
    unsigned threads;
    /* Either may be NULL. Called from any thread; `total` is 0 if unknown. */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void (*complain)(void *ctx, const char *text);
    void *ctx;
};

/* An image and its trust group, numbers from 0 on. */
struct analysis_image {
    const char *name; /* a path, or "-" */
    uint32_t group;
};

struct fingerprint {
    uint64_t low; /* 0: zero, or (high = 1) no page */
    uint64_t high;
};

/* The numbers of contents. Those that occur once have no number of their own;
 * other numbers are given in the order of first appearance. */
enum value { VALUE_ZERO, VALUE_GAP, VALUE_UNIQUE, VALUE_FIRST };

struct input;
struct secret;

struct analysis {
    const struct analysis_options *options;
    struct input *inputs; /* [n_inputs] */
    uint32_t n_inputs;
    struct secret *secrets; /* [groups] */
    struct tally all;
    /* positions: input i has the chunks from inputs[i].first_chunk on */
    uint32_t n_chunks;
    struct fingerprint **fingerprints; /* [n_chunks], NULL: all zero */
    uint32_t **values;                 /* [n_chunks], NULL: all zero */
    uint32_t n_values; /* VALUE_FIRST + contents that occur twice or more */
    bool *across;      /* [n_values]: in several images? */
    uint64_t total;    /* bytes to be read; 0: unknown */
    _Atomic uint64_t done;
    atomic_bool failed;
    bool opening; /* every image that is wrong is told */
};

/*
 * What is wrong is told through options->complain, once, by whichever thread
 * meets it first; of images that cannot be opened, each. Then these answer
 * false, and only analysis_close() may follow.
 */
bool analysis_open(struct analysis *analysis,
                   const struct analysis_options *options,
                   const struct analysis_image *images, uint32_t n_images);
bool analysis_read(struct analysis *analysis);
bool analysis_count(struct analysis *analysis);
void analysis_close(struct analysis *analysis);

const struct tally *analysis_tally(const struct analysis *analysis,
                                   uint32_t image);

/* Of a position of image `image`, counted from its first. */
enum kind analysis_kind(const struct analysis *analysis, uint32_t image,
                        uint64_t slot);

/* ---- between the parts ---------------------------------------------------- */

bool analysis_fail(struct analysis *analysis, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void analysis_advance(struct analysis *analysis, uint64_t bytes);

/* From fingerprints to values, and what can be told from them; the
 * fingerprints are freed. (contents.c) */
bool analysis_contents(struct analysis *analysis);

/* From values; these two may run beside each other. (blocks.c, extents.c) */
bool analysis_blocks(struct analysis *analysis);
/* Of one image alone, or of all (image = n_inputs). */
bool analysis_extents(struct analysis *analysis, uint32_t image);

/* Runs `work` in n threads, this one included; fewer if no more can be had.
 * Each is told its number. (threads.c) */
void threads_run(unsigned n, void (*work)(void *ctx, unsigned thread),
                 void *ctx);

#endif
