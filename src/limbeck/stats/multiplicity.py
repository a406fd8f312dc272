"""Several claims at once: how sure each must be so that, of all of them, a false one is made as seldom as one alone would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from limbeck.core.errors import ConfigError

T = TypeVar("T")


def step_down(names: Mapping[str, Callable[[float], T]], kept: Callable[[str, T], bool], *, confidence: float = 0.95) -> dict[str, T]:
    """Holm's procedure by bounds: what was found of each name, at the confidence at which it was judged last.

    With m names open each is bounded at 1 − (1 − confidence) / m; those whose bound keeps its limit are claimed and leave, and the
    rest are bounded again at the smaller m, until none is added. That no false claim is made at all then holds at `confidence`,
    however the names depend on each other.

    Args:
        names: By name, what bounds it at a one-sided confidence.
        kept: Whether what was found of a name claims it; what it answers never depends on the other names.
    Raises: ConfigError if confidence isn't in (0.5, 1).
    Source: Holm 1979, Scandinavian Journal of Statistics 6:65. That all at once may leave where the least p-value may follows from
        the levels rising as m falls.
    """
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence must be in (0.5, 1), got {confidence!r}. It is a fraction; for 95 % write 0.95.")
    found: dict[str, T] = {}
    left = list(names)
    while left:
        level = shared(confidence, len(left))
        found |= {name: names[name](level) for name in left}
        rest = [name for name in left if not kept(name, found[name])]
        if len(rest) == len(left):
            break
        left = rest
    return found


def shared(confidence: float, claims: int) -> float:
    """The confidence of each of several claims with which all of them together hold at `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(claims, 1)
