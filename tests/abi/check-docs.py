#!/usr/bin/env python3
"""Does every exported function say what it returns, and since when?"""

import pathlib
import re
import sys

DECLARED = re.compile(
    r"(?:/\*\*(?P<comment>(?:(?!\*/).)*)\*/\s*)?"
    r"PGSHARE_EXPORT\s+(?P<type>[^;(]*?)(?P<name>pgshare_\w+)\(", re.S)

include = pathlib.Path(sys.argv[1])
passed = failed = 0

for header in sorted(include.rglob("*.h")):
    for found in DECLARED.finditer(header.read_text()):
        comment = found["comment"] or ""
        missing = [tag for tag in ("@since", "@return") if tag not in comment
                   and (tag != "@return" or found["type"].split() != ["void"])]
        if missing:
            failed += 1
            print(f"FAIL {header}: {found['name']}: no {' and no '.join(missing)}")
        else:
            passed += 1

print(f"SUITE docs: {passed} passed, {failed} failed, 0 skipped")
sys.exit(failed != 0)
