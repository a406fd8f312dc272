"""What is kept in each slice: a forest plot, and the figures that it draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, bottom_axis, dot, drawing, figure, label, line, short, table
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import fitted
from limbeck.report.story import Kept, Part, Slices

MOST = 24  # slices that are drawn; the table has all of them
ROW, TOP = 26, 14


def slices(told: Slices) -> list[Node]:
    """Those first of which the least is kept for sure."""
    known = sorted((p for p in told.parts if p.kept), key=_order)
    unknown = [p for p in told.parts if not p.kept]
    sure = figures.percent(told.confidence, 0)
    lead = f"Each slice of test by itself. All bounds hold together at {sure} confidence, so with many slices each lies lower than it would alone. "
    lead += "The contract judges the slices that it limits, and no others."
    if told.agreement is not None:
        lead += f" Baseline and final give the same answer on {figures.percent(told.agreement)} of all samples."
    drawn = [*([("all of test", told.whole)] if told.whole else []), *((p.name, p.kept) for p in known[:MOST])]
    kind = known[0].kept.kind if known and known[0].kept else "ratio"
    fitting = [(name, kept) for name, kept in drawn if kept and kept.kind == kind and math.isfinite(kept.value) and math.isfinite(kept.bound)]
    rows = [(p.name, f"{p.samples:,}", figures.plain(p.baseline), figures.plain(p.final), figures.kept(p.kept), p.note) for p in (*known, *unknown)]
    caption = f"Forest plot: {'quality kept' if kind == 'ratio' else 'drop of the metric'} by slice"
    plot = figure(caption, *both_widths(lambda ident, width: forest(ident, width, fitting, kind), "slices")) if known else None
    return [el("p", None, lead), plot, table("Slices of test", ("slice", "samples", "baseline", "final", "kept", "note"), rows, kind="figures wordy")]


def _order(part: Part) -> tuple[bool, float]:
    kept = part.kept or Kept(value=0, bound=0)
    return (kept.kind != "ratio", kept.bound if kept.kind == "ratio" else -kept.bound)


def forest(ident: str, width: float, rows: Sequence[tuple[str, Kept]], kind: str) -> Html:
    """One row a slice: the dot is what was measured, the bar reaches to what is proved, the upright line is the baseline."""
    left, level = (110.0 if width <= NARROW else 190.0), 1.0 if kind == "ratio" else 0.0
    scale = fitted([level, *(v for _, k in rows for v in (k.value, k.bound))], left, width - 12)
    bottom = TOP + ROW * len(rows)
    name = "kept of the baseline's metric" if kind == "ratio" else "drop of the metric"
    parts = bottom_axis(scale, top=TOP, bottom=bottom, shown=figures.percent if kind == "ratio" else figures.plain, name=name, most=3 if width <= NARROW else 6)
    parts.append(line(scale(level), TOP - 6, scale(level), bottom, "limit"))
    said = []
    for number, (title, kept) in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        ends = scale(kept.value), scale(kept.bound)
        parts += [label(left - 10, y + 4, short(title, 14 if width <= NARROW else 26), anchor="end", kind="name"), line(min(ends), y, max(ends), y, "interval")]
        parts += [line(ends[1], y - 5, ends[1], y + 5, "interval"), dot(ends[0], y, 4.5, "point")]
        said.append(f"{title}: {figures.kept(kept)}")
    return drawing(ident, width=width, height=bottom + 36, title=f"What is kept in each of {len(rows)} rows", text="; ".join(said) + ".", parts=parts)
