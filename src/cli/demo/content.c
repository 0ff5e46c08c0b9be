/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order of files is that of the roots below, then of names, compared as
 * bytes, so that it is the same on every run and in every locale. Of a file
 * that is very large the first part is taken, so that there are several; the
 * last one of a kind is cut to fit.
 *
 * Files are read, not mapped: one that shrinks meanwhile ends in zeroes.
 */
#include "content.h"

#include <pgshare/common.h>
#include <pgshare/error.h>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX ((size_t)1 << 20)
/* No file is more than this part of its kind. */
#define LARGEST_PART 8u
/* With fewer blocks there is nothing to show. */
#define BLOCKS_MIN 64u

#define ROOTS_MAX 4
#define DEPTH_MAX 16

static bool is_library(const char *name)
{
    const char *so = strstr(name, ".so");

    return so && (!so[3] || so[3] == '.');
}

static bool is_no_library(const char *name)
{
    return !is_library(name);
}

static bool is_any(const char *name)
{
    (void)name;
    return true;
}

static const struct source {
    const char *roots[ROOTS_MAX + 1];
    bool (*fits)(const char *name);
} sources[CONTENT_KINDS] = {
    [CONTENT_LIBRARY] = { { "/usr/lib", "/lib", "/usr/lib64" }, is_library },
    [CONTENT_PROGRAM] = { { "/usr/bin", "/bin", "/usr/sbin", "/usr/libexec" },
                          is_any },
    [CONTENT_DOCUMENT] = { { "/usr/share", "/usr/lib", "/usr/include" },
                           is_no_library },
};

const unsigned char *content_block(const struct content *content,
                                   uint64_t block)
{
    return content->bytes + block * PGSHARE_PAGE_SIZE;
}

static int read_file(const char *path, unsigned char *ret_bytes, size_t len,
                     size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    size_t done = 0;
    ssize_t n;

    if (fd < 0)
        return PGSHARE_ERR_INVALID;
    do {
        n = read(fd, ret_bytes + done, len - done);
        done += n > 0 ? (size_t)n : 0;
    } while (n > 0 && done < len);
    close(fd);
    *ret_len = done;
    return 0;
}

static int add_entry(struct content *content, uint64_t block, uint64_t blocks)
{
    if (content->n_files == content->max_files) {
        size_t max = content->max_files ? 2 * content->max_files : 256;
        struct content_file *files = realloc(content->files,
                                             max * sizeof(*files));

        if (!files || max > FILES_MAX) {
            if (files)
                content->files = files;
            return PGSHARE_ERR_NOMEM;
        }
        content->files = files;
        content->max_files = max;
    }
    content->files[content->n_files] = (struct content_file){
        .id = content->n_files + 1,
        .block = block,
        .blocks = blocks,
    };
    content->n_files++;
    return 0;
}

/* A file that cannot be read, or is empty, is passed over. */
static int add_file(struct content *content, struct content_part *part,
                    uint64_t limit, const char *path, off_t size)
{
    uint64_t room = limit - part->blocks;
    uint64_t most = limit / LARGEST_PART + 1;
    uint64_t blocks, block = part->block + part->blocks;
    unsigned char *bytes = content->bytes + block * PGSHARE_PAGE_SIZE;
    size_t len;
    int error;

    blocks = ((uint64_t)size + PGSHARE_PAGE_SIZE - 1) / PGSHARE_PAGE_SIZE;
    blocks = blocks < most ? blocks : most;
    blocks = blocks < room ? blocks : room;
    if (read_file(path, bytes, blocks * PGSHARE_PAGE_SIZE, &len) || !len)
        return 0;
    blocks = (len + PGSHARE_PAGE_SIZE - 1) / PGSHARE_PAGE_SIZE;
    error = add_entry(content, block, blocks);
    if (error)
        return error;
    part->blocks += blocks;
    part->files++;
    return 0;
}

/* What is being collected, and from where. */
struct walk {
    struct content *content;
    struct content_part *part;
    uint64_t limit;
    bool (*fits)(const char *name);
};

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int no_dots(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

static int walk_folder(const struct walk *walk, const char *path, int depth);

static int walk_entry(const struct walk *walk, const char *folder,
                      const char *name, int depth)
{
    char path[PATH_MAX];
    struct stat info;
    int len = snprintf(path, sizeof(path), "%s/%s", folder, name);

    if (len < 0 || (size_t)len >= sizeof(path) || lstat(path, &info))
        return 0;
    if (S_ISDIR(info.st_mode))
        return depth < DEPTH_MAX ? walk_folder(walk, path, depth + 1) : 0;
    if (!S_ISREG(info.st_mode) || !info.st_size || !walk->fits(name))
        return 0;
    return add_file(walk->content, walk->part, walk->limit, path, info.st_size);
}

/* Folders that cannot be read are passed over, like files. */
static int walk_folder(const struct walk *walk, const char *path, int depth)
{
    struct dirent **entries;
    int error = 0, n = scandir(path, &entries, no_dots, by_name);

    for (int i = 0; i < n; i++) {
        if (!error && walk->part->blocks < walk->limit)
            error = walk_entry(walk, path, entries[i]->d_name, depth);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return error;
}

/* A root that is a link (/lib to /usr/lib) has been walked already. */
static int walk_root(const struct walk *walk, const char *root)
{
    struct stat info;

    if (lstat(root, &info) || !S_ISDIR(info.st_mode))
        return 0;
    return walk_folder(walk, root, 0);
}

static int collect(struct content *content, enum content_kind kind,
                   uint64_t block, uint64_t limit)
{
    struct content_part *part = &content->part[kind];
    const struct walk walk = { content, part, limit, sources[kind].fits };
    int error = 0;

    part->block = block;
    part->file = content->n_files;
    for (const char *const *root = sources[kind].roots; !error && *root; root++)
        error = walk_root(&walk, *root);
    return error;
}

int content_init(struct content *content, const uint64_t limits[CONTENT_KINDS],
                 uint64_t spare)
{
    uint64_t block = 0;
    void *bytes;
    int error = 0;

    memset(content, 0, sizeof(*content));
    for (int kind = 0; kind < CONTENT_KINDS; kind++)
        content->blocks += limits[kind];
    content->blocks += spare;
    bytes = mmap(NULL, content->blocks * PGSHARE_PAGE_SIZE,
                 PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return PGSHARE_ERR_NOMEM;
    content->bytes = bytes;
    for (int kind = 0; !error && kind < CONTENT_KINDS; kind++) {
        error = collect(content, (enum content_kind)kind, block, limits[kind]);
        block += content->part[kind].blocks;
    }
    content->spare = block;
    if (!error && block < BLOCKS_MIN)
        error = PGSHARE_ERR_RANGE;
    if (error)
        content_fini(content);
    return error;
}

void content_fini(struct content *content)
{
    if (content->bytes)
        munmap(content->bytes, content->blocks * PGSHARE_PAGE_SIZE);
    free(content->files);
    memset(content, 0, sizeof(*content));
}
