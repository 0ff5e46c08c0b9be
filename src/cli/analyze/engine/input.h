/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A RAM image, and where its pages are.
 */
#ifndef PGSHARE_CLI_INPUT_H
#define PGSHARE_CLI_INPUT_H

#include "analysis.h"

struct stream;

/* Consecutive GFNs at consecutive offsets of the file. */
struct segment {
    uint64_t gfn;
    uint64_t pages;
    uint64_t offset; /* of the first, in bytes */
    uint64_t slot;   /* position of the first within its image */
};

/* Consecutive GFNs, as many as there are. */
struct run {
    uint64_t gfn;
    uint64_t pages;
    uint64_t slot;
};

enum input_format { FORMAT_RAW, FORMAT_ELF };

/*
 * Invariants: segments and runs are sorted by gfn and do not overlap; each
 * segment is part of a run; Σ runs.pages = tally.pages; run.slot ≡ run.gfn
 * (mod BLOCK_MAX); n_chunks × CHUNK ≥ the last run's slot + pages.
 */
struct input {
    struct analysis *analysis;
    const char *name;
    uint32_t group;
    enum input_format format;
    int fd;
    struct stream *stream; /* NULL: a file that can be read anywhere */
    uint64_t size;         /* of the file; 0: unknown */
    struct segment *segments;
    uint32_t n_segments;
    struct run *runs;
    uint32_t n_runs;
    struct fingerprint **chunks; /* [n_chunks] until all is read */
    uint32_t n_chunks;
    uint32_t first_chunk;
    struct tally tally;
};

/* "NAME: what is wrong". Answers false. */
bool input_fail(const struct input *input, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Opens the image and finds out where its pages are; of a raw stream, that is
 * known when it has been read. input_close() must follow in any case. */
bool input_open(struct input *input);
void input_close(struct input *input);

/* Bytes from the head of the file. False: told, or (*ret_end) it has ended. */
bool input_fetch(struct input *input, uint64_t offset, void *bytes, size_t n,
                 bool *ret_end);

/* Is this the beginning of a core dump? Then its segments. (elf.c) */
#define ELF_HEAD 64u
bool elf_is_core(const unsigned char head[ELF_HEAD]);
bool elf_parse(struct input *input, const unsigned char head[ELF_HEAD]);

/* Segments in any order, which may repeat themselves, become what the
 * invariants say; makes runs and chunks, too. */
bool input_arrange(struct input *input);

/* More chunks, for so many slots. */
bool input_extend(struct input *input, uint64_t slots);

/* ---- streams (stream.c) --------------------------------------------------- */

/* A pipe, or a file in zstd's format; answers NULL if memory is short. */
struct stream *stream_new(struct input *input);
void stream_free(struct stream *stream);

/* Do these begin a zstd file? */
#define STREAM_HEAD 4u
bool stream_is_packed(const unsigned char head[STREAM_HEAD]);

/* Reads the first bytes, which say if the rest has to be unpacked. */
bool stream_begin(struct stream *stream);

/* The next bytes, fewer than asked for only at the end. */
bool stream_read(struct stream *stream, void *bytes, size_t n, size_t *ret_n);

/* The first bytes, which can be read again. Likewise. */
bool stream_peek(struct stream *stream, size_t n,
                 const unsigned char **ret_bytes, size_t *ret_n);

#endif
