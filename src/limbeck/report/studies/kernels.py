"""Kernels in the report: the time by kind, what stayed float though its weights are integers, and the bytes saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, bottom_axis, box, drawing, figure, label, table
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import Scale

ROW, TOP, RIGHT = 30, 6, 124
NAMES = {"int8": "int8", "float": "float", "convert": "(de)quantize", "layout": "layout", "other": "other"}


def kernels(data: Mapping[str, Any]) -> list[Node]:
    """The finding, the bars, and the kernels."""
    text = data["finding"]
    lead = f"By the profile of {data['runtime']} itself, over {data['inferences']:,} inferences; "
    lead += f"shares are of the time of all its kernels, {figures.milliseconds(data['total_ms'])} an inference."
    if data["disturbed"]:
        lead += " Other work on the machine is in these figures."
    return [
        el("p", {"class": "verdict error" if data["warning"] else "verdict"}, text[:1].upper() + text[1:] + "."),
        el("p", None, lead),
        figure("Time by kind of kernel", *both_widths(lambda ident, width: bars(ident, width, data["kinds"]), "kernels-kinds")),
        silent(data["silently_float"]),
        weights(data["weights"]),
        el("details", None, el("summary", None, f"{len(data['kernels']):,} kernels, the slowest first"), listed("Kernels of the runtime's graph", data["kernels"])),
    ]


def bars(ident: str, width: float, kinds: Sequence[Mapping[str, Any]]) -> Html:
    """A bar a kind."""
    left = 86.0 if width <= NARROW else 110.0
    drawn = [k for k in kinds if k["kernels"]]
    scale = Scale(0.0, max([0.01, *(k["share"] for k in drawn)]), left, width - RIGHT)
    bottom = TOP + ROW * len(drawn)
    parts = bottom_axis(scale, top=TOP, bottom=bottom, shown=lambda v: figures.percent(v, 0), name="share of the time of all kernels", most=3 if width <= NARROW else 6)
    said = []
    for number, one in enumerate(drawn):
        y = TOP + ROW * number
        shown = f"{figures.percent(one['share'])}, {one['kernels']} kernel{'' if one['kernels'] == 1 else 's'}"
        parts += [
            label(left - 8, y + 19, NAMES[one["kind"]], anchor="end", kind="name"),
            box(left, y + 6, scale(one["share"]) - left, ROW - 12, "bar" if one["kind"] == "int8" else "bar base"),
        ]
        parts.append(label(scale(one["share"]) + 6, y + 19, shown, kind="value"))
        said.append(f"{NAMES[one['kind']]} ({one['what']}): {shown}")
    return drawing(ident, width=width, height=bottom + 36, title="Time of the kernels by kind", text="; ".join(said) + ".", parts=parts)


def silent(rows: Sequence[Mapping[str, Any]]) -> Node:
    if not rows:
        return None
    return listed("Kernels that compute in float though their weights are stored as integers", rows)


def listed(caption: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    cells = [(r["name"], r["operator"], r["module"] or figures.NONE, NAMES[r["kind"]], figures.milliseconds(r["ms"]), figures.percent(r["share"])) for r in rows]
    return table(caption, ("kernel", "operator", "from", "kind", "time", "share"), cells, kind="figures named")


def weights(data: Mapping[str, Any]) -> Node:
    """One sentence on the bytes."""
    text = f"Weights take {figures.size(data['bytes'])}, {figures.size(data['integer_bytes'])} of them as integers of 8 bits or fewer."
    if data["saved_bytes"] is not None:
        saved = f"{figures.size(abs(data['saved_bytes']))} ({figures.percent(abs(data['saved_share'] or 0.0))})"
        text += f" The baseline's take {figures.size(data['baseline_bytes'])}: {saved} {'saved' if data['saved_bytes'] >= 0 else 'more'}."
    return el("p", None, text)
