#!/usr/bin/env python3
"""Compile and run the C examples of README.md against the installed library.

An example is a ```c block right after the line <!-- example -->.
"""

import pathlib
import re
import sys

source, build = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, str(source / "tests/tools"))
from installed import installed  # noqa: E402

readme = (source / "README.md").read_text(encoding="utf-8")
examples = re.findall(r"^<!-- example -->\n+```c\n(.*?)^```$", readme,
                      flags=re.S | re.M)
if not examples:
    sys.exit("README.md has no example")

with installed(build) as library:
    for number, example in enumerate(examples, 1):
        program = library.root / f"example{number}.c"
        program.write_text(example, encoding="utf-8")
        library.build_and_run(program, "libpgshare")
