"""What a model is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.errors import ConfigError, TaskError

if TYPE_CHECKING:
    import numpy as np

Rows = Mapping[str, "np.ndarray"]  # columns of equal length, one row a unit


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number over a data set, in two steps, so that it can be resampled: `rows` a batch, then `reduce` over all rows.

    `rows(outputs, batch)` maps a model's outputs (name → array, batch first) and the collated batch to columns of equal
    length; `reduce(columns)` gives the metric.
    """

    name: str
    rows: Callable[[Mapping[str, np.ndarray], Any], Rows]
    reduce: Callable[[Rows], float]
    direction: Literal["higher", "lower"] = "higher"
    chance: float | None = None  # what guessing gets, if that is known
    ratio: bool = True  # whether candidate / baseline means anything; else a limit is an absolute drop
    proportion: str | None = None  # the column of 0s and 1s whose mean is the metric: allows the exact paired test
    unit: str | None = None  # the column that names the resampling unit (document, speaker); None: each row is one
    target: Literal["class", "value", "token"] | None = None  # what is predicted: chooses the default loss

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise ConfigError(f"metric '{self.name}'.direction must be 'higher' or 'lower', got {self.direction!r}. Say which way is better.")

    def number(self, rows: Rows) -> float:
        """What `reduce` gives of these rows, NaN where it is undefined. Raises TaskError if that is no number."""
        found = self.reduce(rows)
        try:
            return float(found)
        except (TypeError, ValueError) as error:
            raise TaskError(f"metric '{self.name}'.reduce must give one number, got {found!r:.100}. Return a float, NaN where the metric is undefined.") from error

    def value(self, rows: Rows) -> float:
        """The metric over all rows. Raises TaskError if it is undefined (NaN) or infinite there."""
        found, count = self.number(rows), len(next(iter(rows.values())))
        if math.isnan(found):
            raise TaskError(f"metric '{self.name}' is undefined (NaN) on these {count} rows: too few, or all of one class or value. Evaluate on more samples.")
        if math.isinf(found):
            raise TaskError(f"metric '{self.name}' is infinite ({found}) on these {count} rows, and no bound is: look for an output or a label that is infinite.")
        return found

    def better(self, one: float, other: float) -> bool:
        """Whether the first is the better of two."""
        return self.drop(one, other) < 0

    def drop(self, candidate: float, baseline: float) -> float:
        """How much worse the candidate is, in the metric's own unit; negative if it is better."""
        return baseline - candidate if self.direction == "higher" else candidate - baseline
