"""How the terminal shows each study: what rich prints for its figures. One file a study, one line here, by the study's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, RenderableType

from limbeck.cli.studies.answers import answers
from limbeck.cli.studies.cold_start import cold_start
from limbeck.cli.studies.columns import columns
from limbeck.cli.studies.edges import edges
from limbeck.cli.studies.energy import energy
from limbeck.cli.studies.forgotten import forgotten
from limbeck.cli.studies.found_slices import found_slices
from limbeck.cli.studies.kernels import kernels
from limbeck.cli.studies.layers import layers
from limbeck.cli.studies.memory import memory
from limbeck.cli.studies.outside import outside
from limbeck.cli.studies.saturation import saturation
from limbeck.cli.studies.shift import shift
from limbeck.cli.studies.throughput import throughput

Show = Callable[[Mapping[str, Any]], list[RenderableType]]
SHOW: Mapping[str, Show] = {
    "columns": columns,
    "answers": answers,
    "forgotten": forgotten,
    "found_slices": found_slices,
    "layers": layers,
    "shift": shift,
    "outside": outside,
    "edges": edges,
    "cold_start": cold_start,
    "throughput": throughput,
    "memory": memory,
    "energy": energy,
    "kernels": kernels,
    "saturation": saturation,
}
MISSING = "missing"


def show(out: Console, found: Mapping[str, Mapping[str, Any]] | None, *, brief: bool = False) -> None:
    """All studies that were made; those that weren't, in a line each. `brief`: the line alone with which each begins."""
    for name, data in (found or {}).items():
        if MISSING in data:
            out.print(f"  [dim]{name}: not made: {data[MISSING]}[/]", soft_wrap=True, highlight=False)
        elif name in SHOW:
            parts = SHOW[name](data)
            for part in parts[:1] if brief else parts:
                out.print(part, soft_wrap=True)
