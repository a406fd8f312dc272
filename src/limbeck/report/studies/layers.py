"""Which layers still hold what the baseline's hold: a row a layer, and all against all as a shaded table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import NARROW, both_widths, bottom_axis, dot, drawing, figure, label, line, table
from limbeck.report.markup import Html, Node, el
from limbeck.report.scales import Scale

ROW, TOP = 22, 12
STRONGEST = 55  # percent of the accent's colour where two layers hold the same: text stays readable on it


def layers(found: Mapping[str, Any]) -> list[Node]:
    """The one that moved most in a sentence, then all of them."""
    lead = f"Linear CKA on {found['samples']:,} samples of {found['split']}: 1 where a layer holds the same as the baseline's, whatever its width, 0 where both are unrelated. "
    told = [layer for layer in found["layers"] if layer["cka"] is not None]
    least = next((layer for layer in told if layer["path"] == found["moved_most"]), None)
    if least:
        like = least["most_like"]
        other = f"; it is more like {like['path']} ({like['cka']:.3f})" if like["path"] != least["baseline"] else ""
        lead += f"{least['path']} moved most, to {least['cka']:.3f}{other}. The mean is {found['mean']:.3f}."
    elif found["mean"] is not None:
        lead += f"No layer moved. The mean is {found['mean']:.3f}."
    rows = [
        (
            code(r["path"]),
            r["kind"],
            code(r["baseline"]) if r["baseline"] else "none answers",
            r["by"] or figures.NONE,
            _cka(r["cka"]),
            code(r["most_like"]["path"]),
            _cka(r["most_like"]["cka"]),
        )
        for r in found["layers"]
    ]
    head = ("layer", "kind", "the baseline's", "matched by", "CKA", "most like", "CKA")
    plot = figure("How much of the baseline's layer each layer still holds", *both_widths(lambda ident, width: chart(ident, width, told), "cka")) if told else None
    matrix = found["matrix"]
    listed = table("Layers in the order in which they run", head, rows, kind="figures named", hidden_caption=True)
    return [
        el("p", None, lead),
        plot,
        el("details", None, el("summary", None, f"{len(rows)} layers, each with what it is most like"), listed),
        el("details", None, el("summary", None, "All against all"), heat(matrix["candidate"], matrix["baseline"], matrix["cka"])),
    ]


def code(text: str) -> Html:
    return el("code", None, text)


def _cka(value: float | None) -> str:
    return figures.NONE if value is None else f"{value:.3f}"


def chart(ident: str, width: float, told: Sequence[Mapping[str, Any]]) -> Html:
    """A row a layer, first to last; the dashed line is sameness."""
    left = 130.0 if width <= NARROW else 250.0
    scale = Scale(min(0.0, *(r["cka"] for r in told)), 1.0, left, width - 12)
    bottom = TOP + ROW * len(told)
    parts = bottom_axis(scale, top=TOP, bottom=bottom, shown=lambda v: f"{v:.2f}", name="linear CKA with the baseline's layer", most=3 if width <= NARROW else 5)
    parts.append(line(scale(1.0), TOP - 4, scale(1.0), bottom, "limit"))
    for number, row in enumerate(told):
        y = TOP + ROW * (number + 0.5)
        parts += [label(left - 10, y + 4, _end(row["path"], 17 if width <= NARROW else 34), anchor="end", kind="name"), line(left, y, scale(row["cka"]), y, "grid")]
        parts.append(dot(scale(row["cka"]), y, 4.5, "point"))
    said = "; ".join(f"{r['path']}: {r['cka']:.3f}" for r in told)
    return drawing(ident, width=width, height=bottom + 36, title=f"CKA of {len(told)} layers with the baseline's", text=said + ".", parts=parts)


def _end(path: str, most: int) -> str:
    """The end of a path says more than its beginning."""
    return path if len(path) <= most else "…" + path[1 - most :]


def heat(candidate: Sequence[str], baseline: Sequence[str], cka: Sequence[Sequence[float]]) -> Html:
    """Rows are the candidate's layers, columns the baseline's; the stronger the colour, the more alike."""
    caption = "CKA of the candidate's layers (rows) with the baseline's (columns)"
    head = el("tr", None, el("th", {"scope": "col"}, "layer"), [el("th", {"scope": "col"}, _end(path, 12)) for path in baseline])
    rows = [
        el("tr", None, el("th", {"scope": "row"}, _end(path, 24)), [el("td", {"style": f"--heat:{round(STRONGEST * min(max(v, 0.0), 1.0))}%"}, f"{v:.2f}") for v in values])
        for path, values in zip(candidate, cka, strict=True)
    ]
    content = el("table", {"class": "matrix"}, el("caption", None, caption), el("thead", None, head), el("tbody", None, rows))
    return el("div", {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": caption}, content)
