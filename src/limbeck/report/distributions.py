"""Latencies of several artifacts on one axis: how long single inferences took, not only their median."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from limbeck.report import figures
from limbeck.report.charts import bottom_axis, drawing, label, line
from limbeck.report.markup import Html, shape
from limbeck.report.scales import Scale
from limbeck.report.story import Timing

ROW, BINS = 74, 64
TAIL = 1  # percent of inferences at each end that the axis leaves out


def distributions(ident: str, width: float, timings: Sequence[Timing]) -> Html:
    """One histogram a row, all on one logarithmic axis, each with its median (full line) and 90th percentile (dashed)."""
    samples = [np.asarray(t.samples_ms) for t in timings]
    low = min(float(np.percentile(s, TAIL)) for s in samples)
    high = max(float(np.percentile(s, 100 - TAIL)) for s in samples)
    scale = Scale(low / 1.05, high * 1.05, 4.0, width - 4.0, log=True)
    bottom = ROW * len(timings)
    parts = bottom_axis(scale, top=22, bottom=bottom, shown=figures.milliseconds, name="time of one inference (logarithmic)", most=4 if width < 500 else 8)
    said = []
    for number, (timing, values) in enumerate(zip(timings, samples, strict=True)):
        base = ROW * (number + 1)
        p50, p90 = (float(np.percentile(values, q)) for q in (50, 90))
        parts += [shape("path", {"d": _hill(values, scale, base), "class": f"hill {timing.name}"}), line(4, base, width - 4, base, "axis")]
        parts += [line(scale(p50), base - 44, scale(p50), base, "median"), line(scale(p90), base - 30, scale(p90), base, "p90")]
        parts.append(label(4, base - 54, timing.name, kind="name strong halo"))
        for one, up in ((timing.quantiles.get("p50"), 47), (timing.quantiles.get("p90"), 33)):
            if one and one.low_ms is not None and one.high_ms is not None:
                parts.append(line(scale(min(max(one.low_ms, scale.low), scale.high)), base - up, scale(max(min(one.high_ms, scale.high), scale.low)), base - up, "interval"))
        text = f"p50 {figures.milliseconds(p50)}, p90 {figures.milliseconds(p90)}"
        parts.append(label(width - 4, base - 54, text, anchor="end", kind="tick halo"))
        said.append(f"{timing.name}: {text}, {len(values):,} inferences in {timing.turns} turns")
    return drawing(ident, width=width, height=bottom + 36, title="Latency distributions", text="; ".join(said) + ".", parts=parts)


def _hill(values: np.ndarray, scale: Scale, base: float) -> str:
    """A histogram over the logarithm of time as one closed outline, its highest bin 44 units high."""
    edges = np.geomspace(scale.low, scale.high, BINS + 1)
    counts, _ = np.histogram(values, edges)
    top = int(counts.max()) or 1
    points = [f"M{_at(scale(float(edges[0])))} {_at(base)}"]
    for i, count in enumerate(counts):
        y = base - 44 * int(count) / top
        points += [f"L{_at(scale(float(edges[i])))} {_at(y)}", f"L{_at(scale(float(edges[i + 1])))} {_at(y)}"]
    return "".join([*points, f"L{_at(scale(float(edges[-1])))} {_at(base)}Z"])


def _at(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "0"
