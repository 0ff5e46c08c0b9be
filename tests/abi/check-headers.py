#!/usr/bin/env python3
"""Does every public header compile alone, as C11 and as C++17?"""

import pathlib
import shutil
import subprocess
import sys

STRICT = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
COMPILERS = {
    "gcc": ["-std=c11", "-x", "c"],
    "clang": ["-std=c11", "-x", "c"],
    "g++": ["-std=c++17", "-x", "c++"],
    "clang++": ["-std=c++17", "-x", "c++"],
}

include = pathlib.Path(sys.argv[1])
passed = failed = skipped = 0

for compiler, language in COMPILERS.items():
    headers = [path.relative_to(include) for path in sorted(include.rglob("*.h"))]
    if not shutil.which(compiler):
        print(f"SKIP no {compiler} on this machine")
        skipped += len(headers)
        continue
    for header in headers:
        # Twice, so that a missing include guard shows.
        source = f"#include <{header}>\n" * 2
        result = subprocess.run(
            [compiler, *language, *STRICT, f"-I{include}", "-"],
            input=source, text=True, capture_output=True)
        if result.returncode == 0:
            passed += 1
        else:
            failed += 1
            print(f"FAIL {header} with {compiler}\n{result.stderr}")

print(f"SUITE headers: {passed} passed, {failed} failed, {skipped} skipped")
sys.exit(failed != 0)
