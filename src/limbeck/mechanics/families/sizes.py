"""The rule that every family's sizes keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limbeck.core.errors import ConfigError

LARGEST = 1_000_000
MOST_LAYERS = 1_000
LAYERS = frozenset({"blocks", "depth", "layers"})


def check_sizes(family: str, **sizes: int | Sequence[int]) -> None:
    """Raises ConfigError unless each is a whole number from 1 to a million (1,000 for numbers of layers), or a non-empty list of such."""
    for name, value in sizes.items():
        entries: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
        most = MOST_LAYERS if name in LAYERS else LARGEST
        if not 0 < len(entries) <= MOST_LAYERS or not all(isinstance(e, int) and not isinstance(e, bool) and e >= 1 for e in entries):
            raise ConfigError(f"{family}.{name} must be a whole number ≥ 1, or a list of such where the family takes one, got {value!r}. Give the number of units.")
        if any(e > most for e in entries):
            raise ConfigError(f"{family}.{name} must be at most {most:,}, got {value!r}. Make it smaller, or bring a model of your own in Task.models.")
