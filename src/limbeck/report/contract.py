"""The contract, limit by limit: what was asked, what was measured, how sure that is, and why the verdict is what it is."""

from __future__ import annotations

import math

from limbeck.report import figures
from limbeck.report.charts import box, dot, line
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import Scale, fitted
from limbeck.report.story import Kept, Limit

WIDTH, HEIGHT = 150, 30
KEPT = ("retention", "slice_retention", "worst_slice_retention", "max_drop", "slice_drop", "worst_slice_drop")
WORDS = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "ANOMALOUS": "!", "UNVERIFIED": "–", "REFUSED": "✕"}


def badge(status: str) -> Html:
    """A verdict as a word with its sign; its colour says nothing that the word doesn't."""
    kind = status.lower().replace(" ", "-")
    return el("span", {"class": f"badge {kind}"}, el("span", {"aria-hidden": "true"}, f"{WORDS.get(status, '·')} "), status)


def limits_table(caption: str, limits: tuple[Limit, ...]) -> Html:
    """One row a limit. On a narrow page a row becomes a card; the roles keep it a table for a screen reader."""
    head = ("limit", "verdict", "asked", "measured", "interval or bound", "against the limit", "why")
    columns = el("tr", {"role": "row"}, [el("th", {"role": "columnheader", "scope": "col"}, h) for h in head])
    rows = [_row(head, limit) for limit in limits]
    return el(
        "table",
        {"class": "cards", "role": "table"},
        el("caption", {"class": "hidden"}, caption),
        el("thead", {"role": "rowgroup"}, columns),
        el("tbody", {"role": "rowgroup"}, rows),
    )


def _row(head: tuple[str, ...], limit: Limit) -> Html:
    gate = limit.gate
    measured = figures.of_gate(gate, limit.measured)
    cells: list[Node] = [badge(limit.status), figures.asked(gate, limit.limit), el("strong", None, measured), interval(limit), bullet(limit), limit.reason]
    name = figures.title(gate)
    first = el("th", {"role": "rowheader", "scope": "row"}, name, None if name == gate else el("code", None, gate))
    rest = [el("td", {"role": "cell", "data-label": h, "class": "why" if h == "why" else None}, c) for h, c in zip(head[1:], cells, strict=True)]
    return el("tr", {"role": "row"}, first, rest)


def interval(limit: Limit) -> str:
    """Both ends of a two-sided interval, or the one bound that the verdict rests on."""
    low, high = limit.low, limit.high
    if low is not None and high is not None:
        return f"{figures.of_gate(limit.gate, low)} to {figures.of_gate(limit.gate, high)}"
    if low is None:
        return figures.NONE if high is None else f"at most {figures.of_gate(limit.gate, high)}"
    if figures.option(limit.gate) in KEPT:
        return figures.bound(Kept(value=low, bound=low, kind="drop" if figures.option(limit.gate) in figures.AT_MOST else "ratio"))
    return f"at least {figures.of_gate(limit.gate, low)}"


def bullet(limit: Limit) -> Node:
    """Measured value with its interval, and the limit as an upright line. The cells beside it hold the same figures."""
    if limit.measured is None or limit.limit is None or not math.isfinite(limit.measured):
        return figures.NONE
    low = limit.measured if limit.low is None or not math.isfinite(limit.low) else limit.low
    high = limit.measured if limit.high is None or not math.isfinite(limit.high) else limit.high
    values = [limit.measured, limit.limit, low, high]
    spread = min(values) > 0 and max(values) / min(values) > 3
    scale: Scale = fitted(values, 6, WIDTH - 6, log=spread)
    allowed = (6.0, scale(limit.limit)) if figures.option(limit.gate) in figures.AT_MOST else (scale(limit.limit), WIDTH - 6.0)
    parts = [
        box(allowed[0], 8, allowed[1] - allowed[0], 14, "allowed"),
        line(6, 15, WIDTH - 6, 15, "axis"),
        line(scale(low), 15, scale(high), 15, "interval"),
        line(scale(limit.limit), 3, scale(limit.limit), 27, "limit"),
        dot(scale(limit.measured), 15, 4.5, "point"),
    ]
    return el("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class": "bullet", "aria-hidden": "true"}, parts)
