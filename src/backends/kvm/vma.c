/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What kind of memory a guest's memory is.
 *
 * Memory can be shared if it can be replaced without anybody noticing. What
 * would be lost by that (a lock, a NUMA policy, another process's view) is a
 * reason to refuse the slot, and the reason is told. What can be kept is noted
 * and given to each mapping that takes its place: not to be dumped; huge pages
 * are switched off while the slot is ours, since one byte written to a page of
 * zeroes would take 2 MiB, and on again afterwards.
 *
 * Registered memory is not inherited by fork(): a child would hold every page
 * of it, and none could be moved.
 */
#include "kvm/backend.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MPOL_F_ADDR 2

/* ---- reasons ----------------------------------------------------------- */

static const char *const texts[] = {
    [PGSHARE_KVM_WHY_NONE] = "the memory can be shared",
    [PGSHARE_KVM_WHY_UNALIGNED] =
        "an address or a length is not of whole pages",
    [PGSHARE_KVM_WHY_OVERLAP] = "the slot overlaps another one",
    [PGSHARE_KVM_WHY_UNMAPPED] = "there is no memory at a part of the range",
    [PGSHARE_KVM_WHY_NOT_PRIVATE] =
        "the memory is a shared mapping, or a file's: others would not see "
        "what sharing replaces; use private anonymous memory",
    [PGSHARE_KVM_WHY_HUGETLB] =
        "the memory is of hugetlbfs, whose pages cannot be shared in parts; use "
        "ordinary memory",
    [PGSHARE_KVM_WHY_LOCKED] =
        "the memory is locked (mlock, MCL_FUTURE, mem-lock=on), which sharing "
        "would undo",
    [PGSHARE_KVM_WHY_KSM] =
        "the kernel's own same-page merging (MADV_MERGEABLE, "
        "PR_SET_MEMORY_MERGE) is at work on the memory; switch one of the two "
        "off",
    [PGSHARE_KVM_WHY_USERFAULTFD] =
        "another userfaultfd is registered there (postcopy migration, "
        "background snapshot)",
    [PGSHARE_KVM_WHY_PROTECTION] =
        "the memory is not readable and writable, or is executable; what only "
        "the guest may not write to is a slot for reading "
        "(PGSHARE_KVM_SLOT_READONLY)",
    [PGSHARE_KVM_WHY_SPECIAL] =
        "the memory is a device's, a stack, sealed, or wiped on fork",
    [PGSHARE_KVM_WHY_POLICY] =
        "the memory has a NUMA policy, which the shared frames could not keep",
    [PGSHARE_KVM_WHY_ANOTHER] = "the kernel refuses to register the memory",
};

const char *pgshare_kvm_why_text(uint32_t why)
{
    return why < sizeof(texts) / sizeof(texts[0]) ? texts[why]
                                                  : "an unknown reason";
}

/* ---- /proc/self/smaps -------------------------------------------------- */

static bool has(const char *flags, const char *flag)
{
    const char *at = strstr(flags, flag);

    return at && isspace((unsigned char)at[2]);
}

/* Flags as the kernel writes them: two letters each, a blank after each. */
static uint32_t judge(const char *flags)
{
    static const struct {
        const char *flag;
        uint32_t why;
    } bad[] = {
        { "ht", PGSHARE_KVM_WHY_HUGETLB },
        { "sh", PGSHARE_KVM_WHY_NOT_PRIVATE },
        { "lo", PGSHARE_KVM_WHY_LOCKED },
        { "mg", PGSHARE_KVM_WHY_KSM },
        { "um", PGSHARE_KVM_WHY_USERFAULTFD },
        { "uw", PGSHARE_KVM_WHY_USERFAULTFD },
        { "ui", PGSHARE_KVM_WHY_USERFAULTFD },
        { "ex", PGSHARE_KVM_WHY_PROTECTION },
        { "io", PGSHARE_KVM_WHY_SPECIAL },
        { "pf", PGSHARE_KVM_WHY_SPECIAL },
        { "mm", PGSHARE_KVM_WHY_SPECIAL },
        { "gd", PGSHARE_KVM_WHY_SPECIAL },
        { "wf", PGSHARE_KVM_WHY_SPECIAL },
        { "sl", PGSHARE_KVM_WHY_SPECIAL },
        { "ss", PGSHARE_KVM_WHY_SPECIAL },
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (has(flags, bad[i].flag))
            return bad[i].why;
    return has(flags, "rd") && has(flags, "wr") ? PGSHARE_KVM_WHY_NONE
                                                : PGSHARE_KVM_WHY_PROTECTION;
}

/* The first line of an area: is it a file's? "[heap]" and the like are not. */
static bool is_file(const char *line)
{
    unsigned long inode = 0;

    return sscanf(line, "%*x-%*x %*s %*x %*s %lu", &inode) != 1 || inode != 0;
}

struct search {
    uint64_t start, end; /* what is looked for */
    uint64_t covered;    /* from `start` on, so far */
    bool inside;         /* the area that is being read touches it */
    uint32_t attributes;
    uint32_t why;
};

static void read_line(struct search *search, const char *line)
{
    uint64_t from, to;

    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2) {
        search->inside = from < search->end && to > search->start;
        if (!search->inside)
            return;
        if (from > search->covered)
            search->why = PGSHARE_KVM_WHY_UNMAPPED;
        else if (is_file(line))
            search->why = PGSHARE_KVM_WHY_NOT_PRIVATE;
        search->covered = to;
    } else if (search->inside && !strncmp(line, "VmFlags:", 8)) {
        uint32_t why = judge(line + 8);

        if (why && search->why != PGSHARE_KVM_WHY_UNMAPPED)
            search->why = why;
        if (has(line + 8, "dc"))
            search->attributes |= ATTRIBUTE_DONTFORK;
        if (has(line + 8, "dd"))
            search->attributes |= ATTRIBUTE_DONTDUMP;
        if (has(line + 8, "hg"))
            search->attributes |= ATTRIBUTE_HUGE;
    }
}

static bool has_policy(const void *at)
{
    int mode = 0;

    return !syscall(SYS_get_mempolicy, &mode, NULL, 0L, at, MPOL_F_ADDR) &&
           mode != 0;
}

int pgs_vma_check(const void *at, uint64_t bytes, uint32_t *ret_attributes,
                  uint32_t *ret_why)
{
    struct search search = {
        .start = (uintptr_t)at,
        .end = (uintptr_t)at + bytes,
        .covered = (uintptr_t)at,
    };
    FILE *smaps = fopen("/proc/self/smaps", "re");
    char line[512];

    if (!smaps)
        return PGSHARE_ERR_BACKEND;
    while (!search.why && fgets(line, sizeof(line), smaps))
        read_line(&search, line);
    fclose(smaps);
    if (!search.why && search.covered < search.end)
        search.why = PGSHARE_KVM_WHY_UNMAPPED;
    if (!search.why && has_policy(at))
        search.why = PGSHARE_KVM_WHY_POLICY;
    *ret_attributes = search.attributes;
    *ret_why = search.why;
    return search.why ? PGSHARE_ERR_NOTSUP : 0;
}

/* ---- mappings of ours -------------------------------------------------- */

void pgs_keep_private(const void *at, size_t bytes)
{
    pgs_sys_advise(at, bytes, MADV_DONTFORK);
    pgs_sys_advise(at, bytes, MADV_DONTDUMP);
}

/* What a new mapping in a slot does not have by itself. */
void pgs_vma_restore(const struct pgs_kvm_slot *slot, const void *at,
                     size_t bytes)
{
    pgs_sys_advise(at, bytes, MADV_DONTFORK);
    if (slot->attributes & ATTRIBUTE_DONTDUMP)
        pgs_sys_advise(at, bytes, MADV_DONTDUMP);
}

/* Anonymous memory is watched: by the log, or trapped, by the handler. */
int pgs_vma_arm(const struct pgshare_kvm_guest *guest, const void *at,
                size_t bytes)
{
    uint64_t mode = UFFDIO_REGISTER_MODE_WP;

    if (guest->suspended) /* somebody else may watch it now */
        return 0;
    if (guest->trapped)
        mode |= UFFDIO_REGISTER_MODE_MISSING;
    return pgs_sys_uffd_register(guest->uffd, at, bytes, mode);
}

/* Its pages are there before they are protected: what is not there can only be
 * marked to be protected, and a write to it would make a copy first. */
int pgs_trap(const struct pgshare_kvm_guest *guest, const void *at,
             size_t bytes)
{
    int error = pgs_sys_advise(at, bytes, MADV_POPULATE_READ);

    if (!error)
        error = pgs_sys_uffd_register(guest->uffd, at, bytes,
                                      UFFDIO_REGISTER_MODE_WP);
    return error ? error : pgs_sys_uffd_protect(guest->uffd, at, bytes, true);
}

/* The kernel makes a mapping of a frame the guest's own page. Nothing is lost
 * should the guest do the same just now. */
int pgs_own(struct pgshare_kvm_guest *guest, uint64_t gfn, void *at)
{
    int error = 0;

    if (guest->trapped)
        error = pgs_sys_uffd_protect(guest->uffd, at, PAGE, false);
    if (!error)
        error = pgs_sys_advise(at, PAGE, MADV_POPULATE_WRITE);
    if (!error)
        pgs_set_kind(guest, gfn, KIND_LEFT, NO_PLACE);
    else if (guest->trapped)
        pgs_sys_uffd_protect(guest->uffd, at, PAGE, true);
    pgs_guard(guest, gfn, 1);
    return error;
}

/* Empty anonymous memory in place of what is there. */
int pgs_vma_blank(const struct pgshare_kvm_guest *guest,
                  const struct pgs_kvm_slot *slot, void *at, size_t bytes)
{
    int error = pgs_sys_map_anon(at, bytes, NULL);

    if (error)
        return error;
    pgs_vma_restore(slot, at, bytes);
    pgs_sys_advise(at, bytes, MADV_NOHUGEPAGE);
    return pgs_vma_arm(guest, at, bytes);
}
