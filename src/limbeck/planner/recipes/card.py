"""What a recipe is: a named composition that expands to stages, which are gated, kept and resumed like any others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from limbeck.core.plan import Gate, Stage

PASSING = Gate(retention=0.0, pays="nothing")  # of a step on the way: it is there for what comes after it, and only that is judged


class Sizes(Protocol):
    """What a recipe may ask about shapes, before anything is trained."""

    @property
    def teacher(self) -> int:
        """The teacher's parameters."""
        ...

    def parameters(self, student: str, options: Mapping[str, Any]) -> int:
        """Those of a student, as `distill` names it."""
        ...

    def scaled(self, student: str, options: Mapping[str, Any], *, parameters: int) -> dict[str, Any]:
        """The options under which the student's family has about this many. Raises ConfigError if it can't be sized."""
        ...


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, what it is, its options, and what it expands to."""

    name: str
    summary: str
    config: type
    expand: Callable[[Stage, Any, Sizes], tuple[Stage, ...]]
    paper: str


def step(stage: Stage, name: str, technique: str, config: Mapping[str, Any]) -> Stage:
    """A step on the way of `stage`: it is never judged for itself."""
    return Stage(technique=technique, name=f"{stage.title}-{name}", config=dict(config), gate=PASSING)


def last(stage: Stage, technique: str, config: Mapping[str, Any]) -> Stage:
    """The step that stands for the whole: it has the stage's own name, recovery and gate."""
    return replace(stage, technique=technique, name=stage.title, config=dict(config))
