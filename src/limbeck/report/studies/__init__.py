"""How the report tells each study: a title, and what stands below it. One file a study, one line here, by the study's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from limbeck.report.markup import Node
from limbeck.report.studies.answers import answers
from limbeck.report.studies.cold_start import cold_start
from limbeck.report.studies.columns import columns
from limbeck.report.studies.edges import edges
from limbeck.report.studies.energy import energy
from limbeck.report.studies.forgotten import forgotten
from limbeck.report.studies.found_slices import found_slices
from limbeck.report.studies.kernels import kernels
from limbeck.report.studies.layers import layers
from limbeck.report.studies.memory import memory
from limbeck.report.studies.outside import outside
from limbeck.report.studies.saturation import saturation
from limbeck.report.studies.shift import shift
from limbeck.report.studies.throughput import throughput

Tell = Callable[[Mapping[str, Any]], list[Node]]
MISSING = "missing"  # where a study wasn't made, the key of its reason
TELL: Mapping[str, tuple[str, Tell]] = {
    "columns": ("FP32, simulated, deployed", columns),
    "answers": ("Answers", answers),
    "forgotten": ("Forgotten", forgotten),
    "found_slices": ("Slices that were found", found_slices),
    "layers": ("Layers that moved", layers),
    "shift": ("Under corruption", shift),
    "outside": ("Outside of the classes", outside),
    "edges": ("At the edge", edges),
    "cold_start": ("Cold start", cold_start),
    "throughput": ("Throughput", throughput),
    "memory": ("Memory", memory),
    "energy": ("Energy", energy),
    "kernels": ("Kernels: what runs in int8", kernels),
    "saturation": ("CPUs without VNNI", saturation),
}
