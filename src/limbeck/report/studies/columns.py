"""Three columns in the report: the metric in FP32, simulated and deployed; and how far each layer of the artifact is from its simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, bottom_axis, dot, drawing, figure, label, line, short, table
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import Scale

MOST = 40  # layers that are drawn; the table has all
ROW, TOP = 20, 12
LEAST = 1e-3  # of the tolerance; below it the drawing tells nothing apart
NAMES = {
    "fp32": "FP32, in torch",
    "fp32_deployed": "FP32, deployed",
    "simulated": "candidate, in torch",
    "unoptimized": "candidate, unoptimized",
    "deployed": "candidate, deployed",
}
WHERE = {"file": "the exported file isn't what the module computes", "runtime": "the runtime's kernels don't compute what the file says"}


def columns(data: Mapping[str, Any]) -> list[Node]:
    """The columns and what lies between them, then layer by layer."""
    of = "all" if data["whole"] else "evenly spread"
    lead = f"The metric of each model on the same {data['samples']:,} samples of {data['split']} ({of}). What compression cost lies between FP32 and the candidate as it is "
    lead += "simulated (in torch; or its file, unoptimized), what deployment cost between the simulation and the artifact. "
    lead += f"Bounds are one-sided at {figures.percent(data['confidence'], 0)}; outputs are compared on {data['outputs_samples']:,} samples."
    values = [(NAMES[c["name"]], figures.plain(c["metric"])) for c in data["columns"]]
    pairs = [
        (
            d["what"],
            f"{NAMES[d['before']]} → {NAMES[d['after']]}",
            figures.plain(d["drop"]),
            f"{figures.plain(d['low'])} to {figures.plain(d['high'])}",
            figures.percent(d["agreement"], 2),
            figures.plain(d["max_abs"]),
        )
        for d in data["differences"]
    ]
    return [
        el("p", None, lead),
        table(f"{data['metric']}, column by column", ("column", "metric"), values, kind="figures small"),
        table("What each step cost", ("step", "from → to", "drop", "bounds", "same answer", "largest output difference"), pairs, kind="figures named") if pairs else None,
        el("h3", None, "Layer by layer"),
        *layers(data["layers"]),
    ]


def layers(data: Mapping[str, Any]) -> list[Node]:
    """How far each tensor is by its own layer's doing, and the first that is over its tolerance."""
    if "missing" in data:
        return [el("p", {"class": "missing"}, f"Not known: {data['missing'].rstrip('.')}.")]
    lead = f"Each tensor of the artifact beside the same one in torch, on {data['samples']} samples; the module is given what the artifact had before, so that a layer is "
    lead += f"charged with its own error alone. A quantized tensor may be {data['tolerance']['steps']:g} step of its grid off (a rounding unit), "
    lead += f"a float one {data['tolerance']['relative']:g} of its largest value."
    rows = data["rows"]
    head = ("module", "tensor", "operators", "in the file", "in the runtime", "with all before", "differing")
    listed = table("Distance of each tensor", head, [cells(r) for r in rows], kind="figures named", hidden_caption=True)
    caption = "Distance over tolerance: what the file says (grey), what the runtime computes (colour); at the left end they are exact"
    plot = figure(caption, *both_widths(lambda ident, width: chart(ident, width, furthest(rows)), "columns-layers")) if rows else None
    return [el("p", None, lead), verdict(data), plot, el("details", None, el("summary", None, f"{len(rows):,} tensors"), listed), notes(data)]


def cells(row: Mapping[str, Any]) -> Sequence[Node]:
    away = (distance(row, key) for key in ("exported", "deployed", "travelled"))
    return (place(row), row["tensor"], ", ".join(row["operators"]), *away, figures.percent(row["differing"], 2))


def verdict(data: Mapping[str, Any]) -> Node:
    """The first tensor that parts, named; or that there is none."""
    first = data["first"]
    if not first:
        return el("p", {"class": "verdict"}, f"None of {len(data['rows']):,} tensors is over its tolerance.")
    why = first["grid"] or f"{distance(first, 'exported' if first['stage'] == 'file' else 'deployed')} off"
    where = el("code", None, place(first)), f" ({', '.join(first['operators'])}), tensor ", el("code", None, first["tensor"])
    return el("p", {"class": "verdict error"}, "First over its tolerance: ", *where, f": {why}; {WHERE[first['stage']]}.")


def notes(data: Mapping[str, Any]) -> Node:
    told = []
    if data["unmatched"]:
        told.append(f"{data['unmatched']} tensors of the file have no counterpart in the module.")
    if not data["same_kernels"]:
        told.append("With its inner tensors shown, the runtime answers slightly otherwise than without: the kernels looked at are not all those that are deployed.")
    return el("p", {"class": "note"}, " ".join(told)) if told else None


def place(row: Mapping[str, Any]) -> str:
    return row["module"] or "(the model itself)"


def distance(row: Mapping[str, Any], key: str) -> str:
    """A distance in its unit; what isn't finite is no number."""
    value = row[key]
    if value is None:
        return "not finite"
    if row["unit"] == "steps":
        return f"{value:.2f}".rstrip("0").rstrip(".") + (" step" if value == 1 else " steps")
    return f"{value:.1e}"


def furthest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that are drawn, in the order in which they run."""
    if len(rows) <= MOST:
        return list(rows)
    kept = sorted(range(len(rows)), key=lambda i: -share(rows[i], "deployed"))[:MOST]
    return [rows[i] for i in sorted(kept)]


def share(row: Mapping[str, Any], key: str) -> float:
    """A distance over its tolerance; what isn't finite is far out."""
    return 1e3 if row[key] is None else row[key] / row["tolerance"]


def chart(ident: str, width: float, rows: Sequence[Mapping[str, Any]]) -> Html:
    """A row a layer, on a logarithmic axis; the dashed line is the tolerance."""
    left = 120.0 if width <= NARROW else 240.0
    highest = max([10.0, *(share(r, key) * 1.5 for r in rows for key in ("exported", "deployed"))])
    scale = Scale(LEAST, highest, left, width - 12, log=True)
    bottom = TOP + ROW * len(rows)
    name = "distance over tolerance (logarithmic)"
    parts = bottom_axis(scale, top=TOP, bottom=bottom, shown=lambda v: f"{v:g}", name=name, most=3 if width <= NARROW else 7)
    parts.append(line(scale(1.0), TOP - 6, scale(1.0), bottom, "limit"))
    said = []
    for number, row in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        parts += [label(left - 10, y + 4, short(place(row), 16 if width <= NARROW else 34), anchor="end", kind="name strong" if row["stage"] else "name")]
        parts += [dot(scale(max(share(row, "exported"), LEAST)), y, 5.5, "point base"), dot(scale(max(share(row, "deployed"), LEAST)), y, 3.0, "point")]
        said.append(f"{place(row)}: file {distance(row, 'exported')}, runtime {distance(row, 'deployed')}")
    return drawing(ident, width=width, height=bottom + 36, title=f"How far {len(rows)} layers are from their simulation", text="; ".join(said) + ".", parts=parts)
