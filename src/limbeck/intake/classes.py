"""What a data set calls its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from limbeck.core.task import Task


@runtime_checkable
class Named(Protocol):
    """A data set that knows its classes' names, as torchvision's do."""

    classes: Sequence[str]

    def __len__(self) -> int: ...


def class_names(task: Task, split: str) -> tuple[str, ...]:
    """The names that a split gives its classes; none if it gives none."""
    return names_of(task.split(split))


def named(number: int, names: Sequence[str]) -> str:
    """A class by its name; by its number where it has none."""
    return names[number] if 0 <= number < len(names) else str(number)


def names_of(data: Any) -> tuple[str, ...]:
    """The names that a data set gives its classes; none if it gives none."""
    if isinstance(data, Named) and isinstance(data.classes, (list, tuple)) and all(isinstance(c, str) for c in data.classes):
        return tuple(data.classes)
    return ()
