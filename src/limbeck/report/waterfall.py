"""From baseline to final, stage by stage: what each took away, and what it cost in quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.report import figures
from limbeck.report.charts import NARROW, bottom_axis, box, dot, drawing, label, line, short
from limbeck.report.markup import Html
from limbeck.report.scales import Scale, fitted

ROW, LEFT, RIGHT = 38, 92, 74  # units: a row, the room for names, the room for figures


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row: `kind` is base, step, skipped, final or control; a skipped stage changes nothing for those after it."""

    name: str
    value: float | None
    kind: str = "step"
    note: str = ""


def waterfall(ident: str, title: str, bars: Sequence[Bar], *, shown: Callable[[float], str], axis: str) -> Html:
    """Horizontal bars from zero; the light part of a bar is what its stage took away from the one before."""
    scale = fitted([b.value for b in bars if b.value is not None], LEFT, NARROW - RIGHT, zero=True)
    parts = bottom_axis(scale, top=6, bottom=ROW * len(bars) + 6, shown=shown, name=axis, most=3)
    before: float | None = None
    said = []
    for number, bar in enumerate(bars):
        y = ROW * number + 6
        parts.append(label(LEFT - 8, y + 23, short(bar.name), anchor="end", kind="name"))
        change = ""
        if bar.value is not None:
            change = _change(before, bar) if bar.kind in ("step", "skipped") else ""
            parts += _bar(scale, y, bar, before)
        parts += [label(NARROW, y + (18 if change or bar.note else 23), shown(bar.value) if bar.value is not None else figures.NONE, anchor="end", kind="value")]
        if change or bar.note:
            parts.append(label(NARROW, y + 31, bar.note or change, anchor="end", kind="tick"))
        said.append(_said(bar, shown, change))
        if bar.value is not None and bar.kind in ("base", "step"):
            before = bar.value
    return drawing(ident, width=NARROW, height=ROW * len(bars) + 42, title=title, text="; ".join(said) + ".", parts=parts)


def _bar(scale: Scale, y: float, bar: Bar, before: float | None) -> list[Html]:
    value = bar.value or 0.0
    zero, end = scale(0.0), scale(value)
    parts = []
    if bar.kind == "step" and before is not None and before > value:
        parts.append(box(end, y + 9, scale(before) - end, ROW - 18, "ghost"))
    return [*parts, box(zero, y + 9, end - zero, ROW - 18, f"bar {bar.kind}")]


def _change(before: float | None, bar: Bar) -> str:
    if not before or bar.value is None:
        return ""
    return f"{100 * (bar.value / before - 1):+.0f} %".replace("-", "−")


def _said(bar: Bar, shown: Callable[[float], str], change: str) -> str:
    value = "not measured" if bar.value is None else shown(bar.value)
    more = ", ".join(x for x in (change, bar.note) if x)
    return f"{bar.name} {value}" + (f" ({more})" if more else "")


def dots(ident: str, title: str, groups: Sequence[tuple[str, Sequence[Bar]]], *, axis: str) -> Html:
    """A metric by stage as points on an axis that doesn't begin at zero, a group for each split it was measured on."""
    values = [b.value for _, bars in groups for b in bars if b.value is not None]
    scale = fitted(values, LEFT, NARROW - RIGHT)
    rows = sum(len(bars) for _, bars in groups)
    bottom = ROW * rows + 18 * len(groups) + 6
    parts, said, y = bottom_axis(scale, top=6, bottom=bottom, shown=lambda v: f"{v:.6g}", name=axis, most=4), [], 6.0
    for name, bars in groups:
        parts.append(label(0, y + 13, name, kind="group"))
        y += 18
        last: tuple[float, float] | None = None
        for bar in bars:
            parts.append(label(LEFT - 8, y + 23, short(bar.name), anchor="end", kind="name"))
            if bar.value is not None:
                here = (scale(bar.value), y + ROW / 2)
                if last and bar.kind == "step":
                    parts.append(line(*last, *here, "path"))
                parts.append(dot(*here, 5, f"point {bar.kind}"))
                last = here if bar.kind in ("base", "step") else last
            parts.append(label(NARROW, y + (18 if bar.note else 23), figures.plain(bar.value), anchor="end", kind="value"))
            if bar.note:
                parts.append(label(NARROW, y + 31, bar.note, anchor="end", kind="tick"))
            said.append(f"{bar.name} on {name}: {figures.plain(bar.value)}" + (f" ({bar.note})" if bar.note else ""))
            y += ROW
    return drawing(ident, width=NARROW, height=bottom + 36, title=title, text="; ".join(said) + ".", parts=parts)
