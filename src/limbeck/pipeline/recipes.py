"""A plan's recipes, expanded with what the task's models say of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from limbeck.core.candidate import Candidate
from limbeck.core.plan import Plan
from limbeck.core.task import Task
from limbeck.mechanics.build import runnable, teacher_candidate
from limbeck.mechanics.student import parameters_of, scaled, student_blueprint
from limbeck.planner.recipes import expanded


def with_recipes_expanded(plan: Plan, task: Task) -> Plan:
    """The plan in techniques alone. Raises: as `expanded`; TaskError for a student that isn't there."""
    return replace(plan, stages=expanded(plan.stages, lambda: TaskSizes(task)))


@dataclass(frozen=True)
class TaskSizes:
    """Counts of parameters, taken from the task's own models and limbeck's families."""

    task: Task

    @cached_property
    def _candidate(self) -> Candidate:
        return teacher_candidate(self.task)

    @property
    def teacher(self) -> int:
        return sum(p.numel() for p in runnable(self._candidate.form, self.task).parameters())

    def parameters(self, student: str, options: Mapping[str, Any]) -> int:
        return parameters_of(student_blueprint(student, options, task=self.task, teacher=self._candidate), self.task)

    def scaled(self, student: str, options: Mapping[str, Any], *, parameters: int) -> dict[str, Any]:
        return scaled(student, options, task=self.task, teacher=self._candidate, parameters=parameters)
