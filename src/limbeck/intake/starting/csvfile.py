"""A CSV or TSV file: its columns, what they seem to hold, and the part of task.py that reads it."""

from __future__ import annotations

import csv
import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limbeck.core.errors import ConfigError
from limbeck.intake.starting.questions import SPLIT, Interview
from limbeck.intake.starting.source import place, quoted

LABELS = ("label", "labels", "target", "class", "y", "category", "sentiment", "outcome", "price")
TEXTS = ("text", "sentence", "review", "content", "message", "body", "comment", "question", "title")
SPLITS = ("split", "set", "subset", "partition", "fold")
NAMES = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "test": "test", "testing": "test"}
SHARES = (70, 85)  # hundredths below which a sample is in train, then in validation
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
MOST_CLASSES = 20  # distinct whole numbers up to which they are taken for classes
WORDS = 3  # words in the middle entry of a column from which it is text


@dataclass(frozen=True)
class Table:
    """The rows of a file as text."""

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    @cached_property
    def values(self) -> dict[str, list[str]]:
        return {name: [row[name] for row in self.rows] for name in self.columns}

    def numeric(self, column: str) -> bool:
        """Whether every entry that isn't missing is a number."""
        known = [v for v in self.values[column] if not missing(v)]
        return bool(known) and all(as_number(v) is not None for v in known)

    def textual(self, column: str) -> bool:
        return not self.numeric(column) and statistics.median(len(v.split()) for v in self.values[column]) >= WORDS


def missing(value: str) -> bool:
    return value.strip().lower() in MISSING


def as_number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def read(path: Path) -> Table:
    """Raises ConfigError if it can't be read, has no rows, columns that share a name or have none, or a row of another length."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = _delimiter(path, file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise ConfigError(f"{path.name}, line {reader.line_num}: a row must have {len(header)} fields like the header, got {len(row)}. Mend or quote it.")
                if row:
                    rows.append(dict(zip(header, row, strict=True)))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{path} is not CSV: {error}. Save it again.") from error
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice or "" in header:
        raise ConfigError(f"{path.name}: every column needs a name of its own, got {twice[0] if twice else ''!r} {'twice' if twice else 'as one'}. Mend its first line.")
    if not rows:
        raise ConfigError(f"{path.name} has no rows below its first line, which names the columns. Add samples.")
    return Table(path, delimiter, tuple(header), tuple(rows))


def _delimiter(path: Path, first: str) -> str:
    if path.suffix == ".tsv":
        return "\t"
    return max((",", ";", "\t"), key=first.count)


def guess(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The column that is called as usual, or None."""
    known = {name.strip().lower(): name for name in reversed(names)}
    return next((known[name] for name in usual if name in known), None)


def looks_like_values(table: Table, column: str) -> bool | None:
    """Whether a label column holds values to come close to (True), classes (False), or either (None)."""
    known = [v for v in table.values[column] if not missing(v)]
    numbers = [as_number(v) for v in known]
    if any(n is None for n in numbers):
        return False
    found = [n for n in numbers if n is not None]
    if any(n != int(n) for n in found):
        return True
    distinct = len(set(found))
    return False if distinct <= 2 else None if distinct <= MOST_CLASSES else True


@dataclass(frozen=True)
class Split:
    """How rows fall into splits: by a column, or by a hash of what is judged, so that equal samples stay together."""

    column: str | None
    hashed: tuple[str, ...]

    def of(self, row: Mapping[str, str]) -> str:
        if self.column:
            return NAMES[row[self.column].strip().lower()]
        share = int(hashlib.sha256("\n".join(row[name] for name in self.hashed).encode()).hexdigest()[:8], 16) % 100
        return "train" if share < SHARES[0] else "validation" if share < SHARES[1] else "test"

    def source(self, table: Table, columns: str) -> str:
        """`split_of` for task.py. columns: the expression of the hashed columns."""
        if self.column:
            used = {name: NAMES[name.strip().lower()] for name in dict.fromkeys(table.values[self.column])}
            names = ", ".join(f"{quoted(k)}: {quoted(v)}" for k, v in used.items())
            return f'def split_of(row: dict[str, str]) -> str:\n    """Where a row belongs."""\n    return {{{names}}}[row[{quoted(self.column)}]]\n'
        return (
            "def split_of(row: dict[str, str]) -> str:\n"
            '    """Where a row belongs, by a hash that stays when other rows come or go; equal samples stay together."""\n'
            f'    key = "\\n".join(row[name] for name in {columns})\n'
            "    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100\n"
            f'    return "train" if share < {SHARES[0]} else "validation" if share < {SHARES[1]} else "test"\n'
        )


def split_by(table: Table, interview: Interview, hashed: tuple[str, ...]) -> Split:
    """The split of a table, asked for where a column looks like one. Raises ConfigError for entries that name no split."""
    found = guess(table.columns, SPLITS)
    usable = found if found and {v.strip().lower() for v in table.values[found]} <= NAMES.keys() else None

    def check(name: str) -> Split:
        if name == "none":
            return Split(None, hashed)
        odd = next((v for v in table.values[name] if v.strip().lower() not in NAMES), None)
        if odd is not None:
            raise ConfigError(f"column '{name}' must say train, validation or test, got {odd!r}. Mend it, or take none.")
        return Split(name, hashed)

    return interview.settle(SPLIT, check, default=usable or "none", choices=("none", *table.columns))


def constants(table: Table, folder: Path) -> str:
    return f"DATA = {place(table.path, folder)}\nDELIMITER = {quoted(table.delimiter)}\n"


READ = '''
def read(split: str) -> list[dict[str, str]]:
    """The rows of a split."""
    with DATA.open(newline="", encoding="utf-8-sig") as file:
        return [row for row in csv.DictReader(file, delimiter=DELIMITER) if split_of(row) == split]
'''
IMPORTS = ("import csv", "import hashlib", "from pathlib import Path")
