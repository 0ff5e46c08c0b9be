#!/usr/bin/env python3
"""Use the program pgshare as a person does, and as badly."""

import hashlib
import json
import os
import pathlib
import random
import signal
import tempfile

from program import (OK, USAGE, WRONG, Skip, little_memory, main, on_terminal,
                     refused, run)

PAGE = 4096
QUICK = ("demo", "--memory", "4M", "--guests", "3")


def run_json(*args, **options):
    result = run(*args, "--json", **options)
    assert result.returncode == OK, result.stderr
    figures = json.loads(result.stdout)
    assert figures.pop("wall")["seconds"] > 0
    return figures


# The program itself


def test_help():
    result = run("--help")
    assert result.returncode == OK and "demo" in result.stdout
    result = run("demo", "--help")
    assert result.returncode == OK and "--ram" in result.stdout
    result = run("--version")
    assert result.returncode == OK and result.stdout.startswith("pgshare ")


def test_wrong_commands():
    for args in (), ("dmeo",), ("--jsno",):
        result = run(*args)
        assert result.returncode == USAGE and not result.stdout, result
        assert "demo" in result.stderr, result


def test_wrong_options():
    for args in (
            ("--guests", "1"), ("--guests", "65"), ("--guests", "two"),
            ("--guests", "-4"), ("--guests", ""), ("--guests", "4x"),
            ("--guests", "99999999999999999999"), ("--guests",),
            ("--memory", "1M"), ("--memory", "64Q"), ("--memory", "-64M"),
            ("--memory", "M"), ("--memory", ""), ("--memory", "64 M"),
            ("--memory", "99999999999999999999G"), ("--memory", "17000000T"),
            ("--memory", "1000T"), ("--seed", "x"), ("--seed", "0x"),
            ("--seed", "18446744073709551616"), ("--colour",), ("-x",),
            ("image.ram",), ("--ram",), ("--json", "--ram"),
            ("--ram", "--guests", "3", "image.ram"),
            ("--ram", "--memory", "64M", "image.ram")):
        refused("demo", *args)
    assert "image.ram" in refused("demo", "image.ram")


# Guests on disks


def test_table():
    result = run(*QUICK)
    assert result.returncode == OK, result.stderr
    assert "All is well" in result.stdout and not result.stderr
    assert "0 differ" in result.stdout and "\033" not in result.stdout


def test_everything_happens():
    figures = run_json("demo", "--memory", "8M")
    assert figures["ok"] and figures["kind"] == "disk"
    for cause, pages in figures["shared_by_cause"].items():
        assert pages > 0, cause
    for outcome in ("copied", "last-mapping", "free", "overwrite", "read-only"):
        assert figures["faults"][outcome] > 0, outcome
    for payer in "reserve", "own_fifo", "service":
        assert figures["paid_by"][payer] > 0, payer
    assert figures["hints"]["pages_shared"] > 0
    assert figures["hints"]["p50_us"] <= figures["hints"]["p99_us"]
    assert figures["memory"]["most_claimed"] > 0


def check_sums(figures):
    memory = figures["memory"]
    assert memory["before"] - memory["saved"] == memory["after"], memory
    assert sum(memory["saved_by_place"].values()) == memory["saved"], memory
    guests = figures["guests"]
    assert sum(guest["memory"] for guest in guests) == memory["before"]
    assert all(guest["private"] + guest["shared"] == guest["memory"]
               for guest in guests), guests
    assert figures["content"] | {"checked": 0} == {"checked": 0, "wrong": 0}
    assert figures["audit"]["violations"] == 0
    assert figures["audit"]["machine_violations"] == 0
    assert figures["ok"] is True


def test_sums():
    check_sums(run_json(*QUICK))


def test_sizes_and_seeds():
    for args in (("--guests", 2, "--memory", "4M"),
                 ("--guests", 9, "--memory", "5M"),
                 ("--guests", 2, "--memory", "5000001"),
                 ("--guests", 40, "--memory", "4096K"),
                 ("--seed", 0, "--memory", "4M"),
                 ("--seed", "0xffffffffffffffff", "--memory", "4M")):
        check_sums(run_json("demo", *args))


def test_same_seed_same_run():
    first = run_json(*QUICK, "--seed", "7")
    assert first == run_json(*QUICK, "--seed", "7")
    elsewhere = {"HOME": "/", "LC_ALL": "C", "PADDING": "x" * 5000}
    if "LD_LIBRARY_PATH" in os.environ:
        elsewhere["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    assert first == run_json(*QUICK, "--seed", "7", env=elsewhere)
    assert first != run_json(*QUICK, "--seed", "8")


# RAM images


def page(rng):
    return rng.randbytes(PAGE)


def write_image(path, pages):
    """A sparse file; a page that is None is a hole."""
    with open(path, "wb") as image:
        for number, content in enumerate(pages):
            if content:
                image.seek(number * PAGE)
                image.write(content)
        image.truncate(len(pages) * PAGE)


def some_images(folder):
    """Images, and how many frames all their content needs at the least."""
    rng = random.Random(3)
    zero, common = bytes(PAGE), [page(rng) for _ in range(300)]
    images = [
        common + [None] * 700 + [page(rng) for _ in range(24)],
        [page(rng)] * 7 + [None] * 33 + common[:200] + [zero] * 60,
        [common[5], common[5]] * 10 + common[250:] + [page(rng)],
        [None] * 512,
    ]
    seen = {hashlib.sha256(content or zero).digest()
            for image in images for content in image}
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"guest-{number}.ram")
        write_image(paths[-1], image)
    return paths, sum(map(len, images)), len(seen) - 1  # zero: nobody's frame


def test_images():
    with tempfile.TemporaryDirectory() as folder:
        paths, pages, frames = some_images(pathlib.Path(folder))
        figures = run_json("demo", "--ram", *paths)
        check_sums(figures)
        assert figures["kind"] == "ram"
        assert figures["memory"]["before"] == pages
        assert pages - figures["memory"]["most_saved"] == frames
        assert figures["content"]["checked"] == pages
        assert [guest["name"] for guest in figures["guests"]] == [
            path.stem for path in paths]
        assert all(map(figures["memory"]["saved_by_place"].get,
                       ("zero", "across", "within")))
        assert figures == run_json("demo", "--ram", *paths)
        # an image twice: two guests with the same memory; options anywhere
        twice = run_json("demo", paths[0], "--ram", "--seed", "2", paths[0])
        assert twice["memory"]["saved_by_place"]["across"] > 0
        assert "All is well" in run("demo", "--ram", *paths).stdout


def test_bad_images():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        good = folder / "good.ram"
        write_image(good, [None, b"x" * PAGE])
        odd = folder / "odd.ram"
        odd.write_bytes(b"x" * (PAGE + 1))
        empty = folder / "empty.ram"
        empty.touch()
        fifo = folder / "fifo.ram"
        os.mkfifo(fifo)
        huge = folder / "huge.ram"
        huge.touch()
        try:
            os.truncate(huge, 1 << 43)
        except OSError:
            huge = empty
        for bad in (folder / "missing.ram", odd, empty, folder, fifo, huge,
                    "/dev/null", ""):
            reason = refused("demo", "--ram", good, bad)
            assert str(bad) in reason, reason


def test_unreadable_image():
    if not os.geteuid():
        raise Skip("root may read everything")
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(PAGE)
        os.chmod(image.name, 0)
        assert image.name in refused("demo", "--ram", image.name)


# Terminals, pipes, signals


def test_live():
    status, shown = on_terminal(*QUICK)
    assert status == OK and "\033[" in shown, shown
    assert "guest-1" in shown and "All is well" in shown
    assert "\033" not in shown[shown.index("Memory  "):]


def test_no_live():
    for args, term in (("--no-live",), "xterm"), ((), "dumb"):
        status, shown = on_terminal(*QUICK, *args, term=term)
        assert status == OK and "\033" not in shown, shown
    status, shown = on_terminal(*QUICK, "--json")
    assert status == OK and json.loads(shown)["ok"]


def test_killed():
    with tempfile.TemporaryDirectory() as folder:
        before = os.getcwd()
        os.chdir(folder)
        try:
            for by in signal.SIGTERM, signal.SIGINT:
                status, shown = on_terminal("demo", kill_after=b"boot from",
                                            kill_by=by)
                assert status == -by, (status, shown)
                assert shown.endswith("\npgshare: interrupted\r\n"), shown
        finally:
            os.chdir(before)
        assert not os.listdir(folder)
        assert "\033[?" not in shown  # no mode is left behind


def test_closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    result = run(*QUICK, stdout=writer)
    os.close(writer)
    assert result.returncode in (-signal.SIGPIPE, WRONG), result
    assert "anitizer" not in result.stderr


def test_full_disk():
    if not os.path.exists("/dev/full"):
        raise Skip("there is no /dev/full")
    for args in QUICK, (*QUICK, "--json"), ("--help",):
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = run(*args, stdout=full)
        assert result.returncode == WRONG and "output" in result.stderr, result


def test_little_memory():
    """An address space that is too small: an error, no crash."""
    result = run("demo", "--memory", "256M", "--guests", "2",
                 preexec_fn=little_memory(64))
    if "Sanitizer failed to allocate" in result.stderr:
        raise Skip("sanitizers need address space")
    assert result.returncode in (WRONG, USAGE, 127), result  # 127: the loader


main("cli-demo", globals())
