"""How many timings in a row count as one: slow phases of a machine make them depend on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SIGNIFICANT = 2.33  # standard errors from which a correlation, or a variance that is too large, counts
LEAST_BLOCKS = 8  # fewer show nothing of it


def inflation_of(blocks: Sequence[Sequence[float]], *, percentile: float) -> float:
    """How many of these timings, by block in the order in which they were taken, count as one that is independent; ≥ 1.

    The variance of the number over a bound, block by block, in that of independent samples, times 1 + 2·Σ ρₖ over the first lags
    at which the blocks' numbers correlate; both count from 2.33 standard errors on, so that independent samples give 1. By block,
    since the place within one matters and repeats: the first after another model's turn finds a cold cache. The bounds are
    the samples' own percentile and their median, and the greater of both counts: none over a limit is no proof of independence.

    What it can't see is a phase that the whole measurement lies in.
    Source: the variance of a stationary series' mean (Bartlett 1946, J. R. Stat. Soc. Suppl. 8:27); the design effect (Kish 1965).
    """
    sizes = np.array([len(block) for block in blocks], dtype=np.float64)
    if len(sizes) < LEAST_BLOCKS:
        return 1.0
    flat = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    bounds = np.quantile(flat, (0.5, percentile))
    return max(_inflation(np.add.reduceat(flat > bound, starts, dtype=np.float64), sizes) for bound in bounds)


def _inflation(over: np.ndarray, sizes: np.ndarray) -> float:
    """Of the number over a bound in each block."""
    blocks, share = len(over), float(over.sum() / sizes.sum())
    apart = over - share * sizes
    square = float(apart @ apart)
    if square == 0:
        return 1.0
    variance = square / (blocks - 1) / (float(sizes.mean()) * share * (1 - share))
    least, correlated = SIGNIFICANT / math.sqrt(blocks), 0.0
    for lag in range(1, blocks // 2):
        rho = float(apart[:-lag] @ apart[lag:]) / square
        if rho <= least:
            break
        correlated += rho
    return (variance if variance > 1 + SIGNIFICANT * math.sqrt(2 / blocks) else 1.0) * (1 + 2 * correlated)
