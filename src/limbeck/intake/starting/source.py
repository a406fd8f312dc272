"""Python and TOML text from values: quoted so that any name means the same when it is read again, imports sorted, lines not too long."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError

WIDTH = 120
SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
FROM = re.compile(r"from (\S+) import (.+)")


def quoted(text: str) -> str:
    """A string literal that Python and TOML read alike. Raises ConfigError for half of a character, which no file can hold."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ConfigError(f"the name {text!a} isn't Unicode text. Rename it: it is written into task.py.")
    return '"' + "".join(SHORT.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text) + '"'


def literal(value: Any, *, indent: int = 0, taken: int = 0) -> str:
    """Plain data as Python source; what doesn't fit on a line of 120 (of which `taken` are gone) gets a line for each entry."""
    flat = _flat(value)
    if len(flat) + indent + taken <= WIDTH or not isinstance(value, (Mapping, list, tuple)):
        return flat
    pad = " " * (indent + 4)
    if isinstance(value, Mapping):
        body = "".join(f"{pad}{_flat(k)}: {literal(v, indent=indent + 4, taken=len(_flat(k)) + 3)},\n" for k, v in value.items())
    else:
        body = "".join(f"{pad}{literal(v, indent=indent + 4)},\n" for v in value)
    first, last = ("{", "}") if isinstance(value, Mapping) else ("[", "]") if isinstance(value, list) else ("(", ")")
    return f"{first}\n{body}{' ' * indent}{last}"


def _flat(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flat(k)}: {_flat(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def number(value: float, digits: int = 5) -> float:
    """A figure as it is written: `digits` significant ones."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def place(path: Path, folder: Path) -> str:
    """A path as an expression in task.py: from HERE where it lies inside the folder, else absolute."""
    path, folder = path.resolve(), folder.resolve()
    if path == folder:
        return "HERE"
    if path.is_relative_to(folder):
        return " / ".join(("HERE", *(quoted(part) for part in path.relative_to(folder).parts)))
    return f"Path({quoted(str(path))})"


def relative(path: Path, folder: Path) -> str:
    """A path as Task.weights takes it: relative to the folder, or absolute where the way there leaves it."""
    path, folder = path.resolve(), folder.resolve()
    return os.fspath(path.relative_to(folder)) if path.is_relative_to(folder) else os.fspath(path)


def imports(lines: Iterable[str], folder: Path | None = None) -> str:
    """Import lines, merged and sorted as isort has it: standard library, what is installed, what lies in `folder`."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    for line in lines:
        found = FROM.fullmatch(line)
        if found:
            names.setdefault(found[1], set()).update(name.strip() for name in found[2].split(","))
        else:
            plain.add(line)
    made = [(line.split()[1], 0, line) for line in plain]
    made += [(module, 1, f"from {module} import {', '.join(sorted(found, key=_order))}") for module, found in names.items()]
    sections: dict[int, list[tuple[int, str, str]]] = {0: [], 1: [], 2: []}
    for module, style, line in made:
        top = module.split(".")[0]
        own = folder is not None and ((folder / f"{top}.py").is_file() or (folder / top).is_dir())
        sections[2 if own else 0 if top in sys.stdlib_module_names else 1].append((style, module.casefold(), line))
    return "\n\n".join("\n".join(line for _, _, line in sorted(section)) for section in sections.values() if section)


def _order(name: str) -> tuple[int, str]:
    """Constants, classes, functions."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def call(function: str, arguments: Sequence[tuple[str, str, str]]) -> str:
    """A call with one keyword a line: (name, source, comment)."""
    return f"{function}(\n" + "".join(f"    {name}={source},{'  # ' + comment if comment else ''}\n" for name, source, comment in arguments) + ")"
