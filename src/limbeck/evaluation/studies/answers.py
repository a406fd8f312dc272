"""How far a candidate's answers lie from its baseline's, right or wrong: as distributions over classes, tokens, or as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.core.errors import TaskError
from limbeck.core.metric import Rows
from limbeck.evaluation.replies import class_answers, paired, replies
from limbeck.evaluation.studies.study import BASELINE, CANDIDATE, Data, Setting, Study, needs_baseline
from limbeck.intake.classes import class_names, named
from limbeck.intake.fingerprint import spread
from limbeck.stats import answers
from limbeck.stats import paired as shares
from limbeck.stats.bootstrap import bca_lower
from limbeck.stats.distances import BINS, Compared, histogram, quantiles

WORST = 10  # samples whose numbers are given
TOKENS = 20_000  # positions that are looked at, about
SEQUENCES = 8  # that are looked at, at least
POINTS = 64  # numbers of each sample's output that enter the quantiles of a difference
CLASS, TOKEN, VALUE = "class", "token", "value"
LEVELS = {"min": 0.0, "p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def take(setting: Setting) -> Data:
    """Figures by the kind of answer: `kind` says which."""
    if setting.task is None or setting.baseline is None:
        raise TaskError("answers are compared with a baseline's on the samples of a task, and one of them is missing.")
    kind = _kind(setting)
    ids = _fewer(setting) if kind == TOKEN else setting.ids()
    figures = _numbers(setting, ids) if kind == VALUE else _classes(setting, ids, tokens=kind == TOKEN)
    return {"kind": kind, "split": setting.split, "confidence": setting.confidence, **figures}


def _kind(setting: Setting) -> str:
    """What is answered: as the metric says, else a class where its rows hold predicted classes, else numbers."""
    told = setting.task.metric.target if setting.task else None
    rows = setting.candidate.rows or {}
    return told or (CLASS if answers.whole(rows, "predicted") is not None else VALUE)


def _fewer(setting: Setting) -> list[int]:
    """Samples that hold about 20,000 tokens together."""
    length = max((v.shape[1] for v in setting.feed.values() if v.ndim >= 2), default=1)
    return setting.ids(max(SEQUENCES, TOKENS // max(length, 1)))


# --- classes and tokens ------------------------------------------------------------------------------------------------------


def _classes(setting: Setting, ids: Sequence[int], *, tokens: bool) -> Data:
    known = class_answers(setting, ids, tokens=tokens)
    found, owner = known.found, known.owner
    names = class_names(setting.task, setting.split) if setting.task and not tokens else ()
    right = None if tokens else _right(setting, owner)
    change = found.held - found.margin
    return {
        "output": known.output,
        "samples": len(np.unique(owner)),
        **({"tokens": len(owner)} if tokens else {}),
        "classes": known.classes,
        "kl": quantiles(found.kl, LEVELS),
        "agreement": _agreement(found, owner, setting.confidence, tokens=tokens),
        "margin": {BASELINE: float(found.margin.mean()), CANDIDATE: float(found.held.mean()), "thinner": float((change < 0).mean()), "change": quantiles(change, LEVELS)},
        "sure": {BASELINE: float(found.sure_before.mean()), CANDIDATE: float(found.sure_after.mean())},
        "calibrated": all(answers.trust(side.rows) is not None for side in setting.sides.values()),
        "histograms": _histograms(found, known.classes, right),
        "worst": _worst(found, owner, names, tokens=tokens),
    }


def _agreement(found: Compared, owner: np.ndarray, confidence: float, *, tokens: bool) -> dict[str, float | int]:
    """The share of the same answers, with its one-sided lower bound: exact for samples, BCa over samples for tokens."""
    same = found.before == found.after
    if not tokens:
        return {"same": int(same.sum()), "share": float(same.mean()), "low": shares.proportion_bounds(int(same.sum()), len(same), confidence)[0]}
    sample = np.unique(owner, return_inverse=True)[1]
    rows: Rows = {"same": np.bincount(sample, weights=same), "all": np.bincount(sample).astype(np.float64)}
    low = bca_lower(rows, rows, lambda r, _: float(r["same"].sum() / r["all"].sum()), confidence=confidence).low if len(rows["all"]) > 1 else 0.0
    return {"same": int(same.sum()), "share": float(same.mean()), "low": low}


def _right(setting: Setting, ids: np.ndarray) -> dict[str, np.ndarray] | None:
    """Which of these samples each side has right, where its metric's rows are of samples."""
    count, found = len(setting.task.split(setting.split)) if setting.task else 0, {}
    for name, side in setting.sides.items():
        known = answers.right(side.rows) if side.rows else None
        if known is None or len(known) != count:
            return None
        found[name] = known[ids]
    return found


def _histograms(found: Compared, classes: int, right: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """How often each side was how sure; no answer is less sure than one class of all."""
    low = 1 / classes if classes <= BINS else 0.0
    made = {name: histogram(sure, low, 1.0, right[name] if right else None) for name, sure in ((BASELINE, found.sure_before), (CANDIDATE, found.sure_after))}
    return {"low": low, "high": 1.0, **made}


def _worst(found: Compared, owner: np.ndarray, names: tuple[str, ...], *, tokens: bool) -> list[dict[str, Any]]:
    """The samples whose answers moved most, by their mean KL."""
    samples, first, where = np.unique(owner, return_index=True, return_inverse=True)
    kl = np.bincount(where, weights=found.kl) / np.bincount(where)
    told = []
    for i in np.argsort(-kl, kind="stable")[:WORST]:
        one: dict[str, Any] = {"id": int(samples[i]), "kl": float(kl[i])}
        if tokens:
            mine = where == i
            one |= {"tokens": int(mine.sum()), "same": int((found.before == found.after)[mine].sum())}
        else:
            pairs = ((BASELINE, found.before, found.sure_before), (CANDIDATE, found.after, found.sure_after))
            one |= {side: {"answer": named(int(answer[first[i]]), names), "sure": float(sure[first[i]])} for side, answer, sure in pairs}
        told.append(one)
    return [one for one in told if one["kl"] > 0]


# --- numbers -----------------------------------------------------------------------------------------------------------------


def _numbers(setting: Setting, ids: Sequence[int]) -> Data:
    """How the numbers themselves differ: bias, spread, and the samples that moved most."""
    before, after, moved, owners, name, width = [], [], [], [], "", 1
    for reply in replies(setting, ids):
        name, values = paired(reply.outputs)
        if len(values[0]) != len(reply.ids):
            raise TaskError(f"output '{name}' holds {len(values[0])} rows for {len(reply.ids)} samples, so none can be told which it belongs to.")
        a, b = (v.reshape(len(v), -1).astype(np.float64) for v in values)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise TaskError(f"output '{name}' holds an infinity, so there is no distance. Look for an overflow.")
        places, width = spread(a.shape[1], POINTS), a.shape[1]
        moved.append(np.sqrt(((b - a) ** 2).mean(axis=1)))
        before.append(a[:, places])
        after.append(b[:, places])
        owners.append(reply.ids)
    a, b, distance, owner = (np.concatenate(v) for v in (before, after, moved, owners))
    difference, scale = (b - a).reshape(-1), float(a.std())
    order = np.argsort(-distance, kind="stable")[:WORST]
    worst = [{"id": int(owner[i]), "distance": float(distance[i]), BASELINE: float(a[i].mean()), CANDIDATE: float(b[i].mean())} for i in order if distance[i] > 0]
    low, high = (float(np.quantile(difference, q)) for q in (0.005, 0.995))
    return {
        "output": name,
        "samples": len(owner),
        "values": width,
        "difference": quantiles(difference, LEVELS | {"p1": 0.01}) | {"sd": float(difference.std()), "largest": float(np.abs(difference).max())},
        "relative": float(np.sqrt((difference**2).mean())) / scale if scale > 0 else None,
        "correlation": _correlation(a.reshape(-1), b.reshape(-1)),
        "cosine": quantiles(_cosine(a, b), {"p1": 0.01}) if a.shape[1] > 1 else None,
        "histogram": {"low": low, "high": high if high > low else low + 1.0, **histogram(difference, low, high)},
        "worst": worst,
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else None


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between both sides' vectors of each sample; a vector of zeros is like nothing."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)


ANSWERS = Study(name="answers", summary="how far its answers lie from the baseline's: divergence, agreement, confidence, margins", take=take, why_not=needs_baseline)
