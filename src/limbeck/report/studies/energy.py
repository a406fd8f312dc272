"""Energy of a sample: counted, with its interval; or modelled, with what goes into it, and said to be so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, bottom_axis, dot, drawing, figure, label, line, table
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import fitted

ROW, TOP = 40, 14
TRUST = "Compare the models by it; it says little of your device, and keeps no limit."


def energy(found: Mapping[str, Any]) -> list[Node]:
    counted = found["how"] == "counted"
    known = {name: m for name, m in found["models"].items() if m["mj"] is not None}
    caption = "Energy of a sample, by the processor's counter" if counted else "Energy of a sample, modelled and not measured"
    plot = figure(caption, *both_widths(lambda ident, width: ranges(ident, width, known, caption), "energy")) if known else None
    return [el("p", None, _counted_lead(found) if counted else _modelled_lead(found)), plot, _counted_table(known) if counted else _modelled_table(known), *_notes(found)]


def _counted_lead(found: Mapping[str, Any]) -> str:
    lead = f"Read from {', '.join(found['counters'])} in {found['rounds']} rounds, the models in turn; the machine's idle {found['idle_watts']:.3g} W, measured in each round, "
    return lead + f"are taken off. The bar is the {figures.percent(found['confidence'], 0)} interval of the median."


def _modelled_lead(found: Mapping[str, Any]) -> str:
    lead = f"Modelled, not measured: {found['why']}. Multiply-adds and moved bytes, each times what one takes ({found['source']}). "
    return lead + f"The bar reaches from all bytes out of a cache to all out of DRAM. Left out: {found['left_out']}. " + TRUST


def _counted_table(models: Mapping[str, Any]) -> Html:
    rows = [(name, millijoules(m["mj"]), f"{millijoules(m['low_mj'])} to {millijoules(m['high_mj'])}", millijoules(m["with_idle_mj"])) for name, m in models.items()]
    return table("Energy of a sample", ("model", "above idle", "interval", "with idle"), rows, kind="figures small")


def _modelled_table(models: Mapping[str, Any]) -> Html:
    head = ("model", "modelled", "range", "multiply-adds", "weights moved", "activations moved", "multiply-adds by precision")
    rows = []
    for name, m in models.items():
        kinds = ", ".join(f"{figures.count(n)} {kind}" for kind, n in m["macs"].items()) or figures.NONE
        shares = [millijoules(m["parts_mj"][p]) for p in ("multiply_adds", "weights", "activations")]
        rows.append((name, millijoules(m["mj"]), f"{millijoules(m['low_mj'])} to {millijoules(m['high_mj'])}", *shares, kinds))
    return table("Modelled energy of a sample", head, rows, kind="figures wordy")


def _notes(found: Mapping[str, Any]) -> list[Node]:
    notes = ["Other processes were at work; the counter counts them too."] if found.get("disturbed") else []
    for name, m in found["models"].items():
        if m["mj"] is None:
            notes.append(f"Of the {name} there is none: {m['why']}.")
        elif m.get("uncounted"):
            notes.append(f"In the {name}, these multiply in a way that isn't counted: {', '.join(m['uncounted'])}.")
    return [el("p", {"class": "note"}, " ".join(notes))] if notes else []


def millijoules(value: float | None) -> str:
    """In the unit that keeps it readable."""
    if value is None:
        return figures.NONE
    for unit, scale in (("J", 1e3), ("mJ", 1.0), ("µJ", 1e-3)):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e6:.3g} nJ"


def ranges(ident: str, width: float, models: Mapping[str, Any], title: str) -> Html:
    """A row a model: the dot is the figure, the bar its interval or range. Logarithmic where all is above nothing."""
    values = [m[k] for m in models.values() for k in ("mj", "low_mj", "high_mj") if m[k] is not None]
    left = 90.0 if width <= NARROW else 130.0
    scale = fitted(values, left, width - 14, log=min(values) > 0, zero=min(values) <= 0)
    bottom = TOP + ROW * len(models)
    parts = bottom_axis(scale, top=TOP, bottom=bottom, shown=millijoules, name="energy of a sample", most=3 if width <= NARROW else 6)
    said = []
    for number, (name, m) in enumerate(models.items()):
        y = TOP + ROW * (number + 0.5)
        parts.append(label(left - 10, y + 4, name, anchor="end", kind="name"))
        if m["low_mj"] is not None and m["high_mj"] is not None:
            parts.append(line(scale(m["low_mj"]), y, scale(m["high_mj"]), y, "interval"))
        parts.append(dot(scale(m["mj"]), y, 4.5, "point base" if name == "baseline" else "point"))
        said.append(f"{name}: {millijoules(m['mj'])}, {millijoules(m['low_mj'])} to {millijoules(m['high_mj'])}")
    return drawing(ident, width=width, height=bottom + 36, title=title, text="; ".join(said) + ".", parts=parts)
