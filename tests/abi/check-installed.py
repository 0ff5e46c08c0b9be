#!/usr/bin/env python3
"""Is everything installed that a program needs, and does pkg-config find it?"""

import pathlib
import sys

source, build = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, str(source / "tests/tools"))
from installed import installed  # noqa: E402

include = source / "include"
with installed(build) as library:
    library.build_and_run(source / "tests/abi/consumer/consumer.c", "libpgshare")
    missing = ({path.relative_to(include) for path in include.rglob("*.h")}
               - library.headers())
for header in sorted(missing):
    print(f"{header} is in include/ but is not installed")
sys.exit(len(missing) != 0)
