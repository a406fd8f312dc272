"""Which corruptions a task's samples can take: those that it names, else those that its samples plainly allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.core.errors import ConfigError, LimbeckError, TaskError
from limbeck.core.require import installed
from limbeck.core.task import Task
from limbeck.mechanics.shifts.corruption import Corruption, Place, Shift, entry, place_of, plain
from limbeck.mechanics.shifts.images import TRANSLATION, image_shifts
from limbeck.mechanics.shifts.series import series_shifts
from limbeck.mechanics.shifts.text import text_shifts
from limbeck.mechanics.shifts.tokens import MASK, TokenShift, token_shifts

LOOKED_AT = 64  # samples from which it is told what they are
LEAST_SIDE, LEAST_STEPS, LEAST_TOKENS = 4, 64, 3  # smaller images, shorter rows of numbers and of tokens might be anything
WAY = "Name corruptions: Task(shifts=limbeck.image_shifts(…)), series_shifts, text_shifts, token_shifts, or functions (sample, strength, rng) → sample by name."


@dataclass(frozen=True)
class Kinds:
    """The kinds by name, what they take samples to be, whether that was derived, and those left out with the reason."""

    kinds: Mapping[str, Shift]
    assumed: str
    derived: bool
    left_out: Mapping[str, str] = field(default_factory=dict)


def kinds_of(task: Task, split: str) -> Kinds:
    """The task's own `shifts`, or those derived from samples of train (of `split`, where there is no train).

    Raises: TaskError if there are none, with how to name them.
    """
    if task.shifts is not None:
        if not isinstance(task.shifts, Mapping) or not task.shifts or not all(callable(f) for f in task.shifts.values()):
            raise TaskError(f"task '{task.name}'.shifts must be a dict of functions by name, got {task.shifts!r}. {WAY}")
        said = {f.assumes for f in task.shifts.values() if isinstance(f, (Corruption, TokenShift))}
        return _installed(task.shifts, "; ".join(sorted(said)) or "the task's own functions", derived=False)
    data = task.split("train" if "train" in task.splits else split)
    samples = [data[i * len(data) // min(len(data), LOOKED_AT)] for i in range(min(len(data), LOOKED_AT))]
    if not samples:
        raise TaskError(f"task '{task.name}' has no samples to tell from what could befall them. {WAY}")
    try:
        at = place_of(samples[0], None)
        values = [plain(entry(sample, at)) for sample in samples]
    except ConfigError as error:
        raise TaskError(f"what could befall the samples of task '{task.name}' can't be told: {error} {WAY}") from error
    found = _derived(task, samples, values, at)
    left_out = _misplaced(found, samples[0], values[0], at)
    return _installed({name: f for name, f in found.items() if name not in left_out}, next(iter(found.values())).assumes, derived=True, left_out=left_out)


def why_no_kinds(task: Task, split: str) -> str:
    """Why a task's samples can't be corrupted; empty where they can."""
    try:
        kinds_of(task, split)
    except LimbeckError as error:
        return str(error)
    return ""


def _misplaced(kinds: Mapping[str, Any], sample: Any, image: Any, at: Place) -> dict[str, str]:
    """Kinds that would move an image away from what else a sample says of its places, such as a label of each pixel."""
    entries = dict(sample) if isinstance(sample, Mapping) else dict(enumerate(sample)) if isinstance(sample, (tuple, list)) else {}
    sizes = [tuple(value.shape[-2:]) for key, value in entries.items() if key != at and isinstance(value, (Tensor, np.ndarray))]
    if TRANSLATION not in kinds or image.shape[-2:] not in sizes:
        return {}
    return {TRANSLATION: "another entry of the samples has the images' height and width, and wouldn't move with them; a function of Task.shifts can move both"}


def _installed(kinds: Mapping[str, Any], assumed: str, *, derived: bool, left_out: Mapping[str, str] | None = None) -> Kinds:
    missing = {name: f.needs for name, f in kinds.items() if isinstance(f, Corruption) and f.needs and installed(f.needs) is None}
    absent = {name: f"it needs {library}, which isn't installed: pip install {library}" for name, library in missing.items()}
    return Kinds({name: f for name, f in kinds.items() if name not in missing}, assumed, derived, {**(left_out or {}), **absent})


def _derived(task: Task, samples: list[Any], values: list[Any], at: Place) -> Mapping[str, Corruption] | Mapping[str, TokenShift]:
    first = values[0]
    if all(isinstance(v, str) for v in values):
        return text_shifts(input=at)
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    if len(arrays) == len(values) and len({(v.ndim, v.dtype.kind) for v in values}) == 1:
        if first.dtype.kind in "iu" and first.ndim == 1 and first.dtype != np.uint8:
            return _tokens(task, samples, arrays, at)
        if first.ndim == 3 and all(v.shape[0] in (1, 3) and min(v.shape[1:]) >= LEAST_SIDE for v in arrays) and (first.dtype.kind == "f" or first.dtype == np.uint8):
            low, high = _range(arrays)
            return image_shifts(low=low, high=high, input=at)
        if first.dtype.kind == "f" and first.ndim in (1, 2) and all(v.shape[-1] >= LEAST_STEPS and (v.ndim == 1 or v.shape[-1] >= 4 * v.shape[0]) for v in arrays):
            return series_shifts(input=at)
    got = f"{first.dtype} {list(first.shape)}" if isinstance(first, np.ndarray) else type(first).__name__
    raise TaskError(f"samples of task '{task.name}' ({got}) are neither plainly images [1 or 3, height, width], nor series, token ids or text. {WAY}")


def _range(images: list[np.ndarray]) -> tuple[list[float], list[float]]:
    """Black and white of each channel: 0 and 255 for 8 bits, else 0 and 1 where values lie between, else the least and largest seen."""
    if images[0].dtype == np.uint8:
        return [0.0], [255.0]
    low, high = (np.stack([of(v.reshape(len(v), -1).astype(np.float64), 1) for v in images]) for of in (np.min, np.max))
    least, most = low.min(0), high.max(0)
    if not (np.isfinite(least).all() and np.isfinite(most).all()):
        raise TaskError(f"samples hold NaN or infinities, so their range isn't known. {WAY}")
    if least.min() >= 0 and 0.5 < most.max() <= 1:
        return [0.0], [1.0]
    if (least >= most).any():
        raise TaskError(f"a channel of the samples never varies, so the range of their values isn't known. {WAY}")
    return least.tolist(), most.tolist()


def _tokens(task: Task, samples: list[Any], values: list[np.ndarray], at: Place) -> Mapping[str, TokenShift]:
    """Padding is what the mask hides, or what ends two samples and stands twice there; special is what begins, or ends, all of them."""
    if task.metric.target == "token":
        raise TaskError(f"task '{task.name}' labels tokens by their places, which drops and swaps would change. {WAY}")
    if max(len(v) for v in values) < LEAST_TOKENS or min(int(v.min(initial=0)) for v in values) < 0:
        raise TaskError(f"samples of task '{task.name}' hold {len(values[0])} whole numbers, which might not be tokens. {WAY}")
    masks = [plain(sample[MASK]) != 0 if isinstance(sample, Mapping) and MASK in sample else None for sample in samples]
    hidden = {int(i) for ids, mask in zip(values, masks, strict=True) if mask is not None and len(mask) == len(ids) for i in ids[~mask]}
    ends = [int(v[-1]) for v in values if len(v) > 1 and v[-1] == v[-2]]
    pad = min(hidden) if len(hidden) == 1 else ends[0] if not hidden and len(ends) >= max(2, len(values) / 20) and len(set(ends)) == 1 else None
    whole = [v[v != pad] if pad is not None else v for v in values]
    edges = [{int(v[place]) for v in whole if len(v)} for place in (0, -1)] if len(whole) > 1 else []
    return token_shifts(pad_id=pad, keep_ids={next(iter(edge)) for edge in edges if len(edge) == 1}, input=at)
