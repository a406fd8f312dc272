"""From the teacher through assistants of sizes between to the student."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range
from limbeck.core.plan import Stage
from limbeck.planner.recipes.card import Recipe, Sizes, last, step


@dataclass(frozen=True, kw_only=True)
class AssistantChain:
    """Each net learns from the one before it; sizes fall by the same factor at each step, unless they are named."""

    student: Annotated[str, Hint("Name a model of Task.models, or limbeck:<family>."), "a model of Task.models, or `limbeck:<family>`"]
    options: Annotated[dict[str, Any], "arguments of the student's factory"] = field(default_factory=dict)
    assistants: Annotated[int, Range(1, 5), "how many nets stand between, sized by their parameters: only for `limbeck:<family>`"] = 1
    through: Annotated[tuple[str, ...], "models of Task.models to go through instead, the largest first"] = ()
    distill: Annotated[dict[str, Any], "options of every step's `distill`: terms, training and the rest"] = field(default_factory=dict)


def assistant_chain(stage: Stage, config: AssistantChain, sizes: Sizes) -> tuple[Stage, ...]:
    """Mirzadeh et al. 2020, arXiv:1902.03393, §3. Differs: sizes are spaced evenly in the logarithm of parameters; the paper finds that
    an assistant near the mean of both accuracies serves best, which isn't known before it is trained.

    Raises: ConfigError if the student isn't smaller than the teacher, or can't be sized.
    """
    if any(key in config.distill for key in ("student", "options", "teacher")):
        raise ConfigError(f"{stage.title}.config.distill sets student, options or teacher, which the chain itself sets. Leave them out there.")
    ways = [{"student": name} for name in config.through] or _between(config, sizes)
    way = [*ways, {"student": config.student, "options": dict(config.options)}]
    made = [{**config.distill, **own, **({"teacher": "input"} if number else {})} for number, own in enumerate(way)]
    return (*(step(stage, f"assistant-{number}", "distill", own) for number, own in enumerate(made[:-1], 1)), last(stage, "distill", made[-1]))


def _between(config: AssistantChain, sizes: Sizes) -> list[dict[str, Any]]:
    student, teacher = sizes.parameters(config.student, config.options), sizes.teacher
    if student >= teacher:
        raise ConfigError(f"assistant_chain leads from a large net to a small one; the student has {student:,} parameters and the teacher {teacher:,}. Take `distill` alone.")
    steps = config.assistants + 1
    wanted = [round(teacher ** (1 - k / steps) * student ** (k / steps)) for k in range(1, steps)]
    return [{"student": config.student, "options": sizes.scaled(config.student, config.options, parameters=n)} for n in wanted]


RECIPE = Recipe("assistant_chain", "Distil through assistants of sizes between teacher and student.", AssistantChain, assistant_chain, "arXiv:1902.03393")
