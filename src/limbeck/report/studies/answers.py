"""How far the candidate's answers lie from the baseline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import both_widths, bottom_axis, box, drawing, figure, line, table
from limbeck.report.confidence import confidence, tallest
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import Scale

SIDES = ("baseline", "candidate")
HIGH = 150.0


def answers(found: Mapping[str, Any]) -> list[Node]:
    """By the kind of answer: distributions over classes or tokens, or numbers."""
    return _numbers(found) if found["kind"] == "value" else _classes(found)


def _classes(found: Mapping[str, Any]) -> list[Node]:
    """Confidence is drawn here only where the section on calibration can't."""
    what, same, kl, change = "tokens" if "tokens" in found else "samples", found["agreement"], found["kl"], found["margin"]["change"]
    count = found.get("tokens", found["samples"])
    lead = f"On {count:,} {what} of {found['split']} both give the same answer in {figures.percent(same['share'], 2)} "
    lead += f"(at least {figures.percent(same['low'], 2)}, at {figures.percent(found['confidence'], 0)} confidence). "
    lead += "The divergence says how far whole distributions lie apart, the answer being the same or not: 0 is no difference."
    head = ("figure", "mean", "least", "5 %", "median", "95 %", "99 %", "largest")
    levels = ("mean", "min", "p5", "p50", "p95", "p99", "max")
    spread = [(name, *(figures.plain(values[k]) for k in levels)) for name, values in (("KL to the baseline, nats", kl), ("lead of its answer, change", change))]
    margins = f"On average the likeliest class leads by {figures.plain(found['margin']['baseline'], 3)} in the baseline; the candidate gives that class a lead of "
    margins += f"{figures.plain(found['margin']['candidate'], 3)}, a smaller one in {figures.percent(found['margin']['thinner'])} of all {what}."
    return [
        el("p", None, lead),
        table("How far answers moved", head, spread, kind="figures"),
        el("p", None, margins),
        None if found["calibrated"] else _histograms(found),
        *_worst(found, what),
    ]


def _histograms(found: Mapping[str, Any]) -> Node:
    """Both models side by side, on the same scale."""
    told = found["histograms"]
    sides = {name: [told[name][k] for k in ("right", "wrong", "all") if k in told[name]] for name in SIDES}
    most = tallest(*sides.values())
    drawn = [figure(f"How sure the {name} is", confidence(f"answers-{name}", name, counts, low=told["low"], high=told["high"], most=most)) for name, counts in sides.items()]
    return el("div", {"class": "charts"}, drawn)


def _worst(found: Mapping[str, Any], what: str) -> list[Node]:
    if not found["worst"]:
        return [el("p", None, "No answer moved at all.")]
    caption = "Samples whose answers moved most"
    if what == "tokens":
        rows = [(f"sample {w['id']}", figures.plain(w["kl"]), f"{w['same']:,} of {w['tokens']:,}") for w in found["worst"]]
        return [table(caption, ("sample", "mean KL", "same tokens"), rows, kind="figures small")]
    rows = [(f"sample {w['id']}", figures.plain(w["kl"]), *(_says(w[side]) for side in SIDES)) for w in found["worst"]]
    return [table(caption, ("sample", "KL", "baseline says", "candidate says"), rows, kind="figures small")]


def _says(side: Mapping[str, Any]) -> str:
    return f"{side['answer']}, {figures.percent(side['sure'], 0)} sure"


def _numbers(found: Mapping[str, Any]) -> list[Node]:
    differ = found["difference"]
    lead = f"Candidate less baseline, over {found['samples']:,} samples of {found['split']} with {found['values']:,} {'number' if found['values'] == 1 else 'numbers'} each. "
    lead += f"Their typical distance is {figures.percent(found['relative'], 2)} of the baseline's own spread"
    lead += f"; both correlate by {figures.plain(found['correlation'])}." if found["correlation"] is not None else "."
    head = ("", "mean", "1 %", "5 %", "median", "95 %", "99 %", "spread", "largest")
    row = ("difference", *(figures.plain(differ[k]) for k in ("mean", "p1", "p5", "p50", "p95", "p99", "sd", "largest")))
    rows = [(f"sample {w['id']}", figures.plain(w["distance"]), figures.plain(w["baseline"]), figures.plain(w["candidate"])) for w in found["worst"]]
    told = found["histogram"]
    plot = figure("Differences, candidate less baseline", *both_widths(lambda ident, width: differences(ident, width, told["all"], told["low"], told["high"]), "answers"))
    alike = found["cosine"]
    note = f"Cosine of both sides' vectors: {figures.plain(alike['mean'])} on average, {figures.plain(alike['p1'])} at the lowest hundredth." if alike else None
    return [
        el("p", None, lead),
        plot,
        table("How far numbers moved", head, [row], kind="figures"),
        el("p", None, note) if note else None,
        table("Samples whose numbers moved most", ("sample", "distance", "baseline, mean", "candidate, mean"), rows, kind="figures small") if rows else None,
    ]


def differences(ident: str, width: float, counts: Sequence[int], low: float, high: float) -> Html:
    """A histogram; the dashed line is no difference."""
    across, most = Scale(low, high, 8.0, width - 8), max(max(counts, default=0), 1)
    parts = bottom_axis(across, top=8, bottom=HIGH, shown=figures.plain, name="difference", most=3 if width < 500 else 7)
    for number, count in enumerate(counts):
        left, end = (across(low + (high - low) * (number + k) / len(counts)) for k in (0, 1))
        tall = (HIGH - 14) * count / most
        parts.append(box(left + 0.5, HIGH - tall, end - left - 1, tall, "bar"))
    if low <= 0 <= high:
        parts.append(line(across(0.0), 8, across(0.0), HIGH, "limit"))
    said = f"{sum(counts):,} differences from {figures.plain(low)} to {figures.plain(high)}, the outermost hundredth drawn in at the ends"
    return drawing(ident, width=width, height=HIGH + 36, title="Histogram of differences", text=said + ".", parts=parts)
