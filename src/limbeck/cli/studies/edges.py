"""Inputs at the edge of what a model takes, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table


def edges(data: Mapping[str, Any]) -> list[RenderableType]:
    """Those that go wrong, then the others, in a line; and those that go wrong with figures, in a table."""
    red, total = [c for c in data["cases"] if c["red"]], len(data["cases"])
    well = ", ".join(c["name"] if c["word"] == "ok" else f"{c['name']} ({c['word']})" for c in data["cases"] if not c["red"])
    if not red:
        return [f"  edges: all {total} as they should be: {well}"]
    wrong = ", ".join(f"{c['name']} ({c['word']})" for c in red)
    line = f"  edges: [red]{len(red)} of {total} go wrong: {wrong}[/]" + (f"; as they should be: {well}" if well else "")
    table = Table(title="Inputs at the edge that go wrong", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for column in ("input", "artifact", "baseline", "× ordinary distance", "why"):
        table.add_column(column, justify="right" if column.startswith("×") else "left")
    for case in red:
        times = f"{case['times_ordinary']:.3g}" if case["times_ordinary"] is not None else "–"
        table.add_row(case["name"], f"[red]{case['word']}[/]", case["baseline"] or "–", times, case["note"] or case["what"])
    return [line, table]
