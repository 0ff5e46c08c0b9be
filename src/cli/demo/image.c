/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An image is mapped, so that several of them need no memory beyond the page
 * cache. Reading a hole through a mapping would fill that with zeroes, so the
 * file is asked where its holes are; a file system that cannot tell has none.
 */
#include "image.h"

#include "demo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse(const char *path, const char *why)
{
    fprintf(stderr, "pgshare: %s: %s\n", path, why);
    return PGSHARE_ERR_INVALID;
}

static void set_data(struct image *image, uint64_t from, uint64_t to)
{
    for (uint64_t page = from; page < to && page < image->pages; page++)
        image->data[page / 64] |= UINT64_C(1) << page % 64;
}

static void find_data(struct image *image, int fd)
{
    const off_t size = (off_t)PGSHARE_PAGE_SIZE;
    off_t data = lseek(fd, 0, SEEK_DATA), hole;

    if (data < 0 && errno != ENXIO) {
        set_data(image, 0, image->pages);
        return;
    }
    while (data >= 0) {
        hole = lseek(fd, data, SEEK_HOLE);
        if (hole < 0) { /* it changes under us: believe in no more holes */
            set_data(image, (uint64_t)(data / size), image->pages);
            return;
        }
        set_data(image, (uint64_t)(data / size),
                 (uint64_t)((hole + size - 1) / size));
        data = lseek(fd, hole, SEEK_DATA);
    }
}

static int map(struct image *image, int fd, const char *path)
{
    struct stat info;
    void *bytes;

    if (fstat(fd, &info))
        return refuse(path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return refuse(path, "is no file");
    if (!info.st_size || info.st_size % (off_t)PGSHARE_PAGE_SIZE)
        return refuse(path, "is no RAM image: its size is no multiple of a "
                            "page's");
    image->pages = (uint64_t)info.st_size / PGSHARE_PAGE_SIZE;
    if (image->pages > PGSHARE_TRACKED_MAX / GUESTS_MAX)
        return refuse(path, "is too large");
    bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return refuse(path, strerror(errno));
    image->bytes = bytes;
    image->data = calloc(image->pages / 64 + 1, sizeof(*image->data));
    if (!image->data)
        return complain(PGSHARE_ERR_NOMEM, "%s", path);
    find_data(image, fd);
    return 0;
}

int image_open(struct image *image, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int error;

    memset(image, 0, sizeof(*image));
    if (fd < 0)
        return refuse(path, strerror(errno));
    error = map(image, fd, path);
    close(fd);
    if (error)
        image_close(image);
    return error;
}

void image_close(struct image *image)
{
    union {
        const unsigned char *mapped;
        void *bytes;
    } file = { .mapped = image->bytes };

    if (file.bytes)
        munmap(file.bytes, image->pages * PGSHARE_PAGE_SIZE);
    free(image->data);
    memset(image, 0, sizeof(*image));
}

const unsigned char *image_page(const struct image *image, uint64_t page)
{
    if (!(image->data[page / 64] >> page % 64 & 1))
        return NULL;
    return image->bytes + page * PGSHARE_PAGE_SIZE;
}
