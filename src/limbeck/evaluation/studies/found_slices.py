"""The parts of a split in which a candidate loses most: found on one half of the samples, judged on the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.core.errors import TaskError
from limbeck.core.metric import Rows
from limbeck.evaluation.features import columns_of
from limbeck.evaluation.scores import Scores, scores_of
from limbeck.evaluation.studies.study import Data, Setting, Study, needs_baseline
from limbeck.stats import paired
from limbeck.stats.bootstrap import bca_lower
from limbeck.stats.multiplicity import shared
from limbeck.stats.subgroups import Column, Part, grown, standing_out

FEWEST = 80  # samples that are looked at: two halves, two parts in each
JUDGED = 3  # parts of each half's tree that the other half judges
HELD = 10  # samples of a part that is judged, at least
LISTED = 12  # samples whose numbers are given


def take(setting: Setting) -> Data:
    """What was found, surest first, what was looked at and not proved, and out of which features."""
    task, baseline = setting.task, setting.baseline
    if task is None or baseline is None or baseline.rows is None or setting.candidate.rows is None:
        raise TaskError("slices are sought among samples that both models answered, and there are none.")
    ids = np.asarray(setting.ids())
    _one_row_a_sample(setting, baseline.rows)
    rows, before = ({k: v[ids] for k, v in side.items()} for side in (setting.candidate.rows, baseline.rows))
    scores = scores_of(task.metric, baseline.rows, setting.candidate.rows)
    if scores is None:
        raise TaskError(f"the rows of metric '{task.metric.name}' hold no score of single samples: neither 'correct', nor 'predicted' and 'target', nor a column whose mean it is.")
    scores = _of(scores, ids)
    columns = columns_of(task, setting.split, ids.tolist(), before, rows)
    looks = _looks(columns, scores, setting.confidence) if columns and np.any(scores.harm > 0) else []
    told = [_told(look, scores, ids, shared(setting.confidence, len(looks))) for look in looks]
    found = [t for look, t in zip(looks, told, strict=True) if look.p_value <= (1 - setting.confidence) / 2 and t["drop_low"] > 0]
    return {
        "split": setting.split,
        "samples": len(ids),
        "confidence": setting.confidence,
        "score": scores.name,
        "binary": scores.binary,
        "features": [c.name for c in columns],
        "harmed": int((scores.harm > 0).sum()),
        "whole": _values(scores, np.ones(len(ids), dtype=bool)),
        "found": sorted(found, key=lambda t: (t["p_value"], -t["drop"])),
        "not_proved": sorted((t for t in told if t not in found), key=lambda t: (t["p_value"], -t["drop"])),
    }


@dataclass(frozen=True)
class _Look:
    """A part of one half's tree, which samples of the other half are in it, and how likely chance alone shows as much there."""

    part: Part
    inside: np.ndarray
    outside: np.ndarray
    p_value: float
    half: int


def _looks(columns: Sequence[Column], scores: Scores, confidence: float) -> list[_Look]:
    """Both halves in turn; each half's test has half of the error."""
    order = np.random.default_rng(0).permutation(len(scores.harm))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    halves = ((first, second), (second, first))
    return [look for number, half in enumerate(halves, start=1) for look in _judged(columns, scores.harm, half, 1 - (1 - confidence) / 2, number=number)]


def _judged(columns: Sequence[Column], harm: np.ndarray, half: tuple[np.ndarray, np.ndarray], confidence: float, *, number: int) -> Iterator[_Look]:
    own, other = half
    held = [c.take(other) for c in columns]
    parts = [(part, part.holds(held)) for part in grown([c.take(own) for c in columns], harm[own])[:JUDGED]]
    parts = [(part, mask) for part, mask in parts if min(mask.sum(), (~mask).sum()) >= HELD]
    if parts:
        chances = standing_out(harm[other], np.stack([mask for _, mask in parts]), confidence=confidence)
        yield from (_Look(part, other[mask], other[~mask], float(p), number) for (part, mask), p in zip(parts, chances, strict=True))


def _told(look: _Look, scores: Scores, ids: np.ndarray, confidence: float) -> dict[str, Any]:
    """A part in words and figures, all of the held-out samples in it. `drop_low` and `retention_high` hold together at the setting's confidence."""
    harm = scores.harm[look.inside]
    worst = look.inside[np.argsort(-harm, kind="stable")]
    facts: dict[str, Any] = {
        "words": str(look.part),
        "conditions": [{"feature": c.column, "is": c.kind, "value": c.value} for c in look.part.conditions],
        "half": look.half,
        "p_value": look.p_value,
        "harmed": int((harm > 0).sum()),
        "helped": int((harm < 0).sum()),
        "elsewhere": float(scores.harm[look.outside].mean()),
        "ids": [int(ids[i]) for i in worst[:LISTED] if scores.harm[i] > 0],
    }
    inside = np.zeros(len(ids), dtype=bool)
    inside[look.inside] = True
    return facts | _values(scores, inside) | _bounds(scores, look.inside, confidence)


def _values(scores: Scores, inside: np.ndarray) -> dict[str, Any]:
    before, after = float(scores.baseline[inside].mean()), float(scores.candidate[inside].mean())
    kept = after / before if scores.binary and before > 0 else None
    return {"samples": int(inside.sum()), "baseline": before, "candidate": after, "drop": float(scores.harm[inside].mean()), "retention": kept}


def _bounds(scores: Scores, inside: np.ndarray, confidence: float) -> dict[str, float | None]:
    """What was lost there at least, and so kept at most."""
    before, after = scores.baseline[inside], scores.candidate[inside]
    if not scores.binary:
        harm: Rows = {"harm": scores.harm[inside]}
        return {"drop_low": bca_lower(harm, harm, lambda r, _: float(r["harm"].mean()), confidence=confidence).low}
    counts, other = paired.counts(after, before), paired.counts(before, after)
    high = None
    if counts.baseline:  # the score test is the same the other way round; where the candidate has none right, Z(φ) = −√(φ·n₊₁)
        high = 1 / paired.ratio_lower(other, confidence) if counts.candidate else paired.quantile(confidence) ** 2 / counts.baseline
    return {"drop_low": -paired.difference_upper(counts, confidence), "retention_high": high}


def _of(scores: Scores, ids: np.ndarray) -> Scores:
    return Scores(scores.name, scores.baseline[ids], scores.candidate[ids], scores.binary, scores.rising)


def _one_row_a_sample(setting: Setting, rows: Rows) -> None:
    metric, count = setting.task.metric if setting.task else None, len(next(iter(rows.values())))
    samples = len(setting.task.split(setting.split)) if setting.task else 0
    if metric is None or count != samples:
        raise TaskError(f"the metric has {count:,} rows for {samples:,} samples, so none can be told to belong to a slice.")


def why_not(setting: Setting) -> str:
    """A slice is sought where samples are many, and don't come in groups."""
    missing = needs_baseline(setting)
    if missing or setting.task is None:
        return missing
    if setting.task.metric.unit:
        return f"its samples come in units of '{setting.task.metric.unit}', and a slice is judged as if each stood for itself"
    count = len(setting.ids())
    return f"{count} samples are too few to seek on one half and judge on the other; it takes {FEWEST}" if count < FEWEST else ""


FOUND_SLICES = Study(name="found_slices", summary="the parts of the data in which most is lost, found on one half and judged on the other", take=take, why_not=why_not)
