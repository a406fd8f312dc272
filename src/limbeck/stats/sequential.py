"""Whether a percentile keeps a limit, asked again after every sample: an e-process on the count over the limit.

A rule for a sample of fixed size, looked at again and again, is wrong far more often than it says. Here the evidence e against
"the share over the limit is at least 1 − q" is a mixture of likelihood ratios, a supermartingale of mean ≤ 1 under that
hypothesis, so that it ever reaches 1 / (1 − confidence) with probability ≤ 1 − confidence, however often one looks (Ville).
Only numpy is imported: the process that measures asks it between turns.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np

from limbeck.core.errors import ConfigError

Side = Literal["below", "above"]
MOST = 10_000_000  # samples; who needs more will never know
NONE_OVER, FEW_OVER = 0.45, 0.3  # weight of "none is ever over", and of shares up to half of the limit's
FEW, NEAR = 8, 12  # alternatives among the few, and towards the hypothesis itself
NEAREST = 0.03  # how near the nearest alternative comes, as a part of the way (arcsine scale) to the farthest


def log_evidence(over: float, n: float, side: Side, *, percentile: float, inflation: float = 1.0) -> float:
    """The logarithm of the e-value for "the percentile is below (above) the limit", `over` of `n` samples being over it.

    e = Σ wₖ · [(pₖ/p)^over · ((1 − pₖ)/(1 − p))^(n − over)]^(1/inflation), p = 1 − percentile, over alternatives pₖ below (above) p
    whose weights wₖ sum to 1. Each ratio has mean ≤ 1 at every share on the other side of p, and so has their mixture.

    Args:
        inflation: ≥ 1, how many samples count as one where they depend on each other (`stats.dependence`). e is then at most
            the plain e to the power of 1/inflation (Jensen), so that the error stays bounded whatever the factor was read from.
    Source: Ville 1939; Robbins 1970, Ann. Math. Statist. 41:1397 (mixtures); Ramdas et al. 2023, arXiv:2210.01948, §2.
    """
    over_gain, under_gain, weights = _alternatives(1 - percentile, side)
    with np.errstate(invalid="ignore"):
        gains = (over * over_gain if over else 0.0) + ((n - over) * under_gain if n > over else 0.0)
    terms = weights + gains / inflation
    top = float(np.max(terms))
    return top + math.log(float(np.exp(terms - top).sum())) if math.isfinite(top) else top


def anytime_verdict(over: int, n: int, *, percentile: float, confidence: float = 0.99, inflation: float = 1.0) -> Literal["below", "above", "undecided"]:
    """Whether the percentile is at most the limit, however often this was asked before.

    Each wrong answer, over all looks ever, has probability ≤ 1 − confidence. Raises: ConfigError for counts or fractions that can't be.
    """
    _checked(over, n, percentile=percentile, confidence=confidence, inflation=inflation)
    bar = -math.log(1 - confidence)
    for side in ("below", "above"):
        if n and log_evidence(over, n, side, percentile=percentile, inflation=inflation) >= bar:
            return side
    return "undecided"


def anytime_needed(over: int, n: int, *, percentile: float, confidence: float = 0.99, inflation: float = 1.0) -> int | None:
    """How many samples in all would settle it, if the share over the limit stays what it is; None if no number is sure to."""
    _checked(over, n, percentile=percentile, confidence=confidence, inflation=inflation)
    share, bar = over / n if n else 0.0, -math.log(1 - confidence)
    side: Side = "below" if share < 1 - percentile else "above"

    def settled(total: int) -> bool:
        count = math.ceil(share * total - 1e-9) if side == "below" else math.floor(share * total + 1e-9)
        return log_evidence(count, total, side, percentile=percentile, inflation=inflation) >= bar

    high = max(n, 1)
    while not settled(high):
        high *= 2
        if high > MOST:
            return None
    low = max(n, 1, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle + 1, high)
    return low


def _checked(over: float, n: int, *, percentile: float, confidence: float, inflation: float) -> None:
    if not 0 <= over <= n:
        raise ConfigError(f"over must be in [0, {n}], the number of samples, got {over!r}. It counts samples above the limit.")
    if not 0 < percentile < 1:
        raise ConfigError(f"percentile must be in (0, 1), got {percentile!r}. It is a fraction; for the 90th percentile write 0.9.")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 99 % write 0.99.")
    if not inflation >= 1:
        raise ConfigError(f"inflation must be at least 1, got {inflation!r}. It says how many samples count as one; independent ones count as 1.")


@cache
def _alternatives(share: float, side: Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of what a sample over, and one not over, multiply each alternative's ratio with; and of the weights."""
    angle = math.asin(math.sqrt(share))
    if side == "below":
        near = np.sin(angle * (1 - np.geomspace(NEAREST, 0.9, NEAR))) ** 2
        few = share / 2 * np.linspace(0, 1, FEW + 1)[1:] ** 1.5
        at = np.concatenate([[0.0], few, near])
        weights = np.concatenate([[NONE_OVER], np.full(FEW, FEW_OVER / FEW), np.full(NEAR, (1 - NONE_OVER - FEW_OVER) / NEAR)])
    else:
        at = np.minimum(np.sin(angle + (math.pi / 2 - angle) * np.geomspace(NEAREST, 1, FEW + NEAR)) ** 2, 1.0)
        weights = np.full(FEW + NEAR, 1 / (FEW + NEAR))
    with np.errstate(divide="ignore"):
        return np.log(at / share), np.log((1 - at) / (1 - share)), np.log(weights)
