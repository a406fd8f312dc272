"""Slices by a column of the data: which samples have a value, so that they can be looked at by themselves."""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.core.errors import ConfigError, near
from limbeck.intake.starting.csvfile import Table
from limbeck.intake.starting.questions import SLICE, Interview
from limbeck.intake.starting.source import literal

MOST = 20  # values of a column up to which each is a slice
CODE = '''
def has(column: str, value: str) -> Callable[[Any], Tensor]:
    """A slice: which samples of a batch have this value in this column."""
    at, code = list(SLICES).index(column), SLICES[column].index(value)
    return lambda batch: batch[{where}][:, at] == code
'''
IMPORTS = ("from collections.abc import Callable", "from typing import Any", "from torch import Tensor")
KEYWORD = ("slices", '{f"{column} = {value}": has(column, value) for column, values in SLICES.items() for value in values}', "looked at by themselves")
CODES = "torch.tensor([SLICES[column].index(row[column]) for column in SLICES])"


def slices_of(table: Table, interview: Interview) -> dict[str, list[str]]:
    """Column → its values. Raises ConfigError for a column that isn't there, or has too many values."""

    def check(words: list[str]) -> dict[str, list[str]]:
        for name in words:
            if name not in table.columns:
                raise ConfigError(f"{table.path.name} has no column '{name}'. {near(name, table.columns)}")
            distinct = len(set(table.values[name]))
            if distinct > MOST:
                raise ConfigError(f"column '{name}' has {distinct} different values; a slice needs at most {MOST}. Add a column with groups of them.")
        return {name: sorted(set(table.values[name])) for name in words}

    return interview.settle(SLICE, check)


def constant(slices: Mapping[str, list[str]]) -> str:
    return f"SLICES = {literal(dict(slices))}  # column → its values\n" if slices else ""
