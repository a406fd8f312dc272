"""A student's architecture: a model of the task, or a family's, sized by the data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch

from limbeck.core.candidate import Blueprint, Candidate
from limbeck.core.errors import ConfigError
from limbeck.core.task import Task
from limbeck.mechanics import families
from limbeck.mechanics.build import base, runnable
from limbeck.mechanics.data import batch_of, example, predict
from limbeck.mechanics.families.fit import fitted

WIDE = ("width", "widths")  # the arguments that scale a family; what else it has (depth, heads, patches) stays
STEPS = 40  # halvings of the interval in which the factor is looked for


def student_blueprint(student: str, options: Mapping[str, Any], *, task: Task, teacher: Candidate) -> Blueprint:
    """The blueprint of `student` (a model of Task.models, or "limbeck:<family>"), with what its family must know of the data filled in.

    Raises: TaskError or ConfigError for a name that isn't known, with near names.
    """
    if not student.startswith("limbeck:"):
        name = student.removeprefix("task:")
        task.model(name)
        return Blueprint(f"task:{name}", dict(options))
    family = student.removeprefix("limbeck:")
    families.family(family)
    model = runnable(teacher.form, task)
    inputs = example(task, model).inputs
    with torch.no_grad():
        outputs = predict(task, model, batch_of(task, "train", [0, 1]))
    return Blueprint(student, fitted(family, options, inputs, outputs))


def parameters_of(blueprint: Blueprint, task: Task) -> int:
    """How many parameters it has, counted without memory where the architecture is a family's."""
    if blueprint.factory.startswith("limbeck:"):
        with torch.device("meta"):
            return sum(p.numel() for p in families.family(blueprint.factory.removeprefix("limbeck:"))(**blueprint.kwargs).parameters())
    return sum(p.numel() for p in base(blueprint, task).parameters())


def scaled(student: str, options: Mapping[str, Any], *, task: Task, teacher: Candidate, parameters: int) -> dict[str, Any]:
    """The student's options at another width, so that it has about as many parameters as asked, and no more.

    Widths stay multiples of the attention heads where there are some. Raises: ConfigError for a student that isn't a family's, or that
    has more at its narrowest.
    """
    if not student.startswith("limbeck:"):
        raise ConfigError(f"'{student}' can't be made larger or smaller by limbeck. Name the sizes yourself as models of Task.models, or take a limbeck:<family>.")
    blueprint = student_blueprint(student, options, task=task, teacher=teacher)
    defaults = {k: p.default for k, p in inspect.signature(families.family(student.removeprefix("limbeck:"))).parameters.items() if p.default is not p.empty}
    settings = {**defaults, **blueprint.kwargs}
    wide, step = {k: v for k, v in settings.items() if k in WIDE}, int(settings.get("heads", 1))

    def at(factor: float) -> dict[str, Any]:
        fit = lambda size: max(step, round(size * factor / step) * step)  # noqa: E731
        return {**options, **{k: [fit(s) for s in v] if isinstance(v, (list, tuple)) else fit(v) for k, v in wide.items()}}

    count = lambda factor: parameters_of(Blueprint(student, {**blueprint.kwargs, **at(factor)}), task)  # noqa: E731
    low, high = 1e-3, 1e3
    if count(low) > parameters:
        raise ConfigError(f"{student} has {count(low):,} parameters at its narrowest, more than the {parameters:,} that are asked for. Take another family, or fewer layers.")
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return at(low)
