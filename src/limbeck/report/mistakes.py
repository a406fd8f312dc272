"""Which classes are taken for which others, before and after."""

from __future__ import annotations

from limbeck.report.charts import table
from limbeck.report.markup import Html, Node, el
from limbeck.report.story import Confusion, Pairs

STRONGEST = 55  # percent of the accent's colour in the darkest cell: text stays readable on it


def confusion(told: Confusion) -> list[Node]:
    """Two tables with shaded cells; both are shaded on the same scale."""
    worst = max((n for matrix in (told.before, told.after) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j), default=0)
    lead = "Rows are labels, columns are answers. The diagonal is what is right; the other cells are mistakes, the stronger their colour the more."
    matrices = [_matrix(name, told.classes, matrix, worst) for name, matrix in (("baseline", told.before), ("final", told.after))]
    return [el("p", None, lead), el("div", {"class": "pair"}, matrices)]


def _matrix(name: str, classes: tuple[str, ...], matrix: tuple[tuple[int, ...], ...], worst: int) -> Html:
    head = el("tr", None, el("th", {"scope": "col"}, "label"), [el("th", {"scope": "col"}, c) for c in classes])
    rows = [
        el("tr", None, el("th", {"scope": "row"}, label), [_cell(n, right=i == j, worst=worst) for j, n in enumerate(row)])
        for i, (label, row) in enumerate(zip(classes, matrix, strict=True))
    ]
    wrong = sum(n for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j)
    caption = f"Confusion of the {name}: {wrong:,} mistakes"
    content = el("table", {"class": "matrix"}, el("caption", None, caption), el("thead", None, head), el("tbody", None, rows))
    return el("div", {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": caption}, content)


def _cell(number: int, *, right: bool, worst: int) -> Html:
    if right:
        return el("td", {"class": "right"}, f"{number:,}")
    heat = round(STRONGEST * number / worst) if worst else 0
    return el("td", {"class": "zero"} if not number else {"style": f"--heat:{max(heat, 6)}%"}, f"{number:,}" if number else "·")


def pairs(told: Pairs) -> list[Node]:
    lead = f"There are {told.classes:,} classes, too many for a matrix: these are the pairs that are mistaken most, by both models together."
    rows = [(f"{label} → {answer}", f"{before:,}", f"{after:,}", f"{after - before:+,}".replace("-", "−")) for label, answer, before, after in told.pairs]
    return [el("p", None, lead), table("Most mistaken pairs", ("label → answer", "baseline", "final", "change"), rows, kind="figures small")]
