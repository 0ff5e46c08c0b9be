#!/usr/bin/env python3
"""Does a meson project that has libpgshare as a subproject build and run?"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

source = pathlib.Path(sys.argv[1])

with tempfile.TemporaryDirectory(prefix="pgshare-") as folder:
    parent, build = pathlib.Path(folder, "parent"), pathlib.Path(folder, "build")
    shutil.copytree(source / "tests/abi/consumer", parent)
    (parent / "subprojects").mkdir()
    (parent / "subprojects/libpgshare").symlink_to(source)
    for command in [
        ["meson", "setup", build, parent, "--wrap-mode=forcefallback"],
        ["meson", "compile", "-C", build],
        ["meson", "test", "-C", build, "--print-errorlogs"],
    ]:
        subprocess.run(command, check=True)
