"""Two models judged right or wrong on the same samples: how much of the baseline is kept, and how sure that is.

Everything follows from four counts. The tests are score tests: the variance is that of the hypothesis at its limit, which
keeps its error rate where few samples differ, and where a bootstrap passes too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from limbeck.core.errors import ConfigError

MOST = 10_000_000  # samples; who needs more will never know


@dataclass(frozen=True)
class Counts:
    """Samples by who is right: `n10` counts those that only the candidate has right."""

    n11: int
    n10: int
    n01: int
    n00: int

    def __post_init__(self) -> None:
        if min(self.n11, self.n10, self.n01, self.n00) < 0 or self.total == 0:
            raise ConfigError(f"counts must be ≥ 0 and not all 0, got {self}. Count at least one sample.")

    @property
    def total(self) -> int:
        return self.n11 + self.n10 + self.n01 + self.n00

    @property
    def candidate(self) -> int:
        """Samples that the candidate has right."""
        return self.n11 + self.n10

    @property
    def baseline(self) -> int:
        """Samples that the baseline has right."""
        return self.n11 + self.n01


def counts(candidate: Any, baseline: Any) -> Counts:
    """Count two columns of 0s and 1s over the same samples in the same order.

    Raises: ConfigError if lengths differ, there is nothing, or a value is neither 0 nor 1.
    """
    c, b = np.asarray(candidate), np.asarray(baseline)
    if c.shape != b.shape or c.ndim != 1 or c.size == 0:
        raise ConfigError(f"paired columns must be flat, equally long and not empty, got shapes {c.shape} and {b.shape}. Evaluate both models on the same samples.")
    for name, column in (("candidate", c), ("baseline", b)):
        wrong = np.flatnonzero((column != 0) & (column != 1))
        if wrong.size:
            raise ConfigError(f"{name}[{wrong[0]}] must be 0 or 1, got {column[wrong[0]]!r}. A metric's `proportion` names a column of right (1) and wrong (0).")
    c, b = c.astype(bool), b.astype(bool)
    return Counts(int((c & b).sum()), int((c & ~b).sum()), int((~c & b).sum()), int((~c & ~b).sum()))


def scores(n11: Any, n10: Any, n01: Any, *, phi: Any) -> np.ndarray:
    """The score statistic Z(φ) of H: p₁ = φ·p₀ (candidate, baseline), over arrays of counts; n00 doesn't enter it.

    Z = (n₁₊ − φ·n₊₁) / √(n·φ·(p̃₁₀ + p̃₀₁)), the tildes being maximum likelihood under H. Falls as φ grows; large means that
    more than φ is kept. 0 where nothing speaks either way. φ must be > 0.
    Source: Nam & Blackwelder 2002, Statistics in Medicine 21:689. Written here through w = p̃₁₁ / (p̃₁₁ + p̃₁₀ + p̃₀₁), the
    smaller root of φ·m·w² − B·w + φ·n₁₁ = 0 with m = n₁₁ + n₁₀ + n₀₁, B = (1 + φ²)·n₁₁ + n₁₀ + φ²·n₀₁.
    """
    a, b, c, f = (np.asarray(v, dtype=np.float64) for v in (n11, n10, n01, phi))
    m = a + b + c
    big, half = (1 + f * f) * a + b + f * f * c, 2 * f * np.sqrt(m * a)
    with np.errstate(divide="ignore", invalid="ignore"):
        w = 2 * f * a / (big + np.sqrt(np.maximum(big - half, 0) * (big + half)))
        z = (a + b - f * (a + c)) / np.sqrt(f * m * (1 - w))
    return np.where(m * (1 - w) > 0, z, 0.0)


def score(counts: Counts, phi: float) -> float:
    """`scores` for one set of counts. Raises ConfigError if φ isn't > 0."""
    if not phi > 0:
        raise ConfigError(f"phi must be > 0, got {phi!r}. It is the ratio of proportions that is tested, such as 0.97.")
    return float(scores(counts.n11, counts.n10, counts.n01, phi=phi))


def ratio_lower(counts: Counts, confidence: float = 0.95) -> float:
    """The one-sided lower bound of p₁ / p₀: the φ at which Z(φ) is the normal quantile of `confidence`.

    0 if the candidate has nothing right; n₁₁ / (n₁₁ + z²) if no sample differs, so that sameness on few samples proves little.
    Raises: ConfigError if the baseline has nothing right (a ratio means nothing there), or confidence isn't in (0.5, 1).
    """
    z = quantile(confidence)
    if counts.baseline == 0:
        raise ConfigError(f"the baseline has none of {counts.total} samples right; a ratio to it means nothing. Limit the absolute drop instead (max_drop).")
    if counts.candidate == 0:
        return 0.0
    high = counts.candidate / counts.baseline  # Z is 0 here, and grows without bound towards 0
    return _root(lambda phi: score(counts, phi) - z, high, lambda phi: phi / 2)


def difference_scores(n11: Any, n10: Any, n01: Any, *, n00: Any, delta: Any) -> np.ndarray:
    """The score statistic Z(δ) of H: p₁ − p₀ = δ, over arrays of counts. Falls as δ grows; |δ| < 1.

    Source: Tango 1998, Statistics in Medicine 17:891: Z = (n₁₀ − n₀₁ − n·δ) / √(n·(2·p̃₀₁ + δ·(1 − δ))), p̃₀₁ being the
    greater root of 2n·x² − B·x − n₀₁·δ·(1 − δ) = 0, B = n₁₀ + n₀₁ − δ·(2n − n₁₀ + n₀₁).
    """
    a, b, c, d, t = (np.asarray(v, dtype=np.float64) for v in (n11, n10, n01, n00, delta))
    n = a + b + c + d
    big = b + c - t * (2 * n - b + c)
    root = np.sqrt(np.maximum(big * big + 8 * n * c * t * (1 - t), 0))
    x = np.maximum((big + root) / (4 * n), np.maximum(-t, 0))
    variance = n * (2 * x + t * (1 - t))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, (b - c - n * t) / np.sqrt(variance), 0.0)


def difference_lower(counts: Counts, confidence: float = 0.95) -> float:
    """The one-sided lower bound of p₁ − p₀, by Tango's score test; ≥ −1."""
    return _difference(counts, quantile(confidence), -1.0)


def difference_upper(counts: Counts, confidence: float = 0.95) -> float:
    """The one-sided upper bound of p₁ − p₀, by Tango's score test; ≤ 1."""
    return _difference(counts, -quantile(confidence), 1.0)


def _difference(counts: Counts, z: float, end: float) -> float:
    value = (counts.n10 - counts.n01) / counts.total

    def excess(t: float) -> float:
        return float(difference_scores(counts.n11, counts.n10, counts.n01, n00=counts.n00, delta=t)) - z

    return _root(excess, value, lambda at: (at + end) / 2)


def mcnemar(counts: Counts) -> float:
    """The exact two-sided p-value of "both models are equally often right". Reported; it gates nothing."""
    from scipy.stats import binomtest

    differing = counts.n10 + counts.n01
    return float(binomtest(counts.n10, differing, 0.5).pvalue) if differing else 1.0


def samples_needed(counts: Counts, limit: float, confidence: float = 0.95) -> int | None:
    """How many samples, at the rates seen so far, would bring `ratio_lower` to the limit; ≤ the present number if it is there.

    Z grows with √n at constant rates, so n·(z / Z(limit))². None if the estimate itself isn't above the limit. An expectation:
    the rates will move as samples are added.
    """
    z = quantile(confidence)
    if limit <= 0:
        return 0
    at_limit = score(counts, limit)
    if counts.baseline == 0 or at_limit <= 0:
        return None
    return math.ceil(counts.total * (z / at_limit) ** 2 - 1e-9)


def drop_samples_needed(counts: Counts, limit: float, confidence: float = 0.95) -> int | None:
    """The same for the upper bound of p₀ − p₁, a drop of the share that is right: −`difference_lower`."""
    if limit >= 1:
        return 0
    at_limit = float(difference_scores(counts.n11, counts.n10, counts.n01, n00=counts.n00, delta=-limit))
    return math.ceil(counts.total * (quantile(confidence) / at_limit) ** 2 - 1e-9) if at_limit > 0 else None


def proportion_bounds(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact bounds of one proportion, each one-sided at `confidence`. Source: Clopper & Pearson 1934, Biometrika 26:404."""
    from scipy.special import betaincinv

    quantile(confidence)  # refuses what isn't a confidence
    if not 0 <= right <= total or total == 0:
        raise ConfigError(f"right must be in [0, total] and total > 0, got {right!r} of {total!r}. Count at least one sample.")
    low = float(betaincinv(right, total - right + 1, 1 - confidence)) if right else 0.0
    high = float(betaincinv(right + 1, total - right, confidence)) if right < total else 1.0
    return low, high


def share_samples_needed(count: int, total: int, limit: float, confidence: float = 0.95) -> int | None:
    """How many samples, with the share seen so far, would bring the upper bound of `proportion_bounds` to the limit.

    None if the share itself isn't below the limit, or ten million would not do. Give or take one, as shares are rounded.
    """
    share = count / total

    def settled(n: int) -> bool:
        return proportion_bounds(math.ceil(share * n - 1e-9), n, confidence)[1] <= limit

    if share >= limit:
        return None
    high = total
    while not settled(high):
        high *= 2
        if high > MOST:
            return None
    low = max(total, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle + 1, high)
    return low


def quantile(confidence: float) -> float:
    """The standard normal quantile of a one-sided confidence. Raises ConfigError outside (0.5, 1)."""
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 95 % write 0.95.")
    return NormalDist().inv_cdf(confidence)


def _root(excess: Callable[[float], float], estimate: float, further: Callable[[float], float]) -> float:
    """Where `excess` crosses zero beyond the estimate: moved `further` until it has changed its sign, then found by Brent."""
    from scipy.optimize import brentq

    near, far = estimate, further(estimate)
    sign = math.copysign(1.0, excess(near))
    while excess(far) * sign > 0 and far != further(far):
        near, far = far, further(far)
    if excess(far) * sign > 0:
        return far
    return float(brentq(excess, far, near, xtol=1e-15))  # pyright: ignore[reportArgumentType]
