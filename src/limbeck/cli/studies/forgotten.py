"""What was right and is wrong now, in the terminal. Names come escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

MOST = 4  # classes and samples that are named
CHANCE = 0.05


def forgotten(data: Mapping[str, Any]) -> list[RenderableType]:
    """How much, how easy it was, and which classes lost more than their part."""
    if not data["lost"]:
        return [f"  forgotten: nothing of the {data['right']:,} samples that the baseline has right; {data['won']:,} won"]
    high = f" ≤ {data['share_high']:.2%}" if data["share_high"] is not None else ""
    first = f"  forgotten: {data['lost']:,} of {data['right']:,} that the baseline has right ({data['share']:.2%}{high}), {data['won']:,} won; McNemar p = {data['mcnemar']:.3g}"
    easy, margins, said = data["easy"], data["margins"], []
    if easy and easy["of_lost"] is not None:
        said.append(f"{easy['of_lost']:.0%} were easy (baseline ≥ {easy['from']:.0%} sure)")
    if "missing" not in margins:
        near = margins["kept"]["near"]
        said.append(f"{margins['lost']['near']:.0%} lay near the boundary" + (f" ({near:.0%} of what was kept)" if near is not None else ""))
    more = [c for c in data["classes"] if c["lost"] and c["p_value"] <= CHANCE]
    if more:
        said.append("more than their part lost " + ", ".join(f"{c['class']} ({c['lost']:,} of {c['right']:,})" for c in more[:MOST]))
    said.append("look at samples " + ", ".join(str(w["id"]) for w in data["worst"][:MOST]))
    return [first, "  " + "; ".join(said)]
