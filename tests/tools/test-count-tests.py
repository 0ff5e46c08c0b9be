#!/usr/bin/env python3
"""count-tests.py on logs whose sums are known."""

import json
import pathlib
import subprocess
import sys
import tempfile

COUNT_TESTS = pathlib.Path(__file__).with_name("count-tests.py")


def count(meson_tests, step):
    with tempfile.TemporaryDirectory(prefix="pgshare-") as folder:
        log, text = pathlib.Path(folder, "testlog.json"), pathlib.Path(folder, "step")
        log.write_text("".join(json.dumps(test) + "\n" for test in meson_tests))
        text.write_text(step)
        result = subprocess.run([COUNT_TESTS, f"gcc={log}", f"step={text}"],
                                capture_output=True, text=True)
        return result.stdout.splitlines()[-1], result.returncode


def run(name, result, *lines):
    return {"name": name, "result": result, "stdout": "\n".join(lines)}


PASSED = "EXIT 0\n"
CASES = [
    ([run("script", "OK")], PASSED, "2 passed, 0 failed, 0 skipped", 0),
    ([run("script", "SKIP")], PASSED, "1 passed, 0 failed, 1 skipped", 0),
    ([run("hangs", "TIMEOUT")], PASSED, "1 passed, 1 failed, 0 skipped", 1),
    ([run("suite", "OK", "SKIP no KVM", "SUITE a: 5 passed, 0 failed, 1 skipped")],
     PASSED, "6 passed, 0 failed, 1 skipped", 0),
    ([run("suite", "FAIL", "SUITE a: 5 passed, 2 failed, 0 skipped")],
     PASSED, "6 passed, 2 failed, 0 skipped", 1),
    ([run("leaks at exit", "FAIL", "SUITE a: 5 passed, 0 failed, 0 skipped")],
     PASSED, "6 passed, 1 failed, 0 skipped", 1),
    ([], "SUITE demo: 3 passed, 0 failed, 0 skipped\nEXIT 0\n",
     "3 passed, 0 failed, 0 skipped", 0),
    ([], "SUITE demo: 3 passed, 0 failed, 0 skipped\nEXIT 139\n",
     "3 passed, 1 failed, 0 skipped", 1),
    ([], "SKIP no KVM\nEXIT 77\n", "0 passed, 0 failed, 1 skipped", 0),
    ([], "cut short", "0 passed, 1 failed, 0 skipped", 1),
]

failed = 0
for meson_tests, step, line, status in CASES:
    if count(meson_tests, step) != (line, status):
        print(f"FAIL {meson_tests} {step!r}: {count(meson_tests, step)}")
        failed += 1
print(f"SUITE count-tests: {len(CASES) - failed} passed, {failed} failed, 0 skipped")
sys.exit(failed != 0)
