"""How a candidate answers, beyond its metric: slices, flips, calibration, agreement with the baseline. Worked out from kept rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from limbeck.core.evidence import Status, Verdict
from limbeck.core.metric import Metric, Rows
from limbeck.evaluation import quality, slices
from limbeck.evaluation.spending import percent
from limbeck.stats import answers, calibration, paired
from limbeck.stats.distances import histogram

NO_FLIPS = "flips need a metric that is the share of independent samples answered right"
NO_BASELINE = "an increase is against a baseline, and there is none"
NO_CONFIDENCE = "calibration needs rows with a column 'confidence' (the probability of the predicted class) beside 'correct', or 'predicted' and 'target'"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The rows of an artifact on a split, those of its baseline, and the slices of the split. Nothing is worked out until it is asked for."""

    metric: Metric
    candidate: Rows
    baseline: Rows | None
    masks: slices.Masks
    split: str
    confidence: float

    @property
    def parts(self) -> slices.Parts | None:
        """What slices are judged by; None where they can't be, for the reason that `no_slices` gives."""
        if self.baseline is None or self.no_slices:
            return None
        return slices.Parts(metric=self.metric, candidate=self.candidate, baseline=self.baseline, masks=self.masks, split=self.split, confidence=self.confidence)

    @property
    def sliceable(self) -> bool:
        """Whether there are slices, and each row is a sample."""
        return bool(self.masks) and len(next(iter(self.masks.values()))) == len(next(iter(self.candidate.values())))

    @property
    def no_slices(self) -> str:
        """Why slices can't be judged; empty where they can."""
        if not self.masks:
            return "the task has no slices"
        if not self.sliceable:
            rows, samples = (len(next(iter(m.values()))) for m in (self.candidate, self.masks))
            return f"metric '{self.metric.name}' has {rows:,} rows for {samples:,} samples, so none can be told to belong to a slice"
        return "a slice is judged against a baseline, and there is none" if self.baseline is None else ""

    @property
    def units(self) -> np.ndarray | None:
        """What each row belongs to, where the metric names a unit."""
        return self.candidate[self.metric.unit] if self.metric.unit else None

    @property
    def units_count(self) -> int:
        return quality.units_of(self.metric, self.candidate)

    @property
    def counts(self) -> paired.Counts | None:
        """Samples by who is right; None where the metric is no share of samples answered right."""
        return quality.counts_of(self.metric, self.candidate, self.baseline) if self.baseline is not None else None

    @property
    def agreement(self) -> float | None:
        """The share of samples to which candidate and baseline give the same answer, right or wrong."""
        return None if self.baseline is None else answers.agreement(self.candidate, self.baseline)


def max_flips(behaviour: Behaviour | None, limit: float) -> Verdict:
    """The share of samples that were right and are wrong now, by its exact upper bound (Clopper and Pearson)."""
    counts = behaviour.counts if behaviour else None
    if behaviour is None or counts is None:
        why = NO_FLIPS if behaviour and behaviour.baseline is not None else "flips are counted against a baseline, and there is none"
        return Verdict(gate="max_flips", status=Status.UNVERIFIED, limit=limit, reason=why)
    share, high = counts.n01 / counts.total, paired.proportion_bounds(counts.n01, counts.total, behaviour.confidence)[1]
    sure = f"{counts.n01} of {counts.total} samples of {behaviour.split} were right and are wrong now, {percent(behaviour.confidence)} bound {high:.4f}"
    facts = {"gate": "max_flips", "limit": limit, "measured": share, "high": high}
    if high <= limit:
        return Verdict(status=Status.PASS, reason=sure, **facts)
    if share > limit:
        return Verdict(status=Status.FAIL, reason=sure, **facts)
    needed = paired.share_samples_needed(counts.n01, counts.total, limit, behaviour.confidence)
    more = f"about {needed:,} samples would settle it" if needed else "it stands at the limit: no number of samples is sure to settle it"
    return Verdict(status=Status.INCONCLUSIVE, reason=f"{sure}: {more}", samples_needed=needed, **facts)


def max_ece(behaviour: Behaviour | None, limit: float) -> Verdict:
    """The candidate's expected calibration error, by an upper bound of it."""
    own = answers.trust(behaviour.candidate) if behaviour else None
    if behaviour is None or own is None:
        return Verdict(gate="max_ece", status=Status.UNVERIFIED, limit=limit, reason=NO_CONFIDENCE if behaviour else "calibration was not measured")
    bound = partial(calibration.error_upper, own, level=behaviour.confidence, units=behaviour.units)
    return _calibrated("max_ece", limit, behaviour, bound, partial(calibration.error_least, own, units=behaviour.units))


def max_ece_increase(behaviour: Behaviour | None, limit: float) -> Verdict:
    """How much the candidate's expected calibration error is above the baseline's on the same samples, by an upper bound of that."""
    gate, own = "max_ece_increase", answers.trust(behaviour.candidate) if behaviour else None
    before = answers.trust(behaviour.baseline) if behaviour else None
    if behaviour is None or own is None or before is None:
        why = NO_BASELINE if behaviour and behaviour.baseline is None else NO_CONFIDENCE if behaviour else "calibration was not measured"
        return Verdict(gate=gate, status=Status.UNVERIFIED, limit=limit, reason=why)
    bound = partial(calibration.increase_upper, own, before, level=behaviour.confidence, units=behaviour.units)
    return _calibrated(gate, limit, behaviour, bound, partial(calibration.increase_least, own, before, units=behaviour.units))


def _calibrated(gate: str, limit: float, behaviour: Behaviour, bounded: Callable[[], tuple[float, float]], without_chance: Callable[[], float]) -> Verdict:
    """A verdict on an estimate and its upper bound, both of which come down with the root of the samples.

    Chance makes errors look larger than they are, so what is left without it must break a limit for a FAIL.
    """
    each = quality.counted_in(behaviour.metric)
    if (count := behaviour.units_count) < slices.LEAST:
        reason = f"{count} {each} of {behaviour.split}, and fewer than {slices.LEAST} say nothing of calibration"
        return Verdict(gate=gate, status=Status.INCONCLUSIVE, limit=limit, reason=reason, samples_needed=slices.LEAST)
    (value, high), least = bounded(), without_chance()
    status = Status.PASS if high <= limit else Status.FAIL if min(value, least) > limit else Status.INCONCLUSIVE
    what = f"calibration error against the baseline's {value:+.4f}" if gate == "max_ece_increase" else f"calibration error {value:.4f}"
    chance = f" ({least:.4f} without what chance adds)" if value > limit else ""
    reason = f"{what}{chance} on {count:,} {each} of {behaviour.split}, {percent(behaviour.confidence)} bound {high:.4f}"
    needed = quality.needed(count, estimate=min(value, least), bound=high, limit=limit) if status is Status.INCONCLUSIVE else None
    if status is Status.INCONCLUSIVE:
        reason += f": about {needed:,} {each} would settle it" if needed else f": it stands at the limit, no number of {each} is sure to settle it"
    return Verdict(gate=gate, status=status, limit=limit, measured=value, high=high, reason=reason, samples_needed=needed)


def summary(behaviour: Behaviour) -> dict[str, Any]:
    """All of it as `summary.json` shows it; what can't be told is null or empty."""
    parts, known = behaviour.parts, ()
    if parts:
        known = slices.shown(parts)
    elif behaviour.sliceable:
        known = slices.alone(behaviour.metric, behaviour.candidate, behaviour.masks)
    return {
        "split": behaviour.split,
        "confidence": behaviour.confidence,
        "slices": [asdict(s) for s in known],
        "slices_note": "" if parts else behaviour.no_slices,
        "flips": _flips(behaviour),
        "calibration": _calibration(behaviour),
        "agreement": behaviour.agreement,
    }


def _flips(behaviour: Behaviour) -> dict[str, Any] | None:
    counts = behaviour.counts
    if counts is None:
        return None
    high = paired.proportion_bounds(counts.n01, counts.total, behaviour.confidence)[1]
    return {"samples": counts.total, "lost": counts.n01, "won": counts.n10, "lost_share": counts.n01 / counts.total, "lost_high": high}


def _calibration(behaviour: Behaviour) -> dict[str, Any] | None:
    """Both errors, each with its upper bound and its bins."""
    own, before = answers.trust(behaviour.candidate), answers.trust(behaviour.baseline)
    if own is None:
        return None
    return {"candidate": _reliability(behaviour, own), "baseline": _reliability(behaviour, before) if before else None, "increase": _increase(behaviour, own, before)}


def _increase(behaviour: Behaviour, own: calibration.Trusted, before: calibration.Trusted | None) -> dict[str, float] | None:
    """How much larger the candidate's error is, and at most; None without a baseline, or with too few samples to say."""
    if before is None or behaviour.units_count < slices.LEAST:
        return None
    value, high = calibration.increase_upper(own, before, level=behaviour.confidence, units=behaviour.units)
    return {"value": value, "high": high}


def _reliability(behaviour: Behaviour, trusted: calibration.Trusted) -> dict[str, Any]:
    enough = behaviour.units_count >= slices.LEAST
    high = calibration.error_upper(trusted, level=behaviour.confidence, units=behaviour.units)[1] if enough else None
    return {
        "ece": calibration.error(*trusted),
        "high": high,
        "samples": len(trusted[0]),
        "bins": [asdict(b) for b in calibration.bins(*trusted)],
        "histogram": histogram(trusted[0], 0.0, 1.0, trusted[1] > 0),
    }
