/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an image is: raw, or a core dump; a file that can be read anywhere, or a
 * stream. Its first bytes tell.
 *
 * A file is measured when it is opened. If it is shorter in the end, pages that
 * were counted may never have been read, and the image is refused; if it has
 * grown, what it was in the beginning counts.
 */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Formats that look like raw memory to us, by how they begin. */
static const struct {
    const char *head;
    const char *what;
} strangers[] = {
    { "KDUMP   ", "a kdump-compressed dump" },
    { "DISKDUMP", "a compressed dump" },
    { "makedumpfile", "a dump of makedumpfile" },
    { "LibvirtQemudSave",
      "a libvirt save file (try virsh dump --memory-only)" },
    { "QEVM", "a QEMU migration stream" },
    { "EMiL", "a LiME dump" },
    { "QFI\xfb", "a qcow2 disk image" },
};

bool input_fail(const struct input *input, const char *format, ...)
{
    char why[512];
    va_list args;

    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    return analysis_fail(input->analysis, "%s: %s", input->name, why);
}

static bool fail_errno(const struct input *input)
{
    return input_fail(input, "%s", strerror(errno));
}

/* ---- where the pages are -------------------------------------------------- */

bool input_extend(struct input *input, uint64_t slots)
{
    uint64_t n = (slots + CHUNK - 1) / CHUNK;
    uint64_t room = input->n_chunks;
    struct fingerprint **chunks;

    if (slots > (uint64_t)CHUNKS_MAX * CHUNK)
        return input_fail(input, "is too large: more than %" PRIu64 " pages",
                          (uint64_t)CHUNKS_MAX * CHUNK);
    if (n <= room)
        return true;
    chunks = realloc(input->chunks, (size_t)n * sizeof(struct fingerprint *));
    if (!chunks)
        return input_fail(input, "%s", strerror(ENOMEM));
    for (uint64_t i = room; i < n; i++)
        chunks[i] = NULL;
    input->chunks = chunks;
    input->n_chunks = (uint32_t)n;
    return true;
}

static int compare_segments(const void *a, const void *b)
{
    const struct segment *x = a;
    const struct segment *y = b;

    if (x->gfn != y->gfn)
        return x->gfn < y->gfn ? -1 : 1;
    return (x->pages > y->pages) - (x->pages < y->pages);
}

/* `next` begins within `segment` or right behind it, in memory and file. */
static bool continues(const struct input *input, const struct segment *segment,
                      const struct segment *next)
{
    uint64_t page_size = input->analysis->options->page_size;
    uint64_t distance = next->gfn - segment->gfn;

    return distance <= segment->pages &&
           next->offset == segment->offset + distance * page_size;
}

/* One segment for all that is consecutive, and nothing twice. */
static bool merge_segments(struct input *input)
{
    struct segment *last = input->segments;

    for (uint32_t i = 1; i < input->n_segments; i++) {
        const struct segment *next = &input->segments[i];
        uint64_t pages = next->gfn - last->gfn + next->pages;

        if (continues(input, last, next))
            last->pages = pages > last->pages ? pages : last->pages;
        else if (next->gfn - last->gfn < last->pages)
            return input_fail(input,
                              "is no dump of a guest's memory: its "
                              "segments overlap at GFN 0x%" PRIx64,
                              next->gfn);
        else
            *++last = *next;
    }
    input->n_segments = (uint32_t)(last - input->segments) + 1;
    return true;
}

/* The lowest place for this GFN that leaves at least one free before it. */
static uint64_t place(uint64_t end, uint64_t gfn)
{
    uint64_t first = end ? end + 1 : 0;

    return first + ((gfn - first) & (BLOCK_MAX - 1));
}

static bool make_runs(struct input *input)
{
    struct run *run = NULL;
    uint64_t end = 0;

    input->runs = calloc(input->n_segments, sizeof(*input->runs));
    if (!input->runs)
        return input_fail(input, "%s", strerror(ENOMEM));
    for (uint32_t i = 0; i < input->n_segments; i++) {
        struct segment *segment = &input->segments[i];

        if (!run || run->gfn + run->pages != segment->gfn) {
            run = &input->runs[input->n_runs++];
            run->gfn = segment->gfn;
            run->slot = place(end, segment->gfn);
        }
        segment->slot = run->slot + run->pages;
        run->pages += segment->pages;
        end = run->slot + run->pages;
        input->tally.pages += segment->pages;
        if (!input_extend(input, end))
            return false;
    }
    return true;
}

bool input_arrange(struct input *input)
{
    qsort(input->segments, input->n_segments, sizeof(*input->segments),
          compare_segments);
    return merge_segments(input) && make_runs(input);
}

static bool arrange_raw(struct input *input)
{
    uint64_t page_size = input->analysis->options->page_size;

    if (input->size % page_size)
        return input_fail(input,
                          "its size, %" PRIu64 " bytes, is no multiple "
                          "of the page size, %" PRIu64,
                          input->size, page_size);
    input->segments = calloc(1, sizeof(*input->segments));
    if (!input->segments)
        return input_fail(input, "%s", strerror(ENOMEM));
    input->segments[0].pages = input->size / page_size;
    input->n_segments = 1;
    return input_arrange(input);
}

/* ---- what it is ----------------------------------------------------------- */

static bool fetch_file(struct input *input, uint64_t offset, void *bytes,
                       size_t n, bool *ret_end)
{
    ssize_t got;

    for (size_t at = 0; at < n; at += (size_t)got) {
        got = pread(input->fd, (unsigned char *)bytes + at, n - at,
                    (off_t)(offset + at));
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got < 0)
            return fail_errno(input);
        else if (got == 0)
            return !(*ret_end = true);
    }
    return true;
}

bool input_fetch(struct input *input, uint64_t offset, void *bytes, size_t n,
                 bool *ret_end)
{
    const unsigned char *head;
    size_t got;

    *ret_end = false;
    if (offset > (uint64_t)INT64_MAX - n)
        return !(*ret_end = true);
    if (!input->stream)
        return fetch_file(input, offset, bytes, n, ret_end);
    if (!stream_peek(input->stream, (size_t)offset + n, &head, &got))
        return false;
    if (got < offset + n)
        return !(*ret_end = true);
    memcpy(bytes, head + offset, n);
    return true;
}

/* Fewer bytes than asked for are as good, the rest being zero. */
static bool read_head(struct input *input, unsigned char head[ELF_HEAD])
{
    const unsigned char *bytes;
    bool end = false;
    size_t got;

    memset(head, 0, ELF_HEAD);
    if (!input->stream)
        return fetch_file(input, 0, head, ELF_HEAD, &end) || end;
    if (!stream_peek(input->stream, ELF_HEAD, &bytes, &got))
        return false;
    memcpy(head, bytes, got < ELF_HEAD ? got : ELF_HEAD);
    return got > 0 || input_fail(input, "is empty");
}

static bool begin_stream(struct input *input)
{
    input->stream = stream_new(input);
    if (!input->stream)
        return input_fail(input, "%s", strerror(ENOMEM));
    return stream_begin(input->stream);
}

static bool recognize(struct input *input)
{
    unsigned char head[ELF_HEAD];

    if (!read_head(input, head))
        return false;
    if (!input->stream && stream_is_packed(head))
        return begin_stream(input) && recognize(input);
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++)
        if (!memcmp(head, strangers[i].head, strlen(strangers[i].head)))
            return input_fail(input, "is %s, not a raw image or an ELF core",
                              strangers[i].what);
    if (elf_is_core(head))
        return elf_parse(input, head);
    return input->stream || arrange_raw(input);
}

static bool measure(struct input *input)
{
    off_t size = lseek(input->fd, 0, SEEK_END);

    if (size < 0 || lseek(input->fd, 0, SEEK_SET) < 0)
        return fail_errno(input);
    if (size == 0)
        return input_fail(input, "is empty");
    input->size = (uint64_t)size;
    return true;
}

static bool examine(struct input *input)
{
    struct stat info;

    if (fstat(input->fd, &info))
        return fail_errno(input);
    if (S_ISDIR(info.st_mode))
        return input_fail(input, "%s", strerror(EISDIR));
    if (S_ISCHR(info.st_mode))
        return input_fail(input,
                          isatty(input->fd) ? "is a terminal" : "is a device");
    /* standard input that someone has read from goes on from there */
    if ((S_ISREG(info.st_mode) || S_ISBLK(info.st_mode)) &&
        lseek(input->fd, 0, SEEK_CUR) == 0)
        return measure(input) && recognize(input);
    return begin_stream(input) && recognize(input);
}

bool input_open(struct input *input)
{
    if (!strcmp(input->name, "-"))
        input->fd = dup(STDIN_FILENO);
    else
        input->fd = open(input->name, O_RDONLY | O_CLOEXEC);
    return input->fd < 0 ? fail_errno(input) : examine(input);
}

void input_close(struct input *input)
{
    for (uint32_t i = 0; input->chunks && i < input->n_chunks; i++)
        free(input->chunks[i]);
    free(input->chunks);
    free(input->segments);
    free(input->runs);
    stream_free(input->stream);
    if (input->fd >= 0)
        close(input->fd);
    input->fd = -1;
}
