"""What is kept under corruption: a small chart a kind, both models by strength, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import dot, drawing, figure, label, left_axis, line, table
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale, fitted
from limbeck.report.story import Kept
from limbeck.report.studies.legend import legend

MODELS = {"baseline": ("series base series-2", "point base"), "candidate": ("series", "point")}
WIDTH, HEIGHT = 340.0, 220.0
LEFT, TOP, BOTTOM = 56.0, 12.0, 176.0
APART = 4.0  # by which the uprights of both models stand beside each other


def shift(found: Mapping[str, Any]) -> list[Node]:
    """How quality falls as samples get worse, and what the candidate keeps of the baseline's on the same corrupted samples."""
    names = [name for name in MODELS if any(p[name] is not None for kind in found["kinds"] for p in kind["points"])]
    scale = _scale(found, names)
    charts = [figure(_title(kind), curves(f"shift-{number}", kind, found["clean"], scale)) for number, kind in enumerate(found["kinds"])]
    assumed = f"Samples were taken to be {found['assumed']}" + (", by their shape and range alone; the task can say otherwise. " if found["derived"] else ". ")
    what = "0 is the test split as it is; uprights are intervals. " if any(v is not None for v in found["clean"].values()) else "Uprights are intervals. "
    note = f"{found['metric']} of both models on the same corrupted samples, {found['samples']:,} at each strength ({found['distinct']:,} different ones). {what}{assumed}"
    left = [el("p", {"class": "note"}, f"{kind}: left out, {why}.") for kind, why in found["left_out"].items()]
    entries = [(MODELS[name][0], name) for name in names]
    return [el("p", None, _lead(found)), el("p", {"class": "note"}, note), *left, el("div", {"class": "charts"}, charts), legend(entries), _kinds(found), _points(found, names)]


def _lead(found: Mapping[str, Any]) -> str:
    overall = found["overall"]
    if not overall:
        return f"What is kept over all kinds isn't known: {found['note']}."
    sure, kinds = figures.percent(found["confidence"], 0), [k for k in found["kinds"] if k["retention"]]
    ratio = overall["kind"] == "ratio"
    does = "keeps " if ratio else "is worse: "
    whole = f"Under corruption the candidate {does}{_kept(overall)} (at {sure} confidence), over {len(found['kinds'])} kinds at five strengths together. "
    if not kinds:
        return whole
    worst = min(kinds, key=lambda k: k["retention"]["value"] if k["retention"]["kind"] == "ratio" else -k["retention"]["value"])
    return whole + f"{'Least is kept' if ratio else 'Most is lost'} under {worst['name']}: {_kept(worst['retention'])}."


def _kept(kept: Mapping[str, Any] | None) -> str:
    return figures.kept(Kept(value=kept["value"], bound=kept["low"], kind=kept["kind"]) if kept else None)


def _title(kind: Mapping[str, Any]) -> str:
    kept = kind["retention"]
    return f"{kind['name']}: {'kept ' if kept['kind'] == 'ratio' else ''}{_kept(kept)}" if kept else kind["name"]


def _scale(found: Mapping[str, Any], names: Sequence[str]) -> Scale:
    """One axis for all kinds, so that they can be compared."""
    points = [p for kind in found["kinds"] for p in kind["points"]]
    values = [p[name] for p in points for name in names if p[name] is not None]
    ends = [end for p in points for name in names for end in p["intervals"].get(name) or ()]
    return fitted([*values, *ends, *(v for v in found["clean"].values() if v is not None)], BOTTOM, TOP)


def curves(ident: str, kind: Mapping[str, Any], clean: Mapping[str, float | None], up: Scale) -> Html:
    """Both models by strength, from the samples as they are to the strongest corruption."""
    across = Scale(-0.3, 5.3, LEFT, WIDTH - 8)
    parts = left_axis(up, left=LEFT, right=WIDTH - 8, shown=lambda v: figures.trimmed(figures.plain(v)), most=4)
    parts += [label(across(s), BOTTOM + 14, str(s), anchor="middle", kind="tick") for s in range(6)]
    parts += [line(LEFT, BOTTOM, WIDTH - 8, BOTTOM, "axis"), label((LEFT + WIDTH) / 2, BOTTOM + 30, "strength", anchor="middle", kind="axis-name")]
    said = []
    for name, (series, mark) in MODELS.items():
        points = [(0, clean.get(name), None), *((p["strength"], p[name], p["intervals"].get(name)) for p in kind["points"])]
        own = [(strength, value, ends) for strength, value, ends in points if value is not None]
        offset = APART / 2 if name == "candidate" else -APART / 2
        at = [(across(strength), up(value)) for strength, value, _ in own]
        if len(at) > 1:
            parts.append(shape("polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in at), "class": series}))
        parts += [line(across(strength) + offset, up(ends[0]), across(strength) + offset, up(ends[1]), "axis") for strength, _, ends in own if ends]
        parts += [dot(x, y, 3.2, mark) for x, y in at]
        if own:
            said.append(f"{name}: " + ", ".join(f"{figures.plain(value)} at {strength}" for strength, value, _ in own))
    return drawing(ident, width=WIDTH, height=HEIGHT, title=f"{kind['name']}, by strength", text="; ".join(said) + ".", parts=parts)


def _kinds(found: Mapping[str, Any]) -> Node:
    rows = [(kind["name"], _kept(kind["retention"]), *(figures.plain(_mean_of(kind, name)) for name in MODELS)) for kind in found["kinds"]]
    foot = ("all together", _kept(found["overall"]), "", "") if found["overall"] else ()
    head = ("kind", "kept", "baseline, mean of strengths", "candidate, mean of strengths")
    return table("What is kept under each kind of corruption", head, rows, kind="figures", foot=foot)


def _mean_of(kind: Mapping[str, Any], name: str) -> float | None:
    values = [p[name] for p in kind["points"]]
    return None if not values or None in values else sum(values) / len(values)


def _points(found: Mapping[str, Any], names: Sequence[str]) -> Node:
    head = ("kind, strength", *(cell for name in names for cell in (name, "interval")), "kept", "note")
    rows = []
    for kind in found["kinds"]:
        for p in kind["points"]:
            cells = [cell for name in names for cell in (figures.plain(p[name]), _interval(p["intervals"].get(name)))]
            rows.append((f"{kind['name']}, {p['strength']}", *cells, _kept(p["retention"]), p["note"]))
    return el("details", None, el("summary", None, f"All {len(rows)} points in figures"), table("Quality by kind and strength", head, rows, kind="figures wordy"))


def _interval(ends: Sequence[float] | None) -> str:
    return f"{figures.plain(ends[0])} to {figures.plain(ends[1])}" if ends else figures.NONE
