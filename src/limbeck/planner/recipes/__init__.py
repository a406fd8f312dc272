"""The recipes: each is one file and one line here. A stage whose technique is a recipe's name becomes that recipe's stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from limbeck.core.errors import ConfigError
from limbeck.core.fields import parse
from limbeck.core.plan import Stage
from limbeck.planner.recipes import assistant_chain, block_wise, born_again
from limbeck.planner.recipes.card import Recipe, Sizes

ALL: tuple[Recipe, ...] = (assistant_chain.RECIPE, block_wise.RECIPE, born_again.RECIPE)


def recipe(name: str) -> Recipe | None:
    """The recipe of this name, or None."""
    return next((r for r in ALL if r.name == name), None)


def expanded(stages: Sequence[Stage], sizes: Callable[[], Sizes]) -> tuple[Stage, ...]:
    """The stages that are techniques as they are, each recipe's in its place.

    Args:
        sizes: Asked only if there is a recipe: it may build the teacher.
    Raises: ConfigError for a recipe's options; for a `refine`, which only a technique knows.
    """
    found: list[Stage] = []
    for stage in stages:
        known = recipe(stage.technique)
        if known is None:
            found.append(stage)
            continue
        if stage.on_fail == "refine":
            raise ConfigError(f"stage '{stage.title}' is a recipe, which has no gentler setting for on_fail = 'refine'. Take 'skip' or 'stop'.")
        found += known.expand(stage, parse(known.config, stage.config, where=f"{stage.title}.config"), sizes())
    return tuple(found)
