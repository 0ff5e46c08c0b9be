#!/usr/bin/env python3
"""Write a program that refers to every function that the headers export."""

import argparse
import os

import symbols

PROGRAM = """\
{includes}

#include <stdio.h>

typedef void (*function)(void);

static const struct {{
    const char *name;
    function address;
}} symbols[] = {{
{entries}
}};

int main(void)
{{
    int missing = 0;

    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {{
        if (!symbols[i].address) {{
            printf("%s is missing\\n", symbols[i].name);
            missing++;
        }}
    }}
    return missing != 0;
}}
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--include", required=True, help="root of the headers")
parser.add_argument("header", nargs="+")
args = parser.parse_args()

print(PROGRAM.format(
    includes="\n".join(f"#include <{os.path.relpath(header, args.include)}>"
                       for header in args.header),
    entries="\n".join(f'    {{"{name}", (function){name}}},'
                      for name in sorted(symbols.declared(args.header)))))
