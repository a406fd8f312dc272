"""The rule that every family's sizes keep."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.core.errors import ConfigError


def check_sizes(family: str, **sizes: int | Sequence[int]) -> None:
    """Raises ConfigError unless each is a whole number ≥ 1, or a non-empty list of such."""
    for name, value in sizes.items():
        entries = list(value) if isinstance(value, (list, tuple)) else [value]
        if not entries or not all(isinstance(e, int) and not isinstance(e, bool) and e >= 1 for e in entries):
            raise ConfigError(f"{family}.{name} must be a whole number ≥ 1, or a list of such where the family takes one, got {value!r}. Give the number of units.")
