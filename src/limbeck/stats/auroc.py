"""How well one score tells two sets apart, and whether another score does better on the same samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.stats.bootstrap import Interval
from limbeck.stats.paired import quantile


@dataclass(frozen=True)
class Components:
    """DeLong's structural components of one score: for each sample of either set the share of the other that it is told apart from.

    value: The area under the curve: the chance that one of the first set scores higher than one of the second, ties counted half.
    first: V₁₀, one for each sample of the first set; second: V₀₁, for the second.
    """

    value: float
    first: np.ndarray
    second: np.ndarray


def components(first: np.ndarray, second: np.ndarray) -> Components:
    """The components of these scores. Raises ConfigError if a set has fewer than 2 samples, or a score is NaN."""
    a, b = (np.asarray(v, dtype=np.float64) for v in (first, second))
    if a.ndim != 1 or b.ndim != 1 or min(len(a), len(b)) < 2 or np.isnan(a).any() or np.isnan(b).any():
        raise ConfigError(f"an AUROC needs two sets of at least 2 scores that aren't NaN, got shapes {a.shape} and {b.shape}. Add samples.")
    of_first = _below(a, b)
    return Components(float(of_first.mean()), of_first, 1 - _below(b, a))


def auroc(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> Interval:
    """The area under the curve with bounds, each one-sided at `confidence`: normal with DeLong's variance, cut off at 0 and 1.

    Where nothing varies (all told apart, or none) the bound is m / (m + z²) of the smaller set: few samples prove little.
    Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837.
    """
    found = components(first, second)
    z = quantile(confidence)
    spread = z * _variance(found.first, found.second) ** 0.5
    if spread == 0:
        open_ = _left_open(found, z)
        return Interval(found.value, found.value * (1 - open_), found.value + (1 - found.value) * open_)
    return Interval(found.value, max(0.0, found.value - spread), min(1.0, found.value + spread))


def auroc_difference(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], confidence: float = 0.95) -> Interval:
    """The first score's area less the second's, on the same samples in the same order, with bounds, each one-sided at `confidence`.

    Args:
        first: One score's values on the two sets; second: another's on the same samples.
    Source: DeLong et al. 1988, the covariance of correlated curves: that of the differences of components.
    Raises: ConfigError as `components`, or if the sets aren't the same samples.
    """
    if any(len(x) != len(y) for x, y in zip(first, second, strict=True)):
        raise ConfigError(f"two AUROCs must be of the same samples, got {[len(x) for x in first]} and {[len(x) for x in second]}. Score the same ones with both.")
    own, other = components(*first), components(*second)
    z, value = quantile(confidence), own.value - other.value
    spread = z * _variance(own.first - other.first, own.second - other.second) ** 0.5
    open_ = spread or _left_open(own, z)
    return Interval(value, max(-1.0, value - open_), min(1.0, value + open_))


def _below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, equals counted half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")) / (2 * len(others))


def _variance(first: np.ndarray, second: np.ndarray) -> float:
    return float(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))


def _left_open(found: Components, z: float) -> float:
    """What sameness on so many samples leaves open."""
    count = min(len(found.first), len(found.second))
    return z * z / (count + z * z)
