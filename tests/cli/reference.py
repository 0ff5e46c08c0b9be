"""How much could be shared, counted as the definitions have it.

Slowly, from SHA-256 sums, with nothing in common with the program. An image is
a dict from GFN to content, which is None for zero, and anything else that can
be compared for other contents.
"""

import hashlib

ORDERS = range(10)


def content_of(page):
    """Of a page's bytes."""
    return hashlib.sha256(page).digest() if any(page) else None


def raw_image(data, page_size=4096):
    return {gfn: content_of(data[gfn * page_size:(gfn + 1) * page_size])
            for gfn in range(len(data) // page_size)}


def order_figures(images, groups, order):
    size = 1 << order
    blocks, distinct = 0, set()
    for image, group in zip(images, groups):
        for number in {gfn >> order for gfn in image}:
            gfns = range(number << order, (number + 1) << order)
            if not all(gfn in image for gfn in gfns):
                continue
            block = tuple(image[gfn] for gfn in gfns)
            blocks += 1
            distinct.add((group if any(block) else None, block))
    return {"order": order, "blocks": blocks, "distinct_blocks": len(distinct),
            "reclaimable_pages": (blocks - len(distinct)) << order}


def match_length(images, here, there):
    """Pages that match from (image, GFN) `here` and `there` on."""
    (i, a), (j, b) = here, there
    n = 0
    while (images[i].get(a + n) is not None
           and images[i][a + n] == images[j].get(b + n)):
        n += 1
    return n


def extent_lengths(images, groups):
    """From the lowest GFN, the longest match, over and over again."""
    lengths = []
    earlier = []
    for i, image in enumerate(images):
        skip = None
        for gfn in sorted(image):
            if skip is None or gfn >= skip:
                length = max((match_length(images, (i, gfn), there)
                              for there in earlier
                              if groups[there[0]] == groups[i]), default=0)
                if length:
                    lengths.append(length)
                    skip = gfn + length
            earlier.append((i, gfn))
    return lengths


def extent_lengths_quickly(images, groups):
    """The same by a suffix automaton, for images of real size.

    After all has been added, each state knows where its texts end first; a
    match is found by walking on while that is before where we are.
    """
    following, link, length, first_end = [{}], [-1], [0], [-1]

    def extend(last, symbol, position):
        state = len(following)
        following.append({})
        length.append(length[last] + 1)
        first_end.append(position)
        link.append(0)
        while last >= 0 and symbol not in following[last]:
            following[last][symbol] = state
            last = link[last]
        if last < 0:
            return state
        other = following[last][symbol]
        if length[other] == length[last] + 1:
            link[state] = other
            return state
        clone = len(following)
        following.append(dict(following[other]))
        length.append(length[last] + 1)
        first_end.append(first_end[other])
        link.append(link[other])
        link[state] = link[other] = clone
        while last >= 0 and following[last].get(symbol) == other:
            following[last][symbol] = clone
            last = link[last]
        return state

    text = []
    for image, group in zip(images, groups):
        expected = None
        for gfn in sorted(image):
            if gfn != expected:
                text.append(None)
            content = image[gfn]
            text.append(None if content is None else (group, content))
            expected = gfn + 1
        text.append(None)

    last = 0
    for position, symbol in enumerate(text):
        if symbol is None:  # nothing goes on from here
            last = 0
        elif symbol in following[last]:  # after such an end it may be
            other = following[last][symbol]
            if length[other] == length[last] + 1:
                last = other
                continue
            clone = len(following)
            following.append(dict(following[other]))
            length.append(length[last] + 1)
            first_end.append(first_end[other])
            link.append(link[other])
            link[other] = clone
            at = last
            while at >= 0 and following[at].get(symbol) == other:
                following[at][symbol] = clone
                at = link[at]
            last = clone
        else:
            last = extend(last, symbol, position)

    lengths, start = [], 0
    while start < len(text):
        state, end = 0, start
        while end < len(text) and text[end] is not None:
            state = following[state][text[end]]
            if first_end[state] >= end:
                break
            end += 1
        if end > start:
            lengths.append(end - start)
        start = max(end, start + 1)
    return lengths


def histogram(lengths):
    buckets = []
    for length in lengths:
        while len(buckets) < length.bit_length():
            low = 1 << len(buckets)
            buckets.append({"length": low, "length_max": 2 * low - 1,
                            "count": 0, "pages": 0})
        buckets[length.bit_length() - 1]["count"] += 1
        buckets[length.bit_length() - 1]["pages"] += length
    return buckets


def count(images, groups=None, quickly=False):
    """What --json has at its top level for these images."""
    groups = groups or [0] * len(images)
    lengths = extent_lengths_quickly if quickly else extent_lengths
    pages = sorted((content or b"", str(groups[i]) if content else "", i)
                   for i, image in enumerate(images)
                   for content in image.values())
    contents = {}
    for content, group, i in pages:
        contents.setdefault((content, group), []).append(i)
    zero = len(contents.get((b"", ""), []))
    holders = [found for (content, _), found in contents.items() if content]
    return {
        "pages": len(pages),
        "zero_pages": zero,
        "distinct_pages": len(contents),
        "reclaimable_pages": len(pages) - len(contents),
        "reclaimable_zero": max(zero - 1, 0),
        "reclaimable_intra": sum(len(i) - len(set(i)) for i in holders),
        "reclaimable_inter": sum(len(set(i)) - 1 for i in holders),
        "orders": [order_figures(images, groups, order) for order in ORDERS],
        "extents": histogram(lengths(images, groups)),
    }
