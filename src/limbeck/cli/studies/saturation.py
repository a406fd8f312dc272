"""Saturation in the terminal: the metric on CPUs without VNNI and with 7-bit weights, and the layers that cut most sums off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

NAMES = {"neighbours": "without VNNI", "sorted": "without VNNI, large weights together", "seven": "7-bit weights"}
MOST = 6  # layers that are listed


def saturation(data: Mapping[str, Any]) -> list[RenderableType]:
    """The finding; where sums were cut off, what each way of computing gives, and in which layers."""
    style = "[yellow]" if data["warning"] else ""
    found: list[RenderableType] = [f"  saturation: {style}{data['finding']}{'[/]' if style else ''}"]
    if not data["risky"]:
        return found
    table = Table(box=SIMPLE, padding=(0, 1))
    for name in (f"{data['samples']:,} samples", data["metric"] or "metric", "drop", "bounds", "same answer"):
        table.add_column(name, justify="right" if table.columns else "left")
    table.add_row("measured here", _plain(data["measured"]), "", "", "")
    for run in data["runs"]:
        bounds = f"{run['low']:+.4f} to {run['high']:+.4f}" if run["low"] is not None and run["high"] is not None else "–"
        table.add_row(NAMES[run["mode"]], _plain(run["metric"]), _plain(run["drop"], "+"), bounds, "–" if run["agreement"] is None else f"{run['agreement']:.2%}")
    found.append(table)
    worst = sorted((la for la in data["layers"] if la["neighbours"]["saturated"]), key=lambda la: -la["neighbours"]["saturated"])
    if worst:
        named = ", ".join(f"{la['module']} {la['neighbours']['saturated']:,}" for la in worst[:MOST])
        found.append(f"  sums cut off by layer: {named}{f', and {len(worst) - MOST} more layers' if len(worst) > MOST else ''}")
    if data["warning"]:
        found.append("  7-bit weights can't saturate: quantize with reduce_range = true")
    return found


def _plain(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}"
