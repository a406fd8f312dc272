"""An objective: a weighted sum of terms, each of which sees the student, the teacher and the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.core.technique import Signals
from limbeck.mechanics.data import arguments, named_outputs
from limbeck.mechanics.taps import tapped, with_taps

Outputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Term:
    """One pull on the student: `function(task, student, teacher, batch) → loss`, a scalar averaged over the batch.

    teacher: whether it reads the teacher's outputs. labels: whether it reads the batch's labels.
    student_taps, teacher_taps: module paths whose outputs it reads, as "tap:<path>" among the outputs.
    """

    name: str
    function: Callable[[Task, Outputs, Outputs, Any], Tensor]
    teacher: bool = False
    labels: bool = False
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()

    def __rmul__(self, weight: float) -> Objective:
        return Objective(((float(weight), self),))

    def __add__(self, other: Term | Objective) -> Objective:
        return 1.0 * self + other


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms. A term of weight zero is never computed."""

    terms: tuple[tuple[float, Term], ...]

    def __post_init__(self) -> None:
        for weight, term in self.terms:
            if not weight >= 0:
                raise ConfigError(f"the weight of '{term.name}' must be ≥ 0, got {weight!r}. Leave the term out to switch it off.")

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective((*self.terms, *(other.terms if isinstance(other, Objective) else ((1.0, other),))))

    def __rmul__(self, weight: float) -> Objective:
        return Objective(tuple((weight * w, t) for w, t in self.terms))

    @property
    def needs_teacher(self) -> bool:
        return any(w > 0 and t.teacher for w, t in self.terms)

    def __call__(self, task: Task, student: Outputs, teacher: Outputs, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each term's own value, unweighted and detached."""
        values = [(w, t.name, t.function(task, student, teacher, batch)) for w, t in self.terms if w > 0]
        if not values:
            raise ConfigError("an objective needs a term with a weight above zero, got none. Give one, as in 1.0 * task_loss().")
        loss = values[0][0] * values[0][2]
        for weight, _, value in values[1:]:
            loss = loss + weight * value
        return loss, {name: value.detach() for _, name, value in values}

    def bind(self, task: Task, signals: Signals | None = None) -> BoundObjective:
        """For a loop, yours or ours: `loss, parts = bound(student, batch, ids)`. Raises ConfigError if a teacher is needed and none is given."""
        if self.needs_teacher and signals is None:
            names = [t.name for w, t in self.terms if w > 0 and t.teacher]
            raise ConfigError(f"{', '.join(names)} needs a teacher's outputs, got no signals. Give LiveTeacher(task, model) or a cache of one.")
        wanted = self.taps("teacher_taps")
        return BoundObjective(self, task, signals.tapped(wanted) if signals and wanted else signals)

    def taps(self, side: Literal["student_taps", "teacher_taps"]) -> tuple[str, ...]:
        """The module paths that the terms tap on one side, each once."""
        return tuple(dict.fromkeys(path for weight, term in self.terms if weight > 0 for path in (term.student_taps if side == "student_taps" else term.teacher_taps)))


@dataclass(frozen=True)
class BoundObjective:
    """An objective with the task and the source of the teacher's answers: student and teacher see the same view."""

    objective: Objective
    task: Task
    signals: Signals | None

    def __call__(self, student: nn.Module, batch: Any, ids: np.ndarray, view: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        views = np.full(len(ids), view)
        args, kwargs = self.task.views.apply_to(self.task, batch, ids, views) if self.task.views else arguments(self.task, batch)
        teacher = self.signals.teacher(ids, view, args, kwargs) if self.signals and self.objective.needs_teacher else {}
        with tapped(student, self.objective.taps("student_taps")) as seen:
            outputs = named_outputs(self.task, student(*args, **kwargs))
        return self.objective(self.task, with_taps(outputs, seen), teacher, batch)
