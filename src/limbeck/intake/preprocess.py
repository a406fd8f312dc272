"""How raw data becomes samples, as data: what a package carries for whoever feeds the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from limbeck.core.errors import TaskError
from limbeck.core.task import Task


def preprocess_data(task: Task) -> dict[str, Any]:
    """A task's `preprocess` as JSON; tuples become lists. Raises TaskError that names the first place that JSON can't say."""
    return _plain(task.preprocess, "preprocess", task.name)


def _plain(value: Any, place: str, task: str) -> Any:
    if isinstance(value, Mapping):
        odd = [k for k in value if not isinstance(k, str)]
        if odd:
            raise TaskError(f"task '{task}'.{place} must have text as keys, got {odd[0]!r}. It goes into a package as JSON: write str({odd[0]!r}).")
        return {k: _plain(v, f"{place}.{k}", task) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{place}[{i}]", task) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise TaskError(f"task '{task}'.{place} must be a number that JSON can say, got {value}. Leave it out, or write null (None).")
    if value is None or type(value) in (bool, int, float, str):
        return value
    way = "Write numbers and lists, as in array.tolist()" if type(value).__module__.split(".")[0] in ("numpy", "torch") else "Say in words and numbers what is done"
    raise TaskError(f"task '{task}'.{place} must be plain data (numbers, text, lists, tables), got {type(value).__name__}. It goes into a package as JSON. {way}.")
