/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Images that are read from front to end: pipes, and whatever zstd has packed.
 *
 * The head can be looked at before it is read, as far as that is needed to
 * find out what the image is: it stays in a buffer of its own until read.
 *
 * A zstd file is any number of frames, one behind the other, of which some may
 * be skipped; the last one has to be complete.
 */
#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define PACKED_SIZE ((size_t)128 << 10)
/* Program headers of the largest guests need less. */
#define PEEK_MAX ((size_t)64 << 20)
/* What `zstd --long=31` packs can be unpacked, too. */
#define WINDOW_LOG_MAX 31

struct stream {
    struct input *input;
    ZSTD_DCtx *zstd;     /* NULL: not packed */
    bool within;         /* a frame has begun and not ended */
    bool end;            /* of the file */
    unsigned char *file; /* [PACKED_SIZE] as it was read, … */
    size_t file_at;      /* … used so far, … */
    size_t file_n;       /* … and there */
    unsigned char *head; /* peeked at, and the same of it */
    size_t head_at;
    size_t head_n;
};

struct stream *stream_new(struct input *input)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    if (!stream)
        return NULL;
    stream->input = input;
    stream->file = malloc(PACKED_SIZE);
    if (!stream->file) {
        stream_free(stream);
        return NULL;
    }
    return stream;
}

void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    ZSTD_freeDCtx(stream->zstd);
    free(stream->file);
    free(stream->head);
    free(stream);
}

/* More of the file behind what is there. */
static bool fill(struct stream *stream)
{
    ssize_t n;

    if (stream->file_at == stream->file_n)
        stream->file_at = stream->file_n = 0;
    do
        n = read(stream->input->fd, stream->file + stream->file_n,
                 PACKED_SIZE - stream->file_n);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return input_fail(stream->input, "%s", strerror(errno));
    stream->end = n == 0;
    stream->file_n += (size_t)n;
    analysis_advance(stream->input->analysis, (uint64_t)n);
    return true;
}

bool stream_is_packed(const unsigned char head[STREAM_HEAD])
{
    uint32_t magic = (uint32_t)head[0] | (uint32_t)head[1] << 8 |
                     (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;

    return magic == ZSTD_MAGICNUMBER ||
           (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

bool stream_begin(struct stream *stream)
{
    while (stream->file_n < STREAM_HEAD && !stream->end)
        if (!fill(stream))
            return false;
    if (stream->file_n < STREAM_HEAD || !stream_is_packed(stream->file))
        return true;
    stream->zstd = ZSTD_createDCtx();
    if (!stream->zstd ||
        ZSTD_isError(ZSTD_DCtx_setParameter(stream->zstd, ZSTD_d_windowLogMax,
                                            WINDOW_LOG_MAX)))
        return input_fail(stream->input, "%s", strerror(ENOMEM));
    return true;
}

static bool unpack(struct stream *stream, ZSTD_outBuffer *out)
{
    ZSTD_inBuffer in = { stream->file, stream->file_n, stream->file_at };
    size_t before = out->pos;
    size_t left = ZSTD_decompressStream(stream->zstd, out, &in);

    if (ZSTD_isError(left))
        return input_fail(stream->input, "its zstd data are damaged: %s",
                          ZSTD_getErrorName(left));
    if (in.pos > stream->file_at || out->pos > before)
        stream->within = left > 0;
    stream->file_at = in.pos;
    return true;
}

/* Unpacks until `out` is full or nothing is left. */
static bool read_packed(struct stream *stream, ZSTD_outBuffer *out)
{
    while (out->pos < out->size) {
        size_t before = out->pos;

        if (stream->file_at == stream->file_n && !stream->end && !fill(stream))
            return false;
        if (!unpack(stream, out))
            return false;
        if (!stream->end || stream->file_at < stream->file_n ||
            out->pos > before)
            continue;
        if (stream->within)
            return input_fail(stream->input, "is truncated: its zstd data end "
                                             "within a frame");
        break;
    }
    return true;
}

static bool read_plain(struct stream *stream, ZSTD_outBuffer *out)
{
    while (out->pos < out->size) {
        size_t n = stream->file_n - stream->file_at;

        if (n == 0) {
            if (stream->end)
                break;
            if (!fill(stream))
                return false;
            continue;
        }
        if (n > out->size - out->pos)
            n = out->size - out->pos;
        memcpy((unsigned char *)out->dst + out->pos,
               stream->file + stream->file_at, n);
        stream->file_at += n;
        out->pos += n;
    }
    return true;
}

static bool read_on(struct stream *stream, void *bytes, size_t n, size_t *ret_n)
{
    ZSTD_outBuffer out = { bytes, n, 0 };

    if (stream->zstd ? !read_packed(stream, &out) : !read_plain(stream, &out))
        return false;
    *ret_n = out.pos;
    return true;
}

bool stream_read(struct stream *stream, void *bytes, size_t n, size_t *ret_n)
{
    size_t head = stream->head_n - stream->head_at;

    if (head == 0)
        return read_on(stream, bytes, n, ret_n);
    if (head > n)
        head = n;
    memcpy(bytes, stream->head + stream->head_at, head);
    stream->head_at += head;
    if (head < n) {
        if (!read_on(stream, (unsigned char *)bytes + head, n - head, ret_n))
            return false;
        head += *ret_n;
    }
    *ret_n = head;
    return true;
}

bool stream_peek(struct stream *stream, size_t n,
                 const unsigned char **ret_bytes, size_t *ret_n)
{
    size_t more;
    unsigned char *head;

    assert(stream->head_at == 0);
    if (n > PEEK_MAX)
        return input_fail(stream->input, "has its headers too far behind for "
                                         "a stream; unpack it into a file");
    if (n > stream->head_n) {
        head = realloc(stream->head, n);
        if (!head)
            return input_fail(stream->input, "%s", strerror(ENOMEM));
        stream->head = head;
        if (!read_on(stream, head + stream->head_n, n - stream->head_n, &more))
            return false;
        stream->head_n += more;
    }
    *ret_bytes = stream->head;
    *ret_n = stream->head_n;
    return true;
}
