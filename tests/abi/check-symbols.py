#!/usr/bin/env python3
"""Do headers, map and shared library agree on the symbols and versions?"""

import argparse
import sys

import symbols


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", required=True)
    parser.add_argument("--library", required=True)
    parser.add_argument("header", nargs="+")
    args = parser.parse_args()

    declared = symbols.declared(args.header)
    mapped = symbols.mapped(args.map)
    exported = symbols.exported(args.library)

    wrong = 0
    for names, complaint in [
        (declared - mapped.keys(), f"declared, not in {args.map}"),
        (mapped.keys() - declared, f"in {args.map}, not declared"),
        (declared - exported.keys(), f"declared, not in {args.library}"),
        (exported.keys() - declared, f"in {args.library}, not declared"),
        ({name for name in mapped.keys() & exported.keys()
          if mapped[name] != exported[name]}, "exported with another version"),
    ]:
        if names:
            print(f"{complaint}:")
            for name in sorted(names):
                print(f"    {name};")
            wrong += len(names)
    return 1 if wrong else 0


sys.exit(main())
