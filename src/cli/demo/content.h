/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guests' disk image is made of: real files of this machine, in a
 * fixed order, each from a block boundary on.
 */
#ifndef PGSHARE_CLI_CONTENT_H
#define PGSHARE_CLI_CONTENT_H

#include <stddef.h>
#include <stdint.h>

enum content_kind {
    CONTENT_LIBRARY,
    CONTENT_PROGRAM,
    CONTENT_DOCUMENT,
    CONTENT_KINDS
};

struct content_file {
    uint64_t id; /* its name in hints, never 0 */
    uint64_t block;
    uint64_t blocks;
};

/* The blocks of a kind are consecutive, and so are its files. */
struct content_part {
    uint64_t block;
    uint64_t blocks;
    size_t file;
    size_t files;
};

/* Invariant: parts lie in the order of the kinds from block 0 on; behind them
 * are the spare blocks, all zero, up to `blocks`. */
struct content {
    unsigned char *bytes;
    uint64_t blocks;
    uint64_t spare; /* first of the spare blocks */
    struct content_file *files;
    size_t n_files;
    size_t max_files;
    struct content_part part[CONTENT_KINDS];
};

/*
 * Collects files of each kind up to that kind's limit, in blocks, and adds
 * `spare` empty blocks. 0, PGSHARE_ERR_NOMEM, or PGSHARE_ERR_RANGE: hardly
 * anything could be read.
 */
int content_init(struct content *content, const uint64_t limits[CONTENT_KINDS],
                 uint64_t spare);
void content_fini(struct content *content);

const unsigned char *content_block(const struct content *content,
                                   uint64_t block);

#endif
