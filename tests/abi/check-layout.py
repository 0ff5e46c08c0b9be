#!/usr/bin/env python3
"""Does test_layout.c name every public struct, and each as what it is?"""

import re
import sys

import symbols


def read(path):
    with open(path, encoding="utf-8") as file:
        return symbols.without_comments(file.read())


test, *headers = sys.argv[1:]

defined = {}  # struct: "SIZED" if its first member is `size_t size`
for path in headers:
    for name, body in re.findall(r"struct (pgshare_\w+)\s*\{([^}]*)", read(path)):
        sized = re.match(r"\s*size_t size;", body)
        defined[name] = "SIZED" if sized else "PLAIN"
listed = {name: kind for kind, name in
          re.findall(r"^\s*(SIZED|PLAIN)\((\w+)", read(test), flags=re.M)}

wrong = sorted(name for name in defined.keys() | listed.keys()
               if defined.get(name) != listed.get(name))
for name in wrong:
    print(f"{name}: {defined.get(name, 'nothing')} in the headers, "
          f"{listed.get(name, 'nothing')} in {test}")
sys.exit(len(wrong) != 0)
