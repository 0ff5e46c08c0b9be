"""What the headers declare, what a map lists, what a library exports."""

import re
import subprocess


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def without_directives(text):
    return re.sub(r"^\s*#(\\\n|[^\n])*", "", text, flags=re.M)


def declared(paths):
    """The functions that these headers mark as exported."""
    names = set()
    for path in paths:
        with open(path, encoding="utf-8") as header:
            text = without_directives(without_comments(header.read()))
        for declaration in re.findall(r"PGSHARE_EXPORT\b([^;{]*)", text):
            name = re.search(r"\b(pgshare_\w+)\s*\(", declaration)
            if not name:
                raise SystemExit(f"{path}: not a function: {declaration.strip()}")
            names.add(name[1])
    return names


def mapped(path):
    """The symbols of a version script, as {symbol: version}."""
    with open(path, encoding="utf-8") as script:
        text = without_comments(script.read())
    symbols = {}
    for version, body in re.findall(r"(\w[\w.]*)\s*\{(.*?)\}", text, flags=re.S):
        public = body.split("global:")[-1].split("local:")[0]
        for symbol in re.findall(r"(\w+)\s*;", public):
            symbols[symbol] = version
    return symbols


def exported(path):
    """The symbols that a shared library defines, as {symbol: version}."""
    lines = subprocess.run(
        ["nm", "-D", "--defined-only", "--with-symbol-versions", path],
        check=True, capture_output=True, text=True).stdout.splitlines()
    symbols = {}
    for line in lines:
        kind, name = line.split()[-2:]
        symbol, _, version = name.partition("@")
        if kind != "A":  # the version's own name
            symbols[symbol] = version.lstrip("@")
    return symbols
