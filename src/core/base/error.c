/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names and sentences of the errors. One table, in the order of the values, so
 * that an error without an entry shows at once: the array's length is checked
 * against the last value.
 */
#include <pgshare/error.h>

#include <assert.h>

struct entry {
    const char *name;
    const char *text;
};

#define ENTRY(symbol, sentence) [-(symbol)] = { #symbol, sentence }

static const struct entry entries[] = {
    ENTRY(PGSHARE_OK, "Success"),
    ENTRY(PGSHARE_ERR_INVALID, "An argument is missing or malformed"),
    ENTRY(PGSHARE_ERR_ABI,
          "A structure is of an unknown size or uses unknown members"),
    ENTRY(PGSHARE_ERR_RANGE, "A page number or count is out of range"),
    ENTRY(PGSHARE_ERR_NOMEM, "There is no memory for metadata"),
    ENTRY(PGSHARE_ERR_NOFRAME,
          "Neither the reserve nor a repayment FIFO has a frame left"),
    ENTRY(PGSHARE_ERR_NODOMAIN, "There is no such domain"),
    ENTRY(PGSHARE_ERR_EXISTS, "It exists already"),
    ENTRY(PGSHARE_ERR_NOTSUP, "The backend or this build cannot do that"),
    ENTRY(PGSHARE_ERR_BUSY, "The page is held or an operation is under way"),
    ENTRY(PGSHARE_ERR_INPROGRESS,
          "The call is not finished yet; its outcome will be reported"),
    ENTRY(PGSHARE_ERR_TICKET, "The page is not marked with this ticket"),
    ENTRY(PGSHARE_ERR_SOURCE_TICKET,
          "The source is not, or no longer, marked read-only"),
    ENTRY(PGSHARE_ERR_CLIENT_TICKET,
          "The client is not, or no longer, marked read-only"),
    ENTRY(PGSHARE_ERR_DIFFERENT, "The pages differ"),
    ENTRY(PGSHARE_ERR_GROUP,
          "The trust group does not exist or is not the same for both"),
    ENTRY(PGSHARE_ERR_NEVER_SHARE, "The page is declared never to be shared"),
    ENTRY(PGSHARE_ERR_READONLY, "The page is in a read-only range"),
    ENTRY(PGSHARE_ERR_HOLE, "There is no memory at this page number"),
    ENTRY(PGSHARE_ERR_RECLAIMED,
          "The page was reclaimed before it could be withdrawn"),
    ENTRY(PGSHARE_ERR_OWED,
          "The repayment FIFO would be shorter than the bonus claimed"),
    ENTRY(PGSHARE_ERR_ENTITLEMENT, "The claim exceeds the entitlement"),
    ENTRY(PGSHARE_ERR_FULL, "A table is at its limit"),
    ENTRY(PGSHARE_ERR_GONE, "The domain's process or machine is dead"),
    ENTRY(PGSHARE_ERR_BACKEND, "The backend failed or broke its contract"),
    ENTRY(PGSHARE_ERR_FORKED, "The host belongs to the parent process"),
    ENTRY(PGSHARE_ERR_SUSPENDED, "The domain is suspended"),
    ENTRY(PGSHARE_ERR_PROTOCOL,
          "A ring or message holds what its protocol forbids"),
    ENTRY(PGSHARE_ERR_STATE, "The page is not in the state that this needs"),
};

#define N_ENTRIES (int)(sizeof(entries) / sizeof(entries[0]))

static_assert(sizeof(entries) / sizeof(entries[0]) == 29,
              "a new error has a name and a sentence here");

static const struct entry *find(int error)
{
    if (error > 0 || error <= -N_ENTRIES)
        return NULL;
    assert(entries[-error].name && entries[-error].text);
    return &entries[-error];
}

const char *pgshare_error_name(int error)
{
    const struct entry *entry = find(error);

    return entry ? entry->name : "PGSHARE_ERR_UNKNOWN";
}

const char *pgshare_error_text(int error)
{
    const struct entry *entry = find(error);

    return entry ? entry->text : "An error unknown to this version";
}
