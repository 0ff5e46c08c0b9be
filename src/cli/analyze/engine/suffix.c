/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sorting suffixes by induction (SA-IS: Nong, Zhang, Chan, "Linear Suffix
 * Array Construction by Almost Pure Induced-Sorting", 2009).
 *
 * A suffix is *small* if it is less than the one that follows it, else large. A
 * small one behind a large one is a *valley*; the text between two valleys is a
 * *slope*. If the valleys are known in order, two passes over the array put all
 * other suffixes in order, because each is one symbol before one whose place is
 * known. So the problem is to sort the valleys, and that is the same problem
 * again, for a text of at most half the length, whose symbols are the slopes.
 * The slopes in turn are sorted by the same two passes.
 *
 * Suffixes that begin with one symbol are next to each other, in its *bucket*,
 * large ones first. The end of the text, symbol 0, is a valley.
 */
#include "suffix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct sorter {
    const uint32_t *text; /* [n] */
    uint32_t n;
    uint32_t symbols;
    uint32_t *order;  /* [n] */
    uint32_t *begins; /* [symbols + 1] of buckets, in `order` */
    uint32_t *next;   /* [symbols] where a bucket is filled next */
    bool *small;      /* [n] */
};

static bool is_valley(const struct sorter *s, uint32_t i)
{
    return i > 0 && i < s->n && s->small[i] && !s->small[i - 1];
}

static void classify(struct sorter *s)
{
    const uint32_t *text = s->text;

    s->small[s->n - 1] = true;
    for (uint32_t i = s->n - 1; i-- > 0;)
        s->small[i] = text[i] < text[i + 1] ||
                      (text[i] == text[i + 1] && s->small[i + 1]);
}

static void find_buckets(struct sorter *s)
{
    memset(s->begins, 0, (s->symbols + 1) * sizeof(*s->begins));
    for (uint32_t i = 0; i < s->n; i++)
        s->begins[s->text[i] + 1]++;
    for (uint32_t i = 0; i < s->symbols; i++)
        s->begins[i + 1] += s->begins[i];
}

/* From the front: large suffixes, each from the one that follows it. */
static void induce_large(struct sorter *s)
{
    memcpy(s->next, s->begins, s->symbols * sizeof(*s->next));
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t suffix = s->order[i];

        if (suffix != NONE && suffix > 0 && !s->small[suffix - 1])
            s->order[s->next[s->text[suffix - 1]]++] = suffix - 1;
    }
}

/* From the back: small ones. What valleys there were is overwritten. */
static void induce_small(struct sorter *s)
{
    memcpy(s->next, s->begins + 1, s->symbols * sizeof(*s->next));
    for (uint32_t i = s->n; i-- > 0;) {
        uint32_t suffix = s->order[i];

        if (suffix != NONE && suffix > 0 && s->small[suffix - 1])
            s->order[--s->next[s->text[suffix - 1]]] = suffix - 1;
    }
}

/* The valleys, in the order in which they are given, and then all others. */
static void induce(struct sorter *s, const uint32_t *valleys, uint32_t n)
{
    memset(s->order, 0xff, s->n * sizeof(*s->order));
    memcpy(s->next, s->begins + 1, s->symbols * sizeof(*s->next));
    for (uint32_t i = n; i-- > 0;)
        s->order[--s->next[s->text[valleys[i]]]] = valleys[i];
    induce_large(s);
    induce_small(s);
}

static uint32_t find_valleys(const struct sorter *s, uint32_t *valleys)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i < s->n; i++)
        if (is_valley(s, i))
            valleys[n++] = i;
    return n;
}

/* Are the slopes from these two valleys on equal, next valley included? */
static bool is_equal(const struct sorter *s, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0;; i++) {
        bool end_a = i > 0 && is_valley(s, a + i);
        bool end_b = i > 0 && is_valley(s, b + i);

        if (a + i == s->n || b + i == s->n || end_a != end_b ||
            s->text[a + i] != s->text[b + i])
            return false;
        if (end_a)
            return true;
    }
}

/*
 * Slopes are in order: they get names, the same for equal ones, so that the
 * names are in order, too. Answers how many there are; names[i] is that of the
 * i-th valley of the text. `by_place` [n] is scratch.
 */
static uint32_t name_slopes(const struct sorter *s, uint32_t *by_place,
                            uint32_t n_valleys, uint32_t *names)
{
    uint32_t name = 0;
    uint32_t last = NONE;
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t suffix = s->order[i];

        if (!is_valley(s, suffix))
            continue;
        if (last != NONE && !is_equal(s, last, suffix))
            name++;
        by_place[suffix] = name;
        last = suffix;
    }
    for (uint32_t i = 0; i < s->n; i++)
        if (is_valley(s, i))
            names[n++] = by_place[i];
    assert(n == n_valleys);
    return name + 1;
}

/* The order of the slopes' names is that of the valleys. */
static bool sort_names(const uint32_t *names, uint32_t n, uint32_t n_names,
                       uint32_t *ret_order)
{
    if (n_names < n)
        return suffix_sort(names, n, n_names, ret_order);
    for (uint32_t i = 0; i < n; i++)
        ret_order[names[i]] = i;
    return true;
}

static bool sort(struct sorter *s, uint32_t *valleys, uint32_t *names,
                 uint32_t *scratch)
{
    uint32_t n, n_names;

    classify(s);
    find_buckets(s);
    n = find_valleys(s, valleys);
    induce(s, valleys, n);
    n_names = name_slopes(s, scratch, n, names);
    if (!sort_names(names, n, n_names, scratch))
        return false;
    for (uint32_t i = 0; i < n; i++)
        scratch[i] = valleys[scratch[i]];
    induce(s, scratch, n);
    return true;
}

bool suffix_sort(const uint32_t *text, uint32_t n, uint32_t symbols,
                 uint32_t *ret_order)
{
    struct sorter s = { text, n, symbols, ret_order, NULL, NULL, NULL };
    uint32_t *valleys = calloc(n / 2 + 1, sizeof(*valleys));
    uint32_t *names = calloc(n / 2 + 1, sizeof(*names));
    uint32_t *scratch = calloc(n, sizeof(*scratch));
    bool good;

    s.begins = calloc((size_t)symbols + 1, sizeof(*s.begins));
    s.next = calloc(symbols, sizeof(*s.next));
    s.small = calloc(n, sizeof(*s.small));
    good = valleys && names && scratch && s.begins && s.next && s.small;
    if (good && n == 1)
        ret_order[0] = 0;
    else if (good)
        good = sort(&s, valleys, names, scratch);
    free(valleys);
    free(names);
    free(scratch);
    free(s.begins);
    free(s.next);
    free(s.small);
    return good;
}
