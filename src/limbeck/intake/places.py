"""Where a key stands in a TOML file: tomllib gives values without their places, and a message without one sends its reader searching."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.core.errors import ConfigError

Keys = tuple[str | int, ...]  # table and option names, positions in lists
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
STRING = re.compile(r'"""(?:\\.|(?!""").)*"{3,5}|\'\'\'(?:(?!\'\'\').)*\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL)
SCALAR = re.compile(r"[^,\]}#\n]*")


def place(text: str, keys: Keys) -> tuple[int, int] | None:
    """Line and column (from 1, in characters) of the key or list entry that these keys lead to, or of the nearest table around it.

    None if not even the first of them is there. The text must be TOML.
    """
    found = _Reader(text).read()
    for end in range(len(keys), 0, -1):
        at = found.get(keys[:end])
        if at is not None:
            return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return None


@contextmanager
def located(path: Path, *, under: Keys = ()) -> Iterator[None]:
    """A ConfigError from inside says where in this file its value stands, as in `limbeck.toml:12:1: …`.

    Args:
        under: The keys in the file to what is read inside the block; the error's own path goes on from there.
    """
    try:
        yield
    except ConfigError as error:
        at = place(path.read_text(encoding="utf-8"), (*under, *error.path[1:]))
        where = f"{path.name}:{at[0]}:{at[1]}" if at else path.name
        raise ConfigError(f"{where}: {str(error).removeprefix(f'{path.name}.')}", path=error.path) from error


class _Reader:
    """One walk over the text of a TOML file that was parsed before, noting the offset at which each key begins."""

    def __init__(self, text: str):
        self.text, self.at = text, 0
        self.found: dict[Keys, int] = {}
        self.lengths: dict[Keys, int] = {}  # arrays of tables, with how many tables came so far

    def read(self) -> dict[Keys, int]:
        table: Keys = ()
        while self._blank() < len(self.text):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)
        return self.found

    def _header(self) -> Keys:
        start, many = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        keys: Keys = ()
        names = [name for name, _ in self._names()]
        for number, name in enumerate(names, 1):
            keys = (*keys, name)
            self.found.setdefault(keys, start)
            if many and number == len(names):
                self.lengths[keys] = self.lengths.get(keys, 0) + 1
            if keys in self.lengths:
                keys = (*keys, self.lengths[keys] - 1)
        self.found[keys] = start
        self.at += 2 if many else 1
        return keys

    def _pair(self, table: Keys) -> None:
        keys = table
        for name, start in self._names():
            keys = (*keys, name)
            self.found.setdefault(keys, start)
        self.at += 1  # the equals sign
        self._value(keys)

    def _names(self) -> list[tuple[str, int]]:
        """The parts of a dotted key, each with its offset; what comes after them is next."""
        names = []
        while True:
            start = self._blank()
            quoted = STRING.match(self.text, start)
            bare = quoted or BARE.match(self.text, start)
            self.at = bare.end() if bare else start + 1
            names.append((tomllib.loads(f"x = {quoted.group()}")["x"] if quoted else self.text[start : self.at], start))
            if not self.text.startswith(".", self._blank()):
                return names
            self.at += 1

    def _value(self, keys: Keys) -> None:
        opening = self.text[self._blank() : self.at + 1]
        if opening in ("[", "{"):
            self.at += 1
            self._inside(keys, "]" if opening == "[" else "}")
        else:
            found = STRING.match(self.text, self.at) or SCALAR.match(self.text, self.at)
            self.at = found.end() if found else self.at + 1

    def _inside(self, keys: Keys, closing: str) -> None:
        number = 0
        while self._blank() < len(self.text) and not self.text.startswith(closing, self.at):
            if self.text.startswith(",", self.at):
                self.at += 1
            elif closing == "]":
                self.found[(*keys, number)] = self.at
                self._value((*keys, number))
                number += 1
            else:
                self._pair(keys)
        self.at += 1

    def _blank(self) -> int:
        found = BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.at
