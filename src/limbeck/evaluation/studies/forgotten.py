"""What a baseline has right and its candidate wrong: of which classes it is, and how sure the baseline was of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from limbeck.core.errors import ArtifactError, TaskError
from limbeck.core.metric import Rows
from limbeck.evaluation.replies import class_answers
from limbeck.evaluation.studies.study import MISSING, Data, Setting, Study, needs_baseline
from limbeck.intake.classes import class_names, named
from limbeck.intake.fingerprint import spread
from limbeck.stats import answers, paired

LISTED = 20  # samples whose numbers are given
CLASSES = 50  # that are listed, those first of which most was lost
GROUPS = 5  # of samples, by how sure the baseline was
SURE = 0.9  # from here on a right answer of the baseline counts as easy
NEAR = 0.2  # of probability between the two likeliest classes: nearer to the boundary a sample could fall either way


def take(setting: Setting) -> Data:
    """Counts over the whole split; margins of at most `samples` of it, for they take the outputs."""
    if setting.task is None or setting.baseline is None or not setting.baseline.rows or not setting.candidate.rows:
        raise TaskError("what was forgotten is read off the answers of both models to the samples of a task, and some are missing.")
    before, after = setting.baseline.rows, setting.candidate.rows
    first, second = answers.right(before), answers.right(after)
    if first is None or second is None:
        raise TaskError(f"the rows of metric '{setting.task.metric.name}' don't say which samples are right: they have neither 'correct' nor 'predicted' and 'target'.")
    if len(first) != (count := len(setting.task.split(setting.split))):
        raise TaskError(f"the metric has {len(first):,} rows for {count:,} samples, so none can be told which it belongs to.")
    lost, counts = first & ~second, paired.counts(second.astype(int), first.astype(int))
    names = class_names(setting.task, setting.split)
    margins = _margins(setting, np.flatnonzero(lost), np.flatnonzero(first & second))
    return {
        "split": setting.split,
        "samples": counts.total,
        "right": counts.baseline,
        "lost": counts.n01,
        "won": counts.n10,
        "share": counts.n01 / counts.baseline if counts.baseline else None,
        "share_high": paired.proportion_bounds(counts.n01, counts.baseline, setting.confidence)[1] if counts.baseline else None,
        "confidence": setting.confidence,
        "mcnemar": paired.mcnemar(counts),
        "classes": _classes(before, first, second, names),
        "by_sureness": _by_sureness(before, first, lost),
        "easy": _easy(before, first, lost),
        "margins": {k: v for k, v in margins.items() if k != "by_id"},
        "worst": _worst(before, after, lost, names, margins.get("by_id", {})),
    }


def _classes(before: Rows, first: np.ndarray, second: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each class with what it lost, those first that lost most. `p_value`: of losing so many by chance, times the number of classes."""
    from scipy.stats import hypergeom

    labels = answers.classes(before, "target")
    if labels is None:
        return []
    classes, where = np.unique(labels, return_inverse=True)
    samples, right, lost, won = (np.bincount(where, weights=w, minlength=len(classes)).astype(int) for w in (np.ones(len(labels)), first, first & ~second, ~first & second))
    chance = np.minimum(hypergeom.sf(lost - 1, first.sum(), lost.sum(), right) * len(classes), 1.0)
    order = np.lexsort((classes, -lost))[:CLASSES]
    shown = [_name(c, names) for c in classes.tolist()]
    return [
        {
            "class": shown[i],
            "samples": int(samples[i]),
            "right": int(right[i]),
            "lost": int(lost[i]),
            "won": int(won[i]),
            "share": float(lost[i] / right[i]) if right[i] else None,
            "p_value": float(chance[i]),
        }
        for i in order
    ]


def _name(label: Any, names: tuple[str, ...]) -> str:
    """A class as people call it: rows may hold its name."""
    return str(label) if isinstance(label, str) else named(int(label), names)


def _sureness(before: Rows) -> np.ndarray | None:
    """The baseline's confidence, without what only rounding tells apart."""
    column = before.get("confidence")
    return column.astype(np.float64).round(4) if column is not None and column.ndim == 1 and np.isfinite(column).all() else None


def _by_sureness(before: Rows, first: np.ndarray, lost: np.ndarray) -> list[dict[str, Any]]:
    """What the baseline had right in groups of equal size, the least sure first; equal confidences are never parted."""
    sure = _sureness(before)
    if sure is None or not first.any():
        return []
    own = sure[first]
    cuts = np.unique(np.quantile(own, np.arange(1, GROUPS) / GROUPS))
    where = np.searchsorted(cuts, own, side="right")
    told = []
    for group in np.unique(where):
        inside = where == group
        gone = int(lost[first][inside].sum())
        told.append({"from": float(own[inside].min()), "to": float(own[inside].max()), "right": int(inside.sum()), "lost": gone, "share": gone / int(inside.sum())})
    return told


def _easy(before: Rows, first: np.ndarray, lost: np.ndarray) -> dict[str, Any] | None:
    """Of what the baseline had right and was sure of, how much was lost; and its part of all that was."""
    sure = _sureness(before)
    if sure is None or not first.any():
        return None
    easy = first & (sure >= SURE)
    gone = int((easy & lost).sum())
    return {"from": SURE, "right": int(easy.sum()), "lost": gone, "of_lost": gone / int(lost.sum()) if lost.any() else None}


def _margins(setting: Setting, lost: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """How near the baseline's boundary lost samples lay, beside as many that were kept; how far beyond it the candidate went."""
    most = max(1, setting.samples // 2)
    gone, held = ([int(group[i]) for i in spread(len(group), most)] for group in (lost, kept))
    if not gone:
        return {MISSING: "nothing was lost"}
    try:
        known = class_answers(setting, sorted(gone + held))
    except (ArtifactError, TaskError) as error:  # outputs that are no logits of classes: the counts hold without
        return {MISSING: str(error)}
    found, away = known.found, np.isin(known.owner, gone)
    by_id = {int(i): float(m) for i, m in zip(known.owner[away], found.margin[away], strict=True)}
    just_over = float((found.held[away] > -NEAR).mean()) if away.any() else None
    return {"near": NEAR, "lost": _near(found.margin[away]), "kept": _near(found.margin[~away]), "just_over": just_over, "by_id": by_id}


def _near(margins: np.ndarray) -> dict[str, Any]:
    return {"samples": len(margins), "near": float((margins < NEAR).mean()) if len(margins) else None, "median": float(np.median(margins)) if len(margins) else None}


def _worst(before: Rows, after: Rows, lost: np.ndarray, names: tuple[str, ...], margins: Mapping[int, float]) -> list[dict[str, Any]]:
    """The samples that were lost although the baseline was surest of them; without its confidence, spread over all that were."""
    ids, sure = np.flatnonzero(lost), _sureness(before)
    chosen = ids[np.argsort(-sure[ids], kind="stable")][:LISTED] if sure is not None else ids[spread(len(ids), LISTED)]
    label, answer = answers.classes(before, "target"), answers.classes(after, "predicted")
    told = []
    for i in chosen.tolist():
        one: dict[str, Any] = {"id": i, "margin": margins.get(i)}
        if sure is not None:
            one["sure"] = float(sure[i])
        if label is not None and answer is not None:
            one |= {"label": _name(label[i], names), "says": _name(answer[i], names)}
        told.append(one)
    return told


FORGOTTEN = Study(name="forgotten", summary="what the baseline has right and the candidate wrong: of which classes, and whether it was easy", take=take, why_not=needs_baseline)
