"""From data to places on paper: linear and logarithmic axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Values in [low, high] to places in [start, end]; `log` for ratios, then low > 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, kept within the axis."""
        low, high, at = (math.log10(max(v, 1e-300)) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def ticks(self, most: int = 5, *, whole: bool = False) -> list[float]:
        """Round values within the axis, at most about so many; with `whole`, whole numbers alone."""
        if whole:
            step = max(1, math.ceil((self.high - self.low) / most))
            return [float(v) for v in range(math.ceil(self.low / step) * step, math.floor(self.high) + 1, step)] or [self.low]
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def fitted(values: Iterable[float], start: float, end: float, *, zero: bool = False, log: bool = False) -> Scale:
    """An axis on which all of these find room, its ends a little beyond them; with `zero` it starts there."""
    found = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not found:
        return Scale(1.0 if log else 0.0, 10.0 if log else 1.0, start, end, log)
    low, high = min(found), max(found)
    if log:
        return Scale(low / 1.1, high * 1.1, start, end, log=True)
    low = min(low, 0.0) if zero else low
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return Scale(low if zero and low == 0 else low - room, high + room, start, end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
        if len(found) <= most:
            return found or [low, high]
    every = math.ceil(len(found) / most)
    return found[::every]
