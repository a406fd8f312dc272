"""What was right before and is wrong now: of which classes, and whether it was easy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import table
from limbeck.report.markup import Html, Node, el

OPEN = 12  # classes that are shown without a click
CHANCE = 0.05


def forgotten(found: Mapping[str, Any]) -> list[Node]:
    """A sentence each on how much, how easy and how near; then classes, sureness, and the samples themselves by number."""
    lead = f"Of {found['right']:,} samples of {found['split']} that the baseline has right the candidate loses {found['lost']:,}"
    lead += f" ({figures.percent(found['share'], 2)}, at most {figures.percent(found['share_high'], 2)}), and wins {found['won']:,} others." if found["share"] is not None else "."
    lead += f" McNemar's test that both are right equally often: p = {found['mcnemar']:.3g}; no verdict rests on it."
    return [el("p", None, lead), el("p", None, _easy(found)), *_classes(found["classes"]), _sureness(found["by_sureness"]), _worst(found["worst"])]


def _easy(found: Mapping[str, Any]) -> str:
    easy, margins, said = found["easy"], found["margins"], ""
    if easy and easy["of_lost"] is not None:
        said = f"{easy['lost']:,} of them ({figures.percent(easy['of_lost'], 0)}) were easy: the baseline was at least {figures.percent(easy['from'], 0)} sure. "
    if "missing" in margins:
        return said
    near = figures.percent(margins["lost"]["near"], 0), figures.percent(margins["kept"]["near"], 0)
    said += f"{near[0]} of what was lost lay near the baseline's boundary (a margin below {margins['near']:g}), of what was kept {near[1]}. "
    return said + f"In {figures.percent(margins['just_over'], 0)} of what was lost the candidate is wrong by no more than that."


def _classes(classes: Any) -> list[Node]:
    lost = [c for c in classes if c["lost"]]
    if not lost:
        return []
    rows = [(c["class"], f"{c['samples']:,}", f"{c['right']:,}", f"{c['lost']:,}", _bar(c["share"]), f"{c['won']:,}", _chance(c["p_value"])) for c in lost]
    head = ("class", "samples", "baseline right", "lost", "share", "won", "more than its part")
    content = table("Classes by what they lost; chance is corrected for their number", head, rows, kind="figures")
    if len(rows) > OPEN:
        return [el("details", None, el("summary", None, f"{len(rows)} classes lost something, {rows[0][0]} most"), content)]
    return [content]


def _chance(p_value: float) -> str:
    return f"yes, p = {p_value:.2g}" if p_value <= CHANCE else "no more than chance"


def _bar(share: float | None) -> Node:
    if share is None:
        return figures.NONE
    return el("span", {"class": "share", "style": f"--share:{100 * share:.0f}%"}, figures.percent(share))


def _sureness(groups: Any) -> Html | None:
    if not groups:
        return None
    rows = [(f"{figures.percent(g['from'], 2)} to {figures.percent(g['to'], 2)}", f"{g['right']:,}", f"{g['lost']:,}", _bar(g["share"])) for g in groups]
    return table("What was lost, by how sure the baseline was of its right answer", ("baseline's confidence", "right", "lost", "share"), rows, kind="figures small")


def _worst(worst: Any) -> Node:
    if not worst:
        return None
    rows = [(f"sample {w['id']}", w.get("label", "–"), w.get("says", "–"), figures.percent(w.get("sure")), figures.plain(w["margin"], 3)) for w in worst]
    content = table("Lost samples of which the baseline was surest", ("sample", "label", "candidate says", "baseline sure", "its margin"), rows, kind="figures small")
    return el("details", None, el("summary", None, f"The {len(rows)} lost samples to look at first"), content)
