/* SPDX-License-Identifier: BSD-2-Clause */
/* The smallest program that needs both the headers and the library. */
#include <pgshare/pgshare.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    char header[32];

    snprintf(header, sizeof(header), "%d.%d.%d", PGSHARE_VERSION_MAJOR,
             PGSHARE_VERSION_MINOR, PGSHARE_VERSION_PATCH);
    return strcmp(header, pgshare_version()) != 0;
}
