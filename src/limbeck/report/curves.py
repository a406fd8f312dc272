"""Training, epoch by epoch: each term of the loss, and what was monitored on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from limbeck.report import figures
from limbeck.report.charts import NARROW, bottom_axis, dot, drawing, left_axis, table
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale, fitted
from limbeck.report.story import Curve

HEIGHT, LEFT, TOP = 190, 46, 10
MOST = 240  # points of a line; more epochs are thinned out evenly
STYLES = 4  # line styles in the page's style, series-0 to series-3


def lines(ident: str, title: str, epochs: Sequence[float], series: Mapping[str, Sequence[float | None]], *, axis: str) -> Html:
    """Values over epochs, each series in a line style of its own."""
    across = Scale(min(epochs), max(epochs), LEFT + 4, NARROW - 10)  # of a single epoch: the middle
    values = [v for column in series.values() for v in column if v is not None]
    up = fitted(values, HEIGHT - 40, TOP)
    grid = left_axis(up, left=LEFT, right=NARROW - 8, shown=lambda v: f"{v:.4g}")
    parts: list[Html] = [*grid, *bottom_axis(across, top=HEIGHT - 40, bottom=HEIGHT - 40, shown=lambda v: f"{v:g}", name=axis, most=6, whole=True)]
    said = []
    for number, (name, column) in enumerate(series.items()):
        known = [(e, v) for e, v in zip(epochs, column, strict=True) if v is not None and math.isfinite(v)]
        if not known:
            continue
        parts += _line(known, across, up, f"series series-{number % STYLES}")
        said.append(f"{name} from {known[0][1]:.4g} at epoch {known[0][0]:g} to {known[-1][1]:.4g} at epoch {known[-1][0]:g}")
    return drawing(ident, width=NARROW, height=HEIGHT, title=title, text=("; ".join(said) or "no finite value") + ".", parts=parts)


def _line(known: Sequence[tuple[float, float]], across: Scale, up: Scale, kind: str) -> list[Html]:
    thin = known if len(known) <= MOST else [known[round(i * (len(known) - 1) / (MOST - 1))] for i in range(MOST)]
    points = " ".join(f"{across(e):.1f},{up(v):.1f}" for e, v in thin)
    end = dot(across(thin[-1][0]), up(thin[-1][1]), 3, "end")
    return [shape("polyline", {"points": points, "class": kind}), end] if len(thin) > 1 else [end]


def curve(ident: str, told: Curve, metric: str) -> Html:
    """A training's terms and its validation, side by side where there is room."""
    charts: list[Node] = []
    if told.terms:
        drawn = lines(f"{ident}-terms", f"{told.title}: loss by epoch", told.epochs, told.terms, axis="epoch")
        charts.append(el("figure", None, el("figcaption", None, "Loss and its terms, means over an epoch"), drawn, legend(list(told.terms))))
    if any(v is not None for v in told.validation):
        drawn = lines(f"{ident}-validation", f"{told.title}: {metric} on validation by epoch", told.epochs, {metric: told.validation}, axis="epoch")
        charts.append(el("figure", None, el("figcaption", None, f"{metric} on validation, in torch"), drawn))
    note = el("p", {"class": "note"}, told.note) if told.note else None
    return el("div", {"class": "training"}, el("h3", None, told.title), note, el("div", {"class": "charts"}, charts), _numbers(told, metric))


def legend(names: Sequence[str]) -> Html:
    """Which line is which; the drawing's own text says it too."""
    swatch = [
        el("svg", {"viewBox": "0 0 28 8", "class": "swatch", "aria-hidden": "true"}, shape("line", {"x1": 0, "y1": 4, "x2": 28, "y2": 4, "class": f"series series-{i % STYLES}"}))
        for i in range(len(names))
    ]
    return el("ul", {"class": "legend"}, [el("li", None, s, " ", n) for s, n in zip(swatch, names, strict=True)])


def _numbers(told: Curve, metric: str) -> Html:
    """First, best and last of each column."""
    columns = {**told.terms, **({f"{metric}, validation": told.validation} if told.validation else {})}
    rows = []
    for name, column in columns.items():
        known = [v for v in column if v is not None]
        if known:
            rows.append((name, figures.plain(known[0]), figures.plain(min(known)), figures.plain(max(known)), figures.plain(known[-1])))
    body = table(f"{told.title}: {len(told.epochs)} epochs in figures", ("term", "first", "lowest", "highest", "last"), rows, kind="figures")
    return el("details", None, el("summary", None, f"{told.title}: the figures"), body)
