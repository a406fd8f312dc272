"""Parts of the data that lose most, in words and with what was measured on samples that had no part in finding them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.report import figures
from limbeck.report.charts import table
from limbeck.report.markup import Html, Node, el


def found_slices(found: Mapping[str, Any]) -> list[Node]:
    """What was found; what was looked at and not proved stands behind a click."""
    sure = figures.percent(found["confidence"], 0)
    lead = f"A shallow tree on one half of {found['samples']:,} samples of {found['split']} sought where the candidate loses most, by {_listed(found['features'])}; "
    lead += "the other half judged what it found, and the halves changed places. What stands here lost more than the rest, "
    lead += f"and lost something at all, at {sure} confidence over everything that was looked at."
    return [el("p", None, lead), *_found(found), *_looked_at(found)]


def _found(found: Mapping[str, Any]) -> list[Node]:
    if not found["found"]:
        looked = len(found["not_proved"])
        said = "Nothing was found: " + (
            f"{looked} parts were looked at, and chance alone could show as much." if looked else "no sample lost anything that a feature could tell apart."
        )
        return [el("p", None, said)]
    worst = found["found"][0]
    return [el("p", None, el("strong", None, worst["words"]), f": {sentence(worst, binary=found['binary'])}."), _table("Parts that lose more than the rest", found["found"], found)]


def sentence(part: Mapping[str, Any], *, binary: bool) -> str:
    """What happened in a part: of held-out samples alone."""
    if not binary:
        return f"worse on {part['harmed']:,} of {part['samples']:,} held-out samples, by {figures.plain(part['drop'])} on average, at least {figures.plain(part['drop_low'])}"
    said = f"{part['harmed']:,} of {part['samples']:,} held-out samples went from right to wrong, {part['helped']:,} the other way"
    if part["retention"] is None:
        return said
    high = f", at most {figures.percent(min(part['retention_high'], 1.0))}" if part["retention_high"] is not None else ""
    return f"{said}; kept {figures.percent(part['retention'])}{high}"


def _table(caption: str, parts: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> Html:
    shown = figures.percent if found["binary"] else figures.plain
    head = ("part", "held-out samples", "worse", "better", "baseline", "final", "drop", "at least", "drop elsewhere", "p", "samples to look at")
    rows = [
        (
            p["words"],
            f"{p['samples']:,}",
            f"{p['harmed']:,}",
            f"{p['helped']:,}",
            *(shown(p[k]) for k in ("baseline", "candidate", "drop", "drop_low", "elsewhere")),
            f"{p['p_value']:.2g}",
            ", ".join(map(str, p["ids"])) or figures.NONE,
        )
        for p in parts
    ]
    return table(caption, head, rows, kind="figures wordy")


def _looked_at(found: Mapping[str, Any]) -> list[Node]:
    parts = found["not_proved"]
    if not parts:
        return []
    more = f"{len(parts)} {'more ' if found['found'] else ''}{'part was' if len(parts) == 1 else 'parts were'} looked at and not proved"
    note = el("p", {"class": "note"}, "These may be chance. They say where more samples would be worth having, and nothing else.")
    return [el("details", None, el("summary", None, more), note, _table("Looked at, not proved", parts, found))]


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:8]) + ([f"{len(names) - 8} more"] if len(names) > 8 else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" and {shown[-1]}" if shown else "nothing"
