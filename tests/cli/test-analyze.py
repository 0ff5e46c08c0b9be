#!/usr/bin/env python3
"""`pgshare analyze` against a slow count, and with all that images may be.

usage: test-analyze.py PROGRAM [TEST...]
"""

import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import elfdump
import reference
from program import (OK, PROGRAM, WRONG, Skip, is_sanitized, little_memory,
                     main, on_terminal, refused, run)

PAGE = 4096
SEED = int(os.environ.get("PGS_TEST_SEED") or random.getrandbits(32))
SCALE = int(os.environ.get("PGS_TEST_SCALE") or 1)


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


def figures_of(*args, **options):
    """The figures as JSON, without what is told of names and time."""
    result = run("analyze", "--json", *args, **options)
    assert result.returncode == OK and not result.stderr, result
    figures = json.loads(result.stdout)
    assert figures.pop("wall")["seconds"] >= 0
    for image in figures["images"]:
        del image["name"]
    return figures


def expected(images, groups=None, form="raw", page_size=PAGE, quickly=False):
    forms = [form] * len(images) if isinstance(form, str) else form
    figures = reference.count(images, groups, quickly)
    figures["page_size"] = page_size
    figures["images"] = [
        reference.count([image], quickly=quickly) | {"format": form}
        for image, form in zip(images, forms)]
    for image, group in zip(figures["images"], groups or []):
        image["group"] = group
    return figures


def same(found, wanted, what=""):
    for name in wanted:
        assert found[name] == wanted[name], (
            f"{what} (seed {SEED}): {name} is {found[name]}, "
            f"not {wanted[name]}")
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()


# Images made up of few contents, so that much is equal


def some_page(content, page_size=PAGE):
    """The page of a number; some differ in their last byte only."""
    if content == 0:
        return bytes(page_size)
    if content % 3 == 0:
        return bytes(page_size - 2) + struct.pack(">H", content)
    return (content.to_bytes(4, "little") * (page_size // 4))


def some_contents(rng, n):
    """Numbers with repetitions, long and short, and periods."""
    contents = []
    kinds = rng.choice((2, 3, 6, 40, 1000))
    while len(contents) < n:
        length = rng.choice((1, 1, 2, 3, 7, 16, 33))
        way = rng.randrange(5)
        if way == 0 and contents:
            start = rng.randrange(len(contents))
            contents += contents[start:start + length]
        elif way == 1:
            contents += [rng.randrange(kinds)] * length
        elif way == 2:
            contents += [rng.randrange(kinds), rng.randrange(kinds)] * length
        elif way == 3:
            contents += [0] * length
        else:
            contents += [rng.randrange(kinds) for _ in range(length)]
    return contents[:n]


def write_raw(path, contents, rng=None, page_size=PAGE):
    """Zero pages are holes, or, with `rng`, some of them are."""
    with open(path, "wb") as image:
        for number, content in enumerate(contents):
            if content or (rng and rng.random() < 0.5):
                image.seek(number * page_size)
                image.write(some_page(content, page_size))
        image.truncate(len(contents) * page_size)
    return path


def image_of(contents, first=0):
    return {first + i: content or None for i, content in enumerate(contents)}


def numbers(image):
    """Contents that the reference can sort."""
    return {gfn: content and content.to_bytes(4, "big")
            for gfn, content in image.items()}


def images_of(*lists):
    return [numbers(image_of(contents)) for contents in lists]


def joined(contents, page_size=PAGE):
    return b"".join(some_page(content, page_size) for content in contents)


def pack(path, *options):
    if not shutil.which("zstd"):
        raise Skip("there is no zstd to pack images with")
    target = path.with_name(path.name + ".zst")
    subprocess.run(["zstd", "-q", "-f", *options, str(path), "-o",
                    str(target)], check=True)
    return target


# Definitions


def test_one_page():
    with folder() as f:
        for content in 0, 1:
            path = write_raw(f / "one", [content])
            same(figures_of(path), expected(images_of([content])))


def test_zero():
    """Holes, zeroes, and images of nothing else."""
    with folder() as f:
        a = write_raw(f / "a", [0] * 1500)
        b = f / "b"
        b.write_bytes(bytes(700 * PAGE))
        figures = figures_of(a, b)
        same(figures, expected(images_of([0] * 1500, [0] * 700)))
        assert figures["reclaimable_zero"] == 2199
        assert not figures["extents"]
        figures = figures_of(a)
        assert figures["distinct_pages"] == 1, figures
        assert figures["orders"][9]["distinct_blocks"] == 1, figures


def test_by_hand():
    """What the definitions say, worked out on paper."""
    with folder() as f:
        a = write_raw(f / "a", [1, 2, 3, 0, 1, 2, 4, 0])
        b = write_raw(f / "b", [0, 1, 2, 3, 5, 5])
        figures = figures_of(a, b)
        assert figures["pages"] == 14 and figures["zero_pages"] == 3
        assert figures["distinct_pages"] == 6
        assert figures["reclaimable_zero"] == 2
        assert figures["reclaimable_intra"] == 3  # 1, 2; 5
        assert figures["reclaimable_inter"] == 3  # 1, 2, 3
        assert figures["orders"][1] == {
            "order": 1, "blocks": 7, "distinct_blocks": 6,
            "reclaimable_pages": 2}
        assert figures["extents"] == [
            {"length": 1, "length_max": 1, "count": 1, "pages": 1},   # 5
            {"length": 2, "length_max": 3, "count": 2, "pages": 5}]
        assert figures["images"][0]["reclaimable_inter"] == 0


def test_overlapping_match():
    """n equal pages are one first page and one extent that overlaps it."""
    with folder() as f:
        path = write_raw(f / "a", [7] * 100)
        assert figures_of(path)["extents"][6] == {
            "length": 64, "length_max": 127, "count": 1, "pages": 99}


def test_random_images():
    rng = random.Random(SEED)
    with folder() as f:
        for round_ in range(30 * SCALE):
            lists = [some_contents(rng, rng.choice((1, 5, 60, 200)))
                     for _ in range(rng.randint(1, 4))]
            paths = [write_raw(f / str(i), contents, rng)
                     for i, contents in enumerate(lists)]
            found = figures_of(*paths, "--threads", rng.choice((1, 2, 5)))
            same(found, expected(images_of(*lists)), f"round {round_}")


def test_long_images():
    """Beyond a chunk of the program's, so with another way to count extents."""
    rng = random.Random(SEED + 1)
    with folder() as f:
        for round_ in range(2 * SCALE):
            lists = [some_contents(rng, rng.choice((4096, 4097, 8191, 9000)))
                     for _ in range(2)]
            lists.append([0] * 5000 + lists[0][100:4000] + [0] * 9000)
            paths = [write_raw(f / str(i), contents, rng)
                     for i, contents in enumerate(lists)]
            same(figures_of(*paths),
                 expected(images_of(*lists), quickly=True), f"round {round_}")


def test_reference():
    """The two ways in which the reference counts extents are one."""
    rng = random.Random(SEED + 2)
    for _ in range(100 * SCALE):
        images = images_of(*[some_contents(rng, rng.randint(1, 60))
                             for _ in range(rng.randint(1, 3))])
        groups = [rng.randrange(2) for _ in images]
        assert (reference.extent_lengths(images, groups)
                == reference.extent_lengths_quickly(images, groups)), images


def test_groups():
    rng = random.Random(SEED + 3)
    with folder() as f:
        for round_ in range(12 * SCALE):
            lists = [some_contents(rng, rng.choice((5, 600)))
                     for _ in range(rng.randint(1, 5))]
            groups = [rng.choice(("red", "green", "b")) for _ in lists]
            paths = [write_raw(f / str(i), contents)
                     for i, contents in enumerate(lists)]
            same(figures_of("--groups", ",".join(groups), *paths),
                 expected(images_of(*lists), groups, quickly=True),
                 f"round {round_}: {groups}")


def test_page_sizes():
    rng = random.Random(SEED + 4)
    data = joined(some_contents(rng, 1024))
    with folder() as f:
        path = f / "a"
        path.write_bytes(data)
        for text, size in (("512", 512), ("1K", 1024), ("8192", 8192),
                           ("16K", 16384), ("2M", 2 << 20), ("4m", 4 << 20)):
            image = reference.raw_image(data, size)
            same(figures_of("--page-size", text, path),
                 expected([image], page_size=size, quickly=True), text)


def test_order_of_images():
    """Which image comes first makes no difference but to extents."""
    rng = random.Random(SEED + 5)
    with folder() as f:
        paths = [write_raw(f / str(i), some_contents(rng, 600))
                 for i in range(3)]
        first = figures_of(*paths)
        second = figures_of(*reversed(paths))
        assert first["images"] == second["images"][::-1]
        for figures in first, second:
            del figures["images"], figures["extents"]
        assert first == second


def test_image_twice():
    with folder() as f:
        path = write_raw(f / "a", list(range(1, 301)))
        figures = figures_of(path, path)
        assert figures["reclaimable_inter"] == 300
        assert [bucket["count"] for bucket in figures["extents"]] == [0] * 8 + [1]


# Sparse files


def test_holes_are_not_read():
    """A tebibyte of holes takes no time and no memory."""
    with folder() as f:
        path = f / "huge"
        with open(path, "wb") as image:
            image.truncate(1 << 40)
            for place in 0, 5, 1 << 27, (1 << 28) - 1:
                image.seek(place * PAGE)
                image.write(some_page(4))
        start = time.monotonic()
        figures = figures_of(path)
        assert time.monotonic() - start < 60
        assert figures["pages"] == 1 << 28
        assert figures["zero_pages"] == (1 << 28) - 4
        assert figures["reclaimable_intra"] == 3
        assert figures["orders"][9]["blocks"] == 1 << 19
        assert figures["orders"][9]["distinct_blocks"] == 4


def test_pages_that_are_partly_holes():
    with folder() as f:
        path = f / "a"
        with open(path, "wb") as image:
            image.truncate(64 << 16)
            image.seek((3 << 16) + PAGE)
            image.write(b"x" * PAGE)
            image.seek((9 << 16) + 7 * PAGE)
            image.write(b"x")
        data = path.read_bytes()
        same(figures_of("--page-size", "64K", path),
             expected([reference.raw_image(data, 1 << 16)], page_size=1 << 16))


# ELF cores


def some_ranges(rng, wide):
    """[(first GFN, contents)], apart from each other, or not at all."""
    ranges = []
    gfn = rng.choice((0, 1, 100, 511)) + (1 << 28 if wide and
                                          rng.random() < 0.3 else 0)
    for _ in range(rng.randint(1, 6)):
        contents = some_contents(rng, rng.choice((1, 2, 9, 64, 300)))
        ranges.append((gfn, contents))
        gfn += len(contents) + rng.choice((0, 0, 1, 3, 511, 512, 5000))
    return ranges


def test_elf():
    rng = random.Random(SEED + 6)
    with folder() as f:
        for round_ in range(24 * SCALE):
            wide, little = rng.random() < 0.7, rng.random() < 0.7
            dumps, images = [], []
            for i in range(rng.randint(1, 3)):
                ranges = some_ranges(rng, wide)
                images.append(numbers({
                    gfn: content for first, contents in ranges
                    for gfn, content in image_of(contents, first).items()}))
                rng.shuffle(ranges)
                dumps.append(f / str(i))
                dumps[-1].write_bytes(elfdump.dump(
                    [(first * PAGE, joined(contents))
                     for first, contents in ranges],
                    wide, little, rng.shuffle, b"note" * rng.randrange(9),
                    rng.choice((0, 0, 7, 4096))))
            wanted = expected(images, form="elf", quickly=True)
            same(figures_of(*dumps), wanted, f"round {round_}")
            with open(dumps[0], "rb") as stdin:  # a pipe: front to end
                feed = subprocess.Popen(["cat"], stdin=stdin,
                                        stdout=subprocess.PIPE)
                same(figures_of("-", *dumps[1:], stdin=feed.stdout), wanted,
                     f"round {round_}, as a pipe")
                feed.stdout.close()
                feed.wait()


def test_elf_gaps_end_blocks():
    with folder() as f:
        path = f / "a"
        path.write_bytes(elfdump.dump([(0, joined([1] * 3)),
                                       (4 * PAGE, joined([1] * 3))]))
        figures = figures_of(path)
        assert figures["orders"][1] == {
            "order": 1, "blocks": 2, "distinct_blocks": 1,
            "reclaimable_pages": 2}, figures["orders"]
        assert figures["orders"][2]["blocks"] == 0
        assert figures["extents"] == [
            {"length": 1, "length_max": 1, "count": 0, "pages": 0},
            {"length": 2, "length_max": 3, "count": 2, "pages": 5}]


def test_elf_beside_raw():
    with folder() as f:
        dump = f / "dump"
        dump.write_bytes(elfdump.dump([(0, joined([1, 2])),
                                       (9 * PAGE, joined([3, 1, 2]))]))
        raw = write_raw(f / "raw", [3, 1, 2, 0])
        images = [numbers({0: 1, 1: 2, 9: 3, 10: 1, 11: 2}),
                  numbers(image_of([3, 1, 2, 0]))]
        same(figures_of(dump, raw), expected(images, form=("elf", "raw")))


def elf_file(path, segments, body=b"", **options):
    path.write_bytes(elfdump.Elf().head(segments, **options) + body)
    return path


def test_elf_aliases():
    """With paging, the same memory is there once for each mapping."""
    elf, body = elfdump.Elf(), joined([1, 2, 3, 4])
    base = elf.sized(4)
    segments = [(elfdump.PT_LOAD, base + at * PAGE, (16 + at) * PAGE, n * PAGE,
                 n * PAGE) for at, n in ((1, 2), (0, 3), (2, 2), (1, 2))]
    with folder() as f:
        same(figures_of(elf_file(f / "a", segments, body)),
             expected([numbers(image_of([1, 2, 3, 4], 16))], form="elf"))


def test_elf_memory_that_was_not_dumped():
    base = elfdump.Elf().sized(2)
    segments = [(elfdump.PT_LOAD, base, 0, 2 * PAGE, 5 * PAGE),
                (elfdump.PT_LOAD, 0, 1 << 40, 0, 1 << 40)]
    with folder() as f:
        same(figures_of(elf_file(f / "a", segments, joined([1, 1]))),
             expected([numbers(image_of([1, 1]))], form="elf"))


def test_elf_many_segments():
    """More than the ELF header can count."""
    n = elfdump.PN_XNUM + 10
    base = elfdump.Elf().sized(n)
    segments = [(elfdump.PT_LOAD, base + i % 7 * PAGE, 2 * i * PAGE, PAGE, PAGE)
                for i in range(n)]
    with folder() as f:
        figures = figures_of(elf_file(f / "a", segments,
                                      joined([0, 1, 2, 3, 4, 5, 6])))
        assert figures["pages"] == n and figures["distinct_pages"] == 7
        assert figures["orders"][1]["blocks"] == 0


def test_elf_damaged():
    base = elfdump.Elf().sized(1)
    load = elfdump.PT_LOAD
    with folder() as f:
        path = f / "damaged"
        for segments, body, options, reason in (
                ([(load, base, 0, 2 * PAGE, 2 * PAGE)], bytes(PAGE), {},
                 "truncated"),
                ([(load, base, 0, 1 << 63, 0)], bytes(PAGE), {}, "damaged"),
                ([(load, 1 << 62, 0, PAGE, 0)], bytes(PAGE), {}, "truncated"),
                ([(load, base, (1 << 64) - PAGE, 2 * PAGE, 0)], bytes(PAGE),
                 {}, "damaged"),
                ([(load, base, 0, PAGE + 1, 0)], bytes(2 * PAGE), {},
                 "multiple"),
                ([(load, base, 100, PAGE, 0)], bytes(PAGE), {}, "multiple"),
                ([(load, base, 0, 0, PAGE)], b"", {}, "no memory"),
                ([(elfdump.PT_NOTE, base, 0, PAGE, 0)], bytes(PAGE), {},
                 "no memory"),
                ([], bytes(PAGE), {}, "no memory"),
                ([(load, base, 0, PAGE, 0)], bytes(PAGE),
                 {"program_size": 8}, "damaged"),
                ([(load, base, 0, 2 * PAGE, 0),
                  (load, base + PAGE, 0, PAGE, 0)], bytes(4 * PAGE), {},
                 "overlap")):
            wrong(elf_file(path, segments, body, **options), reason=reason)
        whole = elfdump.dump([(0, joined([1, 2, 3]))])
        for n in range(64, len(whole), 997):
            path.write_bytes(whole[:n])
            wrong(path, reason="truncated")
            if n % 4 == 0:
                wrong("-", input=whole[:n], reason="truncated")


def test_elf_hostile():
    """Random bytes where offsets and counts should be."""
    rng = random.Random(SEED + 7)
    whole = elfdump.dump([(0, joined([1, 2, 3])), (1 << 20, joined([4]))])
    with folder() as f:
        path = f / "hostile"
        for _ in range(150 * SCALE):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(6, 64 + 3 * 56)] = rng.choice(
                    (0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)))
            path.write_bytes(data)
            for options in ({}, {"input": bytes(data)}):
                result = run("analyze", "--json", "-" if options else path,
                             text=False, **options)
                assert result.returncode in (OK, WRONG), (result, SEED)


def test_other_elf_files_are_memory():
    """A guest may well have an executable at address 0."""
    with folder() as f:
        path = elf_file(f / "a", [], kind=2)
        path.write_bytes(path.read_bytes().ljust(2 * PAGE, b"\0"))
        assert figures_of(path)["images"][0]["format"] == "raw"


# Streams


def test_standard_input():
    rng = random.Random(SEED + 8)
    contents = some_contents(rng, 700)
    data = joined(contents)
    wanted = expected(images_of(contents), quickly=True)
    with folder() as f:
        path = write_raw(f / "a", contents)
        with open(path, "rb") as stdin:
            same(figures_of("-", stdin=stdin), wanted, "a file")
            stdin.seek(0)
            same(figures_of("/dev/stdin", stdin=stdin), wanted, "by name")
            stdin.seek(10 * PAGE)
            os.lseek(stdin.fileno(), 10 * PAGE, os.SEEK_SET)
            same(figures_of("-", stdin=stdin),
                 expected(images_of(contents[10:]), quickly=True), "the rest")
    same(figures_of("-", text=False, input=data), wanted, "a pipe")
    ours, theirs = socket.socketpair()
    feed = threading.Thread(target=lambda: (ours.sendall(data), ours.close()))
    feed.start()
    same(figures_of("-", stdin=theirs), wanted, "a socket")
    feed.join()
    theirs.close()


def test_slow_pipe():
    """What comes in pieces of odd sizes is put together."""
    data = joined([1, 2, 1, 2, 3])
    reader, writer = os.pipe()

    def feed():
        for at in range(0, len(data), 1777):
            os.write(writer, data[at:at + 1777])
            time.sleep(0.005)
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    same(figures_of("-", stdin=reader),
         expected(images_of([1, 2, 1, 2, 3])))
    thread.join()
    os.close(reader)


def test_named_pipe():
    with folder() as f:
        path = f / "pipe"
        os.mkfifo(path)
        thread = threading.Thread(target=path.write_bytes,
                                  args=(joined([1, 1, 0]),))
        thread.start()
        same(figures_of(path), expected(images_of([1, 1, 0])))
        thread.join()


def test_zstd():
    rng = random.Random(SEED + 9)
    with folder() as f:
        lists = [some_contents(rng, n) for n in (1, 40, 5000)]
        images = images_of(*lists)
        paths = [write_raw(f / str(i), contents)
                 for i, contents in enumerate(lists)]
        wanted = expected(images, quickly=True)
        for options in ["-1"], ["-3", "--no-check"], ["-1", "--long=27"]:
            packed = [pack(path, *options) for path in paths]
            same(figures_of(*packed), wanted, str(options))
        with open(packed[2], "rb") as stdin:
            same(figures_of(packed[0], paths[1], "-", stdin=stdin), wanted)
        same(figures_of(packed[0], packed[1], "-", text=False,
                        input=packed[2].read_bytes()), wanted)


def test_zstd_frames():
    """Frames one behind the other, some to be skipped."""
    with folder() as f:
        parts = [pack(write_raw(f / str(i), [i, 7, i])).read_bytes()
                 for i in (1, 2)]
        skipped = struct.pack("<II", 0x184D2A5E, 5) + b"hello"
        path = f / "frames"
        for data in (parts[0] + parts[1], skipped + parts[0] + parts[1],
                     parts[0] + skipped + skipped + parts[1] + skipped):
            path.write_bytes(data)
            same(figures_of(path), expected(images_of([1, 7, 1, 2, 7, 2])))


def test_zstd_elf():
    with folder() as f:
        path = f / "dump"
        path.write_bytes(elfdump.dump([(1 << 20, joined([1, 2, 2])),
                                       (0, joined([2, 2]))], note=b"n" * 99))
        image = {256: 1, 257: 2, 258: 2, 0: 2, 1: 2}
        same(figures_of(pack(path)), expected([numbers(image)], form="elf"))


def test_zstd_damaged():
    rng = random.Random(SEED + 10)
    with folder() as f:
        image = f / "a"
        image.write_bytes(rng.randbytes(30 * PAGE))
        whole = pack(image, "--check").read_bytes()
        path = f / "damaged.zst"
        for n in list(range(4, len(whole), 9973)) + [len(whole) - 1]:
            path.write_bytes(whole[:n])
            wrong(path, reason="truncated")
        for _ in range(20 * SCALE):
            data = bytearray(whole)
            data[rng.randrange(12, len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            wrong(path, reason="zstd")
        path.write_bytes(whole + b"rubbish")
        wrong(path, reason="zstd")
        odd = f / "odd"
        odd.write_bytes(b"x" * (PAGE + 1))
        wrong(pack(odd), reason="multiple")
        empty = f / "empty"
        empty.touch()
        wrong(pack(empty), reason="empty")


# What is wrong


def wrong(*args, reason, status=WRONG, **options):
    """Refused, naming the image and the reason."""
    if "input" in options:
        options["text"] = False
    result = run("analyze", *args, **options)
    message = (result.stderr if isinstance(result.stderr, str)
               else result.stderr.decode())
    assert result.returncode == status and not result.stdout, (args, result)
    assert message.startswith("pgshare: ") and reason in message, message
    assert str(args[-1]) in message, message
    assert message.count("\n") == 1, message


def test_bad_images():
    with folder() as f:
        good = write_raw(f / "good", [1])
        empty, odd, small = f / "empty", f / "odd", f / "small"
        empty.touch()
        odd.write_bytes(b"x" * (PAGE + 1))
        small.write_bytes(b"x")
        loop, closed = f / "loop", f / "closed"
        loop.symlink_to(loop)
        closed.symlink_to(f / "missing")
        for bad, reason in (
                (empty, "empty"), (odd, "multiple"), (small, "multiple"),
                (f / "missing", "No such file"), (closed, "No such file"),
                (f, "directory"), (loop, "symbolic links"),
                (good / "x", "Not a directory"), ("/dev/null", "device"),
                (f / ("x" * 300), "too long")):
            wrong(good, bad, reason=reason)
            wrong("--json", bad, reason=reason)
        wrong("-", input=b"", reason="empty")
        wrong("-", input=b"x" * (3 * PAGE + 5), reason="multiple")
        wrong("-", stdin=subprocess.DEVNULL, reason="device")
        wrong("--page-size", "8K", good, reason="multiple")


def test_all_bad_images_are_named():
    with folder() as f:
        result = run("analyze", f / "a", write_raw(f / "good", [1]), f / "b")
        assert result.returncode == WRONG and not result.stdout
        assert str(f / "a") in result.stderr, result.stderr
        assert str(f / "b") in result.stderr, result.stderr


def test_unreadable():
    def as_nobody():
        if not os.geteuid():
            os.setuid(65534)

    with folder() as f:
        f.chmod(0o755)
        path = write_raw(f / "secret", [1])
        path.chmod(0)
        try:
            wrong(path, reason="denied", preexec_fn=as_nobody)
        except PermissionError as reason:
            raise Skip("root's programs are for root alone") from reason


def test_closed_standard_input():
    result = subprocess.run(f"'{PROGRAM}' analyze - <&-", shell=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, check=False)
    assert result.returncode == WRONG and "-: " in result.stderr, result


def test_other_formats():
    """Dumps that look like raw memory, whose figures would mean nothing."""
    with folder() as f:
        path = f / "dump"
        for head in b"KDUMP   ", b"QEVM", b"LibvirtQemudSave", b"QFI\xfb":
            path.write_bytes(head.ljust(2 * PAGE, b"\1"))
            wrong(path, reason="not a raw image")


def test_too_large():
    with folder() as f:
        path = f / "huge"
        path.touch()
        try:
            os.truncate(path, 1 << 43)
        except OSError as reason:
            raise Skip("no sparse files of 8 TiB here") from reason
        wrong("--page-size", "512", path, reason="too large")


def test_vanishing():
    """An image that becomes shorter while it is read."""
    with folder() as f:
        path = f / "shrinking"
        path.write_bytes(joined(range(1, 600)))
        reader, writer = os.pipe()
        # the other image is a pipe that keeps the program waiting
        child = subprocess.Popen(
            [PROGRAM, "analyze", "--threads", "1", "-", path], stdin=reader,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(writer, joined([1, 2]))
        time.sleep(0.3)
        os.truncate(path, 300 * PAGE)
        os.close(writer)
        out, err = child.communicate(timeout=60)
        os.close(reader)
        assert child.returncode == WRONG and not out, (out, err)
        assert "shrinking" in err and "shorter" in err, err


def test_vanishing_hole():
    """The same where what is lost has been a hole."""
    with folder() as f:
        path = write_raw(f / "shrinking", [1] + [0] * 500)
        reader, writer = os.pipe()
        child = subprocess.Popen(
            [PROGRAM, "analyze", "--threads", "1", "-", path], stdin=reader,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(writer, joined([1, 2]))
        time.sleep(0.3)
        os.truncate(path, 300 * PAGE)
        os.close(writer)
        out, err = child.communicate(timeout=60)
        os.close(reader)
        assert child.returncode == WRONG and not out, (out, err)
        assert "shrinking" in err and "shorter" in err, err


def test_deleted():
    """An image that is deleted while it is read is still there for us."""
    with folder() as f:
        path = write_raw(f / "deleted", [1] * 500)
        reader, writer = os.pipe()
        child = subprocess.Popen(
            [PROGRAM, "analyze", "--json", "--threads", "1", "-", path],
            stdin=reader, stdout=subprocess.PIPE, text=True)
        os.write(writer, joined([1, 2]))
        time.sleep(0.3)
        path.unlink()
        os.close(writer)
        out, _ = child.communicate(timeout=60)
        os.close(reader)
        assert child.returncode == OK
        assert json.loads(out)["reclaimable_pages"] == 500


def test_usage():
    with folder() as f:
        good = write_raw(f / "good", [1])
        for args in ((), ("--json",), ("",), ("--page-size",),
                     ("--page-size", "0", good), ("--page-size", "3000", good),
                     ("--page-size", "256", good), ("--page-size", "x", good),
                     ("--page-size", "1T", good), ("--page-size", "-4K", good),
                     ("--threads", "0", good), ("--threads", "x", good),
                     ("--threads", "257", good), ("--groups", "a", good, good),
                     ("--groups", "a,b", good), ("--groups", "", good),
                     ("--groups", "a,", good, good), ("--groups", "a"),
                     ("-", "-"), ("--report", good, good),
                     ("--report", "", good), ("--colour", good)):
            refused("analyze", *args)
        assert good.read_bytes() == some_page(1)


def test_help():
    result = run("analyze", "--help")
    assert result.returncode == OK
    for word in "--groups", "--page-size", "--report", "--json", "Exit status":
        assert word in result.stdout, word
    assert "analyze" in run("--help").stdout


# Output


def test_table():
    with folder() as f:
        a = write_raw(f / "a", [1, 1, 2, 0, 0] * 100)
        result = run("analyze", a, "--groups", "x")
        assert result.returncode == OK and not result.stderr, result
        assert "99.4 %" in result.stdout and "order 9" in result.stdout
        assert "\033" not in result.stdout


def test_strange_names():
    with folder() as f:
        for name in (b"with space", b"caf\xe9", b"na\xc3\xafve", b"\xed\xa0\x80",
                     b"quo\"te\\", b"new\nline", b"-dash", b"\xf0\x9f\x90\xa7",
                     b"<!--<script>"):
            path = os.fsencode(f) + b"/" + name
            with open(path, "wb") as image:
                image.write(some_page(1))
            result = subprocess.run(
                [PROGRAM, "analyze", "--json", "--report",
                 os.fsencode(f / "out.html"), path],
                stdout=subprocess.PIPE, check=True)
            told = json.loads(result.stdout.decode("utf-8"))
            assert told["images"][0]["name"] == path.decode(
                "utf-8", "replace") or b"\xed" in name, told
            page = (f / "out.html").read_text(encoding="utf-8")
            assert page.count("</script>") == page.count("<script")


def test_progress():
    with folder() as f:
        path = f / "a"
        path.write_bytes(some_page(5))
        with open(path, "r+b") as image:
            image.truncate(1 << 36)  # long enough to see it work
        for args, stream in ((("--threads", "1"), {}), (("--json",), None)):
            status, shown = on_terminal("analyze", *args, path)
            assert status == OK
            if stream is None:
                json.loads(shown)
        status, shown = on_terminal("analyze", path, term="dumb")
        assert status == OK and "\033" not in shown
        status, shown = on_terminal("analyze", "--no-progress", path)
        assert status == OK and "\033" not in shown


def slow_image(folder_):
    """A pipe that gives 40 pages, ten at a time, over a second."""
    reader, writer = os.pipe()

    def feed():
        with contextlib.suppress(BrokenPipeError):
            for _ in range(4):
                os.write(writer, joined([1] * 10))
                time.sleep(0.25)
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    return reader, thread


def test_progress_bar():
    """Rate and remaining time where they can be known, and no trace in the
    end."""
    with folder() as f:
        path = write_raw(f / "a", range(1, 100))
        reader, thread = slow_image(f)
        status, shown = on_terminal("analyze", "-", path, stdin=reader)
        thread.join()
        os.close(reader)
        assert status == OK and "/s" in shown, shown
        line = shown[:shown.index("Memory")]
        assert line.endswith("\r\033[K"), line


def test_killed():
    with folder() as f:
        reader, thread = slow_image(f)
        report = f / "out.html"
        status, _ = on_terminal("analyze", "-", "--report", report,
                                stdin=reader, kill_after=b"/s")
        os.close(reader)
        thread.join()
        assert status == -signal.SIGTERM, status
        assert not os.listdir(f)


def test_full_disk():
    if not os.path.exists("/dev/full"):
        raise Skip("there is no /dev/full")
    with folder() as f:
        path = write_raw(f / "a", [1])
        for args in ("--json",), ():
            with open("/dev/full", "w", encoding="utf-8") as full:
                result = run("analyze", *args, path, stdout=full)
            assert result.returncode == WRONG, result
        result = run("analyze", "--report", "/dev/full", path)
        assert result.returncode == WRONG and "/dev/full" in result.stderr


def test_report_that_cannot_be_written():
    """Told before anything is read; what was there stays."""
    with folder() as f:
        path = write_raw(f / "a", [1])
        for report in f / "missing" / "out.html", f, f / "a" / "out.html":
            result = run("analyze", "--report", report, path)
            assert result.returncode == WRONG and not result.stdout, result
            assert str(report) in result.stderr
        report = f / "out.html"
        report.write_text("old")
        assert run("analyze", "--report", report,
                   f / "missing").returncode == WRONG
        assert report.read_text() == "old"
        assert sorted(os.listdir(f)) == ["a", "out.html"]
        assert run("analyze", "--report", report, path).returncode == OK
        assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
        assert sorted(os.listdir(f)) == ["a", "out.html"]


# Memory


def test_little_memory():
    """An address space that is too small, by any amount: an error that says
    so, once, however many threads meet it, or the right figures."""
    if is_sanitized():
        raise Skip("sanitizers need address space")
    rng = random.Random(SEED + 11)
    with folder() as f:
        path = f / "a"
        path.write_bytes(b"".join(rng.randbytes(PAGE // 8) * 8
                                  for _ in range(20000)))
        for mib, threads in itertools.product((4, *range(8, 33), 64), (1, 2)):
            result = run("analyze", "--json", "--threads", str(threads), path,
                         preexec_fn=little_memory(mib))
            if result.returncode == OK:
                assert json.loads(result.stdout)["pages"] == 20000
                continue
            assert result.returncode in (WRONG, 127), (mib, result)
            assert not result.stdout
            if result.returncode == WRONG:
                assert result.stderr.count("\n") == 1, (mib, threads, result)
        assert result.returncode == OK, result


def most_memory(*args):
    """The most that a run has needed, in bytes.

    It is asked when it wants to print its figures into a pipe that is full.
    (What wait4() tells may be this process's own.)
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    with subprocess.Popen([PROGRAM, "analyze", *map(str, args)],
                          stdout=writer) as child:
        asleep = 0
        while asleep < 5:
            time.sleep(0.05)
            with open(f"/proc/{child.pid}/status", encoding="ascii") as file:
                status = file.read()
            asleep = asleep + 1 if "State:\tS" in status else 0
        child.kill()
    os.close(reader)
    os.close(writer)
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def test_memory_that_is_promised():
    """64 bytes for each page with content, whatever the images."""
    if is_sanitized():
        raise Skip("memory under a sanitizer tells nothing")
    rng = random.Random(SEED + 12)
    n = 1 << 16
    numbers_ = [rng.getrandbits(64) for _ in range(n)]
    with folder() as f:
        least = most_memory(write_raw(f / "one", [1] * 512))
        for period in n, n // 2, n // 8, 17, 1:
            paths = f / "a", f / "b"
            for path in paths:
                path.write_bytes(b"".join(
                    numbers_[i % period].to_bytes(8, "little") * 64
                    for i in range(n)))
            most = most_memory("--page-size", "512", "--threads", "2", *paths)
            used = (most - least) / (2 * n)
            assert used <= 64, f"{used} bytes a page with {period} contents"


# Real guests


def test_guests():
    """Every figure of real images, by SHA-256."""
    make = pathlib.Path(__file__).parents[1] / "guests" / "make-guests"
    result = subprocess.run([make, "--print"], stdout=subprocess.PIPE,
                            text=True, check=False)
    if result.returncode:
        raise Skip("there are no images of guests (./run guests makes them)")
    paths = result.stdout.split()
    images = []
    for path in paths:
        with open(path, "rb") as image:
            images.append({gfn: reference.content_of(image.read(PAGE))
                           for gfn in range(os.path.getsize(path) // PAGE)})
    same(figures_of(*paths), expected(images, quickly=True))


print(f"seed {SEED}")
main("cli-analyze", globals())
