#!/usr/bin/env python3
"""Make C strings of a page, its style sheet and its script.

usage: embed.py PAGE STYLE SCRIPT OUTPUT

The page has @STYLE@, @SCRIPT@ and @DATA@ where these belong; the last is where
the program writes its figures, so there are two strings: what is before it and
what is behind.
"""

import pathlib
import sys

COLUMNS = 76


def c_string(name, text):
    """An array, since standards allow strings no more than 4095 characters."""
    codes = [f"{byte - (byte > 127) * 256}," for byte in text.encode()] + ["0"]
    lines = [""]
    for code in codes:
        if len(lines[-1]) + len(code) > COLUMNS:
            lines.append("")
        lines[-1] += code
    return f"const char {name}[] = {{\n" + "\n".join(lines) + "\n};\n"


def main():
    page, style, script = (pathlib.Path(path).read_text(encoding="utf-8")
                           for path in sys.argv[1:4])
    before, behind = (page.replace("@STYLE@", style)
                      .replace("@SCRIPT@", script).split("@DATA@"))
    pathlib.Path(sys.argv[4]).write_text(
        '#include "analyze/page/page.h"\n\n' + c_string("page_before", before) + "\n"
        + c_string("page_behind", behind), encoding="ascii")


main()
