/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A struct of the public API begins with its size as the caller's compiler saw
 * it. An older caller's is shorter: the members that it does not know get
 * zero, which is every member's "as before". A newer caller's is longer: the
 * members that we do not know must be zero, or the caller wants something that
 * this version cannot do and has to be told so.
 */
#include "base/abi.h"

#include <pgshare/error.h>

#include <assert.h>
#include <stdbool.h>
#include <string.h>

/* Beyond this it is no size but an uninitialised struct. */
#define SIZE_LIMIT 4096u

static size_t size_of(const void *theirs)
{
    size_t size;

    memcpy(&size, theirs, sizeof(size));
    return size;
}

static bool is_zero(const unsigned char *bytes, size_t n)
{
    unsigned char any = 0;

    for (size_t i = 0; i < n; i++)
        any |= bytes[i];
    return any == 0;
}

int pgs_abi_in(void *ours, size_t size, size_t least, const void *theirs)
{
    size_t given;

    assert(ours != NULL);
    assert(least >= sizeof(size_t) && least <= size && size <= SIZE_LIMIT);
    if (!theirs) {
        memset(ours, 0, size);
        return 0;
    }
    given = size_of(theirs);
    if (given < least || given > SIZE_LIMIT)
        return PGSHARE_ERR_ABI;
    if (given > size &&
        !is_zero((const unsigned char *)theirs + size, given - size))
        return PGSHARE_ERR_ABI;
    memset(ours, 0, size);
    memcpy(ours, theirs, given < size ? given : size);
    return 0;
}

int pgs_abi_check_out(const void *theirs, size_t least)
{
    size_t given;

    assert(least >= sizeof(size_t) && least <= SIZE_LIMIT);
    if (!theirs)
        return 0;
    given = size_of(theirs);
    return given < least || given > SIZE_LIMIT ? PGSHARE_ERR_ABI : 0;
}

void pgs_abi_out(void *theirs, const void *ours, size_t size)
{
    size_t given;
    size_t known;

    assert(ours != NULL && size >= sizeof(size_t));
    if (!theirs)
        return;
    given = size_of(theirs);
    assert(given >= sizeof(size_t) && given <= SIZE_LIMIT);
    known = given < size ? given : size;
    memcpy((char *)theirs + sizeof(size_t),
           (const char *)ours + sizeof(size_t), known - sizeof(size_t));
    memset((char *)theirs + known, 0, given - known);
}
