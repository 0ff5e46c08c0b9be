#!/usr/bin/env python3
"""Add up what several test runs say of themselves.

usage: count-tests.py NAME=LOG...

A LOG is a testlog.json of meson, or the output of one program followed by the
line `EXIT status`.  A program that counts for itself prints, as
tests/support/suite.c does,

    SUITE name: N passed, N failed, N skipped

and `SKIP reason` for what it leaves out; any other counts as one test, which
passed (exit status 0), was skipped (77) or failed.  Prints a table, then what failed and what was skipped, and ends
with the line `N passed, N failed, N skipped`; exits with 1 if anything failed.
"""

import collections
import json
import re
import sys

SUITE = re.compile(
    r"^SUITE (\S+): (\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
EXIT = re.compile(r"^EXIT (\d+)$", re.M)
SKIP = re.compile(r"^SKIP (.*)$", re.M)

Counts = collections.namedtuple("Counts", "passed failed skipped")


class Total:
    def __init__(self):
        self.counts = Counts(0, 0, 0)
        self.failures = []
        self.skips = collections.Counter()

    def add(self, name, output, result):
        """Count one program: what it says itself, and how it ended."""
        suites = [Counts(*map(int, found[1:])) for found in SUITE.findall(output)]
        own = Counts(*map(sum, zip(*suites))) if suites else Counts(0, 0, 0)
        if result == "skipped" and not suites:
            own = Counts(0, 0, 1)
        elif result == "failed" and not own.failed:
            own = own._replace(failed=1)  # a crash or a leak after the tests
        elif result == "passed" and not suites:
            own = Counts(1, 0, 0)
        self.counts = Counts(*map(sum, zip(self.counts, own)))
        if own.failed:
            self.failures.append(name)
        if own.skipped:
            self.skips.update(SKIP.findall(output) or [f"{name}: no reason given"])


MESON_RESULTS = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}
EXIT_RESULTS = {"0": "passed", "77": "skipped"}


def read(label, path, total):
    """Count one log; a log that is not there is a failure."""
    before = total.counts
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            if path.endswith(".json"):
                for test in map(json.loads, log):
                    total.add(f"{label}: {test['name']}", test.get("stdout", ""),
                              MESON_RESULTS.get(test["result"], "failed"))
            else:
                output = log.read()
                status = (EXIT.findall(output) or ["none"])[-1]
                total.add(label, output, EXIT_RESULTS.get(status, "failed"))
    except OSError:
        total.add(label, "", "failed")
    return Counts(*(now - then for now, then in zip(total.counts, before)))


def main():
    total = Total()
    print(f"{'':24}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for argument in sys.argv[1:]:
        label, _, path = argument.partition("=")
        counts = read(label, path, total)
        print(f"{label:24}{counts.passed:8}{counts.failed:8}{counts.skipped:8}")
    for name in total.failures:
        print(f"failed: {name}")
    for reason, times in total.skips.items():
        print(f"skipped: {reason}" + (f" ({times} times)" if times > 1 else ""))
    print("{} passed, {} failed, {} skipped".format(*total.counts))
    return 1 if total.counts.failed else 0


sys.exit(main())
