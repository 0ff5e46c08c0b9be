/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The version that a program runs with, which need not be the one that it was
 * compiled against.
 */
#include <pgshare/common.h>

#define STRING_OF(x) #x
#define DOTTED(major, minor, patch) \
    STRING_OF(major) "." STRING_OF(minor) "." STRING_OF(patch)

const char *pgshare_version(void)
{
    return DOTTED(PGSHARE_VERSION_MAJOR, PGSHARE_VERSION_MINOR,
                  PGSHARE_VERSION_PATCH);
}
