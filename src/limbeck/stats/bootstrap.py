"""Intervals for any number over paired rows: BCa (bias-corrected, accelerated) bootstrap, resampling whole units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from limbeck.core.errors import ConfigError, Undefined

Columns = Mapping[str, np.ndarray]
Statistic = Callable[[Columns, Columns], float]

TAIL = 20  # resamples beyond a bound, at least
MOST = 10_000  # resamples that this may take: 100 slices of a metric that is no share need bounds at 99.95 %
BEYOND = 5  # resamples beyond a bound that is read from them; one farther out is extrapolated
GROUPS = 200  # jackknife leaves out at most this many groups of units, one at a time
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds. The function that makes it says what confidence a bound carries."""

    value: float
    low: float
    high: float


def bca_lower(
    rows_candidate: Columns,
    rows_baseline: Columns,
    statistic: Statistic,
    *,
    units: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    rare: bool = True,
) -> Interval:
    """Bounds of `statistic(candidate, baseline)`, each one-sided at `confidence` (together 2·confidence − 1).

    Units are drawn with replacement, the same for both models. A unit is a row, or all rows that share a value of the
    column `units`; in a resample each draw is a unit of its own, so that a reduction by unit counts it twice if drawn twice.
    A resample whose statistic is NaN counts against both bounds.

    Args:
        resamples: At least; a bound far out in the tail takes as many as leave `TAIL` of them beyond it, up to `MOST`. Where fewer than
            `BEYOND` are, the bound is extrapolated from that many, as the tail of a normal distribution goes on.
        rare: Widen both bounds where few units carry the spread, or none does (see `_unseen`, `_all_alike`): a draw can't show what the
            sample happened to miss. False gives BCa as published, and no width at all where no resample differs.
    Raises: ConfigError if rows don't match or there are fewer than 2 units; Undefined if the statistic is undefined too often.
    Source: Efron 1987, JASA 82:171; acceleration from the jackknife, by groups where there are more than 200 units.
    """
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 95 % write 0.95.")
    if resamples < 100:
        raise ConfigError(f"resamples must be ≥ 100, got {resamples!r}. 2,000 serve a bound at 95 %.")
    draw = _Units.of(rows_candidate, rows_baseline, units)
    value = float(statistic(rows_candidate, rows_baseline))
    if not np.isfinite(value):
        raise ConfigError(f"the statistic of all rows is {value}; there is nothing to bound. Check that the metric is defined on this split.")
    resamples = max(resamples, min(math.ceil(TAIL / (1 - confidence)), MOST))
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(*draw.resample(np.sort(rng.integers(0, draw.count, draw.count)))) for _ in range(resamples)], dtype=np.float64)
    drawn[np.abs(drawn - value) <= 1e-12 * np.nanmax(np.abs([*drawn, value]))] = value  # rounding decides no tie
    undefined = np.isnan(drawn)
    if np.all((drawn == value) | undefined) and undefined.mean() <= 1 - confidence:
        same = value == float(statistic(rows_baseline, rows_baseline))
        missed = 2 * _all_alike(draw, statistic, confidence, rng) if rare and same else 0.0
        return Interval(value, value - missed, value + missed)
    bias = _bias(drawn, value)
    influence = _influence(np.array([statistic(*rows) for rows in draw.jackknife(rng)], dtype=np.float64))
    skew = _acceleration(influence)
    low, high = (_bound(drawn, level, value=value, bias=bias, skew=skew) for level in (1 - confidence, confidence))
    if rare and (missed := _unseen(influence, confidence)):
        low = min(low, value - missed - math.hypot(max(value - low, 0.0), missed))
        high = max(high, value + missed + math.hypot(max(high - value, 0.0), missed))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Undefined(f"the statistic is undefined in {int((~np.isfinite(drawn)).sum())} of {resamples} resamples, too many for a bound at {confidence:g}. Add samples.")
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class _Units:
    """Both models' rows, and the row numbers of each unit laid end to end."""

    candidate: Columns
    baseline: Columns
    units: str | None
    order: np.ndarray  # row numbers, unit by unit
    starts: np.ndarray  # where each unit begins in `order`
    sizes: np.ndarray

    @staticmethod
    def of(candidate: Columns, baseline: Columns, units: str | None) -> _Units:
        lengths = {len(column) for column in (*candidate.values(), *baseline.values())}
        if len(lengths) != 1 or candidate.keys() != baseline.keys():
            raise ConfigError(
                f"paired rows must have the same columns, all of one length, got {_shape(candidate)} and {_shape(baseline)}. Evaluate both models on the same samples."
            )
        length = lengths.pop()
        if units is None:
            inverse = np.arange(length)
        else:
            if units not in candidate:
                raise ConfigError(f"there is no column '{units}' to resample by; there is {', '.join(candidate)}. Let the metric's rows give it.")
            if not np.array_equal(candidate[units], baseline[units]):
                raise ConfigError(f"column '{units}' differs between candidate and baseline. Evaluate both models on the same samples, in the same order.")
            inverse = np.unique(candidate[units], return_inverse=True)[1]
        sizes = np.bincount(inverse) if length else np.zeros(0, dtype=np.int64)
        if len(sizes) < 2:
            raise ConfigError(f"a bootstrap needs at least 2 units, got {len(sizes)}. Add samples{'' if units is None else f', or units in column {units!r}'}.")
        return _Units(candidate, baseline, units, np.argsort(inverse, kind="stable"), np.cumsum(sizes) - sizes, sizes)

    @property
    def count(self) -> int:
        return len(self.sizes)

    def rows(self, units: np.ndarray) -> np.ndarray:
        """The row numbers of these units, one unit after the other."""
        if self.units is None:
            return units
        sizes = self.sizes[units]
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.order[np.repeat(self.starts[units], sizes) + inside]

    def resample(self, units: np.ndarray) -> tuple[Columns, Columns]:
        """Both models' rows of these units. In rising order they are read as they lie in memory, which of a million takes a third of the time."""
        fresh = {} if self.units is None else {self.units: np.repeat(np.arange(len(units)), self.sizes[units])}
        return self._both(self.rows(units), fresh)

    def _both(self, rows: np.ndarray, fresh: dict[str, np.ndarray]) -> tuple[Columns, Columns]:
        """Both models' columns at these rows, some of them made afresh; one copy where both models are the same."""
        own = {k: v[rows] for k, v in self.candidate.items()} | fresh
        return own, own if self.baseline is self.candidate else {k: v[rows] for k, v in self.baseline.items()} | fresh

    def jackknife(self, rng: np.random.Generator) -> Iterator[tuple[Columns, Columns]]:
        """Rows without one unit, or without one of `GROUPS` random groups of units."""
        shuffled = rng.permutation(self.count) if self.count > GROUPS else np.arange(self.count)
        for group in np.array_split(shuffled, min(self.count, GROUPS)):
            rows = self.rows(np.delete(np.arange(self.count), group))
            yield self._both(rows, {})

    def singly(self, rng: np.random.Generator) -> Iterator[Columns]:
        """The candidate's rows without one unit, for each of at most 2 · `GROUPS` units."""
        for unit in rng.permutation(self.count)[: 2 * GROUPS]:
            rows = self.rows(np.delete(np.arange(self.count), unit))
            yield {k: v[rows] for k, v in self.candidate.items()}


def _shape(rows: Columns) -> str:
    return "{" + ", ".join(f"{k}: {len(v)}" for k, v in rows.items()) + "}"


def _bias(drawn: np.ndarray, value: float) -> float:
    """z₀: how far the middle of the resamples stands from the estimate; ties count half."""
    seen = drawn[~np.isnan(drawn)]
    share = (np.mean(seen < value) + np.mean(seen <= value)) / 2 if seen.size else 0.5
    edge = 0.5 / len(drawn)
    return NORMAL.inv_cdf(float(np.clip(share, edge, 1 - edge)))


def _influence(left_out: np.ndarray) -> np.ndarray:
    """What each unit, or group of them, adds to the statistic; those without which it is undefined left out."""
    seen = left_out[np.isfinite(left_out)]
    return (seen.mean() - seen) * (1 - 1 / max(len(seen), 1)) if seen.size else seen


def _acceleration(influence: np.ndarray) -> float:
    """How the standard error changes with the truth: a sixth of the skewness of the jackknife's influences."""
    scale = float(np.abs(influence).max(initial=0.0))
    if scale == 0:
        return 0.0
    influence = influence / scale
    return float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))


def _unseen(influence: np.ndarray, confidence: float) -> float:
    """What units like the few that carry the spread would change, had z²/2 more of them been seen.

    For a count X of rare units this makes of the bound X + z·√X that of Wilson, X + z²/2 + z·√(X + z²/4). The size of one is
    e = √(Σi⁴ / Σi² − 3·Σi² / groups): of m units alike among many it is nearly one of them, of a normal spread it is 0.
    Source: Wilson 1927, JASA 22:209, for a share; the size of a step for any statistic is ours, and is held by simulation.
    """
    second = float((influence**2).sum())
    if second == 0:
        return 0.0
    step = math.sqrt(max(float((influence**4).sum()) / second - 3 * second / len(influence), 0.0))
    return NORMAL.inv_cdf(confidence) ** 2 / 2 * step


def _all_alike(draw: _Units, statistic: Statistic, confidence: float, rng: np.random.Generator) -> float:
    """What z²/2 units would change where both models do alike on all, if each cost the candidate as much as its best unit is above its worst.

    For a share of n samples, r of them right, this makes of r / r a bound of nearly r / (r + z²), as a score test has it. 0 where the
    statistic doesn't hang on any single unit of the candidate.
    """
    left = np.array([statistic(rows, draw.baseline) for rows in draw.singly(rng)], dtype=np.float64)
    left = left[np.isfinite(left)]
    return NORMAL.inv_cdf(confidence) ** 2 / 2 * float(np.ptp(left)) if left.size else 0.0


def _bound(drawn: np.ndarray, level: float, *, value: float, bias: float, skew: float) -> float:
    """The BCa quantile at `level`; undefined resamples stand beyond the end that is asked for.

    Extrapolated only where `level` itself, before it is corrected, leaves fewer than `BEYOND` resamples beyond it.
    """
    few = min(level, 1 - level) * len(drawn) < BEYOND
    shifted = bias + NORMAL.inv_cdf(level)
    stretch = 1 - skew * shifted
    if stretch <= 0:  # the correction has no answer here: take the end
        level = float(shifted > 0)
    else:
        level = NORMAL.cdf(bias + shifted / stretch)
    low = level < 0.5
    ordered = np.sort(np.where(np.isnan(drawn), -np.inf if low else np.inf, drawn))
    if few and np.isnan(drawn).mean() <= (end := min(level, 1 - level)) < BEYOND / len(drawn) and end > 0:
        near = BEYOND / len(drawn) if low else 1 - BEYOND / len(drawn)
        seen = float(np.quantile(ordered, near, method="lower" if low else "higher"))
        return value + (seen - value) * NORMAL.inv_cdf(level) / NORMAL.inv_cdf(near)
    return float(np.quantile(ordered, level, method="lower" if low else "higher"))
