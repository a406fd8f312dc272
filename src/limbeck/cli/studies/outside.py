"""Confidence on inputs that belong to no class, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

MODELS = ("baseline", "candidate")


def outside(data: Mapping[str, Any]) -> list[RenderableType]:
    """A row a set: how sure, and how well confidence tells it from the split."""
    names = [name for name in MODELS if name in data["inside"]]
    table = Table(title="Confidence in inputs that belong to no class", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for column in ("set", "samples", *(c for name in names for c in (f"{name} sure", "AUROC")), *(("surer",) if len(names) > 1 else ())):
        table.add_column(column, justify="left" if column == "set" else "right")
    table.add_row("inside", f"{data['samples']:,}", *(c for name in names for c in (f"{data['inside'][name]['mean']:.1%}", "")))
    for one in data["sets"]:
        cells = [c for name in names for c in (f"{one[name]['mean']:.1%}", _area(one[name]["auroc"]))]
        table.add_row(one["name"], f"{one['samples']:,}", *cells, *((_surer(one["surer"]),) if one["surer"] else ()))
    surer = [one["name"] for one in data["sets"] if one["surer"] and one["surer"]["which"] == "candidate"]
    others = "surer than the baseline of " + ", ".join(surer) if surer else "nowhere surer than the baseline"
    said = others if len(names) > 1 else ", ".join(f"{one['name']} {one[names[0]]['mean']:.0%}" for one in data["sets"]) + f" sure, {data['inside'][names[0]]['mean']:.0%} inside"
    return [f"  outside of the classes: {said}", table]


def _area(area: Mapping[str, Any]) -> str:
    return f"{area['value']:.3f} \\[{area['low']:.3f}, {area['high']:.3f}]"


def _surer(surer: Mapping[str, Any]) -> str:
    text = f"{surer['which'] or 'neither'} ({surer['value']:+.1%})"
    return f"[yellow]{text}[/]" if surer["which"] == "candidate" else text
