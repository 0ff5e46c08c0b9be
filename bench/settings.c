/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A process of its own, the guardian, restores the settings when the last
 * writer of its pipe has gone: when they are closed, and when this process was
 * killed.
 */
#include "settings.h"

#include "measure.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

bool pgs_setting_read(const char *path, char text[PGS_SETTING_TEXT])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return false;
    got = read(fd, text, PGS_SETTING_TEXT - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return got > 0;
}

bool pgs_setting_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t put;

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

static void restore(const struct pgs_settings *settings)
{
    for (size_t i = settings->n; i-- > 0;)
        if (settings->list[i].saved)
            pgs_setting_write(settings->list[i].path,
                              settings->list[i].before);
}

static void guard(const struct pgs_settings *settings, int fd)
{
    char byte;

    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    while (read(fd, &byte, 1) > 0)
        ;
    restore(settings);
    _exit(0);
}

void pgs_settings_open(struct pgs_settings *settings,
                       struct pgs_setting *list, size_t n)
{
    int ends[2];

    *settings = (struct pgs_settings){ .list = list, .n = n };
    for (size_t i = 0; i < n; i++) {
        list[i].saved = pgs_setting_read(list[i].path, list[i].before);
        unwrap_choice(list[i].before);
    }
    if (pipe2(ends, O_CLOEXEC))
        pgs_bench_die("pipe");
    settings->guardian = fork();
    if (settings->guardian < 0)
        pgs_bench_die("fork");
    if (!settings->guardian) {
        close(ends[1]);
        guard(settings, ends[0]);
    }
    close(ends[0]);
    settings->fd = ends[1];
}

void pgs_settings_set(struct pgs_settings *settings, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (settings->list[i].saved)
            pgs_setting_write(settings->list[i].path,
                              settings->list[i].wanted);
}

bool pgs_setting_is_set(const struct pgs_setting *setting)
{
    char text[PGS_SETTING_TEXT];

    return pgs_setting_read(setting->path, text) &&
           !strcmp(text, setting->wanted);
}

void pgs_settings_close(struct pgs_settings *settings)
{
    close(settings->fd);
    waitpid(settings->guardian, NULL, 0);
}
