"""How sure models are of what belongs to no class: histograms of confidence, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import bottom_axis, drawing, figure, label, line, table
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale
from limbeck.report.studies.legend import legend

MODELS = ("baseline", "candidate")
WIDTH, ROW, TOP = 340.0, 66.0, 6.0
TALL = 44.0


def outside(found: Mapping[str, Any]) -> list[Node]:
    """Whether confidence tells samples of the task from others, and where the candidate is surer than it should be."""
    names = [name for name in MODELS if name in found["inside"]]
    charts = [figure(_title(one), hills(f"outside-{number}", one, found["inside"], names)) for number, one in enumerate(found["sets"])]
    lead = "Inputs that belong to no class, as given by the task or made from its samples (noise of their range, their own values in another order, one value everywhere). "
    lead += "A model should be less sure of them: an AUROC of 1 says that its confidence tells them all from samples of the test split, 0.5 that it tells nothing."
    entries = [("hill control", "inside, the test split"), ("hill", "outside")]
    return [el("p", None, lead), el("p", None, _verdict(found)), el("div", {"class": "charts"}, charts), legend(entries), _table(found, names)]


def _verdict(found: Mapping[str, Any]) -> str:
    surer = [one["name"] for one in found["sets"] if one["surer"] and one["surer"]["which"] == "candidate"]
    if all(one["surer"] is None for one in found["sets"]):
        return "There is no baseline to compare with."
    if not surer:
        return "On none of the sets is the candidate shown to be surer than the baseline."
    return f"The candidate is surer than the baseline of inputs that belong to no class: {', '.join(surer)}."


def _title(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({'made here' if one['made'] else 'given'}, {one['samples']:,} samples)"


def hills(ident: str, one: Mapping[str, Any], inside: Mapping[str, Any], names: Sequence[str]) -> Html:
    """A row a model: how its confidence is spread inside and outside, each histogram as high as its fullest bin."""
    across = Scale(0.0, 1.0, 16.0, WIDTH - 18.0)
    bottom = TOP + ROW * len(names)
    parts = bottom_axis(across, top=TOP + 14, bottom=bottom, shown=lambda v: figures.percent(v, 0), name="confidence in the answer", most=4)
    said = []
    for number, name in enumerate(names):
        base = TOP + ROW * (number + 1)
        parts += [_hill(inside[name]["histogram"], across, base, "hill control"), _hill(one[name]["histogram"], across, base, "hill"), line(4, base, WIDTH - 4, base, "axis")]
        means = f"mean {figures.percent(inside[name]['mean'])} inside, {figures.percent(one[name]['mean'])} outside"
        parts += [label(4, base - TALL - 8, name, kind="name strong halo"), label(WIDTH - 4, base - TALL - 8, means, anchor="end", kind="tick halo")]
        said.append(f"{name}: {means}, AUROC {figures.plain(one[name]['auroc']['value'])}")
    return drawing(ident, width=WIDTH, height=bottom + 36, title=f"Confidence on {one['name']}", text="; ".join(said) + ".", parts=parts)


def _hill(counts: Sequence[int], across: Scale, base: float, kind: str) -> Html:
    top, step = max(counts) or 1, 1 / len(counts)
    points = [f"M{across(0):.1f} {base:.1f}"]
    for i, count in enumerate(counts):
        y = base - TALL * count / top
        points += [f"L{across(i * step):.1f} {y:.1f}", f"L{across((i + 1) * step):.1f} {y:.1f}"]
    return shape("path", {"d": "".join([*points, f"L{across(1):.1f} {base:.1f}Z"]), "class": kind})


def _table(found: Mapping[str, Any], names: Sequence[str]) -> Node:
    head = ("set", *(cell for name in names for cell in (f"{name}: sure", "AUROC", "interval")), *(("candidate surer by", "interval") if len(names) > 1 else ()))
    rows = [("inside", *(cell for name in names for cell in (figures.percent(found["inside"][name]["mean"]), "", "")), *(("", "") if len(names) > 1 else ()))]
    for one in found["sets"]:
        cells = [c for name in names for c in (figures.percent(one[name]["mean"]), figures.plain(one[name]["auroc"]["value"]), _ends(one[name]["auroc"], figures.plain))]
        more = (figures.percent(one["surer"]["value"]), _ends(one["surer"], figures.percent)) if one["surer"] else ()
        rows.append((one["name"], *cells, *more))
    return table(f"Confidence inside and outside; bounds one-sided at {figures.percent(found['confidence'], 0)}", head, rows, kind="figures")


def _ends(one: Mapping[str, Any], shown: Any) -> str:
    return f"{shown(one['low'])} to {shown(one['high'])}"
