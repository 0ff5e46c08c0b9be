/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings of the kernel that a yardstick needs, and that are as they were
 * before when it has been measured, however that ends.
 */
#ifndef PGS_BENCH_SETTINGS_H
#define PGS_BENCH_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PGS_SETTING_TEXT 64u

/* A file with a line of text. Those that a kernel does not have are none of its
 * settings. */
struct pgs_setting {
    const char *path;
    const char *wanted;
    bool saved;
    char before[PGS_SETTING_TEXT];
};

/* The last one is the first to be restored. */
struct pgs_settings {
    struct pgs_setting *list; /* [n] */
    size_t n;
    pid_t guardian;
    int fd; /* the guardian restores when it is closed */
};

/* Notes what they are; from now on they will be restored. */
void pgs_settings_open(struct pgs_settings *settings,
                       struct pgs_setting *list, size_t n);
/* Makes the first `n` what is wanted. */
void pgs_settings_set(struct pgs_settings *settings, size_t n);
/* Restores them. */
void pgs_settings_close(struct pgs_settings *settings);

/* Is it what is wanted? */
bool pgs_setting_is_set(const struct pgs_setting *setting);

bool pgs_setting_read(const char *path, char text[PGS_SETTING_TEXT]);
bool pgs_setting_write(const char *path, const char *text);

#endif
