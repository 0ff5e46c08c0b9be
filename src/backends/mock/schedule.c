/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scheduler: what happens between the steps of the library, drawn from the
 * machine's seed.
 *
 * An operation that is delayed is copied, with its arrays, into a `pending`
 * record and done, or answered, when some polls have passed. Before and after
 * each operation (and each page of one, with ::PGSHARE_MOCK_STEPS) registered
 * guest actions may run; they may call the library, which may submit again. An
 * action is never nested in another, so that recursion ends.
 *
 * Ranges of operations that are at work or delayed are remembered, so that two
 * on one GFN are noticed: the library promised that there are none.
 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

/* A delayed operation (its answer, when `done`), or one at work. */
struct pgs_mock_pending {
    struct pgs_mock_pending *next;
    struct pgshare_op op; /* its arrays lie in this record */
    uint64_t seq;
    uint64_t reserve_bits;
    uint32_t polls; /* left to wait */
    int32_t result;
    bool done;
    bool failed;
    bool at_work;
    bool over; /* done; only its answer is to come */
    bool given_up; /* and the library has asked what became of it */
    bool forgotten;
    int8_t status[PGSHARE_EXTENT_MAX];
    uint64_t ids[PGSHARE_EXTENT_MAX];
    uint64_t in_ids[PGSHARE_EXTENT_MAX];
    uint64_t in_own_ids[PGSHARE_EXTENT_MAX];
};

/* Guest actions */

void pgs_mock_step(struct pgshare_mock_machine *machine)
{
    struct pgs_mock_hook hooks[HOOKS_MAX];
    uint32_t n;

    if (!machine->n_hooks || atomic_flag_test_and_set(&machine->in_hook))
        return;
    pthread_mutex_lock(&machine->hook_lock);
    n = machine->n_hooks;
    memcpy(hooks, machine->hooks, n * sizeof(*hooks));
    pthread_mutex_unlock(&machine->hook_lock);
    for (uint32_t i = 0; i < n; i++)
        if (pgs_mock_chance(machine, hooks[i].chance)) {
            atomic_fetch_add(&machine->hooked, 1);
            hooks[i].call(hooks[i].ctx);
        }
    atomic_flag_clear(&machine->in_hook);
}

static void update_unquiet(struct pgshare_mock_machine *machine)
{
    const struct pgshare_mock_chaos *chaos = &machine->options.chaos;

    atomic_store(&machine->unquiet, machine->n_hooks || chaos->delay_op ||
                                        chaos->delay_answer || chaos->split ||
                                        chaos->lose || chaos->twice ||
                                        chaos->refuse);
}

int pgshare_mock_schedule(struct pgshare_mock_machine *machine,
                          void (*hook)(void *ctx), void *ctx, uint32_t chance)
{
    uint32_t i = 0;
    int error = 0;

    if (!machine || !hook)
        return PGSHARE_ERR_INVALID;
    pthread_mutex_lock(&machine->hook_lock);
    while (i < machine->n_hooks &&
           (machine->hooks[i].call != hook || machine->hooks[i].ctx != ctx))
        i++;
    if (i < machine->n_hooks && !chance) {
        machine->hooks[i] = machine->hooks[--machine->n_hooks];
    } else if (i < machine->n_hooks) {
        machine->hooks[i].chance = chance;
    } else if (i == HOOKS_MAX) {
        error = PGSHARE_ERR_FULL;
    } else if (chance) {
        machine->hooks[i].call = hook;
        machine->hooks[i].ctx = ctx;
        machine->hooks[i].chance = chance;
        machine->n_hooks++;
    }
    update_unquiet(machine);
    pthread_mutex_unlock(&machine->hook_lock);
    return error;
}

void pgshare_mock_chaos_set(struct pgshare_mock_machine *machine,
                            const struct pgshare_mock_chaos *chaos)
{
    static const struct pgshare_mock_chaos none;

    if (!machine)
        return;
    pthread_mutex_lock(&machine->hook_lock);
    machine->options.chaos = chaos ? *chaos : none;
    if (!machine->options.chaos.delay_polls)
        machine->options.chaos.delay_polls = 4;
    update_unquiet(machine);
    pthread_mutex_unlock(&machine->hook_lock);
}

/* Delayed operations */

/* May this kind not run beside another on the same GFN? */
static bool is_exclusive(const struct pgshare_op *op)
{
    switch (op->kind) {
    case PGSHARE_OP_PROTECT:
    case PGSHARE_OP_UNPROTECT:
    case PGSHARE_OP_COMPARE:
    case PGSHARE_OP_PUBLISH:
    case PGSHARE_OP_MAP:
    case PGSHARE_OP_MERGE:
    case PGSHARE_OP_UNSHARE:
    case PGSHARE_OP_DISCARD:
    case PGSHARE_OP_RECLAIM:
    case PGSHARE_OP_GRANT:
    case PGSHARE_OP_CLONE:
        return !(op->flags & PGSHARE_OP_CHARGE);
    default:
        return false;
    }
}

static bool overlap(const struct pgshare_op *a, const struct pgshare_op *b)
{
    return a->domain == b->domain && a->gfn < b->gfn + b->count &&
           b->gfn < a->gfn + a->count && is_exclusive(a) && is_exclusive(b);
}

/*
 * An answer that is late may be waited for no more: that of a comparison, which
 * is made again, and that of an operation on pages that a QUERY asks about.
 * Pending locked.
 */
static bool is_given_up(struct pgs_mock_pending *other,
                        const struct pgshare_op *op)
{
    bool asks = op->kind == PGSHARE_OP_QUERY &&
                op->domain == other->op.domain &&
                op->gfn < other->op.gfn + other->op.count &&
                other->op.gfn < op->gfn + op->count;

    if (other->over && (asks || other->op.kind == PGSHARE_OP_COMPARE))
        other->given_up = true;
    return other->given_up;
}

/* Enters an operation among the pending; it is at work until finish(). */
static void enter(struct pgshare_mock_machine *machine,
                  struct pgs_mock_pending *pending)
{
    bool overlaps = false;

    pthread_mutex_lock(&machine->pending_lock);
    for (struct pgs_mock_pending *other = machine->pending; other;
         other = other->next)
        overlaps |= !is_given_up(other, &pending->op) &&
                    overlap(&other->op, &pending->op);
    pending->next = machine->pending;
    machine->pending = pending;
    pthread_mutex_unlock(&machine->pending_lock);
    if (overlaps)
        pgs_mock_violate(machine,
                         "operation %u on GFN %llu + %u while another is under "
                         "way there",
                         pending->op.kind, (unsigned long long)pending->op.gfn,
                         pending->op.count);
}

static void leave(struct pgshare_mock_machine *machine,
                  struct pgs_mock_pending *pending)
{
    struct pgs_mock_pending **link;

    pthread_mutex_lock(&machine->pending_lock);
    link = &machine->pending;
    while (*link && *link != pending)
        link = &(*link)->next;
    if (*link)
        *link = pending->next;
    pthread_mutex_unlock(&machine->pending_lock);
    free(pending);
}

static struct pgs_mock_pending *pending_new(const struct pgshare_op *op)
{
    struct pgs_mock_pending *pending = calloc(1, sizeof(*pending));
    size_t bytes = op->count <= PGSHARE_EXTENT_MAX
                       ? op->count * sizeof(uint64_t)
                       : 0;

    if (!pending)
        return NULL;
    pending->op = *op;
    pending->at_work = true;
    if (op->ids)
        pending->op.ids = memcpy(pending->in_ids, op->ids, bytes);
    if (op->own_ids)
        pending->op.own_ids = memcpy(pending->in_own_ids, op->own_ids, bytes);
    return pending;
}

static void perform(struct pgshare_mock_machine *machine,
                    struct pgs_mock_pending *pending)
{
    struct pgs_mock_work work = { .status = pending->status,
                                  .ids = pending->ids };

    pgs_mock_step(machine);
    pgs_mock_perform(machine, &pending->op, &work, &pending->seq);
    pgs_mock_step(machine);
    pending->result = work.result;
    pending->failed = work.failed;
    pending->reserve_bits = (uint64_t)work.reserve;
    pending->done = true;
}

/* Sends the part [first, last) of an answer. */
static void send_part(struct pgshare_mock_machine *machine,
                      const struct pgs_mock_pending *pending, uint32_t first,
                      uint32_t last, int64_t reserve)
{
    uint32_t kind = pending->op.kind;
    bool ids = kind < PGSHARE_OP_MAX && pgs_mock_gives_ids(kind) &&
               (!pending->result || kind == PGSHARE_OP_RESERVE);
    struct pgshare_completion completion = {
        .token = pending->op.token,
        .first = first,
        .count = last - first,
        .result = pending->result,
        .status = pending->failed && !pending->result ? pending->status + first
                                                      : NULL,
        .ids = ids ? pending->ids + first : NULL,
        .seq = pending->seq,
        .reserve = reserve,
    };

    machine->sink->complete(machine->sink->ctx, &completion);
}

/* Answers, whole or in parts, perhaps twice. What the reserve gained is said
 * once, with the last part: the library adds it up. */
static void send(struct pgshare_mock_machine *machine,
                 const struct pgs_mock_pending *pending)
{
    const struct pgshare_mock_chaos *chaos = &machine->options.chaos;
    uint32_t count = pending->op.count;
    int64_t reserve = (int64_t)pending->reserve_bits;
    uint32_t first = 0;

    if (pending->forgotten || !machine->sink)
        return;
    while (count - first > 1 && count <= PGSHARE_EXTENT_MAX &&
           pgs_mock_chance(machine, chaos->split)) {
        uint32_t part = 1 + (uint32_t)(pgs_mock_random(machine) %
                                       (count - first - 1));

        send_part(machine, pending, first, first + part, 0);
        first += part;
        pgs_mock_step(machine);
    }
    send_part(machine, pending, first, count, reserve);
    if (pgs_mock_chance(machine, chaos->twice)) {
        atomic_fetch_add(&machine->doubled, 1);
        send_part(machine, pending, 0, count, reserve);
    }
}

/* Ends an operation: does what is left of it. */
static void finish(struct pgshare_mock_machine *machine,
                   struct pgs_mock_pending *pending)
{
    if (!pending->done && !pending->forgotten)
        perform(machine, pending);
    send(machine, pending);
    leave(machine, pending);
}

static uint32_t draw_polls(struct pgshare_mock_machine *machine)
{
    uint32_t most = machine->options.chaos.delay_polls;

    return 1 + (uint32_t)(pgs_mock_random(machine) % (most ? most : 1));
}

static void postpone(struct pgshare_mock_machine *machine,
                     struct pgs_mock_pending *pending)
{
    pthread_mutex_lock(&machine->pending_lock);
    pending->polls = draw_polls(machine);
    pending->at_work = false;
    pending->over = pending->done;
    pthread_mutex_unlock(&machine->pending_lock);
    atomic_fetch_add(&machine->pending_n, 1);
}

static void submit_one(struct pgshare_mock_machine *machine,
                       struct pgs_mock_pending *pending)
{
    const struct pgshare_mock_chaos *chaos = &machine->options.chaos;

    enter(machine, pending);
    if (pgs_mock_chance(machine, chaos->lose)) {
        atomic_fetch_add(&machine->lost, 1);
        if (pgs_mock_random(machine) & 1)
            perform(machine, pending);
        leave(machine, pending);
    } else if (pgs_mock_chance(machine, chaos->delay_op)) {
        postpone(machine, pending);
    } else if (pgs_mock_chance(machine, chaos->delay_answer)) {
        perform(machine, pending);
        postpone(machine, pending);
    } else {
        finish(machine, pending);
    }
}

int pgs_mock_submit_unquiet(struct pgshare_mock_machine *machine,
                            const struct pgshare_op *ops, size_t n)
{
    struct pgs_mock_pending *list = NULL;
    struct pgs_mock_pending **last = &list;

    if (pgs_mock_chance(machine, machine->options.chaos.refuse))
        return PGSHARE_ERR_BACKEND;
    /* All or none: memory first. */
    for (size_t i = 0; i < n; i++) {
        struct pgs_mock_pending *pending = pending_new(&ops[i]);

        if (!pending) {
            while (list) {
                pending = list->next;
                free(list);
                list = pending;
            }
            return PGSHARE_ERR_NOMEM;
        }
        *last = pending;
        last = &pending->next;
    }
    while (list) {
        struct pgs_mock_pending *pending = list;

        list = pending->next;
        submit_one(machine, pending);
    }
    return 0;
}

/* Takes one that is due out of waiting; a random one, where the order is to
 * change, else the oldest. */
static struct pgs_mock_pending *take_due(struct pgshare_mock_machine *machine,
                                         bool all)
{
    bool shuffle = pgs_mock_chance(machine, machine->options.chaos.reorder);
    struct pgs_mock_pending *chosen = NULL;
    uint32_t seen = 0;

    pthread_mutex_lock(&machine->pending_lock);
    for (struct pgs_mock_pending *pending = machine->pending; pending;
         pending = pending->next) {
        if (pending->at_work || (pending->polls && !all))
            continue;
        /* The list is newest first. */
        if (!shuffle || pgs_mock_random(machine) % ++seen == 0)
            chosen = pending;
    }
    if (chosen)
        chosen->at_work = true;
    pthread_mutex_unlock(&machine->pending_lock);
    return chosen;
}

void pgs_mock_deliver_due(struct pgshare_mock_machine *machine, bool all)
{
    struct pgs_mock_pending *pending;

    if (!atomic_load(&machine->pending_n))
        return;
    pthread_mutex_lock(&machine->pending_lock);
    for (pending = machine->pending; pending; pending = pending->next)
        if (pending->polls)
            pending->polls--;
    pthread_mutex_unlock(&machine->pending_lock);
    while ((pending = take_due(machine, all))) {
        atomic_fetch_sub(&machine->pending_n, 1);
        finish(machine, pending);
    }
}

/* Forgets what waits of one domain, or, with NULL, of all. What was not done
 * is not done any more. */
void pgs_mock_pending_forget(struct pgshare_mock_machine *machine,
                             const void *cookie)
{
    struct pgs_mock_pending **link;

    pthread_mutex_lock(&machine->pending_lock);
    link = &machine->pending;
    while (*link) {
        struct pgs_mock_pending *pending = *link;
        bool matches = !cookie || pending->op.domain == cookie;

        if (matches && pending->at_work) {
            pending->forgotten = true;
        } else if (matches) {
            *link = pending->next;
            free(pending);
            atomic_fetch_sub(&machine->pending_n, 1);
            continue;
        }
        link = &pending->next;
    }
    pthread_mutex_unlock(&machine->pending_lock);
}

/* What guests wait for. */
static uint64_t waiting(struct pgshare_mock_machine *machine)
{
    return atomic_load(&machine->parked) + atomic_load(&machine->dropped_n);
}

uint64_t pgshare_mock_poll(struct pgshare_mock_machine *machine)
{
    if (!machine)
        return 0;
    atomic_fetch_add(&machine->polls, 1);
    atomic_fetch_add(&machine->now, machine->options.poll_ns);
    pgs_mock_deliver_due(machine, false);
    if (machine->sink)
        pgs_mock_zeroed_refill(machine);
    for (uint32_t i = 0; waiting(machine) && i < machine->slots_used; i++)
        if (machine->slots[i]) {
            pgs_mock_dropped_tell(machine->slots[i]);
            pgs_mock_parked_run(machine->slots[i]);
        }
    return atomic_load(&machine->pending_n) + waiting(machine);
}

void pgshare_mock_deliver(struct pgshare_mock_machine *machine)
{
    if (machine)
        pgs_mock_deliver_due(machine, true);
}
