"""Which colour or line is which, under a study's picture."""

from __future__ import annotations

from collections.abc import Iterable

from limbeck.report.charts import box, line
from limbeck.report.markup import Html, el


def legend(entries: Iterable[tuple[str, str]]) -> Html:
    """Each with its class in the page's style: a line for `series`, else a filled box."""
    rows = []
    for kind, name in entries:
        sign = line(0, 4, 28, 4, kind) if kind.startswith("series") else box(0, 0, 28, 8, kind)
        rows.append(el("li", None, el("svg", {"viewBox": "0 0 28 8", "class": "swatch", "aria-hidden": "true"}, sign), " ", name))
    return el("ul", {"class": "legend"}, rows)
