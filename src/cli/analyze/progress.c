/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One line, written over itself ten times a second by whichever thread comes
 * along when it is due. It begins with a carriage return and ends with "erase
 * to the end of the line"; no mode of the terminal is changed, so that nothing
 * is left behind when we are killed.
 */
#include "progress.h"

#include "../units.h"

#include <inttypes.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_NS UINT64_C(100000000)
#define SECOND_NS UINT64_C(1000000000)
#define BAR_MAX 40u
/* What is beside the bar. */
#define TEXT_WIDTH 44u

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void progress_begin(struct progress *progress, bool stdout_too)
{
    if (isatty(STDERR_FILENO))
        progress->terminal = stderr;
    else if (stdout_too && isatty(STDOUT_FILENO))
        progress->terminal = stdout;
    progress->begin_ns = now_ns();
    progress->due_ns = progress->begin_ns + INTERVAL_NS;
}

static unsigned bar_width(FILE *terminal)
{
    struct winsize size;

    if (ioctl(fileno(terminal), TIOCGWINSZ, &size) || !size.ws_col)
        return BAR_MAX / 2;
    if (size.ws_col < TEXT_WIDTH + 4)
        return 0;
    return size.ws_col - TEXT_WIDTH < BAR_MAX ? size.ws_col - TEXT_WIDTH
                                              : BAR_MAX;
}

static void show_bar(FILE *terminal, uint64_t done, uint64_t total)
{
    unsigned width = bar_width(terminal);
    unsigned full = (unsigned)((double)done / (double)total * width);

    if (!width)
        return;
    fputc('[', terminal);
    for (unsigned i = 0; i < width; i++)
        fputc(i < full ? '#' : ' ', terminal);
    fputs("] ", terminal);
}

static void show_left(FILE *terminal, double seconds)
{
    uint64_t left = (uint64_t)(seconds + 0.5);

    if (left >= 3600)
        fprintf(terminal, ", %" PRIu64 " h %" PRIu64 " min left", left / 3600,
                left / 60 % 60);
    else if (left >= 60)
        fprintf(terminal, ", %" PRIu64 " min %" PRIu64 " s left", left / 60,
                left % 60);
    else
        fprintf(terminal, ", %" PRIu64 " s left", left);
}

static void show(const struct progress *progress, uint64_t ns, uint64_t done,
                 uint64_t total)
{
    FILE *terminal = progress->terminal;
    double seconds = (double)(ns - progress->begin_ns) / (double)SECOND_NS;
    double rate = (double)done / seconds;
    char text[2][UNITS_MAX];

    fputc('\r', terminal);
    if (total && done <= total) {
        show_bar(terminal, done, total);
        fprintf(terminal, "%3.0f %% ", (double)done * 100 / (double)total);
    }
    fprintf(terminal, "%s, %s/s", format_size(done, text[0]),
            format_size((uint64_t)rate, text[1]));
    if (total && done <= total)
        show_left(terminal, (double)(total - done) / rate);
    fputs("\033[K", terminal);
    fflush(terminal);
}

void progress_tick(struct progress *progress, uint64_t done, uint64_t total)
{
    uint64_t ns, due;

    if (!progress->terminal || !done)
        return;
    ns = now_ns();
    due = progress->due_ns;
    if (ns < due || !atomic_compare_exchange_strong(&progress->due_ns, &due,
                                                    ns + INTERVAL_NS))
        return;
    progress->shown = true;
    show(progress, ns, done, total);
}

void progress_say(struct progress *progress, const char *what)
{
    if (!progress->terminal || !progress->shown)
        return;
    fprintf(progress->terminal, "\r%s\033[K", what);
    fflush(progress->terminal);
}

void progress_clear(struct progress *progress)
{
    if (!progress->terminal || !atomic_exchange(&progress->shown, false))
        return;
    fputs("\r\033[K", progress->terminal);
    fflush(progress->terminal);
}
