"""Energy in the terminal: whether it was counted or modelled comes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table


def energy(data: Mapping[str, Any]) -> list[RenderableType]:
    """One row a model."""
    counted = data["how"] == "counted"
    title = f"Energy a sample, mJ, counted by {', '.join(data['counters'])}" if counted else "Energy a sample, mJ, modelled (not measured)"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for name in ("", "above idle" if counted else "modelled", "interval" if counted else "range", *(("with idle",) if counted else ())):
        table.add_column(name, justify="right" if name else "left")
    for name, m in data["models"].items():
        ends = f"{m['low_mj']:.3g} to {m['high_mj']:.3g}" if m.get("low_mj") is not None and m.get("high_mj") is not None else "–"
        table.add_row(name, f"{m['mj']:.3g}" if m["mj"] is not None else "–", ends, *((f"{m['with_idle_mj']:.3g}",) if counted else ()))
    shown = {name: f"{m['mj']:.3g} mJ" if m["mj"] is not None else "not known" for name, m in data["models"].items()}
    how = "counted" if counted else "modelled, not measured"
    lead = f"  energy: {shown['candidate']} a sample" + (f" (baseline {shown['baseline']})" if "baseline" in shown else "") + f", {how}"
    if counted:
        return [lead, table, *(["  [yellow]other processes were at work; the counter counts them too[/]"] if data["disturbed"] else [])]
    return [lead, table, f"  [dim]{data['why']}; model: {data['source']}[/]"]
