/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Core dumps of guests, as QEMU's dump-guest-memory and `virsh dump
 * --memory-only` write them: each segment to be loaded is a range of physical
 * memory. All that is read is the ELF header, the program headers, and, where
 * these are too many for the ELF header to say, the first section header.
 *
 * Guests have 32 or 64 bits and either order of bytes, whatever we have. With
 * `paging` a dump has one segment for each virtual mapping, so the same memory
 * may appear many times; input_arrange() sorts that out.
 *
 * What a segment has more in memory than in the file was not dumped, so these
 * GFNs are no pages.
 */
#include "input.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct elf {
    struct input *input;
    bool wide; /* 64 bits */
    bool little;
    uint64_t headers; /* offset of the program headers, … */
    uint64_t n;       /* … how many, … */
    uint64_t size;    /* … and of each */
};

static uint64_t number(const struct elf *elf, const unsigned char *bytes,
                       unsigned n)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < n; i++)
        number |= (uint64_t)bytes[i] << 8 * (elf->little ? i : n - 1 - i);
    return number;
}

/* A member of one of the structs of <elf.h>, in the file's own shape. */
#define MEMBER(elf, bytes, type, member)                                 \
    ((elf)->wide ? number(elf, (bytes) + offsetof(Elf64_##type, member), \
                          sizeof(((Elf64_##type *)0)->member))           \
                 : number(elf, (bytes) + offsetof(Elf32_##type, member), \
                          sizeof(((Elf32_##type *)0)->member)))

#define SIZE(elf, type) \
    ((elf)->wide ? sizeof(Elf64_##type) : sizeof(Elf32_##type))

static struct elf elf_of(struct input *input, const unsigned char *head)
{
    return (struct elf){
        .input = input,
        .wide = head[EI_CLASS] == ELFCLASS64,
        .little = head[EI_DATA] == ELFDATA2LSB,
    };
}

/* Other ELF files may well be the first thing in a guest's memory. */
bool elf_is_core(const unsigned char head[ELF_HEAD])
{
    struct elf elf = elf_of(NULL, head);

    static_assert(ELF_HEAD == sizeof(Elf64_Ehdr), "the larger one");
    return !memcmp(head, ELFMAG, SELFMAG) &&
           (elf.wide || head[EI_CLASS] == ELFCLASS32) &&
           (elf.little || head[EI_DATA] == ELFDATA2MSB) &&
           MEMBER(&elf, head, Ehdr, e_type) == ET_CORE;
}

static bool fetch(struct elf *elf, uint64_t offset, void *bytes, size_t n)
{
    bool end;

    if (input_fetch(elf->input, offset, bytes, n, &end))
        return true;
    return end ? input_fail(elf->input,
                            "is truncated: it ends within its ELF headers")
               : false;
}

/* With 0xffff program headers or more, their number is elsewhere. */
static bool count_headers(struct elf *elf, const unsigned char *head)
{
    unsigned char section[sizeof(Elf64_Shdr)] = { 0 };
    uint64_t offset = MEMBER(elf, head, Ehdr, e_shoff);

    if (elf->n != PN_XNUM)
        return true;
    if (!offset)
        return input_fail(elf->input, "is damaged: its ELF header does not say "
                                      "how many segments there are");
    if (!fetch(elf, offset, section, SIZE(elf, Shdr)))
        return false;
    elf->n = MEMBER(elf, section, Shdr, sh_info);
    return true;
}

/* Room for all headers is only asked for if the file can hold them. */
static bool check_headers(const struct elf *elf)
{
    uint64_t bytes = elf->n * elf->size;
    uint64_t size = elf->input->size;

    if (elf->size < SIZE(elf, Phdr))
        return input_fail(elf->input,
                          "is damaged: its program headers have "
                          "%" PRIu64 " bytes each",
                          elf->size);
    if (!elf->n)
        return input_fail(elf->input, "holds no memory: it has no segments");
    if (elf->headers > UINT64_MAX - bytes ||
        (!elf->input->stream && elf->headers + bytes > size))
        return input_fail(elf->input,
                          "is truncated: it ends within its ELF headers");
    return true;
}

static bool add_segment(struct elf *elf, const unsigned char *header)
{
    struct input *input = elf->input;
    uint64_t page_size = input->analysis->options->page_size;
    uint64_t address = MEMBER(elf, header, Phdr, p_paddr);
    uint64_t bytes = MEMBER(elf, header, Phdr, p_filesz);
    uint64_t offset = MEMBER(elf, header, Phdr, p_offset);

    if (MEMBER(elf, header, Phdr, p_type) != PT_LOAD || !bytes)
        return true;
    if (address % page_size || bytes % page_size)
        return input_fail(input,
                          "the segment at 0x%" PRIx64 " of %" PRIu64
                          " bytes is no multiple of the page size, %" PRIu64,
                          address, bytes, page_size);
    if (bytes - 1 > UINT64_MAX - address || offset > INT64_MAX - bytes)
        return input_fail(input,
                          "is damaged: the segment at 0x%" PRIx64
                          " ends beyond all addresses",
                          address);
    if (!input->stream && offset + bytes > input->size)
        return input_fail(input,
                          "is truncated: the segment at 0x%" PRIx64
                          " ends %" PRIu64 " bytes behind the file's end",
                          address, offset + bytes - input->size);
    input->segments[input->n_segments++] = (struct segment){
        .gfn = address / page_size,
        .pages = bytes / page_size,
        .offset = offset,
    };
    return true;
}

static bool read_headers(struct elf *elf)
{
    struct input *input = elf->input;
    unsigned char header[sizeof(Elf64_Phdr)];

    input->segments = calloc((size_t)elf->n, sizeof(*input->segments));
    if (!input->segments)
        return input_fail(input, "%s", strerror(ENOMEM));
    for (uint64_t i = 0; i < elf->n; i++)
        if (!fetch(elf, elf->headers + i * elf->size, header,
                   SIZE(elf, Phdr)) ||
            !add_segment(elf, header))
            return false;
    if (!input->n_segments)
        return input_fail(input, "holds no memory");
    return true;
}

bool elf_parse(struct input *input, const unsigned char head[ELF_HEAD])
{
    struct elf elf = elf_of(input, head);

    input->format = FORMAT_ELF;
    elf.headers = MEMBER(&elf, head, Ehdr, e_phoff);
    elf.n = MEMBER(&elf, head, Ehdr, e_phnum);
    elf.size = MEMBER(&elf, head, Ehdr, e_phentsize);
    return count_headers(&elf, head) && check_headers(&elf) &&
           read_headers(&elf) && input_arrange(input);
}
