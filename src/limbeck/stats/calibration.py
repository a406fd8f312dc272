"""Whether a model is right as often as it says: expected calibration error over bins of equal mass, and bounds of it and of its increase."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from limbeck.core.errors import ConfigError
from limbeck.stats.paired import quantile

BINS = 15
DRAWS = 4000  # of the bins' sums
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
    return float(np.abs(np.bincount(places, weights=gaps)).sum() / len(gaps))


def error_upper(own: Trusted, *, level: float = 0.95, units: np.ndarray | None = None) -> tuple[float, float]:
    """One model's error and its one-sided upper bound at `level`.

    The estimate is too high by what chance adds to each bin, so with few samples the bound is on the safe side; see `_upper` for the rest.

    Args:
        units: What each sample belongs to, where they come in clusters; then whole clusters vary.
    Raises: ConfigError if a confidence isn't in [0, 1], columns differ in length, or there are fewer than 2 units.
    """
    sums = _Sums.of([own], units)
    value = float(_error_of(sums.mean))
    return value, _upper(sums, sums.drawn(), _error_of, level)


def error_least(own: Trusted, *, units: np.ndarray | None = None) -> float:
    """One model's error without what chance adds to it, ≥ 0; in the mean it is not above the true one (see `_halved`).

    Args and errors as `error_upper`.
    """
    return max(float(_Sums.of([own], units).halved(0).sum()), 0.0)


def increase_least(own: Trusted, before: Trusted, *, units: np.ndarray | None = None) -> float:
    """How much larger the first model's error is than the second's, both without what chance adds to them. Args and errors as `increase_upper`."""
    sums = _Sums.of([own, before], units)
    return float(sums.halved(0).sum() - sums.halved(1).sum())


def increase_upper(own: Trusted, before: Trusted, *, level: float = 0.95, units: np.ndarray | None = None) -> tuple[float, float]:
    """How much larger the first model's error is than the second's on the same samples, and its one-sided upper bound at `level`.

    Chance adds to the error of a bin that is calibrated and hardly to one that isn't, so the plain difference hides an increase. Both
    bounds here are of numbers that are never too small in the mean. With C_k and B_k the sums over bin k of the two models' gaps:

    - Σ|C_k| − Σ s_k·B_k for signs s that are learned from other samples than those of B_k: Σ s_k·E B_k ≤ Σ|E B_k| for any s, and the
      mean of |C_k| is at least |E C_k|. The mean over all ways to halve the samples is σ_k·g(B_k / σ_k), see `_halved`.
    - Σ|C_k − B_k|, which is at least Σ|C_k| − Σ|B_k|: narrow where both models say nearly the same of each sample.

    The lesser of the two is the bound, each at 1 − (1 − level) / 2. It is never below the difference of the errors.

    Args:
        own: Of the candidate; before: of the baseline, on the same samples in the same order.
        units: As in `error_upper`.
    Raises: ConfigError as `error_upper`, or if the two aren't of equally many samples.
    """
    if own[0].shape != before[0].shape:
        raise ConfigError(f"an increase is of the same samples, got {len(own[0])} and {len(before[0])}. Evaluate both models on one split.")
    sums = _Sums.of([own, before], units)
    spread = sums.spread(1)

    def crossed(sums: np.ndarray) -> np.ndarray:
        return np.abs(sums[..., 0, :]).sum(axis=-1) - _halved(sums[..., 1, :], spread).sum(axis=-1)

    def apart(sums: np.ndarray) -> np.ndarray:
        return np.abs(sums[..., 0, :] - sums[..., 1, :]).sum(axis=-1)

    each = 1 - (1 - level) / 2
    own_error, before_error = np.abs(sums.mean).sum(axis=-1)
    drawn = sums.drawn()
    return float(own_error - before_error), min(_upper(sums, drawn, crossed, each), _upper(sums, drawn, apart, each))


@dataclass(frozen=True)
class _Sums:
    """Gaps summed by model and bin, over the number of samples: seen, and how they vary from one draw of units to the next."""

    mean: np.ndarray  # model, bin
    covariance: np.ndarray  # of `mean`, flat
    implied: np.ndarray  # variance of `mean` if the models were as right as they say
    step: float  # the share of the samples that the largest unit has

    @property
    def variance(self) -> np.ndarray:
        return np.diag(self.covariance).reshape(self.mean.shape)

    def spread(self, model: int) -> np.ndarray:
        """The standard error of each bin's sum, or that of a calibrated model if that is larger."""
        return np.sqrt(np.maximum(self.variance[model], self.implied[model]))

    def halved(self, model: int) -> np.ndarray:
        """A part of each bin's error that is never too large in the mean."""
        return _halved(self.mean[model], self.spread(model))

    def drawn(self) -> np.ndarray:
        """Sums as they might have come out, bins held fixed: 4,000 draws of a normal of their own covariance."""
        values, axes = np.linalg.eigh(self.covariance)
        noise = np.random.default_rng(0).standard_normal((DRAWS, len(values)))
        return self.mean + (noise @ (axes * np.sqrt(np.maximum(values, 0.0))).T).reshape(DRAWS, *self.mean.shape)

    @staticmethod
    def of(models: Sequence[Trusted], units: np.ndarray | None) -> _Sums:
        from scipy.sparse import csr_array

        count = len(models[0][0])
        owner = np.arange(count) if units is None else np.unique(units, return_inverse=True)[1]
        total = int(owner.max(initial=-1)) + 1
        found = [_gaps(*model) for model in models]
        if total < 2:
            raise ConfigError(f"a bound needs at least 2 units, got {total}. Add samples.")
        gaps = np.concatenate([gap for gap, _ in found])
        places = np.concatenate([number * BINS + place for number, (_, place) in enumerate(found)])
        each = csr_array((gaps, (np.tile(owner, len(models)), places)), shape=(total, len(models) * BINS))  # a sample is in one bin of each model
        sums = each.sum(axis=0)
        covariance = (each.T @ each).toarray() - np.outer(sums, sums) / total
        implied = [np.bincount(own, weights=sure * (1 - sure), minlength=BINS) for (sure, _), (_, own) in zip(models, found, strict=True)]
        return _Sums(sums.reshape(len(models), BINS) / count, covariance / count**2, np.array(implied) / count**2, float(np.bincount(owner).max() / count))


def _upper(sums: _Sums, drawn: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], level: float) -> float:
    """An upper bound of what `statistic` estimates: the estimate, and how far it may be too low.

    q is the quantile of the statistic of the draws about their mean. Where errors are rare, those that weren't seen widen no
    covariance: as in Wilson's interval, k = z²/2 units that speak against the model are added, high = estimate + k + √(q² + k²).
    Source: Gaussian multiplier bootstrap, Chernozhukov, Chetverikov & Kato 2013, Annals of Statistics 41:2786; Wilson 1927, JASA 22:209.
    """
    z, found = quantile(level), statistic(drawn)
    reach = max(float(np.quantile(found - found.mean(), level, method="higher")), 0.0)
    unseen = z * z / 2 * sums.step
    return min(float(statistic(sums.mean)) + unseen + math.hypot(reach, unseen), 1.0)


def _halved(sums: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """A part of |E sum| that is never too large in the mean: the sum of one half, signed as the other half is, over all ways to halve.

    With s = sum / spread it is spread·g(s), g(s) = |s|·(2Φ(|s|) − 1) − 2φ(s): the halves differ by a normal of that same spread.
    """
    from scipy.special import ndtr

    s = np.abs(sums) / np.where(spread > 0, spread, 1.0)
    g = s * (2 * ndtr(s) - 1) - math.sqrt(2 / math.pi) * np.exp(-s * s / 2)
    return np.where(spread > 0, spread * g, np.abs(sums))


def _error_of(sums: np.ndarray) -> np.ndarray:
    """The error of the first model, from its bins' sums."""
    return np.abs(sums[..., 0, :]).sum(axis=-1)


def _gaps(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much too sure the model was of each sample, and the number of its bin."""
    if confidence.shape != correct.shape or confidence.ndim != 1 or not confidence.size or not np.all((confidence >= 0) & (confidence <= 1)):
        raise ConfigError(
            f"calibration needs one confidence in [0, 1] and one 0 or 1 a sample, got shapes {confidence.shape} and {correct.shape}. Give the probability of the predicted class."
        )
    return confidence.astype(np.float64) - correct, _places(confidence)


def _places(confidence: np.ndarray) -> np.ndarray:
    """The number of each sample's bin. Cuts stand at equal ranks, so samples of one confidence fall into one bin."""
    ordered = np.sort(confidence)
    cuts = ordered[[len(ordered) * k // BINS for k in range(1, BINS)]]
    return np.searchsorted(np.unique(cuts), confidence, side="right")
