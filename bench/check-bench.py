#!/usr/bin/env python3
"""Does pgshare-bench measure what it should, and say so in valid JSON?

usage: check-bench.py PROGRAM

Each bench runs with small sets. Whether the targets are met is not looked at,
which such sets do not tell.
"""

import json
import subprocess
import sys

# What the metrics of each bench begin with, in order.
METRICS = {
    "fault": [
        "copied, sequential",
        "copied, random order",
        "last mapping, sequential",
        "declared free, zeroed in advance, sequential",
        "2 threads on different pages against 1, sequential",
    ],
    "share": [
        f"extents of {extent}, {how}, sequential"
        for extent in (1, 64, 512)
        for how in ("mark both and share by tickets", "in one call")
    ],
    "rmap": ["unsharing of one frame", "whole-page faults"],
    "teardown": ["removing a domain"],
    "footprint": [
        "an empty host",
        "each tracked page",
        "each shared mapping",
        "each frame",
    ],
    "audit": ["10000 mappings of 1 frame", "10000 mappings of 5000 frames"],
    "scale": [
        "growth, get and put",
        "growth, declare",
        "growth, share",
        "growth, fault",
        "growth, hint",
    ],
    "scan-cold": [
        "first pass over distinct pages beside bare hashing",
        "first pass over distinct pages beside KSM",
    ],
    "scan-steady": ["a pass after 1 % of the pages", "a first pass against"],
    "scan-steer": ["nothing found", "pressure raised", "a budget of 10 %"],
    "merge": ["two equal guests"],
    "hint-latency": ["99 of 100 block hints"],
    "analyze": ["distinct pages, 4 images of 8 MiB"],
    "kvm-merge": ["single pages shared with the default"] + [
        f"two equal guests beside KSM, {what} time, {order}"
        for order in ("same order", "extents of 8", "single pages")
        for what in ("wall", "CPU")
    ],
    "kvm-stall": [f"write stalls during kvm-merge, {which}"
                  for which in ("99 of 100", "the longest")],
    "kvm-fault": [
        "first write by both sharers and all that follows, beside KSM, " + mode
        for mode in ("kernel mode", "trapped")
    ],
    "kvm-steady": ["a pass over 1 GiB of which nothing was written, beside KSM",
                   "a new duplicate is shared"],
    "kvm-net": ["memory gained"],
    "kvm-fork": [
        "freezing a stub",
        "a child of 1 GiB that reads 10 % and writes 1 %",
        "mapping a child",
        "mappings of a child",
        "memory of a child's own",
    ],
}

# Needs what pgshare_kvm_probe() looks at; without it there is a note.
LINUX = "kvm-"

# Needs root, and a kernel that has it.
KSM = "beside KSM"

MEMBERS = {
    "name": str,
    "metric": str,
    "value": float,
    "unit": str,
    "yardstick": str,
    "yardstick_value": float,
    "ratio": float,
    "target": str,
    "ok": bool,
}

tests = 0
failures = 0


def check(good, what):
    global tests, failures
    tests += 1
    if not good:
        failures += 1
        print(f"FAILED: {what}")


def run(program, *args):
    return subprocess.run([program, *args], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def check_bench(program, name, expected):
    done = run(program, "--quick", "--json", name)
    check(done.returncode == 0, f"{name}: exit {done.returncode}")
    try:
        figures = json.loads(done.stdout)
    except ValueError:
        check(False, f"{name}: no JSON: {done.stdout}")
        return
    found = [figure["metric"] for figure in figures]
    if name.startswith(LINUX) and not found:
        return
    if not any(KSM in metric for metric in found):
        expected = [metric for metric in expected if KSM not in metric]
    check(len(found) == len(expected)
          and all(map(str.startswith, found, expected)),
          f"{name}: metrics are {found}")
    for figure in figures:
        types = {member: type(value) for member, value in figure.items()}
        check(types == MEMBERS and figure["name"] == name,
              f"{name}: members are {types}")


def main():
    program = sys.argv[1]
    listed = [line.split()[0] for line in
              run(program, "--list").stdout.splitlines()]
    known = [name for name in METRICS
             if name in listed or not name.startswith(LINUX)]
    check(listed == known, f"--list: {listed}")
    for name in known:
        check_bench(program, name, METRICS[name])
    for wrong in (["none"], ["--runs", "0"], ["--runs", "x"], ["--no-such"]):
        check(run(program, *wrong).returncode != 0, f"{wrong} is accepted")
    print(f"SUITE bench: {tests - failures} passed, {failures} failed, "
          "0 skipped")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
