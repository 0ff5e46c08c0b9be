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

#define BASE_SHIFT 12u
#define BASE_BUCKETS (UINT32_C(1) << BASE_SHIFT)
#define BASE_MASK (BASE_BUCKETS - 1)
#define TAG_BITS 19u
#define TAG_MASK ((UINT32_C(1) << TAG_BITS) - 1)

#define BUCKETS_PER_CHUNK_SHIFT 14
/* As many as 2^32 pages may need. */
#define BUCKETS_MAX (UINT64_C(1) << 29)

/*
 * A bucket is added when more than this is full, in 1/1024. At 0.90 an entry
 * costs 7.1 bytes and none is lost in millions; at 0.92 one in 10^5 is, and
 * above that adding gets slow before it gets much denser.
 */
#define FILL 922u
/* Displacements before an entry is given up: each reads one cache line. */
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
           index->used <= n * PGS_BUCKET_ENTRIES;
}

int pgs_index_init(struct pgs_index *index, struct pgs_heap *heap)
{
    index->n_buckets = 0;
    index->level = BASE_SHIFT;
    index->walk = 0;
    index->used = 0;
    index->lost = 0;
    return pgs_slab_init(&index->buckets, heap, sizeof(struct pgs_bucket),
                         BUCKETS_PER_CHUNK_SHIFT, BUCKETS_MAX);
}

void pgs_index_fini(struct pgs_index *index)
{
    pgs_slab_fini(&index->buckets);
    index->n_buckets = 0;
    index->used = 0;
}

static struct pgs_bucket *bucket_at(const struct pgs_index *index,
                                    uint32_t bucket)
{
    assert(bucket < index->n_buckets);
    return pgs_slab_at(&index->buckets, bucket);
}

static struct place first_place(uint64_t fingerprint)
{
    uint64_t hash = pgs_mix((uint32_t)fingerprint);

    return (struct place){
        .tag = (uint32_t)(hash >> BASE_SHIFT) & TAG_MASK,
        .root = (uint32_t)hash & BASE_MASK,
    };
}

static struct place other_place(struct place place)
{
    uint32_t way = (uint32_t)(pgs_mix(place.tag) >> 32) % BASE_MASK + 1;

    assert(way > 0 && way <= BASE_MASK);
    return (struct place){ .tag = place.tag, .root = place.root ^ way };
}

static uint32_t bucket_of(const struct pgs_index *index, struct place place)
{
    uint64_t above = pgs_mix((uint64_t)place.tag << 32 | place.root);
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

/* The entry of that tag from `i` on, or PGS_BUCKET_ENTRIES. */
static unsigned find_tag(const struct pgs_bucket *bucket, uint32_t tag,
                         unsigned i)
{
    for (; i < PGS_BUCKET_ENTRIES; i++) {
        if (bucket->tag[i] == (uint16_t)tag && bucket->page[i] != 0 &&
            tag_of(bucket, i) == tag)
            break;
    }
    return i;
}

static unsigned count_tag(const struct pgs_bucket *bucket, uint32_t tag)
{
    unsigned n = 0;

    for (unsigned i = find_tag(bucket, tag, 0); i < PGS_BUCKET_ENTRIES;
         i = find_tag(bucket, tag, i + 1))
        n++;
    return n;
}

static unsigned count_empty(const struct pgs_bucket *bucket)
{
    unsigned n = 0;

    for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++)
        n += bucket->page[i] == 0;
    return n;
}

/* There is room. */
static void put_entry(struct pgs_bucket *bucket, uint32_t tag, uint32_t page)
{
    unsigned i = 0;

    while (bucket->page[i] != 0)
        i++;
    set_entry(bucket, i, tag, page);
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
    uint32_t from = (uint32_t)(index->n_buckets - (UINT64_C(1) <<
                                                   index->level));
    uint32_t to = (uint32_t)index->n_buckets;
    struct pgs_bucket *old;
    struct pgs_bucket *new;

    if (!make_room(index, index->n_buckets + 1))
        return false;
    index->n_buckets++;
    old = bucket_at(index, from);
    new = bucket_at(index, to);
    for (unsigned i = 0; i < PGS_BUCKET_ENTRIES; i++) {
        struct place place = { tag_of(old, i), from & BASE_MASK };

        if (old->page[i] == 0 || bucket_of(index, place) == from)
            continue;
        assert(bucket_of(index, place) == to);
        set_entry(new, i, place.tag, ~old->page[i]);
        clear_entry(old, i);
    }
    if (index->n_buckets >> (index->level + 1) != 0)
        index->level++;
    assert(pgs_index_is_valid(index));
    return true;
}

/* Room for one more, if it can be had. False: there is no table at all. */
static bool grow(struct pgs_index *index)
{
    if (index->n_buckets == 0) {
        if (!make_room(index, BASE_BUCKETS))
            return false;
        index->n_buckets = BASE_BUCKETS;
        index->level = BASE_SHIFT;
    }
    while (index->used * 1024 >=
           index->n_buckets * (PGS_BUCKET_ENTRIES * FILL)) {
        if (!split_one(index))
            break;
    }
    return true;
}

/*
 * Both buckets are full: the entry takes the place of another, which goes to
 * its own second bucket, and so on. The last in hand is lost.
 */
static void displace(struct pgs_index *index, struct place place,
                     uint32_t page)
{
    for (unsigned step = 0; step < STEPS_MAX; step++) {
        struct pgs_bucket *bucket = bucket_at(index, bucket_of(index, place));
        unsigned i = (unsigned)((pgs_mix(index->walk++) >> 32) %
                                PGS_BUCKET_ENTRIES);
        struct place next = { tag_of(bucket, i), place.root };
        uint32_t displaced = ~bucket->page[i];

        assert(displaced != PGS_PAGE_NONE);
        set_entry(bucket, i, place.tag, page);
        place = other_place(next);
        page = displaced;
        bucket = bucket_at(index, bucket_of(index, place));
        if (count_empty(bucket) > 0) {
            put_entry(bucket, place.tag, page);
            index->used++;
            return;
        }
    }
    index->lost++;
}

void pgs_index_add(struct pgs_index *index, uint64_t fingerprint,
                   uint32_t page)
{
    struct place one = first_place(fingerprint);
    struct place two = other_place(one);
    struct pgs_bucket *a;
    struct pgs_bucket *b;
    unsigned room_a;
    unsigned room_b;

    assert(pgs_index_is_valid(index));
    assert(page != PGS_PAGE_NONE);
    if (!grow(index)) {
        index->lost++;
        return;
    }
    a = bucket_at(index, bucket_of(index, one));
    b = bucket_at(index, bucket_of(index, two));
    if (count_tag(a, one.tag) + count_tag(b, one.tag) >= PGS_INDEX_REPEATS)
        return;
    room_a = count_empty(a);
    room_b = count_empty(b);
    if (room_a == 0 && room_b == 0) {
        displace(index, one, page);
    } else {
        put_entry(room_a >= room_b ? a : b, one.tag, page);
        index->used++;
    }
    assert(pgs_index_is_valid(index));
}

static bool remove_from(struct pgs_bucket *bucket, uint32_t tag, uint32_t page)
{
    for (unsigned i = find_tag(bucket, tag, 0); i < PGS_BUCKET_ENTRIES;
         i = find_tag(bucket, tag, i + 1)) {
        if (bucket->page[i] == ~page) {
            clear_entry(bucket, i);
            return true;
        }
    }
    return false;
}

void pgs_index_remove(struct pgs_index *index, uint64_t fingerprint,
                      uint32_t page)
{
    struct place one = first_place(fingerprint);
    struct place two = other_place(one);

    assert(pgs_index_is_valid(index));
    if (index->n_buckets == 0)
        return;
    if (remove_from(bucket_at(index, bucket_of(index, one)), one.tag, page) ||
        remove_from(bucket_at(index, bucket_of(index, two)), two.tag, page)) {
        assert(index->used > 0);
        index->used--;
    }
}

bool pgs_index_next(const struct pgs_index *index, uint64_t fingerprint,
                    uint32_t *cursor, uint32_t *ret_page)
{
    struct place place = first_place(fingerprint);
    unsigned from = *cursor;

    assert(from <= 2 * PGS_BUCKET_ENTRIES);
    if (index->n_buckets == 0)
        return false;
    for (unsigned base = 0; base < 2 * PGS_BUCKET_ENTRIES;
         base += PGS_BUCKET_ENTRIES, place = other_place(place)) {
        const struct pgs_bucket *bucket;
        unsigned i;

        if (from >= base + PGS_BUCKET_ENTRIES)
            continue;
        bucket = bucket_at(index, bucket_of(index, place));
        i = find_tag(bucket, place.tag, from > base ? from - base : 0);
        if (i < PGS_BUCKET_ENTRIES) {
            *ret_page = ~bucket->page[i];
            *cursor = base + i + 1;
            return true;
        }
    }
    *cursor = 2 * PGS_BUCKET_ENTRIES;
    return false;
}
