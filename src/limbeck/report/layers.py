"""What the models are made of: layers before and after, and which kernels really run in int8."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.report import figures
from limbeck.report.charts import table
from limbeck.report.markup import Html, Node, el
from limbeck.report.story import Layer, Missing, Model, Profile

OPEN = 14  # layers that are shown without a click


def profiles(told: Sequence[Profile], most: int) -> list[Node]:
    """A table of layers for each model."""
    return [el("div", {"class": "pair"}, [el("div", None, el("h3", None, p.name), _profile(p, most)) for p in told])]


def _profile(told: Profile, most: int) -> list[Node]:
    total = f"{figures.count(told.parameters)} parameters, {figures.count(told.macs)} multiply-accumulates a sample."
    if isinstance(told.layers, Missing):
        return [el("p", None, total if told.parameters is not None else "Its totals are not known."), el("p", {"class": "missing"}, told.layers.why)]
    layers = told.layers[:most]
    left = f" The first {len(layers):,} of {len(told.layers):,} layers." if len(layers) < len(told.layers) else ""
    parameters, macs = told.parameters or sum(x.parameters for x in told.layers), told.macs or sum(x.macs for x in told.layers)
    rows = [_layer(x, parameters, macs) for x in layers]
    content = table(f"Layers of the {told.name}", ("layer", "kind", "parameters", "share", "MACs", "share"), rows, kind="figures named", hidden_caption=True)
    if len(layers) > OPEN:
        return [el("p", None, total + left), el("details", None, el("summary", None, f"{len(layers):,} layers of the {told.name}"), content)]
    return [el("p", None, total + left), content]


def _layer(layer: Layer, parameters: int, macs: int) -> Sequence[Node]:
    return (
        el("code", None, layer.path or "(the model itself)"),
        layer.kind,
        f"{layer.parameters:,}",
        _share(layer.parameters, parameters),
        f"{layer.macs:,}",
        _share(layer.macs, macs),
    )


def _share(part: int, whole: int) -> Html:
    share = part / whole if whole else 0.0
    return el("span", {"class": "share", "style": f"--share:{100 * share:.0f}%"}, figures.percent(share, 0 if share >= 0.1 else 1))


def kernels(models: Sequence[Model]) -> Node:
    """How many kernels run in int8 and how many stayed float, counted in the runtime's own graph."""
    known = [m for m in models if m.int8 is not None or m.floats is not None]
    if not known:
        return el("p", {"class": "missing"}, "Which kernels run in int8 is not known: the runtime didn't say, or nothing was exported yet.")
    rows = []
    for m in known:
        operators = ", ".join(f"{k} {v}" for k, v in sorted((m.operators or {}).items(), key=lambda x: (-x[1], x[0])))
        whole = (m.int8 or 0) + (m.floats or 0)
        rows.append((m.name, f"{m.int8 or 0:,}", f"{m.floats or 0:,}", _share(m.int8 or 0, whole), operators or figures.NONE))
    return table(
        "Kernels that multiply, by the type in which they run; and all operators of the runtime's graph",
        ("model", "int8", "float", "in int8", "operators"),
        rows,
        kind="figures wordy",
    )
