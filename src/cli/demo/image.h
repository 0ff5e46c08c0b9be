/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * RAM images of real guests: raw files, page after page, mostly sparse.
 */
#ifndef PGSHARE_CLI_IMAGE_H
#define PGSHARE_CLI_IMAGE_H

#include <stdint.h>

/* Pages that lie in holes of the file are known to be zero, and never read. */
struct image {
    const unsigned char *bytes; /* the file, mapped */
    uint64_t pages;
    uint64_t *data; /* a bit for each page that is in no hole */
};

/* Complains of what cannot be opened, or is no image. 0 or an error. */
int image_open(struct image *image, const char *path);
void image_close(struct image *image);

/* NULL: zeroes. */
const unsigned char *image_page(const struct image *image, uint64_t page);

#endif
