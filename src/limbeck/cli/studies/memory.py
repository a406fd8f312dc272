"""Memory in the terminal, each figure with where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table


def memory(data: Mapping[str, Any]) -> list[RenderableType]:
    """One row a model, and the operator at which most is alive."""
    table = Table(title=f"Memory at batch {data['batch']}", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for name in ("", "weights (computed)", "alive at most (computed)", "arena (planned)", "peak (measured)", "most is alive at"):
        table.add_column(name, justify="left" if name in ("", "most is alive at") else "right")
    for name, m in data["models"].items():
        at = next((f"{s['operator']} {s['name']}" for s in m["activations"]["at"]), "–")
        planned = _size(m["planned"]["bytes"]) if m["planned"] else "–"
        table.add_row(name, _size(m["weights"]["bytes"]), _size(m["activations"]["bytes"]), planned, _size(m["resident"]["bytes"]), at)
    notes = {m["planned_why"] for m in data["models"].values() if m["planned_why"]}
    shown = {name: _size(m["activations"]["bytes"]) for name, m in data["models"].items()}
    lead = f"  activations: {shown['candidate']} alive at most" + (f" (baseline {shown['baseline']})" if "baseline" in shown else "") + ", computed"
    return [lead, table, *(f"  [dim]no plan: {why}[/]" for why in sorted(notes))]


def _size(value: float) -> str:
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB" if value >= 1e3 else f"{value:.0f} B"
