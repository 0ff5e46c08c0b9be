/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * KSM scans a page once to see whether it keeps still, and merges at the second
 * scan at the earliest. Its settings are those under which it is fastest.
 */
#include "ksm.h"

#include "bench.h"
#include "measure.h"
#include "settings.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define DIRECTORY "/sys/kernel/mm/ksm/"
#define LIMIT_NS (UINT64_C(60) * 1000000000)

/* `run` is the last to be set and the first to be restored. */
static struct pgs_setting list[] = {
    { .path = DIRECTORY "advisor_mode", .wanted = "none" },
    { .path = DIRECTORY "smart_scan", .wanted = "0" },
    { .path = DIRECTORY "sleep_millisecs", .wanted = "0" },
    { .path = DIRECTORY "pages_to_scan", .wanted = "1000000" },
    { .path = DIRECTORY "run", .wanted = "1" },
};
#define N (sizeof(list) / sizeof(list[0]))

static struct pgs_settings settings;
static char schedstat[64]; /* of its thread */

static void find_thread(void)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    *schedstat = 0;
    while (processes && (entry = readdir(processes))) {
        char path[64], name[PGS_SETTING_TEXT];

        if (strlen(entry->d_name) > 10)
            continue;
        snprintf(path, sizeof(path), "/proc/%.10s/comm", entry->d_name);
        if (!pgs_setting_read(path, name) || strcmp(name, "ksmd"))
            continue;
        snprintf(schedstat, sizeof(schedstat), "/proc/%.10s/schedstat",
                 entry->d_name);
        break;
    }
    if (processes)
        closedir(processes);
}

bool pgs_ksm_open(void)
{
    if (geteuid() || access(DIRECTORY "run", W_OK))
        return false;
    find_thread();
    pgs_settings_open(&settings, list, N);
    return true;
}

void pgs_ksm_close(void)
{
    pgs_settings_close(&settings);
}

bool pgs_ksm_stop(void)
{
    return pgs_setting_write(DIRECTORY "run", "2") &&
           pgs_setting_write(DIRECTORY "run", "0");
}

bool pgs_ksm_start(void)
{
    pgs_settings_set(&settings, N - 1);
    return pgs_setting_write(DIRECTORY "run", "1");
}

bool pgs_ksm_rest(void)
{
    return pgs_setting_write(DIRECTORY "run", "0");
}

uint64_t pgs_ksm_count(const char *name)
{
    char path[128], text[PGS_SETTING_TEXT];

    snprintf(path, sizeof(path), DIRECTORY "%s", name);
    return pgs_setting_read(path, text) ? strtoull(text, NULL, 10) : 0;
}

uint64_t pgs_ksm_await(const char *name, uint64_t least)
{
    const struct timespec nap = { .tv_nsec = 500000 };
    uint64_t begin = pgs_bench_now();

    while (pgs_ksm_count(name) < least) {
        if (pgs_bench_now() - begin > LIMIT_NS)
            return 0;
        nanosleep(&nap, NULL);
    }
    return pgs_bench_now() - begin + 1;
}

uint64_t pgs_ksm_cpu(void)
{
    char text[PGS_SETTING_TEXT];

    return pgs_setting_read(schedstat, text) ? strtoull(text, NULL, 10) : 0;
}

unsigned char *pgs_ksm_memory_new(const uint32_t *content, uint32_t pages)
{
    size_t bytes = (size_t)pages * PGSHARE_PAGE_SIZE;
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        pgs_bench_die("mmap");
    for (uint32_t i = 0; i < pages; i++)
        pgs_content_fill(NULL, 0, content ? content[i] : i,
                         memory + (size_t)i * PGSHARE_PAGE_SIZE);
    if (!madvise(memory, bytes, MADV_MERGEABLE))
        return memory;
    munmap(memory, bytes);
    return NULL;
}

void pgs_ksm_memory_free(unsigned char *memory, uint32_t pages)
{
    if (memory)
        munmap(memory, (size_t)pages * PGSHARE_PAGE_SIZE);
}
