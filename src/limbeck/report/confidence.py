"""How often a model is how sure: what is right upwards, what is wrong downwards."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.report import figures
from limbeck.report.charts import bottom_axis, box, drawing, label, line
from limbeck.report.markup import Html
from limbeck.report.scales import Scale

WIDTH, HEIGHT = 340.0, 230.0
LEFT, TOP, BOTTOM = 52.0, 14.0, 190.0


def confidence(ident: str, name: str, counts: Sequence[Sequence[int]], *, low: float, high: float, most: int) -> Html:
    """Bins of one width from `low` to `high`; `counts` holds those right and those wrong, or all alone.

    most: The count that the taller side reaches up to, so that drawings beside each other compare.
    """
    right, wrong = counts[0], counts[1] if len(counts) > 1 else [0] * len(counts[0])
    across = Scale(low, high, LEFT, WIDTH - 10)
    deepest = max(wrong, default=0)
    up = Scale(-float(max(deepest, 0.12 * most if len(counts) > 1 else 0)), float(max(most, 1)), BOTTOM, TOP)
    parts = bottom_axis(across, top=TOP, bottom=BOTTOM, shown=lambda v: figures.percent(v, 0), name="how sure it is", most=4)
    for bin_, (above, below) in enumerate(zip(right, wrong, strict=True)):
        left, end = (across(low + (high - low) * (bin_ + k) / len(right)) for k in (0, 1))
        if above:
            parts.append(box(left + 0.5, up(above), end - left - 1, up(0) - up(above), "bar"))
        if below:
            parts.append(box(left + 0.5, up(0), end - left - 1, up(-below) - up(0), "bar control"))
    parts += [line(LEFT, up(0), WIDTH - 10, up(0), "axis"), label(LEFT - 6, TOP + 10, f"{most:,}", anchor="end", kind="tick")]
    if len(counts) > 1:
        parts += [label(LEFT - 6, up(0) - 6, "right", anchor="end", kind="tick"), label(LEFT - 6, up(0) + 13, "wrong", anchor="end", kind="tick")]
    return drawing(ident, width=WIDTH, height=HEIGHT, title=f"How sure the {name} is", text=_said(name, counts, low, high), parts=parts)


def _said(name: str, counts: Sequence[Sequence[int]], low: float, high: float) -> str:
    """What the drawing shows, in words."""
    told = []
    for what, column in zip(("right", "wrong") if len(counts) > 1 else ("answers",), counts, strict=True):
        total = sum(column)
        above = sum(n for i, n in enumerate(column) if low + (high - low) * i / len(column) >= 0.9 - 1e-9)
        told.append(f"{total:,} {what}, of which {above:,} at 90 % or more")
    return f"{name}: " + "; ".join(told) + "."


def tallest(*sides: Sequence[Sequence[int]]) -> int:
    """The greatest count of all that will stand beside each other."""
    return max((n for counts in sides for column in counts for n in column), default=1)
