"""Splits of the user's own: `file.py:name`, a dict of data sets, a tuple of three, or a function that gives one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from limbeck.core.errors import ConfigError, TaskError
from limbeck.core.foreign import users_code
from limbeck.intake.load import load_name
from limbeck.intake.starting.balance import ORDER, check_classes, check_sizes
from limbeck.intake.starting.csvfile import MOST_CLASSES, NAMES
from limbeck.intake.starting.parts import DataPart, Shape
from limbeck.intake.starting.questions import KIND, SLICE, Interview
from limbeck.intake.starting.source import quoted
from limbeck.mechanics.data import LABELS, labels

LOOKED_AT = 2000  # samples of a split whose labels are looked at
MOST_FEATURES = 4096
MOST_SLICES = 20


def part(entry: str, folder: Path, interview: Interview) -> DataPart:
    """Raises: TaskError if it gives no splits; ConfigError for a split that is missing or too small, a class that train lacks, or labels of no known kind."""
    name = entry.rpartition(":")[2]
    found = load_name(entry, base=folder, what="--data")
    called = isinstance(found, Callable)
    with users_code(f"--data {entry}", always=True):
        given = found() if isinstance(found, Callable) else found
    splits, keys = _splits(given, entry)
    with users_code(f"--data {entry}", always=True):
        count = {split: len(data) for split, data in splits.items()}
        way = f"Mend what {entry} gives."
        check_sizes(count, interview, way)
        known = {split: _labels(data, split) for split, data in splits.items()}
        batch = default_collate([splits["train"][i] for i in range(2)])
    kind = _kind(known["train"], interview)
    if kind == "class":
        check_classes({split: [str(int(v)) for v in values] for split, values in known.items()}, way)
    sliced = _slices(batch, splits["train"], interview)
    shape, figures = _shape(batch)
    more: tuple[tuple[str, str, str], ...] = ()
    if sliced:
        inputs = ", ".join(f"{quoted(k)}: batch[{quoted(k)}]" for k in batch if k not in LABELS and k not in sliced)
        entries = "".join(f"        {quoted(f'{k} = {v}')}: lambda batch: batch[{quoted(k)}] == {v!r},\n" for k, values in sliced.items() for v in values)
        more = (("inputs", f"lambda batch: ((), {{{inputs}}})", "what the model is called with"), ("slices", f"{{\n{entries}    }}", "looked at by themselves"))
    module = entry.rpartition(":")[0]
    return DataPart(
        kind="class" if kind == "class" else "value",
        shape=shape,
        imports=(f"from {Path(module).stem if module.endswith('.py') else module} import {name}",),
        constants=f"SPLITS = {name}()\n" if called else "",
        splits={split: f"{'SPLITS' if called else name}[{quoted(key) if isinstance(key, str) else key}]" for split, key in keys.items()},
        count=count,
        more=more,
        classes=tuple(str(i) for i in range(int(max(v.max() for v in known.values())) + 1)) if kind == "class" else (),
        figures=figures,
        spread=float(known["train"].std()) if kind == "value" else 1.0,
        shown={"splits": entry, "samples": count},
    )


def _splits(given: Any, entry: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data sets by limbeck's names, and the key of each in what was given."""
    if isinstance(given, (tuple, list)) and len(given) == len(ORDER):
        return dict(zip(ORDER, given, strict=True)), {split: number for number, split in enumerate(ORDER)}
    if not isinstance(given, Mapping):
        raise TaskError(f"{entry} must give a dict with train, validation and test (or the three in a tuple), got {type(given).__name__}. Return one.")
    keys = {NAMES[str(key).lower()]: key for key in given if str(key).lower() in NAMES}
    missing = [split for split in ORDER if split not in keys]
    if missing:
        raise ConfigError(
            f"split '{missing[0]}' is missing: {entry} gives {', '.join(map(str, given)) or 'nothing'}. Add it: train is learned from, validation steers, test is judged."
        )
    if len({id(given[key]) for key in keys.values()}) < len(keys):
        raise ConfigError(f"two splits of {entry} are the same data set. What is judged must not have been seen: split it.")
    return {split: given[keys[split]] for split in ORDER}, {split: keys[split] for split in ORDER}


def _labels(data: Any, split: str) -> np.ndarray:
    step = max(1, len(data) // LOOKED_AT)
    found = [labels(data[i]) for i in range(0, len(data), step)]
    if any(f is None for f in found):
        raise ConfigError(f"the samples of {split} have no labels: nothing says what is right. Give them as (input, label), or as a dict with 'labels'.")
    values = np.stack([np.asarray(f, dtype=None) for f in found])
    if values.dtype.kind not in "iufb":
        raise ConfigError(f"labels must be numbers, got {values.dtype} in {split}. Give each class its number.")
    return values


def _kind(values: np.ndarray, interview: Interview) -> str:
    whole = values.dtype.kind in "iub"
    flat = values.reshape(len(values), -1)
    known = "regression" if not whole else "classification" if flat.shape[1] == 1 and len(np.unique(flat)) <= max(MOST_CLASSES, len(flat) // 5) else None
    name = interview.settle(KIND, lambda words: _fits(words, values), default=known)
    return "class" if name == "classification" else "value"


def _fits(words: str, values: np.ndarray) -> str:
    if words == "classification" and values.dtype.kind == "f":
        raise ConfigError("the labels are floating-point numbers, and classes are whole ones. Take regression, or give each class its number.")
    if words == "classification" and values.min() < 0:
        raise ConfigError(f"class {int(values.min())} is below 0. Number the classes from 0.")
    if words == "regression" and values.dtype.kind != "f":
        raise ConfigError(f"the labels are {values.dtype}, and values are floating-point. Take classification, or give them as floats.")
    return words


def _slices(batch: Any, data: Any, interview: Interview) -> dict[str, list[Any]]:
    """Key of a sample → the values that it takes."""

    def check(words: list[str]) -> dict[str, list[Any]]:
        found = {}
        for key in words:
            if not isinstance(batch, Mapping) or not isinstance(batch.get(key), Tensor) or batch[key].dim() != 1:
                known = ", ".join(k for k, v in batch.items() if isinstance(v, Tensor) and v.dim() == 1) if isinstance(batch, Mapping) else "none, as samples aren't dicts"
                raise ConfigError(f"'{key}' must be a key of a sample that holds one number ({known}). Add it to the samples, or write Task.slices yourself.")
            values = sorted({torch.as_tensor(data[i][key]).item() for i in range(0, len(data), max(1, len(data) // LOOKED_AT))})
            if len(values) > MOST_SLICES:
                raise ConfigError(f"'{key}' has {len(values)} different values; a slice needs at most {MOST_SLICES}. Add a key with groups of them.")
            found[key] = values
        return found

    return interview.settle(SLICE, check)


def _shape(batch: Any) -> tuple[Shape, dict[str, int]]:
    first = batch[0] if isinstance(batch, (tuple, list)) else next(iter(batch.values())) if isinstance(batch, Mapping) and len(batch) == 2 else None
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return "other", {}
    if first.dim() == 4:
        return "image", {"channels": first.shape[1], "size": min(first.shape[2:])}
    return ("numbers", {"features": first[0].numel()}) if first.dim() > 1 and first[0].numel() <= MOST_FEATURES else ("other", {})
