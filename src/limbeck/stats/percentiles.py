"""What measured timings prove of a percentile: in blocks, depending on each other, their number perhaps decided by what they showed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from limbeck.stats import sequential
from limbeck.stats.dependence import inflation_of

Blocks = Sequence[Sequence[float]]
FAR = 10.0  # times the slowest block: more than a clock, or the company of other processes, slows a machine by


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Whether a percentile keeps a limit, and what that rests on."""

    answer: str  # "below", "above" or "undecided"
    over: int  # timings above the limit
    samples: int
    inflation: float  # how many timings count as one
    needed: int | None  # timings in all that would settle it, at the same share over the limit; None if no number is sure to


def claim(blocks: Blocks, limit: float, *, percentile: float, confidence: float = 0.99, anytime: bool = False) -> Claim:
    """What these timings prove of a percentile and a limit, in their unit.

    Args:
        anytime: Whether it was looked at while they were taken, so that their number depends on them: then the rule of
            `stats.sequential` holds; else the binomial rule for a sample of fixed size (`stats.latency`).
    """
    values = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    over, n = int((values > limit).sum()), len(values)
    inflation = 1.0 if over == 0 and limit >= _reach(blocks) else inflation_of(blocks, percentile=percentile)
    options = {"percentile": percentile, "confidence": confidence, "inflation": inflation}
    if anytime:
        return Claim(answer=sequential.anytime_verdict(over, n, **options), over=over, samples=n, inflation=inflation, needed=sequential.anytime_needed(over, n, **options))
    from limbeck.stats.latency import fixed_needed, fixed_verdict

    return Claim(answer=fixed_verdict(over, n, **options), over=over, samples=n, inflation=inflation, needed=fixed_needed(over, n, **options))


def bounds(blocks: Blocks, *, percentile: float, confidence: float = 0.99, anytime: bool = False) -> tuple[float | None, float | None]:
    """Order statistics between which the percentile lies, each bound one-sided at this confidence; None where the timings don't bound it.

    The upper one is the least limit that they prove, the lower one that below which they refuse every limit, by the rule of `claim`.
    No distribution is assumed; where timings came in phases that are too long to be counted, the upper one is where `claim` stops doubting.
    """
    values = np.sort(np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks]))
    options = {"percentile": percentile, "confidence": confidence, "anytime": anytime}
    below, above = most_over(len(values), **options, inflation=inflation_of(blocks, percentile=percentile))
    high = float(values[len(values) - below - 1]) if below is not None else None
    if high is None and most_over(len(values), **options)[0] is not None and math.isfinite(reach := _reach(blocks)):
        high = reach
    return None if above is None else float(values[-above]), high


def _reach(blocks: Blocks) -> float:
    """From which limit on phases are no reason to doubt that none is over it: 10 times the slowest block, and as much above the
    slowest timing as the slowest block is above the fastest.

    So a phase that nobody saw would have to be ten times slower than the slowest seen, and slower than it by more than that is than
    the fastest. An assumption of scale, the only one here: without it a clock that changed once in a second makes seconds of 1 ms
    prove nothing of a minute. What was seen of a slow drift alone says too little: a piece of it looks calm.
    """
    medians = [float(median(block)) for block in blocks if len(block)]
    if not medians or min(medians) <= 0:
        return math.inf
    return max(FAR * max(medians), float(max(max(block) for block in blocks if len(block))) * max(medians) / min(medians))


def most_over(n: int, *, percentile: float, confidence: float = 0.99, anytime: bool = False, inflation: float = 1.0) -> tuple[int | None, int | None]:
    """How many of n timings may at most be over a limit that they prove, and how many are at least over one that they refuse; None if no number is."""
    from limbeck.stats.latency import fixed_verdict

    rule = sequential.anytime_verdict if anytime else fixed_verdict
    options = {"percentile": percentile, "confidence": confidence, "inflation": inflation}
    below = _last(lambda over: rule(over, n, **options) == "below", n - 1)
    under = _last(lambda under: rule(n - under, n, **options) == "above", n - 1)
    return below, None if under is None else n - under


def _last(holds: Callable[[int], bool], most: int) -> int | None:
    """The greatest k from 0 to `most` for which it holds, it holding up to some k and never after; None if it never holds."""
    if most < 0 or not holds(0):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
