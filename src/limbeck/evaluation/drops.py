"""How much worse one set of rows is than another of the same samples, with bounds on both sides."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.core.errors import ConfigError
from limbeck.core.metric import Metric, Rows
from limbeck.evaluation.quality import counts_of
from limbeck.stats import paired
from limbeck.stats.bootstrap import bca_lower

RESAMPLES = 1000  # a study takes several


@dataclass(frozen=True)
class Drop:
    """The metric's drop in its own unit, negative where it is better, with bounds that are each one-sided; None where there are none."""

    value: float
    low: float | None
    high: float | None
    method: str


def drop(metric: Metric, after: Rows, before: Rows, confidence: float = 0.95) -> Drop:
    """By Tango's score test where the metric is a share of independent samples answered right, else by BCa over units.

    Raises: TaskError if the metric is undefined on these rows; ConfigError if they aren't of the same samples.
    """
    value = metric.drop(metric.value(after), metric.value(before))
    if counts := counts_of(metric, after, before):
        low, high = paired.difference_lower(counts, confidence), paired.difference_upper(counts, confidence)
        return Drop(value, -high, -low, "score difference of paired proportions (Tango)")
    try:
        found = bca_lower(after, before, lambda a, b: metric.drop(metric.number(a), metric.number(b)), units=metric.unit, confidence=confidence, resamples=RESAMPLES)
    except ConfigError as error:  # too few units, or undefined too often
        return Drop(value, None, None, f"no bounds: {error}")
    return Drop(value, found.low, found.high, "BCa bootstrap of the drop")
