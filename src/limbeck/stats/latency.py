"""What a handful of timings can prove: percentiles by the binomial rule, and how many times faster one model is than another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.stats.bootstrap import Interval
from limbeck.stats.order import median_interval

Verdict = Literal["below", "above", "undecided"]
MOST = 10_000_000  # samples; who needs more will never know


def percentile_verdict(samples: Sequence[float] | np.ndarray, limit: float, *, percentile: float = 0.9, confidence: float = 0.99) -> Verdict:
    """Whether a percentile of latency is at most `limit` (same unit as the samples), of independent samples of a fixed number.

    If the percentile were above the limit, more than 1 − percentile of all samples would be over it. "below" if as few as
    were seen then have a probability ≤ 1 − confidence; "above" the other way round; else "undecided". What was measured, in
    blocks and perhaps until it was settled, is judged by `stats.percentiles`.
    Raises: ConfigError for a percentile or confidence that isn't a fraction, or a sample that is NaN.
    """
    values = _samples(samples)
    return fixed_verdict(int((values > limit).sum()), len(values), percentile=percentile, confidence=confidence)


def fixed_verdict(over: int, n: int, *, percentile: float = 0.9, confidence: float = 0.99, inflation: float = 1.0) -> Verdict:
    """The same of a count over the limit.

    Args:
        inflation: ≥ 1, how many samples count as one (`stats.dependence`); what is left of one is rounded against the claim.
    """
    _fractions(percentile, confidence)
    options = {"percentile": percentile, "confidence": confidence}
    if n and _below(math.ceil(over / inflation), math.floor(n / inflation), **options):
        return "below"
    return "above" if n and _above(math.floor(over / inflation), math.ceil(n / inflation), **options) else "undecided"


def least_samples(over: int = 0, *, percentile: float = 0.9, confidence: float = 0.99) -> int:
    """The least number of samples, `over` of them above the limit, with which `percentile_verdict` says "below"."""
    _fractions(percentile, confidence)
    if over < 0:
        raise ConfigError(f"over must be ≥ 0, got {over!r}. It counts samples above the limit.")
    return _first(lambda n: _below(over, n, percentile=percentile, confidence=confidence), over + 1) or 0


def samples_needed(samples: Sequence[float] | np.ndarray, limit: float, *, percentile: float = 0.9, confidence: float = 0.99) -> int | None:
    """How many samples in all would settle `percentile_verdict`, if the share over the limit stays what it is.

    The present number if it is settled; None if the share is (nearly) that of the percentile, so that no number would do.
    """
    values = _samples(samples)
    return fixed_needed(int((values > limit).sum()), len(values), percentile=percentile, confidence=confidence)


def fixed_needed(over: int, n: int, *, percentile: float = 0.9, confidence: float = 0.99, inflation: float = 1.0) -> int | None:
    """The same of a count over the limit; `inflation` as in `fixed_verdict`."""
    _fractions(percentile, confidence)
    share, start = over / n if n else 0.0, max(math.floor(n / inflation), 1)
    options = {"percentile": percentile, "confidence": confidence}
    if share < 1 - percentile:
        found = _first(lambda k: _below(math.ceil(share * k - 1e-9), k, **options), start)
    else:
        found = _first(lambda k: _above(math.floor(share * k + 1e-9), k, **options), start)
    return None if found is None else max(n, math.ceil(found * inflation)) if inflation > 1 else found


def percentile(samples: Sequence[float] | np.ndarray, q: float, *, confidence: float = 0.99) -> float | None:
    """The q-quantile of the samples, or None if they are too few to bound it from the side of its tail.

    Too few: fewer than those with which the binomial rule decides if none is over (44 for q = 0.9, 7 for the median).
    """
    values = _samples(samples)
    if len(values) < least_samples(percentile=max(q, 1 - q), confidence=confidence):
        return None
    return float(np.quantile(values, q))


def turns_needed(confidence: float = 0.99) -> int:
    """The least number of turns that give `median_ratio` an interval: the n with 2·0.5ⁿ ≤ 1 − confidence (8 at 99 %)."""
    _fractions(0.5, confidence)
    return math.ceil(math.log2(2 / (1 - confidence)) - 1e-9)


def median_ratio(blocks_a: Sequence[Sequence[float]], blocks_b: Sequence[Sequence[float]], *, confidence: float = 0.99) -> Interval:
    """How many times as long a takes as b: the median over turns of the ratio of block medians (a / b).

    The i-th blocks of both were taken in the same turn, so what slows both at that time cancels. The interval is two-sided,
    from order statistics (binomial, free of distributions); with fewer than `turns_needed` turns it is (0, ∞).
    Raises: ConfigError if turns don't pair up, a block is empty, or a time isn't a positive number.
    """
    if len(blocks_a) != len(blocks_b) or not len(blocks_a):
        raise ConfigError(f"blocks must be taken in turn, got {len(blocks_a)} and {len(blocks_b)}. Time both models once a turn, at least one turn.")
    _fractions(0.5, confidence)
    found = median_interval(_medians(blocks_a) / _medians(blocks_b), confidence=confidence)
    return found if math.isfinite(found.low) else replace(found, low=0.0)  # a ratio of times is positive


def _below(over: int, n: int, *, percentile: float, confidence: float) -> bool:
    from scipy.special import bdtr

    return bool(bdtr(over, n, 1 - percentile) <= 1 - confidence)


def _above(over: int, n: int, *, percentile: float, confidence: float) -> bool:
    from scipy.special import bdtrc

    return over > 0 and bool(bdtrc(over - 1, n, 1 - percentile) <= 1 - confidence)


def _first(settled: Callable[[int], bool], start: int) -> int | None:
    """The least n ≥ start that settles it (give or take one, as shares are rounded to whole samples), by halving."""
    high = start
    while not settled(high):
        high *= 2
        if high > MOST:
            return None
    low = max(start, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle + 1, high)
    return low


def _medians(blocks: Sequence[Sequence[float]]) -> np.ndarray:
    """The median of each turn's block."""
    if len({len(block) for block in blocks}) == 1 and blocks[0]:
        table = np.asarray(blocks, dtype=np.float64)
        if table.ndim == 2 and np.isfinite(table).all() and table.min() > 0:
            return np.median(table, axis=1)
    return np.array([_block_median(block, turn) for turn, block in enumerate(blocks)])


def _block_median(block: Sequence[float], turn: int) -> float:
    values = _samples(block)
    if not len(values) or not np.all(np.isfinite(values)) or values.min() <= 0:
        raise ConfigError(f"turn {turn} must hold at least one time, each > 0, got {list(block)!r}. Time it again.")
    return float(np.median(values))


def _samples(samples: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or np.isnan(values).any():
        raise ConfigError(f"timings must be a flat list of numbers without NaN, got shape {values.shape}. Join the blocks of one model.")
    return values


def _fractions(percentile: float, confidence: float) -> None:
    if not 0 < percentile < 1:
        raise ConfigError(f"percentile must be in (0, 1), got {percentile!r}. It is a fraction; for the 90th percentile write 0.9.")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 99 % write 0.99.")
