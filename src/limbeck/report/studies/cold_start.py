"""From the making of a process to its first answer: the parts as stacked bars, and all figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, bottom_axis, box, drawing, figure, label, line, table
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import Scale
from limbeck.report.studies.legend import legend

PARTS = {"process": ("process and interpreter", "bar control"), "import": ("runtime imported", "ghost"), "load": ("session created", "bar"), "first": ("first answer", "end")}
ROW, TOP, HIGH = 46, 10, 20


def cold_start(found: Mapping[str, Any]) -> list[Node]:
    """What a user waits for who starts the program, beside what each further answer takes."""
    models = found["models"]
    lead = "Each start is a fresh process, from its making to its first answer; the models take turns. Bars are medians of the parts; the upright ends on a bar are the "
    lead += f"{figures.percent(found['confidence'], 0)} interval of the median start. The page cache is warm: {found['page_cache_note']}."
    plot = figure(
        "Where a cold start's time goes", *both_widths(lambda ident, width: bars(ident, width, models), "cold-start"), legend((kind, text) for text, kind in PARTS.values())
    )
    head = ("model", "starts", "median", "interval", *(text for text, _ in PARTS.values()), "then each answer")
    rows = [
        (
            name,
            str(len(m["starts_ms"])),
            figures.milliseconds(m["total_ms"]),
            _interval(m),
            *(figures.milliseconds(m["parts_ms"][p]) for p in PARTS),
            figures.milliseconds(m["steady_ms"]),
        )
        for name, m in models.items()
    ]
    disturbed = sum(m["disturbed"] for m in models.values())
    note = el("p", {"class": "note"}, f"{disturbed} starts waited for a processor that other work had.") if disturbed else None
    return [el("p", None, lead), plot, table("Cold starts, part by part", head, rows, kind="figures"), note]


def _interval(model: Mapping[str, Any]) -> str:
    if model["low_ms"] is None or model["high_ms"] is None:
        return "too few starts"
    return f"{figures.milliseconds(model['low_ms'])} to {figures.milliseconds(model['high_ms'])}"


def bars(ident: str, width: float, models: Mapping[str, Any]) -> Html:
    """A row a model, its parts end to end."""
    most = max(max(sum(m["parts_ms"].values()), m["high_ms"] or 0.0) for m in models.values())
    scale = Scale(0.0, most * 1.05, 4.0, width - 12)
    bottom = TOP + ROW * len(models)
    drawn = bottom_axis(scale, top=TOP, bottom=bottom, shown=figures.milliseconds, name="time since the process was made", most=3 if width <= NARROW else 6)
    said = []
    for number, (name, model) in enumerate(models.items()):
        y, at = TOP + ROW * number + 16, 0.0
        drawn.append(label(4, y - 4, name, kind="name strong halo"))
        for part, (_, kind) in PARTS.items():
            ms = model["parts_ms"][part]
            drawn.append(box(scale(at), y, scale(at + ms) - scale(at), HIGH, kind))
            at += ms
        if model["low_ms"] is not None and model["high_ms"] is not None:
            drawn += [line(scale(model[end]), y - 2, scale(model[end]), y + HIGH + 2, "median") for end in ("low_ms", "high_ms")]
        said.append(f"{name}: " + ", ".join(f"{text} {figures.milliseconds(model['parts_ms'][part])}" for part, (text, _) in PARTS.items()))
    return drawing(ident, width=width, height=bottom + 36, title="Cold start, part by part", text="; ".join(said) + ".", parts=drawn)
