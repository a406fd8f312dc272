"""What must be true of a task before anything is spent on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import TaskError, near
from limbeck.core.metric import Metric
from limbeck.core.task import Task
from limbeck.intake.fingerprint import MapStyle, Scan, digest, scan, spread
from limbeck.mechanics.data import arguments, batch_of, flatten, labels

SPLITS = ("train", "validation", "test")
REREAD = 16  # samples that are read twice
LOOKED_AT = 64  # samples whose numbers are looked at
SHARED_LIMIT = 0.01  # of train: what may also stand in another split


@runtime_checkable
class Identified(Protocol):
    """A data set that says which real thing each sample is: one id a sample."""

    ids: Sequence[Any]

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Checked:
    """What the checks found: a fingerprint for each split, lines for the reader, and training samples to leave out."""

    fingerprints: Mapping[str, str]
    notes: tuple[str, ...] = ()
    dropped: tuple[int, ...] = ()


def check(task: Task, *, splits: Sequence[str] = SPLITS) -> Checked:
    """Look at a task's parts and at its data, each sample once. `splits` are those that will be needed.

    Raises: TaskError if a split is missing or empty, `dataset[i]` isn't deterministic, splits share ids or more than 1 % of
    train, inputs or labels hold NaN or Inf, or the metric isn't a Metric.
    """
    _parts(task, splits)
    _ids(task, splits)
    scans = {name: scan(task.split(name), where=f"task '{task.name}' split '{name}'") for name in splits}
    for name, found in scans.items():
        _deterministic(task, name, found)
        _finite(task, name)
    shared = [note for a, b in combinations(splits, 2) if "train" not in (a, b) for note in _shared(scans, a, b)]
    dropped, notes = _dropped(task, scans) if "train" in scans else ((), [])
    partial = [f"split '{name}' is large: {len(s.samples):,} of {s.size:,} samples were compared with the other splits." for name, s in scans.items() if not s.whole]
    return Checked({name: s.fingerprint for name, s in scans.items()}, (*notes, *shared, *partial), dropped)


def _parts(task: Task, splits: Sequence[str]) -> None:
    if not isinstance(task.metric, Metric):
        raise TaskError(
            f"task '{task.name}'.metric must be a limbeck.Metric, got {type(task.metric).__name__}. Take limbeck.accuracy() or its like, or write Metric(name=…, rows=…, reduce=…)."
        )
    for field in ("collate", "inputs", "outputs", "loss"):
        value = getattr(task, field)
        if value is not None and not callable(value):
            raise TaskError(f"task '{task.name}'.{field} must be a function, got {type(value).__name__}. Leave it out for the default.")
    _beside_splits(task)
    missing = [name for name in splits if name not in task.splits]
    if missing:
        raise TaskError(
            f"task '{task.name}' has no split {' and no split '.join(repr(m) for m in missing)}. {near(missing[0], task.splits)} Task(splits={{…}}) needs {', '.join(splits)}."
        )
    for name in splits:
        data = task.split(name)
        if not isinstance(data, MapStyle):
            raise TaskError(f"task '{task.name}' split '{name}' must have a length and be indexed by number, got {type(data).__name__}. Put a stream's samples into a list.")
        if len(data) == 0:
            raise TaskError(f"task '{task.name}' split '{name}' is empty. Give it samples.")


def _beside_splits(task: Task) -> None:
    """What studies at the verdict will read, hours later."""
    odd = task.shifts if not isinstance(task.shifts, Mapping) else [name for name, kind in task.shifts.items() if not callable(kind)]
    if odd is not None and odd != []:
        raise TaskError(f"task '{task.name}'.shifts must be a dict of functions (sample, strength, rng) → sample by name, got {odd!r}. Take limbeck.image_shifts() or its like.")
    if not isinstance(task.outside, Mapping):
        raise TaskError(f"task '{task.name}'.outside must be a dict of data sets by name, got {type(task.outside).__name__}. Name each, as in {{'other digits': …}}.")
    for name, data in task.outside.items():
        if not isinstance(data, MapStyle):
            raise TaskError(f"task '{task.name}'.outside['{name}'] must have a length and be indexed by number, got {type(data).__name__}. Put a stream's samples into a list.")


def _ids(task: Task, splits: Sequence[str]) -> None:
    known: dict[str, set[Any]] = {}
    for name in splits:
        data = task.split(name)
        ids = [_plain(i) for i in data.ids] if isinstance(data, Identified) else []
        if not ids or not all(isinstance(i, (str, int)) for i in ids):
            continue  # none, or an attribute of that name that means something else, such as token ids
        if len(ids) != len(data):
            raise TaskError(f"task '{task.name}' split '{name}' has {len(data)} samples but {len(ids)} ids. Give one for each.")
        known[name] = set(ids)
    for a, b in combinations(known, 2):
        both = sorted(known[a] & known[b], key=repr)
        if both:
            raise TaskError(f"task '{task.name}': splits '{a}' and '{b}' share {len(both)} ids, as {both[0]!r}. What is judged must not have been seen: split by id.")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.dim() == 0) else value


def _deterministic(task: Task, name: str, found: Scan) -> None:
    data, known = task.split(name), list(found.samples)
    for i in (known[k] for k in spread(len(known), REREAD)):
        if digest(data[i], where=f"{name}[{i}]") != found.samples[i]:
            raise TaskError(
                f"task '{task.name}' split '{name}': dataset[i] must be deterministic, but sample {i} read twice gave two contents. Move random augmentation to Task.views."
            )


def _finite(task: Task, name: str) -> None:
    ids = range(min(LOOKED_AT, len(task.split(name))))
    try:
        batch = batch_of(task, name, ids)
    except (RuntimeError, TypeError) as error:
        raise TaskError(
            f"task '{task.name}' split '{name}': its samples can't be joined into a batch: {str(error).splitlines()[0]} Give Task(collate=…) a function from samples to a batch."
        ) from error
    for leaf, value in flatten(*arguments(task, batch)).items():
        _refuse_nonfinite(value, f"input '{'.'.join(leaf)}'", task, name)
    answer = labels(batch)
    for leaf, value in flatten((answer,), {}).items():
        _refuse_nonfinite(value, ".".join(("the label", *leaf[1:])), task, name)


def _refuse_nonfinite(value: Tensor, what: str, task: Task, name: str) -> None:
    if value.is_floating_point() and not torch.isfinite(value).all():
        where = (~torch.isfinite(value)).nonzero()[0].tolist()
        raise TaskError(
            f"task '{task.name}' split '{name}': {what} must be finite, got {value[tuple(where)].item()} at {where} of the first batch. Clean the data, or leave the sample out."
        )


def _shared(scans: Mapping[str, Scan], a: str, b: str) -> list[str]:
    both = set(scans[a].samples.values()) & set(scans[b].samples.values())
    return [f"{len(both)} samples of '{a}' also stand in '{b}': both figures rest on them."] if both else []


def _dropped(task: Task, scans: Mapping[str, Scan]) -> tuple[tuple[int, ...], list[str]]:
    judged = {sample: name for name, found in scans.items() if name != "train" for sample in found.samples.values()}
    train = scans["train"]
    dropped = tuple(i for i, sample in train.samples.items() if sample in judged)
    if not dropped:
        return (), []
    names = " and ".join(sorted({judged[train.samples[i]] for i in dropped}))
    if len(dropped) > SHARED_LIMIT * len(train.samples):
        raise TaskError(
            f"task '{task.name}': {len(dropped)} of {len(train.samples)} training samples also stand in {names} (as train[{dropped[0]}]), which is more than {SHARED_LIMIT:.0%}. "
            "What is judged must not have been seen: split again, without duplicates."
        )
    return dropped, [f"{len(dropped)} of {len(train.samples)} training samples also stand in {names}; they are left out of training."]
