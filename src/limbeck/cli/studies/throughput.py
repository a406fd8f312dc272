"""Throughput in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

MODELS = ("baseline", "candidate")


def throughput(data: Mapping[str, Any]) -> list[RenderableType]:
    """A row a batch size, a column each number of threads and model; the target's own point is bold."""
    points, target = data["points"], data["target"]
    threads = sorted({p["threads"] for p in points})
    names = [name for name in MODELS if any(p.get(name) for p in points)]
    table = Table(title="Samples a second", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    table.add_column("batch", justify="right")
    for n in threads:
        for name in names:
            table.add_column(f"{name}, {_threads(n)}", justify="right")
    for batch in sorted({p["batch"] for p in points}):
        row = []
        for n in threads:
            found = next((p for p in points if (p["threads"], p["batch"]) == (n, batch)), {})
            own = (n, batch) == (target["threads"], target["batch"])
            row += [_cell(found.get(name), own) for name in names]
        table.add_row(str(batch), *row)
    return [f"  throughput: {_lead(data)}", table, *_notes(data)]


def _lead(data: Mapping[str, Any]) -> str:
    """The target's own point, and the most that was seen."""
    points, target = [p for p in data["points"] if p.get("candidate")], data["target"]
    own = next((p for p in points if (p["threads"], p["batch"]) == (target["threads"], target["batch"])), None)
    most = max(points, key=lambda p: p["candidate"]["value"], default=None)
    said = [f"{own['candidate']['value']:,.0f} samples a second" + (f" (baseline {own['baseline']['value']:,.0f})" if own.get("baseline") else "")] if own else []
    said += [f"at most {most['candidate']['value']:,.0f}, at batch {most['batch']} with {_threads(most['threads'])}"] if most and most is not own else []
    return ", ".join(said) or "not known at the target's own batch"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _cell(rate: Mapping[str, Any] | None, own: bool) -> str:
    return "–" if rate is None else f"[bold]{rate['value']:,.0f}[/]" if own else f"{rate['value']:,.0f}"


def _notes(data: Mapping[str, Any]) -> list[str]:
    notes = [f"{name} takes {batch} at once and no other number" for name, batch in data["fixed_batch"].items() if batch is not None]
    notes += [f"{left} point{'s' if left > 1 else ''} left out (time, memory, or the graph)"] if (left := len(data["left_out"])) else []
    notes += ["other work on this machine is in the figures"] if data["disturbed"] else []
    return [f"  [dim]{'; '.join(notes)}[/]"] if notes else []
