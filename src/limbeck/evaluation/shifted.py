"""What two models keep on corrupted samples: at a point (a kind at a strength), of a kind, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.metric import Metric
from limbeck.evaluation import quality
from limbeck.stats import paired
from limbeck.stats.bootstrap import Columns, Interval, bca_lower

BASELINE, CANDIDATE = "baseline", "candidate"  # the sides of a study
POINT, SAMPLE = "shift:point", "shift:sample"  # columns that are added to the metric's rows
CORRUPTED = "corrupted samples"  # the split that they are for a moment
DRAWS = 2000  # of the bootstrap over all points, where a draw is cheap
FEW_DRAWS = 500  # over those of one kind
AT_LEAST = 100  # of the bootstrap of a point, or where a draw isn't cheap; a bound at 95 % takes 400
Rows = dict[str, np.ndarray]
Kept = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A kind at a strength, on these samples: the metric's rows of each side, or why one has none."""

    kind: str
    strength: int
    ids: np.ndarray
    rows: Mapping[str, Rows]
    note: str = ""


def value_of(metric: Metric, rows: Any) -> float | None:
    """The metric, or None where it is undefined."""
    if rows is None:
        return None
    try:
        found = metric.value(rows)
    except TaskError:
        return None
    return found if math.isfinite(found) else None


def bounds_of(metric: Metric, rows: Rows, confidence: float) -> list[float] | None:
    """The metric's interval at a point, each bound one-sided; None where so few samples don't give one."""
    try:
        if quality.exact(metric):
            found = quality.interval(metric, rows, confidence=confidence)
        else:
            found = bca_lower(rows, rows, lambda r, _: metric.number(r), units=metric.unit, confidence=confidence, resamples=AT_LEAST)
    except (ConfigError, TaskError):
        return None
    return [found.low, found.high] if math.isfinite(found.low) and math.isfinite(found.high) else None


def kept_at(metric: Metric, candidate: Rows, baseline: Rows, confidence: float) -> Kept:
    """As `quality.retention`, with fewer draws where it takes draws."""
    if quality.exact(metric):
        found = quality.retention(metric, candidate, baseline, confidence=confidence, split=CORRUPTED)
        return {"value": found.value, "low": found.low, "kind": found.kind}
    as_ratio = _is_ratio(metric) and metric.value(baseline) > 0
    found = bca_lower(
        candidate,
        baseline,
        lambda c, b: _compared(np.array([metric.reduce(c)]), np.array([metric.reduce(b)]), metric, as_ratio),
        units=metric.unit,
        confidence=confidence,
        resamples=AT_LEAST,
    )
    return {"value": found.value, "low": quality.kept_at_least(found.low, found.value) if as_ratio else found.high, "kind": "ratio" if as_ratio else "drop"}


def _is_ratio(metric: Metric) -> bool:
    return metric.ratio and metric.direction == "higher"


def over_all(points: Sequence[Point], metric: Metric, confidence: float, compared: bool) -> tuple[Kept | None, str]:
    """What is kept over all kinds, or why that isn't known."""
    if not compared:
        return None, "there is no baseline to compare with"
    broken = next((p for p in points if p.rows.keys() != {BASELINE, CANDIDATE}), None)
    if broken:
        return None, f"{broken.kind} at strength {broken.strength}: {broken.note}"
    return kept_over(points, metric, confidence)


def kept_over(points: Sequence[Point], metric: Metric, confidence: float) -> tuple[Kept | None, str]:
    """What is kept over these points, with a bound that resamples samples (or the metric's units), all points of one together.

    The sum over points of the candidate's metric over that of the baseline's; where a ratio means nothing, the mean drop. For
    right-or-wrong metrics the bound is no better than the score test's on one row of each sample, which knows that a few samples
    without a difference prove little.
    Source: Hendrycks & Dietterich 2019, arXiv:1903.12261, §4.1, sums over severities before it divides; over kinds it takes the mean of
    ratios, which one kind at which the baseline collapses can carry: so sums there, too.
    """
    columns = {name: _joined(points, name, metric) for name in (CANDIDATE, BASELINE)}
    units = len(np.unique(columns[BASELINE][metric.unit or SAMPLE]))
    if units < 2:
        return None, f"one {metric.unit or 'sample'} has no spread, so nothing bounds what is kept: give more"
    as_ratio = _is_ratio(metric)
    of_points = partial(_by_point, metric=metric, count=len(points))
    if as_ratio and np.nansum(of_points(columns[BASELINE])) <= 0:
        return None, "the baseline's metric isn't above 0 under corruption, so a ratio to it means nothing"

    def statistic(c: Columns, b: Columns) -> float:
        return _compared(of_points(c), of_points(b), metric, as_ratio)

    draws = (DRAWS if len({p.kind for p in points}) > 1 else FEW_DRAWS) if metric.proportion else AT_LEAST
    try:
        found = bca_lower(columns[CANDIDATE], columns[BASELINE], statistic, units=metric.unit or SAMPLE, confidence=confidence, resamples=draws)
    except (ConfigError, TaskError) as error:
        return None, str(error)
    low = found.low if as_ratio else found.high
    if as_ratio:
        low = quality.kept_at_least(min(low, _at_best(metric, columns, confidence, found)), found.value)
    return {"value": found.value, "low": low, "kind": "ratio" if as_ratio else "drop", "units": units}, ""


def _joined(points: Sequence[Point], name: str, metric: Metric) -> Rows:
    """The rows of all points end to end, each with the number of its point and, where rows are samples, of its sample; of a proportion what it is read from."""
    parts = []
    needed = {metric.proportion, metric.unit}
    for number, point in enumerate(points):
        rows = {key: column for key, column in point.rows[name].items() if metric.proportion is None or key in needed}
        length = len(next(iter(rows.values())))
        samples = point.ids if length == len(point.ids) else np.arange(length)
        parts.append({**rows, POINT: np.full(length, number), SAMPLE: samples})
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def _by_point(rows: Columns, *, metric: Metric, count: int) -> np.ndarray:
    """The metric of each point; NaN where a resample has none of its rows."""
    where = rows[POINT]
    if metric.proportion and metric.proportion in rows:
        with np.errstate(invalid="ignore"):
            return np.bincount(where, weights=rows[metric.proportion], minlength=count) / np.bincount(where, minlength=count)
    order = np.argsort(where, kind="stable")
    ends = np.searchsorted(where[order], np.arange(count + 1))
    own = {key: value[order] for key, value in rows.items() if key not in (POINT, SAMPLE)}
    return np.array([metric.reduce({k: v[a:b] for k, v in own.items()}) if b > a else math.nan for a, b in pairwise(ends)])


def _compared(candidate: np.ndarray, baseline: np.ndarray, metric: Metric, as_ratio: bool) -> float:
    """The ratio of sums over points, or the mean drop; NaN where there is none. Points without rows are left out."""
    known = np.isfinite(candidate) & np.isfinite(baseline)
    if not known.any():
        return math.nan
    own, first = float(candidate[known].sum()), float(baseline[known].sum())
    if as_ratio:
        return own / first if first > 0 else math.nan
    return metric.drop(own, first) / int(known.sum())


def _at_best(metric: Metric, columns: Mapping[str, Rows], confidence: float, found: Interval) -> float:
    """The least that sameness on so few samples leaves open; no limit for metrics that aren't right-or-wrong by the sample, unless nothing varies."""
    first = np.unique(columns[BASELINE][metric.unit or SAMPLE], return_index=True)[1]
    if metric.proportion and metric.unit is None:
        counts = paired.counts(*(columns[name][metric.proportion][first] for name in (CANDIDATE, BASELINE)))
        return paired.ratio_lower(counts, confidence) if counts.baseline else 0.0
    z = paired.quantile(confidence)
    return found.value * len(first) / (len(first) + z * z) if found.low == found.high else math.inf
