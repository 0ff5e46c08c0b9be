/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The content index costs 64 / (10 · FILL) bytes an entry, and with eight
 * bytes for the page's word it must stay within sixteen. So its buckets have
 * to be nearly full, at any size, and while it grows.
 *
 * Linear hashing adds one bucket at a time, but the buckets that were not yet
 * split hold twice as much as the others: with one place per entry nearly half
 * of all room would be needed as slack. With two places per entry, chosen for
 * the emptier one, the difference evens out, and displacement fills the rest.
 *
 * An entry has no room for a whole fingerprint, and none for the bits that a
 * later split will ask for. Everything is therefore computed from two things
 * that can be read off any stored entry: its tag, and the BASE_SHIFT low bits
 * of its bucket's number, its `root`.
 *
 *      fingerprint → root, tag          31 bits of its hash
 *      other root  = root ^ f(tag)      f(tag) ≠ 0: the way back is the same
 *      address     = root, then bits g(root, tag) above it, as many as needed
 *      bucket      = the address's low level + 1 bits, or level bits where
 *                    that bucket is not there yet
 *
 * A bucket's low bits never change when it is split, since all buckets have at
 * least BASE_SHIFT bits; so each of the two roots leads to one bucket at any
 * size, a split finds the entries' next bit without asking anybody, and
 * displacement finds the other place. The price: two fingerprints that agree
 * in these 31 bits (30, as the two roots are not ordered) are one, whatever
 * the size. With 2^28 pages (1 TiB) every fourth lookup proposes one page in
 * vain.
 */
#include "tables/index.h"

#include "base/mix.h"
#include "tables/gfn.h"

#include <string.h>

#define BASE_SHIFT 12u
#define BASE_BUCKETS (UINT32_C(1) << BASE_SHIFT)
#define BASE_MASK (BASE_BUCKETS - 1)
#define TAG_BITS 19u
#define TAG_MASK ((UINT32_C(1) << TAG_BITS) - 1)

#define BUCKETS_PER_CHUNK_SHIFT 15
/* As many as 2^32 pages may need. */
#define BUCKETS_MAX (UINT64_C(1) << 29)

/*
 * A bucket is added when more than this is full, in 1/1024. At 0.85 an entry
 * costs 7.5 bytes and few adds displace another entry; at 0.90 it costs 7.1
 * bytes, but adding takes three times as long; at 0.92 one in 10^5 is lost.
 */
#define FILL 875u
/* Displacements in a row before an entry is given up. */
#define STEPS_MAX 128u

/* Where one entry may be. `tag` and either root say all. */
struct place {
    uint32_t tag;
    uint32_t root;
};

bool pgs_index_is_valid(const struct pgs_index *index)
{
    uint64_t n = index->n_buckets;

    if (n == 0)
        return index->used == 0;
    return n >> index->level == 1 && index->level >= BASE_SHIFT &&
           n <= atomic_load_explicit(&index->buckets.size,
                                     memory_order_relaxed) &&
           index->used <= n * PGS_BUCKET_ENTRIES &&
           index->n_homeless <= PGS_INDEX_HOMELESS;
}

int pgs_index_init(struct pgs_index *index, struct pgs_heap *heap)
{
    index->n_buckets = 0;
    index->level = BASE_SHIFT;
    index->walk = 0;
    index->swept = 0;
    index->used = 0;
    index->lost = 0;
    index->first_homeless = 0;
    index->n_homeless = 0;
    for (unsigned i = 0; i < PGS_INDEX_HOMELESS; i++)
        index->homeless_tag[i] = PGS_NONE;
    return pgs_slab_init(&index->buckets, heap, sizeof(struct pgs_bucket),
                         BUCKETS_PER_CHUNK_SHIFT, BUCKETS_MAX);
}

void pgs_index_fini(struct pgs_index *index)
{
    pgs_slab_fini(&index->buckets);
    index->n_buckets = 0;
    index->used = 0;
    index->n_homeless = 0;
}

static struct pgs_bucket *bucket_at(const struct pgs_index *index,
                                    uint32_t bucket)
{
    assert(bucket < index->n_buckets);
    return pgs_slab_at(&index->buckets, bucket);
}

/*
 * One multiplication each: fingerprints are hashes with a secret seed, and what
 * is asked for here is only that places differ. The upper bits of the product
 * with an odd constant (the golden ratio's, as Knuth proposes) depend on all
 * bits of what is multiplied.
 */
static struct place first_place(uint64_t fingerprint)
{
    uint32_t hash = (uint32_t)fingerprint * UINT32_C(0x9e3779b1);

    static_assert(BASE_SHIFT + TAG_BITS == 31, "all but the lowest bit");
    return (struct place){
        .tag = hash >> (BASE_SHIFT + 1),
        .root = hash >> 1 & BASE_MASK,
    };
}

static struct place other_place(struct place place)
{
    uint32_t way = (place.tag * UINT32_C(0x85ebca6b) >> (32 - BASE_SHIFT)) | 1;

    assert(way > 0 && way <= BASE_MASK);
    return (struct place){ .tag = place.tag, .root = place.root ^ way };
}

static uint32_t bucket_of(const struct pgs_index *index, struct place place)
{
    uint64_t whole = (uint64_t)place.tag << BASE_SHIFT | place.root;
    uint64_t above = whole * UINT64_C(0x9e3779b97f4a7c15) >> 40;
    uint64_t address = above << BASE_SHIFT | place.root;
    uint64_t low = (UINT64_C(1) << index->level) - 1;
    uint64_t bucket = address & (low << 1 | 1);

    return (uint32_t)(bucket < index->n_buckets ? bucket : bucket & low);
}

static uint32_t tag_of(const struct pgs_bucket *bucket, unsigned i)
{
    return bucket->tag[i] | (bucket->tag_tops >> 3 * i & 7) << 16;
}

static void set_entry(struct pgs_bucket *bucket, unsigned i, uint32_t tag,
                      uint32_t page)
{
    assert(i < PGS_BUCKET_ENTRIES && tag <= TAG_MASK);
    bucket->page[i] = ~page;
    bucket->tag[i] = (uint16_t)tag;
    bucket->tag_tops &= ~(UINT32_C(7) << 3 * i);
    bucket->tag_tops |= tag >> 16 << 3 * i;
}

static void clear_entry(struct pgs_bucket *bucket, unsigned i)
{
    set_entry(bucket, i, 0, PGS_PAGE_NONE);
    assert(bucket->page[i] == 0);
}

/* Has one of four tags, side by side in a word, this value? Bits that are set
 * above the first one that has it may mean nothing. */
static uint64_t find_in_four(const uint16_t *four, uint64_t repeated)
{
    uint64_t tags;

    memcpy(&tags, four, sizeof(tags));
    tags ^= repeated;
    return (tags - UINT64_C(0x0001000100010001)) & ~tags &
           UINT64_C(0x8000800080008000);
}

/* May an entry have that tag? Most buckets have none. */
static bool may_have(const struct pgs_bucket *bucket, uint32_t tag)
{
    uint64_t repeated = (uint16_t)tag * UINT64_C(0x0001000100010001);

    static_assert(PGS_BUCKET_ENTRIES == 10, "4 + 4 + the last 4");
    return (find_in_four(&bucket->tag[0], repeated) |
            find_in_four(&bucket->tag[4], repeated) |
            find_in_four(&bucket->tag[6], repeated)) != 0;
}

/* Bit i: entry i has that tag. */
static uint32_t find_tag(const struct pgs_bucket *bucket, uint32_t tag)
{
    uint32_t found = 0;

    if (!may_have(bucket, tag))
        return 0;
    for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++)
        found |= (uint32_t)(bucket->tag[i] == (uint16_t)tag &&
                            bucket->page[i] != 0 && tag_of(bucket, i) == tag)
                 << i;
    return found;
}

/* Four pages side by side; which of them are 0, as the bits that `bits` has for
 * them. */
typedef uint32_t four __attribute__((vector_size(16)));

static four zeroes_of(const uint32_t *page, four bits)
{
    four pages;

    memcpy(&pages, page, sizeof(pages));
    return (four)(pages == 0) & bits;
}

/* Bit i: entry i is empty. */
static uint32_t find_empty(const struct pgs_bucket *bucket)
{
    const four first = { 1, 2, 4, 8 };
    four empty = zeroes_of(&bucket->page[0], first) |
                 zeroes_of(&bucket->page[4], first << 4) |
                 zeroes_of(&bucket->page[6], first << 6);

    static_assert(PGS_BUCKET_ENTRIES == 10, "4 + 4 + the last 4");
    return empty[0] | empty[1] | empty[2] | empty[3];
}

static unsigned first_of(uint32_t empty)
{
    assert(empty != 0);
    return (unsigned)__builtin_ctz(empty);
}

static bool make_room(struct pgs_index *index, uint64_t n_buckets)
{
    return n_buckets <= atomic_load_explicit(&index->buckets.size,
                                             memory_order_relaxed) ||
           pgs_slab_grow(&index->buckets) == 0;
}

/* Adds a bucket, to which one other's entries move, as their bits say. */
static bool split_one(struct pgs_index *index)
{
    uint32_t from = (uint32_t)(index->n_buckets -
                               (UINT64_C(1) << index->level));
    uint32_t to = (uint32_t)index->n_buckets;
    uint32_t moving = 0;
    struct pgs_bucket *old;
    struct pgs_bucket *new;

    if (!make_room(index, index->n_buckets + 1))
        return false;
    index->n_buckets++;
    old = bucket_at(index, from);
    new = bucket_at(index, to);
    /* which ones move is as good as random: no branch may depend on it */
    for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++) {
        struct place place = { tag_of(old, i), from & BASE_MASK };

        moving |= (uint32_t)(old->page[i] != 0 && bucket_of(index, place) == to)
                  << i;
    }
    for (; moving != 0; moving &= moving - 1) {
        unsigned i = (unsigned)__builtin_ctz(moving);

        set_entry(new, i, tag_of(old, i), ~old->page[i]);
        clear_entry(old, i);
    }
    if (index->n_buckets >> (index->level + 1) != 0)
        index->level++;
    assert(pgs_index_is_valid(index));
    return true;
}

/* Empty buckets need not be split. */
static bool begin(struct pgs_index *index, uint64_t expected)
{
    uint64_t buckets = expected * 1024 / (PGS_BUCKET_ENTRIES * FILL);
    uint64_t most = UINT64_C(1) << BUCKETS_PER_CHUNK_SHIFT;

    if (buckets < BASE_BUCKETS)
        buckets = BASE_BUCKETS;
    else if (buckets > most)
        buckets = most;
    if (!make_room(index, buckets))
        return false;
    index->n_buckets = buckets;
    while (buckets >> (index->level + 1) != 0)
        index->level++;
    return true;
}

void pgs_index_reserve(struct pgs_index *index, uint32_t n, uint64_t expected)
{
    assert(pgs_index_is_valid(index));
    if (index->n_buckets == 0 && !begin(index, expected))
        return;
    while ((index->used + n) * 1024 >
           index->n_buckets * (PGS_BUCKET_ENTRIES * FILL)) {
        if (!split_one(index))
            break;
    }
}

void pgs_index_seek(const struct pgs_index *index, uint64_t fingerprint,
                    struct pgs_seek *ret_seek)
{
    struct place one = first_place(fingerprint);

    *ret_seek = (struct pgs_seek){ .tag = one.tag, .root = one.root };
    if (index->n_buckets == 0)
        return;
    ret_seek->bucket[0] = bucket_at(index, bucket_of(index, one));
    ret_seek->bucket[1] = bucket_at(index, bucket_of(index, other_place(one)));
    __builtin_prefetch(ret_seek->bucket[0], 1);
    __builtin_prefetch(ret_seek->bucket[1], 1);
}

/* ---- displacement ------------------------------------------------------ */

/* `place` is where it is to go. */
static void send_for(struct pgs_index *index, struct place place, uint32_t page,
                     uint32_t steps)
{
    uint32_t i = (index->first_homeless + index->n_homeless) %
                 PGS_INDEX_HOMELESS;

    assert(index->n_homeless < PGS_INDEX_HOMELESS);
    index->homeless[i] = (struct pgs_homeless){ place.root, page, steps };
    index->homeless_tag[i] = place.tag;
    index->n_homeless++;
    __builtin_prefetch(bucket_at(index, bucket_of(index, place)), 1);
}

/* The page takes the place of another one in its full bucket, which is to go
 * to its own second one. */
static void displace(struct pgs_index *index, struct place place, uint32_t page,
                     uint32_t steps)
{
    struct pgs_bucket *bucket = bucket_at(index, bucket_of(index, place));
    unsigned i = (unsigned)((pgs_mix(index->walk++) >> 32) %
                            PGS_BUCKET_ENTRIES);
    struct place next = { tag_of(bucket, i), place.root };
    uint32_t displaced = ~bucket->page[i];

    assert(displaced != PGS_PAGE_NONE);
    set_entry(bucket, i, place.tag, page);
    send_for(index, other_place(next), displaced, steps + 1);
}

/* The one that has waited longest finds room, or displaces another. */
static void settle_one(struct pgs_index *index)
{
    uint32_t first = index->first_homeless;
    struct pgs_homeless entry = index->homeless[first];
    struct place place = { index->homeless_tag[first], entry.root };
    struct pgs_bucket *bucket;
    uint32_t empty;

    index->homeless_tag[first] = PGS_NONE;
    index->first_homeless = (first + 1) % PGS_INDEX_HOMELESS;
    index->n_homeless--;
    if (place.tag == PGS_NONE)
        return;
    bucket = bucket_at(index, bucket_of(index, place));
    empty = find_empty(bucket);
    if (empty) {
        set_entry(bucket, first_of(empty), place.tag, entry.page);
        index->used++;
    } else if (entry.steps == STEPS_MAX) {
        index->lost++;
    } else {
        displace(index, place, entry.page, entry.steps);
    }
}

/* Both its buckets are full. */
static void add_homeless(struct pgs_index *index, struct place place,
                         uint32_t page)
{
    while (index->n_homeless == PGS_INDEX_HOMELESS)
        settle_one(index);
    displace(index, place, page, 0);
}

/* Has any this tag? */
static bool some_homeless(const struct pgs_index *index, uint32_t tag)
{
    uint32_t n = 0;

    if (!index->n_homeless)
        return false;
    for (unsigned i = 0; i < PGS_INDEX_HOMELESS; i++)
        n += index->homeless_tag[i] == tag;
    return n;
}

/* The first place of the ring, from `i` on, with an entry of those sought;
 * PGS_INDEX_HOMELESS: there is none. */
static uint32_t next_homeless(const struct pgs_index *index,
                              const struct pgs_seek *seek, uint32_t i)
{
    struct place place = { seek->tag, seek->root };
    uint32_t other = other_place(place).root;

    if (!some_homeless(index, seek->tag))
        return PGS_INDEX_HOMELESS;
    for (; i < PGS_INDEX_HOMELESS; i++)
        if (index->homeless_tag[i] == seek->tag &&
            (index->homeless[i].root == seek->root ||
             index->homeless[i].root == other))
            break;
    return i;
}

/* ------------------------------------------------------------------------ */

void pgs_index_add(struct pgs_index *index, const struct pgs_seek *seek,
                   uint32_t page, bool alone)
{
    struct pgs_bucket *a = seek->bucket[0];
    struct pgs_bucket *b = seek->bucket[1];
    uint32_t room_a;
    uint32_t room_b;

    assert(pgs_index_is_valid(index));
    assert(page != PGS_PAGE_NONE);
    if (!a) {
        index->lost++;
        return;
    }
    if (!alone && __builtin_popcount(find_tag(a, seek->tag)) +
                          __builtin_popcount(find_tag(b, seek->tag)) >=
                      (int)PGS_INDEX_REPEATS)
        return;
    room_a = find_empty(a);
    room_b = find_empty(b);
    if (!(room_a | room_b)) {
        add_homeless(index, (struct place){ seek->tag, seek->root }, page);
        return;
    }
    if (__builtin_popcount(room_b) > __builtin_popcount(room_a)) {
        a = b;
        room_a = room_b;
    }
    set_entry(a, first_of(room_a), seek->tag, page);
    index->used++;
    assert(pgs_index_is_valid(index));
}

static bool remove_from(struct pgs_bucket *bucket, uint32_t tag, uint32_t page)
{
    uint32_t found = find_tag(bucket, tag);

    for (; found != 0; found &= found - 1) {
        unsigned i = (unsigned)__builtin_ctz(found);

        if (bucket->page[i] == ~page) {
            clear_entry(bucket, i);
            return true;
        }
    }
    return false;
}

void pgs_index_remove(struct pgs_index *index, const struct pgs_seek *seek,
                      uint32_t page)
{
    assert(pgs_index_is_valid(index));
    if (!seek->bucket[0])
        return;
    if (remove_from(seek->bucket[0], seek->tag, page) ||
        remove_from(seek->bucket[1], seek->tag, page)) {
        assert(index->used > 0);
        index->used--;
        return;
    }
    for (uint32_t i = next_homeless(index, seek, 0); i < PGS_INDEX_HOMELESS;
         i = next_homeless(index, seek, i + 1)) {
        if (index->homeless[i].page != page)
            continue;
        index->homeless_tag[i] = PGS_NONE;
        return;
    }
}

bool pgs_index_next(const struct pgs_index *index, const struct pgs_seek *seek,
                    uint32_t *cursor, uint32_t *ret_page)
{
    const uint32_t end = 2 * PGS_BUCKET_ENTRIES;
    uint32_t i;

    assert(*cursor <= end + PGS_INDEX_HOMELESS);
    if (!seek->bucket[0])
        return false;
    for (uint32_t which = *cursor / PGS_BUCKET_ENTRIES; which < 2; which++) {
        uint32_t base = which * PGS_BUCKET_ENTRIES;
        uint32_t from = *cursor > base ? *cursor - base : 0;
        const struct pgs_bucket *bucket = seek->bucket[which];
        uint32_t found = find_tag(bucket, seek->tag) >> from << from;

        if (found != 0) {
            from = (uint32_t)__builtin_ctz(found);
            *ret_page = ~bucket->page[from];
            *cursor = base + from + 1;
            return true;
        }
    }
    i = next_homeless(index, seek, *cursor > end ? *cursor - end : 0);
    if (i == PGS_INDEX_HOMELESS) {
        *cursor = end + i;
        return false;
    }
    *ret_page = index->homeless[i].page;
    *cursor = end + i + 1;
    return true;
}

/* Is an entry with this tag in a bucket of this root one of the fingerprint's? */
static bool is_of(uint64_t fingerprint, uint32_t tag, uint32_t root)
{
    struct place one = first_place(fingerprint);

    return one.tag == tag &&
           (one.root == root || other_place(one).root == root);
}

bool pgs_index_is_of(const struct pgs_seek *seek, uint64_t fingerprint)
{
    return is_of(fingerprint, seek->tag, seek->root);
}

void pgs_index_sweep(struct pgs_index *index, uint32_t n,
                     bool (*look)(void *ctx, uint32_t page,
                                  uint64_t *ret_fingerprint),
                     void *ctx)
{
    for (; n > 0 && index->n_buckets > 0; n--) {
        uint32_t at = index->swept < index->n_buckets ? index->swept : 0;
        struct pgs_bucket *bucket = bucket_at(index, at);

        index->swept = at + 1;
        for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++) {
            uint64_t fingerprint;

            if (bucket->page[i] == 0 ||
                (look(ctx, ~bucket->page[i], &fingerprint) &&
                 is_of(fingerprint, tag_of(bucket, i), at & BASE_MASK)))
                continue;
            clear_entry(bucket, i);
            index->used--;
        }
    }
    assert(pgs_index_is_valid(index));
}
