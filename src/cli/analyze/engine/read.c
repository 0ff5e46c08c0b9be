/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All pages are read once and become fingerprints; zero pages and holes become
 * nothing at all.
 *
 * Work is dealt out in units: a stream, which can only be read in order, or one
 * chunk of a file. So a chunk has one writer, and threads share nothing but
 * the counter of units. Streams, which take longest, come first. A thread's
 * buffer fits into the second-level cache: bytes are hashed where the kernel
 * has just put them.
 */
#include "read.h"

#include "input.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define BUFFER_SIZE ((size_t)256 << 10)

struct reader {
    struct analysis *analysis;
    _Atomic uint64_t next; /* unit */
    uint64_t n_units;
};

/* Of one thread. */
struct buffer {
    unsigned char *bytes;
    size_t pages;
    size_t page_size;
};

/* ---- fingerprints --------------------------------------------------------- */

static bool is_zero(const unsigned char *page, size_t size)
{
    uint64_t first;

    memcpy(&first, page, sizeof(first));
    return first == 0 &&
           !memcmp(page, page + sizeof(first), size - sizeof(first));
}

static struct fingerprint fingerprint(const unsigned char *page, size_t size,
                                      const struct secret *secret)
{
    XXH128_hash_t hash = XXH3_128bits_withSecret(page, size, secret->bytes,
                                                 sizeof(secret->bytes));

    /* 0 means something else */
    return (struct fingerprint){ hash.low64 ? hash.low64 : 1, hash.high64 };
}

static struct fingerprint *chunk_of(struct input *input, uint64_t slot)
{
    struct fingerprint **chunk = &input->chunks[slot / CHUNK];

    if (!*chunk)
        *chunk = calloc(CHUNK, sizeof(**chunk));
    if (!*chunk)
        input_fail(input, "%s", strerror(ENOMEM));
    return *chunk;
}

static bool take_pages(struct input *input, uint64_t slot, uint64_t n,
                       const struct buffer *buffer)
{
    const struct secret *secret = &input->analysis->secrets[input->group];

    for (uint64_t i = 0; i < n; i++, slot++) {
        const unsigned char *page = buffer->bytes + i * buffer->page_size;
        struct fingerprint *chunk;

        if (is_zero(page, buffer->page_size))
            continue;
        chunk = chunk_of(input, slot);
        if (!chunk)
            return false;
        chunk[slot % CHUNK] = fingerprint(page, buffer->page_size, secret);
    }
    return true;
}

/* Places without a page are marked. */
static bool mark_gap(struct input *input, uint64_t from, uint64_t to)
{
    for (uint64_t slot = from; slot < to; slot++) {
        struct fingerprint *chunk = chunk_of(input, slot);

        if (!chunk)
            return false;
        chunk[slot % CHUNK] = (struct fingerprint){ 0, 1 };
    }
    return true;
}

static bool mark_gaps(struct input *input)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < input->n_runs; i++) {
        if (!mark_gap(input, end, input->runs[i].slot))
            return false;
        end = input->runs[i].slot + input->runs[i].pages;
    }
    return mark_gap(input, end, (uint64_t)input->n_chunks * CHUNK);
}

/* ---- files ----------------------------------------------------------------- */

static bool fail_short(const struct input *input)
{
    return input_fail(input, "became shorter while it was read");
}

/* Is it still as long as it was? (Holes are not read and would not tell.) */
static bool check_size(const struct input *input)
{
    off_t size = lseek(input->fd, 0, SEEK_END);

    if (size < 0)
        return input_fail(input, "%s", strerror(errno));
    return (uint64_t)size >= input->size || fail_short(input);
}

static bool read_data(struct input *input, const struct segment *segment,
                      uint64_t page, uint64_t n, const struct buffer *buffer)
{
    size_t bytes;

    for (uint64_t i = 0; i < n; i += buffer->pages) {
        uint64_t left = n - i < buffer->pages ? n - i : buffer->pages;
        uint64_t at = segment->offset + (page + i) * buffer->page_size;
        bool end;

        bytes = (size_t)left * buffer->page_size;
        if (!input_fetch(input, at, buffer->bytes, bytes, &end))
            return end ? fail_short(input) : false;
        if (!take_pages(input, segment->slot + page + i, left, buffer))
            return false;
    }
    return true;
}

/*
 * The next pages, from `page` on, with data in the file; up to `end`, which
 * *ret_page is if there are no more. A file system that cannot tell has no
 * holes, and a page of which a part is a hole has data.
 */
static void find_data(const struct input *input, const struct segment *segment,
                      uint64_t page, uint64_t end, uint64_t *ret_page,
                      uint64_t *ret_end)
{
    uint64_t page_size = input->analysis->options->page_size;
    uint64_t base = segment->offset;
    off_t data = lseek(input->fd, (off_t)(base + page * page_size), SEEK_DATA);
    off_t hole;

    *ret_page = data < 0 && errno == ENXIO ? end : page;
    *ret_end = end;
    if (data < 0)
        return;
    if ((uint64_t)data > base)
        *ret_page = ((uint64_t)data - base) / page_size;
    if (*ret_page >= end) {
        *ret_page = end;
        return;
    }
    hole = lseek(input->fd, data, SEEK_HOLE);
    if (hole >= 0 && ((uint64_t)hole - base + page_size - 1) / page_size < end)
        *ret_end = ((uint64_t)hole - base + page_size - 1) / page_size;
}

static bool read_segment(struct input *input, const struct segment *segment,
                         uint64_t from, uint64_t to,
                         const struct buffer *buffer)
{
    while (from < to && !input->analysis->failed) {
        uint64_t page, end;

        find_data(input, segment, from, to, &page, &end);
        if (page < end && !read_data(input, segment, page, end - page, buffer))
            return false;
        analysis_advance(input->analysis, (end - from) * buffer->page_size);
        from = end;
    }
    return true;
}

/* The segment that has this slot, or the first behind it. */
static uint32_t find_segment(const struct input *input, uint64_t slot)
{
    uint32_t low = 0;
    uint32_t high = input->n_segments;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct segment *segment = &input->segments[middle];

        if (segment->slot + segment->pages <= slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool read_chunk(struct input *input, uint32_t chunk,
                       const struct buffer *buffer)
{
    uint64_t begin = (uint64_t)chunk * CHUNK;
    uint64_t end = begin + CHUNK;

    for (uint32_t i = find_segment(input, begin); i < input->n_segments; i++) {
        const struct segment *segment = &input->segments[i];
        uint64_t from = begin > segment->slot ? begin - segment->slot : 0;
        uint64_t to = segment->pages;

        if (segment->slot >= end)
            break;
        if (segment->slot + to > end)
            to = end - segment->slot;
        if (!read_segment(input, segment, from, to, buffer))
            return false;
    }
    return true;
}

/* ---- streams --------------------------------------------------------------- */

/* Raw: what comes is the next page, and the end is the image's end. */
static bool read_raw_stream(struct input *input, const struct buffer *buffer)
{
    size_t size = buffer->pages * buffer->page_size;
    size_t n = size;
    uint64_t pages = 0;

    while (n == size && !input->analysis->failed) {
        if (!stream_read(input->stream, buffer->bytes, size, &n))
            return false;
        if (n % buffer->page_size)
            return input_fail(input,
                              "its size is no multiple of the page "
                              "size, %zu: %zu bytes are left over",
                              buffer->page_size, n % buffer->page_size);
        n /= buffer->page_size;
        if (!input_extend(input, pages + n) ||
            !take_pages(input, pages, n, buffer))
            return false;
        pages += n;
        n *= buffer->page_size;
    }
    if (input->analysis->failed)
        return false;
    if (!pages)
        return input_fail(input, "is empty");
    input->runs = calloc(1, sizeof(*input->runs));
    if (!input->runs)
        return input_fail(input, "%s", strerror(ENOMEM));
    input->runs[0].pages = pages;
    input->n_runs = 1;
    input->tally.pages = pages;
    return true;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct segment *x = a;
    const struct segment *y = b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool skip(struct input *input, uint64_t n, const struct buffer *buffer)
{
    while (n) {
        size_t size = buffer->pages * buffer->page_size;
        size_t got;

        if (size > n)
            size = (size_t)n;
        if (!stream_read(input->stream, buffer->bytes, size, &got))
            return false;
        if (got < size)
            return input_fail(input, "is truncated: a segment is missing");
        n -= size;
    }
    return true;
}

static bool stream_segment(struct input *input, const struct segment *segment,
                           const struct buffer *buffer)
{
    for (uint64_t i = 0; i < segment->pages; i += buffer->pages) {
        uint64_t n = segment->pages - i;
        size_t size, got;

        if (input->analysis->failed)
            return false;
        if (n > buffer->pages)
            n = buffer->pages;
        size = (size_t)n * buffer->page_size;
        if (!stream_read(input->stream, buffer->bytes, size, &got))
            return false;
        if (got < size)
            return input_fail(input,
                              "is truncated: the segment of GFN 0x%" PRIx64
                              " ends early",
                              segment->gfn);
        if (!take_pages(input, segment->slot + i, n, buffer))
            return false;
    }
    return true;
}

/* What is behind the last segment is read, too: it may turn out damaged. */
static bool read_rest(struct input *input, const struct buffer *buffer)
{
    size_t n = 1;

    while (n && !input->analysis->failed)
        if (!stream_read(input->stream, buffer->bytes,
                         buffer->pages * buffer->page_size, &n))
            return false;
    return true;
}

/* A core dump: segments in the order in which the file has them. */
static bool read_elf_stream(struct input *input, const struct buffer *buffer)
{
    uint64_t at = 0;

    qsort(input->segments, input->n_segments, sizeof(*input->segments),
          compare_offsets);
    for (uint32_t i = 0; i < input->n_segments; i++) {
        const struct segment *segment = &input->segments[i];

        if (segment->offset < at)
            return input_fail(input, "has segments that overlap in the file");
        if (!skip(input, segment->offset - at, buffer) ||
            !stream_segment(input, segment, buffer))
            return false;
        at = segment->offset + segment->pages * buffer->page_size;
    }
    return read_rest(input, buffer);
}

/* ---- all of them ------------------------------------------------------------ */

static bool read_stream(struct input *input, const struct buffer *buffer)
{
    return input->format == FORMAT_RAW ? read_raw_stream(input, buffer)
                                       : read_elf_stream(input, buffer);
}

static uint64_t units_of(const struct input *input, bool streams)
{
    if (streams)
        return input->stream ? 1 : 0;
    return input->stream ? 0 : input->n_chunks;
}

static bool read_unit(struct analysis *analysis, uint64_t unit,
                      const struct buffer *buffer)
{
    for (unsigned pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < analysis->n_inputs; i++) {
            struct input *input = &analysis->inputs[i];
            uint64_t n = units_of(input, pass == 0);

            if (unit < n)
                return input->stream
                           ? read_stream(input, buffer)
                           : read_chunk(input, (uint32_t)unit, buffer);
            unit -= n;
        }
    assert(!"such a unit");
    return false;
}

static void work(void *ctx, unsigned thread)
{
    struct reader *reader = ctx;
    size_t page_size = (size_t)reader->analysis->options->page_size;
    struct buffer buffer = {
        .page_size = page_size,
        .pages = page_size < BUFFER_SIZE ? BUFFER_SIZE / page_size : 1,
    };

    buffer.bytes = malloc(buffer.pages * page_size);
    if (!buffer.bytes)
        analysis_fail(reader->analysis, "%s", strerror(ENOMEM));
    while (!reader->analysis->failed) {
        uint64_t unit = atomic_fetch_add(&reader->next, 1);

        if (unit >= reader->n_units ||
            !read_unit(reader->analysis, unit, &buffer))
            break;
    }
    free(buffer.bytes);
}

static bool finish(struct analysis *analysis)
{
    for (uint32_t i = 0; i < analysis->n_inputs; i++) {
        struct input *input = &analysis->inputs[i];

        if ((input->size && !check_size(input)) || !mark_gaps(input))
            return false;
    }
    return true;
}

bool read_all(struct analysis *analysis)
{
    struct reader reader = { .analysis = analysis };

    for (uint32_t i = 0; i < analysis->n_inputs; i++)
        reader.n_units += units_of(&analysis->inputs[i], true) +
                          units_of(&analysis->inputs[i], false);
    threads_run(analysis->options->threads, work, &reader);
    return !analysis->failed && finish(analysis);
}
