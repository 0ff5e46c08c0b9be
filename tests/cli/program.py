"""What the tests of the program pgshare have in common.

A test is a function test_*; main() runs all those of a module and counts.
"""

import os
import pty
import select
import signal
import subprocess
import sys
import time
import traceback

PROGRAM = os.path.abspath(sys.argv[1])
OK, WRONG, USAGE = 0, 1, 2


class Skip(Exception):
    """A test that this machine cannot do."""


def run(*args, **options):
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("text", True)
    return subprocess.run([PROGRAM, *map(str, args)], stderr=subprocess.PIPE,
                          timeout=240, **options)


def refused(*args, status=USAGE, **options):
    """Wrong use: nothing on stdout, a reason on stderr."""
    result = run(*args, **options)
    assert result.returncode == status, (args, result)
    assert not result.stdout and result.stderr.startswith("pgshare"), result
    return result.stderr


def on_terminal(*args, term="xterm", kill_after=None, kill_by=signal.SIGTERM,
                **options):
    """Run on a terminal: (exit status, all that was shown)."""
    leader, follower = pty.openpty()
    shown = b""
    child = subprocess.Popen([PROGRAM, *map(str, args)], stdout=follower,
                             stderr=follower,
                             env=os.environ | {"TERM": term}, **options)
    os.close(follower)
    deadline = time.monotonic() + 240
    killed = False
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                data = os.read(leader, 65536)
            except OSError:  # the last one has closed it
                break
            shown += data
        if kill_after and not killed and kill_after in shown:
            child.send_signal(kill_by)
            killed = True
    os.close(leader)
    return child.wait(10), shown.decode()


def little_memory(mib):
    """For preexec_fn: an address space of this size."""
    def limit():
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))
    return limit


def is_sanitized():
    """Memory under a sanitizer tells nothing."""
    with open(PROGRAM, "rb") as file:
        return b"__asan_init" in file.read()


def main(name, tests):
    """Run all functions test_* of `tests`, or those named; exit."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    wanted = sys.argv[2:]
    for title, test in list(tests.items()):
        if not title.startswith("test_") or wanted and title not in wanted:
            continue
        try:
            test()
            counts["passed"] += 1
        except Skip as reason:
            counts["skipped"] += 1
            print(f"SKIP {reason}")
        except Exception:  # pylint: disable=broad-except
            counts["failed"] += 1
            print(f"FAIL {title}")
            traceback.print_exc(file=sys.stdout)
    print("SUITE {}: {passed} passed, {failed} failed, {skipped} skipped"
          .format(name, **counts))
    sys.exit(1 if counts["failed"] else 0)
