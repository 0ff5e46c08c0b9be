/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory of a domain: what its pages hold, and how they come and go.
 *
 * Memory that a guest gives up goes to the machine's free pool, in batches; the
 * library's operations (ops_memory.c) put theirs into the reserve instead.
 *
 * A guest may also drop pages without asking anybody. The host is told
 * afterwards and, while it has an operation under way there, again later: what
 * it has not heard of waits in a list.
 */
#include "machine.h"

#include "base/abi.h"

#include <pgshare/domain.h>

#include <stdlib.h>
#include <string.h>

/* Pages populated at a time. */
#define BATCH 256u

/* What a page that was never written reads as. */
void pgs_mock_content(const struct pgshare_mock_domain *domain, uint64_t gfn,
                      void *ret_page)
{
    if (domain->content) {
        domain->content(domain->content_ctx, domain->domid, gfn, ret_page);
    } else {
        uint64_t name[2] = { (uint64_t)domain->domid + 1, gfn };

        memset(ret_page, 0, PGSHARE_PAGE_SIZE);
        memcpy(ret_page, name, sizeof(name));
    }
}

/*
 * Gives a sparse page, whose lock the caller holds, its bytes. Returns the
 * frame, or FRAME_NONE where no frame has room for them.
 */
uint32_t pgs_mock_materialise(struct pgshare_mock_domain *domain, uint64_t gfn,
                              uint32_t entry)
{
    struct pgshare_mock_machine *machine = domain->machine;
    uint32_t frame;

    if (!pgs_mock_is_sparse(domain, entry))
        return entry & ENTRY_FRAME;
    frame = pgs_mock_number_take(machine);
    if (frame == FRAME_NONE)
        return frame;
    pgs_mock_content(domain, gfn, pgs_mock_bytes(machine, frame));
    pgs_mock_touch(domain, gfn);
    atomic_fetch_sub_explicit(&machine->sparse, 1, memory_order_relaxed);
    return frame;
}

/* The bytes of a page as it is; `buffer` (a page) is used for those that have
 * none. NULL: a hole. */
const unsigned char *pgs_mock_view(const struct pgshare_mock_domain *domain,
                                   uint64_t gfn, uint32_t entry,
                                   unsigned char *buffer)
{
    switch (pgs_mock_kind(entry)) {
    case KIND_PRIVATE:
    case KIND_PROTECTED:
    case KIND_SHARED:
        return pgs_mock_bytes(domain->machine, entry & ENTRY_FRAME);
    case KIND_ZERO:
    case KIND_RECLAIMED:
        memset(buffer, 0, PGSHARE_PAGE_SIZE);
        return buffer;
    default:
        if (!pgs_mock_is_sparse(domain, entry))
            return NULL;
        pgs_mock_content(domain, gfn, buffer);
        return buffer;
    }
}

void pgs_mock_give_back_flush(struct pgshare_mock_machine *machine,
                              struct pgs_mock_give_back *back)
{
    pgs_mock_free_put(machine, back->n, back->frames, back->tokens);
    back->n = 0;
    back->tokens = 0;
}

/* Takes the memory out of a locked entry. Returns the entry of the hole. */
uint32_t pgs_mock_empty_entry(struct pgshare_mock_domain *domain,
                              uint32_t entry, struct pgs_mock_give_back *back)
{
    struct pgshare_mock_machine *machine = domain->machine;
    uint32_t frame = entry & ENTRY_FRAME;

    if (pgs_mock_is_sparse(domain, entry)) {
        atomic_fetch_sub(&machine->sparse, 1);
        back->tokens++;
    } else if (pgs_mock_kind(entry) == KIND_PRIVATE ||
               pgs_mock_kind(entry) == KIND_PROTECTED) {
        pgs_mock_frame_plain(machine, frame);
        back->frames[back->n++] = frame;
        back->tokens++;
    } else if (pgs_mock_kind(entry) == KIND_SHARED) {
        pgs_mock_frame_unmap(machine, frame, domain->removed);
    }
    if (back->tokens == GIVE_BACK)
        pgs_mock_give_back_flush(machine, back);
    return pgs_mock_entry(0, domain->sparse ? KIND_HOLE : KIND_DEFAULT, 0);
}

/* Zeroed private pages in place of holes; no host is told. */
static void fill_holes(struct pgshare_mock_domain *domain, uint64_t gfn,
                       const uint32_t *frames, uint32_t n)
{
    struct pgshare_mock_machine *machine = domain->machine;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame = frames[i] & FRAME_NUMBER;
        uint32_t entry = pgs_mock_lock(domain, gfn + i);

        if (!(frames[i] & FRAME_FRESH))
            pgs_mock_frame_zero(machine, frame);
        pgs_mock_touch(domain, gfn + i);
        pgs_mock_unlock(domain, gfn + i,
                        pgs_mock_entry(entry, KIND_PRIVATE, frame));
    }
}

static void drop_range(struct pgshare_mock_domain *domain, uint64_t gfn,
                       uint64_t count)
{
    struct pgs_mock_give_back back = { .n = 0 };

    for (uint64_t i = gfn; i < gfn + count; i++) {
        uint32_t entry = pgs_mock_lock(domain, i);

        if (!pgs_mock_is_hole(domain, entry)) {
            entry = pgs_mock_empty_entry(domain, entry, &back);
            pgs_mock_touch(domain, i);
        }
        pgs_mock_unlock(domain, i, entry);
    }
    pgs_mock_give_back_flush(domain->machine, &back);
}

int pgshare_mock_populate(struct pgshare_mock_domain *domain, uint64_t gfn,
                          uint64_t count)
{
    uint32_t frames[BATCH];
    uint64_t done = 0;
    int error = 0;

    if (!domain)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    for (uint64_t i = gfn; i < gfn + count; i++)
        if (!pgs_mock_is_hole(domain, domain->p2m[i]) ||
            pgs_mock_is_untold(domain, i))
            return PGSHARE_ERR_EXISTS;
    while (done < count && !error) {
        uint32_t n = count - done < BATCH ? (uint32_t)(count - done) : BATCH;

        if (pgs_mock_free_take(domain->machine, n, frames)) {
            fill_holes(domain, gfn + done, frames, n);
            done += n;
        } else {
            error = PGSHARE_ERR_NOFRAME;
        }
    }
    if (!error && domain->handle)
        error = pgshare_domain_ram_add(domain->machine->host, domain->handle,
                                       gfn, count);
    if (error)
        drop_range(domain, gfn, done);
    return error;
}

int pgshare_mock_depopulate(struct pgshare_mock_domain *domain, uint64_t gfn,
                            uint64_t count)
{
    int error = 0;

    if (!domain)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    if (domain->handle)
        error = pgshare_domain_ram_remove(domain->machine->host, domain->handle,
                                          gfn, count, NULL);
    if (!error)
        drop_range(domain, gfn, count);
    return error;
}

/* May the guest drop the page by itself? */
static bool is_droppable(const struct pgshare_mock_domain *domain,
                         uint32_t entry)
{
    const struct pgshare_mock_machine *machine = domain->machine;
    unsigned kind = pgs_mock_kind(entry);

    if (kind == KIND_PRIVATE)
        return !(pgs_mock_record(machine, entry & ENTRY_FRAME) & RECORD_PINS);
    if (entry & ENTRY_READ_ONLY)
        return false;
    return pgs_mock_is_sparse(domain, entry)
               ? kind == KIND_DEFAULT
               : kind == KIND_SHARED && machine->platform_cow;
}

/* With the page's lock held, so that no operation comes between the drop and
 * what keeps it from the page. */
static void log_drop(struct pgshare_mock_domain *domain,
                     struct pgs_mock_dropped *dropped)
{
    dropped->seq = pgs_mock_seq(domain);
    pthread_mutex_lock(&domain->log_lock);
    *domain->dropped_last = dropped;
    domain->dropped_last = &dropped->next;
    atomic_fetch_add(&domain->machine->dropped_n, 1);
    pthread_mutex_unlock(&domain->log_lock);
}

/* Was the page dropped, and the host has not heard yet? Until then nothing may
 * make it anything else (pgshare_sink::discarded). */
bool pgs_mock_is_untold(struct pgshare_mock_domain *domain, uint64_t gfn)
{
    const struct pgs_mock_dropped *dropped;

    if (!atomic_load_explicit(&domain->machine->dropped_n,
                              memory_order_acquire))
        return false;
    pthread_mutex_lock(&domain->log_lock);
    dropped = domain->dropped_first;
    while (dropped && dropped->gfn != gfn)
        dropped = dropped->next;
    pthread_mutex_unlock(&domain->log_lock);
    return dropped;
}

/* Drops one page. Returns whether the host is to hear of it. */
static bool drop_page(struct pgshare_mock_domain *domain,
                      struct pgs_mock_dropped *dropped)
{
    struct pgshare_mock_machine *machine = domain->machine;
    struct pgs_mock_give_back back = { .n = 0 };
    uint64_t gfn = dropped->gfn;
    uint32_t entry = pgs_mock_lock(domain, gfn);
    uint32_t frame = FRAME_NONE;
    bool drops = is_droppable(domain, entry);
    bool tells;

    if (drops && !dropped->hole && pgs_mock_kind(entry) == KIND_PRIVATE) {
        memset(pgs_mock_bytes(machine, entry & ENTRY_FRAME), 0,
               PGSHARE_PAGE_SIZE);
    } else if (drops && !dropped->hole) {
        drops = pgs_mock_free_take(machine, 1, &frame);
        if (drops) {
            pgs_mock_empty_entry(domain, entry, &back);
            memset(pgs_mock_bytes(machine, frame & FRAME_NUMBER), 0,
                   PGSHARE_PAGE_SIZE);
            entry = pgs_mock_entry(entry, KIND_PRIVATE, frame & FRAME_NUMBER);
        }
    } else if (drops) {
        entry = pgs_mock_empty_entry(domain, entry, &back);
    }
    pgs_mock_touch(domain, gfn);
    tells = drops && domain->handle;
    if (tells)
        log_drop(domain, dropped);
    pgs_mock_unlock(domain, gfn, entry | (drops ? ENTRY_WRITTEN : 0));
    pgs_mock_give_back_flush(machine, &back);
    return tells;
}

/* The first that was dropped, if nobody is telling the host of it. */
static struct pgs_mock_dropped *begin_telling(
    struct pgshare_mock_domain *domain)
{
    struct pgs_mock_dropped *dropped = NULL;

    pthread_mutex_lock(&domain->log_lock);
    if (!domain->telling)
        dropped = domain->dropped_first;
    if (dropped)
        domain->telling = true;
    pthread_mutex_unlock(&domain->log_lock);
    return dropped;
}

static void end_telling(struct pgshare_mock_domain *domain, bool heard)
{
    struct pgs_mock_dropped *dropped;

    pthread_mutex_lock(&domain->log_lock);
    dropped = domain->dropped_first;
    domain->telling = false;
    if (heard) {
        domain->dropped_first = dropped->next;
        if (!dropped->next)
            domain->dropped_last = &domain->dropped_first;
        atomic_fetch_sub(&domain->machine->dropped_n, 1);
    }
    pthread_mutex_unlock(&domain->log_lock);
    if (heard)
        free(dropped);
}

/* Tells the host of what was dropped, in order, as far as it hears. */
void pgs_mock_dropped_tell(struct pgshare_mock_domain *domain)
{
    struct pgshare_mock_machine *machine = domain->machine;
    struct pgs_mock_dropped *dropped;
    int error = 0;

    while (error != PGSHARE_ERR_BUSY && (dropped = begin_telling(domain))) {
        uint64_t handle = atomic_load(&domain->handle);

        error = 0;
        if (handle && machine->sink)
            error = machine->sink->discarded(machine->sink->ctx, handle,
                                             dropped->gfn, 1, dropped->hole,
                                             dropped->seq);
        end_telling(domain, error != PGSHARE_ERR_BUSY);
    }
}

void pgs_mock_dropped_forget(struct pgshare_mock_domain *domain)
{
    pthread_mutex_lock(&domain->log_lock);
    while (domain->telling) {
        pthread_mutex_unlock(&domain->log_lock);
        sched_yield();
        pthread_mutex_lock(&domain->log_lock);
    }
    while (domain->dropped_first) {
        struct pgs_mock_dropped *dropped = domain->dropped_first;

        domain->dropped_first = dropped->next;
        atomic_fetch_sub(&domain->machine->dropped_n, 1);
        free(dropped);
    }
    domain->dropped_last = &domain->dropped_first;
    pthread_mutex_unlock(&domain->log_lock);
}

int pgshare_mock_drop(struct pgshare_mock_domain *domain, uint64_t gfn,
                      uint64_t count, int hole)
{
    if (!domain)
        return PGSHARE_ERR_INVALID;
    if (!pgs_mock_range_ok(domain, gfn, count))
        return PGSHARE_ERR_RANGE;
    for (uint64_t i = gfn; i < gfn + count; i++) {
        struct pgs_mock_dropped *dropped = calloc(1, sizeof(*dropped));

        if (!dropped)
            return PGSHARE_ERR_NOMEM;
        dropped->gfn = i;
        dropped->hole = !!hole;
        if (drop_page(domain, dropped))
            pgs_mock_dropped_tell(domain);
        else
            free(dropped);
    }
    return 0;
}

static uint32_t public_state(const struct pgshare_mock_domain *domain,
                             uint32_t entry)
{
    switch (pgs_mock_kind(entry)) {
    case KIND_PRIVATE:
        return PGSHARE_MOCK_PRIVATE;
    case KIND_PROTECTED:
    case KIND_SPARSE_PROTECTED:
        return PGSHARE_MOCK_PROTECTED;
    case KIND_SHARED:
        return PGSHARE_MOCK_SHARED;
    case KIND_ZERO:
        return PGSHARE_MOCK_ZERO;
    case KIND_RECLAIMED:
        return PGSHARE_MOCK_RECLAIMED;
    default:
        return pgs_mock_is_sparse(domain, entry) ? PGSHARE_MOCK_PRIVATE
                                                 : PGSHARE_MOCK_HOLE;
    }
}

int pgshare_mock_page(struct pgshare_mock_domain *domain, uint64_t gfn,
                      struct pgshare_mock_page *ret_page)
{
    struct pgshare_mock_page page = { .size = sizeof(page) };
    uint64_t record;
    uint32_t entry;
    int error;

    if (!domain || !ret_page)
        return PGSHARE_ERR_INVALID;
    error = pgs_abi_check_out(ret_page, sizeof(page.size));
    if (error)
        return error;
    if (!pgs_mock_range_ok(domain, gfn, 1))
        return PGSHARE_ERR_RANGE;
    entry = pgs_mock_lock(domain, gfn);
    page.state = public_state(domain, entry);
    page.read_only = !!(entry & ENTRY_READ_ONLY);
    page.written = !!(entry & ENTRY_WRITTEN);
    page.sparse = pgs_mock_is_sparse(domain, entry);
    page.frame = UINT64_MAX;
    if (!page.sparse && page.state >= PGSHARE_MOCK_PRIVATE &&
        page.state <= PGSHARE_MOCK_SHARED) {
        page.frame = entry & ENTRY_FRAME;
        record = pgs_mock_record(domain->machine, entry & ENTRY_FRAME);
        page.pins = (record & RECORD_PINS) >> RECORD_PIN_SHIFT;
        if (page.state == PGSHARE_MOCK_PRIVATE)
            page.bytes = pgs_mock_bytes(domain->machine, entry & ENTRY_FRAME);
        if (page.state == PGSHARE_MOCK_SHARED) {
            page.id = pgs_mock_id(record, entry & ENTRY_FRAME);
            page.mappings = pgs_mock_record_mappings(record);
        }
    }
    pgs_mock_unlock(domain, gfn, entry);
    pgs_abi_out(ret_page, &page, sizeof(page));
    return 0;
}
