"""The same student again and again, each generation taught by the one before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range
from limbeck.core.plan import Stage
from limbeck.planner.recipes.card import Recipe, Sizes, last, step


@dataclass(frozen=True, kw_only=True)
class BornAgain:
    """Generations of one architecture."""

    student: Annotated[str, Hint("Name a model of Task.models, or limbeck:<family>."), "a model of Task.models (the teacher's own too), or `limbeck:<family>`"]
    options: Annotated[dict[str, Any], "arguments of the student's factory"] = field(default_factory=dict)
    generations: Annotated[int, Range(1, 10), "how many; the first learns from the teacher"] = 2
    distill: Annotated[dict[str, Any], "options of every generation's `distill`"] = field(default_factory=dict)


def born_again(stage: Stage, config: BornAgain, sizes: Sizes) -> tuple[Stage, ...]:
    """Furlanello et al. 2018, arXiv:1805.04770, §3 (KD without label smoothing; no ensemble of generations)."""
    if any(key in config.distill for key in ("student", "options", "teacher")):
        raise ConfigError(f"{stage.title}.config.distill sets student, options or teacher, which the generations themselves set. Leave them out there.")
    own = {**config.distill, "student": config.student, "options": dict(config.options)}
    made = [own, *({**own, "teacher": "input"} for _ in range(config.generations - 1))]
    return (*(step(stage, f"generation-{number}", "distill", one) for number, one in enumerate(made[:-1], 1)), last(stage, "distill", made[-1]))


RECIPE = Recipe("born_again", "Train the same student for generations, each taught by the one before.", BornAgain, born_again, "arXiv:1805.04770")
