/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PGSHARE_CLI_READ_H
#define PGSHARE_CLI_READ_H

#include "analysis.h"

/* Of a trust group; random, so that collisions cannot be prepared. */
struct secret {
    unsigned char bytes[192];
};

/* Reads all images: their chunks have the fingerprints then. */
bool read_all(struct analysis *analysis);

#endif
