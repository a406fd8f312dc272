"""What every chart shares: a drawing with a title, a description, axes with ticks; colours come from the page's style."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from limbeck.report.figures import trimmed
from limbeck.report.markup import Html, Node, el, shape
from limbeck.report.scales import Scale

NARROW, WIDE = 340, 700  # units of a drawing; one unit is about a pixel in the column it is drawn for


def drawing(ident: str, *, width: float, height: float, title: str, text: str, parts: Node, kind: str = "") -> Html:
    """An SVG that a screen reader reads as one picture: its title, and a text that says what it shows."""
    head = [el("title", {"id": f"{ident}-t"}, title), el("desc", {"id": f"{ident}-d"}, text)]
    attributes = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-labelledby": f"{ident}-t", "aria-describedby": f"{ident}-d", "class": f"chart {kind}".strip()}
    return el("svg", attributes, head, parts)


def label(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> Html:
    return shape("text", {"x": float(x), "y": float(y), "text-anchor": None if anchor == "start" else anchor, "class": kind or None}, text)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return shape("line", {"x1": float(x1), "y1": float(y1), "x2": float(x2), "y2": float(y2), "class": kind})


def box(x: float, y: float, width: float, height: float, kind: str) -> Html:
    return shape("rect", {"x": float(x), "y": float(y), "width": max(float(width), 0.0), "height": float(height), "class": kind})


def dot(x: float, y: float, radius: float, kind: str) -> Html:
    return shape("circle", {"cx": float(x), "cy": float(y), "r": float(radius), "class": kind})


def bottom_axis(scale: Scale, *, top: float, bottom: float, shown: Callable[[float], str], name: str, most: int = 4, whole: bool = False) -> list[Html]:
    """Grid lines, ticks and their figures under a plot, and what is measured."""
    parts: list[Html] = []
    for tick in scale.ticks(most, whole=whole):
        x = scale(tick)
        parts += [line(x, top, x, bottom, "grid"), label(x, bottom + 14, trimmed(shown(tick)), anchor="middle", kind="tick")]
    middle = (scale.start + scale.end) / 2
    return [*parts, line(scale.start, bottom, scale.end, bottom, "axis"), label(middle, bottom + 30, short(name, 40), anchor="middle", kind="axis-name")]


def left_axis(scale: Scale, *, left: float, right: float, shown: Callable[[float], str], most: int = 5) -> list[Html]:
    """Grid lines, and their figures left of a plot."""
    parts: list[Html] = []
    for tick in scale.ticks(most):
        y = scale(tick)
        parts += [line(left, y, right, y, "grid"), label(left - 6, y + 4, shown(tick), anchor="end", kind="tick")]
    return parts


def short(text: str, most: int = 14) -> str:
    """A name that finds room beside a bar; its full form stands in a table."""
    return text if len(text) <= most else text[: most - 1] + "…"


def both_widths(draw: Callable[[str, float], Html], ident: str) -> list[Node]:
    """The same drawing for a narrow and for a wide page, so that its text is as large in both; one of them is shown."""
    return [el("div", {"class": "narrow"}, draw(f"{ident}-n", NARROW)), el("div", {"class": "wide"}, draw(f"{ident}-w", WIDE))]


def figure(caption: Node, *body: Node) -> Html:
    return el("figure", None, el("figcaption", None, caption), body)


def table(caption: str, head: Sequence[Node], rows: Sequence[Sequence[Node]], *, kind: str = "", hidden_caption: bool = False, foot: Sequence[Node] = ()) -> Html:
    """A table with a caption; the first cell of a row is its header. It scrolls by itself where the page is narrow."""
    caption_kind = {"class": "hidden"} if hidden_caption else None
    columns = el("tr", None, [el("th", {"scope": "col"}, c) for c in head])
    body = [el("tr", None, [el("th", {"scope": "row"}, r[0]), *(el("td", None, c) for c in r[1:])]) for r in rows]
    end = el("tfoot", None, el("tr", None, el("th", {"scope": "row"}, foot[0]), [el("td", None, c) for c in foot[1:]])) if foot else None
    content = el("table", {"class": kind or None}, el("caption", caption_kind, caption), el("thead", None, columns), el("tbody", None, body), end)
    return el("div", {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": caption}, content)
