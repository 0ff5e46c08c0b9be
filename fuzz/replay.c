/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a fuzzer's entry point over the files of its corpus, without libFuzzer:
 *
 *     replay-NAME SUITE FILE-OR-FOLDER...
 *
 * An input that breaks something ends the program, as it does under the
 * fuzzer; the name printed last is its file.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static unsigned replayed;

static int replay_file(const char *path, size_t bytes)
{
    /* A block of exactly this size, so that reading past its end shows. */
    uint8_t *data = malloc(bytes ? bytes : 1);
    FILE *file = fopen(path, "rb");
    int result = -1;

    if (data && file && fread(data, 1, bytes, file) == bytes) {
        printf("%s\n", path);
        fflush(stdout);
        result = LLVMFuzzerTestOneInput(data, bytes);
        replayed++;
    } else {
        perror(path);
    }
    if (file)
        fclose(file);
    free(data);
    return result;
}

static int replay(const char *path);

static int replay_folder(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    int result = 0;

    if (count < 0) {
        perror(path);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        char entry[4096];

        snprintf(entry, sizeof(entry), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && replay(entry) < 0)
            result = -1;
        free(entries[i]);
    }
    free(entries);
    return result;
}

static int replay(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        perror(path);
        return -1;
    }
    return S_ISDIR(st.st_mode) ? replay_folder(path)
                               : replay_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    unsigned failed = 0;

    if (argc < 3)
        return 2;
    for (int i = 2; i < argc; i++)
        failed += replay(argv[i]) < 0;
    if (replayed == 0) {
        printf("the corpus is empty\n");
        failed++;
    }
    printf("SUITE %s: %u passed, %u failed, 0 skipped\n", argv[1], replayed,
           failed);
    return failed != 0;
}
