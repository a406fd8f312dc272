"""What this limbeck and this machine have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck.core.errors import ConfigError, near
from limbeck.core.fields import json_schema, table


def techniques(name: str | None = None) -> dict[str, Any]:
    """Every technique's card as plain data under `techniques`, third parties' too, and every recipe's under `recipes`; with a name, one alone.

    Raises: ConfigError with near names.
    """
    from limbeck.planner.recipes import ALL as RECIPES
    from limbeck.techniques import cards

    found = [
        {
            "name": card.name,
            "family": card.family,
            "summary": card.summary,
            "version": card.version,
            "needs": sorted(card.needs),
            "gives": sorted(card.gives),
            "breaks": sorted(card.breaks),
            "data": str(card.data),
            "paper": card.paper,
            "recovers": card.recovers,
            "options": json_schema(card.config),
            "table": table(card.config),
        }
        for card in cards().values()
    ]
    recipes = [{"name": r.name, "summary": r.summary, "paper": r.paper, "options": json_schema(r.config), "table": table(r.config)} for r in RECIPES]
    if name is None:
        return {"schema": 1, "techniques": found, "recipes": recipes}
    known = {card["name"]: card for card in (*found, *recipes)}
    if name not in known:
        raise ConfigError(f"there is no technique '{name}'. {near(name, known)}")
    return {"schema": 1, **known[name]}


def terms(name: str | None = None) -> dict[str, Any]:
    """What an objective may be made of, as plain data under `terms`: what each needs, its options, its papers; with a name, that term alone.

    Raises: ConfigError with near names.
    """
    from limbeck.mechanics.terms import ALL
    from limbeck.mechanics.terms.card import card, told
    from limbeck.mechanics.terms.entry import named

    found = [told(card(factory)) for factory in (ALL if name is None else (named(name, ALL),))]
    return {"schema": 1, "terms": found} if name is None else {"schema": 1, **found[0]}


def runtimes() -> dict[str, Any]:
    """Every runtime under `runtimes`, with the version that is installed or None."""
    from limbeck.runtimes import ALL

    return {"schema": 1, "runtimes": [{"name": r.name, "summary": r.summary, "suffix": r.suffix, "version": r.available(), "round_to": r.round_to} for r in ALL]}


def studies() -> dict[str, Any]:
    """What can be shown of an artifact beside its contract's limits, under `studies`: each with the limits that it answers."""
    from limbeck.evaluation.studies import ALL

    return {"schema": 1, "studies": [{"name": s.name, "summary": s.summary, "here": s.here, "limits": list(s.limits)} for s in ALL]}


def check_environment() -> None:
    """Raises ConfigError for a variable that begins with LIMBECK_ and is none of limbeck's, with the names that it may have meant."""
    from limbeck.core.environment import check_known
    from limbeck.intake.runfile import TABLES

    check_known(TABLES)


def doctor(root: str | Path = "runs") -> dict[str, Any]:
    """This machine, what is installed, and what is known to be bad of the two. exit_code 3 if something that limbeck needs is broken.

    Args:
        root: Where runs are kept; the room on its disk is told.
    """
    from limbeck.evaluation import doctor as examining

    return examining.examine(examining.read(Path(root)))
