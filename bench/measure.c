/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clocks, memory and threads as the benches need them. All this ends the
 * program when the machine lets it down: there is no half a measurement.
 */
#include "measure.h"

#include <pgshare/pgshare.h>

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LLC_GUESS ((uint64_t)32 << 20)
#define THREADS_MAX 2u
#define SPINS_BEFORE_YIELD 1024u

uint64_t pgs_bench_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t pgs_bench_cpu(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pgs_bench_die(const char *format, ...)
{
    va_list args;

    fputs("pgshare-bench: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

void pgs_bench_check(int result, const char *what)
{
    if (result)
        pgs_bench_die("%s: %s", what, pgshare_error_name(result));
}

/* ---- series ------------------------------------------------------------ */

void pgs_series_add(struct pgs_series *series, double value)
{
    if (series->n == series->room) {
        series->room = series->room ? 2 * series->room : 64;
        series->values = realloc(series->values,
                                 series->room * sizeof(*series->values));
        if (!series->values)
            pgs_bench_die("out of memory");
    }
    series->values[series->n++] = value;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

double pgs_series_median(struct pgs_series *series)
{
    if (!series->n)
        return 0;
    qsort(series->values, series->n, sizeof(*series->values), compare_doubles);
    return (series->values[series->n / 2] +
            series->values[(series->n - 1) / 2]) /
           2;
}

void pgs_series_fini(struct pgs_series *series)
{
    free(series->values);
    *series = (struct pgs_series){ 0 };
}

/* ---- memory ------------------------------------------------------------ */

static uint64_t cache_size(unsigned index)
{
    char path[80];
    char unit = 0;
    unsigned long long size = 0;
    FILE *file;

    snprintf(path, sizeof(path),
             "/sys/devices/system/cpu/cpu0/cache/index%u/size", index);
    file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%llu%c", &size, &unit) < 1)
        size = 0;
    fclose(file);
    if (unit == 'K')
        size <<= 10;
    if (unit == 'M')
        size <<= 20;
    return size;
}

uint64_t pgs_bench_llc(void)
{
    uint64_t largest = 0;
    long told = sysconf(_SC_LEVEL3_CACHE_SIZE);

    for (unsigned index = 0; index < 8; index++) {
        uint64_t size = cache_size(index);

        if (size > largest)
            largest = size;
    }
    if (told > 0 && (uint64_t)told > largest)
        largest = (uint64_t)told;
    return largest ? largest : LLC_GUESS;
}

void *pgs_bench_memory_new(size_t bytes)
{
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        pgs_bench_die("no %zu bytes of memory", bytes);
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += PGSHARE_PAGE_SIZE)
        memory[at] = 1;
    return memory;
}

void pgs_bench_memory_free(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}

uint64_t pgs_bench_rss(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (!file || fscanf(file, "%*u %llu", &pages) != 1)
        pgs_bench_die("cannot read /proc/self/statm");
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ---- chance ------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t pgs_bench_random(uint64_t *state)
{
    return mix(*state += UINT64_C(0x9e3779b97f4a7c15));
}

__extension__ typedef unsigned __int128 wide;

static uint64_t scale_down(uint64_t x, uint64_t limit)
{
    return (uint64_t)((wide)x * limit >> 64);
}

uint64_t pgs_bench_below(uint64_t *state, uint64_t limit)
{
    return scale_down(pgs_bench_random(state), limit);
}

uint32_t *pgs_bench_order_new(uint64_t *state, uint32_t n)
{
    uint32_t *order = malloc(n * sizeof(*order));

    if (!order)
        pgs_bench_die("out of memory");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t other = (uint32_t)pgs_bench_below(state, i + 1);

        order[i] = order[other];
        order[other] = i;
    }
    return order;
}

double pgs_bench_random_reads(uint64_t *state, const uint64_t *table,
                              size_t bytes, uint32_t reads)
{
    uint64_t words = bytes / sizeof(*table);
    uint64_t begin = pgs_bench_now();
    uint64_t x = *state;

    for (uint32_t i = 0; i < reads; i++) {
        x += UINT64_C(0x9e3779b97f4a7c15);
        x += table[scale_down(mix(x), words)];
    }
    *state = x;
    return (double)(pgs_bench_now() - begin) / reads;
}

/* ---- threads ----------------------------------------------------------- */

static struct {
    unsigned n;
    double (*work)(void *ctx, unsigned thread);
    void *ctx;
    atomic_uint arrived;
    atomic_uint turn;
} crew;

struct member {
    pthread_t thread;
    unsigned index;
    int cpu;
    double result;
};

void pgs_bench_meet(void)
{
    unsigned turn = atomic_load(&crew.turn);
    unsigned spins = 0;

    if (atomic_fetch_add(&crew.arrived, 1) + 1 == crew.n) {
        atomic_store(&crew.arrived, 0);
        atomic_store(&crew.turn, turn + 1);
        return;
    }
    while (atomic_load(&crew.turn) == turn)
        if (++spins % SPINS_BEFORE_YIELD == 0)
            sched_yield();
}

static void *run_member(void *ctx)
{
    struct member *member = ctx;
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)member->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
    pgs_bench_meet();
    member->result = crew.work(crew.ctx, member->index);
    return NULL;
}

double pgs_bench_threads(unsigned n, double (*work)(void *ctx, unsigned thread),
                         void *ctx)
{
    struct member members[THREADS_MAX];
    cpu_set_t mine;
    double sum = 0;
    int cpu = -1;

    crew.n = n;
    crew.work = work;
    crew.ctx = ctx;
    if (sched_getaffinity(0, sizeof(mine), &mine))
        pgs_bench_die("sched_getaffinity failed");
    for (unsigned i = 0; i < n; i++) {
        do
            cpu++;
        while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET((size_t)cpu, &mine));
        members[i].index = i;
        members[i].cpu = cpu;
        if (pthread_create(&members[i].thread, NULL, run_member, &members[i]))
            pgs_bench_die("pthread_create failed");
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(members[i].thread, NULL);
        sum += members[i].result;
    }
    return sum / n;
}
