"""Which layers moved, in the terminal. Paths come escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

MOST = 6  # layers that are listed: those that moved most


def layers(data: Mapping[str, Any]) -> list[RenderableType]:
    """The mean, and the layers that moved most, as far from 1 as they are."""
    told = [layer for layer in data["layers"] if layer["cka"] is not None]
    if not told:
        return ["  layers: none of the baseline's answers to one of the candidate's"]
    line = f"  layers: CKA with the baseline's {data['mean']:.3f} on average over {len(told)} ({data['samples']:,} samples); "
    line += f"{data['moved_most']} moved most" if data["moved_most"] else "none moved"
    table = Table(box=SIMPLE, padding=(0, 1))
    for name in ("layer", "the baseline's", "CKA", "most like"):
        table.add_column(name, justify="right" if name == "CKA" else "left")
    for layer in sorted(told, key=lambda r: r["cka"])[:MOST]:
        like = layer["most_like"]
        table.add_row(layer["path"], layer["baseline"], f"{layer['cka']:.3f}", "the same" if like["path"] == layer["baseline"] else f"{like['path']} ({like['cka']:.3f})")
    return [line, table]
