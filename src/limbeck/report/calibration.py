"""Whether the models are right as often as they say: reliability before and after."""

from __future__ import annotations

from limbeck.report import figures
from limbeck.report.charts import bottom_axis, dot, drawing, figure, left_axis, line, table
from limbeck.report.confidence import confidence, tallest
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale, fitted
from limbeck.report.story import Calibration, Reliability

WIDTH, HEIGHT = 340.0, 250.0
LEFT, TOP, BOTTOM = 52.0, 12.0, 210.0


def calibration(told: Calibration) -> list[Node]:
    """One small chart a model, on the same axes, and the figures."""
    lead = "A model that says 90 % should be right in 90 % of such cases. The dashed line is that; a dot below it is a bin in which the model is too sure of itself. "
    lead += "Bins hold about as many samples each; their mean distance from the line is the expected calibration error (ECE)."
    low = min((min(c, a) for m in told.models for c, a, _ in m.bins), default=0.0)
    charts = [figure(f"Reliability of the {m.name}", reliability(f"reliability-{m.name}", m, max(low, 0.0))) for m in told.models]
    rows = [(m.name, figures.plain(m.ece), figures.plain(m.high), f"{sum(n for _, _, n in m.bins):,}", str(len(m.bins))) for m in told.models]
    return [
        el("p", None, lead),
        _increase(told),
        el("div", {"class": "charts"}, charts),
        *_confidence(told),
        table("Expected calibration error of each model", ("model", "ECE", "at most", "samples", "bins"), rows, kind="figures small"),
    ]


def _confidence(told: Calibration) -> list[Node]:
    """How often each model is how sure, on the same scale; nothing where a run didn't keep it."""
    known = [m for m in told.models if m.histogram]
    if not known:
        return []
    bins = len(known[0].histogram[0])
    first = min((i for m in known for counts in m.histogram for i, n in enumerate(counts) if n), default=0)
    cut = {m.name: [counts[first:] for counts in m.histogram] for m in known}
    most = tallest(*cut.values())
    note = "How sure the models are of their answers: those right stand above the line, those wrong hang below it. Wrong answers far to the right are the dangerous ones."
    drawn = [figure(f"How sure the {m.name} is", confidence(f"confidence-{m.name}", m.name, cut[m.name], low=first / bins, high=1.0, most=most)) for m in known]
    return [el("p", None, note), el("div", {"class": "charts"}, drawn)]


def _increase(told: Calibration) -> Html | None:
    """What became of the error, with the bound that a limit on its increase is judged by."""
    if told.increase is None:
        return None
    way = "larger" if told.increase >= 0 else "smaller"
    bound = f", and at most {figures.plain(told.increase_high)} larger: the bound counts what chance alone adds to the errors" if told.increase_high is not None else ""
    return el("p", None, f"The final model's error is {figures.plain(abs(told.increase))} {way} than the baseline's{bound}.")


def reliability(ident: str, told: Reliability, low: float) -> Html:
    """Confidence against the share that is right, bin by bin; both axes run to 1."""
    ends = fitted([low, 1.0], 0, 1)
    across, up = Scale(ends.low, 1.0, LEFT, WIDTH - 10), Scale(ends.low, 1.0, BOTTOM, TOP)
    parts = left_axis(up, left=LEFT, right=WIDTH - 10, shown=lambda v: figures.percent(v, 0), most=4)
    parts += bottom_axis(across, top=TOP, bottom=BOTTOM, shown=lambda v: figures.percent(v, 0), name="how sure it is (share right: upwards)", most=4)
    parts.append(line(across(ends.low), up(ends.low), across(1.0), up(1.0), "p90"))
    points = [(across(confidence), up(accuracy)) for confidence, accuracy, _ in told.bins]
    if len(points) > 1:
        parts.append(shape("path", {"d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), "class": "series"}))
    parts += [dot(x, y, 4.0, "point") for x, y in points]
    said = "; ".join(f"says {figures.percent(c)}, right {figures.percent(a)} of {n:,}" for c, a, n in told.bins)
    return drawing(ident, width=WIDTH, height=HEIGHT, title=f"Reliability of the {told.name}, ECE {told.ece:.4f}", text=said + ".", parts=parts)
