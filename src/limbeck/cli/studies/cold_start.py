"""Cold starts in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

PARTS = {"process": "process", "import": "import", "load": "session", "first": "first answer"}


def cold_start(data: Mapping[str, Any]) -> list[RenderableType]:
    """The median start with its interval, and its parts."""
    table = Table(title="Cold start, ms (files in the page cache)", title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for name in ("", "median", f"interval {data['confidence']:.0%}", *PARTS.values(), "then each", "starts"):
        table.add_column(name, justify="right" if name else "left")
    for name, m in data["models"].items():
        interval = f"{m['low_ms']:.0f}–{m['high_ms']:.0f}" if m["low_ms"] is not None and m["high_ms"] is not None else "too few"
        steady = f"{m['steady_ms']:.3g}" if m["steady_ms"] is not None else "–"
        starts = f"{len(m['starts_ms'])}" + (f" ({m['disturbed']} disturbed)" if m["disturbed"] else "")
        table.add_row(name, f"{m['total_ms']:.0f}", interval, *(f"{m['parts_ms'][p]:.3g}" for p in PARTS), steady, starts)
    return [f"  cold start: {_against(data)} to the first answer", table]


def _against(data: Mapping[str, Any]) -> str:
    shown = {name: f"{m['total_ms']:.0f} ms" for name, m in data["models"].items()}
    return shown["candidate"] + (f" (baseline {shown['baseline']})" if "baseline" in shown else "")
