"""The student's blocks one after the other towards the teacher's, then the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from limbeck.core.errors import ConfigError
from limbeck.core.fields import Hint, Range, to_dict
from limbeck.core.plan import Stage, Training
from limbeck.planner.recipes.card import Recipe, Sizes, last, step


@dataclass(frozen=True, kw_only=True)
class BlockWise:
    """Which blocks, and how long each."""

    student: Annotated[str, Hint("Name a model of Task.models, or limbeck:<family>."), "a model of Task.models, or `limbeck:<family>`"]
    options: Annotated[dict[str, Any], "arguments of the student's factory"] = field(default_factory=dict)
    blocks: Annotated[tuple[str, ...], "module paths of the student's blocks, the first first"]
    teachers: Annotated[tuple[str, ...], "the teacher's module paths that answer to them; empty: matched by limbeck"] = ()
    block_training: Annotated[Training, "how long each block is trained"] = field(default_factory=lambda: Training(epochs=3))
    distill: Annotated[dict[str, Any], "options of the last step, which trains the whole: terms, training and the rest"] = field(default_factory=dict)
    weight: Annotated[float, Range(0, None, closed="neither"), "weight of each block's hint"] = 1.0


def block_wise(stage: Stage, config: BlockWise, sizes: Sizes) -> tuple[Stage, ...]:
    """Stage-wise training with hints (Romero et al. 2015, arXiv:1412.6550, §2.2, for each block in turn), then distillation of the whole.

    A block's hint pulls at the blocks up to it, and at nothing behind.
    Raises: ConfigError without blocks, or if not as many teacher's paths are given.
    """
    if not config.blocks:
        raise ConfigError(f"{stage.title}.config.blocks names no block. Give the module paths of the student's blocks, as in ['layer1', 'layer2'].")
    if config.teachers and len(config.teachers) != len(config.blocks):
        raise ConfigError(f"{stage.title}.config.teachers must have one path for each of the {len(config.blocks)} blocks, got {len(config.teachers)}. Or leave it empty.")
    if any(key in config.distill for key in ("student", "options", "teacher")):
        raise ConfigError(f"{stage.title}.config.distill sets student, options or teacher, which the recipe itself sets. Leave them out there.")
    ends = config.teachers or ("auto",) * len(config.blocks)
    hints = [
        {"terms": [{"name": "hint", "weight": config.weight, "options": {"student": path, "teacher": end}}], "training": to_dict(config.block_training)}
        for path, end in zip(config.blocks, ends, strict=True)
    ]
    first = step(stage, "block-1", "distill", {**hints[0], "student": config.student, "options": dict(config.options)})
    others = [step(stage, f"block-{number}", "finetune", hint) for number, hint in enumerate(hints[1:], 2)]
    return (first, *others, last(stage, "finetune", config.distill))


RECIPE = Recipe("block_wise", "Train the student block by block towards the teacher's features, then the whole.", BlockWise, block_wise, "arXiv:1412.6550")
