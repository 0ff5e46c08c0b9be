/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What newer kernels offer and the C library's headers of an older system do
 * not name: numbers and layouts of the kernel's ABI, which never change.
 */
#ifndef PGS_KVM_ABI_LINUX_H
#define PGS_KVM_ABI_LINUX_H

#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* userfaultfd */

#define PGS_UFFD_WP_SHMEM ((uint64_t)1 << 12)       /* Linux 5.19 */
#define PGS_UFFD_WP_UNPOPULATED ((uint64_t)1 << 13) /* Linux 6.4 */
#define PGS_UFFD_WP_ASYNC ((uint64_t)1 << 15)       /* Linux 6.7 */
#define PGS_UFFD_MOVE ((uint64_t)1 << 16)           /* Linux 6.8 */

struct pgs_uffd_move {
    uint64_t dst;
    uint64_t src;
    uint64_t len;
    uint64_t mode;
    int64_t move; /* out: bytes moved, or a negative errno */
};

#define PGS_UFFDIO_MOVE _IOWR(0xAA, 0x05, struct pgs_uffd_move)

/* PAGEMAP_SCAN, Linux 6.7 */

#define PGS_PAGE_WRITTEN ((uint64_t)1 << 1)
#define PGS_PAGE_FILE ((uint64_t)1 << 2)
#define PGS_PAGE_PRESENT ((uint64_t)1 << 3)
#define PGS_PAGE_SWAPPED ((uint64_t)1 << 4)
#define PGS_PAGE_PFNZERO ((uint64_t)1 << 5)

struct pgs_page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct pgs_pm_scan {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end; /* out */
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#define PGS_PM_SCAN_WP_MATCHING ((uint64_t)1 << 0)
#define PGS_PAGEMAP_SCAN _IOWR('f', 16, struct pgs_pm_scan)

/* A word of /proc/self/pagemap. EXCLUSIVE: nobody else maps the page. */
#define PGS_PAGEMAP_EXCLUSIVE ((uint64_t)1 << 56)
#define PGS_PAGEMAP_PROTECTED ((uint64_t)1 << 57)
#define PGS_PAGEMAP_FILE ((uint64_t)1 << 61)
#define PGS_PAGEMAP_SWAPPED ((uint64_t)1 << 62)
#define PGS_PAGEMAP_PRESENT ((uint64_t)1 << 63)

#endif
