"""One score a sample, of which a metric is the mean: what a loss in a part of the samples is read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limbeck.core.metric import Metric, Rows
from limbeck.stats.answers import right


@dataclass(frozen=True)
class Scores:
    """Of each sample both models' score. `binary`: 1 is right, 0 wrong. `rising`: more is better."""

    name: str
    baseline: np.ndarray
    candidate: np.ndarray
    binary: bool
    rising: bool

    @property
    def harm(self) -> np.ndarray:
        """How much worse the candidate is, sample by sample."""
        return (self.baseline - self.candidate) * (1 if self.rising else -1)


def scores_of(metric: Metric, baseline: Rows, candidate: Rows) -> Scores | None:
    """Right or wrong where rows tell it; else the column whose mean is the metric; else the squared error of predictions. None where there is no such thing."""
    both = right(baseline), right(candidate)
    if both[0] is not None and both[1] is not None:
        return Scores("right", both[0].astype(np.float64), both[1].astype(np.float64), True, True)
    for name, column in baseline.items():
        other = candidate.get(name)
        if other is not None and all(_is_mean(metric, rows, rows[name]) for rows in (baseline, candidate)):
            return Scores(name, column.astype(np.float64), other.astype(np.float64), False, metric.direction == "higher")
    errors = [_error(rows) for rows in (baseline, candidate)]
    return Scores("squared error", errors[0], errors[1], False, False) if errors[0] is not None and errors[1] is not None else None


def _is_mean(metric: Metric, rows: Rows, column: np.ndarray) -> bool:
    if column.ndim != 1 or column.dtype.kind not in "iuf" or not len(column) or not np.isfinite(column).all():
        return False
    mean, value = float(column.mean()), metric.value(rows)
    return abs(mean - value) <= 1e-9 * max(abs(mean), abs(value), 1.0)


def _error(rows: Rows) -> np.ndarray | None:
    predicted, target = rows.get("predicted"), rows.get("target")
    if predicted is None or target is None or predicted.shape != target.shape or predicted.dtype.kind != "f" or predicted.ndim > 2 or not np.isfinite(predicted).all():
        return None
    return ((predicted - target) ** 2).reshape(len(predicted), -1).mean(axis=1)
