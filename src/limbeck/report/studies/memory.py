"""Where memory goes: what was computed, planned and measured, and how many bytes are alive in the course of one inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, drawing, figure, label, left_axis, line, table
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale
from limbeck.report.studies.legend import legend

KINDS = {"baseline": "series base", "candidate": "series"}
HEIGHT, LEFT, TOP, BOTTOM = 230.0, 66.0, 10.0, 190.0


def memory(found: Mapping[str, Any]) -> list[Node]:
    """Labelled by where each figure is from."""
    models = found["models"]
    lead = f"At batch {found['batch']}. Computed: each tensor lives from its maker to its last reader, in the order in which operators ran; kernels' own scratch isn't in it. "
    lead += "Planned: what the runtime's own allocator says it uses for one inference. Measured: resident memory of a fresh process, above an empty session."
    plot = figure(
        "Bytes alive in the course of one inference, computed",
        *both_widths(lambda ident, width: course(ident, width, {n: m["course"] for n, m in models.items()}), "memory"),
        legend((KINDS[name], name) for name in models),
    )
    head = ("model", "weights (computed)", "alive at most (computed)", "arena (planned)", "while loading (measured)", "peak (measured)", "most is alive at")
    return [el("p", None, lead), plot, table("Memory of each model", head, [_row(name, m) for name, m in models.items()], kind="figures wordy")]


def _row(name: str, model: Mapping[str, Any]) -> tuple[str, ...]:
    planned = figures.size(model["planned"]["bytes"]) if model["planned"] else figures.NONE
    at = ", ".join(f"{s['operator']} {s['name']}, step {s['step']} of {model['operators']}" for s in model["activations"]["at"][:1]) or figures.NONE
    sizes = (model["weights"]["bytes"], model["activations"]["bytes"])
    resident = model["resident"]
    why = f" (no plan: {model['planned_why']})" if model["planned_why"] else ""
    return (name, *map(figures.size, sizes), planned, figures.size(resident["loading_bytes"]), figures.size(resident["bytes"]), at + why)


def course(ident: str, width: float, lines: Mapping[str, Sequence[int]]) -> Html:
    """A line a model over its own operators, from the first to the last."""
    top = max((max(values, default=0) for values in lines.values()), default=0) or 1
    across, up = Scale(0.0, 1.0, LEFT + 4, width - 10), Scale(0.0, top * 1.06, BOTTOM, TOP)
    parts = left_axis(up, left=LEFT, right=width - 10, shown=lambda v: figures.trimmed(figures.size(v)), most=4)
    parts.append(line(LEFT, BOTTOM, width - 10, BOTTOM, "axis"))
    ends = (("first operator", 0.0, "start"), ("last", 1.0, "end"))
    parts += [label(across(at), BOTTOM + 15, text if width > NARROW else text.split()[0], anchor=anchor, kind="tick") for text, at, anchor in ends]
    said = []
    for name, values in lines.items():
        if not values:
            continue
        step = 1 / max(1, len(values) - 1)
        points = " ".join(f"{across(i * step):.1f},{up(v):.1f}" for i, v in enumerate(values))
        parts.append(shape("polyline", {"points": points, "class": KINDS[name]}))
        said.append(f"{name}: at most {figures.size(max(values))}, {values.index(max(values)) / len(values):.0%} of the way")
    return drawing(ident, width=width, height=HEIGHT, title="Bytes alive in the course of one inference", text="; ".join(said) + ".", parts=parts)
