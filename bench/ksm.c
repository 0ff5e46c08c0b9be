/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * KSM scans a page once to see whether it keeps still, and merges at the second
 * scan at the earliest; so its rate is that of its first two full scans taken
 * together. Its settings are those under which it is fastest.
 */
#include "ksm.h"

#include "measure.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DIRECTORY "/sys/kernel/mm/ksm/"
#define TEXT 64u
#define LIMIT_NS (UINT64_C(60) * 1000000000)

struct setting {
    const char *name;
    const char *wanted;
    bool saved;
    char before[TEXT];
};

/* `run` is the last to be set and the first to be restored. */
static struct setting settings[] = {
    { .name = "advisor_mode", .wanted = "none" },
    { .name = "smart_scan", .wanted = "0" },
    { .name = "sleep_millisecs", .wanted = "0" },
    { .name = "pages_to_scan", .wanted = "1000000" },
    { .name = "run", .wanted = "1" },
};
#define N_SETTINGS (sizeof(settings) / sizeof(settings[0]))

static bool read_text(const char *name, char *text)
{
    char path[128];
    ssize_t got;
    int fd;

    snprintf(path, sizeof(path), DIRECTORY "%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    got = read(fd, text, TEXT - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return got > 0;
}

static bool write_text(const char *name, const char *text)
{
    char path[128];
    ssize_t put;
    int fd;

    snprintf(path, sizeof(path), DIRECTORY "%s", name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    put = write(fd, text, strlen(text));
    close(fd);
    return put == (ssize_t)strlen(text);
}

/* "[none] scan-time" means none. */
static void unwrap_choice(char *text)
{
    char *begin = strchr(text, '['), *end = strchr(text, ']');

    if (!begin || !end || end < begin)
        return;
    *end = 0;
    memmove(text, begin + 1, (size_t)(end - begin));
}

/* Those that a kernel does not have are none of its settings. */
static void save(void)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        settings[i].saved = read_text(settings[i].name, settings[i].before);
        unwrap_choice(settings[i].before);
    }
}

static void restore(void)
{
    for (size_t i = N_SETTINGS; i-- > 0;)
        if (settings[i].saved)
            write_text(settings[i].name, settings[i].before);
}

/* Restores when the last writer of the pipe has gone, however that came. */
static pid_t start_guardian(int *ret_fd)
{
    int ends[2];
    pid_t guardian;
    char byte;

    if (pipe2(ends, O_CLOEXEC))
        pgs_bench_die("pipe");
    guardian = fork();
    if (guardian < 0)
        pgs_bench_die("fork");
    if (guardian) {
        close(ends[0]);
        *ret_fd = ends[1];
        return guardian;
    }
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    close(ends[1]);
    while (read(ends[0], &byte, 1) > 0)
        ;
    restore();
    _exit(0);
}

static uint64_t full_scans(void)
{
    char text[TEXT];

    return read_text("full_scans", text) ? strtoull(text, NULL, 10) : 0;
}

/* The time of two full scans, in ns; 0: it took too long. */
static uint64_t time_scans(void)
{
    const struct timespec nap = { .tv_nsec = 500000 };
    uint64_t before, begin;

    /* 2: what was merged is taken apart, and the next scan is a first one */
    if (!write_text("run", "2") || !write_text("run", "0"))
        return 0;
    for (size_t i = 0; i < N_SETTINGS - 1; i++)
        if (settings[i].saved)
            write_text(settings[i].name, settings[i].wanted);
    before = full_scans();
    begin = pgs_bench_now();
    if (!write_text("run", "1"))
        return 0;
    while (full_scans() < before + 2) {
        if (pgs_bench_now() - begin > LIMIT_NS)
            return 0;
        nanosleep(&nap, NULL);
    }
    return pgs_bench_now() - begin;
}

static unsigned char *map_pages(uint32_t pages)
{
    size_t bytes = (size_t)pages * PGSHARE_PAGE_SIZE;
    unsigned char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        pgs_bench_die("mmap");
    for (uint32_t i = 0; i < pages; i++)
        pgs_content_fill(NULL, 0, i, memory + (size_t)i * PGSHARE_PAGE_SIZE);
    if (madvise(memory, bytes, MADV_MERGEABLE)) {
        munmap(memory, bytes);
        return NULL;
    }
    return memory;
}

void pgs_bench_ksm(struct pgs_bench *bench, const struct pgs_figure *ours,
                   uint32_t pages)
{
    struct pgs_figure figure = *ours;
    unsigned char *memory = NULL;
    uint64_t taken = 0;
    pid_t guardian;
    int fd;

    if (geteuid() == 0 && access(DIRECTORY "run", W_OK) == 0)
        memory = map_pages(pages);
    if (memory) {
        save();
        guardian = start_guardian(&fd);
        taken = time_scans();
        close(fd);
        waitpid(guardian, NULL, 0);
        munmap(memory, (size_t)pages * PGSHARE_PAGE_SIZE);
    }
    if (!taken) {
        pgs_report_note(bench->report,
                        "scan-cold: no figure of KSM (needs root, and a kernel "
                        "with KSM)");
        return;
    }
    snprintf(figure.yardstick, sizeof(figure.yardstick),
             "Linux KSM, as many pages by its first two full scans");
    figure.yardstick_value = pages * 1e3 / (double)taken;
    snprintf(figure.metric, sizeof(figure.metric),
             "first pass over distinct pages beside KSM, sequential");
    figure.limit = 8;
    pgs_report_add(bench->report, &figure);
}
