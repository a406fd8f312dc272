"""Whether the models are right as often as they say: reliability before and after."""

from __future__ import annotations

from limbeck.report import figures
from limbeck.report.charts import bottom_axis, dot, drawing, figure, left_axis, line, table
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
        el("div", {"class": "charts"}, charts),
        table("Expected calibration error of each model", ("model", "ECE", "at most", "samples", "bins"), rows, kind="figures small"),
    ]


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
