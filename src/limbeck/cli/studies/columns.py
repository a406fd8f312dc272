"""Three columns in the terminal: the metric in FP32, simulated and deployed, and the first layer that parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

NAMES = {
    "fp32": "fp32 (torch)",
    "fp32_deployed": "fp32 (deployed)",
    "simulated": "candidate (torch)",
    "unoptimized": "candidate (unoptimized)",
    "deployed": "candidate (deployed)",
}
STAGE = {"file": "the file isn't what the module computes", "runtime": "the runtime doesn't compute what the file says"}


def columns(data: Mapping[str, Any]) -> list[RenderableType]:
    """The columns, what lies between them, and where simulation and artifact part."""
    values = ", ".join(f"{NAMES[c['name']]} {c['metric']:.4f}" for c in data["columns"])
    table = Table(box=SIMPLE, padding=(0, 1))
    for name in ("step", "drop", "bounds", "same answer", "largest difference"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for d in data["differences"]:
        table.add_row(
            d["what"],
            _number(d["drop"]),
            f"{_number(d['low'])} to {_number(d['high'])}",
            f"{d['agreement']:.2%}" if d["agreement"] is not None else "–",
            f"{d['max_abs']:.3g}" if d["max_abs"] is not None else "–",
        )
    line = f"  columns: {data['metric']} of {data['samples']:,} samples of {data['split']}: {values}{_parts(data['layers'])}"
    return [line, *([table] if data["differences"] else []), *_layers(data["layers"])]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _parts(layers: Mapping[str, Any]) -> str:
    """Where simulation and artifact part, in a word."""
    if "missing" in layers:
        return ""
    first = layers["first"]
    return f"; [red]they part in {first['module'] or 'the model itself'}[/]" if first else f"; none of {len(layers['rows'])} tensors diverges"


def _layers(data: Mapping[str, Any]) -> list[str]:
    if "missing" in data:
        return [f"  layer by layer: not known: {data['missing']}"]
    first = data["first"]
    if not first:
        return []
    key = "exported" if first["stage"] == "file" else "deployed"
    off = first["grid"] or ("not finite" if first[key] is None else f"{first[key]:.3g} {first['unit']}, at most {first['tolerance']:g}")
    where = f"{first['module'] or '(the model itself)'} ({', '.join(first['operators'])}), tensor {first['tensor']}"
    return [f"  [red]first tensor that diverges: {where}: {off}; {STAGE[first['stage']]}[/]"]
