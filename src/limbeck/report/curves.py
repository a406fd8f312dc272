"""Training, epoch by epoch: each term of the loss, its share of the gradient, and what validation showed."""

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


def lines(ident: str, title: str, epochs: Sequence[float], series: Mapping[str, Sequence[float | None]], *, axis: str, top: float | None = None, first: int = 0) -> Html:
    """Values over epochs, each series in a line style of its own from number `first` on; with `top`, from 0 to there."""
    across = Scale(min(epochs), max(epochs), LEFT + 4, NARROW - 10)  # of a single epoch: the middle
    values = [v for column in series.values() for v in column if v is not None]
    up = fitted(values, HEIGHT - 40, TOP) if top is None else Scale(0.0, top, HEIGHT - 40, TOP)
    grid = left_axis(up, left=LEFT, right=NARROW - 8, shown=lambda v: f"{v:.4g}")
    parts: list[Html] = [*grid, *bottom_axis(across, top=HEIGHT - 40, bottom=HEIGHT - 40, shown=lambda v: f"{v:g}", name=axis, most=6, whole=True)]
    said = []
    for number, (name, column) in enumerate(series.items(), first):
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
    """A training's terms, what each pulls, and its validation, side by side where there is room."""
    validation = {metric: told.validation, **({f"{metric} of the teacher": told.teacher} if told.teacher else {})}
    charts = [
        _chart(f"{ident}-terms", told, "Loss and its terms, means over an epoch", "loss", told.terms),
        _chart(f"{ident}-shares", told, "Share of the gradient, first batch", "shares of the gradient", told.shares, top=1.0, first=1),
        _chart(f"{ident}-validation", told, f"{metric} on validation, in torch", f"{metric} on validation", validation if told.validation else {}),
        _chart(f"{ident}-watched", told, "On validation: fractions of its samples", "agreement and what was forgotten", told.watched, top=1.0),
    ]
    note = el("p", {"class": "note"}, told.note) if told.note else None
    return el("div", {"class": "training"}, el("h3", None, told.title), note, el("div", {"class": "charts"}, charts), _classes(told), _numbers(told, metric))


def _chart(ident: str, told: Curve, caption: str, what: str, series: Mapping[str, Sequence[float | None]], *, top: float | None = None, first: int = 0) -> Node:
    """A drawing with its legend; nothing where there is no value."""
    if not any(v is not None for column in series.values() for v in column):
        return None
    drawn = lines(ident, f"{told.title}: {what} by epoch", told.epochs, series, axis="epoch", top=top, first=first)
    return el("figure", None, el("figcaption", None, caption), drawn, legend(list(series), first) if len(series) > 1 or ident.endswith("-terms") else None)


def _classes(told: Curve) -> Node:
    """The classes that lost most against the teacher, at the end of the training."""
    if not told.classes:
        return None
    shown = [(c.name, f"{c.samples:,}", f"{c.teacher:,}", f"{c.student:,}", figures.plain(c.student / c.teacher, 3) if c.teacher else figures.NONE) for c in told.classes]
    which = f"the {len(shown)} that kept least of" if told.classes_total > len(shown) else "all"
    caption = f"{told.title}: recall by class on validation, {which} {told.classes_total} classes"
    body = table(caption, ("class", "samples", "teacher right", "student right", "kept"), shown, kind="figures small")
    least = told.classes[0]
    head = f"Class by class: {least.name} kept least, {least.student:,} of {least.teacher:,}" if least.teacher else "Class by class"
    return el("details", None, el("summary", None, head), body)


def legend(names: Sequence[str], first: int = 0) -> Html:
    """Which line is which; the drawing's own text says it too."""
    swatch = [
        el("svg", {"viewBox": "0 0 28 8", "class": "swatch", "aria-hidden": "true"}, shape("line", {"x1": 0, "y1": 4, "x2": 28, "y2": 4, "class": f"series series-{i % STYLES}"}))
        for i in range(first, first + len(names))
    ]
    return el("ul", {"class": "legend"}, [el("li", None, s, " ", n) for s, n in zip(swatch, names, strict=True)])


def _numbers(told: Curve, metric: str) -> Html:
    """First, best and last of each column."""
    scores = {name: column for name, column in ((f"{metric}, validation", told.validation), (f"{metric} of the teacher", told.teacher)) if column}
    columns = {**told.terms, **{f"share of {name}": column for name, column in told.shares.items()}, **told.others, **scores, **told.watched}
    rows = []
    for name, column in columns.items():
        known = [v for v in column if v is not None]
        if known:
            rows.append((name, figures.plain(known[0]), figures.plain(min(known)), figures.plain(max(known)), figures.plain(known[-1])))
    body = table(f"{told.title}: {len(told.epochs)} epochs in figures", ("term", "first", "lowest", "highest", "last"), rows, kind="figures")
    return el("details", None, el("summary", None, f"{told.title}: the figures"), body)
