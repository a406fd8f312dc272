"""What a sample of the user's looks like to a reader: a picture, a text, token ids, or a few numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.core.foreign import users_code
from limbeck.core.task import Task
from limbeck.mechanics.data import LABELS, batch_of, feed
from limbeck.report.story import Picture, Sample

SIDE = 64  # pixels of a thumbnail's longer side at most
SMALLEST = 4  # a picture has at least so many rows and columns; less is a table
TEXT, TOKENS, NUMBERS = 280, 64, 10  # how much of each is shown


def sample(task: Task, split: str, index: int) -> Sample | None:
    """One sample, shown: its text if it holds any, else the first of the model's inputs that says something.

    Raises: TaskError if the task's own code fails.
    """
    with users_code(f"task '{task.name}': sample {index} of {split}"):
        whole = task.split(split)[index]
        text = next(_texts(whole), None)
        if text is not None:
            return Sample(text=text[:TEXT], note=f"the first {TEXT} of {len(text):,} characters" if len(text) > TEXT else "")
        inputs = [(name, value[0]) for name, value in feed(task, batch_of(task, split, [index])).items() if value.ndim]
    return next((s for s in (_array(name, value) for name, value in inputs) if s), None)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a sample that isn't its label."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in LABELS:
                yield from _texts(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value[:-1] if isinstance(value, tuple) and len(value) > 1 else value:
            yield from _texts(inner)


def _array(name: str, value: np.ndarray | Tensor) -> Sample | None:
    array = np.asarray(value)
    picture = _picture(array)
    if picture:
        return Sample(picture=picture)
    if array.ndim == 1 and array.dtype.kind in "iu":
        note = f"the first {TOKENS} of {len(array):,}" if len(array) > TOKENS else ""
        return Sample(tokens=tuple(int(v) for v in array[:TOKENS]), note=note)
    if array.dtype.kind in "iufb" and array.size:
        flat = array.reshape(-1)
        note = f"the first {NUMBERS} of {flat.size:,} numbers" if flat.size > NUMBERS else ""
        title = "" if name.isdigit() else f"{name} "
        return Sample(numbers=tuple((f"{title}{i}", float(v)) for i, v in enumerate(flat[:NUMBERS])), note=note)
    return None


def _picture(array: np.ndarray) -> Picture | None:
    """Rows × columns, with 1 or 3 channels first or last; anything else isn't a picture."""
    if array.dtype.kind not in "uifb" or not array.size:
        return None
    if array.ndim == 2 and array.dtype.kind != "i":
        image = array[:, :, None]
    elif array.ndim == 3 and array.shape[0] in (1, 3):
        image = array.transpose(1, 2, 0)
    elif array.ndim == 3 and array.shape[2] in (1, 3):
        image = array
    else:
        return None
    if min(image.shape[:2]) < SMALLEST:
        return None
    small = _eight_bits(_thinned(image))
    height, width, channels = small.shape
    return Picture(width=width, height=height, channels=channels, pixels=small.tobytes())


def _thinned(image: np.ndarray) -> np.ndarray:
    """At most SIDE on the longer side: each pixel is the mean of those that it stands for."""
    height, width = image.shape[:2]
    factor = max(height, width) / SIDE
    if factor <= 1:
        return image
    values = image.astype(np.float64)
    for axis, length in ((0, height), (1, width)):
        count = max(1, round(length / factor))
        starts = np.arange(count) * length // count
        sizes = np.diff([*starts, length])
        values = np.add.reduceat(values, starts, axis=axis) / sizes.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return values


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """0 to 255: bytes as they are, fractions times 255, anything else stretched from its least to its greatest value."""
    values = np.nan_to_num(image.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if image.dtype == np.uint8 or (low >= 0 and 1 < high <= 255 and bool((values == np.rint(values)).all())):
        scaled = values
    elif low >= 0 and high <= 1:
        scaled = values * 255
    else:
        scaled = (values - low) * (255 / (high - low)) if high > low else values * 0
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
