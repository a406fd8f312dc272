"""What is kept under corruption, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table


def shift(data: Mapping[str, Any]) -> list[RenderableType]:
    """What is kept over all kinds, under which the least, and the metric by strength."""
    both = data["overall"] is not None or any(p["baseline"] is not None for k in data["kinds"] for p in k["points"])
    title = f"{data['metric']} under corruption, strengths 1 to 5" + (" (baseline → candidate)" if both else "")
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for name in ("kind", "kept, bound", *map(str, (1, 2, 3, 4, 5))):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind in data["kinds"]:
        table.add_row(kind["name"], _kept(kind["retention"]), *(_point(p) for p in kind["points"]))
    return [f"  {_lead(data)}", table, f"  [dim]{data['samples']} samples a strength, {data['distinct']} different ones; taken to be {data['assumed']}{_left(data)}[/]"]


def _lead(data: Mapping[str, Any]) -> str:
    if not data["overall"]:
        return f"kept under corruption: not known: {data['note']}"
    known = [k for k in data["kinds"] if k["retention"]]
    worst = min(known, key=lambda k: k["retention"]["value"] * (1 if k["retention"]["kind"] == "ratio" else -1), default=None)
    return f"kept under corruption: {_kept(data['overall'])}" + (f"; least under {worst['name']}: {_kept(worst['retention'])}" if worst else "")


def _left(data: Mapping[str, Any]) -> str:
    return "".join(f"; {kind} left out: {why}" for kind, why in data["left_out"].items())


def _kept(kept: Mapping[str, Any] | None) -> str:
    if not kept:
        return "–"
    return f"{kept['value']:.3f} ≥ {kept['low']:.3f}" if kept["kind"] == "ratio" else f"drop {kept['value']:.3f} ≤ {kept['low']:.3f}"


def _point(point: Mapping[str, Any]) -> str:
    values = [point[name] for name in ("baseline", "candidate")]
    shown = ["–" if v is None else f"{v:.3f}" for v in values]
    return shown[1] if values[0] is None else " → ".join(shown)
