"""How far answers lie from the baseline's, in the terminal. Names come escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

MOST = 5  # samples that are named


def answers(data: Mapping[str, Any]) -> list[RenderableType]:
    """One line of figures, and the samples that moved most."""
    worst = ", ".join(f"{w['id']}" for w in data["worst"][:MOST])
    moved = f"; most moved: {worst}" if worst else "; not one moved"
    if data["kind"] == "value":
        differ = data["difference"]
        related = f", correlation {data['correlation']:.4f}" if data["correlation"] is not None else ""
        part = f", {data['relative']:.2%} of its spread" if data["relative"] is not None else ""
        return [f"  answers: they differ from the baseline's by {differ['mean']:+.4g} on average, sd {differ['sd']:.3g}{part}{related}{moved}"]
    same, kl, margin = data["agreement"], data["kl"], data["margin"]
    what = f"{data['tokens']:,} tokens" if "tokens" in data else f"{data['samples']:,} samples"
    first = (
        f"  answers: the same on {same['share']:.2%} of {what} (at least {same['low']:.2%}); KL to the baseline {kl['mean']:.4g} nats, median {kl['p50']:.3g}, 99 % {kl['p99']:.3g}"
    )
    second = f"  sure of its answer by {data['sure']['candidate']:.3f}, the baseline by {data['sure']['baseline']:.3f}; "
    second += f"the baseline's answer leads by {margin['candidate']:.3f}, before {margin['baseline']:.3f}"
    return [first, second + moved]
