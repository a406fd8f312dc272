"""Kernels in the terminal: what ran in int8, what stayed float though its weights are integers, and the bytes saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

MOST = 8  # silently float kernels that are named


def kernels(data: Mapping[str, Any]) -> list[RenderableType]:
    """The finding, the time by kind, and what stayed float."""
    style = "[yellow]" if data["warning"] else ""
    table = Table(box=SIMPLE, padding=(0, 1))
    for name in ("kernels", "count", "time", "ms"):
        table.add_column(name, justify="left" if name == "kernels" else "right")
    for one in data["kinds"]:
        if one["kernels"]:
            table.add_row(one["what"], str(one["kernels"]), f"{one['share']:.1%}", f"{one['ms']:.3f}")
    found: list[RenderableType] = [f"  kernels: {style}{data['finding']}{'[/]' if style else ''}{_saved(data['weights'])}", table]
    silent = data["silently_float"]
    if silent:
        names = ", ".join(f"{r['module'] or r['name']} ({r['operator']}, {r['share']:.1%})" for r in silent[:MOST])
        found.append(f"  [yellow]float in silence: {names}{f' and {len(silent) - MOST} more' if len(silent) > MOST else ''}[/]")
    return found


def _saved(weights: Mapping[str, Any]) -> str:
    if weights["saved_bytes"] is None:
        return f"; {weights['bytes']:,} bytes of weights, {weights['integer_bytes']:,} as integers"
    return f"; weights {weights['baseline_bytes']:,} → {weights['bytes']:,} bytes ({-weights['saved_share'] if weights['saved_share'] else 0.0:+.0%})"
