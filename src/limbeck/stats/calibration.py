"""Whether a model is right as often as it says: expected calibration error over bins of equal mass, with an upper bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.stats.paired import quantile

BINS = 15
RESAMPLES = 2000
Trusted: TypeAlias = tuple[np.ndarray, np.ndarray]  # the confidence in each answer, and whether it was right


@dataclass(frozen=True)
class Bin:
    """Samples of like confidence: their mean confidence, the share that is right, and how many there are."""

    confidence: float
    accuracy: float
    count: int


def bins(confidence: np.ndarray, correct: np.ndarray) -> tuple[Bin, ...]:
    """The reliability of one model: up to 15 bins, each of about as many samples; equal confidences are never parted."""
    where = _places(confidence)
    return tuple(Bin(float(confidence[where == b].mean()), float(correct[where == b].mean()), int((where == b).sum())) for b in np.unique(where))


def error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean over samples of |mean confidence − share right| of their bin; 0 is calibrated, 1 is always sure and always wrong.

    Source: Naeini et al. 2015, AAAI; bins of equal mass: Nixon et al. 2019, arXiv:1904.01685.
    """
    gaps, places = _gaps(confidence, correct)
    return _error(gaps, places, np.ones(len(gaps)))


def error_upper(own: Trusted, *, level: float = 0.95, units: np.ndarray | None = None) -> tuple[float, float]:
    """One model's error and its one-sided upper bound at `level`.

    The bound is the estimate plus the spread of 2,000 bootstrap draws about their mean, bins held fixed. The estimate itself is too
    high by what chance adds to each bin, so with few samples the bound is on the safe side.

    Args:
        units: What each sample belongs to, where they come in clusters; then whole clusters are drawn.
    Raises: ConfigError if a confidence isn't in [0, 1], columns differ in length, or there are fewer than 2 units.
    """
    gaps, places = _gaps(*own)
    return _bounded(lambda w: _error(gaps, places, w), len(gaps), level=level, units=units)


def _bounded(statistic: Callable[[np.ndarray], float], count: int, *, level: float, units: np.ndarray | None) -> tuple[float, float]:
    quantile(level)  # refuses what isn't a confidence
    owner = np.arange(count) if units is None else np.unique(units, return_inverse=True)[1]
    total = int(owner.max()) + 1
    if total < 2:
        raise ConfigError(f"a bootstrap needs at least 2 units, got {total}. Add samples.")
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(np.bincount(rng.integers(0, total, total), minlength=total)[owner].astype(np.float64)) for _ in range(RESAMPLES)])
    value = statistic(np.ones(count))
    return value, value + max(float(np.quantile(drawn - drawn.mean(), level, method="higher")), 0.0)


def _gaps(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much too sure the model was of each sample, and the number of its bin."""
    if confidence.shape != correct.shape or confidence.ndim != 1 or not confidence.size or not np.all((confidence >= 0) & (confidence <= 1)):
        raise ConfigError(
            f"calibration needs one confidence in [0, 1] and one 0 or 1 a sample, got shapes {confidence.shape} and {correct.shape}. Give the probability of the predicted class."
        )
    return confidence.astype(np.float64) - correct, _places(confidence)


def _error(gaps: np.ndarray, places: np.ndarray, weights: np.ndarray) -> float:
    return float(np.abs(np.bincount(places, weights=gaps * weights)).sum() / weights.sum())


def _places(confidence: np.ndarray) -> np.ndarray:
    """The number of each sample's bin. Cuts stand at equal ranks, so samples of one confidence fall into one bin."""
    ordered = np.sort(confidence)
    cuts = ordered[[len(ordered) * k // BINS for k in range(1, BINS)]]
    return np.searchsorted(np.unique(cuts), confidence, side="right")
