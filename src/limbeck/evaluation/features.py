"""What can be said of single samples, for people who ask which of them a candidate loses: the task's own features, or simple ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.core.errors import TaskError
from limbeck.core.foreign import users_code
from limbeck.core.metric import Rows
from limbeck.core.task import Task
from limbeck.evaluation.quality import BATCH
from limbeck.intake.classes import class_names
from limbeck.mechanics.data import LABELS, batches, feed
from limbeck.stats.answers import whole
from limbeck.stats.subgroups import Column, column_of

WIDEST = 32  # numbers a sample up to which each is a feature by itself
MOST_NAMES = 64  # of a column of text; more tell samples apart, and no parts
SURE = "confidence of both"
MASK = "attention_mask"


def columns_of(task: Task, split: str, ids: Sequence[int], baseline: Rows, candidate: Rows) -> list[Column]:
    """Label, confidence, and what the task's `features` give of these samples of a split; or, where it gives none, what their batches offer.

    That is: scalars beside the inputs, text's length, and of each input its numbers if they are few, else mean and contrast, or how
    many tokens aren't padding. What is the same for all samples is left out. The confidence is the mean of both models', so that it
    favours neither: where only one was sure, that one is right more often, whatever the other knows.

    Args:
        baseline, candidate: The metric's rows of these samples.
    Raises: TaskError if the task's function fails, or doesn't give one value a sample.
    """
    parts: dict[str, list[np.ndarray]] = {}
    given = 0
    for part, batch in batches(task, split, size=BATCH, ids=np.asarray(ids)):
        found = _own(task, batch, len(part)) if task.features else dict(_offered(task, batch, len(part)))
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
        given += len(part)
    whole_ones = {name: np.concatenate(v) for name, v in parts.items() if sum(map(len, v)) == given}
    made = [column_of(name, values) for name, values in whole_ones.items()]
    kept = [c for c in made if c and not (c.names and len(c.names) > MOST_NAMES)]
    return [*(c for c in _known(baseline, candidate, class_names(task, split)) if c.name not in parts), *kept]


def _known(baseline: Rows, candidate: Rows, names: tuple[str, ...]) -> Iterator[Column]:
    """Label and confidence, where the metric's rows tell them."""
    labels = whole(baseline, "target")
    if labels is not None and len(codes := np.unique(labels)) > 1:
        shown = tuple(names[c] if 0 <= c < len(names) else str(c) for c in codes.tolist())
        yield Column("label", np.searchsorted(codes, labels), shown if len(set(shown)) == len(shown) else tuple(map(str, codes.tolist())))
    both = [rows["confidence"].astype(np.float64) for rows in (baseline, candidate) if "confidence" in rows and rows["confidence"].ndim == 1]
    if len(both) == 2 and (found := column_of(SURE, (both[0] + both[1]) / 2)):
        yield found


def _own(task: Task, batch: Any, count: int) -> dict[str, np.ndarray]:
    if task.features is None:
        return {}
    with users_code(f"features of task '{task.name}'", always=True):
        given = task.features(batch)
        found = {str(name): _array(values) for name, values in given.items()}
    for name, values in found.items():
        if values.shape != (count,) or values.dtype.kind not in "iufbUS":
            raise TaskError(
                f"feature '{name}' of task '{task.name}' must give one number, bool or text a sample, got {values.dtype} of shape {list(values.shape)} for {count} samples. "
                "Return {name: column} with a column as long as the batch."
            )
    return found


def _offered(task: Task, batch: Any, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """What a batch says of its samples beside and within the model's inputs."""
    for name, value in _beside(batch):
        if isinstance(value, (list, tuple)) and len(value) == count and all(isinstance(v, str) for v in value):
            yield name, np.asarray(value)
            yield f"length of {name}", np.array([float(len(v)) for v in value])
        elif (values := _array(value)).shape == (count,) and values.dtype.kind in "iufb":
            yield name, values
    given = feed(task, batch)
    mask = next((v for k, v in given.items() if k.endswith(MASK)), None)
    shown = {k: v for k, v in given.items() if not k.endswith(MASK) and v.ndim >= 2 and len(v) == count}
    for key, value in shown.items():
        yield from _inside("input" if len(shown) == 1 else f"input {key}" if key.isdigit() else key, value.reshape(count, -1), mask, wide=value.ndim > 2)


def _beside(batch: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(batch, Mapping):
        yield from ((str(k), v) for k, v in batch.items() if k not in LABELS)
    elif isinstance(batch, (tuple, list)):
        yield from ((f"column {i}", v) for i, v in enumerate(batch[1:-1], start=1))


def _inside(name: str, flat: np.ndarray, mask: np.ndarray | None, *, wide: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Statistics of one input, a row of numbers a sample. `wide`: its numbers have places, as pixels do."""
    if flat.dtype.kind in "iu" and not wide:
        real = mask.astype(bool) if mask is not None and mask.shape == flat.shape else flat != 0
        yield f"length of {name}", np.where(real.any(axis=1), flat.shape[1] - np.argmax(real[:, ::-1], axis=1), 0).astype(np.float64)
    elif flat.dtype.kind in "iuf" and flat.shape[1]:
        values = flat.astype(np.float64)
        if not wide and flat.shape[1] <= WIDEST:
            yield from ((f"{name}[{i}]", values[:, i]) for i in range(flat.shape[1]))
        else:
            yield from ((f"mean of {name}", values.mean(axis=1)), (f"contrast of {name}", values.std(axis=1)))


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
