"""What the order of a handful of figures proves of their median; nothing is assumed of how they are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.stats.bootstrap import Interval


def median_interval(values: Sequence[float] | np.ndarray, *, confidence: float = 0.99) -> Interval:
    """The median with a two-sided interval between two order statistics.

    From the k-th smallest to the k-th greatest, k the greatest number with 2·P(Binomial(n, ½) ≤ k − 1) ≤ 1 − confidence. With
    fewer than 8 values (at 99 %) there is no such k, and the interval is all numbers.

    Raises: ConfigError for no value, one that isn't finite, or a confidence outside (0.5, 1).
    Source: David & Nagaraja 2003, "Order Statistics", §7.1.
    """
    from scipy.special import bdtr

    found = np.sort(np.asarray(values, dtype=np.float64))
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise ConfigError(f"values must be a flat list of at least one finite number, got {values!r}. Measure again.")
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 99 % write 0.99.")
    cut, n = 0, len(found)
    while 2 * bdtr(cut, n, 0.5) <= 1 - confidence:
        cut += 1
    middle = float(np.median(found))
    return Interval(middle, float(found[cut - 1]), float(found[n - cut])) if cut else Interval(middle, -math.inf, math.inf)
