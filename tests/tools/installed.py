"""The library as a program outside this tree sees it: installed."""

import contextlib
import os
import pathlib
import subprocess
import tempfile


class Installed:
    """An installation below a folder of its own, found by pkg-config."""

    def __init__(self, build, root):
        self.root = pathlib.Path(root)
        subprocess.run(["meson", "install", "-C", build, "--no-rebuild",
                        "--quiet", "--destdir", root], check=True)
        folders = {path.parent for path in self.root.rglob("libpgshare.pc")}
        self.env = os.environ | {
            "PKG_CONFIG_PATH": ":".join(map(str, folders)),
            "PKG_CONFIG_SYSROOT_DIR": str(self.root),
            "LD_LIBRARY_PATH": ":".join(str(path.parent) for path in folders),
        }

    def headers(self):
        """Paths below include/, of everything installed there."""
        include = next(self.root.rglob("include"))
        return {path.relative_to(include) for path in include.rglob("*.h")}

    def build_and_run(self, source, *packages):
        """Compile a C file against the packages and run the program."""
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *packages], env=self.env,
            check=True, capture_output=True, text=True).stdout.split()
        program = self.root / pathlib.Path(source).stem
        subprocess.run(
            [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra",
             "-Werror", "-o", program, source, *flags], check=True)
        subprocess.run([program], env=self.env, check=True)


@contextlib.contextmanager
def installed(build):
    with tempfile.TemporaryDirectory(prefix="pgshare-") as root:
        yield Installed(build, root)
