"""What a term sees: of one step, and once before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from limbeck.core.task import Task
from limbeck.mechanics.taps import PREFIX
from limbeck.mechanics.views import Mixed

Outputs = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Seen:
    """What a term may look at in one step: outputs by name, and what it tapped as "tap:<module path>"."""

    task: Task
    model: nn.Module  # the student itself
    student: Outputs
    teacher: Outputs  # without gradient; empty if no term reads it
    batch: Any
    ids: np.ndarray  # the samples' numbers in the training split
    done: float = 0.0  # share of the training that lies behind, in [0, 1]
    own: Any = None  # the module that this term built: what it trains besides the student, or keeps from step to step
    args: tuple = ()  # the positional arguments that both models were called with: the view, not the sample as it is
    inputs: Mapping[str, Any] = field(default_factory=dict)  # and the keyword arguments
    matched: Mapping[str, str] = field(default_factory=dict)  # "auto:<student's path>" → the teacher's path; "own:<place>" → the student's
    view: int = 0  # which view of the samples both models were called with
    mixed: Mixed | None = None  # with whom samples were mixed, and how much: then each has two labels

    def tap(self, side: Literal["student", "teacher"], path: str) -> Tensor:
        """What the module at this path gave; "auto:<path>" is the teacher's that answers to the student's."""
        return (self.student if side == "student" else self.teacher)[PREFIX + self.matched.get(path, path)]


@dataclass(frozen=True)
class Wiring:
    """What a term knows when it builds its own module, once, before training: shapes of a batch, and the data to pass over."""

    task: Task
    student: nn.Module
    student_shapes: Shapes  # of outputs and taps, as in Seen
    teacher_shapes: Shapes
    batches: Callable[[], Iterator[Seen]]  # one pass over the training samples as they are, in order; the student in eval mode
    matched: Mapping[str, str] = field(default_factory=dict)

    def shape(self, side: Literal["student", "teacher"], path: str) -> tuple[int, ...]:
        """The shape that a tap gives, batch first."""
        return (self.student_shapes if side == "student" else self.teacher_shapes)[PREFIX + self.matched.get(path, path)]
