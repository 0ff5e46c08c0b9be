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

#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
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

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int walk(struct content *content, struct content_part *part,
                uint64_t limit, const char *root,
                bool (*fits)(const char *name))
{
    char *const paths[] = { strdup(root), NULL };
    FTS *fts = NULL;
    FTSENT *entry;
    int error = 0;

    if (paths[0])
        fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, by_name);
    if (!fts)
        error = PGSHARE_ERR_NOMEM;
    while (!error && part->blocks < limit && (entry = fts_read(fts)))
        if (entry->fts_info == FTS_F && entry->fts_statp->st_size > 0 &&
            fits(entry->fts_name))
            error = add_file(content, part, limit, entry->fts_path,
                             entry->fts_statp->st_size);
    if (fts)
        fts_close(fts);
    free(paths[0]);
    return error;
}

static int collect(struct content *content, enum content_kind kind,
                   uint64_t block, uint64_t limit)
{
    struct content_part *part = &content->part[kind];
    int error = 0;

    part->block = block;
    part->file = content->n_files;
    for (const char *const *root = sources[kind].roots; !error && *root; root++)
        error = walk(content, part, limit, *root, sources[kind].fits);
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
