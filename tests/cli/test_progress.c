/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The line of `pgshare analyze` on a terminal: bar, rate and remaining time.
 * The terminal is a pseudo one of ours; that much time has passed is made up.
 */
#include "analyze/progress.h"
#include "support/suite.h"

#include <pty.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
#define MIB (UINT64_C(1) << 20)
#define END '\a' /* of what is to be read */

struct screen {
    int master;
    int old; /* what stderr was */
    struct progress progress;
    char text[4096];
};

static void open_screen(struct screen *screen, unsigned columns)
{
    struct winsize size = { .ws_row = 24, .ws_col = (unsigned short)columns };
    int slave;

    memset(screen, 0, sizeof(*screen));
    ck_assert_int_eq(openpty(&screen->master, &slave, NULL, NULL, &size), 0);
    fflush(stderr);
    screen->old = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(slave, STDERR_FILENO), 0);
    close(slave);
    progress_begin(&screen->progress, false);
}

static void close_screen(struct screen *screen)
{
    fflush(stderr);
    ck_assert_int_ge(dup2(screen->old, STDERR_FILENO), 0);
    close(screen->old);
    close(screen->master);
}

/* What is shown when `seconds` have passed; "": nothing. */
static const char *tick(struct screen *screen, uint64_t seconds, uint64_t done,
                        uint64_t total)
{
    size_t n = 0;
    ssize_t got;

    screen->progress.begin_ns -= seconds * SECOND_NS;
    if (seconds)
        screen->progress.due_ns = 0;
    progress_tick(&screen->progress, done, total);
    fputc(END, stderr);
    fflush(stderr);
    do {
        got = read(screen->master, screen->text + n, sizeof(screen->text) - n);
        ck_assert_int_ge(got, 1);
        n += (size_t)got;
    } while (screen->text[n - 1] != END && n < sizeof(screen->text));
    screen->text[n - 1] = '\0';
    return screen->text;
}

static unsigned count(const char *text, char c)
{
    unsigned n = 0;

    for (; *text; text++)
        n += *text == c;
    return n;
}

START_TEST(test_bar_rate_and_remaining_time)
{
    struct screen screen;
    const char *text;

    open_screen(&screen, 100);
    ck_assert_str_eq(tick(&screen, 0, MIB, 8 * MIB), ""); /* too soon */
    text = tick(&screen, 10, 200 * MIB, 800 * MIB);
    ck_assert_msg(strstr(text, "\r[##########                              ] "
                               " 25 % 200 MiB, 20 MiB/s, 30 s left\033[K"),
                  "%s", text);
    /* at the same rate */
    text = tick(&screen, 30, 800 * MIB, 800 * MIB);
    ck_assert_uint_eq(count(text, '#'), 40);
    ck_assert_msg(strstr(text, "100 % 800 MiB, 20 MiB/s, 0 s left"), "%s",
                  text);
    close_screen(&screen);
}
END_TEST

START_TEST(test_minutes_and_hours)
{
    struct screen screen;
    const char *text;

    open_screen(&screen, 100);
    text = tick(&screen, 10, 30 * MIB, 405 * MIB);
    ck_assert_msg(strstr(text, "3 MiB/s, 2 min 5 s left"), "%s", text);
    text = tick(&screen, 90, 300 * MIB, 23700 * MIB);
    ck_assert_msg(strstr(text, "3 MiB/s, 2 h 10 min left"), "%s", text);
    close_screen(&screen);
}
END_TEST

START_TEST(test_what_is_not_known_is_not_shown)
{
    struct screen screen;
    const char *text;

    open_screen(&screen, 100);
    text = tick(&screen, 10, 200 * MIB, 0);
    ck_assert_msg(strstr(text, "\r200 MiB, 20 MiB/s\033[K"), "%s", text);
    text = tick(&screen, 10, 200 * MIB, 100 * MIB); /* it has grown */
    ck_assert_msg(strstr(text, "\r200 MiB, 10 MiB/s\033[K"), "%s", text);
    close_screen(&screen);
    /* nor what there is no room for */
    open_screen(&screen, 40);
    text = tick(&screen, 10, 200 * MIB, 400 * MIB);
    ck_assert_msg(strstr(text, "\r 50 % 200 MiB, 20 MiB/s, 10 s left"), "%s",
                  text);
    close_screen(&screen);
}
END_TEST

START_TEST(test_the_line_goes)
{
    struct screen screen;
    const char *text;

    open_screen(&screen, 100);
    tick(&screen, 1, MIB, 2 * MIB);
    progress_say(&screen.progress, "counting");
    progress_clear(&screen.progress);
    text = tick(&screen, 0, 0, 0);
    ck_assert_str_eq(text, "\rcounting\033[K\r\033[K");
    close_screen(&screen);
}
END_TEST

static Suite *make(void)
{
    Suite *suite = suite_create("progress");
    TCase *line = pgs_tcase(suite, "line");

    tcase_add_test(line, test_bar_rate_and_remaining_time);
    tcase_add_test(line, test_minutes_and_hours);
    tcase_add_test(line, test_what_is_not_known_is_not_shown);
    tcase_add_test(line, test_the_line_goes);
    return suite;
}

int main(int argc, char **argv)
{
    return pgs_suite_main("progress", make, argc, argv);
}
