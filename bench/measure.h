/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Measuring: time, medians, memory, randomness, threads.
 *
 * A figure and its yardstick are measured in turns (A B A B …), each turn
 * short, so that whatever slows the machine down slows both; of all turns the
 * median counts. What has to be put back between two turns is not timed.
 */
#ifndef PGS_BENCH_MEASURE_H
#define PGS_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

/* Monotonic nanoseconds. */
uint64_t pgs_bench_now(void);

/* CPU time of this thread, in nanoseconds. */
uint64_t pgs_bench_cpu(void);

/* Ends the program, which has nothing to say any more. */
__attribute__((format(printf, 1, 2), noreturn)) void pgs_bench_die(
    const char *format, ...);

/* Ends it if a call of the library failed. */
void pgs_bench_check(int result, const char *what);

/* Samples of one quantity. Zero is empty. */
struct pgs_series {
    double *values; /* [n] */
    size_t n;
    size_t room;
};

void pgs_series_add(struct pgs_series *series, double value);
double pgs_series_median(struct pgs_series *series);
void pgs_series_fini(struct pgs_series *series);

/* Keeps the compiler from leaving out what computed `value`. */
static inline void pgs_bench_use(uint64_t value)
{
    __asm__ volatile("" : : "r"(value) : "memory");
}

/* A page's size, which the compiler does not know: memcpy() and memcmp() are
 * then the C library's own, and not what the compiler puts in their place. */
static inline size_t pgs_bench_page_size(void)
{
    size_t size = 4096;

    __asm__ volatile("" : "+r"(size));
    return size;
}

/* The last-level cache's size, in bytes; a guess where nothing tells. */
uint64_t pgs_bench_llc(void);

/* Memory of which every page has been touched. In huge pages where there are
 * any, as the rig's machine: what a hypervisor's own page tables cost, and who
 * else looks at them, is not what is measured. */
void *pgs_bench_memory_new(size_t bytes);
void pgs_bench_memory_free(void *memory, size_t bytes);

/* The process's resident memory, in bytes. */
uint64_t pgs_bench_rss(void);

/* SplitMix64: the next number, and one below `limit`. */
uint64_t pgs_bench_random(uint64_t *state);
uint64_t pgs_bench_below(uint64_t *state, uint64_t limit);

/* 0 … n-1 in random order. */
uint32_t *pgs_bench_order_new(uint64_t *state, uint32_t n);

/*
 * Reads 8 bytes at random places of a table, each place computed from what was
 * read before, so that every read costs its latency. Answers the nanoseconds
 * of one.
 */
double pgs_bench_random_reads(uint64_t *state, const uint64_t *table,
                              size_t bytes, uint32_t reads);

/* Runs `work` in `n` (1 or 2) threads, each on a CPU of its own, and answers
 * the mean of what they return. */
double pgs_bench_threads(unsigned n, double (*work)(void *ctx, unsigned thread),
                         void *ctx);

/* In such a thread: waits until all have come here. */
void pgs_bench_meet(void);

#endif
