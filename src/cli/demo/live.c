/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The live view: plain ANSI sequences (up, erase), no cursor hidden and no
 * mode changed, so that a demo that is killed leaves a terminal as it was.
 */
#include "demo.h"

#include "../units.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BAR 40
/* Lines that are not of guests: the act, the legend, and the total. */
#define OTHER_LINES 4
#define FRAME_NS UINT64_C(50000000)
/* How long a tick takes while somebody looks on. */
#define TICK_NS UINT64_C(2000000)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void live_act(struct demo *demo, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(demo->live.act, sizeof(demo->live.act), format, args);
    va_end(args);
    demo->live.due_ns = 0;
    live_tick(demo);
}

static uint32_t rows(void)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_row)
        return 24;
    return size.ws_row;
}

static void erase(struct live *live)
{
    if (live->lines)
        printf("\033[%uA\033[J", live->lines);
    live->lines = 0;
}

/* The parts in proportion to the whole; a part that is there is seen. */
static void bar(const uint64_t *parts, const char *signs, size_t n,
                uint64_t whole)
{
    int left = BAR;

    putchar('[');
    for (size_t i = 0; i < n && whole; i++) {
        int len = (int)((parts[i] * BAR + whole - 1) / whole);

        len = len < left ? len : left;
        for (int j = 0; j < len; j++)
            putchar(signs[i]);
        left -= len;
    }
    while (left-- > 0)
        putchar(' ');
    putchar(']');
}

static void guest_line(struct guest *guest)
{
    struct pgshare_domain_stats stats = { .size = sizeof(stats) };
    char size[UNITS_MAX];

    if (pgshare_domain_stats(guest->demo->host, guest->dom, &stats))
        return;
    const uint64_t parts[] = {
        stats.private_ + stats.protected_ - stats.fifo,
        stats.fifo,
        stats.shared - stats.zero,
        stats.zero,
    };

    printf("  %-12.12s ", guest->name);
    bar(parts, "=v#.", 4, stats.tracked);
    printf(" %10s\n",
           format_size((stats.tracked - stats.shared) * PGSHARE_PAGE_SIZE +
                           (stats.pss >> 20),
                       size));
    guest->demo->live.lines++;
}

static void total(struct demo *demo)
{
    struct pgshare_host_stats stats = { .size = sizeof(stats) };
    char before[UNITS_MAX], saved[UNITS_MAX], reserve[UNITS_MAX];

    if (pgshare_host_stats(demo->host, &stats))
        return;
    printf("  guests have %s, %s of it saved, %s in reserve\n",
           format_size(stats.tracked * PGSHARE_PAGE_SIZE, before),
           format_size(stats.saved * PGSHARE_PAGE_SIZE, saved),
           format_size(stats.reserve * PGSHARE_PAGE_SIZE, reserve));
    printf("  = private  v volatile  # shared  . zero frame\n");
    demo->live.lines += 2;
}

static void draw(struct demo *demo)
{
    uint32_t room = rows(), shown = 0;

    room = room > OTHER_LINES + 1 ? room - OTHER_LINES : 1;
    erase(&demo->live);
    printf("%s\n", demo->live.act);
    demo->live.lines = 1;
    for (uint32_t i = 0; i < demo->n_guests && shown < room; i++)
        if (demo->guests[i].domain) {
            guest_line(&demo->guests[i]);
            shown++;
        }
    if (demo->host)
        total(demo);
    fflush(stdout);
}

void live_tick(struct demo *demo)
{
    const struct timespec pause = { .tv_nsec = TICK_NS };

    if (!demo->live.on)
        return;
    nanosleep(&pause, NULL);
    if (now_ns() < demo->live.due_ns)
        return;
    draw(demo);
    demo->live.due_ns = now_ns() + FRAME_NS;
}

void live_end(struct demo *demo)
{
    if (!demo->live.on)
        return;
    demo->live.on = false;
    erase(&demo->live);
    fflush(stdout);
}
