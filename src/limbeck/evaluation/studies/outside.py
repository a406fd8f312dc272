"""How sure models are of inputs that belong to no class, and whether that tells them from inputs that do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from limbeck.core.errors import TaskError
from limbeck.core.foreign import users_code
from limbeck.core.task import Task
from limbeck.evaluation.edge_inputs import length, samples
from limbeck.evaluation.feeds import in_whole_batches
from limbeck.evaluation.processes.apart import Apart
from limbeck.evaluation.quality import BATCH
from limbeck.evaluation.ranges import Ranges, counting, ranges_of, stays
from limbeck.evaluation.studies.study import BASELINE, CANDIDATE, Data, Setting, Study, needs_task
from limbeck.intake.fingerprint import spread
from limbeck.mechanics.data import batch_of, collated, feed
from limbeck.runtimes.card import Feed, fixed_batch
from limbeck.stats.auroc import auroc, auroc_difference
from limbeck.stats.bootstrap import bca_lower
from limbeck.stats.distances import are_probabilities, log_probabilities

INSIDE = "inside"
LEAST = 8  # samples of a set
BINS = 20  # of a histogram of confidence over [0, 1]
RESAMPLES = 400
Made = Callable[[Feed, Ranges, np.random.Generator], dict[str, np.ndarray]]  # what was fed inside, the ranges of all of it, draws


@dataclass(frozen=True)
class Outside:
    """A set of samples: its name, whether it was made here, and the feeds of its batches."""

    name: str
    made: bool
    feeds: Sequence[Feed]


def take(setting: Setting) -> Data:
    """Confidence of each model inside and on each set outside, the AUROC of telling them apart, and the difference between models.

    Raises: TaskError if the outputs aren't of classes, or a set isn't of samples that the task can feed; Interrupted.
    """
    if setting.task is None:
        raise TaskError(needs_task(setting))
    task = setting.task
    inside, sets = _sets(setting, task)
    sure: dict[str, dict[str, np.ndarray]] = {}
    with ExitStack() as open_:
        for name, side in setting.sides.items():
            setting.progress(0, 0, f"outside: asking the {name}")
            session = open_.enter_context(Apart(side.artifact, threads=setting.target.threads, stop=setting.stop))
            sure[name] = {one.name: _asked(session, one, task, setting) for one in (inside, *sets)}
    clean = {name: found[INSIDE] for name, found in sure.items()}
    return {
        "split": setting.split,
        "confidence": setting.confidence,
        "samples": len(clean[CANDIDATE]),
        INSIDE: {name: _of_model(own) for name, own in clean.items()},
        "sets": [_told(one, {name: found[one.name] for name, found in sure.items()}, clean, setting.confidence) for one in sets],
    }


def _sets(setting: Setting, task: Task) -> tuple[Outside, list[Outside]]:
    """Samples of the split, the task's own sets, and three that are made from the first; `setting.samples` shared among them.

    One that comes out as it was, such as single numbers in another order, is left out.
    """
    count = max(LEAST, setting.samples // (1 + len(task.outside) + len(MADE)))
    ids = spread(len(task.split(setting.split)), count)
    parts = [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]
    inside = [feed(task, batch_of(task, setting.split, part)) for part in parts]
    given = []
    for name, data in task.outside.items():
        if name in (INSIDE, *MADE):
            raise TaskError(f"task '{task.name}'.outside['{name}'] has a name that limbeck uses itself. Take another.")
        with users_code(f"task '{task.name}'.outside['{name}']", always=True):
            chosen = spread(len(data), count)
            if len(chosen) < 2:
                raise TaskError(f"task '{task.name}'.outside['{name}'] must have at least 2 samples, got {len(chosen)}. Give more.")
            given.append(Outside(name, False, [feed(task, collated(task, [data[i] for i in chosen[at : at + BATCH]])) for at in range(0, len(chosen), BATCH)]))
    ranges = ranges_of(inside)
    made = [Outside(name, True, [make(one, ranges, np.random.default_rng([number, at])) for at, one in enumerate(inside)]) for number, (name, make) in enumerate(MADE.items())]
    changed = [one for one in made if any(not np.array_equal(after[key], before[key]) for after, before in zip(one.feeds, inside, strict=True) for key in before)]
    return Outside(INSIDE, False, inside), [*given, *changed]


def _noise(fed: Feed, ranges: Ranges, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Values drawn evenly between the least and the largest."""

    def drawn(name: str, values: np.ndarray) -> np.ndarray:
        low, high = ranges[name]
        if values.dtype.kind in "iu":
            return rng.integers(int(low), int(high), values.shape, endpoint=True).astype(values.dtype)
        return (low + (high - low) * rng.random(values.shape)).astype(values.dtype)

    return _changed(fed, ranges, drawn)


def _shuffled(fed: Feed, ranges: Ranges, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Each sample's own values in another order: pixels or steps (all channels of one together), tokens that a mask doesn't hide."""

    def drawn(name: str, values: np.ndarray) -> np.ndarray:
        if values.ndim < 2:  # one number a sample has no other order
            return values
        seen, counts = values.copy(), counting(fed, name, ranges)
        for i, row in enumerate(values):
            if row.ndim >= 2 and counts[i].all():
                flat = row.reshape(len(row), -1)
                seen[i] = flat[:, rng.permutation(flat.shape[1])].reshape(row.shape)
            else:
                seen[i][counts[i]] = rng.permutation(row[counts[i]])
        return seen

    return _changed(fed, ranges, drawn)


def _constant(fed: Feed, ranges: Ranges, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One value everywhere, another in each sample, drawn evenly between the least and the largest."""

    def drawn(name: str, values: np.ndarray) -> np.ndarray:
        low, high = ranges[name]
        shape = (len(values), *[1] * (values.ndim - 1))
        level = rng.integers(int(low), int(high), shape, endpoint=True) if values.dtype.kind in "iu" else low + (high - low) * rng.random(shape)
        return np.broadcast_to(level, values.shape).astype(values.dtype)

    return _changed(fed, ranges, drawn)


def _changed(fed: Feed, ranges: Ranges, drawn: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """The feed with what is drawn in the places that count; a number for all samples, such as a sample rate, stays."""
    read = {name: value for name, value in fed.items() if value.ndim and not stays(name, value, ranges)}
    return dict(fed) | {name: np.where(counting(fed, name, ranges), drawn(name, value), value).astype(value.dtype) for name, value in read.items()}


MADE: dict[str, Made] = {"noise": _noise, "shuffled": _shuffled, "constant": _constant}


def _asked(session: Apart, one: Outside, task: Task, setting: Setting) -> np.ndarray:
    """The confidence in each answer to a set."""
    size, ask, found = fixed_batch(session) or BATCH, in_whole_batches(session), []
    for fed in one.feeds:
        for at in range(0, length(fed), size):
            setting.go_on()
            found.append(confidence_of(ask(samples(fed, at, at + size)), task))
    return np.concatenate(found)


def confidence_of(outputs: Mapping[str, np.ndarray], task: Task) -> np.ndarray:
    """The probability of the class that is answered: rows that are probabilities as they are, else by softmax (a single logit: sigmoid).

    Raises: TaskError for outputs that aren't [batch, classes], or hold NaN.
    """
    name = "logits" if "logits" in outputs else next(iter(outputs))
    values = np.asarray(outputs[name])
    if ("logits" not in outputs and len(outputs) > 1) or values.ndim not in (1, 2) or values.dtype.kind != "f":
        shapes = ", ".join(f"{k} {v.dtype}{list(v.shape)}" for k, v in outputs.items())
        raise TaskError(f"task '{task.name}' has no output of classes, logits [batch, classes], but {shapes}. Confidence outside is of classifiers alone.")
    if np.isnan(values).any():
        raise TaskError(f"output '{name}' is NaN for an input outside of the classes. An artifact that gives NaN isn't judged; the study `edges` shows such inputs.")
    rows = values.reshape(len(values), -1)
    with np.errstate(invalid="ignore"):
        sure = np.exp(log_probabilities(rows, given=are_probabilities(rows))).max(axis=1)
    return np.where(np.isnan(sure), 1.0, sure)  # an infinite logit is sure


def _of_model(own: np.ndarray) -> Data:
    return {"mean": float(own.mean()), "histogram": np.histogram(own, BINS, (0.0, 1.0))[0].tolist()}


def _told(one: Outside, sure: Mapping[str, np.ndarray], clean: Mapping[str, np.ndarray], confidence: float) -> Data:
    found: Data = {"name": one.name, "made": one.made, "samples": len(sure[CANDIDATE]), BASELINE: None}
    for name, own in sure.items():
        area = auroc(clean[name], own, confidence)
        found[name] = {**_of_model(own), "auroc": {"value": area.value, "low": area.low, "high": area.high}}
    if BASELINE not in sure:
        return {**found, "auroc_change": None, "surer": None}
    change = auroc_difference((clean[CANDIDATE], sure[CANDIDATE]), (clean[BASELINE], sure[BASELINE]), confidence)
    return {**found, "auroc_change": {"value": change.value, "low": change.low, "high": change.high}, "surer": _surer(sure[CANDIDATE], sure[BASELINE], confidence)}


def _surer(candidate: np.ndarray, baseline: np.ndarray, confidence: float) -> Data:
    """How much more sure the candidate is of the same samples, and which of the two that shows."""
    rows = {"more": candidate - baseline}
    found = bca_lower(rows, rows, lambda c, _: float(c["more"].mean()), confidence=confidence, resamples=RESAMPLES)
    which = CANDIDATE if found.low > 0 else BASELINE if found.high < 0 else None
    return {"value": found.value, "low": found.low, "high": found.high, "which": which}


def why_not(setting: Setting) -> str:
    """No task, or one whose answers aren't classes."""
    why = needs_task(setting)
    if why or setting.task is None or setting.task.metric.target == "class":
        return why
    return f"confidence is of classifiers alone, and the metric '{setting.task.metric.name}' judges no classes (its target is {setting.task.metric.target or 'not said'})"


OUTSIDE = Study(name="outside", summary="how sure it is of inputs that belong to no class, beside the baseline", take=take, why_not=why_not)
