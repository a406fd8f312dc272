"""What is kept when samples are corrupted: both models on the same corrupted samples, kind by kind, at five strengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from limbeck.core.contract import TOO_GOOD
from limbeck.core.errors import ArtifactError, ConfigError, TaskError
from limbeck.core.evidence import Status, Verdict
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.evaluation import quality
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.shifted import CORRUPTED, Point, bounds_of, kept_at, kept_over, over_all, value_of
from limbeck.evaluation.studies.study import BASELINE, CANDIDATE, Data, Setting, Study, needs_task
from limbeck.intake.fingerprint import spread

LIMIT = "corruption_retention"
LEAST = 2  # samples of a point: fewer have no spread


def take(setting: Setting) -> Data:
    """The metric of each model under each kind and strength, what is kept there, by kind, and over all.

    Raises: TaskError if the task's corruptions can't be made; Interrupted.
    """
    from limbeck.mechanics.shifts import STRENGTHS, kinds_of

    task = _of(setting)
    kinds = kinds_of(task, setting.split)
    if not kinds.kinds:
        raise TaskError(f"no corruption of task '{task.name}' can be made here: {'; '.join(f'{k}: {why}' for k, why in kinds.left_out.items())}. Install what is missing.")
    places = [(kind, strength) for kind in kinds.kinds for strength in STRENGTHS]
    shares = shared(len(task.split(setting.split)), setting.samples, len(places))
    points = _measured(setting, task, kinds.kinds, list(zip(places, shares, strict=True)))
    told = [_told(kind, [p for p in points if p.kind == kind], task.metric, setting.confidence) for kind in kinds.kinds]
    overall, note = over_all(points, task.metric, setting.confidence, setting.baseline is not None)
    return {
        "split": setting.split,
        "metric": task.metric.name,
        "direction": task.metric.direction,
        "samples": len(shares[0]),
        "distinct": len(np.unique(np.concatenate(shares))),
        "confidence": setting.confidence,
        "assumed": kinds.assumed,
        "derived": kinds.derived,
        "left_out": dict(kinds.left_out),
        "clean": {name: value_of(task.metric, side.rows) for name, side in setting.sides.items()},
        "kinds": told,
        "overall": overall,
        "note": note,
    }


def shared(size: int, samples: int, points: int) -> list[np.ndarray]:
    """The samples' numbers of each point: so many that all points together have about `samples`, and as different ones as there are."""
    each = min(size, max(LEAST, samples // points))
    pool = np.asarray(spread(size, each * points))
    pool = pool[np.random.default_rng(0).permutation(len(pool))]  # a split may be sorted by class
    return [pool[(np.arange(each) + p * each) % len(pool)] for p in range(points)]


def _of(setting: Setting) -> Task:
    if setting.task is None:
        raise TaskError(needs_task(setting))
    return setting.task


def _measured(setting: Setting, task: Task, kinds: Mapping[str, Any], asked: Sequence[tuple[tuple[str, int], np.ndarray]]) -> list[Point]:
    """Each model on each point's samples, which are corrupted once."""
    from limbeck.mechanics.shifts import corrupted

    data, points = task.split(setting.split), []
    with ExitStack() as open_:
        sessions = {name: open_.enter_context(Apart(side.artifact, threads=setting.target.threads, stop=setting.stop)) for name, side in setting.sides.items()}
        for number, ((kind, strength), ids) in enumerate(asked):
            setting.go_on()
            setting.progress(number, len(asked), f"shift: {kind} at strength {strength}")
            samples = [corrupted(kind, kinds[kind], data[int(i)], number=int(i), strength=strength) for i in ids]
            points.append(_point_of(sessions, replace(task, splits={**task.splits, CORRUPTED: samples}), kind, strength, ids=ids))
    return points


def _point_of(sessions: Mapping[str, Apart], shown: Task, kind: str, strength: int, *, ids: np.ndarray) -> Point:
    rows, notes = {}, []
    for name, session in sessions.items():
        try:
            rows[name] = quality.rows_of_session(session, shown, CORRUPTED)
        except ArtifactError as error:  # NaN, a crash, or an input that the artifact doesn't take: a finding of this point
            notes.append(f"{name}: {error}")
    return Point(kind, strength, ids, rows, " ".join(notes))


def _told(kind: str, points: Sequence[Point], metric: Metric, confidence: float) -> Data:
    """A kind: what is kept over its strengths, and each of them."""
    kept = None
    if all(p.rows.keys() == {BASELINE, CANDIDATE} for p in points):
        kept = kept_over(points, metric, confidence)[0]
    return {"name": kind, "retention": kept, "points": [_point(p, metric, confidence) for p in points]}


def _point(point: Point, metric: Metric, confidence: float) -> Data:
    values = {name: value_of(metric, rows) for name, rows in point.rows.items()}
    bounds = {name: bounds_of(metric, rows, confidence) for name, rows in point.rows.items()}
    found: Data = {"strength": point.strength, "samples": len(point.ids), BASELINE: None, CANDIDATE: None, **values, "intervals": bounds, "retention": None, "note": point.note}
    if point.rows.keys() == {BASELINE, CANDIDATE} and None not in values.values():
        try:
            found["retention"] = kept_at(metric, point.rows[CANDIDATE], point.rows[BASELINE], confidence)
        except (ConfigError, TaskError) as error:
            found["note"] = str(error)
    return found


def verdict(found: Mapping[str, Any], limit: float) -> Verdict:
    """Whether the lower bound of what is kept over all kinds and strengths is at least the limit."""
    overall = found["overall"]
    if overall is None or overall["kind"] != "ratio":
        why = found["note"] or f"for the metric '{found['metric']}' a ratio means nothing, so nothing is said of it"
        return Verdict(gate=LIMIT, status=Status.UNVERIFIED, limit=limit, reason=why)
    value, low, units = overall["value"], overall["low"], overall["units"]
    sure = f"{100 * found['confidence']:.4g} % bound {low:.4f} on {units} samples of {found['split']}, over {len(found['kinds'])} kinds at five strengths"
    facts = {"gate": LIMIT, "limit": limit, "measured": value, "low": low}
    if low > TOO_GOOD:
        return Verdict(status=Status.ANOMALOUS, reason=f"better than the baseline by more than 5 % ({sure}): look for a leak or a broken baseline", **facts)
    if low >= limit:
        return Verdict(status=Status.PASS, reason=sure, **facts)
    if value < limit:
        return Verdict(status=Status.FAIL, reason=f"retention under corruption {value:.4f} is itself below {limit:.4f}", **facts)
    needed = math.ceil(units * ((value - low) / (value - limit)) ** 2 - 1e-6) if value > limit else None
    about = f"about {needed:,} samples would settle it: raise proof.samples" if needed else "it stands at the limit: no number of samples is sure to settle it"
    return Verdict(status=Status.INCONCLUSIVE, reason=f"retention under corruption {value:.4f} keeps {limit:.4f}, its {sure} doesn't: {about}", samples_needed=needed, **facts)


def why_not(setting: Setting) -> str:
    """No task, or samples that nothing is known to befall."""
    from limbeck.mechanics.shifts import why_no_kinds

    return needs_task(setting) or (why_no_kinds(setting.task, setting.split) if setting.task else "")


SHIFT = Study(
    name="shift",
    summary="what is kept under corruptions of the samples (noise, blur, typos, clipping, …), at five strengths",
    take=take,
    why_not=why_not,
    limits={LIMIT: verdict},
)
