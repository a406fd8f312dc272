"""Samples a second by batch size, a line for each number of threads and model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, dot, drawing, figure, label, left_axis, line, table
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale, fitted
from limbeck.report.studies.legend import legend

MODELS = {"baseline": "series base", "candidate": "series"}
HEIGHT, LEFT, TOP, BOTTOM = 290.0, 62.0, 12.0, 246.0
STYLES = 3  # line styles in the page's style that keep a model's colour: series-1 to series-3


def throughput(found: Mapping[str, Any]) -> list[Node]:
    """What more samples at once, and more threads, are worth."""
    target, points = found["target"], found["points"]
    where = f"batch {target['batch']} and {_threads(target['threads'])}"
    lead = f"Both models took turns in one process, at each point. The target itself is {where}. Intervals of medians over rounds, at {figures.percent(found['confidence'], 0)}."
    threads = sorted({p["threads"] for p in points})
    names = [name for name in MODELS if any(p.get(name) for p in points)]
    entries = [(f"{MODELS[name]} series-{i % STYLES + 1}", f"{name}, {_threads(n)}") for name in names for i, n in enumerate(threads)]
    plot = figure("Samples a second by batch size", *both_widths(lambda ident, width: lines(ident, width, points), "throughput"), legend(entries))
    return [el("p", None, lead), plot, _table(points, names), *_notes(found)]


def _table(points: list[Mapping[str, Any]], names: list[str]) -> Html:
    head = ("threads, batch", *(part for name in names for part in (f"{name}, samples a second", "interval")), *(("candidate / baseline",) if len(names) > 1 else ()))
    rows = []
    for p in points:
        cells = [cell for name in names for cell in _cells(p.get(name))]
        ratio = (_ratio(p["ratio"]),) if len(names) > 1 else ()
        rows.append((f"{p['threads']}, {p['batch']}", *cells, *ratio))
    return el("details", None, el("summary", None, f"All {len(points)} points in figures"), table("Throughput by threads and batch", head, rows, kind="figures"))


def _cells(rate: Mapping[str, Any] | None) -> tuple[str, str]:
    if rate is None:
        return figures.NONE, figures.NONE
    known = rate["low"] is not None and rate["high"] is not None
    return figures.count(rate["value"]), f"{figures.count(rate['low'])} to {figures.count(rate['high'])}" if known else figures.NONE


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return figures.NONE
    ends = f", {figures.times(ratio['low'])} to {figures.times(ratio['high'])}" if ratio["low"] is not None and ratio["high"] is not None else ""
    return figures.times(ratio["value"]) + ends


def _notes(found: Mapping[str, Any]) -> list[Node]:
    fixed = [f"The {name} takes {batch} at once and no other number: it has its own point alone." for name, batch in found["fixed_batch"].items() if batch is not None]
    left = [f"Not measured, {why}: {'; '.join(where)}." for why, where in _left_out(found["left_out"]).items()]
    disturbed = ["Other work on this machine is in the figures: intervals are wider for it."] if found["disturbed"] else []
    return [el("p", {"class": "note"}, " ".join((*fixed, *disturbed, *left)))] if fixed or left or disturbed else []


def _left_out(points: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By reason, a phrase a number of threads: each reason is said once."""
    batches: dict[str, dict[int, list[int]]] = {}
    for p in points:
        batches.setdefault(p["why"].rstrip("."), {}).setdefault(p["threads"], []).append(p["batch"])
    return {why: [f"batch {', '.join(map(str, own))} with {_threads(n)}" for n, own in by.items()] for why, by in batches.items()}


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def lines(ident: str, width: float, points: list[Mapping[str, Any]]) -> Html:
    """Both axes logarithmic; the upright on a point is its interval."""
    batches = sorted({p["batch"] for p in points})
    across = Scale(batches[0] / 1.1, batches[-1] * 1.1, LEFT + 6, width - 10, log=True)
    ends = [p[n][k] for p in points for n in MODELS if p.get(n) for k in ("value", "low", "high") if p[n][k]]
    up = fitted(ends, BOTTOM, TOP, log=True)
    parts = left_axis(up, left=LEFT, right=width - 10, shown=lambda v: figures.trimmed(figures.count(v)))
    parts.append(line(LEFT, BOTTOM, width - 10, BOTTOM, "axis"))
    shown = batches if width > NARROW else batches[::2]
    parts += [label(across(b), BOTTOM + 14, str(b), anchor="middle", kind="tick") for b in shown]
    parts.append(label((LEFT + width) / 2, BOTTOM + 32, "batch (both axes logarithmic)", anchor="middle", kind="axis-name"))
    said = []
    for name, kind in MODELS.items():
        for number, threads in enumerate(sorted({p["threads"] for p in points})):
            own = [(p["batch"], p[name]) for p in points if p["threads"] == threads and p.get(name)]
            if own:
                parts += _line(own, across, up, kind=f"{kind} series-{number % STYLES + 1}", base=name == "baseline")
                said.append(f"{name}, {_threads(threads)}: " + ", ".join(f"batch {b} {figures.count(r['value'])}" for b, r in own))
    return drawing(ident, width=width, height=HEIGHT, title="Samples a second by batch size", text="; ".join(said) + ".", parts=parts)


def _line(own: list[tuple[int, Mapping[str, Any]]], across: Scale, up: Scale, *, kind: str, base: bool) -> list[Html]:
    at = [(across(b), up(r["value"])) for b, r in own]
    parts = [shape("polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in at), "class": kind})] if len(at) > 1 else []
    for (x, y), (_, rate) in zip(at, own, strict=True):
        if rate["low"] and rate["high"]:
            parts.append(line(x, up(rate["low"]), x, up(rate["high"]), "axis"))
        parts.append(dot(x, y, 3.5, "point base" if base else "point"))
    return parts
