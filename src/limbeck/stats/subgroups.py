"""Parts of a data set that a shallow tree finds on one half of it, and whether they stand out on the other half for more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from limbeck.core.errors import ConfigError

DEPTH = 3  # conditions of a part at most
LEAST = 20  # samples of a part in the half in which it was found, and of what is left beside it
CUTS = 31  # places at which a column of numbers may be cut
DIGITS = 3  # significant ones of a cut, so that it can be read out
PERMUTATIONS = 2000
TAIL = 20  # permutations beyond a bound, at least
FEW = 8  # distinct whole numbers up to which they are taken for names
ROUNDING = 1e-6  # relative; numbers that differ by less are the same
CHUNK = 1 << 22  # numbers that are permuted at once
SIGNS = {"is": "=", "is not": "≠", "above": ">", "at most": "≤"}


@dataclass(frozen=True)
class Column:
    """What is known of each sample: numbers (NaN where nothing is), or with `names` the place of each sample's name in them."""

    name: str
    values: np.ndarray
    names: tuple[str, ...] | None = None

    def take(self, rows: np.ndarray) -> Column:
        return Column(self.name, self.values[rows], self.names)


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value; of a column with names, a name."""

    column: str
    kind: Literal["is", "is not", "above", "at most"]
    value: float | str

    def holds(self, column: Column) -> np.ndarray:
        """One bool a sample; false where nothing is known."""
        if isinstance(self.value, str):
            same = column.values == (column.names or ()).index(self.value)
            return same if self.kind == "is" else ~same
        return column.values > self.value if self.kind == "above" else column.values <= self.value

    def __str__(self) -> str:
        return f"{self.column} {SIGNS[self.kind]} {self.value if isinstance(self.value, str) else format(self.value, '.6g')}"


@dataclass(frozen=True)
class Part:
    """A part of the samples, and by how many standard errors its mean lay above that of the rest where it was found."""

    conditions: tuple[Condition, ...]
    excess: float

    def holds(self, columns: Sequence[Column]) -> np.ndarray:
        known = {column.name: column for column in columns}
        return np.logical_and.reduce([c.holds(known[c.column]) for c in self.conditions])

    def __str__(self) -> str:
        return " and ".join(map(str, self.conditions))


def grown(columns: Sequence[Column], harm: np.ndarray, *, depth: int = DEPTH, least: int = LEAST) -> tuple[Part, ...]:
    """Every part that a regression tree cuts out whose mean harm lies above that of all others, the surest first.

    Each cut is the one condition that lessens the variance of `harm` most; one value against the rest for a column with names.

    Args:
        least: Samples on either side of a cut.
    Source: Breiman et al. 1984, Classification and Regression Trees, §8.4; to find slices: Chung et al. 2019, arXiv:1807.06068, §3.1.
    """
    found: dict[bytes, Part] = {}
    for conditions, mask in _nodes(columns, harm, (), np.ones(len(harm), dtype=bool), depth, least):
        excess = float(_excess(harm[:, None], mask[None])[0, 0])
        if excess > 0:
            found.setdefault(mask.tobytes(), Part(_merged(conditions), excess))
    return tuple(sorted(found.values(), key=lambda part: -part.excess))


def _nodes(
    columns: Sequence[Column], harm: np.ndarray, conditions: tuple[Condition, ...], inside: np.ndarray, depth: int, least: int
) -> Iterator[tuple[tuple[Condition, ...], np.ndarray]]:
    best = _cut(columns, harm, inside, least) if depth and inside.sum() >= 2 * least else None
    for condition, mask in best or ():
        yield (*conditions, condition), mask
        yield from _nodes(columns, harm, (*conditions, condition), mask, depth - 1, least)


def _cut(columns: Sequence[Column], harm: np.ndarray, inside: np.ndarray, least: int) -> list[tuple[Condition, np.ndarray]] | None:
    """Both sides of the best cut of these samples; None where no cut lessens the variance."""
    best: tuple[float, list[tuple[Condition, np.ndarray]]] | None = None
    for column in columns:
        for pair in _pairs(column, inside):
            sides = [(condition, inside & condition.holds(column)) for condition in pair]
            counts = [int(mask.sum()) for _, mask in sides]
            if min(counts) < least:
                continue
            gap = float(harm[sides[0][1]].mean() - harm[sides[1][1]].mean())
            gain = counts[0] * counts[1] / sum(counts) * gap * gap
            if gain > 1e-12 and (best is None or gain > best[0] * (1 + 1e-9)):
                best = gain, sides
    return best[1] if best else None


def _pairs(column: Column, inside: np.ndarray) -> Iterator[tuple[Condition, Condition]]:
    values = column.values[inside]
    if column.names is not None and len(column.names) == 2:
        yield Condition(column.name, "is", column.names[0]), Condition(column.name, "is", column.names[1])
        return
    if column.names is not None:
        for code in np.unique(values):
            name = column.names[int(code)]
            yield Condition(column.name, "is", name), Condition(column.name, "is not", name)
        return
    values = values[np.isfinite(values)]
    distinct = np.unique(values)
    cuts = (distinct[:-1] + distinct[1:]) / 2 if len(distinct) <= CUTS + 1 else np.quantile(values, np.arange(1, CUTS + 1) / (CUTS + 1))
    for cut in dict.fromkeys(_readable(float(v)) for v in cuts):
        yield Condition(column.name, "above", cut), Condition(column.name, "at most", cut)


def _readable(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _merged(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """The same part in fewer words: the last of several bounds on one side is the tightest, and what is one name isn't another."""
    named = {c.column for c in conditions if c.kind == "is"}
    last = {(c.column, c.kind, c.value if c.kind == "is not" else None): c for c in conditions}
    return tuple(c for c in last.values() if c.kind != "is not" or c.column not in named)


def standing_out(harm: np.ndarray, masks: np.ndarray, *, confidence: float = 0.95, seed: int = 0) -> np.ndarray:
    """For each part (a row of bools) the p-value of "its mean harm is no greater than that of the rest", corrected for all parts together.

    Harms are permuted over the samples; what is compared is the greatest Welch statistic of all parts, so that parts which overlap
    cost little. Studentized, the test keeps its level where a part only varies more than the rest.

    Raises: ConfigError if confidence isn't in (0.5, 1).
    Source: Westfall & Young 1993, Resampling-Based Multiple Testing, §2.6; Chung & Romano 2013, arXiv:1304.5939, on studentizing.
    """
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 95 % write 0.95.")
    count, rng = max(PERMUTATIONS, math.ceil(TAIL / (1 - confidence))), np.random.default_rng(seed)
    own, beyond, done = _excess(harm[:, None], masks)[:, 0], np.zeros(len(masks)), 0
    while done < count:
        size = min(count - done, max(1, CHUNK // max(len(harm), 1)))
        shuffled = rng.permuted(np.repeat(harm[:, None], size, axis=1), axis=0)
        greatest = _excess(shuffled, masks).max(axis=0)
        beyond += (greatest[None] >= own[:, None] - 1e-9).sum(axis=1)
        done += size
    return (beyond + 1) / (count + 1)


def _excess(harm: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Welch's statistic of each part (rows) against the rest, for each column of harms; 0 where a side is empty."""
    inside = masks.astype(np.float64)
    counts, total = inside.sum(axis=1, keepdims=True), float(len(harm))
    sums, squares = inside @ harm, inside @ (harm * harm)
    rest, rest_squares, left = harm.sum(axis=0) - sums, (harm * harm).sum(axis=0) - squares, total - counts
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / counts - rest / left
        spread = _spread(sums, squares, counts) + _spread(rest, rest_squares, left)
        found = gap / np.sqrt(spread)
    found = np.where(spread > 1e-15, found, np.sign(np.where(np.abs(gap) > 1e-12, gap, 0.0)) * 1e9)
    return np.where((counts > 0) & (left > 0), found, 0.0)


def _spread(sums: np.ndarray, squares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The square of the standard error of a mean."""
    return np.maximum(squares - sums * sums / counts, 0.0) / np.maximum(counts - 1, 1) / counts


def column_of(name: str, values: np.ndarray) -> Column | None:
    """A column from what somebody gives of each sample: text and bools by name, few whole numbers too; None where all are the same."""
    raw = np.asarray(values)
    if raw.dtype.kind in "USb" or (raw.dtype.kind in "iu" and len(np.unique(raw)) <= FEW):
        names, codes = np.unique(raw, return_inverse=True)
        shown = tuple(str(n).lower() if raw.dtype.kind == "b" else str(n) for n in names)
        return Column(name, codes, shown) if len(shown) > 1 else None
    numbers = raw.astype(np.float64)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    known = numbers[~np.isnan(numbers)]
    return Column(name, numbers) if known.size and np.ptp(known) > ROUNDING * np.abs(known).max() else None
